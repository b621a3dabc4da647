"""The order by pages: a permutation that needs each page once, and reading ahead of it."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.batches.memory import ReadAhead
from loaders.sampling import WINDOW_BYTES, epoch_order, paged_order

PAGE = 2 << 20


def offsets(num_samples: int, per_page: int) -> np.ndarray:
    """First bytes of frames, per_page to a page, from the second page on."""
    sample_N = np.arange(num_samples)
    return PAGE * (1 + sample_N // per_page) + 500 * (sample_N % per_page)


@pytest.mark.parametrize("num_samples", [1, 7, 1000])
def test_every_sample_comes_once(num_samples: int) -> None:
    order_N = paged_order(3, 5, offsets(num_samples, 10), PAGE)
    assert order_N.dtype == np.int64 and sorted(order_N.tolist()) == list(range(num_samples))


def test_pages_of_a_window_are_mixed_and_never_needed_again() -> None:
    offset_N = offsets(1000, 10)
    page_O = offset_N[paged_order(0, 0, offset_N, PAGE)] // PAGE
    in_window = WINDOW_BYTES // PAGE * 10
    windows = [page_O[start : start + in_window] for start in range(0, 1000, in_window)]
    pages = [set(window.tolist()) for window in windows]
    assert sum(map(len, pages)) == len(set.union(*pages)) == 100
    for window in windows[:-1]:
        assert (np.diff(window) != 0).mean() > 0.8  # not page by page
        assert np.abs(np.diff(sorted(set(window.tolist())))).max() > 1  # nor pages in a row


def test_it_is_a_function_of_seed_and_epoch() -> None:
    offset_N = offsets(300, 10)
    orders = {tuple(paged_order(seed, epoch, offset_N, PAGE)) for seed in (0, 1) for epoch in (0, 1) for _ in range(2)}
    assert len(orders) == 4


class Recorder:
    """Stands in for a beton, and notes what is asked of it."""

    def __init__(self, offset_N: np.ndarray) -> None:
        self.offset_N, self.page_size, self.side = offset_N, PAGE, 1024
        self.read: list[int] = []
        self.gone: list[int] = []

    def read_ahead(self, start: int) -> None:
        self.read.append(start // PAGE)

    def let_go(self, start: int) -> None:
        self.gone.append(start // PAGE)


@pytest.mark.parametrize("paged", [True, False])
def test_pages_are_asked_for_before_their_use_and_let_go_after_it(paged: bool) -> None:
    offset_N = offsets(200, 2)
    order_N = paged_order(0, 0, offset_N, PAGE) if paged else epoch_order(0, 0, 200)
    page_O = offset_N[order_N] // PAGE
    beton = Recorder(offset_N)
    ahead = ReadAhead(beton, order_N, 0, let_go=True)  # type: ignore[arg-type]
    for done in range(0, 200, 8):
        ahead.advance(done + 8, done)
    ahead._thread.shutdown(wait=True)  # close would cancel what is not yet asked
    assert sorted(beton.read) == sorted(set(page_O.tolist()))
    first_use = [page_O.tolist().index(page) for page in beton.read]
    assert first_use == sorted(first_use)
    for page in beton.gone:
        assert page not in page_O[192:]
    assert set(beton.gone) == set(page_O.tolist()) - set(page_O[192:].tolist())


def test_a_resumed_epoch_asks_only_for_what_is_left() -> None:
    offset_N = offsets(100, 2)
    order_N = np.arange(100)
    beton = Recorder(offset_N)
    ahead = ReadAhead(beton, order_N, 60, let_go=False)  # type: ignore[arg-type]
    ahead.advance(100, 60)
    ahead._thread.shutdown(wait=True)  # close would cancel what is not yet asked
    assert beton.read == [1 + sample // 2 for sample in range(60, 100, 2)] and not beton.gone
