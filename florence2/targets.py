"""Which part of a scene makes which prompt and answer: the one place that says it, for all fifteen tasks.

    Scene --Targets--> examples of each task --Mix--> some of them, by weight --fit--> no longer than there is room

The paper does not publish its targets; these follow what the released models write. Every choice is a field.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite, sqrt
from typing import Literal, TypeAlias, cast, get_args

from florence2.codec import Annotation, encode, unforged
from florence2.errors import ConfigError
from florence2.examples import Example, fit
from florence2.expressions import expressions, names_nothing
from florence2.mix import REFERRING, Mix
from florence2.polygons import Ring, box_of, rings_of
from florence2.reading_order import box_around, lines_in_order
from florence2.scene import Detail, Line, Mask, Quad, Scene, Thing
from florence2.tasks import Box, Input, Task, ask

__all__ = ["REFERRING", "Example", "Mix", "Targets", "fit"]

Order = Literal["alphabetical", "area", "random"]
Make: TypeAlias = Callable[[], Example | None]  # one example, built when it is called; None if it can't be written

NOISE = "noise"


@dataclass(frozen=True)
class Targets:
    """The choices. ConfigError for one that makes no sense."""

    order: Order = "alphabetical"  # of the labels in OD, largest first in each; "area", "random": of its boxes
    region_order: Literal["area", "random"] = "area"  # of dense captions, proposals and boxes of one class
    dense_labels: bool = True  # an object that no text describes is described by its label; otherwise left out
    proposal_iou: float = 0.7  # from which the smaller of two proposals is left out
    absent: float = 0.2  # of the open-vocabulary queries, how many ask for what isn't there
    queries: int = 1  # classes in one open-vocabulary query, joined by <and>
    noise: int = 0  # boxes of nothing behind an OD answer, against answers that end early (Pix2Seq, section 2.3)
    ocr_join: Literal[" ", "\n"] = " "  # between the lines of the OCR task
    same_line: float = 0.5  # of their height that two words of a line share, at least
    model_size: int = 768  # pixels a side of what the model sees
    min_side: float = 8  # there, of a square of the box's area; smaller boxes make no target
    max_vertices: int = 64  # of a ring
    max_locs: int = 400  # coordinates of an instance's outlines
    min_ring: float = 0.01  # of the mask's area; smaller parts make no ring
    min_iou: float = 0.9  # of the outlines with the mask; below there is no target

    def __post_init__(self) -> None:
        choices = {"order": get_args(Order), "region_order": ("area", "random"), "ocr_join": (" ", "\n")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"targets.{name}: expected one of {allowed}; got {getattr(self, name)!r}")
        for name in ("proposal_iou", "absent", "same_line", "min_ring", "min_iou"):
            check(name, getattr(self, name), 0, 1)
        if self.absent == 1:
            raise ConfigError("targets.absent: expected less than 1, a share of the queries; got 1")
        for name, least in (("queries", 1), ("noise", 0), ("model_size", 1), ("max_vertices", 3), ("max_locs", 6)):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"targets.{name}: expected a whole number; got {getattr(self, name)!r}")
            check(name, getattr(self, name), least)
        check("min_side", self.min_side, 0)

    def available(self, scene: Scene) -> dict[Task, int]:
        """How many examples each task of the scene has; tasks with none are left out.

        Cheap: no mask is traced, so that of the tasks with outlines some may turn out not to be writable.
        """
        counts: dict[Task, int] = defaultdict(int)
        for kind, makes in self.kinds(scene, random.Random(0)).items():
            counts[task_of(kind)] += len(makes)
        return dict(counts)

    def examples(self, scene: Scene, task: Task, rng: random.Random) -> list[Example]:
        """All of one task; grounding's are those of captions first, and then those of single expressions."""
        kinds = [kind for kind in KINDS if task_of(kind) is task]
        return [made for kind in kinds for make in KINDS[kind](self, scene, rng) if (made := make())]

    def kinds(self, scene: Scene, rng: random.Random) -> dict[str, list[Make]]:
        """The examples of each task, and of REFERRING, yet to be built; kinds with none are left out."""
        found = {kind: list(makes(self, scene, rng)) for kind, makes in KINDS.items()}
        return {kind: makes for kind, makes in found.items() if makes}

    def places(self, scene: Scene) -> list[Place]:
        """The things that make targets: neither crowds nor too small, their boxes clipped to the scene."""
        found = []
        for number, thing in enumerate(scene.things):
            box = clipped(thing.box, scene)
            if not thing.crowd and self.is_large(box, scene):
                found.append(Place(number, box, (thing.label or "").strip(), thing))
        return found

    def lines(self, scene: Scene) -> list[Line]:
        """Those large enough, in reading order, their corners clipped to the scene."""
        lines = lines_in_order(scene.lines, self.same_line)
        inside = [replace(line, quad=cast(Quad, inside_of(line.quad, scene))) for line in lines]
        return [line for line in inside if self.is_large(box_around(line.quad), scene)]

    def is_large(self, box: Box, scene: Scene) -> bool:
        pixels = area(box) / (scene.size[0] * scene.size[1]) * self.model_size**2
        return pixels > 0 and sqrt(pixels) >= self.min_side

    def sorted_by_area(self, places: Iterable[Place], rng: random.Random) -> list[Place]:
        """The largest first; or in random order, where that was chosen."""
        ordered = sorted(places, key=lambda place: -area(place.box))
        return ordered if self.region_order == "area" else rng.sample(ordered, len(ordered))

    def rings(self, mask: Mask, scene: Scene) -> tuple[Ring, ...] | None:
        limits = {"max_vertices": self.max_vertices, "max_locs": self.max_locs}
        return rings_of(mask, scene.size, **limits, min_ring=self.min_ring, min_iou=self.min_iou)


@dataclass(frozen=True)
class Place:
    """A thing that makes targets: its number among the scene's, its box there, and its label or ""."""

    number: int
    box: Box
    label: str
    thing: Thing


def check(name: str, value: float, least: float, most: float = float("inf")) -> None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if not known or not least <= value <= most:
        bounds = f"at least {least}" if most == float("inf") else f"of {least} to {most}"
        raise ConfigError(f"targets.{name}: expected a number {bounds}; got {value!r}")


def task_of(kind: str) -> Task:
    return Task.CAPTION_TO_PHRASE_GROUNDING if kind == REFERRING else Task(kind)


def area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def clipped(box: Box, scene: Scene) -> Box:
    return cast(Box, inside_of(box, scene))


def inside_of(points: Sequence[float], scene: Scene) -> tuple[float, ...]:
    """x, y, x, y, ..., those outside moved to the scene's edge."""
    return tuple(min(max(v, 0.0), scene.size[n % 2]) for n, v in enumerate(points))


# Texts


def captions(targets: Targets, scene: Scene, rng: random.Random, task: Task, detail: Detail) -> Iterator[Make]:
    for caption in scene.captions:
        if caption.detail == detail and caption.text.strip():
            yield partial(text_example, task, scene, caption.text)


def region_text(
    targets: Targets, scene: Scene, rng: random.Random, task: Task, said: Callable[[Place], str]
) -> Iterator[Make]:
    for place in targets.places(scene):
        if text := said(place):
            yield partial(text_example, task, scene, text, place.box)


def ocr(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    if lines := targets.lines(scene):
        yield partial(text_example, Task.OCR, scene, targets.ocr_join.join(line.text for line in lines))


def region_ocr(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    for line in targets.lines(scene):
        yield partial(text_example, Task.REGION_TO_OCR, scene, line.text, box_around(line.quad))


def label_of(place: Place) -> str:
    return place.label


def description_of(place: Place) -> str:
    """The best text of a thing."""
    return next((text.strip() for text in place.thing.texts if text.strip()), "")


# Boxes and quads


def quads(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    if lines := targets.lines(scene):
        read = [Annotation(line.text, quad=line.quad) for line in lines]
        yield partial(example, Task.OCR_WITH_REGION, scene, read)


def detection(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    labelled = sorted((p for p in targets.places(scene) if p.label), key=lambda place: -area(place.box))
    if not labelled:
        return
    if targets.order == "alphabetical":
        labelled.sort(key=lambda place: (place.label.casefold(), place.label))
    elif targets.order == "random":
        rng.shuffle(labelled)
    yield partial(noisy, targets, scene, boxes(labelled, label_of), rng)


def dense(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    def said(place: Place) -> str:
        return description_of(place) or (place.label if targets.dense_labels else "")

    described = [place for place in targets.places(scene) if said(place)]
    if described:
        found = boxes(targets.sorted_by_area(described, rng), said)
        yield partial(example, Task.DENSE_REGION_CAPTION, scene, found)


def proposals(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    if places := targets.places(scene):
        yield partial(proposed, targets, scene, places, rng)


def proposed(targets: Targets, scene: Scene, places: Sequence[Place], rng: random.Random) -> Example:
    """The union of the things' boxes and those of their masks, whatever they are of, without near repetitions."""
    union = list(places)
    for place in places:
        box = box_of(place.thing.mask, scene.size) if place.thing.mask else None
        if box and targets.is_large(box, scene):
            union.append(replace(place, box=box))
    kept: list[Place] = []
    for place in sorted(union, key=lambda place: -area(place.box)):
        if all(iou(place.box, other.box) < targets.proposal_iou for other in kept):
            kept.append(place)
    return example(Task.REGION_PROPOSAL, scene, boxes(targets.sorted_by_area(kept, rng), lambda place: ""))


def open_vocabulary(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    """The classes that are known to be all there, or not there; none of them where some are too many or too small."""
    by_label: dict[str, list[Place]] = defaultdict(list)
    for place in targets.places(scene):
        by_label[place.label].append(place)
    there = Counter((thing.label or "").strip() for thing in scene.things)
    labels = {label for label in map(str.strip, scene.exhaustive) if label}
    known = sorted(label for label in labels if there[label] == len(by_label.get(label, ())))
    present = [label for label in known if label in by_label]
    missing = [label for label in known if label not in there]
    wanted = int(len(present) * targets.absent / (1 - targets.absent) + 0.5)
    if targets.absent and not present:
        wanted = 1
    asked = present + rng.sample(missing, min(wanted, len(missing)))
    rng.shuffle(asked)
    for start in range(0, len(asked), targets.queries):
        classes = asked[start : start + targets.queries]
        found = [p for label in classes for p in targets.sorted_by_area(by_label.get(label, ()), rng)]
        query = tuple(map(unforged, classes))
        yield partial(example, Task.OPEN_VOCABULARY_DETECTION, scene, boxes(found, label_of), query)


# Phrases and expressions


def grounding(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    there = {place.number: place for place in targets.places(scene)}
    for caption in scene.captions:
        found: list[Annotation] = []
        for phrase in sorted(caption.phrases, key=lambda phrase: (phrase.start, phrase.stop)):
            words = caption.text[phrase.start : phrase.stop].strip()
            if not names_nothing(words):
                numbers = dict.fromkeys(phrase.things)  # all of them, or "two dogs" would be one
                named = [there[number] for number in numbers] if numbers.keys() <= there.keys() else []
                found += [Annotation(words, place.box) for place in sorted(named, key=lambda place: -area(place.box))]
        if found:
            yield partial(example, Task.CAPTION_TO_PHRASE_GROUNDING, scene, found, unforged(caption.text))


def comprehension(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    for expression, place in referred(targets, scene):
        found = [Annotation(expression, place.box)]
        yield partial(example, Task.CAPTION_TO_PHRASE_GROUNDING, scene, found, unforged(expression))


def referred(targets: Targets, scene: Scene) -> list[tuple[str, Place]]:
    there = {place.number: place for place in targets.places(scene)}
    return [(text, there[number]) for text, number in expressions(scene) if number in there]


def segmentation(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    for expression, place in referred(targets, scene):
        if place.thing.mask:
            task, asked = Task.REFERRING_EXPRESSION_SEGMENTATION, unforged(expression)
            yield partial(outlined, targets, task, scene, place.thing.mask, asked)


def region_segmentation(targets: Targets, scene: Scene, rng: random.Random) -> Iterator[Make]:
    for place in targets.places(scene):
        if place.thing.mask:
            yield partial(outlined, targets, Task.REGION_TO_SEGMENTATION, scene, place.thing.mask, place.box)


# To examples


def boxes(places: Iterable[Place], said: Callable[[Place], str]) -> list[Annotation]:
    return [Annotation(said(place), place.box) for place in places]


def example(task: Task, scene: Scene, found: Sequence[Annotation], input: Input | None = None) -> Example:
    return Example(task, ask(task, input, scene.size), encode(task.form, found, scene.size), tuple(found))


def text_example(task: Task, scene: Scene, text: str, region: Box | None = None) -> Example:
    return Example(task, ask(task, region, scene.size), encode(task.form, text, scene.size))


def outlined(targets: Targets, task: Task, scene: Scene, mask: Mask, input: Input) -> Example | None:
    rings = targets.rings(mask, scene)
    return example(task, scene, [Annotation(polygons=rings)], input) if rings else None


def noisy(targets: Targets, scene: Scene, found: list[Annotation], rng: random.Random) -> Example:
    """A detection, and behind it boxes of nothing, each with a label of its own so that each says: there is no more.

    Where they lie makes no loss.
    """
    made = example(Task.OD, scene, found)
    answer, silent = made.answer, []
    for _ in range(targets.noise):
        xs, ys = (sorted(rng.uniform(0, side) for _ in range(2)) for side in scene.size)
        noise = encode(Task.OD.form, [Annotation(NOISE, (xs[0], ys[0], xs[1], ys[1]))], scene.size)
        silent.append((len(answer) + len(NOISE), len(answer) + len(noise)))
        answer += noise
    return replace(made, answer=answer, silent=tuple(silent))


def iou(a: Box, b: Box) -> float:
    common = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return common / (area(a) + area(b) - common) if common else 0.0


KINDS: dict[str, Callable[[Targets, Scene, random.Random], Iterator[Make]]] = {
    Task.CAPTION: partial(captions, task=Task.CAPTION, detail="brief"),
    Task.DETAILED_CAPTION: partial(captions, task=Task.DETAILED_CAPTION, detail="detailed"),
    Task.MORE_DETAILED_CAPTION: partial(captions, task=Task.MORE_DETAILED_CAPTION, detail="more_detailed"),
    Task.OCR: ocr,
    Task.OCR_WITH_REGION: quads,
    Task.OD: detection,
    Task.DENSE_REGION_CAPTION: dense,
    Task.REGION_PROPOSAL: proposals,
    Task.CAPTION_TO_PHRASE_GROUNDING: grounding,
    REFERRING: comprehension,
    Task.REFERRING_EXPRESSION_SEGMENTATION: segmentation,
    Task.REGION_TO_SEGMENTATION: region_segmentation,
    Task.OPEN_VOCABULARY_DETECTION: open_vocabulary,
    Task.REGION_TO_CATEGORY: partial(region_text, task=Task.REGION_TO_CATEGORY, said=label_of),
    Task.REGION_TO_DESCRIPTION: partial(region_text, task=Task.REGION_TO_DESCRIPTION, said=description_of),
    Task.REGION_TO_OCR: region_ocr,
}
