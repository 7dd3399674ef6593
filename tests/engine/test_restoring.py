"""Shards of items that were lost come back as they were, and what was made of the images stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingesting import files, ingested, items_of

from engine.annotate import annotate
from engine.atomic import read_json
from engine.config import Ingest
from engine.errors import OutputError
from engine.ingest import Restored, restore, rewrite, unknown_uri
from engine.layout import Output, ShardId
from engine.storage import read_given, write_annotations, write_decisions
from engine.truth import told_by

FIRST, SECOND = ShardId(0, 0), ShardId(0, 1)


def annotated(output: Output) -> None:
    """By a round without specialists, which says no more of images than what they look like."""
    for shard in output.shards():
        records = annotate(read_given(output, shard), [], [], Ingest(), {})
        write_annotations(output.round(0), shard, records, "made")
        write_decisions(output.round(0), shard, records, "decided")


@pytest.fixture
def config(image_set: Callable[..., Path]) -> Ingest:
    """Seven images and a twin, with a caption each, in shards of two."""
    folder = image_set(7)
    shutil.copy(folder / "0001.png", folder / "0007.png")
    names = [f"{n:04d}.png" for n in range(8)]
    pq.write_table(pa.table({"uri": names, "caption": [f"caption {n}" for n in names]}), folder / "list.parquet")
    return Ingest(images=(str(folder / "list.parquet"),), shard_size=2, partition_size=6)


@pytest.fixture
def output(config: Ingest, tmp_path: Path) -> Output:
    output = Output(tmp_path / "out")
    ingested(output.root, config)
    return output


def relisted(config: Ingest, order: Sequence[int]) -> None:
    """The list with other rows, or in another order."""
    path = Path(config.images[0])
    pq.write_table(pq.read_table(path).take(list(order)), path)


def test_nothing_is_done_where_nothing_is_lost(output: Output, config: Ingest) -> None:
    times = {path: path.stat().st_mtime_ns for path in output.root.rglob("*")}
    assert restore(output, config) == Restored()
    assert times == {path: path.stat().st_mtime_ns for path in output.root.rglob("*")}


def test_shards_of_which_nothing_was_made_are_taken_from_the_list(output: Output, config: Ingest) -> None:
    before = files(output.root)
    lost = (FIRST, ShardId(0, 2), ShardId(1, 0))
    for shard in lost:
        output.items(shard).unlink()
        output.given(shard).unlink()
    assert restore(output, config) == Restored(lost)
    assert files(output.root) == before


def test_shards_are_known_by_what_was_made_of_them_whatever_the_list_is_by_now(output: Output, config: Ingest) -> None:
    annotated(output)
    before, ids = files(output.root), [item.item_id for item in items_of(output.root)]
    relisted(config, range(7, -1, -1))
    for shard in (FIRST, ShardId(1, 0)):
        output.items(shard).unlink()
    restore(output, config)
    assert [item.item_id for item in items_of(output.root)] == ids
    assert files(output.root) == before


def test_what_was_made_of_another_shard_is_no_witness(output: Output, config: Ingest) -> None:
    """It is forgotten, where the shard has other images; and nobody else's is."""
    annotated(output)
    items, round_ = items_of(output.root), output.round(0)
    for path in (round_.annotations, round_.decisions):
        shutil.copy(path(SECOND), path(FIRST))
    output.items(FIRST).unlink()
    output.given(FIRST).unlink()
    restore(output, config)
    assert items_of(output.root) == items
    left = {shard for shard in output.shards() if round_.annotations(shard).exists()}
    assert left == set(output.shards()) - {FIRST}


def test_what_came_along_stays_as_it_was_where_it_is_whole(output: Output, config: Ingest) -> None:
    before = files(output.root)
    path = Path(config.images[0])
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "caption", pa.array(["another caption"] * len(table))), path)
    output.items(FIRST).unlink()
    restore(output, config)
    assert files(output.root) == before
    output.items(FIRST).unlink()
    output.given(FIRST).write_bytes(output.given(FIRST).read_bytes()[:50])
    restore(output, config)
    assert [text.text for record in read_given(output, FIRST) for text in record.texts] == ["another caption"] * 2


def test_images_that_are_listed_no_longer_are_rows_until_they_are_again(output: Output, config: Ingest) -> None:
    annotated(output)
    before, listed = files(output.root), pq.read_table(config.images[0])
    relisted(config, [n for n in range(8) if n != 1])
    output.items(FIRST).unlink()
    assert restore(output, config) == Restored((FIRST,), unlisted=1)
    lost = items_of(output.root)[1]
    assert (lost.uri, lost.error and lost.error.kind) == (unknown_uri(lost.item_id), "unlisted")
    assert read_json(output.manifest)["errors"] == {"unlisted": 1}
    pq.write_table(listed, config.images[0])
    output.items(FIRST).unlink()
    assert restore(output, config) == Restored((FIRST,))
    assert files(output.root) == before


def test_what_people_labelled_is_ingested_anew(config: Ingest, tmp_path: Path) -> None:
    there = Output(tmp_path / "labels")
    told_by(config, there)
    before = files(there.root)
    there.items(FIRST).unlink()
    told_by(config, there)
    assert files(there.root) == before


def test_too_few_that_are_listed_are_told_before_anything_is_written(output: Output, config: Ingest) -> None:
    for path in (output.items(FIRST), output.given(FIRST)):
        path.unlink()
    before = files(output.root)
    relisted(config, range(1, 8))
    with pytest.raises(OutputError, match=r"which 2 images .*shard-00000\.parquet had, and 1 are listed .* 2 are miss"):
        restore(output, config)
    assert files(output.root) == before


def test_a_manifest_is_written_anew_as_it_was(output: Output, config: Ingest) -> None:
    before = output.manifest.read_bytes()
    output.manifest.unlink()
    rewrite(output, config)
    assert output.manifest.read_bytes() == before


@pytest.mark.parametrize("shard", [ShardId(0, 1), ShardId(0, 2)], ids=str)
def test_a_manifest_is_not_written_of_some_of_the_shards(output: Output, config: Ingest, shard: ShardId) -> None:
    annotated(output)
    output.items(shard).unlink()
    output.manifest.unlink()
    with pytest.raises(OutputError, match=r"shard|images"):
        rewrite(output, config)
    assert not output.manifest.exists()
