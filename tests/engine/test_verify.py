"""Every way of damaging a dataset is found, by its name, and what a repair leaves is sound as far as it goes."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from ingesting import Killed
from PIL import Image

from engine.atomic import read_json, remove_all, write_bytes, write_json, write_text
from engine.config import Config, Ingest, load_config
from engine.errors import OutputError
from engine.ingest import ingest, restore
from engine.layout import Output, ShardId
from engine.partitions import close, partitions
from engine.places import place
from engine.records import (
    Decision,
    Item,
    Mask,
    Parse,
    Phrase,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
    cascade,
    digest16,
)
from engine.schema import ITEMS, items_to_table
from engine.storage import read_given, read_table, write_annotations, write_decisions, write_table
from engine.summary import count_round
from engine.verify import Finding, Repair, carry_out, planned, verified
from engine.verify.leftovers import leftovers
from engine.verify.shards import NotWhole, stored

COUNT, SHARD, PARTITION = 12, 2, 6
SAID, FOUND = "0.writer.0", "0.finder.0"
FIRST, SECOND = ShardId(0, 0), ShardId(0, 1)


def annotated(record: Record) -> Record:
    """With one of each kind, as specialists would, and a region that fell with what is of it."""
    if record.error:
        return record
    width, height = record.item.width or 0, record.item.height or 0
    phrase = Phrase(start=0, stop=9, head="cup", modifiers=("red",), count=1, expression_start=0, expression_stop=20)
    names = ("objects", "attributes", "actions", "proper_nouns")
    degrees = ("object_complexity", "action_complexity", "max_object_complexity", "max_action_complexity")
    numbers: dict[str, Any] = dict.fromkeys((*names, *degrees), 1)
    box = (0.0, 0.0, float(width), float(height))
    made = record.append(
        [
            Text(id=SAID, source="writer", text="a red cup on a table", detail="brief"),
            Parse(id="0.parser.0", source="parser", text_id=SAID, phrases=(phrase,), **numbers),
            Region(id=FOUND, source="finder", kind="object", box=box, label="cup", scores=Scores(label=0.9)),
            Region(id="0.finder.1", source="finder", kind="object", box=box, label="cup", scores=Scores(label=0.1)),
            RegionText(id="0.writer.1", source="writer", region_id=FOUND, text="a cup", derived_from=(SAID,)),
            Mask(id="0.cutter.0", source="cutter", region_id="0.finder.1", size=(height, width), counts=b"abc"),
            Triplet(id="0.linker.0", source="linker", text_id=SAID, start=0, stop=9, region_ids=(FOUND,)),
        ]
    )
    decided = made.decide([made.reject(made.regions[1], "score", "low_score", 0.1, 0.5)])
    return decided.decide(cascade(decided))


def write_shard(output: Output, shard: ShardId, change: Callable[[Record], Record] = lambda record: record) -> None:
    records = [change(annotated(record)) for record in read_given(output, shard)]
    write_annotations(output.round(0), shard, records, "made", {"finder": "1"})
    write_decisions(output.round(0), shard, records, "decided")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Output:
    """A dataset of small pictures, with a twin and a broken one among them, in two partitions of three shards."""
    folder = tmp_path_factory.mktemp("sound")
    images = folder / "images"
    images.mkdir()
    with Image.open(photos / "coffee.png") as coffee:
        for n in range(COUNT - 2):
            coffee.convert("RGB").crop((9 * n, 7 * n, 9 * n + 32, 7 * n + 24)).save(images / f"{n:04d}.png")
    shutil.copy(images / "0000.png", images / "twin.png")
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a photo once")
    config = Ingest(images=(str(images),), shard_size=SHARD, partition_size=PARTITION)
    made = Output(folder / "out")
    ingest(made, config, "ingested", lambda done: None)
    (made.root / ".engine-lock").touch()
    write_text(made.config, yaml.safe_dump(Config(ingest=config).model_dump(mode="json")))
    round_ = made.round(0)
    write_json(round_.sources, {"digest": "made", "settings": "set", "filters": "decided", "sources": {}})
    for shard in made.shards():
        write_shard(made, shard)
    summarise(made)
    return made


@pytest.fixture
def output(sound: Output, tmp_path: Path) -> Iterator[Output]:
    """A copy to damage. Its images are everybody's, and as they were afterwards."""
    pixels = {path: path.read_bytes() for path in images_of(sound).iterdir()}
    yield Output(Path(shutil.copytree(sound.root, tmp_path / "out")))
    for path, data in pixels.items():
        path.write_bytes(data)


def images_of(output: Output) -> Path:
    return Path(load_config(output.config).ingest.images[0])


def summarise(output: Output) -> None:
    round_ = output.round(0)
    for partition in partitions(output):
        counts = count_round(output, 0, partition.shards)
        quarantined = sum(sum(kinds.values()) for kinds in counts["quarantined"].values())
        assert close(output, round_, partition, counts, quarantined)
    write_json(round_.summary, {"round": 0, **count_round(output, 0, output.shards())})


def kinds(output: Output, **options: Any) -> set[str]:
    return set(verified(output, **options).kinds)


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """A shard with other rows, under the metadata that it had."""
    import pyarrow.parquet as pq

    table = read_table(path)
    metadata = pq.read_schema(path).metadata
    sources = json.loads(metadata[b"engine.sources"]) if b"engine.sources" in metadata else None
    write_table(path, change(table), metadata[b"engine.digest"].decode(), sources)


def doubled(path: Path) -> None:
    rewritten(path, lambda table: pa.concat_tables([table, table.slice(0, 1)]))


def shortened(path: Path) -> None:
    rewritten(path, lambda table: table.slice(1))


def reversed_(path: Path) -> None:
    rewritten(path, lambda table: table.take(list(range(len(table)))[::-1]))


def swapped(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def flipped(path: Path, at: float = 0.5) -> None:
    """A bit of what the pages hold."""
    data = bytearray(path.read_bytes())
    data[4 + int((pages_of(data)) * at)] ^= 0x10
    path.write_bytes(data)


def pages_of(data: bytes | bytearray) -> int:
    """How many bytes of a Parquet file are pages; behind these comes the footer. All, if it is another file."""
    return len(data) - 12 - int.from_bytes(data[-8:-4], "little") if data[:4] == b"PAR1" else len(data) - 4


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edited(path: Path, **values: Any) -> None:
    write_json(path, {**read_json(path), **values})


def with_region(**values: Any) -> Callable[[Record], Record]:
    """Changes what Record.append would not let in."""

    def change(record: Record) -> Record:
        if not record.regions:
            return record
        region = record.regions[0]
        for name, value in values.items():
            object.__setattr__(region, name, value)
        return record

    return change


def dropped_region(record: Record) -> Record:
    return replace(record, regions=record.regions[1:])


def dropped_text(record: Record) -> Record:
    return replace(record, texts=())


def shortened_text(record: Record) -> Record:
    return replace(record, texts=tuple(replace(text, text="a red") for text in record.texts))


def smaller_mask(record: Record) -> Record:
    return replace(record, masks=tuple(replace(mask, size=(3, 3)) for mask in record.masks))


def decided_on_nothing(record: Record) -> Record:
    nothing = Decision(annotation_id="0.nobody.0", action="reject", by="score", reason="low_score")
    return replace(record, decisions=(*record.decisions, nothing))


def twice_the_item(output: Output) -> None:
    """The first shard's first image again, in the place of another one's of the last."""
    last = ShardId(1, 2)
    row = read_table(output.items(FIRST)).slice(0, 1)
    rewritten(output.items(last), lambda table: pa.concat_tables([row, table.slice(1)]))


def closed_early(output: Output) -> None:
    """As a crash never leaves it: a marker over a shard that is not there."""
    output.round(0).decisions(FIRST).unlink()
    output.round(0).summary.unlink()


def of_another_configuration(output: Output) -> None:
    records = [annotated(record) for record in read_given(output, FIRST)]
    write_annotations(output.round(0), FIRST, records, "other", {"finder": "2"})


def decided_by_others(output: Output) -> None:
    records = [annotated(record) for record in read_given(output, FIRST)]
    write_decisions(output.round(0), FIRST, records, "others")


def aside(path: Path) -> Path:
    """What a killed run leaves of it."""
    return path.with_name(f".{path.name}.aside-{'0' * 32}")


def of_other_bytes(output: Output, of: str) -> None:
    """The first shard's items, or its annotations, as they were made of other files."""
    records = read_given(output, FIRST)
    others = [replace(record, item=replace(record.item, content_id=bytes(range(16)))) for record in records]
    if of == "items":
        write_table(output.items(FIRST), items_to_table([record.item for record in others]), "ingested")
    else:
        write_annotations(output.round(0), FIRST, list(map(annotated, others)), "made", {"finder": "1"})


# What is done to a dataset -> a kind that must be among what is found.
DAMAGE: dict[str, tuple[Callable[[Output], object], str]] = {
    "annotations flipped": (lambda o: flipped(o.round(0).annotations(FIRST)), "damaged"),
    "decisions flipped": (lambda o: flipped(o.round(0).decisions(FIRST)), "damaged"),
    "items flipped": (lambda o: flipped(o.items(FIRST)), "damaged"),
    "annotations cut": (lambda o: cut(o.round(0).annotations(FIRST)), "damaged"),
    "items cut": (lambda o: cut(o.items(FIRST)), "damaged"),
    "emptied": (lambda o: o.round(0).decisions(FIRST).write_bytes(b""), "damaged"),
    "no Parquet": (lambda o: o.round(0).decisions(FIRST).write_text("rows"), "damaged"),
    "other columns": (
        lambda o: rewritten(o.round(0).annotations(FIRST), lambda t: t.drop_columns(["masks"])),
        "schema",
    ),
    "annotations swapped": (
        lambda o: swapped(o.round(0).annotations(FIRST), o.round(0).annotations(SECOND)),
        "other_images",
    ),
    "decisions swapped": (lambda o: swapped(o.round(0).decisions(FIRST), o.round(0).decisions(SECOND)), "other_images"),
    "items swapped": (lambda o: swapped(o.items(FIRST), o.items(SECOND)), "other_images"),
    "a row doubled": (lambda o: doubled(o.round(0).annotations(FIRST)), "other_images"),
    "a row dropped": (lambda o: shortened(o.round(0).decisions(FIRST)), "other_images"),
    "rows in another order": (lambda o: reversed_(o.round(0).annotations(FIRST)), "other_images"),
    "an item doubled": (lambda o: doubled(o.items(FIRST)), "rows"),
    "an item dropped": (lambda o: shortened(o.items(FIRST)), "rows"),
    "an item twice in the set": (twice_the_item, "item_twice"),
    "an id that is not its image's": (
        lambda o: rewritten(
            o.items(FIRST), lambda t: t.set_column(1, t.schema.field("uri"), pa.array(["file:///x", "file:///y"]))
        ),
        "foreign_id",
    ),
    "the decisions gone": (lambda o: o.round(0).decisions(FIRST).unlink(), "missing"),
    "the annotations gone": (lambda o: o.round(0).annotations(FIRST).unlink(), "missing"),
    "the items gone": (lambda o: o.items(FIRST).unlink(), "missing"),
    "the sources gone": (lambda o: o.round(0).sources.unlink(), "missing"),
    "a marker too early": (closed_early, "stale_marker"),
    "a marker of others": (lambda o: edited(o.round(0).closed(0), filter="others"), "stale_marker"),
    "a marker that counts wrong": (lambda o: edited(o.round(0).closed(0), counts={"items": 5}), "counts"),
    "a marker beyond": (lambda o: shutil.copy(o.round(0).closed(0), o.round(0).closed(7)), "beyond"),
    "a marker cut": (lambda o: cut(o.round(0).closed(0)), "damaged"),
    "a summary that counts wrong": (lambda o: edited(o.round(0).summary, items=COUNT - 1), "counts"),
    "a summary cut": (lambda o: cut(o.round(0).summary), "damaged"),
    "sources cut": (lambda o: cut(o.round(0).sources), "damaged"),
    "the configuration cut": (lambda o: o.config.write_text("ingest: ["), "damaged"),
    "the manifest cut": (lambda o: cut(o.manifest), "damaged"),
    "the manifest gone": (lambda o: o.manifest.unlink(), "missing"),
    "an annotation id twice": (
        lambda o: write_shard(o, FIRST, lambda r: with_region(id="0.writer.0")(dropped_region(r))),
        "annotation_twice",
    ),
    "a region gone": (lambda o: write_shard(o, FIRST, dropped_region), "dangling_reference"),
    "a text gone": (lambda o: write_shard(o, FIRST, dropped_text), "dangling_reference"),
    "a decision on nothing": (lambda o: write_shard(o, FIRST, decided_on_nothing), "dangling_decision"),
    "a text too short for its spans": (lambda o: write_shard(o, FIRST, shortened_text), "span"),
    "a box inside out": (lambda o: write_shard(o, FIRST, with_region(box=(9.0, 0.0, 3.0, 4.0))), "impossible_box"),
    "a mask of another image": (lambda o: write_shard(o, FIRST, smaller_mask), "mask_size"),
    "made by another configuration": (of_another_configuration, "digest"),
    "decided by other filters": (decided_by_others, "mixed_filters"),
    "a shard beyond the manifest": (
        lambda o: shutil.copy(o.round(0).decisions(FIRST), o.round(0).decisions(ShardId(0, 9))),
        "beyond",
    ),
    "a foreign file": (lambda o: (o.root / "images/part-00000/notes.txt").write_text("mine"), "foreign"),
    "items of other bytes": (lambda o: of_other_bytes(o, "items"), "other_bytes"),
    "annotations of other bytes": (lambda o: of_other_bytes(o, "annotations"), "other_bytes"),
    "a file aside": (lambda o: aside(o.round(0).summary).write_text("{"), "leftover"),
    "annotations aside": (lambda o: aside(o.round(0).annotations(FIRST)).write_text("PAR1"), "leftover"),
    "an export broken off": (lambda o: written(o.root / "export/coco/.export/plan.json"), "unfinished_export"),
    "an image gone": (lambda o: image_of(o).unlink(), "image_missing"),
    "an image changed": (lambda o: flipped(image_of(o)), "image_changed"),
}


def written(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("{}")


def image_of(output: Output) -> Path:
    return images_of(output) / "0003.png"


def test_what_nobody_touched_is_sound(output: Output) -> None:
    verdict = verified(output)
    assert verdict.findings == []
    assert verdict.open == {}
    assert (verdict.rows, verdict.shards, verdict.images) == (COUNT, COUNT // SHARD, COUNT)
    assert verdict.annotations == 7 * (COUNT - 1)  # nothing of the broken one


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_repaired(name: str, output: Output) -> None:
    damage, kind = DAMAGE[name]
    config = load_config(output.config).ingest
    damage(output)
    verdict = verified(output)
    assert kind in verdict.kinds, verdict.findings
    plan = planned(output, verdict.findings, config)
    carry_out(output, plan, config)
    assert all(not (output.root / path).exists() for path in plan.remove)
    restore(output, config)  # as the next run does
    left = {finding.kind for finding in verified(output).findings}
    by_hand = {finding.kind for finding in verdict.findings if not finding.remove}
    assert left <= by_hand | {"missing"}, left  # sources.json, which the next run writes


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    """By checksums of pages; what heads the pages has none."""
    path = tmp_path / "shard-00000.parquet"
    uris = [f"file:///{n}.png" for n in range(4096)]
    items = [Item(Item.id_of(uri), uri, digest16(uri.encode())) for uri in uris]
    write_table(path, items_to_table(items), "d")
    whole = path.read_bytes()
    places = range(4, 4 + pages_of(whole), 997)
    found = 0
    for at in places:
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        try:
            stored(path, ITEMS)
        except NotWhole:
            found += 1
    assert len(places) > 100
    assert found >= 0.98 * len(places)


@pytest.mark.parametrize("of", ["items", "annotations"])
def test_of_two_that_are_of_other_bytes_the_file_tells_who_is_right(output: Output, of: str) -> None:
    before, config = output.items(FIRST).read_bytes(), load_config(output.config).ingest
    of_other_bytes(output, of)
    (finding,) = verified(output, images="none").findings
    assert "2 of its images have other bytes than by the manifest, the first of them" in finding.message
    carry_out(output, planned(output, [finding], config), config)
    assert output.items(FIRST).exists() == (of == "annotations")
    assert output.round(0).annotations(FIRST).exists() == (of == "items")
    restore(output, config)
    assert output.items(FIRST).read_bytes() == before


def test_what_is_of_a_shard_of_items_that_is_lost_is_looked_at(output: Output) -> None:
    """Or the run that makes it anew would stop over it."""
    for path in (output.items(FIRST), output.round(0).annotations(FIRST), output.round(0).decisions(FIRST)):
        cut(path)
    assert verified(output).kinds == {"damaged": 3}


@pytest.mark.parametrize("partitions", [slice(1), slice(1, 2)], ids=["before an update", "another set's"])
@pytest.mark.parametrize("lost", [False, True], ids=["whole", "with a shard that is lost"])
def test_a_manifest_of_other_shards_is_written_anew(output: Output, partitions: slice, lost: bool) -> None:
    """And none of the shards is removed that it does not speak of."""
    before, config = output.manifest.read_bytes(), load_config(output.config).ingest
    there = read_json(output.manifest)["partitions"]
    other = [{**part, "digest": "ingested" if part == there[0] else "other"} for part in there][partitions]
    edited(output.manifest, partitions=other, items=sum(part["items"] for part in other))
    if lost:
        output.items(SECOND).unlink()
    (finding,) = verified(output).findings
    assert (finding.kind, finding.path) == ("other_images", "images/manifest.json")
    plan = planned(output, [finding], config)
    assert plan == Repair(remove=(), lost=(), rewrite=("images/manifest.json",))
    carry_out(output, plan, config)
    if lost:
        assert verified(output).kinds == {"missing": 1}
        output.round(0).closed(0).unlink()
        restore(output, config)
        edited(output.manifest, listed=json.loads(before)["listed"])
    assert output.manifest.read_bytes() == before
    assert verified(output).findings == []


def test_an_unfinished_run_is_no_fault(output: Output) -> None:
    for shard in (FIRST, SECOND):
        output.round(0).decisions(shard).unlink()
    output.round(0).closed(0).unlink()
    output.round(0).summary.unlink()
    verdict = verified(output)
    assert verdict.findings == []
    assert verdict.open == {"round-0": 2}


def test_what_a_run_has_in_hand_is_no_leftover(output: Output) -> None:
    (output.root / f"round-0/.summary.json.aside-{'0' * 32}").write_text("{")
    shutil.copytree(output.root / "images/part-00000", output.root / "images/part-00002")  # as an update does
    assert kinds(output, writing=True) == set()
    assert kinds(output) == {"leftover", "beyond"}


def test_what_is_written_while_it_is_looked_at_is_not_told_missing(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run writes annotations and then decisions of a shard, just after the first of both was looked for."""
    round_ = output.round(0)
    paths = round_.annotations(FIRST), round_.decisions(FIRST)
    data = {path: path.read_bytes() for path in paths}
    for path in (*paths, round_.closed(0), round_.summary):
        path.unlink()

    def stored_before(path: Path, schema: pa.Schema) -> Any:
        try:
            return stored(path, schema)
        finally:
            if path in paths:
                for each in paths:
                    each.write_bytes(data[each])

    monkeypatch.setattr("engine.verify.shards.stored", stored_before)
    assert "missing" not in kinds(output, writing=True, images="none")


def test_of_many_findings_the_first_are_held_and_all_are_counted(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.verify.findings.KEPT", 3)
    for number in range(8):
        (output.root / f"images/part-00000/{number}.txt").write_text("mine")
    (output.root / f"images/.x.aside-{'0' * 32}").write_text("{")
    verdict = verified(output, images="none")
    assert [finding.kind for finding in verdict.findings] == ["foreign"] * 3 + ["leftover"]
    assert verdict.json()["kinds"] == {"foreign": 8, "leftover": 1}
    assert verdict.left_out == 5


def test_what_is_downloaded_is_walked_through_and_not_held(output: Output) -> None:
    for folder in range(40):
        (output.downloads / f"{folder:02x}").mkdir(parents=True)
        for number in range(200):
            (output.downloads / f"{folder:02x}" / f"{number:032x}").touch()
    tracemalloc.start()
    found = list(leftovers(output, [], [3, 3], writing=False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == []
    assert peak < 300_000


def test_what_is_removed_on_a_store_is_gone(output: Output) -> None:
    root = place("memory://test_what_is_removed_on_a_store/out")
    for path in (path for path in output.root.rglob("*") if path.is_file()):
        write_bytes(root / path.relative_to(output.root).as_posix(), path.read_bytes())
    write_bytes(root / "export/coco/.export/plan.json", b"{}")
    store, config = Output(root), load_config(output.config).ingest
    verdict = verified(store)
    assert verdict.kinds == {"unfinished_export": 1}
    carry_out(store, planned(store, verdict.findings, config), config)
    assert verified(store).kinds == {}


@pytest.mark.parametrize("steps", range(5))
def test_after_a_repair_that_was_killed_nothing_seems_done(
    output: Output, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """A run passes over partitions that have a marker, and over shards that have decisions."""
    round_, left = output.round(0), steps
    damaged = (round_.annotations(FIRST), output.items(SECOND))
    for path in damaged:
        cut(path)

    def removed(path: Path) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        remove_all(path)

    monkeypatch.setattr("engine.verify.repair.remove_all", removed)
    with pytest.raises(Killed):
        carry_out(output, planned(output, verified(output).findings, Ingest()), Ingest())
    there = round_.summary, round_.closed(0), round_.decisions(FIRST), *damaged
    assert [path.exists() for path in there] == [False] * steps + [True] * (5 - steps)


def test_images_are_looked_at_as_asked(output: Output) -> None:
    image_of(output).unlink()
    assert kinds(output, images="none") == set()
    assert kinds(output, images="all") == {"image_missing"}
    assert verified(output, images="none").images == 0


def test_what_can_not_be_made_again_is_said_before(output: Output) -> None:
    flipped(output.round(0).annotations(FIRST))
    (images_of(output) / "0000.png").unlink()
    plan = planned(output, verified(output).findings, Ingest())
    assert output.round(0).annotations(FIRST).relative_to(output.root).as_posix() in plan.remove
    assert any("0000.png" in lost and "gone" in lost for lost in plan.lost), plan
    assert output.round(0).annotations(FIRST).exists()


def test_items_of_a_later_round_are_checked_against_the_rounds_before(output: Output) -> None:
    """A round's decisions may speak of what earlier ones made, and its references too; of nothing else."""
    round_ = output.round(1)
    write_json(round_.sources, {"digest": "made", "filters": "decided", "sources": {}, "earlier": "x"})

    def added(record: Record, refers: str) -> Record:
        made = Mask(
            id="1.cutter.0",
            source="cutter",
            region_id=refers,
            size=(record.item.height or 0, record.item.width or 0),
            counts=b"x",
        )
        decision = Decision(annotation_id="0.finder.0", action="reject", by="nms", reason="duplicate_box", round=1)
        nothing = Record(record.item, round=1, error=record.error)
        return nothing if record.error else replace(nothing, masks=(made,), decisions=(decision,))

    for refers, expected in (("0.finder.0", set()), ("1.finder.0", {"dangling_reference"})):
        for shard in output.shards():
            records = [added(record, refers) for record in read_given(output, shard)]
            write_annotations(round_, shard, records, "made", {})
            write_decisions(round_, shard, records, "decided")
        assert kinds(output, images="none") == expected
    assert kinds(output, round=0, images="none") == set()


def test_no_dataset_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no dataset"):
        verified(Output(tmp_path))


def test_findings_name_what_repairs_them(output: Output) -> None:
    flipped(output.round(0).decisions(FIRST))
    (finding,) = verified(output).findings
    assert isinstance(finding, Finding)
    assert finding.path == "round-0/decisions/part-00000/shard-00000.parquet"
    removed: Sequence[str] = finding.remove
    assert "round-0/partitions/part-00000.json" in removed
    assert "round-0/summary.json" in removed
    assert not any("shard-00001" in path or "annotations" in path for path in removed)
