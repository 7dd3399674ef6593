"""The circuit breaker: so many failures in a row, over all workers, and what it says that they share."""

from __future__ import annotations

import pickle
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.breaker import Breaker, Failure, Failures, place_of, shared
from engine.errors import RunError


def failure(number: int, stage: str = "detector", uri: str = "/photos/a/{}.png") -> Failure:
    return Failure(number.to_bytes(16, "big"), uri.format(number), stage, "raised", f"ValueError: size {number} is odd")


def report(*said: int | None) -> Failures:
    """Of one worker: the number of an image that failed, or None for one that came through."""
    failures = Failures()
    for number in said:
        if number is None:
            failures.came()
        else:
            failures.add(failure(number))
    return failures


def test_failures_in_a_row_are_counted_over_workers_and_reports() -> None:
    breaker = Breaker(4)
    breaker.saw(report(1, 2), "here")
    breaker.saw(report(), "here")  # images that nobody looked at say nothing
    breaker.saw(report(3), "there")
    with pytest.raises(RunError, match=r"^4 images in a row failed \(run.failures_in_a_row 4\)"):
        breaker.saw(report(4), "there")


def test_an_image_that_comes_through_ends_the_row() -> None:
    breaker = Breaker(3)
    for number in range(0, 100, 3):
        breaker.saw(report(number, number + 1, None), "here")
        breaker.saw(report(number + 2, None, number + 3), "here")
    assert len(breaker.row) == 1
    breaker.saw(report(None, 201), "here")
    assert list(breaker.row) == [failure(201).item_id]


def test_an_image_that_fails_again_counts_once() -> None:
    breaker = Breaker(3)
    for _ in range(10):
        breaker.saw(report(1, 2), "here")
    assert len(breaker.row) == 2


LIMIT, POOLS = 6, 3
THROUGH = POOLS
FATES = st.lists(st.lists(st.integers(0, THROUGH), min_size=1, max_size=8), max_size=12)  # by shard: who fails an image


def stopped_by(shards: list[list[int]], reports: int) -> int | None:
    """The pool whose breaker stops a run. One may be ahead of the next by any number of shards: their breakers hear
    nothing of each other but by what a shard brings along."""
    failed: list[list[Failure]] = [[] for _ in shards]
    for pool in range(POOLS):
        breaker = Breaker(LIMIT)
        for number, fates in enumerate(shards):
            came = [1000 * number + n if fate == pool else None for n, fate in enumerate(fates) if fate >= pool]
            rows = breaker.rows
            try:
                for start in range(0, len(came), reports):
                    breaker.saw(told := report(*came[start : start + reports]), "node")
                    failed[number] += told.newest
                breaker.passed(failed[number], rows)
            except RunError:
                return pool
    return None


@given(FATES, st.integers(1, 9))
def test_a_run_stops_where_all_fails_in_whichever_pools(shards: list[list[int]], reports: int) -> None:
    """And never but for so many images that follow each other in the list, nor by a pool that failed none."""
    fates = [fate for shard in shards for fate in shard]
    in_a_row = max((len(list(run)) for through, run in groupby(fates, THROUGH.__eq__) if not through), default=0)
    stopped = stopped_by(shards, reports)
    if stopped is not None:
        assert in_a_row >= LIMIT
        assert stopped in fates
    all_fail = [[fate % THROUGH for fate in shard] for shard in shards]
    assert (stopped_by(all_fail, reports) is not None) == (len(fates) >= LIMIT)


def test_a_pool_does_not_stop_for_what_failed_before_it_alone() -> None:
    """Where other workers of that pool had images come through, these may be on their way."""
    breaker, before = Breaker(3), [failure(n) for n in range(9)]
    breaker.passed(before, 0)
    breaker.saw(report(None, 9), "here")
    breaker.passed(before, 0)
    assert list(breaker.row) == [failure(9).item_id]
    with pytest.raises(RunError, match="10 images in a row"):
        breaker.passed(before, 1)


def test_a_report_is_bounded() -> None:
    failures = report(*range(5000))
    assert (failures.total, failures.in_a_row, len(failures.newest)) == (5000, 5000, 1000)
    assert len(pickle.dumps(failures)) < 200_000


def test_what_they_share_is_told_with_counts() -> None:
    failures = [failure(n) for n in range(90)] + [
        failure(n, "decode", "https://me:pw@host.org/{}.png") for n in range(10)
    ]
    told = shared(failures)
    assert told == ("stage detector (90); kind raised (100); message 'ValueError: size' (100); place /photos/a (90)")
    mixed = shared(failures[:50] + failures[-10:])
    assert "stage detector (50), decode (10)" in mixed
    assert "place /photos/a (50), host.org (10)" in mixed
    assert "pw" not in mixed


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("/photos/a/1.png", "/photos/a"),
        ("s3://bucket/a/1.png", "s3://bucket/a"),
        ("/sets/x.tar#in/side.png", "/sets/x.tar"),
        ("/sets/x.parquet#17", "/sets/x.parquet"),
        ("http://user:secret@host:8080/a/b.png", "host:8080"),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_places(uri: str, place: str) -> None:
    assert place_of(uri) == place
