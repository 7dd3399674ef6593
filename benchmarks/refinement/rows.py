"""What stands in a round, or what a model said, held against the whole truth of the pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.train.measures import Found, anything, average_precision, f1, matched, read, same_label
from benchmarks.world import Picture, Shape, Tally, character_errors, facts, reading, score, tell
from engine.cider import Cider
from engine.gate.drift import habits
from engine.geometry import area, iou, mask_iou, quad_box
from engine.merge.matching import pairs
from engine.records import DETAILS, Mask, Record, Region

IOU = 0.5
BINS = 10


def index_of(record: Record) -> int:
    return int(Path(record.item.uri).stem)


def row(records: Sequence[Record], pictures: Sequence[Picture], rare: Sequence[str], small: float) -> dict[str, Any]:
    """The columns of the benchmark over records and the pictures that they are of, in one order.

    f1 (label and IoU 0.5), boxes (whatever the label), by the size of what is there or was found, and by whether its
    class is rare; AP; mask IoU over what is there; F1 of the facts, and CIDEr-D, of the first standing text of each
    granularity; grounding: triplets all of whose regions are what the phrase says; character errors; what a person
    looks at in a dataset; the error of calibrated scores.
    """
    stand = [record.standing for record in records]
    objects = [(_found(r), _true(p.shapes)) for r, p in zip(stand, pictures, strict=True)]
    ap, ap50 = average_precision(objects, pictures[0].world.labels)
    told: dict[str, Any] = {"f1": f1(objects, same_label), "boxes": f1(objects, anything), "ap": ap, "ap50": ap50}
    side = math.sqrt(pictures[0].world.size[0] * pictures[0].world.size[1])
    for name, part in (
        ("small", lambda one: math.sqrt(area(one.box)) < small * side),
        ("large", lambda one: math.sqrt(area(one.box)) >= small * side),
        ("rare", lambda one: one.label in rare),
        ("common", lambda one: one.label not in rare),
    ):
        told[f"f1 {name}"] = _f1_of(objects, part)
    told["mask iou"] = _mask_iou(stand, pictures)
    told |= _texts(stand, pictures)
    told["grounding"] = _grounding(stand, pictures)
    told["character errors"] = character_errors(
        (read(_lines(r)), reading(p)) for r, p in zip(stand, pictures, strict=True)
    )
    told |= habits(records).told()
    told["calibration error"] = _calibration_error(stand, pictures)
    return told


def _found(record: Record) -> list[Found]:
    """Surest first; the score is the calibrated one, or else the source's own."""
    return sorted(
        (
            Found(r.label or "", r.box, r.scores.calibrated if r.scores.calibrated is not None else r.score or 0.0)
            for r in record.regions
            if r.kind == "object"
        ),
        key=lambda one: -one.score,
    )


def _true(shapes: Sequence[Shape]) -> list[Found]:
    return [Found(shape.label, shape.box) for shape in shapes]


def _lines(record: Record) -> list[Found]:
    return [Found(r.text or "", r.box) for r in record.regions if r.kind == "text"]


def _f1_of(objects: Sequence[tuple[Sequence[Found], Sequence[Found]]], part: Callable[[Found], bool]) -> float:
    """A pair belongs to a part if what is true does; what was found and is nothing, if itself does."""
    right, total = 0, 0
    for found, true in objects:
        matches = matched(found, true, same_label)
        right += sum(part(there) for _, there in matches)
        total += sum(map(part, true)) + sum(part(there) for _, there in matches)
        used = {id(one) for one, _ in matches}
        total += sum(part(one) for one in found if id(one) not in used)
    return 2 * right / max(total, 1)


def _mask_iou(records: Sequence[Record], pictures: Sequence[Picture]) -> float:
    values: list[float] = []
    for record, picture in zip(records, pictures, strict=True):
        masks = {mask.region_id: mask for mask in record.masks}
        regions = [r for r in record.regions if r.kind == "object"]
        truth = [
            Region(id=str(n), source="", kind="object", box=s.box, label=s.label) for n, s in enumerate(picture.shapes)
        ]
        of = {b: regions[a] for a, b in pairs(regions, truth, IOU) if regions[a].label == truth[b].label}
        size = picture.world.size[::-1]
        for n, shape in enumerate(picture.shapes):
            found = masks.get(of[n].id) if n in of else None
            there = Mask(id="", source="", region_id="", size=(size[0], size[1]), counts=shape.mask)
            values.append(mask_iou(found, there) if found else 0.0)
    return float(np.mean(values))


def _texts(records: Sequence[Record], pictures: Sequence[Picture]) -> dict[str, float]:
    told: dict[str, float] = {}
    for number, detail in enumerate(DETAILS):
        references = [[tell(p)[number].text] if p.shapes else [] for p in pictures]
        cider = Cider(references)
        tally, ciders = Tally(), []
        for n, (record, picture) in enumerate(zip(records, pictures, strict=True)):
            text = next((text.text for text in record.texts if text.detail == detail), "")
            tally += score(facts(text), picture, detail)
            ciders.append(cider.score(n, text))
        told[f"facts {detail}"], told[f"cider {detail}"] = tally.f1, float(np.mean(ciders))
    return told


def _grounding(records: Sequence[Record], pictures: Sequence[Picture]) -> float | None:
    """Of the phrases that are linked to regions: the share whose regions all show what the phrase says, as far as it
    says it."""
    right, total = 0, 0
    for record, picture in zip(records, pictures, strict=True):
        texts = {text.id: text.text for text in record.texts}
        boxes = {region.id: region.box for region in record.regions if region.kind == "object"}
        for triplet in record.triplets:
            phrase = texts.get(triplet.text_id, "")[triplet.start : triplet.stop]
            linked = [boxes[id_] for id_ in triplet.region_ids if id_ in boxes]
            if linked and not phrase.startswith('"'):
                total += 1
                right += all(any(_shows(shape, phrase, box) for shape in picture.shapes) for box in linked)
    return right / total if total else None


def _shows(shape: Shape, phrase: str, box: tuple[float, float, float, float]) -> bool:
    words = set(phrase.lower().replace("es ", " ").split())
    names = {shape.label, f"{shape.label}s", f"{shape.label}es"}
    colours = {word for word in words if word in _COLOURS}
    return iou(shape.box, box) >= IOU and bool(words & names) and (not colours or shape.colour in colours)


_COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "white", "black"}


def _calibration_error(records: Sequence[Record], pictures: Sequence[Picture]) -> float | None:
    """Expected calibration error of the regions that have a calibrated score, in equal bins of it."""
    sure: list[tuple[float, bool]] = []
    for record, picture in zip(records, pictures, strict=True):
        known = [r for r in record.regions if r.kind == "object" and r.scores.calibrated is not None]
        found = [Found(r.label or "", r.box, r.scores.calibrated or 0.0) for r in known]
        right = {id(one) for one, _ in matched(found, _true(picture.shapes), same_label)}
        sure += [(one.score, id(one) in right) for one in found]
    if not sure:
        return None
    places = [min(int(value * BINS), BINS - 1) for value, _ in sure]
    errors = 0.0
    for place in set(places):
        inside = [pair for pair, at in zip(sure, places, strict=True) if at == place]
        errors += abs(sum(v for v, _ in inside) - sum(r for _, r in inside))
    return errors / len(sure)


def raw(record: Record) -> Record:
    """What specialists said, before any filter."""
    return replace(record, decisions=())


def only(record: Record, source: str) -> Record:
    """What one source said in the record's round of what it saw itself, and its filters let stand, whatever a merge
    made of it."""
    kept = tuple(d for d in record.decisions if d.by != "merge")
    stands = replace(record, decisions=kept).standing
    now = f"{record.round}.{source}."  # see Record.ids
    mine = {
        name: tuple(a for a in getattr(stands, name) if a.id.startswith(now) and not a.derived_from)
        for name in ("texts", "regions")
    }
    ids = {a.id for some in mine.values() for a in some}
    return replace(
        stands,
        parses=(),
        region_texts=(),
        masks=tuple(mask for mask in stands.masks if mask.region_id in ids),
        triplets=(),
        decisions=(),
        **mine,
    )


def oracle(before: Record, after: Record, picture: Picture) -> Record:
    """The best that could be made of what stood and what was new: of each true object the region with its label that
    lies best, and nothing else; of texts the one with the most right facts, of lines the better reading."""
    kept = tuple(d for d in after.decisions if d.by != "merge" or d.round < after.round)
    stands = replace(after, decisions=kept).standing
    objects = [r for r in stands.regions if r.kind == "object"]
    best: list[Region] = []
    for shape in picture.shapes:
        like = [r for r in objects if r.label == shape.label and iou(r.box, shape.box) >= IOU and r not in best]
        best += [max(like, key=lambda r: iou(r.box, shape.box))] if like else []
    lines = [r for r in stands.regions if r.kind == "text"]
    for word in picture.words:
        like = [r for r in lines if iou(r.box, quad_box(word.quad)) >= IOU and r not in best]
        best += [min(like, key=lambda r: _edits(r.text or "", word.text))] if like else []
    texts = []
    for detail in DETAILS:
        some = [text for text in stands.texts if text.detail == detail]
        texts += [max(some, key=lambda text: score(facts(text.text), picture, detail).f1)] if some else []
    ids = {r.id for r in best}
    masks = tuple(mask for mask in stands.masks if mask.region_id in ids)
    return replace(
        stands, texts=tuple(texts), regions=tuple(best), masks=masks, triplets=(), region_texts=(), parses=()
    )


def _edits(a: str, b: str) -> float:
    return character_errors([(a, b)])
