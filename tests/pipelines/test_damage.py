"""Files that were lost or cut short after they were written: what is said brings them back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import pytest
from command import ENGINE, Call, command, files, run

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


def test_a_set_whose_images_are_gone_is_not_ingested_anew(call: Call, annotated: Path) -> None:
    """What was made of them would be removed, shard by shard. What is said to do works."""
    folder = Output(annotated).manifest.parent
    copy = shutil.move(folder, annotated.with_name("copy"))
    before = files(annotated)
    for stage in ("ingest", "annotate", "filter"):
        code, said = call("run", "--stage", stage, "--out", str(annotated))
        assert code == 2, said
        assert f"bring back {folder} from a copy. Or start afresh with --overwrite." in said, said
    code, said = call("verify", str(annotated), "--repair", "--yes")
    assert (code, f"{folder} holds no shards" in said, "engine run --overwrite" in said) == (1, True, True), said
    assert files(annotated) == before
    shutil.move(copy, folder)
    assert call("verify", str(annotated))[0] == 0


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
