"""What every export has, whatever its format: what stands, splits that stay, one that goes on after a kill, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets_made import write_dataset
from exporting import Deadly, Full, Leaving, Unfinished, endless
from PIL import Image
from s3 import environment, faulty, s3_server

from engine import lock
from engine.atomic import write_json
from engine.config import Ingest, Run
from engine.dataset import open_dataset
from engine.errors import ConfigError, OutputError, RunError
from engine.export import run as running
from engine.export.images import upright
from engine.export.parquet import Parquet
from engine.export.run import Export, _setting, export, write_part
from engine.export.selection import KINDS, Selection
from engine.export.split import Splits, splits_of
from engine.images import decode
from engine.layout import LOCK, Output
from engine.lock import run_lock
from engine.places import place
from engine.records import Decision, Mask, Record, Region, RegionText, Scores, Text, Triplet
from engine.runner import cluster
from engine.storage import read_records, write_decisions
from engine.vocabulary import ClassEntry, Vocabulary

COUNT = 10
SHARES = {"train": 0.5, "val": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures, a copy of one, and one that can't be read."""
    folder = tmp_path_factory.mktemp("photos")
    for n in range(COUNT):
        pixels = np.random.default_rng(n).integers(0, 255, (20 + n, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    (folder / "copy.png").write_bytes((folder / "3.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 once a photo")
    return folder


def annotated(record: Record) -> Record:
    """Two dogs of which one fell, a cat without a score, a line; a mask, a text, triplets."""
    scores = [Scores(label=0.9), Scores(label=0.4), Scores()]
    labels = ("dog", "puppy", "cat")
    regions = [
        Region(
            id=f"0.detector.{n}",
            source="detector",
            kind="object",
            box=(n, 1, n + 5.5, 9),
            raw_label=label,
            label=label,
            scores=score,
        )
        for n, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    line = Region(id="0.ocr.0", source="ocr", kind="text", box=(1, 1, 8, 4), text="EXIT", scores=Scores(label=0.8))
    text = Text(id="0.human.0", source="human", text="a dog and a cat", detail="brief")
    assert record.item.width and record.item.height
    record = record.append([*regions, line, text])
    size = (record.item.height, record.item.width)
    record = record.append(
        [
            Mask(id="0.sam.0", source="sam", region_id="0.detector.1", size=size, counts=b"0123"),
            RegionText(id="0.composer.0", source="composer", region_id="0.detector.0", text="a brown dog"),
            Triplet(
                id="0.grounder.0", source="grounder", text_id=text.id, start=0, stop=5, region_ids=("0.detector.1",)
            ),
            Triplet(
                id="0.grounder.1", source="grounder", text_id=text.id, start=10, stop=15, region_ids=("0.detector.2",)
            ),
        ]
    )
    fell = Decision(annotation_id="0.detector.1", action="supersede", by="nms", reason="better", against="0.detector.0")
    return record.decide([fell, record.reject(record.masks[0], "cascade", "region_fell")])


@pytest.fixture(scope="module")
def output(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Output:
    return write_dataset(folder, tmp_path_factory.mktemp("set") / "out", annotated)


def asked(output: Output, to: Path, shares: dict[str, float] | None = None, **changes: Any) -> Export:
    dataset = open_dataset(output.root)
    selection = Selection(frozenset(KINDS), **changes.pop("selection", {}))
    chosen = {"how": "refer", "missing": "stop", **changes}
    return Export(dataset, Parquet(), to, selection, splits_of(dataset, shares or {}), ingest=Ingest(), **chosen)


def run(one: Export) -> dict[str, Any]:
    return export(one, Run(), lambda done: None)


def files(to: Path) -> dict[str, bytes]:
    return {path.relative_to(to).as_posix(): path.read_bytes() for path in sorted(to.rglob("*")) if path.is_file()}


def column(to: Path, table: str, name: str) -> list[Any]:
    paths = sorted((to / table).rglob("*.parquet"))
    return [value for path in paths for value in pq.read_table(path)[name].to_pylist()]


def test_what_stands_leaves_and_what_does_not_is_counted(output: Output, tmp_path: Path) -> None:
    summary = run(asked(output, tmp_path / "to"))
    assert summary["splits"] == {
        "train": {"images": COUNT, "texts": COUNT, "regions": 3 * COUNT, "region_texts": COUNT, "triplets": COUNT}
    }
    assert summary["left_out"] == {"images": {"exact duplicates": 1, "quarantined": 1}, "annotations": {}}
    assert summary["sources"]["detector"]["licence"] == "Apache-2.0"
    assert json.loads((tmp_path / "to" / "export.json").read_text()) == summary
    assert not (tmp_path / "to" / ".export").exists()
    assert set(column(tmp_path / "to", "regions", "id")) == {"0.detector.0", "0.detector.2", "0.ocr.0"}
    assert column(tmp_path / "to", "triplets", "phrase") == ["a cat"] * COUNT  # a dog's region has another label


def test_going_on_leaves_what_an_undisturbed_export_does(output: Output, tmp_path: Path) -> None:
    whole, broken = asked(output, tmp_path / "whole", SHARES), asked(output, tmp_path / "broken", SHARES)
    run(whole)
    shards = broken.dataset.shards()
    plan = broken.to / ".export" / "plan.json"
    setting = _setting(broken, shards, plan, running._digest(replace(broken, to=whole.to)))
    first = {shard: 3 * n for n, shard in enumerate(shards)}
    for shard in (shards[0], shards[2]):
        write_part(broken, Run(), setting, first, shard)
    half, others = (to / f".x.parquet.aside-{'0' * 32}" for to in (broken.to / "regions", tmp_path))
    for path in (half, others):
        path.write_bytes(b"half")
    done: list[int] = []
    export(broken, Run(), done.append)
    assert done[0] == 6 and sum(done) == COUNT + 2
    assert files(broken.to) == files(whole.to)
    assert others.exists()


def test_parts_that_were_written_in_another_way_are_not_gone_on_with(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, shard = asked(output, tmp_path / "to"), open_dataset(output.root).shards()[0]
    monkeypatch.setattr(running, "VERSION", running.VERSION - 1)  # as an engine of before
    plan = begun.to / ".export" / "plan.json"
    write_part(begun, Run(), _setting(begun, [shard], plan, running._digest(begun)), {shard: 0}, shard)
    monkeypatch.undo()
    with pytest.raises(OutputError, match=r"holds another export.*or how it is written"):
        run(begun)


def test_what_a_run_left_that_was_killed_at_its_very_end_goes(output: Output, tmp_path: Path) -> None:
    one = asked(output, tmp_path / "to")
    first = run(one)
    before = files(one.to)
    write_json(one.to / ".export" / "plan.json", first)
    write_json(one.to / ".export" / "part-00000" / "shard-00000" / "done.json", {})
    assert run(one) == first
    assert files(one.to) == before and not (one.to / ".export").exists()


def test_the_lease_of_an_export_on_a_store_is_given_back_before_it_goes(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its next renewal finds none, and takes it for another run's; or writes it anew, for good."""
    monkeypatch.setattr(lock, "SETTLE", 0.1)
    with s3_server() as server, faulty(server) as proxy, environment(proxy.url):
        bucket, states = server.bucket(), list[str | None]()

        def watch(method: str, path: str) -> None:
            key = f"to/.export/{LOCK}"
            token = json.loads(bucket.read(key))["token"] if bucket.keys(key) else None
            if [token] != states[-1:]:
                states.append(token)

        proxy.fault = watch
        summary = run(asked(output, place(f"{bucket.uri}/to")))
        assert json.loads(bucket.read("to/export.json")) == summary
        assert not bucket.keys("to/.export")
    there, held, given_back = states
    assert there is None and held and given_back == ""


def test_the_same_again_does_nothing_and_another_is_refused(output: Output, tmp_path: Path) -> None:
    first = run(asked(output, tmp_path / "to"))
    before = files(tmp_path / "to")
    assert run(asked(output, tmp_path / "to")) == first
    assert files(tmp_path / "to") == before
    with pytest.raises(OutputError, match=r"holds another export \(parquet of round 0 of out\).*differs in split"):
        run(asked(output, tmp_path / "to", SHARES))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something that is no export"):
        run(asked(output, tmp_path / "own"))


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with cluster(Run()):
        yield


def test_what_has_changed_since_is_another_export(folder: Path, tmp_path: Path) -> None:
    output = write_dataset(folder, tmp_path / "out", annotated)
    run(asked(output, tmp_path / "to"))
    shard = next(iter(output.shards()))
    records = read_records(output, 0, shard)
    fewer = [r.decide([r.reject(r.texts[0], "length", "too_short")]) if r.texts else r for r in records]
    write_decisions(output.round(0), shard, fewer, "others")
    with pytest.raises(OutputError, match="What is exported has changed since"):
        run(asked(output, tmp_path / "to"))


def test_two_at_once_do_not_mix(output: Output, tmp_path: Path) -> None:
    with run_lock(tmp_path / "to" / ".export"), pytest.raises(OutputError, match="in use by another run"):
        run(asked(output, tmp_path / "to"))
    assert run(asked(output, tmp_path / "to"))["splits"]["train"]["images"] == COUNT


def test_no_space_left_is_said(output: Output, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no space left in .*to\. What is done is safe"):
        run(replace(asked(output, tmp_path / "to"), format=Full()))


def test_a_format_that_ends_its_process_does_not_end_the_export_with_its_code(output: Output, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"parquet.* called sys\.exit\(0\)"):
        run(replace(asked(output, tmp_path / "to"), format=Leaving()))


@pytest.fixture
def tasks(ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the images, tasks of Ray write them."""
    monkeypatch.setattr(running, "INLINE", {False: -1, True: -1})


@pytest.mark.usefixtures("tasks")
def test_tasks_write_the_same(output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    export(asked(output, tmp_path / "ray", SHARES), Run(), done.append)
    assert sum(done) == COUNT + 2
    monkeypatch.undo()
    run(asked(output, tmp_path / "threads", SHARES))
    assert files(tmp_path / "ray") == files(tmp_path / "threads")


@pytest.mark.usefixtures("tasks")
def test_a_part_that_kills_its_writers_is_named_and_the_export_goes_on(output: Output, tmp_path: Path) -> None:
    one = asked(output, tmp_path / "to")
    with pytest.raises(
        RunError, match=r"part-00000/shard-00001: the process .* died.*an image most likely.*same again"
    ):
        run(replace(one, format=Deadly()))
    run(one)
    run(replace(one, to=tmp_path / "undisturbed"))
    assert files(one.to) == files(tmp_path / "undisturbed")


@pytest.mark.usefixtures("tasks")
def test_an_export_goes_on_of_which_all_parts_are_done(output: Output, tmp_path: Path) -> None:
    one = asked(output, tmp_path / "to")
    with pytest.raises(ZeroDivisionError):
        run(replace(one, format=Unfinished()))
    run(one)
    assert (one.to / "export.json").exists()


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(("format_", "words"), [(Leaving(), r"called sys\.exit\(0\)"), (Full(), "no space left in")])
def test_tasks_say_the_same(format_: Parquet, words: str, output: Output, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=words):
        run(replace(asked(output, tmp_path / "to"), format=format_))


@pytest.mark.usefixtures("tasks")
def test_an_error_of_a_part_comes_through_ray_as_it_is(output: Output, tmp_path: Path) -> None:
    gone = asked(output, tmp_path / "to", how="copy")
    moved = replace(gone, ingest=Ingest(max_bytes=10))
    with pytest.raises(RunError, match=r"(?s)annotated image\(s\) can't be read any more:.*too_large.*--missing skip"):
        export(moved, Run(), lambda done: None)


# Which annotations


def test_least_scores_are_by_source_and_what_has_none_stays(output: Output, tmp_path: Path) -> None:
    summary = run(asked(output, tmp_path / "a", selection={"min_score": {"*": 0.85}}))
    assert sorted(set(column(tmp_path / "a", "regions", "id"))) == ["0.detector.0", "0.detector.2"]
    assert summary["left_out"]["annotations"] == {"below_min_score": COUNT}  # the line; the cat has no score
    run(asked(output, tmp_path / "b", selection={"min_score": {"detector": 0.95}}))
    assert sorted(set(column(tmp_path / "b", "regions", "id"))) == ["0.detector.2", "0.ocr.0"]
    assert not (tmp_path / "b" / "region_texts").exists()  # it went with the dog
    some = asked(output, tmp_path / "c")
    some = replace(some, selection=Selection(frozenset({"objects"}), min_score={"*": 0.85}))
    assert run(some)["left_out"]["annotations"] == {}, "of lines, which were not chosen, nothing is left out"


def test_labels_are_the_vocabularys_and_then_the_maps(output: Output, tmp_path: Path) -> None:
    words = Vocabulary(classes={"hound": ClassEntry(synonyms=("dog",))}, ignore=("cat",))
    summary = run(asked(output, tmp_path / "a", selection={"vocabulary": words}))
    assert column(tmp_path / "a", "regions", "label") == ["hound", None] * COUNT
    assert summary["left_out"]["annotations"] == {"ignored": 2 * COUNT}  # a cat, and its triplet
    animals = Vocabulary(classes={"pet": ClassEntry(synonyms=("cat",))})
    summary = run(asked(output, tmp_path / "b", selection={"label_map": animals}))
    assert column(tmp_path / "b", "regions", "label") == ["pet", None] * COUNT
    assert summary["left_out"]["annotations"] == {"unmapped": 2 * COUNT}  # a dog, and its text


def test_sources_and_kinds_choose(output: Output, tmp_path: Path) -> None:
    run(asked(output, tmp_path / "a", selection={"sources": frozenset({"human", "ocr"})}))
    assert {name for name in ("regions", "texts", "triplets") if (tmp_path / "a" / name).exists()} == {
        "regions",
        "texts",
    }
    assert set(column(tmp_path / "a", "regions", "id")) == {"0.ocr.0"}
    one = asked(output, tmp_path / "b")
    run(replace(one, selection=Selection(frozenset({"lines"}))))
    assert column(tmp_path / "b", "regions", "text") == ["EXIT"] * COUNT
    assert not (tmp_path / "b" / "texts").exists()


def test_images_of_evaluation_sets_stay(output: Output, tmp_path: Path) -> None:
    run(asked(output, tmp_path / "a"))
    ids = column(tmp_path / "a", "images", "item_id")
    summary = run(asked(output, tmp_path / "b", contaminated=frozenset(ids[:2])))
    assert column(tmp_path / "b", "images", "item_id") == ids[2:]
    assert summary["left_out"]["images"] == {"exact duplicates": 1, "in evaluation sets": 2, "quarantined": 1}
    assert summary["splits"]["train"]["regions"] == 3 * (COUNT - 2)


# Splits


def test_splits_stay_when_images_are_added_or_moved(folder: Path, tmp_path: Path) -> None:
    def split_of(out: Output, to: Path) -> dict[str, str]:
        run(asked(out, to, SHARES))
        return dict(zip(column(to, "images", "content_id"), column(to, "images", "split"), strict=True))

    few = tmp_path / "elsewhere"
    few.mkdir()
    for n in range(6):
        (few / f"renamed {9 - n}.png").write_bytes((folder / f"{n}.png").read_bytes())
    before = split_of(write_dataset(few, tmp_path / "few", annotated), tmp_path / "a")
    after = split_of(write_dataset(folder, tmp_path / "all", annotated), tmp_path / "b")
    assert set(before.values()) == {"train", "val"}
    assert before.items() <= after.items()


def test_images_that_look_alike_are_in_one_split(folder: Path, tmp_path: Path) -> None:
    hashes = {f"{n}.png": (n // 5).to_bytes() * 8 for n in range(COUNT)}
    hashes = {name: hash_ if hash_ != b"\0" * 8 else b"\x0f" * 8 for name, hash_ in hashes.items()}
    output = write_dataset(folder, tmp_path / "out", annotated, hashes=hashes)
    for seed in range(4):  # of shares, so that by chance not all are in the same one
        run(asked(output, tmp_path / str(seed), {"train": 0.2 + 0.2 * seed, "val": 0.8 - 0.2 * seed}))
        names = [uri.rpartition("/")[2] for uri in column(tmp_path / str(seed), "images", "uri")]
        split = dict(zip(names, column(tmp_path / str(seed), "images", "split"), strict=True))
        assert len({split[f"{n}.png"] for n in range(5)}) == len({split[f"{n}.png"] for n in range(5, 10)}) == 1


def test_shares_are_kept_and_must_add_up(output: Output) -> None:
    splits = Splits((("train", 0.9), ("val", 0.1)))
    ids = [np.random.default_rng(n).bytes(16).hex() for n in range(4000)]
    assert 0.08 < sum(splits.of(id_) == "val" for id_ in ids) / 4000 < 0.12
    dataset = open_dataset(output.root)
    for shares in ({"train": 0.9}, {"train": 1.2, "val": -0.2}, {"train": float("nan"), "val": 0.5}):
        with pytest.raises(ConfigError, match="above 0 and add up to 1"):
            splits_of(dataset, shares)
    for name in ("../../escape", "a/b", "", "..", "a b", "x" * 300):
        with pytest.raises(ConfigError, match="no name for a split"):
            splits_of(dataset, {name: 0.5, "val": 0.5})
    orders = [{"val": 0.1, "test": 0.2, "train": 0.7}, {"train": 0.7, "val": 0.1, "test": 0.2}]
    assert splits_of(dataset, orders[0]) == splits_of(dataset, orders[1])


# Images


def test_gone_and_changed_images_stop_or_are_left_out(folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(4):
        (photos / f"{n}.png").write_bytes((folder / f"{n}.png").read_bytes())
    output = write_dataset(photos, tmp_path / "out", annotated)
    (photos / "1.png").unlink()
    (photos / "2.png").write_bytes((folder / "9.png").read_bytes())
    with pytest.raises(RunError, match=r"(?s)2 annotated image\(s\).*missing.*changed.*--missing skip"):
        run(asked(output, tmp_path / "a", how="copy"))
    assert not (tmp_path / "a" / "export.json").exists()
    spread = write_dataset(photos, tmp_path / "spread", annotated, shard_size=1)  # 1.png is not even listed any more
    (photos / "0.png").rename(photos / "later.png")
    (photos / "3.png").rename(photos / "latest.png")
    with pytest.raises(RunError, match=r"(?s)2 annotated image\(s\).*0\.png.*3\.png"):
        run(asked(spread, tmp_path / "e"))
    (photos / "later.png").rename(photos / "0.png")
    (photos / "latest.png").rename(photos / "3.png")
    run(asked(output, tmp_path / "a", how="copy", missing="skip"))
    summary = run(asked(output, tmp_path / "b", how="copy", missing="skip"))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert summary["missing"] == 2
    assert [(one["uri"].rpartition("/")[2], one["kind"]) for one in summary["first_missing"]] == [
        ("1.png", "missing"),
        ("2.png", "changed"),
    ]
    assert summary["splits"]["train"]["images"] == 2
    assert len(column(tmp_path / "b", "regions", "id")) == 6
    # Without a look at its bytes only that it is gone can be known.
    assert run(asked(output, tmp_path / "c", missing="skip"))["missing"] == 1
    with pytest.raises(RunError, match="1 annotated image"):
        run(asked(output, tmp_path / "d"))
    (photos / "1.png").write_bytes((folder / "1.png").read_bytes())
    assert run(asked(output, tmp_path / "d"))["splits"]["train"]["images"] == 4


def test_an_image_that_takes_too_long_stops_it_or_is_left_out(folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(3):
        (photos / f"{n}.png").write_bytes((folder / f"{n}.png").read_bytes())
    hanging = endless(photos / "1.jpg")
    output = write_dataset(photos, tmp_path / "out", annotated)
    soon = Run(item_seconds=1, attempts=1)
    with pytest.raises(
        RunError, match=r"(?s)timeout: .*1\.jpg took longer than 1 s, in File .* in load; given up.*--missing skip"
    ):
        export(asked(output, tmp_path / "to", how="copy"), soon, lambda done: None)
    summary = export(asked(output, tmp_path / "to", how="copy", missing="skip"), soon, lambda done: None)
    assert [(one["uri"], one["kind"]) for one in summary["first_missing"]] == [(str(hanging), "timeout")]
    assert summary["splits"]["train"]["images"] == len(column(tmp_path / "to", "images", "file")) == 3


@pytest.mark.parametrize("how", ["copy", "link"])
def test_images_leave_upright(how: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(pixels).save(photos / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(pixels).save(photos / "upright.png")
    output = write_dataset(photos, tmp_path / "out", annotated)
    summary = run(asked(output, tmp_path / "to", how=how))
    assert summary["images"] == {"turned upright": 1}
    for file, width, height in zip(
        *(column(tmp_path / "to", "images", name) for name in ("file", "width", "height")), strict=True
    ):
        path = tmp_path / "to" / file
        assert path.is_symlink() == (how == "link" and file.endswith(".png"))
        with Image.open(path) as image:
            assert image.size == (width, height)
            assert image.getexif().get(0x0112, 1) == 1
    data = (photos / "turned.jpg").read_bytes()
    again = decode(upright(data, 10**6)[0], max_pixels=10**6)
    assert np.abs(again.astype(int) - decode(data, max_pixels=10**6)).max() < 8


def test_a_full_disk_says_so_and_loses_nothing(output: Output, tmp_path: Path) -> None:
    import resource

    one = asked(output, tmp_path / "to")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # as a full disk, but with another number
    try:
        with pytest.raises((RunError, OSError)):
            run(one)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run(one)
    run(replace(one, to=tmp_path / "undisturbed"))
    assert files(one.to) == files(tmp_path / "undisturbed")
