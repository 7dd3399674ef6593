"""Shards of items that were lost come back as they were, and what was made of the images stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingesting import Killed, files, ingested, items_of
from PIL import Image

from engine.annotate import annotate
from engine.atomic import read_json
from engine.config import Ingest
from engine.errors import OutputError
from engine.images import decode
from engine.ingest import lost_of, restore, retry, rewrite, unknown_uri
from engine.layout import Layer, Output, ShardId
from engine.near import perceptual_hash
from engine.partitions import close, partitions
from engine.records import ItemError, Mask, Record, Region
from engine.storage import read_content_ids, read_given, read_table, write_annotations, write_decisions, write_table
from engine.truth import told_by
from engine.verify import carry_out, planned, verified

FIRST, SECOND = ShardId(0, 0), ShardId(0, 1)


def annotated(output: Output) -> None:
    """By a round without specialists, which says no more of images than which they are, and what they look like."""
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
    assert restore(output, config) == ()
    assert times == {path: path.stat().st_mtime_ns for path in output.root.rglob("*")}


def test_shards_of_which_nothing_was_made_are_taken_from_the_list(output: Output, config: Ingest) -> None:
    before = files(output.root)
    lost = (FIRST, ShardId(0, 2), ShardId(1, 0))
    for shard in lost:
        output.items(shard).unlink()
        output.given(shard).unlink()
    assert restore(output, config) == lost
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


def test_what_came_along_is_no_witness_where_annotations_say_whose_it_is(output: Output, config: Ingest) -> None:
    """Shards that it was swapped of would come back swapped."""
    items = items_of(output.root)
    write_annotations(output.round(0), SECOND, read_given(output, SECOND), "made")
    first, second = output.given(FIRST).read_bytes(), output.given(SECOND).read_bytes()
    output.given(FIRST).write_bytes(second)
    output.given(SECOND).write_bytes(first)
    for shard in (FIRST, SECOND):
        output.items(shard).unlink()
    assert restore(output, config) == (FIRST, SECOND)
    assert items_of(output.root) == items
    assert (output.given(FIRST).read_bytes(), output.given(SECOND).read_bytes()) == (first, second)


def test_what_came_along_stays_as_it_was_where_it_is_whole(output: Output, config: Ingest) -> None:
    """It is what the annotations began with."""
    annotated(output)
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


def test_what_came_along_and_is_gone_is_found(output: Output, config: Ingest) -> None:
    """Or an update would annotate without it. What is said brings it back."""
    annotated(output)
    assert all(close(output, output.round(0), part, {"items": part.items}) for part in partitions(output))
    before = files(output.root)
    assert "came_along" not in verified(output).kinds
    output.given(SECOND).unlink()
    (found,) = [finding for finding in verified(output).findings if finding.kind == "came_along"]
    assert (found.path, found.remove) == ("given/part-00000", ())
    assert "remove the items of the partition and round 0's marker of it, and run again" in found.remedy
    (decided := output.round(0).decisions(FIRST)).write_bytes(b"PAR1")
    (lost,) = planned(output, verified(output).findings, config).lost
    assert lost.startswith("given/part-00000: that it is not what it was")
    decided.write_bytes(before[decided.relative_to(output.root).as_posix()])
    for path in (marker := output.round(0).closed(0), *output.items(FIRST).parent.iterdir()):
        path.unlink()
    restore(output, config)
    del before[marker.relative_to(output.root).as_posix()]
    assert files(output.root) == before


def image(config: Ingest, number: int) -> Path:
    return Path(config.images[0]).parent / f"{number:04d}.png"


def scaled(path: Path) -> None:
    with Image.open(path) as picture:
        larger = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    larger.save(path)


def looks(data: bytes) -> bytes | None:
    return perceptual_hash(decode(data, max_pixels=10**6))


WAYS: dict[str, tuple[Callable[[Ingest], Any], str]] = {
    "unlisted": (lambda config: relisted(config, [n for n in range(8) if n != 2]), "it is listed no longer"),
    "gone": (lambda config: image(config, 2).unlink(), "no such file"),
    "empty": (lambda config: image(config, 2).write_bytes(b""), "the file has 0 bytes"),
    "another": (lambda config: shutil.copy(image(config, 5), image(config, 2)), "it is another file than it was"),
    "scaled": (lambda config: scaled(image(config, 2)), "it is another file than it was"),
}


@pytest.mark.parametrize("how", WAYS)
def test_a_shard_comes_back_with_all_of_its_images_or_not_at_all(output: Output, config: Ingest, how: str) -> None:
    annotated(output)
    write_annotations(output.round(1).merge, SECOND, read_given(output, SECOND), "merged")
    before, pixels, listed = files(output.root), image(config, 2).read_bytes(), pq.read_table(config.images[0])
    (path := output.items(SECOND)).unlink()
    lost = files(output.root)
    change, why = WAYS[how]
    change(config)
    with pytest.raises(OutputError, match=r"1 images of shards that are lost \(.*\) are not to be had") as refused:
        restore(output, config)
    assert why in str(refused.value)
    told = [why in reason for one in lost_of(output, config, [SECOND]) for _, reason in one.missing]
    assert told == ([True] if how in ("unlisted", "gone") else []), "before images are read"
    name = f"{SECOND}.parquet"
    made = [f"round-0/annotations/{name}", f"round-0/decisions/{name}", f"round-1/merge/annotations/{name}"]
    assert f"remove in {output.root} {', '.join(made)}, and run again: they are annotated anew" in str(refused.value)
    assert files(output.root) == lost
    image(config, 2).write_bytes(pixels)
    pq.write_table(listed, config.images[0])
    assert restore(output, config) == (SECOND,)
    assert files(output.root) == before
    change(config)
    for one in (path, *(output.root / one for one in made)):
        one.unlink()
    restore(output, config)
    now = items_of(output.root)[2]
    assert now.error.kind if now.error else how in ("another", "scaled"), now
    assert now.uri == (unknown_uri(now.item_id) if how == "unlisted" else str(image(config, 2)))


def test_an_image_that_others_are_copies_of_comes_back_as_it_was(output: Output, config: Ingest) -> None:
    """Also where nothing was made of it: the copies would be of nothing. They go together, or not at all."""
    twin, original = items_of(output.root)[7], items_of(output.root)[1]
    assert twin.duplicate_of == original.item_id
    output.items(FIRST).unlink()
    scaled(image(config, 1))
    last, lost = ShardId(1, 0), files(output.root)
    with pytest.raises(OutputError, match=rf"another file than it was.* remove in \S+ images/{last}\.parquet, and"):
        restore(output, config)
    assert files(output.root) == lost
    output.items(last).unlink()
    assert restore(output, config) == (FIRST, last)
    assert {item.duplicate_of for item in items_of(output.root)} == {None}


def test_a_copy_comes_back_with_its_original(output: Output, config: Ingest) -> None:
    """Also where that one failed: nobody would look at the copy."""
    annotated(output)
    round_, last = output.round(0), ShardId(1, 0)
    failed = [replace(record, error=ItemError("finder", "raised", "oh")) for record in read_given(output, FIRST)]
    write_annotations(round_, FIRST, failed, "made")
    for shard in (FIRST, last):
        output.items(shard).unlink()
    lost = files(output.root)
    scaled(image(config, 0))
    scaled(image(config, 1))
    made = [str(path(shard).relative_to(output.root)) for shard in (FIRST, last) for path in layer_of(round_)]
    with pytest.raises(OutputError, match=rf"1 images .*0001\.png .* remove in \S+ {', '.join(made)}, and"):
        restore(output, config)
    assert files(output.root) == lost
    for name in made:
        (output.root / name).unlink()
    restore(output, config)
    assert {item.duplicate_of for item in items_of(output.root)} == {None}


def layer_of(layer: Layer) -> tuple[Callable[[ShardId], Path], ...]:
    return layer.annotations, layer.decisions


def test_originals_that_are_listed_no_longer_are_not_replaced_by_others(output: Output, config: Ingest) -> None:
    shutil.copy(image(config, 5), image(config, 0).with_name("new.png"))
    names = pa.table({"uri": ["new.png", *(f"{n:04d}.png" for n in range(8) if n != 1)]})
    pq.write_table(names, config.images[0])
    for path in (output.items(FIRST), output.given(FIRST)):
        path.unlink()
    lost = files(output.root)
    with pytest.raises(OutputError, match="1 images of which other shards have copies are listed no longer"):
        restore(output, config)
    assert files(output.root) == lost


def test_originals_do_not_come_back_behind_their_copies(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Nobody would look at either. So it is where the list is in another order, and nothing says what a shard had."""
    folder = image_set(4)
    shutil.copy(folder / "0001.png", folder / "0002.png")
    names = [f"{n:04d}.png" for n in range(4)]
    pq.write_table(pa.table({"uri": names}), folder / "list.parquet")
    config, output = Ingest(images=(str(folder / "list.parquet"),), shard_size=1), Output(tmp_path / "out")
    ingested(output.root, config)
    before = files(output.root)
    for number in (1, 3):
        output.items(ShardId(0, number)).unlink()
    relisted(config, (0, 2, 3, 1))
    lost = files(output.root)
    with pytest.raises(OutputError, match="1 images of which other shards have copies are listed behind these"):
        restore(output, config)
    assert files(output.root) == lost
    relisted(config, (0, 3, 1, 2))  # as it was
    assert restore(output, config) == (ShardId(0, 1), ShardId(0, 3))
    assert files(output.root) == before


def test_what_could_not_be_read_waits_for_a_retry(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Nothing was made of it: it is in nobody's way, and is no original of what was annotated."""
    folder = image_set(4)
    (folder / "0000.png").write_bytes(b"")
    config, output = Ingest(images=(str(folder),), shard_size=4), Output(tmp_path / "out")
    ingested(output.root, config)
    annotated(output)
    assert read_content_ids(output.round(0).annotations(FIRST)) == [item.content_id for item in items_of(output.root)]
    before = files(output.root)
    shutil.copy(folder / "0002.png", folder / "0000.png")
    output.items(FIRST).unlink()
    assert restore(output, config) == (FIRST,)
    assert files(output.root) == before
    (folder / "0000.png").unlink()
    output.items(FIRST).unlink()
    restore(output, config)
    errors = [item.error.kind if item.error else None for item in items_of(output.root)]
    assert errors == ["unlisted", None, None, None]
    assert items_of(output.root)[0].uri == unknown_uri(items_of(output.root)[0].item_id)
    image_set(1)
    assert retry(output, config, {FIRST: {0}}).read == {FIRST: [0]}
    assert items_of(output.root)[0].uri == str(folder / "0000.png")


def test_content_ids_that_are_not_of_the_rows_are_damage(output: Output, config: Ingest) -> None:
    annotated(output)
    path = output.round(0).annotations(FIRST)
    write_table(path, read_table(path), "made", {}, [bytes(16)])
    output.items(FIRST).unlink()
    with pytest.raises(OutputError, match=r"is damaged .* content ids of 1 images, and 2 rows.* annotated anew"):
        restore(output, config)


def test_another_file_than_failed_waits_for_a_retry(output: Output, config: Ingest) -> None:
    """Which takes anew what came along: that may be of the pixels of then."""
    failed = [replace(record, error=ItemError("finder", "raised", "oh")) for record in read_given(output, SECOND)]
    write_annotations(output.round(0), SECOND, failed, "made")
    before = files(output.root)
    output.items(SECOND).unlink()
    restore(output, config)
    assert files(output.root) == before, "the same files are as they were"
    output.items(SECOND).unlink()
    scaled(image(config, 2))
    restore(output, config)
    errors = [item.error.kind if item.error else None for item in items_of(output.root)]
    assert errors == [None, None, "changed", *[None] * 5]
    assert read_json(output.manifest)["errors"] == {"changed": 1}
    assert retry(output, config, {SECOND: {0, 1}}).read == {SECOND: [0]}
    assert items_of(output.root)[2].width == 2 * (items_of(output.root)[3].width or 0)


def with_pixels(record: Record, columns: Sequence[str]) -> Record:
    """With a mask, and a box for it (a small one if the mask is to tell)."""
    width, height = record.item.width or 0, record.item.height or 0
    box = (0, 0, 9, 9) if "masks" in columns else (0, 0, width, height)
    region = Region(id="r", source="finder", kind="object", box=box)
    mask = Mask(id="m", source="cutter", region_id="r", size=(height, width), counts=b"abc")
    return record.append([*([region] if "regions" in columns else []), *([mask] if "masks" in columns else [])])


@pytest.mark.parametrize("what", ["box", "mask", "looks"])
def test_older_annotations_tell_by_looks_and_pixels(output: Output, config: Ingest, what: str) -> None:
    """They don't keep the content ids of their images."""
    path = image(config, 2)
    smaller = path.read_bytes()
    scaled(path)
    assert looks(path.read_bytes()) == looks(smaller), "to the last bit"
    shutil.rmtree(output.root)
    ingested(output.root, config)
    annotated(output)
    of_pixels = {"box": ["regions"], "mask": ["regions", "masks"], "looks": []}[what]
    made = [with_pixels(record, of_pixels) for record in read_given(output, SECOND)]
    write_annotations(output.round(1), SECOND, made, "made")
    for round_ in (output.round(0), output.round(1)):
        write_table(annotations := round_.annotations(SECOND), read_table(annotations), "made", {})
        assert read_content_ids(annotations) is None
    before = files(output.root)
    output.items(SECOND).unlink()
    restore(output, config)
    assert files(output.root) == before
    output.items(SECOND).unlink()
    path.write_bytes(image(config, 5).read_bytes() if what == "looks" else smaller)
    with pytest.raises(OutputError, match="another file than it was"):
        restore(output, config)


@pytest.mark.parametrize("writes", range(8))
def test_who_is_killed_leaves_the_counts_right(
    output: Output, config: Ingest, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """They are of what comes back, which is more by now."""
    whole = image(config, 4).read_bytes()
    image(config, 4).write_bytes(b"broken")
    shutil.rmtree(output.root)
    assert ingested(output.root, config)["errors"] == {"not_an_image": 1}
    image(config, 4).write_bytes(whole)
    for shard in (FIRST, ShardId(0, 2), ShardId(1, 0)):
        output.items(shard).unlink()
    undisturbed = Output(Path(shutil.copytree(output.root, output.root.with_name("undisturbed"))))
    restore(undisturbed, config)
    rename, left = os.replace, writes

    def replaced(*names: str) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        rename(*names)

    with monkeypatch.context() as patched:
        patched.setattr("engine.atomic.os.replace", replaced)
        with pytest.raises(Killed) if writes < 7 else nullcontext():
            restore(output, config)
    restore(output, config)
    assert files(output.root) == files(undisturbed.root)
    assert read_json(output.manifest)["errors"] == {}


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


@pytest.mark.parametrize("shards", [[FIRST], [SECOND, ShardId(0, 2)]], ids=str)
def test_a_manifest_comes_back_with_shards_that_are_lost_too(
    output: Output, config: Ingest, shards: Sequence[ShardId]
) -> None:
    """How many images these had is known by what was made of them, and came along. What is listed is not looked at."""
    annotated(output)
    before, manifest = files(output.root), read_json(output.manifest)
    output.manifest.write_text("{")
    for path in map(output.items, shards):
        path.write_bytes(path.read_bytes()[:99])
    rewrite(output, config)
    assert read_json(output.manifest)["partitions"] == manifest["partitions"]
    for path in map(output.items, shards):
        path.unlink()
    assert restore(output, config) == tuple(shards)
    assert read_json(output.manifest) == {**manifest, "listed": ""}
    now = files(output.root)
    assert {name for name in before if now[name] != before[name]} == {"images/manifest.json"}


def test_a_manifest_is_not_written_where_no_shard_of_a_partition_is_whole(output: Output, config: Ingest) -> None:
    annotated(output)
    output.items(ShardId(1, 0)).write_bytes(b"PAR1")
    output.manifest.unlink()
    with pytest.raises(OutputError, match="part-00001 holds no shard that is whole"):
        rewrite(output, config)
    assert not output.manifest.exists()


def test_images_that_are_gone_as_a_whole_are_no_first_ingest(output: Output, config: Ingest) -> None:
    annotated(output)
    shutil.rmtree(output.manifest.parent)
    before = files(output.root)
    way_out = rf"So are all shards: bring back {output.root}/images from a copy\. Or start afresh with --overwrite\."
    with pytest.raises(OutputError, match=way_out):
        output.check_manifest()
    plan = planned(output, verified(output).findings, config)
    assert (plan.remove, plan.rewrite) == ((), ())
    assert "holds no shards. Bring that back from a copy, or start afresh: engine run --overwrite" in plan.lost[0]
    carry_out(output, plan, config)
    assert files(output.root) == before


def test_a_manifest_is_not_written_where_nothing_says_how_large_a_shard_was(output: Output, config: Ingest) -> None:
    for path in (output.items(SECOND), output.given(SECOND), output.manifest):
        path.unlink()
    with pytest.raises(OutputError, match=rf"nothing says how many images {output.items(SECOND)} had"):
        rewrite(output, config)
    assert not output.manifest.exists()
