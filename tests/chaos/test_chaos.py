"""Every fault befalls every stage: nothing is lost, nothing doubled, and little done twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from chaos.stages import STAGES
from chaos.stores import STORE_FAULTS
from chaos.table import ALL_FAULTS, Cell, cell

IN_CI = {  # the others take an hour: `make chaos`
    ("annotate", "worker killed"),
    ("annotate", "row kills its worker"),
    ("export", "driver killed"),
}
# It runs in the driver's threads.
NO_WORKER = {("export", fault) for fault in ("worker killed", "raylet killed", "raylet of several killed")}
NEEDS_ROOT = {"disk full", "read-only output"}
# Which a training goes on without, for good: it is compared with one for which the image can't be read.
UNLEARNED = {
    ("train", fault) for fault in ("sys.exit in a worker", "row kills its worker", "row hangs", "row eats memory")
}
CELLS = [pair for pair in product(STAGES, ALL_FAULTS) if pair not in NO_WORKER]


@pytest.mark.parametrize(
    ("stage", "fault"),
    [pytest.param(*pair, marks=() if pair in IN_CI else pytest.mark.slow, id=" - ".join(pair)) for pair in CELLS],
)
@pytest.mark.timeout(1200)
def test_nothing_is_lost(
    stage: str, fault: str, request: pytest.FixtureRequest, told: Callable[[Cell], None], tmp_path: Path
) -> None:
    if fault in NEEDS_ROOT and os.geteuid():
        pytest.skip("mounting a small file system needs root")
    there = fault in STORE_FAULTS
    if there:
        undisturbed = request.getfixturevalue("undisturbed_there")(stage)
    else:
        undisturbed = request.getfixturevalue("undisturbed")(stage, (stage, fault) in UNLEARNED)
    remote = request.getfixturevalue("store").holding(undisturbed.base) if there else None
    found = cell(stage, fault, undisturbed, tmp_path, remote)
    told(found)
    assert (found.lost, found.doubled, found.changed) == (0, 0, 0), found
    assert found.again <= STAGES[stage].at_once, found
    eater = {"worker" if STAGES[stage].worker else "driver"} if fault == "row eats memory" else set()
    assert found.peaks.grown(undisturbed.peaks) <= eater, (found, undisturbed.peaks)
