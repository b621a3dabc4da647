"""Wordings: what a vision-language model is asked of a film, each question in both orders of its options."""

import string
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loaders.config import Task
from loaders.errors import ConfigError

SHIPPED = "shipped"
FILE = Path(__file__).with_suffix(".toml")
YES_NO = ("yes", "no")  # the answers that tell whether a finding is present
PLACES: dict[Task, set[str]] = {"classes": {"options"}, "findings": {"options", "finding"}}
MOST = 20  # questions: each costs two passes or more of the model over every film


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """One question in one order of its options.  prompt: its place among the questions, which both orders share."""

    prompt: int
    text: str


def read_prompts(source: str, task: Task) -> tuple[str, ...]:
    """The questions of a task, from the file that is shipped or from one of the user's own.

    Errors: ConfigError for a file that is not there, or is no such file.
    """
    path = FILE if source == SHIPPED else Path(source)
    named = f"--prompts {source}"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{named}: {error.strerror}, expected {SHIPPED} or a TOML file; check the path") from error
    except ValueError as error:
        raise ConfigError(f"{named}: not TOML ({error}), expected lists of questions like {FILE.name}'s") from error
    prompts = content.get(task)
    if not isinstance(prompts, list) or not 1 <= len(prompts) <= MOST or not all(isinstance(x, str) for x in prompts):
        raise ConfigError(f"{named}: no list {task!r} of 1 to {MOST} questions, expected one like {FILE.name}'s")
    for prompt in prompts:
        check_prompt(named, prompt, task)
    if len(set(prompts)) != len(prompts):
        raise ConfigError(f"{named}: asks the same question of {task} twice, expected different ones; remove one")
    return tuple(prompts)


def check_prompt(named: str, prompt: str, task: Task) -> None:
    """Errors: ConfigError for a question that lacks a place, or has one that nothing fills."""
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None}
    except ValueError as error:
        raise ConfigError(
            f"{named}: {prompt!r} cannot be filled in ({error}); write {{{{ and }}}} for braces"
        ) from error
    if found != PLACES[task]:
        wanted = " and ".join(f"{{{name}}}" for name in sorted(PLACES[task]))
        raise ConfigError(
            f"{named}: {prompt!r} has {', '.join(sorted(found)) or 'nothing'} to fill in, expected {wanted}"
        )


def wordings_of(prompts: Sequence[str], options: Sequence[str], finding: str = "") -> tuple[Wording, ...]:
    """Each question with its options as given, and with them reversed.  finding: what is asked about, if anything."""
    return tuple(
        Wording(prompt=number, text=prompt.format(options=choice(order), finding=finding))
        for number, prompt in enumerate(prompts)
        for order in (tuple(options), tuple(reversed(options)))
    )


def choice(options: Sequence[str]) -> str:
    """Options in a sentence: "covid, normal or pneumonia"."""
    return " or ".join(part for part in (", ".join(options[:-1]), options[-1]) if part)
