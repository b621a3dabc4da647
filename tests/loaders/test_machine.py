"""The machine: cores, memory, the allocator, locks and atomic files, and workers that report a death."""

import ast
import errno
import multiprocessing.forkserver
import os
import platform
import signal
import stat
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import cli
from loaders import machine
from loaders import machine as arena
from loaders.atomic_file import LOCK, locked, publish, publish_bytes, storage_error
from loaders.errors import RadiographError, StorageError
from loaders.images.files import read_file
from loaders.images.ready import load_all
from loaders.workers import map_in_processes, worker_context

ROOM = 1 << 30
REPOSITORY = Path(__file__).parents[2]


def place(monkeypatch: pytest.MonkeyPatch, root: Path, groups: str, files: dict[str, str]) -> None:
    """A process in these control groups, with these control files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "own").write_text(groups)
    monkeypatch.setattr(machine, "CGROUPS", root)
    monkeypatch.setattr(machine, "OWN_GROUPS", root / "own")


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/a/b\n", {"a/b/memory.max": f"{ROOM}\n"}),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{ROOM}\n"}),
        ("0::/a/b\n", {"a/b/memory.max": f"{5 * ROOM}\n", "a/memory.max": f"{ROOM}\n"}),
        ("7:memory:/a\n3:cpu,cpuacct:/\n", {"memory/a/memory.limit_in_bytes": f"{ROOM}\n"}),
    ],
)
def test_the_tightest_memory_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: str, files: dict[str, str]
) -> None:
    place(monkeypatch, tmp_path, groups, files)
    assert machine.usable_memory() == ROOM


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 2),
        ("0::/a\n", {"a/cpu.max": "20000 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 16),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000\n"}, 3),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n"}, 16),
    ],
)
def test_a_quota_of_processor_time_counts_as_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: str, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    place(monkeypatch, tmp_path, groups, files)
    assert machine.usable_cores() == cores


def test_without_control_groups_the_whole_machine_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "none")
    assert machine.usable_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)


REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import resource, sys
from loaders.machine import keep_allocations
kept = keep_allocations(sys.argv[1] == "on")
import torch
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

settled = [faults() for _ in range(60)]  # an aligned block does not fit the hole it left until holes have merged
print(int(kept), sum(settled[-5:]))
"""


def run(switch: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, switch], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return list(map(int, done.stdout.split()))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this arena")
def test_memory_that_was_freed_is_mapped_when_it_is_taken_again() -> None:
    kept, faults_kept = run("on")
    assert kept == 1
    kept, faults_mapped = run("off")
    assert kept == 0 and faults_mapped > 10 * max(faults_kept, 10)  # 32 huge pages each time, or 16,384 small ones


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena.platform, "libc_ver", lambda: ("", ""))
    assert not arena.keep_allocations()


@pytest.mark.parametrize(("flags", "wanted"), [([], True), (["--no-arena"], False)])
def test_training_uses_the_arena_unless_it_is_turned_off(
    flags: list[str], wanted: bool, betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(cli, "keep_allocations", asked.append)
    assert cli.main(["train", str(betons), "--out", str(tmp_path / "run"), "--epochs", "1", *flags]) == 0
    assert asked == [wanted]


def failing_sync(number: int) -> object:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_missing_space_is_reported_in_bytes(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing_sync(number))
    with pytest.raises(StorageError, match=r"a\.bin: .*, expected 12,345 bytes of room; (free|raise)"):
        publish_bytes(tmp_path / "a.bin", bytes(12_345))
    with pytest.raises(StorageError, match="expected 7 bytes of room"), publish(tmp_path / "b.bin") as file:
        file.write(b"unknown")
    with pytest.raises(StorageError, match="expected 99 bytes of room"), publish(tmp_path / "c.bin", size=99) as file:
        file.write(b"known")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_disk_is_not_called_a_lack_of_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing_sync(errno.EIO))
    with pytest.raises(StorageError, match=r"Input/output error, expected no error; check the disk"):
        publish_bytes(tmp_path / "a.bin", bytes(12_345))


def test_a_lock_that_finds_no_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *given: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.open", full)
    with pytest.raises(StorageError, match=rf"{LOCK}: No space left on device"), locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOENT, "expected it to exist; check the path"),
        (errno.ENOTDIR, "expected a folder; check the path: part of it is a file"),
        (errno.EACCES, "expected access; change its permissions, or choose another place"),
        (errno.EISDIR, "expected a file; choose another path"),
        (errno.ELOOP, "expected no link, or one that ends; remove or correct the link"),
        (errno.ENOSPC, "expected room; free some disk space"),
        (errno.EROFS, "expected a writable place; choose another"),
        (errno.ENAMETOOLONG, "expected a shorter name; shorten it, or the folders it lies in"),
        (errno.EMFILE, "expected fewer open files; raise their limit"),
        (errno.ENOLCK, "expected a file system with locks; choose another place"),
        (errno.EIO, "expected no error; check the disk"),
    ],
)
def test_each_error_of_the_system_has_the_remedy_that_helps(number: int, remedy: str) -> None:
    text = str(storage_error(Path("a.csv"), OSError(number, os.strerror(number))))
    assert text.startswith(f"a.csv: {os.strerror(number)}, {remedy}")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("away.png", "No such file or directory, expected a readable file; check the path"),
        ("file/away.png", "Not a directory, expected a readable file; check the path: part of it is a file"),
        ("loop.png", "Too many levels of symbolic links, expected a readable file; remove or correct the link"),
        ("x" * 300, "File name too long, expected a readable file; shorten it"),
    ],
)
def test_a_film_that_cannot_be_opened_is_not_said_to_lack_permissions(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(RadiographError, match=f"^{remedy}"):
        read_file(tmp_path / name)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_lock_and_a_published_file_have_the_umasks_permissions(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with locked(tmp_path / "out"):
            publish_bytes(tmp_path / "out" / "a.bin", b"a")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in (LOCK, "a.bin")] == [mode, mode]


AS_USER = """
import os, sys
from pathlib import Path
from loaders.atomic_file import locked, publish_bytes
from loaders.errors import PlainfilmError
folder, user, umask = sys.argv[1:]
os.umask(int(umask, 8))
os.setgroups([]), os.setegid(65533), os.seteuid(int(user))
try:
    with locked(Path(folder)):
        publish_bytes(Path(folder) / "a.bin", user.encode())
except PlainfilmError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
@pytest.mark.parametrize("umask", ["002", "022"])
@pytest.mark.parametrize("mode", [0o2775, 0o3775])
def test_a_second_user_of_a_group_folder_can_write_there_and_is_locked_out_meanwhile(umask: str, mode: int) -> None:
    def as_user(user: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", AS_USER, str(folder), str(user), umask]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(cli.__file__).parent)

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "out"
        folder.mkdir()
        os.chown(folder, 0, 65533)
        folder.chmod(mode)
        first = as_user(65001)
        assert first.returncode == 0, first.stderr
        with locked(folder):
            assert as_user(65002).stderr.startswith("LockedError: ")
        second = as_user(65002)
        if mode & stat.S_ISVTX:  # the lock is no obstacle; the other's file is, and is named
            assert second.stderr.startswith(f"StorageError: {folder / 'a.bin'}: Operation not permitted")
        else:
            assert second.returncode == 0, second.stderr
            assert (folder / "a.bin").read_text() == "65002"


def nothing() -> None:
    """Nothing to prepare."""


def answer(task: int | str) -> bytes:
    """What the tests' workers do."""
    match task:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die in the middle of an answer":

            def torn(self: Connection, data: bytes) -> None:
                os.write(self.fileno(), bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)

            Connection._send = torn  # type: ignore[method-assign]
        case "exit":
            sys.exit(0)
        case "raise":
            raise ValueError("a bad task")
    return str(task).encode() * 1000


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()} if Path("/dev/shm").is_dir() else set()


def test_answers_come_in_order_and_nothing_is_in_shared_memory() -> None:
    before, appeared = shared_memory(), set()
    tasks = list(range(30))
    found = []
    for result in map_in_processes(answer, tasks, 2, nothing):
        found.append(result)
        appeared |= shared_memory() - before
    assert found == [answer(task) for task in tasks]
    assert not {name for name in appeared if name.startswith("sem.mp-")}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("death", ["die", "die in the middle of an answer", "exit"])
def test_a_workers_death_is_an_error_not_a_wait_without_end(death: str) -> None:
    with pytest.raises(ChildProcessError, match="died"):
        list(map_in_processes(answer, [*range(10), death, *range(10)], 2, nothing))


def test_an_error_in_a_worker_is_raised_as_it_is_with_where_it_came_from() -> None:
    with pytest.raises(ValueError, match="a bad task") as caught:
        list(map_in_processes(answer, [*range(5), "raise"], 2, nothing))
    assert "in answer" in caught.value.__notes__[0]


def imported(name: str) -> tuple[bool, int, str | None]:
    return name in sys.modules, os.getppid(), os.environ.get("PYTHONSAFEPATH")


def test_workers_are_forked_from_a_process_that_has_imported_their_work_and_nothing_from_the_users_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "numpy.py").write_text("import pathlib; pathlib.Path('planted').touch()")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "import os, sys\n"
        "from loaders.workers import map_in_processes\n"
        "def nothing(): pass\n"
        "def main():\n"
        "    from loaders.images.decode import inside\n"
        "    from tests.loaders.test_machine import imported\n"
        "    before = dict(os.environ)\n"
        "    print(set(map_in_processes(imported, ['loaders.images.ready'] * 40, 2, nothing)), os.getpid())\n"
        "    assert dict(os.environ) == before\n"
        "if __name__ == '__main__': main()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found, own = done.stdout.rsplit(" ", 1)
    ((known, parent, safe),) = ast.literal_eval(found)  # one parent for all of them
    assert known and parent != int(own) and safe == "1"
    assert not (tmp_path / "planted").exists()


def test_what_decoding_needs_is_loaded_whole() -> None:
    load_all()  # where it is imported, errors are passed over
    program = (
        "import loaders.images.ready\nfrom kernels.decoding import shrink_into, unfilter_into\n"
        "print(len(unfilter_into.signatures), len(shrink_into.signatures))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["1", "2"]  # of grey levels of 8 bits, and of 8 and of 16


def test_ctrl_c_while_that_process_starts_is_the_callers_alone() -> None:
    script = (
        "import os, signal, sys, time\n"
        "from loaders.workers import map_in_processes, worker_context\n"
        "from tests.loaders.test_machine import answer, nothing\n"
        "signal.signal(signal.SIGINT, lambda *given: print('interrupted', flush=True))\n"
        "worker_context()\n"
        "time.sleep(0.3)\n"
        "os.killpg(0, signal.SIGINT)\n"
        "assert list(map_in_processes(answer, [1, 2, 3], 2, nothing)) == [answer(task) for task in (1, 2, 3)]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
        start_new_session=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_on_macos_each_worker_starts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert worker_context().get_start_method() == "spawn"


def test_workers_start_by_themselves_where_no_process_to_fork_from_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(multiprocessing.forkserver, "ensure_running", no_room)
    before = dict(os.environ)
    assert list(map_in_processes(answer, [1, 2, 3], 2, nothing)) == [answer(task) for task in (1, 2, 3)]
    assert dict(os.environ) == before
