"""Files that were lost or cut short after they were written: what is said brings them back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import pytest
from command import COUNT, ENGINE, command, files, run

from engine import open_dataset
from engine.errors import OutputError
from engine.layout import Output, ShardId


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


def test_annotations_stay_with_their_images_when_those_are_ingested_anew(annotated: Path, images: Path) -> None:
    """Another image in front moves all others by one row."""
    before = {path: path.read_bytes() for path in annotated.rglob("round-0/decisions/*/*")}
    shutil.rmtree(Output(annotated).manifest.parent)
    first = images / "000 first.png"
    first.write_bytes((images / "01 astronaut.png").read_bytes() + b"\0")
    try:
        result = run(*command(annotated, "--set", "filters.score.thresholds.ocr.text=0.99", stage="filter"))
    finally:
        first.unlink()
    assert result.returncode == 0, result.stdout
    assert "not every image is annotated yet" in result.stdout
    dataset = open_dataset(annotated)
    assert [record.item for record in dataset.records()] == list(dataset.items())
    assert len(list(dataset.items())) == COUNT + 1
    assert all(path.read_bytes() != data for path, data in before.items())
    for record in dataset.records():
        for mask in record.masks:
            assert mask.size == (record.item.height, record.item.width)


def test_rows_of_other_images_are_never_read_as_these(annotated: Path) -> None:
    round_ = Output(annotated).round(0)
    shutil.copy(round_.annotations(ShardId(0, 1)), round_.annotations(ShardId(0, 0)))
    with pytest.raises(OutputError, match=r"shard-00000\.parquet is of other images than .*Remove .*/decisions/"):
        list(open_dataset(annotated).records())


def told(*arguments: str) -> tuple[str, list[Path]] | None:
    """What a command says of a damaged file, and which ones to remove; None if nothing hinders it."""
    result = run(*arguments)
    assert "Traceback" not in result.stdout
    if not result.returncode:
        return None
    assert result.returncode == 2
    remedy = re.search(r"Remove (\S+(?: and \S+)*) and run again|Run again", result.stdout)
    assert remedy is not None, result.stdout
    return result.stdout, [Path(path) for path in (remedy[1] or "").split(" and ") if path]


@pytest.mark.parametrize(
    "ways", [(cut_short, emptied), pytest.param((lost,), marks=pytest.mark.slow)], ids=["broken", "lost"]
)
def test_what_is_damaged_is_named_and_can_be_brought_back(
    annotated: Path, undisturbed: Path, ways: Sequence[Callable[[Path], None]]
) -> None:
    """One file of each kind, each of another shard. A run passes over partitions that are closed: what is damaged there
    is found by who reads it."""
    output = Output(annotated)
    round_ = output.round(0)
    damaged = {
        output.items(ShardId(0, 0)),
        round_.annotations(ShardId(0, 1)),
        round_.decisions(ShardId(0, 2)),
        round_.sources,
    }
    for path, how in zip(sorted(damaged), cycle(ways), strict=False):
        how(path)
    named = set()
    for _ in damaged:
        # The run first: it brings back what was removed.
        for arguments in (command(annotated), (ENGINE, "stats", str(annotated))):
            if said := told(*arguments):
                named |= {path for path in damaged if f"{path} is " in said[0]}
                for path in said[1]:
                    path.unlink(missing_ok=True)
    assert ways == (lost,) or named == damaged, "the run brought it back by itself"
    again = run(*command(annotated))
    assert again.returncode == 0, again.stdout
    assert files(annotated) == files(undisturbed)


def test_a_damaged_manifest_is_named_and_can_be_brought_back(annotated: Path, undisturbed: Path) -> None:
    manifest = Output(annotated).manifest
    for how in (emptied, cut_short):
        shutil.copy(Output(undisturbed).manifest, manifest)
        how(manifest)
        for arguments in ((ENGINE, "show", str(annotated), "00 coffee.png"), command(annotated)):
            result = run(*arguments)
            assert result.returncode == 2
            assert f"{manifest} is damaged" in result.stdout
            assert f"engine verify {annotated} --repair --yes" in result.stdout
    assert run(ENGINE, "verify", str(annotated), "--repair", "--yes").returncode == 1
    assert files(annotated) == files(undisturbed)
