"""The procedural world: the truth about a picture agrees with its pixels, and every form of it with the others."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from rich.console import Console

from benchmarks.refinement.worlds import THERE
from benchmarks.world import (
    EASY,
    FULL,
    OTHER,
    Picture,
    Tally,
    World,
    character_errors,
    description,
    facts,
    floor,
    holds,
    phrase,
    score,
    tell,
)
from benchmarks.world.records import record_of
from benchmarks.world.scenes import scene_of
from benchmarks.world.shapes import COLOURS, OUTLINES
from benchmarks.world.writing import write_images, write_round
from engine.atomic import read_json
from engine.config import Config, Ingest, load_config
from engine.dataset import open_dataset
from engine.geometry import decode_mask, quad_box
from engine.ingest import ingest
from engine.layout import Output
from engine.records import Item, Mask, Record
from engine.show import find_record
from engine.storage import read_given
from pipelines.build import build_pipeline
from pipelines.stages import Stages

ROOT = Path(__file__).parents[2]
WIDE = replace(FULL, size=(120, 80))
pictures = st.builds(
    World.picture,
    st.sampled_from([EASY, FULL, OTHER, WIDE, replace(FULL, size=(96, 96))]),
    st.integers(0, 9999),
    st.integers(0, 9999),
)
DIGEST = """
import hashlib
from benchmarks.world import FULL
print(hashlib.sha256(b"".join(repr((p.shapes, p.words)).encode() + p.pixels.tobytes()
      for p in (FULL.picture(5, n) for n in (3, 1, 0)))).hexdigest())
"""


def masks(picture: Picture) -> list[Any]:
    """Of each shape, [height, width]."""
    width, height = picture.world.size
    return [coco.decode({"size": [height, width], "counts": s.mask}).astype(bool) for s in picture.shapes]


def inner(mask: Any) -> Any:
    """The pixels whose neighbours are in the mask, too: none of them is a seam."""
    padded = np.pad(mask, 1, constant_values=True)
    height, width = mask.shape
    return np.all([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)


def test_a_picture_depends_on_seed_and_index_alone() -> None:
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77", "PATH": "/usr/bin:/bin"}
    elsewhere = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    here = [FULL.picture(5, n) for n in range(4)]
    data = b"".join(repr((p.shapes, p.words)).encode() + p.pixels.tobytes() for p in (here[3], here[1], here[0]))
    assert elsewhere.stdout.strip() == hashlib.sha256(data).hexdigest()
    assert len({p.pixels.tobytes() for p in [*here, FULL.picture(6, 0), FULL.picture(0, 5)]}) == 6


@given(pictures)
@settings(deadline=None)
def test_boxes_and_masks_agree(picture: Picture) -> None:
    width, height = picture.world.size
    assert picture.pixels.shape == (height, width, 3)
    assert picture.world.objects[0] <= len(picture.shapes) <= picture.world.objects[1]
    owners = np.zeros((height, width), int)
    for shape, mask in zip(picture.shapes, masks(picture), strict=True):
        x0, y0, x1, y1 = shape.box
        assert coco.toBbox({"size": [height, width], "counts": shape.mask}).tolist() == [x0, y0, x1 - x0, y1 - y0]
        assert mask.sum() == shape.area >= 12
        assert 0.4 <= shape.visible <= 1
        owners += mask
    assert owners.max() == 1


@given(st.integers(0, 9999))
@settings(max_examples=50, deadline=None)
def test_masks_are_where_the_pixels_have_the_colour(index: int) -> None:
    """But for tips so thin that they cover less than half of a pixel."""
    picture = replace(EASY, textures=("plain",), objects=(3, 5)).picture(1, index)
    all_masks = masks(picture)
    for shape, mask in zip(picture.shapes, all_masks, strict=True):
        off = np.abs(picture.pixels[inner(mask)].astype(int) - np.array(COLOURS[shape.colour]))
        assert (off > 10).any(axis=1).sum() <= 4  # each is a little lighter or darker than its colour is
    rest = picture.pixels[inner(~np.any(all_masks, axis=0))]
    assert (rest != np.median(rest, axis=0)).any(axis=1).sum() <= 8


@given(st.integers(0, 9999))
@settings(max_examples=50, deadline=None)
def test_words_are_inside_their_corners(index: int) -> None:
    picture = replace(FULL, backgrounds=("plain",), words=(1, 2), objects=(1, 1)).picture(2, index)
    ground = Counter(map(tuple, picture.pixels.reshape(-1, 3).tolist())).most_common(1)[0][0]
    differs = (picture.pixels != np.array(ground)).any(axis=2) & inner(~np.any(masks(picture), axis=0))
    for word in picture.words:
        x0, y0, x1, y1 = map(round, quad_box(word.quad))
        assert 0 <= x0 < x1 <= 128
        assert 0 <= y0 < y1 <= 128
        corners = np.array(word.quad).reshape(4, 2)
        along, down = corners[1] - corners[0], corners[3] - corners[0]
        assert along[0] > abs(along[1])  # from the text's own top left to its top right
        assert along[0] * down[1] - along[1] * down[0] > 0  # clockwise, as y points down
        assert differs[y0:y1, x0:x1].any()
        differs[max(y0 - 5, 0) : y1 + 5, max(x0 - 5, 0) : x1 + 5] = False  # with its sign
    assert differs.sum() <= 8  # tips of shapes


@given(pictures)
@settings(deadline=None)
def test_captions_say_what_is_true_and_spans_spell_it(picture: Picture) -> None:
    brief, detailed, full = tell(picture)
    assert [told.detail for told in (brief, detailed, full)] == ["brief", "detailed", "more_detailed"]
    for told in (brief, detailed, full):
        assert facts(told.text) == told.facts
        assert told.facts <= holds(picture, told.detail)
        assert score(facts(told.text), picture, told.detail).f1 == 1
        for span in told.spans:
            assert told.text[span.start : span.stop].lower() == span.noun.words
            assert told.text[span.start : span.expression_stop].startswith(told.text[span.start : span.stop])
            if span.noun.shapes:
                assert len(span.noun.shapes) == span.noun.count
                assert all(
                    set(description(picture.shapes[n], told.detail).split()[:-1]) <= set(span.noun.modifiers)
                    for n in span.noun.shapes
                )
                assert {picture.shapes[n].label for n in span.noun.shapes} == {span.noun.head}
    named = sorted(n for span in detailed.spans for n in span.noun.shapes)
    assert named == list(range(len(picture.shapes)))  # each thing once
    counts = Counter(description(shape) for shape in picture.shapes)
    assert {fact for fact in detailed.facts if fact[0] == "thing"} == {("thing", str(n), d) for d, n in counts.items()}
    assert {fact[1] for fact in full.facts if fact[0] == "word"} == {word.text for word in picture.words}
    assert ("background", picture.background) in full.facts


@given(pictures)
@settings(deadline=None)
def test_relations_are_true(picture: Picture) -> None:
    """By the boxes of the only shape of either description."""
    boxes = {description(shape): shape.box for shape in picture.shapes}
    for axis, relation in enumerate(("left of", "above")):
        for name, a, b in (fact for fact in facts(tell(picture)[2].text) if len(fact) == 3):
            if name == relation:
                assert sum(description(s) in (a, b) for s in picture.shapes) == 2
                assert boxes[a][axis] + boxes[a][axis + 2] < boxes[b][axis] + boxes[b][axis + 2]


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("", []),
        ("A photo of a dog left of the sofa.", []),
        ("A red star.", ["thing 1 red star"]),
        ("a red star and A RED STAR, two orange checked crosses", ["thing 2 red star", "thing 2 orange checked cross"]),
        (
            "a blue ring below a red dotted heart at the top left",
            [
                "thing 1 blue ring",
                "thing 1 red dotted heart",
                "above red dotted heart blue ring",
                "at red dotted heart top left",
            ],
        ),
        ("a red ring right of a red star", ["thing 1 red ring", "thing 1 red star", "left of red star red ring"]),
        ("three small black moons", ["thing 3 black moon", "size black moon small"]),
        (
            'The word "STOP" is in the middle. The background is cloudy.',
            ['at "STOP" middle', "background cloudy", "word STOP"],
        ),
        ('the word "', []),
    ],
)
def test_facts_of_a_text(text: str, stated: list[str]) -> None:
    assert sorted(" ".join(fact) for fact in facts(text)) == sorted(stated)


def test_a_mirrored_caption_states_the_mirrored_facts() -> None:
    text = "The picture shows a red star left of a blue ring and a green cross at the top right."
    mirrored = text.replace("left", "?").replace("right", "left").replace("?", "right")
    assert facts(text) ^ facts(mirrored) == {
        ("left of", "red star", "blue ring"),
        ("left of", "blue ring", "red star"),
        ("at", "green cross", "top right"),
        ("at", "green cross", "top left"),
    }


def test_scores_count_what_is_right_and_what_was_found() -> None:
    picture = next(p for p in (FULL.picture(0, n) for n in range(99)) if len({s.colour for s in p.shapes}) == 4)
    told = tell(picture)[1]
    assert score(frozenset(), picture, "detailed") == Tally(0, 0, len(told.facts), 0)
    some = frozenset(sorted(told.facts)[:2]) | {("thing", "7", "red star")}
    tally = score(some, picture, "detailed")
    assert tally == Tally(3, 2, len(told.facts), 2)
    assert tally.f1 == pytest.approx(2 * 2 / (3 + len(told.facts)))


def test_the_long_tail() -> None:
    for world in (EASY, FULL, OTHER):
        shares = dict(zip(world.labels, world.shares, strict=True))
        assert sum(shares.values()) == pytest.approx(1)
        assert [label for label, share in shares.items() if share < 0.03] == list(world.rare_shapes)
        assert all(0.01 <= shares[label] <= 0.02 for label in world.rare_shapes)
    assert {*FULL.labels, *OTHER.labels, *THERE.labels} == OUTLINES.keys()
    for name in ("labels", "vocabulary", "backgrounds"):
        assert not set(getattr(FULL, name)) & set(getattr(OTHER, name))


@given(pictures)
@settings(max_examples=50, deadline=None)
def test_scene_and_record_are_the_same_truth(picture: Picture) -> None:
    width, height = picture.world.size
    scene = scene_of(picture)
    record = record_of(picture, Item(b"0" * 16, "0.png", width=width, height=height))
    objects = [region for region in record.regions if region.kind == "object"]
    assert [(thing.box, thing.label) for thing in scene.things] == [(r.box, r.label) for r in objects]
    assert [thing.texts for thing in scene.things] == [(text.text,) for text in record.region_texts]
    assert [thing.mask.counts for thing in scene.things if thing.mask] == [mask.counts for mask in record.masks]
    assert [line.text for line in scene.lines] == [r.text for r in record.regions if r.kind == "text"]
    assert [(c.text, c.detail) for c in scene.captions] == [(t.text, t.detail) for t in record.texts]
    assert scene.exhaustive >= {thing.label for thing in scene.things}
    ids = [region.id for region in objects]
    triplets = [(t.start, t.stop, tuple(map(ids.index, t.region_ids))) for t in record.triplets]
    assert triplets == [(p.start, p.stop, p.things) for c in scene.captions for p in c.phrases]
    expressions = {(p.start, p.expression_stop) for parse in record.parses for p in parse.phrases}
    assert {(p.expression_start, p.expression_stop) for c in scene.captions for p in c.phrases} <= expressions


def test_a_parse_counts_what_the_sentence_has() -> None:
    picture = next(
        p for p in (EASY.picture(0, n) for n in range(99)) if "left of" in tell(p)[1].text and len(p.shapes) == 2
    )
    parse = record_of(picture, Item(b"0" * 16, "0.png", width=128, height=128)).parses[1]
    # The picture shows a(n) ... left of a(n) ...
    words = [len(description(shape).split()) for shape in picture.shapes]
    assert (parse.objects, parse.actions, parse.proper_nouns) == (3, 1, 0)
    assert parse.attributes == sum(words) - 2
    # picture: the, and its verb. A noun has its article and adjectives, its head, and the first of them "left".
    assert parse.object_complexity == pytest.approx((2 + sum(n + 1 for n in words) + 1) / 3)
    assert (parse.action_complexity, parse.max_action_complexity) == (2, 2)


def test_the_image_set_comes_in_without_a_fault(tmp_path: Path) -> None:
    write_images(tmp_path / "set", FULL, seed=3, count=12)
    output = Output(tmp_path / "out")
    files = tuple(str(tmp_path / "set" / name) for name in ("instances.json", "captions.json"))
    manifest = ingest(output, Ingest(images=files), "digest", lambda done: None)
    assert (manifest["items"], manifest["errors"], manifest["faults"]) == (12, {}, {})
    records = [record for shard in output.shards() for record in read_given(output, shard)]
    for index, record in enumerate(records):
        picture = FULL.picture(3, index)
        assert record.item.dataset == "world"
        assert [(r.raw_label, r.box) for r in record.regions] == [(s.label, s.box) for s in picture.shapes]
        assert [text.text for text in record.region_texts] == [phrase(shape) for shape in picture.shapes]
        assert all((decode_mask(m) == t).all() for m, t in zip(record.masks, masks(picture), strict=True))
        assert [text.text for text in record.texts] == [told.text for told in tell(picture)]
    words = json.loads((tmp_path / "set" / "instances.json").read_text())["words"]
    assert Counter(word["image_id"] for word in words) == Counter(
        {n: len(w) for n in range(12) if (w := FULL.picture(3, n).words)}
    )


def truth(record: Record, seed: int) -> Record:
    return record_of(WIDE.picture(seed, int(Path(record.item.uri).stem)), record.item)


def test_a_round_holds_the_truth(tmp_path: Path) -> None:
    root = tmp_path / "out"
    write_round(Output(root), WIDE, seed=4, count=10, shard_size=4)
    dataset = open_dataset(root)
    records = list(dataset.records())
    assert records == [truth(record, 4) for record in records]
    assert (len(records), len(dataset.shards())) == (10, 3)
    masks_there = [mask for _, mask in dataset.masks()]
    assert len(masks_there) == sum(len(WIDE.picture(4, n).shapes) for n in range(10))
    assert all(isinstance(mask, Mask) and decode_mask(mask).any() for mask in masks_there)
    assert find_record(dataset, "000007.png").record == records[7]

    summary = read_json(dataset.output.round(0).summary)
    made = sum(kind["made"] for kind in summary["annotations"]["human"].values())
    assert (summary["items"], summary["quarantined"], made) == (10, {}, sum(len(r.by_id) for r in records))


def test_the_stages_go_on_with_such_a_round(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    write_round(output, EASY, seed=0, count=3, shard_size=2, config=Config())
    before = {path: path.read_bytes() for path in output.root.glob("round-0/*/*/*.parquet")}
    stages = Stages(build_pipeline(load_config(output.config)), output, Console(quiet=True))
    written = read_json(output.round(0).summary)
    assert stages.run("annotate") == written
    filtered = stages.run("filter")
    assert {**filtered, "last_run": {}} == written
    assert {path: path.read_bytes() for path in before} == before
    stages.run("report")
    assert "000002.png" in output.report.read_text()


def test_the_floor_is_one_answer_for_all() -> None:
    one = next(p for p in (FULL.picture(0, n) for n in range(99)) if len(p.words) == 1 and len(p.shapes) == 1)
    same = floor([one] * 5, [one] * 2)
    assert (same.regions, same.characters, set(same.facts.values())) == (1, 0, {1.0})
    assert (same.text, [label for label, _ in same.boxes]) == (one.words[0].text, [one.shapes[0].label])
    train, other = [FULL.picture(1, n) for n in range(60)], [FULL.picture(2, n) for n in range(60)]
    found = floor(train, other)
    assert 0 <= found.regions < 0.2
    assert found.characters <= 1.1
    assert all(0 <= f1 < 0.5 for f1 in found.facts.values())


def test_character_errors() -> None:
    assert character_errors([("", "stop"), ("stop", "stop"), ("shop", "stop"), ("a", "")]) == 6 / 12
    assert character_errors([("kitten", "sitting")]) == 3 / 7
