"""What is learned from the end of a worker: who is tried alone, who goes to quarantine, and when a run gives up."""

from __future__ import annotations

import pytest

from engine.config import Run
from engine.errors import RunError
from engine.layout import ShardId
from engine.runner.blame import LOST_SHARD, Blame
from engine.watchdog import Note
from engine.worker import Orders

ONE, OTHER = b"1" * 16, b"2" * 16


@pytest.fixture
def blame() -> Blame:
    return Blame(Run(attempts=2, item_seconds=3))


@pytest.fixture
def orders() -> Orders:
    return Orders(ShardId(0, 0))


def test_of_several_in_hand_each_is_tried_alone_and_none_is_at_fault(blame: Blame, orders: Orders) -> None:
    for _ in range(5):
        assert blame.note(Note((ONE, OTHER), None), orders).startswith("A worker ended over 2 images")
    assert orders.alone == {ONE, OTHER}
    assert not orders.quarantined


@pytest.mark.parametrize(("hung_at", "kind", "says"), [(None, "killed", "killed its"), ("d", "timeout", "3 s, in d")])
def test_who_is_alone_in_hand_goes_to_quarantine_at_the_last_attempt(
    blame: Blame, orders: Orders, hung_at: str | None, kind: str, says: str
) -> None:
    assert "tried again" in blame.note(Note((ONE,), hung_at), orders)
    assert orders.alone == {ONE}
    blame.note(Note((OTHER,), hung_at), orders)
    assert not orders.quarantined, "each has its own attempts"
    assert "after 2 attempt(s) it goes to quarantine" in blame.note(Note((ONE,), hung_at), orders)
    assert [(item, error.stage, error.kind) for item, error in orders.quarantined.items()] == [(ONE, "annotate", kind)]
    assert says in orders.quarantined[ONE].message
    assert list(blame.over) == [OTHER], "of a set of any size only those are kept that are not decided"


def test_workers_that_end_for_no_image_end_the_run_after_two_attempts_each(blame: Blame) -> None:
    for _ in range(2):
        for _ in range(6):
            assert blame.nobody("in between", workers=3) == "A worker ended in between; another one starts."
        blame.finished("a shard")
    for _ in range(6):
        blame.nobody("in between", workers=3)
    with pytest.raises(RunError, match="ended 7 times without an image to blame, the last at last"):
        blame.nobody("at last", workers=3)


def test_a_shard_that_goes_with_each_machine_ends_the_run(blame: Blame) -> None:
    for _ in range(2):
        for _ in range(LOST_SHARD - 1):
            blame.gone("this")
            blame.gone("that")
        blame.finished("this")
        blame.finished("that")
    assert not blame.lost
    for _ in range(LOST_SHARD - 1):
        blame.gone("this")
        blame.finished("that")
    with pytest.raises(RunError, match=f"this was lost with its machine {LOST_SHARD} times"):
        blame.gone("this")
