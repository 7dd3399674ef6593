"""What was exported comes along again: dataset, export, ingest and export give the same documents but for ids."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_made import write_dataset
from exporting import asked, run, standing
from hypothesis import given, settings
from hypothesis import strategies as st
from known import annotated, but_for_ids, document_of, documents_in, known, single
from PIL import Image
from pydantic import ValidationError
from strategies import records

from engine.config import Config, Ingest
from engine.entry import GivenText, GivenTriplet
from engine.errors import ConfigError
from engine.export.documents import documents, in_json
from engine.export.hf import HuggingFace
from engine.export.parquet import Parquet
from engine.export.webdataset import WebDataset
from engine.flat import Flat, flatten
from engine.given import canonical, take
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.records import Item, Record
from engine.schema import annotations_to_table, decisions_to_table, items_to_table
from engine.sources.documents import FORMAT, given_in
from engine.storage import Tables, read_faults, read_given
from engine.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return known(tmp_path_factory.mktemp("set"))


def taken(path: Path, out: Path, **options: Any) -> tuple[list[Record], dict[str, Any]]:
    """What comes along, and the manifest."""
    output = Output(out)
    manifest = ingest(output, Ingest(images=(str(path),), **options), "digest", lambda done: None)
    return [record for shard in output.shards() for record in read_given(output, shard)], manifest


EXPORTS = {
    "webdataset": (WebDataset(), None),
    "hf": (HuggingFace(), "inside"),
    "hf refers": (HuggingFace(), "refer"),
    "parquet": (Parquet(), "refer"),
    "parquet copies": (Parquet(), "copy"),
    "parquet links": (Parquet(), "link"),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_there_and_back_again(output: Output, tmp_path: Path, name: str) -> None:
    format_, how = EXPORTS[name]
    run(asked(output, format_, tmp_path / "to", how=how))  # type: ignore[arg-type]
    back = write_dataset(tmp_path / "to", tmp_path / "back", lambda record: canonical(record, Vocabulary()))
    faults = [fault for shard in back.shards() for _, fault in read_faults(back, shard)]
    assert faults == []
    run(asked(back, WebDataset(), tmp_path / "again", shares={}))
    before = sorted(but_for_ids(document_of(record)) for record in standing(output).values())
    assert sorted(map(but_for_ids, documents_in(tmp_path / "again"))) == before
    assert len(before) == 7
    if how in ("copy", "link"):  # wherever the export is taken to
        uris = [document["uri"] for document in documents_in(tmp_path / "again")]
        assert all(uri.startswith(f"{tmp_path}/to/images/") for uri in uris)


def test_files_in_an_export_may_be_named_alone(output: Output, tmp_path: Path) -> None:
    for format_, pattern in ((WebDataset(), "*/*.tar"), (HuggingFace(), "data/*/*.parquet"), (Parquet(), "images/*/*")):
        to = tmp_path / format_.name
        run(asked(output, format_, to, shares={}))
        first, *_ = sorted(to.glob(pattern))
        records, manifest = taken(first, tmp_path / f"in {format_.name}")
        assert len(records) == 3 and manifest["faults"] == {}
        assert sum(len(record.triplets) for record in records) >= 10


def test_what_the_library_saves_of_it_comes_back(output: Output, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    run(asked(output, HuggingFace(), tmp_path / "to"))
    files = [str(path) for path in sorted((tmp_path / "to").glob("data/*/*.parquet"))]
    whole = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    whole.save_to_disk(tmp_path / "saved", num_shards=2)
    back = write_dataset(tmp_path / "saved", tmp_path / "back", lambda record: canonical(record, Vocabulary()))
    run(asked(back, WebDataset(), tmp_path / "again", shares={}))
    before = sorted(but_for_ids(document_of(record)) for record in standing(output).values())
    assert sorted(map(but_for_ids, documents_in(tmp_path / "again"))) == before


def test_whoever_made_it_signs_it(output: Output, tmp_path: Path) -> None:
    run(asked(output, WebDataset(), tmp_path / "to"))
    for source, options in (("human", {}), ("sam_3", {"source": "sam_3"})):
        records, manifest = taken(tmp_path / "to", tmp_path / source, **options)
        assert {one.source for record in records for one in record.annotations()} == {source}
        assert set(manifest["given"]) == {
            f"{source} {table}" for table in ("texts", "regions", "region_texts", "masks", "triplets")
        }
        assert all(one.id.startswith(f"0.{source}.") for record in records for one in record.annotations())


def test_texts_of_web_pages_stay_what_they_are() -> None:
    item = Item(Item.id_of("a"), "a", width=10, height=10)
    record, _ = take(item, [GivenText("a", "alt"), GivenText("b")], "sam")
    assert [text.source for text in record.texts] == ["alt", "sam"]


@pytest.mark.parametrize("source", ["", "Two words", "a.b", "merge", "cascade", "_a", 'a"', "x" * 61])
def test_names_that_nobody_has(source: str) -> None:
    with pytest.raises(ValidationError):
        Ingest(source=source)


def test_a_specialist_of_the_pipeline_signs_for_itself_alone() -> None:
    with pytest.raises(ValidationError, match="'detector' is one of the specialists"):
        Config(specialists={"detector": {}}, ingest=Ingest(source="detector"))
    assert Config(specialists={"detector": {}}, ingest=Ingest(source="detr")).ingest.source == "detr"


@settings(max_examples=20, deadline=None)
@given(st.lists(records(max_rounds=1), min_size=1, max_size=3))
def test_documents_say_what_records_say(some: list[Record]) -> None:
    layer = annotations_to_table(some), decisions_to_table(some)
    flat = flatten(Tables(items_to_table([record.item for record in some]), (layer,), (0,)))
    images = flat.images.append_column("split", pa.array(["val"] * len(some)))
    told = documents(Flat(images, flat.annotations))
    for record, found, (_, text) in zip(some, told.drop_columns(["row"]).to_pylist(), in_json(told), strict=True):
        assert single(orjson.loads(text)) == found
        if record.fallen:  # what triplets name then is for `engine.flat` to say
            record = dataclasses.replace(record, triplets=())
            found["triplets"] = []
        expected = document_of(record, split="val")
        for region, one in zip(expected["regions"], record.standing.regions, strict=True):
            region["label"] = one.label
        assert found == expected


# What is wrong in a document

DOCUMENT: dict[str, Any] = {
    "format": FORMAT,
    "width": 40,
    "height": 30,
    "texts": [{"id": "t", "text": " A dog runs.", "detail": "brief", "composed": False}],
    "regions": [
        {"id": "r", "kind": "object", "raw_label": "Dog", "label": "dog", "box": [1, 2, 11, 12], "score": 0.5},
        {"id": "l", "kind": "text", "text": "EXIT", "box": [1, 2, 11, 12], "quad": [1, 2, 11, 2, 11, 12, 1, 12]},
    ],
    "region_texts": [{"id": "d", "region_id": "r", "text": "a dog"}, {"id": "e", "region_id": "r", "text": "it runs"}],
    "masks": [{"id": "m", "region_id": "r", "size": [30, 40], "counts": [10, 20, 1170]}],
    "triplets": [{"id": "p", "text_id": "t", "start": 1, "stop": 6, "phrase": "A dog", "region_ids": ["r"]}],
}
ITEM = Item(Item.id_of("a.jpg"), "a.jpg", width=40, height=30)


def changed(table: str, number: int = 0, **values: Any) -> dict[str, Any]:
    rows = [row | values if n == number else row for n, row in enumerate(DOCUMENT[table])]
    return DOCUMENT | {table: rows}


def counts(record: Record) -> tuple[int, ...]:
    return tuple(len(getattr(record, name)) for name in ("texts", "regions", "region_texts", "masks", "triplets"))


def test_all_of_a_document() -> None:
    record, faults = take(ITEM, given_in(DOCUMENT, "a.json"))
    assert faults == () and counts(record) == (1, 2, 2, 1, 1)
    (text,), (dog, line), (triplet,) = record.texts, record.regions, record.triplets
    assert text.text == " A dog runs." and text.text[triplet.start : triplet.stop] == "A dog"
    assert (dog.raw_label, dog.box, dog.score) == ("Dog", (1, 2, 11, 12), 0.5)
    assert (line.kind, line.text, line.quad) == ("text", "EXIT", (1, 2, 11, 2, 11, 12, 1, 12))
    assert [one.text for one in record.region_texts] == ["a dog", "it runs"]
    assert (triplet.text_id, triplet.region_ids, triplet.scores.phrase) == (text.id, (dog.id,), None)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("document", "kinds", "left"),
    [
        (changed("regions", 1, box=[NAN, 2, 11, 12]), ["bad_box"], (1, 1, 2, 1, 1)),
        (changed("regions", 1, box="[1, 2, 3, 4]"), ["bad_box"], (1, 1, 2, 1, 1)),
        (changed("regions", 1, box=[1, 2, 11]), ["bad_box"], (1, 1, 2, 1, 1)),
        (changed("regions", 1, box=None), ["bad_box"], (1, 1, 2, 1, 1)),
        (changed("regions", 1, box=[1, 2, 51, 12]), ["box_clipped"], (1, 2, 2, 1, 1)),
        (changed("regions", 1, kind="thing"), ["bad_kind"], (1, 1, 2, 1, 1)),
        (changed("regions", 1, kind=["object"]), ["bad_kind"], (1, 1, 2, 1, 1)),
        (changed("regions", 1, id="r"), ["repeated_id"], (1, 1, 2, 1, 1)),
        (changed("regions", 1, quad=[1, 2, 11, 2, 11, 12, 1]), ["bad_quad"], (1, 2, 2, 1, 1)),
        (changed("regions", 1, quad=[1, 2, 11, 2, 11, 12, 1, INF]), ["bad_quad"], (1, 2, 2, 1, 1)),
        (changed("regions", 1, quad="quad"), ["bad_quad"], (1, 2, 2, 1, 1)),
        (changed("regions", 1, quad=[-9, 2, 11, 2, 11, 12, 1, 1e300]), ["quad_clipped"], (1, 2, 2, 1, 1)),
        (changed("regions", 0, score=NAN), ["bad_score"], (1, 2, 2, 1, 1)),
        (changed("regions", 0, score="0.5"), ["bad_score"], (1, 2, 2, 1, 1)),
        (changed("regions", 0, score=True), ["bad_score"], (1, 2, 2, 1, 1)),
        (changed("regions", 0, score=10**400), ["bad_score"], (1, 2, 2, 1, 1)),
        # What hangs on a region falls with it, and each is told.
        (changed("regions", 0, box=[5, 5, 5, 5]), ["bad_box", *["unknown_region"] * 4], (1, 1, 0, 0, 0)),
        (changed("regions", 0, id=7), ["unknown_region"] * 4, (1, 2, 0, 0, 0)),
        (DOCUMENT | {"width": 41}, [*["image_size"] * 2, *["unknown_region"] * 4], (1, 0, 0, 0, 0)),
        (DOCUMENT | {"width": "40"}, [*["image_size"] * 2, *["unknown_region"] * 4], (1, 0, 0, 0, 0)),
        (changed("texts", 0, text="  "), ["empty_text", "unknown_text"], (0, 2, 2, 1, 0)),
        (changed("texts", 0, text=None), ["empty_text", "unknown_text"], (0, 2, 2, 1, 0)),
        (changed("texts", 0, text=["A dog runs."]), ["empty_text", "unknown_text"], (0, 2, 2, 1, 0)),
        (changed("texts", 0, text="A dog runs."), ["bad_span"], (1, 2, 2, 1, 0)),  # other words at its place
        (changed("texts", 0, id="r"), ["repeated_id", "unknown_text"], (0, 2, 2, 1, 0)),
        (changed("texts", 0, composed=True), ["composed", "unknown_text"], (0, 2, 2, 1, 0)),
        (changed("texts", 0, composed=True, derived_from=["x", 3]), ["composed", "unknown_text"], (0, 2, 2, 1, 0)),
        (changed("texts", 0, detail="long"), [], (1, 2, 2, 1, 1)),
        (changed("region_texts", 1, region_id="t"), ["unknown_region"], (1, 2, 1, 1, 1)),
        (changed("region_texts", 1, region_id=None), ["unknown_region"], (1, 2, 1, 1, 1)),
        (changed("region_texts", 1, text=3), ["empty_text"], (1, 2, 1, 1, 1)),
        (changed("masks", 0, size=[40, 30]), ["mask_size"], (1, 2, 2, 0, 1)),
        (changed("masks", 0, counts="no run lengths"), ["bad_mask"], (1, 2, 2, 0, 1)),
        (changed("masks", 0, region_id="x"), ["unknown_region"], (1, 2, 2, 0, 1)),
        (changed("triplets", 0, stop=13), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, start=-1), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, stop=13, phrase=None), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, start=-1, phrase=None), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, start=6, phrase=None), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, start=1.0), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, start=None), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, stop=10**5000), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, start=2), ["bad_span"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, start=2, phrase=None), [], (1, 2, 2, 1, 1)),
        (changed("triplets", 0, text_id="r"), ["unknown_text"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, text_id=None), ["unknown_text"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, region_ids=["r", "x"]), ["unknown_region"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, region_ids="r"), [], (1, 2, 2, 1, 1)),
        (changed("triplets", 0, region_ids=[["r"]]), ["unknown_region"], (1, 2, 2, 1, 0)),
        (changed("triplets", 0, score=NAN), ["bad_score"], (1, 2, 2, 1, 1)),
        # Lists that are none.
        (DOCUMENT | {"triplets": {"p": 1}}, ["unknown_text"], (1, 2, 2, 1, 0)),
        (DOCUMENT | {"triplets": [None, 3, "p"]}, ["unknown_text"] * 3, (1, 2, 2, 1, 0)),
        (DOCUMENT | {"masks": 3, "region_texts": ""}, ["unknown_region"] * 2, (1, 2, 0, 0, 1)),
        ({"format": FORMAT}, [], (0, 0, 0, 0, 0)),
    ],
)
def test_what_is_wrong_is_told_and_what_is_right_is_kept(
    document: dict[str, Any], kinds: list[str], left: tuple[int, ...]
) -> None:
    record, faults = take(ITEM, given_in(document, "a.json"))
    assert [fault.kind for fault in faults] == kinds
    assert counts(record) == left
    assert all(fault.where.endswith(" of a.json") for fault in faults)


def test_ids_hold_within_their_document() -> None:
    other = DOCUMENT | {"regions": [], "texts": []}
    record, faults = take(ITEM, [*given_in(DOCUMENT, "a.json"), *given_in(other, "b.json")])
    assert [fault.where for fault in faults] == [
        f"{place} of b.json" for place in ("region_texts[0]", "region_texts[1]", "masks[0]", "triplets[0]")
    ]
    assert counts(record) == (1, 2, 2, 1, 1)


def test_a_composed_text_is_of_the_regions_that_came_along() -> None:
    record, faults = take(ITEM, given_in(changed("texts", 0, composed=True, derived_from=["x", "l", "r"]), "a.json"))
    dog, line = record.regions
    assert record.texts[0].derived_from == (line.id, dog.id) and not faults


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
names = sorted({name for table in DOCUMENT.values() if isinstance(table, list) for row in table for name in row})


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(DOCUMENT)), st.integers(0, 1), st.sampled_from(names), anything)))
def test_whatever_stands_in_a_document_is_taken_or_told(edits: list[tuple[str, int, str, Any]]) -> None:
    document = {
        name: [dict(row) for row in value] if isinstance(value, list) else value for name, value in DOCUMENT.items()
    }
    for table, number, name, value in edits:
        rows = document[table]
        if isinstance(rows, list) and number < len(rows) and isinstance(rows[number], dict):
            rows[number][name] = value
        else:
            document[table] = value
    some = given_in(document, "a.json")
    record, faults = take(ITEM, some)
    left_out = sum(fault.message.endswith("it was left out") for fault in faults)
    assert sum(counts(record)) + left_out == len(some)
    for one, text in ((triplet, record.by_id[triplet.text_id]) for triplet in record.triplets):
        assert 0 <= one.start < one.stop <= len(text.text)  # type: ignore[union-attr]
    assert sum(isinstance(one, GivenTriplet) for one in some) >= len(record.triplets)


# Files


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return path


def picture() -> bytes:
    data = BytesIO()
    Image.new("RGB", (40, 30), "red").save(data, "PNG")
    return data.getvalue()


def test_a_document_in_a_tar_goes_before_the_text_beside_it(tmp_path: Path) -> None:
    about = DOCUMENT | {"dataset": "coco", "licence": "CC0", "labels": ["x", 3, None]}
    path = tar(tmp_path / "a.tar", ("1.png", picture()), ("1.json", json.dumps(about).encode()), ("1.txt", b"A dog."))
    (record,), manifest = taken(path, tmp_path / "out")
    assert counts(record) == (1, 2, 2, 1, 1) and manifest["faults"] == {}
    assert (record.item.dataset, record.item.licence, record.item.labels) == ("coco", "CC0", ("x", "3"))
    other = json.dumps({"format": "florence-engine/99", "caption": "of a later engine"}).encode()
    path = tar(tmp_path / "b.tar", ("1.png", picture()), ("1.json", other))
    (record,), _ = taken(path, tmp_path / "other")
    assert [(text.source, text.text) for text in record.texts] == [("alt", "of a later engine")]


def test_a_document_with_many_masks_is_read_whole(tmp_path: Path) -> None:
    many = DOCUMENT | {"region_texts": [{"region_id": "r", "text": "a dog " * 1000}] * 300}
    data = json.dumps(many).encode()
    assert len(data) > 1 << 20
    (record,), manifest = taken(tar(tmp_path / "a.tar", ("1.png", picture()), ("1.json", data)), tmp_path / "out")
    assert len(record.region_texts) == 300 and manifest["faults"] == {}


def exported(tmp_path: Path) -> Path:
    """An image's Parquet export, with what `annotated` makes of it."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (90, 70), "red").save(tmp_path / "pictures" / "0.png")
    output = write_dataset(tmp_path / "pictures", tmp_path / "out", annotated)
    run(asked(output, Parquet(), tmp_path / "to", shares={}))
    return tmp_path / "to"


def edit(path: Path, change: Any) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def test_tables_that_somebody_changed(tmp_path: Path) -> None:
    to = exported(tmp_path)
    (masks,), (regions,), (triplets,) = (list(to.glob(f"{name}/*/*")) for name in ("masks", "regions", "triplets"))
    (before,), _ = taken(to, tmp_path / "before")
    edit(regions, lambda table: table.take(list(reversed(range(len(table))))))  # in any order
    edit(masks, lambda table: table.set_column(0, "item_id", pa.array(["nobody's", *table["item_id"].to_pylist()[1:]])))
    triplets.unlink()
    (record,), manifest = taken(to, tmp_path / "after")
    assert [region.box for region in record.regions] == [region.box for region in reversed(before.regions)]
    assert len(record.masks) == len(before.masks) - 1 and record.triplets == ()
    assert manifest["faults"] == {"no_image": 1}
    assert "masks beside part-00000-shard-00000.parquet" in manifest["first_faults"][0]["where"]


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("regions", lambda table: table.drop_columns(["id"])),
        ("images", lambda table: table.drop_columns(["item_id"])),
        ("images", lambda table: table.set_column(0, "item_id", pa.array([[1]] * len(table)))),
        ("texts", lambda table: table.set_column(0, "item_id", pa.array([1] * len(table)))),
    ],
)
def test_tables_that_are_no_tables_of_an_export(tmp_path: Path, table: str, change: Any) -> None:
    to = exported(tmp_path)
    (path,) = to.glob(f"{table}/*/*")
    edit(path, change)
    with pytest.raises(ConfigError, match=f"{table}.*must have a column"):
        taken(to, tmp_path / "back")


def test_damaged_tables(tmp_path: Path) -> None:
    to = exported(tmp_path)
    (path,) = to.glob("regions/*/*")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match="can't be read as a table of an export"):
        taken(to, tmp_path / "back")


@pytest.mark.parametrize("told", [b"[", b"[]", b'{"format": ["hf"]}', b'{"format": "other"}', b"[" * 10**6, b"\xff"])
def test_a_folder_with_another_export_json_is_a_folder(tmp_path: Path, told: bytes) -> None:
    (tmp_path / "export.json").write_bytes(told)
    (tmp_path / "a.png").write_bytes(picture())
    listing = Listing([tmp_path])
    assert [entry.uri for entry in listing] == [str(tmp_path / "a.png")]
    assert listing.skipped == {".json": 1}


def test_a_table_leads_to_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "export.json").write_text('{"format": "parquet"}')
    path = tmp_path / "images/train/part-00000.parquet"
    rows = {
        "item_id": ["0", "1", "2"],
        "uri": ["/a.png"] * 3,
        "file": ["../secret/s.png", "images/train/x/b.png", None],
    }
    pq.write_table(pa.table(rows), path)
    outside, inside, elsewhere = Listing([tmp_path])
    assert outside.error and outside.error.kind == "outside_root" and outside.uri == f"{path}#0"
    assert "'../secret/s.png'" in outside.error.message
    assert (inside.uri, inside.error) == (f"{tmp_path}/images/train/x/b.png", None)
    assert (elsewhere.uri, elsewhere.error) == ("/a.png", None)


def test_an_export_without_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text('{"format": "hf"}')
    with pytest.raises(ConfigError, match="no images in"):
        list(Listing([tmp_path]))
