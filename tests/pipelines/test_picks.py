"""The order of learning: every row once an epoch, the same whoever asks and wherever they begin."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.layout import ShardId
from pipelines.training.picks import Pick, Picks

ROWS = st.lists(st.lists(st.integers(0, 99), unique=True, max_size=9), min_size=1, max_size=30).filter(any)


def picks_of(rows: list[list[int]], seed: int = 0) -> Picks:
    of_shards = tuple(np.array(sorted(of_shard), np.uint32) for of_shard in rows)
    return Picks(tuple(ShardId(n // 7, n % 7) for n in range(len(rows))), of_shards, seed)


def taken(picks: Picks, start: int, size: int, chunks: int, rank: int = 0, world: int = 1) -> list[Pick]:
    return [pick for chunk in islice(picks.chunks(start, size, rank, world), chunks) for pick in chunk]


@given(ROWS, st.integers(0, 3))
def test_an_epoch_has_every_row_once(rows: list[list[int]], epoch: int) -> None:
    picks = picks_of(rows)
    places = range(epoch * picks.count, (epoch + 1) * picks.count)
    seen = [picks.pick(place) for place in places]
    everything = {(shard, row) for shard, of_shard in zip(picks.shards, rows, strict=True) for row in of_shard}
    assert {(pick.shard, pick.row) for pick in seen} == everything
    assert len(seen) == len(everything)
    assert {pick.epoch for pick in seen} == {epoch}


@given(ROWS, st.integers(0, 200), st.integers(1, 5), st.integers(1, 4))
def test_workers_share_the_stream_and_any_of_it_can_be_begun_with(
    rows: list[list[int]], start: int, size: int, world: int
) -> None:
    picks = picks_of(rows)
    alone = taken(picks, start, size * world, 3)
    shared = [pick for rank in range(world) for pick in taken(picks, start, size, 3, rank, world)]
    assert sorted(shared) == alone == [picks_of(rows).pick(place) for place in range(start, start + 3 * size * world)]


def test_epochs_and_seeds_differ() -> None:
    rows = [list(range(50))] * 20
    first, second = ([picks_of(rows).pick(e * 1000 + n)[2:] for n in range(1000)] for e in (0, 1))
    other = [picks_of(rows, seed=1).pick(n)[2:] for n in range(1000)]
    assert first != second
    assert first != other


def test_shards_are_read_a_few_at_a_time() -> None:
    """Or each of a million rows would be read from another file."""
    picks = picks_of([list(range(100))] * 40)
    assert all(len({pick.shard for pick in taken(picks, at, 800, 1)}) == 8 for at in range(0, 4000, 800))


@pytest.mark.parametrize(
    ("count", "readable", "world"), [(500, 1, 1), (500, 3, 1), (300, 1, 2), (100, 2, 8), (7, 7, 3)]
)
def test_a_worker_is_not_out_of_patience_where_few_can_be_read(count: int, readable: int, world: int) -> None:
    picks = picks_of([list(range(count // 5))] * 4 + [list(range(count - 4 * (count // 5)))])
    chosen = {(picks.shards[n % 5], n // 5) for n in range(readable)}
    for rank in range(world):
        looked_at = taken(picks, 0, 1, 120 * count, rank, world)
        places = [0, *(pick.place for pick in looked_at if (pick.shard, pick.row) in chosen)]
        assert len(places) > 1
        assert max(after - before for before, after in pairwise(places)) < picks.patience(world)
