"""Objects and their masks: average precision, and which of them a source has right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from engine.errors import ConfigError
from engine.flat import Bools, Ints
from engine.geometry import encode_mask
from engine.said import Boxes, Said, boxes_of, equal, numbers_of, split
from engine.stats.columns import places, rows_of
from pipelines.evaluation.classes import Classes
from pipelines.evaluation.measured import Judged, Measured, Numbers

IOU = 0.5
SMALL, LARGE = 32**2, 96**2  # square pixels: COCO's
UNSCORED = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR@100", "threshold")  # mean nothing without
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Things:
    """n objects: the number of each one's image, the place of its label among the categories, -1 for none of them, its
    box, score (NaN for none), area in square pixels and, where those are asked for, mask."""

    rows: Ints
    labels: Ints
    boxes: Boxes
    scores: Floats
    crowd: Bools
    areas: Floats
    masks: list[dict[str, Any]] | None = None

    def take(self, kept: Bools) -> Things:
        masks = None if self.masks is None else [self.masks[at] for at in np.flatnonzero(kept)]
        return Things(
            self.rows[kept],
            self.labels[kept],
            self.boxes[kept],
            self.scores[kept],
            self.crowd[kept],
            self.areas[kept],
            masks,
        )

    def overlaps(self, own: Ints, other: Things, theirs: Ints) -> Floats:
        """[own, theirs]: IoU; where the other is a crowd, the share of the own that is in it."""
        crowd = other.crowd[theirs]
        if self.masks is not None and other.masks is not None:
            mine, those = [self.masks[at] for at in own], [other.masks[at] for at in theirs]
            found: Floats = np.asarray(coco.iou(mine, those, crowd.tolist())).reshape(len(own), len(theirs))
            return found
        a, b = self.boxes[own], other.boxes[theirs]
        low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
        both: Floats = (high - low).clip(min=0).prod(axis=2)
        sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
        either = sizes[0][:, None] + np.where(crowd, 0, sizes[1] - both)
        shares: Floats = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
        return shares


@dataclass(frozen=True)
class Detection:
    """Objects of images whose ids and sizes (height, width) are known, by their boxes, or by their `masks`."""

    truth: Said
    classes: Classes
    ids: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    masks: bool = False
    by: ClassVar[str] = "F1 at own threshold"
    judging: ClassVar[str] = (
        "F1 at IoU 0.5 of what a source made with the threshold of its row or a higher score; of all that it made, "
        "where that has none; of a class in an image as many as the row counts"
    )
    region_kind: ClassVar[str | None] = "object"
    notes: list[str] = field(default_factory=list)
    met: set[int] = field(default_factory=set)  # places of the categories that a row had, so far

    @property
    def reads(self) -> tuple[str, ...]:
        return ("regions", "masks") if self.masks else ("regions",)

    @property
    def mains(self) -> tuple[str, ...]:
        return ("masks",) if self.masks else ("regions",)

    @cached_property
    def categories(self) -> list[str]:
        """The label map's classes, or else those that the truth lists or has."""
        codes, words, _ = self.classes.named(self.truth)
        there = np.unique(codes[equal(self.truth["regions"]["kind"], "object")])
        return self.classes.of(words[code] for code in there)

    @cached_property
    def there(self) -> Things:
        """The truth. Where masks are measured, an object without one is what is ignored: nobody knows its pixels."""
        things, unmapped, total = self.things(self.truth, "label_score", whole=True)
        if total and unmapped:
            share, words = sum(unmapped.values()) / total, ", ".join(word for word, _ in unmapped.most_common(10))
            what = "label" if self.classes.label_map is None else f"class in the label map ({words})"
            self.notes.append(f"{share:.1%} of the truth's objects have no {what}: left out")
        if not (~things.crowd).any():
            self._refuse(unmapped, total)
        return things

    def _refuse(self, unmapped: Counter[str], total: int) -> None:
        kind = "masks" if self.masks else "detection"
        what = "objects with masks" if self.masks else "objects"
        said = {name: len(table) for name, table in self.truth.tables.items() if len(table)}
        told = ", ".join(f"{name} {count}" for name, count in said.items()) or "nothing at all"
        words = ", ".join(word for word, _ in unmapped.most_common(10))
        mapped = (
            f"; of its {total} objects none has a label that counts (--label-map, categories): {words}"
            if unmapped
            else ""
        )
        raise ConfigError(f"--kind {kind}: the truth of {len(self.ids)} images has no {what}; it says {told}{mapped}")

    def things(self, said: Said, score: str, *, whole: bool = False) -> tuple[Things, Counter[str], int]:
        """The objects that have a category; and of all objects the words that have none. `whole`: as truth."""
        regions = said["regions"]
        codes, words, names = self.classes.named(said)
        place = {name: at for at, name in enumerate(self.categories)}
        labels = np.array([place.get(name or "", -1) for name in names], np.int64)[codes]
        boxes = boxes_of(regions)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        things = Things(rows_of(regions), labels, boxes, _scores(regions, score), regions["crowd"].to_numpy(), areas)
        kept = equal(regions["kind"], "object")
        kept &= True if whole else ~things.crowd
        if self.masks or whole:
            things, has_mask = self._with_masks(things, said, whole)
            kept &= has_mask | whole
        total, unmapped = int(kept.sum()), Counter[str]()
        for code, count in zip(*np.unique(codes[kept & (labels < 0)], return_counts=True), strict=True):
            unmapped[words[code] or "(no label)"] += int(count)
        return things.take(kept & (labels >= 0)), unmapped, total

    def _with_masks(self, things: Things, said: Said, whole: bool) -> tuple[Things, Bools]:
        """With the last mask of each, and its area. Truth without one gets its box, as a crowd."""
        masks, regions = said["masks"], said["regions"]
        at = places(rows_of(masks), masks["region_id"], regions)
        own = {int(region): mask for mask, region in enumerate(at.tolist()) if region >= 0}
        has_mask = np.isin(np.arange(len(regions)), list(own))
        counts, sides = (
            masks["counts"].to_pylist(),
            zip(*(masks[n].to_pylist() for n in ("height", "width")), strict=True),
        )
        all_masks = [{"size": list(size), "counts": count} for size, count in zip(sides, counts, strict=True)]
        areas = things.areas.copy()
        if own:
            areas[list(own)] = coco.area([all_masks[mask] for mask in own.values()])
        if not self.masks:
            return replace(things, areas=areas), has_mask
        wanted = equal(regions["kind"], "object") if whole else has_mask
        of_all = [
            all_masks[own[n]] if n in own else self._box_mask(things, n) if wanted[n] else {}
            for n in range(len(regions))
        ]
        crowd = things.crowd | (~has_mask if whole else False)
        return replace(things, areas=areas, masks=of_all, crowd=crowd), has_mask

    def _box_mask(self, things: Things, at: int) -> dict[str, Any]:
        size = self.sizes[things.rows[at]]
        x0, y0 = np.floor(things.boxes[at, :2]).astype(int)
        x1, y1 = np.ceil(things.boxes[at, 2:]).astype(int).clip(max=(size[1], size[0]))
        pixels = np.ones((max(y1 - y0, 1), max(x1 - x0, 1)), bool)
        return {"size": list(size), "counts": encode_mask(pixels, (int(x0), int(y0)), size)}

    def measure(self, found: Said, *, standing: bool) -> Measured:
        from florence2.evaluation.detection import average_precision

        truth = self.there
        things, unmapped, total = self.things(found, "calibrated or label" if standing else "label_score")
        self.met.update(things.labels.tolist())
        score = _told(found, things, standing)
        result = average_precision(
            self._by_image(truth, True),
            self._by_image(things, False),
            dict(enumerate(self.categories)),
            masks=self.masks,
            score="see the row",
        )
        numbers: Numbers = dict(result.numbers)
        if np.isnan(things.scores).all():  # nothing to rank by: the order is nobody's
            numbers |= dict.fromkeys(UNSCORED)
        sizes = "the truth's masks where it has some" if len(self.truth["masks"]) else "the truth's boxes"
        protocol = f"{result.protocol}. Sizes go by {sizes}" + (
            "; an object without a mask is ignored as a crowd; a mask has its object's label and score"
            if self.masks
            else ""
        )
        return Measured(numbers, result.counts, protocol, score, unmapped, total, result.classes)

    def never_met(self) -> tuple[float, list[str]]:
        """Classes of the truth that no row had, the most frequent first, and the share of its objects that they are."""
        labels = self.there.labels[~self.there.crowd]
        counts = Counter(at for at in labels.tolist() if at not in self.met)
        return counts.total() / len(labels), [self.categories[at] for at, _ in counts.most_common()]

    def _by_image(self, things: Things, is_truth: bool) -> dict[int, Any]:
        """By numbers, as equal scores go by the order of images: hashes of paths would have another one elsewhere."""
        from florence2.evaluation.detection import Objects

        def of(at: Ints) -> Objects:
            scores = [None if np.isnan(score) else score for score in things.scores[at].tolist()]
            return Objects(
                things.labels[at].tolist(),
                things.boxes[at],
                None if things.masks is None else [things.masks[n] for n in at],
                None if is_truth else scores,
                things.crowd[at].tolist() if is_truth else None,
                things.areas[at].tolist() if is_truth else None,
            )

        return {number: of(at) for number, at in enumerate(split(things.rows, len(self.ids)))}

    # Which are right

    @cached_property
    def strata(self) -> Mapping[str, Sequence[str]]:
        return self._strata(self.there.take(~self.there.crowd))

    def _strata(self, things: Things) -> dict[str, Sequence[str]]:
        return {"class": [self.categories[at] for at in things.labels], "size": sizes_of(things.areas)}

    def judge(self, found: Said) -> Judged | None:
        things = _surest(self.things(found, "label_score")[0])
        right, wrong = match(self.there, things)
        surplus = {name: Counter(values) for name, values in self._strata(things.take(wrong)).items()}
        return Judged(right[~self.there.crowd].astype(float), surplus)


def match(truth: Things, found: Things) -> tuple[Bools, Bools]:
    """Which of the truth are found, and which that are found are wrong: one to one within an image and a label, at IoU
    0.5, the surest first, each for what it overlaps most. What is in a crowd is not wrong."""
    right, wrong = np.zeros(len(truth.rows), bool), np.ones(len(found.rows), bool)
    of_truth = dict(_groups(truth))
    for key, own in _groups(found):
        there = of_truth.get(key)
        if there is None:
            continue
        own = own[_by_score(found, own)]
        overlaps = found.overlaps(own, truth, there)
        crowd, free = truth.crowd[there], ~truth.crowd[there]
        for at, row in zip(own, overlaps, strict=True):
            best = int(np.where(free, row, -1).argmax())
            if free[best] and row[best] >= IOU:
                free[best], right[there[best]], wrong[at] = False, True, False
            elif (row[crowd] >= IOU).any():
                wrong[at] = False
    return right, wrong


def _by_score(things: Things, own: Ints) -> Ints:
    """The surest first, those without a score last."""
    return np.argsort(-np.nan_to_num(things.scores[own], nan=-np.inf), kind="stable")


def _surest(things: Things) -> Things:
    """Of a label in an image as many as `average_precision` and its F1 count."""
    from florence2.evaluation.detection import MAX_DETECTIONS

    kept = np.zeros(len(things.rows), bool)
    for _, own in _groups(things):
        kept[own[_by_score(things, own)][:MAX_DETECTIONS]] = True
    return things.take(kept)


def _groups(things: Things) -> Iterator[tuple[tuple[int, int], Ints]]:
    order = np.lexsort((things.labels, things.rows))
    keys = np.stack([things.rows, things.labels], axis=1)[order]
    starts = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    for places_ in np.split(order, starts) if len(order) else ():
        yield (int(things.rows[places_[0]]), int(things.labels[places_[0]])), places_


def sizes_of(areas: Floats) -> list[str]:
    names = np.array(["small", "medium", "large"])
    return [str(name) for name in names[(areas >= SMALL).astype(int) + (areas >= LARGE)]]


def _scores(regions: Any, score: str) -> Floats:
    if score != "calibrated or label":
        return numbers_of(regions[score])
    calibrated, own = numbers_of(regions["calibrated_score"]), numbers_of(regions["label_score"])
    scores: Floats = np.where(np.isnan(calibrated), own, calibrated)
    return scores


def _told(found: Said, things: Things, standing: bool) -> str:
    """What kind of score it goes by."""
    without = float(np.isnan(things.scores).mean()) if len(things.scores) else 1.0
    if without == 1:
        return "none"
    kind = "the source's own, of the label"
    if standing:
        kind = "calibrated where there is one, else the sources' own, which are not comparable"
        if not np.isfinite(numbers_of(found["regions"]["calibrated_score"])).any():
            regions = found["regions"]
            sources = regions.filter(equal(regions["kind"], "object"))["source"].unique()
            kind = "the sources' own, which are not comparable" if len(sources) > 1 else "the source's own"
    return kind + (f"; {without:.1%} have none" if without else "")
