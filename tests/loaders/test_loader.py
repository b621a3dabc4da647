"""The loader: the same bytes whoever makes them, exact resume, nothing left behind."""

import ctypes
import gc
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cli
import loaders
from loaders.batches.loader import Loader
from loaders.batches.memory import BatchMemory
from loaders.batches.throughput import Epoch, find_bottleneck, measure
from loaders.beton.format import ROW, Facts
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.config import BenchLoaderConfig, LoaderConfig, stored_side
from loaders.errors import BetonError, ConfigError
from loaders.sampling import epoch_matrices, epoch_order
from loaders.workers import WatchedThreads
from tests import naive


@pytest.fixture(scope="module")
def large_beton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 MiB of noise: 960 frames of 320 × 320 in pages of 2 MiB."""
    path, side = tmp_path_factory.mktemp("large") / "train.beton", stored_side(224)
    noise_B = np.random.default_rng(0).integers(0, 256, 2 * side**2).astype(np.uint8)
    num_samples = (2 << 20) // side**2 * 48
    facts = Facts(
        classes=("covid", "normal"),
        positive="covid",
        stored=side,
        crop=224,
        fit="stretch",
        split="train",
        seed=0,
        conversion_id="",
        site_key_id="",
        source_fingerprint="",
    )
    frames = (noise_B[n : n + side**2].reshape(side, side) for n in range(num_samples))
    write_beton(path, frames, np.arange(num_samples) % 2, np.zeros(num_samples, ROW), facts, 2 << 20)
    return path


def epoch(loader: Loader) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return list(loader)


def test_training_batches_are_the_oracles_augmentation_of_the_shuffled_frames(betons: Path) -> None:
    config = LoaderConfig(training=True, seed=9, batch_size=7, augment_from="frame")
    with Loader(betons / "train.beton", config) as loader, Beton(loader.beton.path) as raw:
        loader.set_epoch(4)
        num_samples, visited = len(raw), []
        inverse_N23 = epoch_matrices(loader.config, 4, num_samples, 32, 46)
        for frames_N1HW, labels_N, index_N in loader:
            assert frames_N1HW.dtype == np.float32 and frames_N1HW.shape[1:] == (1, 32, 32)
            assert (labels_N == raw.label_N[index_N]).all()
            for frame, index in zip(frames_N1HW, index_N, strict=True):
                wanted = naive.affine(raw.frame(index), inverse_N23[index], 32, 0, 45)
                assert np.abs(frame[0] - wanted).max() <= 1e-3
            visited += index_N.tolist()
    assert visited == epoch_order(9, 4, num_samples).tolist()


def test_evaluation_batches_are_the_central_crops_in_file_order(betons: Path) -> None:
    with Loader(betons / "val.beton", batch_size=5) as loader, Beton(loader.beton.path) as raw:
        visited = []
        for frames_N1HW, _, index_N in loader:
            for frame, index in zip(frames_N1HW, index_N, strict=True):
                np.testing.assert_allclose(frame[0], naive.crop(raw.frame(index), 32), atol=2e-7)
            visited += index_N.tolist()
        assert visited == list(range(len(raw)))


@pytest.mark.parametrize("training", [True, False])
def test_any_number_of_threads_gives_the_same_bytes(betons: Path, training: bool) -> None:
    def content(threads: int) -> bytes:
        with Loader(betons / "train.beton", training=training, threads=threads, batch_size=3) as loader:
            return b"".join(array.tobytes() for _ in range(2) for batch in loader for array in batch)

    assert content(1) == content(2) == content(7)


def test_augmentation_never_samples_outside_the_crop_unless_asked_to(betons: Path) -> None:
    with Loader(betons / "train.beton", training=True, batch_size=4) as loader:
        inverse_N23 = epoch_matrices(loader.config, 0, len(loader.beton), 32, 46)
        for frames_N1HW, _, index_N in loader:
            for frame, index in zip(frames_N1HW, index_N, strict=True):
                wanted = naive.affine(loader.beton.frame(index), inverse_N23[index], 32, 7, 38)
                assert np.abs(frame[0] - wanted).max() <= 1e-3


@pytest.mark.parametrize("taken", [0, 1, 3, 999])
def test_a_loaded_state_yields_the_identical_remaining_batches(betons: Path, taken: int) -> None:
    config = LoaderConfig(training=True, seed=2, batch_size=4, threads=2)
    with Loader(betons / "train.beton", config) as loader, Loader(betons / "train.beton", config) as second:
        loader.set_epoch(3)
        batches = iter(loader)
        for _ in range(min(taken, len(loader))):
            next(batches)
        state = loader.state_dict()
        assert len(str(state)) < 1024
        second.load_state_dict(state)
        rest, again = list(batches), list(second)
        assert len(rest) == len(again) == max(0, len(loader) - taken)
        for a, b in zip(rest, again, strict=True):
            assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))
        assert loader.epoch == second.epoch == 4


def test_each_for_is_one_epoch_and_the_next_differs(betons: Path) -> None:
    with Loader(betons / "train.beton", training=True) as loader:
        first, second = epoch(loader), epoch(loader)
        assert loader.epoch == 2
        assert sorted(np.concatenate([b[2] for b in first])) == sorted(np.concatenate([b[2] for b in second]))
        assert first[0][0].tobytes() != second[0][0].tobytes()


def test_peeking_at_the_first_batch_does_not_eat_it(betons: Path) -> None:
    with Loader(betons / "train.beton", training=True) as loader:
        peeked = next(iter(loader))
        assert next(iter(loader))[0].tobytes() == peeked[0].tobytes()


def test_batches_are_the_consumers_to_keep(betons: Path) -> None:
    with Loader(betons / "train.beton", training=True, batch_size=3, threads=2) as loader:
        kept = epoch(loader)
        copies = [frames.copy() for frames, _, _ in kept]
        for frames, _, _ in epoch(loader):
            frames[:] = 7
        assert all((a == b).all() for (a, _, _), b in zip(kept, copies, strict=True))


def test_a_thousand_early_breaks_leave_no_threads(betons: Path) -> None:
    before = threading.active_count()
    with Loader(betons / "train.beton", training=True, batch_size=2, threads=2) as loader:
        for _ in range(1000):
            for _ in loader:
                break
    assert threading.active_count() == before


def resident_kib(kind: str) -> int:
    """RssAnon or RssFile of this process."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+) kB", status)[1])  # type: ignore[index]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_early_breaks_hold_memory_flat(betons: Path) -> None:
    with Loader(betons / "train.beton", training=True, batch_size=32, threads=2) as loader:
        for count in range(1000):
            for _ in loader:
                break
            if count == 200:
                before = resident_kib("RssAnon")
        assert resident_kib("RssAnon") - before < 8 << 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("training", [True, False])
def test_a_streamed_beton_holds_few_pages_in_memory(
    large_beton: Path, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    monkeypatch.setattr("loaders.sampling.WINDOW_BYTES", 4 << 20)
    monkeypatch.setattr("loaders.batches.memory.WINDOW_BYTES", 4 << 20)
    most = {}
    for memory in (1, 1 << 40):
        monkeypatch.setattr("loaders.batches.loader.usable_memory", lambda memory=memory: memory)
        with Loader(large_beton, training=training, threads=1) as loader:
            before = resident_kib("RssFile")
            most[memory] = max(resident_kib("RssFile") - before for _ in loader)
    assert most[1] < 40 << 10 < 90 << 10 < most[1 << 40]  # the file has 96 MiB


def test_leaving_with_an_epoch_half_done_is_safe_and_going_on_is_refused(betons: Path) -> None:
    for _ in range(200):
        with Loader(betons / "train.beton", training=True, batch_size=2, threads=3) as loader:
            batches = iter(loader)
            next(batches)
        with pytest.raises(ConfigError, match="this loader is closed"):
            next(batches)
    with pytest.raises(ConfigError, match="this loader is closed"):
        iter(loader)


def test_of_two_iterations_at_once_the_older_is_refused(betons: Path) -> None:
    with Loader(betons / "train.beton", training=True, batch_size=4) as loader:
        older, newer = iter(loader), iter(loader)
        next(newer)
        next(older)
        with pytest.raises(ConfigError, match="another iteration of this loader has begun"):
            next(older)
        next(newer)


def test_an_epoch_that_is_set_while_another_is_iterated_comes_next(betons: Path) -> None:
    with Loader(betons / "train.beton", training=True, batch_size=4) as loader:
        for step, _ in enumerate(loader):
            if step == 1:
                loader.set_epoch(7)
            if step >= 1:
                assert loader.state_dict()["position"] == 0
        assert loader.epoch == 7
        epoch(loader)
        assert loader.epoch == 8


def test_the_first_ranks_state_is_every_ranks(betons: Path) -> None:
    with Beton(betons / "train.beton") as beton:
        assert len(beton) % 2  # so that the first rank has one sample more
    ranks = [Loader(betons / "train.beton", training=True, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in ranks[0]:
        state = ranks[0].state_dict()
    ranks[1].load_state_dict(state)
    assert epoch(ranks[1]) == [] and ranks[1].epoch == 1


@pytest.mark.parametrize("changes", [{"order": "page"}, {"augment_from": "corp"}])
def test_a_choice_that_does_not_exist_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"found '{next(iter(changes.values()))}', expected "):
        LoaderConfig(**changes)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_killed_loader_ends_at_once_and_leaves_nothing(betons: Path, name: str) -> None:
    program = (
        "import sys\nfrom loaders.batches.loader import Loader\n"
        f"loader = Loader({str(betons / 'train.beton')!r}, training=True, batch_size=2)\n"
        "while True:\n"
        "    for _ in loader:\n"
        "        print('batch', flush=True)\n"
    )
    shared = Path("/dev/shm")
    before = set(shared.iterdir()) if shared.exists() else set()
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    for _ in range(5):
        assert process.stdout.readline()
    process.send_signal(getattr(signal, name))
    process.stdout.close()
    assert process.wait(timeout=30) != 0
    assert (set(shared.iterdir()) if shared.exists() else set()) <= before


def test_a_loader_survives_being_left_open_reused_and_reopened_in_other_sizes(betons: Path) -> None:
    before = threading.active_count()
    whole = [batch[2] for batch in Loader(betons / "train.beton", training=True, batch_size=5)]
    for batch_size, threads in [(1, 1), (64, 3), (5, 2)]:
        with Loader(betons / "train.beton", training=True, batch_size=batch_size, threads=threads) as loader:
            next(iter(loader))
            assert np.concatenate([batch[2] for batch in loader]).tolist() == np.concatenate(whole).tolist()
    assert threading.active_count() == before


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("training", [True, False])
def test_ranks_share_each_global_batch_and_get_every_sample_once(betons: Path, training: bool, world_size: int) -> None:
    ranks = [
        Loader(betons / "train.beton", training=training, batch_size=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    with Loader(betons / "train.beton", training=training, batch_size=2 * world_size) as whole:
        of_ranks = [[batch[2].tolist() for batch in rank] for rank in ranks]
        assert [len(batches) for batches in of_ranks] == [len(rank) for rank in ranks]
        assert max(map(len, of_ranks)) == len(whole)
        for step, (_, _, index_N) in enumerate(whole):
            together = [sample for batches in of_ranks if step < len(batches) for sample in batches[step]]
            assert sorted(together) == sorted(index_N.tolist())
    for rank in ranks:
        rank.close()


def test_a_ranks_batches_have_the_same_bytes_as_in_the_whole(betons: Path) -> None:
    with (
        Loader(betons / "train.beton", training=True, batch_size=4) as whole,
        Loader(betons / "train.beton", training=True, batch_size=4, rank=1, world_size=2) as part,
    ):
        frame_of = {i: frame.tobytes() for batch in whole for frame, i in zip(batch[0], batch[2], strict=True)}
        for frames_N1HW, _, index_N in part:
            assert all(frame.tobytes() == frame_of[i] for frame, i in zip(frames_N1HW, index_N, strict=True))


def test_a_resident_beton_gives_the_same_bytes(betons: Path) -> None:
    def content(resident: str) -> bytes:
        with Loader(betons / "train.beton", training=True, resident=resident, batch_size=3) as loader:
            return b"".join(array.tobytes() for batch in loader for array in batch)

    assert content("on") == content("auto") == content("off")


def test_a_resident_loader_does_without_its_file_once_it_is_open(betons: Path, tmp_path: Path) -> None:
    program = (  # a process of its own: without the fix SIGBUS ends it
        "import hashlib, os, shutil, sys\nfrom loaders.batches.loader import Loader\n"
        "def content(path, cut):\n"
        "    with Loader(path, training=True, resident='on', batch_size=3, threads=2) as loader:\n"
        "        if cut: os.truncate(path, 1)\n"
        "        return [hashlib.sha256(array.tobytes()).hexdigest() for batch in loader for array in batch]\n"
        "copied = shutil.copy(sys.argv[1], sys.argv[2])\n"
        "sys.exit(content(sys.argv[1], False) != content(copied, True))\n"
    )
    command = [sys.executable, "-c", program, str(betons / "train.beton"), str(tmp_path / "cut.beton")]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_beton_over_half_the_memory_is_read_by_pages(betons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (betons / "train.beton").stat().st_size
    for memory, order in ((size * 3, "random"), (size, "pages")):
        monkeypatch.setattr("loaders.batches.loader.usable_memory", lambda memory=memory: memory)
        with Loader(betons / "train.beton", training=True) as loader:
            assert loader.order == order and loader.streamed == (order == "pages")
            visited = np.concatenate([index_N for _, _, index_N in loader]).tolist()
            assert sorted(visited) == list(range(len(loader.beton)))
        with Loader(betons / "train.beton", training=True, order="random") as chosen:
            assert chosen.order == "random"


def test_a_state_keeps_the_order_that_was_chosen_where_it_began(betons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loaders.batches.loader.usable_memory", lambda: 1)
    with Loader(betons / "train.beton", training=True, batch_size=4) as small:
        batches = iter(small)
        next(batches)
        state = small.state_dict()
        monkeypatch.undo()
        with Loader(betons / "train.beton", training=True, batch_size=4) as large:
            large.load_state_dict(state)
            rest = [index_N.tolist() for _, _, index_N in large]
        assert rest == [index_N.tolist() for _, _, index_N in batches]


def test_the_consumers_wait_is_counted(betons: Path) -> None:
    with Loader(betons / "train.beton", training=True, threads=1, prefetch=0) as loader:
        assert loader.wait_seconds == loader.making_seconds == 0
        epoch(loader)
        assert loader.wait_seconds > 0 and loader.making_seconds > 0 and loader.cpu_seconds > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_page_locked_memory_without_cuda_is_refused_with_a_reason(betons: Path) -> None:
    with pytest.raises(ConfigError, match="--pin-memory: found no CUDA device"):
        Loader(betons / "train.beton", pin_memory=True, tensors=True)
    with pytest.raises(ConfigError, match="--pin-memory: found numpy batches"):
        Loader(betons / "train.beton", pin_memory=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_page_locked_batches_hold_the_same_numbers(betons: Path) -> None:
    with (
        Loader(betons / "train.beton", training=True, pin_memory=True, tensors=True) as pinned,
        Loader(betons / "train.beton", training=True, tensors=True) as plain,
    ):
        for (a, _, _), (b, _, _) in zip(pinned, plain, strict=True):
            assert a.is_pinned() and torch.equal(a, b)


def test_threads_never_touch_torchs_own(betons: Path) -> None:
    before = torch.get_num_threads()
    with Loader(betons / "train.beton", threads=3) as loader:
        epoch(loader)
    assert torch.get_num_threads() == before


def test_tensors_hold_the_same_numbers(betons: Path) -> None:
    with Loader(betons / "val.beton") as plain, Loader(betons / "val.beton", tensors=True) as loader:
        for arrays, tensors in zip(plain, loader, strict=True):
            for array, tensor in zip(arrays, tensors, strict=True):
                assert isinstance(tensor, torch.Tensor)
                np.testing.assert_array_equal(array, tensor.numpy())


def test_a_damaged_sample_reaches_the_caller_by_number(betons: Path, tmp_path: Path) -> None:
    content = bytearray((betons / "train.beton").read_bytes())
    with Beton(betons / "train.beton") as beton:
        content[int(beton.offset_N[11]) + 5] ^= 1
    path = tmp_path / "damaged.beton"
    path.write_bytes(content)
    before = threading.active_count()
    with Loader(path, training=True, batch_size=4) as loader, pytest.raises(BetonError, match="sample 11: checksum"):
        epoch(loader)
    assert threading.active_count() == before


def test_a_state_of_another_seed_or_set_is_refused(betons: Path) -> None:
    with Loader(betons / "train.beton", seed=1) as loader:
        for name, value, found in (
            ("seed", 2, "seed 2"),
            ("position", 5000, "position 5000"),
            ("world_size", 2, "of 2 ranks"),
        ):
            with pytest.raises(ConfigError, match=found):
                loader.load_state_dict(loader.state_dict() | {name: value})


def test_the_loader_works_without_torch(betons: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from loaders.batches.loader import Loader\n"
        f"with Loader({str(betons / 'val.beton')!r}) as loader:\n"
        "    print(sum(len(labels) for _, labels, _ in loader))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    with Beton(betons / "val.beton") as beton:
        assert done.stdout.strip() == str(len(beton)), done.stderr


def test_without_rotation_and_zoom_training_gets_the_central_crops(betons: Path) -> None:
    still = LoaderConfig(training=True, rotation=0, zoom_low=0, zoom_high=0)
    with Loader(betons / "val.beton", still) as loader:
        for frames_N1HW, _, index_N in loader:
            for frame, index in zip(frames_N1HW, index_N, strict=True):
                np.testing.assert_allclose(frame[0], naive.crop(loader.beton.frame(index), 32), atol=2e-7)


@pytest.mark.parametrize("error, expected", [(SystemExit(0), RuntimeError), (MemoryError("planted"), MemoryError)])
def test_whatever_ends_a_thread_is_an_error_in_the_caller(
    betons: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: type[Exception]
) -> None:
    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("loaders.batches.loader.affine_into", failing)
    with Loader(betons / "train.beton", training=True) as loader, pytest.raises(expected):
        list(loader)


@pytest.mark.timeout(60)
def test_a_dead_thread_is_an_error_not_a_wait_without_end() -> None:
    threads = WatchedThreads(1, "mortal")
    (mortal,) = {threads.result(threads.submit(threading.current_thread))}
    # so it ends in the middle of nothing, and takes the next work with it
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(mortal.ident), ctypes.py_object(SystemExit))
    with pytest.raises(RuntimeError, match="mortal_0 died"):
        threads.result(threads.submit(int))
    threads.close()


@pytest.mark.timeout(60)
def test_threads_that_die_as_they_are_called_to_leave_keep_nobody_waiting() -> None:
    threads, together = WatchedThreads(2, "mortal"), threading.Barrier(2)

    def meet() -> threading.Thread:
        together.wait()
        return threading.current_thread()

    mortals = [threads.result(future) for future in [threads.submit(meet), threads.submit(meet)]]
    for mortal in mortals:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(mortal.ident), ctypes.py_object(SystemExit))
    threads.close()
    assert not any(mortal.is_alive() for mortal in mortals)


# ---- the way in for other people's scripts


def documented_scripts() -> list[str]:
    """The script in the docstring of loaders, and every one in the documents that uses the loader."""
    docstring = textwrap.dedent((loaders.__doc__ or "").split("stable:\n")[1].split("\n\nKeywords")[0])
    root = Path(loaders.__file__).parents[1]
    texts = [path.read_text(encoding="utf-8") for path in (root / "README.md", *sorted((root / "docs").glob("*.md")))]
    blocks = [block for text in texts for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    return [docstring, *(block for block in blocks if re.search(r"from loaders\S* import Loader\b", block))]


def test_the_documented_scripts_run(betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "B").symlink_to(betons, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    scripts = documented_scripts()
    assert len(scripts) >= 2
    for script in scripts:
        used: dict[str, Any] = {}
        exec(compile(script, "a documented script", "exec"), used)
        assert used["Loader"] is Loader is loaders.Loader
        assert len(used["index_N"]) == len(used["labels_N"]) > 0


def test_importing_loaders_imports_neither_torch_nor_numba() -> None:
    program = (
        "import sys, loaders\n"
        "assert loaders.LoaderConfig(seed=1).seed == 1 and loaders.errors.BetonError and loaders.__version__\n"
        "heavy = [name for name in ('torch', 'numba', 'cv2') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
        "assert loaders.Beton.__name__ == 'Beton' and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(loaders.__file__).parents[1])


def test_a_name_that_loaders_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'loaders' has no attribute 'Lodaer'"):
        loaders.Lodaer  # noqa: B018


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_reused_once_the_batch_is_dropped() -> None:
    memory = BatchMemory(4, 8, spare=2)
    first = memory.take(4)
    assert first.shape == (4, 1, 8, 8) and first.dtype == np.float32 and first.flags.writeable
    where = address(first)
    del first
    gc.collect()
    assert address(memory.take(3)) == where


@pytest.mark.parametrize("keep", ["view of a view", "tensor", "tensor's slice", "transposed"])
def test_whatever_refers_to_a_batch_keeps_its_memory(keep: str) -> None:
    memory = BatchMemory(2, 4, spare=4)
    batch = memory.take(2)
    batch[:] = 5
    held = {
        "view of a view": lambda batch: batch[:, 0][1:],
        "tensor": lambda batch: torch.from_numpy(batch),
        "tensor's slice": lambda batch: torch.from_numpy(batch)[0],
        "transposed": lambda batch: batch.reshape(2, 16).T,
    }[keep](batch)
    del batch
    gc.collect()
    others = [memory.take(2) for _ in range(6)]
    for other in others:
        other[:] = 9
    assert (np.asarray(held) == 5).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's threads and fork; the child touches neither
def test_a_forked_process_has_its_own_copy() -> None:
    batch = BatchMemory(2, 4, spare=1).take(2)
    batch[:] = 5
    child = os.fork()
    if child == 0:
        batch[:] = 9
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (batch == 5).all()


def test_no_more_than_the_spare_blocks_are_kept() -> None:
    memory = BatchMemory(2, 4, spare=3)
    kept = [memory.take(2) for _ in range(10)]
    assert len({address(batch) for batch in kept}) == 10
    kept.clear()
    gc.collect()
    assert len(memory._free) == 3


def test_an_interpreter_with_batches_left_over_ends_quietly() -> None:
    import subprocess
    import sys

    program = "from loaders.batches.memory import BatchMemory\nkept = BatchMemory(2, 4, spare=1).take(2)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def epoch_times(**changes: float) -> Epoch:
    usual = {
        "seconds": 1.0,
        "wait_seconds": 0.9,
        "consumer_seconds": 0.0,
        "making_seconds": 1.9,
        "cpu_seconds": 1.8,
        "disk_bytes": 0,
    }
    return Epoch(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "bottleneck"),
    [
        ({}, "computing, for 90 % of the threads' time"),
        ({"wait_seconds": 0.01, "consumer_seconds": 0.98, "making_seconds": 0.4, "cpu_seconds": 0.4}, "the consumer"),
        ({"wait_seconds": 0.01, "making_seconds": 0.4, "cpu_seconds": 0.4}, "handing batches over"),  # nobody consumes
        ({"disk_bytes": 900, "cpu_seconds": 0.6}, "the disk"),
        ({"disk_bytes": 900}, "computing"),  # read in time
        (
            {"making_seconds": 0.5, "cpu_seconds": 0.5},
            "handing batches over: threads are busy for only 25 % of the time",
        ),
        ({"cpu_seconds": 0.8}, "other programs: the threads had a core for only 42 %"),
    ],
)
def test_the_bottleneck_follows_from_the_times(changes: dict[str, float], bottleneck: str) -> None:
    assert find_bottleneck([epoch_times(**changes)], threads=2, num_bytes=1000).startswith(bottleneck)


@pytest.mark.parametrize("evaluation", [True, False])
def test_every_epoch_is_counted_but_the_first(betons: Path, evaluation: bool) -> None:
    reports: list[tuple[int, int]] = []
    config = BenchLoaderConfig(
        beton=betons / "train.beton", epochs=3, evaluation=evaluation, loader=LoaderConfig(threads=1, batch_size=4)
    )
    found = measure(config, lambda done, total: reports.append((done, total)))
    assert len(found.epochs) == 3 and reports[-1] == (4, 4)
    assert found.crop == 32 and found.threads == 1 and found.order == ("file" if evaluation else "random")
    for done in found.epochs:
        assert done.cpu_seconds > 0 and done.making_seconds > 0 and 0 <= done.wait_seconds <= done.seconds
    assert all(microseconds > 0 for microseconds in found.stages.values())


def test_a_slow_consumer_is_never_kept_waiting(betons: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench-loader", str(betons / "val.beton"), "--epochs", "5", "--step-ms", "40", "--batch-size", "4"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "images/s (median" in shown and "Bottleneck: the consumer" in shown
    assert cli.main([*command[:4], "--batch-size", "4"]) == 0
    assert "Bottleneck: the consumer" not in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_page_locked_memory_asks_for_cuda_not_for_tensors(betons: Path) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        measure(BenchLoaderConfig(beton=betons / "val.beton", loader=LoaderConfig(pin_memory=True)))
