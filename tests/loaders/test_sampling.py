"""Randomness is a function of (seed, stream, epoch, sample), and golden; the order by pages needs each page once."""

import numpy as np
import pytest

from loaders.batches.memory import ReadAhead
from loaders.config import LoaderConfig
from loaders.sampling import (
    AUGMENTATION,
    ORDER,
    WINDOW_BYTES,
    affine_parameters,
    draw,
    epoch_matrices,
    epoch_order,
    inverse_matrices,
    paged_order,
    philox,
    scalar_seed,
    unit_interval,
)

# (seed 1, epoch 2), samples 0, 1 and 10^9; made by the first release, to stay for ever
GOLDEN_ANGLES = [12.094124812865628, 6.52805587858893, 14.470706029096617]
GOLDEN_ZOOMS = [0.8949496875633486, 1.1355540294782258, 0.8621611689799465]
GOLDEN_ORDER = [7, 6, 0, 5, 4, 2, 3, 1]
GOLDEN_SCALAR = 74110068379748899


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # known answers of the Random123 library
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
@pytest.mark.numerical
def test_philox_gives_the_published_answers(counter: list[int], key: tuple[int, int], words: list[int]) -> None:
    assert philox(np.array([counter], np.uint32), key)[0].tolist() == words


@pytest.mark.numerical
def test_a_sample_draws_the_same_whoever_asks_and_in_whatever_company() -> None:
    alone = draw(7, AUGMENTATION, 3, np.array([41]))
    among = draw(7, AUGMENTATION, 3, np.arange(100))
    assert (among[41] == alone[0]).all()


@pytest.mark.numerical
def test_streams_of_other_seeds_epochs_and_purposes_share_no_block() -> None:
    blocks = set()
    for seed in (0, 1, 2**40):
        for epoch in range(5):
            for stream in (AUGMENTATION, ORDER):
                blocks |= {row.tobytes() for row in draw(seed, stream, epoch, np.arange(500))}
    assert len(blocks) == 3 * 5 * 2 * 500


@pytest.mark.numerical
def test_golden_parameters_never_change() -> None:
    angle_N, zoom_N = affine_parameters(LoaderConfig(seed=1), 2, np.array([0, 1, 10**9]))
    np.testing.assert_allclose(np.rad2deg(angle_N), GOLDEN_ANGLES, atol=1e-9)
    np.testing.assert_allclose(zoom_N, GOLDEN_ZOOMS, atol=1e-12)
    assert epoch_order(1, 2, 8).tolist() == GOLDEN_ORDER
    assert scalar_seed(1, 3, 5) == GOLDEN_SCALAR


@pytest.mark.numerical
def test_angles_and_zooms_follow_the_recipe() -> None:
    angle_N, zoom_N = affine_parameters(LoaderConfig(seed=3), 0, np.arange(20000))
    degrees_N, amount_N = np.rad2deg(angle_N), np.abs(zoom_N - 1)
    assert -15 < degrees_N.min() < -14.9 and 14.9 < degrees_N.max() < 15
    assert 0.05 <= amount_N.min() < 0.0501 and 0.1499 < amount_N.max() <= 0.15
    assert abs(degrees_N.mean()) < 0.25 and abs(amount_N.mean() - 0.1) < 0.001
    assert 0.48 < (zoom_N > 1).mean() < 0.52
    assert abs(np.corrcoef(degrees_N, zoom_N)[0, 1]) < 0.03


@pytest.mark.numerical
def test_unit_interval_is_open_at_both_ends() -> None:
    ends = unit_interval(np.array([0, 2**32 - 1], np.uint32))
    assert ends[0] > 0 and ends[1] < 1


@pytest.mark.parametrize("num_samples", [0, 1, 2, 1001])
@pytest.mark.numerical
def test_an_epoch_visits_every_sample_once(num_samples: int) -> None:
    assert sorted(epoch_order(0, 0, num_samples).tolist()) == list(range(num_samples))


@pytest.mark.numerical
def test_orders_of_other_epochs_and_seeds_differ() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.numerical
def test_a_positive_angle_turns_the_picture_counter_clockwise_and_zoom_magnifies() -> None:
    quarter = inverse_matrices(np.array([np.pi / 2]), np.ones(1), 4, 10)[0].astype(np.float64)
    # the output's right edge shows what lay below the centre
    np.testing.assert_allclose(quarter @ [4, 2, 1], [5, 7], atol=1e-6)
    doubled = inverse_matrices(np.zeros(1), np.array([2.0]), 4, 10)[0].astype(np.float64)
    np.testing.assert_allclose(doubled @ [4, 2, 1], [6, 5], atol=1e-6)


@pytest.mark.numerical
def test_matrices_of_an_epoch_are_float32_and_one_a_sample() -> None:
    inverse_N23 = epoch_matrices(LoaderConfig(), 0, 5, 32, 46)
    assert inverse_N23.dtype == np.float32 and inverse_N23.shape == (5, 2, 3)
    assert len({matrix.tobytes() for matrix in inverse_N23}) == 5


# ---- the order by pages

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
