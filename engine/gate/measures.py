"""How good what stands is, image by image, where people said what is there.

    objects          F1 of regions with the right label, one to one at the merge's IoU
    objects/CLASS    the same of one class; rare classes (fewer labelled ones than asked for) together are objects/rare
    objects, SIZE    the same of small, medium or large ones, by the size of the labelled one, or of a wrong one's own
    boxes            F1 of regions whatever their label
    masks            IoU of the masks of labelled objects with those of the regions that were matched to them; 0 without
    lines            1 - character error rate of all that is read in an image, in reading order
    DETAIL texts     CIDEr-D of the standing texts of a granularity, where people wrote some

Images that people wrote captions or lines of, and marked no object in, do not count for objects.

All of it may be better or worse independently; higher is better.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rapidfuzz.distance import Levenshtein

from engine.cider import Cider
from engine.config import Config
from engine.gate.bootstrap import Ratio
from engine.geometry import area, intersection, mask_iou
from engine.merge.claims import size_of
from engine.merge.evidence import IN_CROWD, has_objects
from engine.merge.matching import pairs
from engine.records import DETAILS, HUMAN, Detail, Mask, Record, Region

RARE = "rare classes"


@dataclass
class Measured:
    """By measure, one pair of numbers an image; `instances` counts what people labelled by measure."""

    images: int
    above: dict[str, list[float]] = field(default_factory=dict)
    below: dict[str, list[float]] = field(default_factory=dict)
    instances: Counter[str] = field(default_factory=Counter)

    def add(self, measure: str, image: int, above: float, below: float) -> None:
        for kept, value in ((self.above, above), (self.below, below)):
            kept.setdefault(measure, [0.0] * self.images)[image] += value

    def ratio(self, measure: str) -> Ratio:
        nothing = [0.0] * self.images
        return Ratio(np.array(self.above.get(measure, nothing)), np.array(self.below.get(measure, nothing)))

    @property
    def names(self) -> list[str]:
        return list(self.above)


def measure(records: Sequence[Record], labels: Sequence[Record], config: Config) -> Measured:
    """What stands in the records, held against what people say of the same images."""
    counts = Counter(r.label or "" for said in labels for r in said.regions if r.kind == "object" and not r.crowd)
    rare = frozenset(label for label, count in counts.items() if count < config.gate.min_instances)
    captions = {
        detail: Cider([[text.text for text in said.texts if text.detail == detail] for said in labels])
        for detail in DETAILS
        if any(text.detail == detail for said in labels for text in said.texts)
    }
    measured = Measured(len(records))
    has_masks = any(said.masks for said in labels)
    has_lines = any(region.kind == "text" for said in labels for region in said.regions)
    for image, (record, said) in enumerate(zip(records, labels, strict=True)):
        stands = record.standing
        matched = _objects(measured, image, stands, said, rare, config) if has_objects(said) else {}
        if has_masks:
            _masks(measured, image, stands, said, matched)
        if has_lines:
            _lines(measured, image, stands, said)
        for detail, cider in captions.items():
            _texts(measured, image, stands, detail, cider)
    return measured


def _objects(
    measured: Measured, image: int, stands: Record, said: Record, rare: frozenset[str], config: Config
) -> dict[str, Region]:
    """Counts objects, and returns for each labelled one the region that was matched to it."""
    truth = [region for region in said.regions if region.kind == "object" and not region.crowd]
    crowds = [region for region in said.regions if region.kind == "object" and region.crowd]
    found = [r for r in stands.regions if r.kind == "object" and r.label and not r.crowd]
    matches = pairs(found, truth, config.merge.iou)
    right = {a: b for a, b in matches if found[a].label == truth[b].label}
    matched = {a for a, _ in matches}
    found_by_crowd = {
        n for n, region in enumerate(found) if n not in right and any(_is_in(region, crowd) for crowd in crowds)
    }
    size = (said.item.width or 1, said.item.height or 1, config.merge.sizes)
    tallies: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for place, region in enumerate(found):
        if place in found_by_crowd:
            continue
        like = truth[right[place]] if place in right else region
        for name in _strata(region.label, size_of(like, *size), rare):
            tallies[name][0] += 2.0 * (place in right)
            tallies[name][1] += 1
        tallies["boxes"][0] += 2.0 * (place in matched)
        tallies["boxes"][1] += 1
    for region in truth:
        for name in (*_strata(region.label, size_of(region, *size), rare), "boxes"):
            tallies[name][1] += 1
            measured.instances[name] += 1
    for name, (above, below) in tallies.items():
        measured.add(name, image, above, below)
    return {truth[b].id: found[a] for a, b in right.items()}


def _is_in(region: Region, crowd: Region) -> bool:
    return region.label == crowd.label and intersection(region.box, crowd.box) > IN_CROWD * area(region.box)


def _strata(label: str | None, size: str, rare: frozenset[str]) -> tuple[str, ...]:
    of_class = f"objects/{RARE}" if label in rare else f"objects/{label}"
    return "objects", of_class, f"objects, {size}"


def _masks(measured: Measured, image: int, stands: Record, said: Record, matched: dict[str, Region]) -> None:
    by_region: dict[str, Mask] = {mask.region_id: mask for mask in stands.masks}
    for mask in said.masks:
        found = by_region.get(matched[mask.region_id].id) if mask.region_id in matched else None
        measured.add("masks", image, mask_iou(found, mask) if found else 0.0, 1.0)
        measured.instances["masks"] += 1


def _lines(measured: Measured, image: int, stands: Record, said: Record) -> None:
    there, read = (_reading(record.regions) for record in (said, stands))
    measured.add("lines", image, len(there) - Levenshtein.distance(read, there), len(there))
    measured.instances["lines"] += bool(there)


def _reading(regions: Sequence[Region]) -> str:
    """All that is read, from the top left to the bottom right corner's line."""
    lines = sorted((r for r in regions if r.kind == "text" and r.text), key=lambda r: (r.box[1], r.box[0], r.text))
    return " ".join(" ".join((line.text or "").split()) for line in lines)


def texts_of(detail: Detail) -> str:
    """What the measure of a granularity is called."""
    return f"{detail.replace('_', ' ')} texts"


def _texts(measured: Measured, image: int, stands: Record, detail: Detail, cider: Cider) -> None:
    """An image that people wrote nothing of says nothing; one without a text of ours has said nothing right."""
    if not cider.references[image]:
        return
    texts = [text.text for text in stands.texts if text.detail == detail and text.source != HUMAN]
    name = texts_of(detail)
    measured.add(name, image, float(np.mean([cider.score(image, text) for text in texts])) if texts else 0.0, 1.0)
    measured.instances[name] += 1
