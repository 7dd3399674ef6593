"""What comes along with images becomes annotations: checked against its image, clipped to it or turned down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from pycocotools import mask as coco

from engine.entry import Fault, Given, GivenRegion, GivenText, Segmentation
from engine.geometry import MaskArray, area, clip, encode_mask
from engine.records import HUMAN, AnyAnnotation, Box, Detail, Item, Mask, Record, Region, RegionText, Text
from engine.vocabulary import Vocabulary

ROUNDING = 1.0  # px that a box may lie outside without a word: COCO's own do
# Words up to which a text is brief, or detailed: the geometric means between the averages of FLD-5B's three
# granularities, 8, 32 and 71 tokens (Florence-2, table 3).
BRIEF, DETAILED = 16, 47
LONGEST_SIDE = 65_536  # px of a mask's file


class Unusable(Exception):
    """Why something given is turned down: a word to group by, and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class Intake:
    """What came along with one image, as annotations, and what was wrong with it."""

    item: Item
    record: Record = field(init=False)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.record = Record(self.item)

    def take(self, given: Given) -> None:
        try:
            if isinstance(given, GivenText):
                self.record = self.record.append([_text(given, self.record)])
            else:
                self._take_region(given)
        except Unusable as error:
            self._fault(given, error.kind, f"{error}; it was left out")

    def _take_region(self, given: GivenRegion) -> None:
        ids = self.record.ids(HUMAN)
        box, outside = _box(given, self.item)
        if outside:
            self._fault(given, "box_clipped", f"its box lies {outside:.0f} px outside the image; it was clipped")
        label = _words(given.label)
        region = Region(id=next(ids), source=HUMAN, kind="object", box=box, raw_label=label, crowd=given.crowd)
        made: list[AnyAnnotation] = [region]
        if description := _words(given.description):
            made.append(RegionText(id=next(ids), source=HUMAN, region_id=region.id, text=description))
        if given.segmentation is not None:
            try:
                made.append(_mask(given.segmentation, given, region.id, next(ids), self.item))
            except Unusable as error:
                self._fault(given, error.kind, f"{error}; its box stays, without a mask")
        self.record = self.record.append(made)

    def _fault(self, given: Given, kind: str, message: str) -> None:
        self.faults.append(Fault(given.where[:500], kind, message[:1000]))


def take(item: Item, given: Sequence[Given]) -> tuple[Record, tuple[Fault, ...]]:
    """The record of `item` with what came along with it, and a fault for all that is not as it was given.

    Of an image that can't be read nothing is taken: neither its size nor what it shows is known.
    """
    intake = Intake(item)
    if item.error is None:
        for one in given:
            intake.take(one)
    return intake.record, tuple(intake.faults)


def canonical(record: Record, vocabulary: Vocabulary) -> Record:
    """`record` with the vocabulary's word for every region's raw label."""
    regions = tuple(
        replace(r, label=vocabulary.canonical(r.raw_label) if r.raw_label else None) for r in record.regions
    )
    return replace(record, regions=regions)


def detail_of(text: str) -> Detail:
    """The granularity of a text that comes without one, by the number of its words."""
    words = len(text.split())
    return "brief" if words <= BRIEF else "detailed" if words <= DETAILED else "more_detailed"


def _text(given: GivenText, record: Record) -> Text:
    text = _words(given.text)
    if text is None:
        raise Unusable("empty_text", "an empty text")
    return Text(id=next(record.ids(given.source)), source=given.source, text=text, detail=detail_of(text))


def _words(text: str | None) -> str | None:
    """The text without white space around it, and with what no column can hold replaced; None if nothing is left."""
    if not isinstance(text, str):
        return None
    return text.encode(errors="replace").decode().strip() or None


def _box(given: GivenRegion, item: Item) -> tuple[Box, float]:
    """The box inside the image, and by how many pixels it lay outside, 0 if not by more than ROUNDING."""
    assert item.width is not None and item.height is not None
    if len(given.box) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in given.box):
        raise Unusable("bad_box", f"a box has four finite numbers, not {given.box!r}")
    _check_size(given, item)
    scale = (item.width, item.height, item.width, item.height) if given.relative else (1, 1, 1, 1)
    box: Any = tuple(value * by for value, by in zip(given.box, scale, strict=True))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise Unusable("bad_box", f"a box without width or height: {_rounded(box)}")
    clipped = clip(box, item.width, item.height)
    if not area(clipped):
        raise Unusable("box_outside", f"its box {_rounded(box)} lies outside the {item.width} x {item.height} image")
    outside = max(abs(there - here) for there, here in zip(box, clipped, strict=True))
    return clipped, outside if outside > ROUNDING else 0.0


def _check_size(given: GivenRegion, item: Item) -> None:
    if given.size is not None and tuple(given.size) != (item.height, item.width):
        raise Unusable(
            "image_size",
            f"it is for an image of {given.size[1]} x {given.size[0]}, and this one has {item.width} x {item.height}",
        )


def _mask(segmentation: Segmentation, given: GivenRegion, region_id: str, id_: str, item: Item) -> Mask:
    assert item.width is not None and item.height is not None
    size = (item.height, item.width)
    if isinstance(segmentation, Path):
        counts = encode_mask(_from_file(segmentation, size))
    else:
        counts = _run_lengths(segmentation, size)
    return Mask(id=id_, source=HUMAN, region_id=region_id, derived_from=(region_id,), size=size, counts=counts)


def _run_lengths(segmentation: list[Any] | dict[str, Any], size: tuple[int, int]) -> bytes:
    """COCO's polygons or run lengths as compressed counts of one mask of `size` (height, width)."""
    height, width = size
    if isinstance(segmentation, dict):
        return _of_runs(segmentation, size)
    rings = [ring for ring in segmentation if isinstance(ring, list | tuple) and len(ring) >= 6]
    if not rings or any(len(ring) % 2 or not _all_numbers(ring) for ring in rings):
        raise Unusable("bad_mask", "a polygon is a list of at least three points: x, y, x, y, x, y")
    inside = [np.clip(np.reshape(ring, (-1, 2)), 0, (width, height)).reshape(-1).tolist() for ring in rings]
    counts: bytes = coco.merge(coco.frPyObjects(inside, height, width))["counts"]
    return _not_empty(counts, size)


def _of_runs(runs: dict[str, Any], size: tuple[int, int]) -> bytes:
    counts, there = runs.get("counts"), runs.get("size")
    if not isinstance(there, list | tuple) or tuple(there) != size:
        raise Unusable("mask_size", f"a mask of size {there} (height, width) for an image of {list(size)}")
    if isinstance(counts, list):
        whole = all(isinstance(run, int) and run >= 0 for run in counts)
        if not whole or sum(counts) != size[0] * size[1]:
            raise Unusable("bad_mask", f"its run lengths don't add up to the {size[0] * size[1]} pixels of the image")
        compressed: bytes = coco.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"]
        return _not_empty(compressed, size)
    if not isinstance(counts, str | bytes):
        raise Unusable("bad_mask", f"run lengths are a list or a string, not {type(counts).__name__}")
    try:
        encoded = counts.encode("ascii") if isinstance(counts, str) else counts
        pixels = coco.decode({"size": list(size), "counts": encoded})
    except (ValueError, UnicodeEncodeError) as error:
        raise Unusable("bad_mask", f"its compressed run lengths can't be read: {error}") from None
    again = encode_mask(pixels != 0)
    if again != encoded:  # pycocotools leaves memory as it finds it behind runs that end early
        raise Unusable("bad_mask", "its compressed run lengths end early, or aren't COCO's")
    return _not_empty(again, size)


def _not_empty(counts: bytes, size: tuple[int, int]) -> bytes:
    if not coco.area({"size": list(size), "counts": counts}):
        raise Unusable("bad_mask", "a mask without a pixel")
    return counts


def _from_file(path: Path, size: tuple[int, int]) -> MaskArray:
    """Open Images' masks are PNGs, often smaller than their image."""
    try:
        with Pillow.open(path, formats=("PNG",)) as file:
            if max(file.size) > LONGEST_SIDE or file.width * file.height > 4 * size[0] * size[1] + 2**24:
                raise Unusable("bad_mask", f"{path.name} has {file.width} x {file.height} pixels")
            grey = file.convert("L").resize((size[1], size[0]), Pillow.Resampling.NEAREST)
    except FileNotFoundError:
        raise Unusable("mask_missing", f"no such file: {path}") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise Unusable("bad_mask", f"{path} can't be read as a PNG: {error}") from None
    mask: MaskArray = np.asarray(grey) >= 128
    if not mask.any():
        raise Unusable("bad_mask", f"{path.name} is a mask without a pixel")
    return mask


def _all_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _rounded(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in box) + ")"
