"""What a round should not change much, whatever it is about: what is looked at where nobody labelled anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from engine.gate.measures import texts_of
from engine.geometry import area, iou
from engine.records import DETAILS, Kind, Record

LEAST = 50  # regions of a class, or texts, that say something about a change
KINDS: dict[Kind, str] = {"object": "objects", "text": "lines", "proposal": "proposals"}
DUPLICATE = 0.5  # IoU at which two regions of one label are one thing twice


@dataclass
class Habits:
    """Of a round: sums over its images."""

    images: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    log_areas: list[float] = field(default_factory=list)
    words: dict[str, list[int]] = field(default_factory=dict)
    doubles: int = 0

    def add(self, record: Record) -> None:
        """Counts an image that could be annotated."""
        stands, item = record.standing, record.item
        if record.error or item.duplicate_of or not (item.width and item.height):
            return
        self.images += 1
        self.kinds.update(KINDS[region.kind] for region in stands.regions)
        self.kinds.update(texts_of(text.detail) for text in stands.texts)
        self.kinds["masks"] += len(stands.masks)
        objects = sorted(
            (r for r in stands.regions if r.kind == "object" and r.label), key=lambda r: (r.label or "", r.id)
        )
        self.classes.update(region.label or "" for region in objects)
        self.log_areas += [math.log(max(area(r.box), 1.0) / (item.width * item.height)) for r in objects]
        for place, region in enumerate(objects):
            like = (other for other in objects[:place] if other.label == region.label)
            self.doubles += any(iou(region.box, other.box) > DUPLICATE for other in like)
        for text in stands.texts:
            self.words.setdefault(text.detail, []).append(len(text.text.split()))

    @property
    def entropy(self) -> float:
        """Of the classes, in nats."""
        total = sum(self.classes.values())
        return -sum(n / total * math.log(n / total) for n in self.classes.values()) if total else 0.0

    def told(self) -> dict[str, float]:
        """What a person looks at."""
        regions = sum(self.classes.values())
        told = {
            "regions an image": regions / max(self.images, 1),
            "classes": float(len(self.classes)),
            "entropy of classes": self.entropy,
            "median share of the image": math.exp(float(np.median(self.log_areas))) if self.log_areas else 0.0,
            "doubles": self.doubles / max(regions, 1),
        }
        for detail in DETAILS:
            if words := self.words.get(detail):
                told[f"words of {texts_of(detail)}"] = float(np.mean(words))
        return told


def habits(records: Iterable[Record]) -> Habits:
    found = Habits()
    for record in records:
        found.add(record)
    return found


def drifts(before: Habits, after: Habits, limit: float, judged: Collection[str] = ()) -> list[str]:
    """What changed by more than a share of `limit` (up or down: x and 1/x are alike), or entropy by as many nats, or
    doubles by a tenth of it. Sentences, none if nothing did. `judged` are kinds that labels tell more of, such as
    "objects" or "brief texts": their habits may change."""
    found: list[str] = []
    for kind in sorted({*before.kinds, *after.kinds} - {*judged}):
        if max(before.kinds[kind], after.kinds[kind]) >= LEAST:
            found += _held(kind, before.kinds[kind], after.kinds[kind], limit)
    for detail in DETAILS:
        name = texts_of(detail)
        words = [one.words.get(detail, []) for one in (before, after)]
        if name not in judged and min(map(len, words)) >= LEAST:
            found += _held(f"words of {name}", float(np.mean(words[0])), float(np.mean(words[1])), limit)
    return found if "objects" in judged else found + _of_objects(before, after, limit)


def _held(what: str, was: float, now: float, limit: float) -> list[str]:
    return [f"{what}: {was:.4g} before, {now:.4g} now"] if max(was, now) > (1 + limit) * min(was, now) else []


def _of_objects(before: Habits, after: Habits, limit: float) -> list[str]:
    """Classes, sizes and doubles."""
    found: list[str] = []
    for label in sorted({*before.classes, *after.classes}):
        if max(before.classes[label], after.classes[label]) >= LEAST:
            found += _held(f"regions of {label!r}", before.classes[label], after.classes[label], limit)
    if before.classes and abs(after.entropy - before.entropy) > limit:
        found.append(f"entropy of classes: {before.entropy:.3g} before, {after.entropy:.3g} now")
    if min(len(before.log_areas), len(after.log_areas)) >= LEAST:
        was, now = (math.exp(float(np.median(one.log_areas))) for one in (before, after))
        found += _held("median share of the image", was, now, limit)
    was, now = (one.doubles / max(sum(one.classes.values()), 1) for one in (before, after))
    if now - was > limit / 10:
        found.append(f"regions that are there twice: {was:.1%} before, {now:.1%} now")
    return found
