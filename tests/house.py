"""`make counts`: files, lines, import circles and upward arrows; and `make docs`: the tree of docs/DESIGN.md.

A circle is a set of modules that import one another, also inside functions and under TYPE_CHECKING.  An arrow points
upwards where a module imports one of a higher layer, as setup.cfg lists the layers for import-linter.
"""

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PRODUCT = ("cli.py", "engine", "loaders", "kernels")
MOST_FILES = 198
DESIGN = REPOSITORY / "docs" / "DESIGN.md"
TREE = re.compile(r"<!-- tree -->\n.*?<!-- end -->", re.DOTALL)

Imports = dict[str, set[str]]  # module → the modules of the product that it imports


def python_files(*rooms: str) -> list[Path]:
    """The Python files of these rooms that git tracks, or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *rooms]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(REPOSITORY / name for name in set(listed) if name.endswith(".py") and (REPOSITORY / name).is_file())


def module_name(path: Path) -> str:
    """engine/train/step.py: engine.train.step."""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports_of(paths: Iterable[Path]) -> Imports:
    """What each module imports of the others, anywhere in its file."""
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in paths}
    return {name: imported(source, set(sources)) - {name} for name, source in sources.items()}


def imported(source: str, modules: set[str]) -> set[str]:
    """The modules among these that a source imports; `from package import module` counts as the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & modules) or {node.module}
    return found & modules


def circles(imports: Imports) -> list[list[str]]:
    """Sets of modules that import one another: each a path that ends where it began, the last of which is cut."""
    left, found = {name: set(others) for name, others in imports.items()}, []
    while True:
        try:
            tuple(TopologicalSorter(left).static_order())
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            found.append(circle)
            left[circle[0]].discard(circle[1])
        else:
            return found


def layers() -> list[list[set[str]]]:
    """The contracts of setup.cfg: for each its layers from above, each a set of packages or modules."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    contracts = [setup[name] for name in setup.sections() if name.startswith("importlinter:contract:")]
    return [
        [{name.strip() for name in line.split("|")} for line in contract["layers"].split("\n") if line.strip()]
        for contract in contracts
        if contract["type"] == "layers"
    ]


def place(module: str, contract: list[set[str]]) -> tuple[int, str] | None:
    """The level of a module in a contract, and the name there that it is or lies in; None where it has no place."""
    for level, names in enumerate(contract):
        for name in names:
            if module == name or module.startswith(f"{name}."):
                return level, name
    return None


def without_layer(modules: Iterable[str], contracts: list[list[set[str]]]) -> list[str]:
    """Modules of a package whose layers are listed that have no place in them."""
    found = []
    for contract in contracts:
        (package,) = {name.rpartition(".")[0] for names in contract for name in names}
        found += [name for name in modules if name.startswith(f"{package}.") and not place(name, contract)]
    return sorted(found)


def arrows_upwards(imports: Imports, contracts: list[list[set[str]]]) -> list[tuple[str, str]]:
    """Imports of a higher layer, or of a neighbour in the same one: importer and imported."""
    found = []
    for contract in contracts:
        for module, others in imports.items():
            for other in others:
                here, there = place(module, contract), place(other, contract)
                if here and there and here[1] != there[1] and there[0] <= here[0]:
                    found.append((module, other))
    return sorted(found)


def number_of_lines(paths: Iterable[Path]) -> int:
    """Lines in all."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def tree() -> str:
    """The product's files as a tree, each with the first line of its docstring; a package's stands at its name."""
    lines = []
    for path in python_files(*PRODUCT):
        parts, summary = path.relative_to(REPOSITORY).parts, first_line(path)
        if path.name == "__init__.py":
            lines.append(("    " * (len(parts) - 2) + f"{parts[-2]}/", summary))
        else:
            lines.append(("    " * (len(parts) - 1) + path.stem, summary))
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:{width}}{summary}".rstrip() for name, summary in lines)


def first_line(path: Path) -> str:
    """What a module's docstring begins with, without its full stop."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0].rstrip(".")


def with_tree(text: str) -> str:
    """docs/DESIGN.md with the tree between its marks."""
    return TREE.sub(lambda _: f"<!-- tree -->\n```text\n{tree()}\n```\n<!-- end -->", text)


def main() -> None:
    """Print the counts; with --document, write the tree instead."""
    if sys.argv[1:] == ["--document"]:
        DESIGN.write_text(with_tree(DESIGN.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for title, rooms in (("product", PRODUCT), ("tests", ("tests",)), ("benchmarks", ("benchmarks",))):
        paths = python_files(*rooms)
        print(f"{title:12}{len(paths):5} files{number_of_lines(paths):8,} lines")
    imports = imports_of(python_files(*PRODUCT))
    for title, found, arrow in (
        ("import circles", circles(imports), " → "),
        ("arrows upwards", arrows_upwards(imports, layers()), " → "),
    ):
        print(f"{title}: {len(found)}")
        for one in found:
            print(f"  {arrow.join(one)}")


if __name__ == "__main__":
    main()
