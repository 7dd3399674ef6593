"""Markers: written for a partition that is whole and of one making, believed without a look, gone before a change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from engine import partitions as of
from engine.atomic import write_json
from engine.errors import OutputError
from engine.layout import LOCK, Layer, Output, ShardId
from engine.partitions import Partition, close, closed, partitions, reopen_from
from engine.records import Item, ItemError, Record, Region, Scores
from engine.schema import items_to_table
from engine.storage import write_annotations, write_decisions, write_table
from engine.summary import added_up, count_round
from pipelines.closing import close_partition

SIZES = (5, 3)  # items of two partitions, two a shard
SOURCES = {"decode": "a", "detector": "b"}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Two partitions in five shards, all done; none is closed."""
    output = Output(tmp_path)
    listed = [{"items": items, "shard_size": 2, "shards": -(-items // 2)} for items in SIZES]
    write_json(output.manifest, {"partitions": listed})
    for partition in partitions(output):
        for shard in partition.shards:
            made(output, shard, partition.count([shard]))
    return output


def made(output: Output, shard: ShardId, items: int, annotate: str = "x", filter_: str = "y") -> None:
    records = [record_of(f"{shard}/{n}", n) for n in range(items)]
    write_table(output.items(shard), items_to_table([record.item for record in records]))
    write_annotations(output.round(0), shard, records, annotate, SOURCES)
    write_decisions(output.round(0), shard, records, filter_)


def record_of(uri: str, number: int) -> Record:
    item = Item(Item.id_of(uri), uri)
    if "00002/" in uri:
        return Record(item, error=ItemError("decode", "broken", "it is broken"))
    score = Scores(label=number / 2)
    record = Record(item).append(
        Region(id=f"0.{name}.0", source=name, kind="object", box=(0, 0, 1, 1), label="dog", scores=score)
        for name in ("detector", "other")[: number + 1]
    )
    return record.decide([record.reject(record.regions[0], "score", "low_score", 0.1)] if number else [])


def close_all(output: Output, layer: Layer | None = None) -> None:
    for partition in partitions(output):
        counts = count_round(output, 0, partition.shards)
        assert close(output, layer or output.round(0), partition, counts, 1)


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at a shard, or for one, fails."""

    def looked(*path: object) -> None:
        raise AssertionError(f"looked at {path}")

    for name in ("shard_digests", "content_digest", "_shards_in"):
        monkeypatch.setattr(of, name, looked)


def test_the_manifest_says_which_shards_there_are(output: Output) -> None:
    first, second = partitions(output)
    assert [*first.shards, *second.shards] == list(output.shards())
    assert (first.count(first.shards), second.count(second.shards)) == SIZES
    assert second.count([ShardId(1, 1)]) == 1


def test_what_is_closed_is_believed_without_a_look(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    close_all(output)
    unreadable(monkeypatch)
    round_ = output.round(0)
    assert list(of.waiting(output, round_)) == []
    assert list(of.done(output, round_)) == list(output.shards())
    assert of.is_begun(output, round_)
    assert of.is_annotated(output, round_)
    assert of.is_decided(output, round_)
    assert (of.annotated_by(output, round_), of.decided_by(output, round_)) == ({"x"}, {"y"})
    assert of.stale_by(output, round_, "y") == []
    assert of.stale_by(output, round_, "z") == partitions(output)


def test_only_what_is_open_is_looked_at(output: Output) -> None:
    close_all(output)
    round_, gone = output.round(0), ShardId(1, 0)
    round_.decisions(gone).unlink()
    round_.decisions(ShardId(0, 0)).unlink()  # nobody notices
    assert list(of.waiting(output, round_)) == []
    of.reopen(round_, 1)
    assert list(of.waiting(output, round_)) == [gone]
    assert gone not in set(of.done(output, round_))
    assert not of.is_decided(output, round_)
    assert of.is_annotated(output, round_)
    assert of.decided_by(output, round_) == {"y", ""}
    round_.annotations(gone).unlink()
    assert not of.is_annotated(output, round_)


def test_a_partition_is_closed_when_it_is_whole_and_of_one_making(output: Output) -> None:
    round_, (first, second) = output.round(0), partitions(output)
    round_.decisions(ShardId(0, 2)).unlink()
    assert not close(output, round_, first, {})
    assert closed(output, round_) == {}
    for other in ({"annotate": "other"}, {"filter_": "other"}):
        made(output, ShardId(0, 2), 1, **other)
        assert not close(output, round_, first, {})
    made(output, ShardId(0, 2), 1)
    assert close(output, round_, first, {"items": 5}, 2)
    marker = closed(output, round_)[0]
    assert (marker.made_by.annotate, marker.made_by.filter, marker.made_by.sources) == ("x", "y", SOURCES)
    assert (marker.items, marker.shards, marker.quarantined, marker.counts) == (5, 3, 2, {"items": 5})
    assert marker.images == of.content_of(output, first) != of.content_of(output, second)
    assert list(closed(output, round_)) == [0]


def test_sources_are_part_of_the_making(output: Output) -> None:
    round_, shard = output.round(0), ShardId(0, 1)
    records = [record_of(f"{shard}/{n}", n) for n in range(2)]
    write_annotations(round_, shard, records, "x", {**SOURCES, "detector": "other"})
    assert not close(output, round_, partitions(output)[0], {})


def test_markers_add_up_to_the_whole(output: Output) -> None:
    parts = [count_round(output, 0, partition.shards) for partition in partitions(output)]
    whole = count_round(output, 0, output.shards())
    assert added_up(parts) == whole
    assert json.dumps(added_up(parts)) == json.dumps(whole), "the order too"
    assert whole["quarantined"] == {"decode": {"broken": 1}}
    assert added_up([]) == count_round(output, 0, [])


def test_a_partition_that_has_grown_is_open(output: Output) -> None:
    close_all(output)
    manifest = json.loads(output.manifest.read_text())
    manifest["partitions"][1].update(items=4)
    write_json(output.manifest, manifest)
    assert list(closed(output, output.round(0))) == [0]


def test_what_is_removed_takes_the_markers_along(output: Output) -> None:
    merge = output.round(1).merge
    close_all(output)
    close_markers = [output.round(0).closed(0), merge.closed(0), output.round(1).closed(0)]
    for path in (*close_markers, merge.closed(1)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(output.round(0).closed(0).read_text())
    reopen_from(output, 1, 1)
    assert not merge.closed(1).exists()
    assert output.round(0).closed(1).exists()
    output.forget(ShardId(0, 1))
    assert not any(path.exists() for path in close_markers)


@pytest.mark.parametrize("name", ["round-0.bak", "round-notes", "round-01", "round--1", "round-"])
def test_what_is_no_round_stays(output: Output, name: str) -> None:
    """Though its name begins so: a copy that somebody made, or notes."""
    shutil.copytree(output.round(0).folder, output.root / name)
    (output.root / LOCK).touch()
    before = {path: path.read_bytes() for path in (output.root / name).rglob("*") if path.is_file()}
    assert before
    assert [round_.number for round_ in output.rounds()] == [0]
    reopen_from(output, 0, 0)
    output.forget(ShardId(0, 0))
    output.clear()
    assert not output.round(0).folder.exists()
    assert {path: path.read_bytes() for path in (output.root / name).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("says", ["", "[", "{}", '{"annotate": 1}'])
def test_a_damaged_marker_is_named(output: Output, says: str) -> None:
    close_all(output)
    path = output.round(0).closed(1)
    path.write_text(says)
    with pytest.raises(OutputError, match=f"{path} is damaged .*Remove"):
        closed(output, output.round(0))


def test_without_a_manifest_there_are_no_partitions(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="has no manifest"):
        partitions(Output(tmp_path))


def test_a_partition_of_one_item() -> None:
    assert Partition(3, 1, 1024).shards == [ShardId(3, 0)]
    assert Partition(0, 1024, 1024).shards == [ShardId(0, 0)]
    assert len(Partition(0, 1025, 1024).shards) == 2


@pytest.mark.parametrize("looks", range(9))
def test_closing_is_broken_off_between_any_two_shards(output: Output, looks: int) -> None:
    """Three shards are counted, asked by what they were made, and of which images: a stop waits for none of it."""
    left = iter(range(looks))

    def each(shards: Iterable[ShardId]) -> Iterator[ShardId]:
        for shard in shards:
            if next(left, None) is None:
                raise CancelledError
            yield shard

    first = partitions(output)[0]
    with pytest.raises(CancelledError):
        close_partition(output, 0, first, each)
    assert not output.round(0).closed(0).exists()
    close_partition(output, 0, first)
    assert output.round(0).closed(0).exists()
