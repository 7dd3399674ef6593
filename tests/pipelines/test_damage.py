"""Files that were lost or cut short after they were written: what is said brings them back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from command import ENGINE, command, files, run

from engine.storage import Output, ShardId


@pytest.fixture
def annotated(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the undisturbed run to damage."""
    return Path(shutil.copytree(undisturbed, tmp_path / "annotated"))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def lost(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("which", "how"),
    [
        *product(["items", "annotations", "decisions", "sources"], [cut_short, emptied, lost]),
        *product(["manifest"], [cut_short, emptied]),
    ],
)
def test_what_is_damaged_is_named_and_can_be_brought_back(
    annotated: Path, undisturbed: Path, which: str, how: Callable[[Path], None]
) -> None:
    output, shard = Output(annotated), ShardId(0, 0)
    round_ = output.round(0)
    path = {
        "items": output.items(shard),
        "annotations": round_.annotations(shard),
        "decisions": round_.decisions(shard),
        "manifest": output.manifest,
        "sources": round_.sources,
    }[which]
    how(path)
    said = ""
    for arguments in ((ENGINE, "show", str(annotated), "00 coffee.png"), command(annotated)):
        result = run(*arguments)
        assert "Traceback" not in result.stdout
        if result.returncode:
            assert result.returncode == 2
            assert f"{path} is " in result.stdout
            said = result.stdout
    if said:
        remedy = re.search(r"Remove (\S+) and run again", said)
        assert remedy is not None, said
        Path(remedy[1]).unlink(missing_ok=True)
    else:
        assert how is lost, "the run brought it back by itself"
    again = run(*command(annotated))
    assert again.returncode == 0, again.stdout
    assert files(annotated) == files(undisturbed)
