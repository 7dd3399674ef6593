"""What a model's answers about held-out pictures are worth, measured against the pictures' whole truth.

Nothing is left out of either side: answers of any score count, and shapes of any size.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.world import Picture, Tally, character_errors, facts, reading, score
from engine.geometry import iou, quad_box
from engine.records import DETAILS, Box, Detail
from florence2.annotate import Annotator, Answer
from florence2.tasks import Task

IOU = 0.5
CAPTIONS: dict[Detail, Task] = dict(
    zip(DETAILS, (Task.CAPTION, Task.DETAILED_CAPTION, Task.MORE_DETAILED_CAPTION), strict=True)
)
ASKED = (Task.OD, *CAPTIONS.values(), Task.OCR_WITH_REGION)


@dataclass(frozen=True)
class Found:
    """A box in the picture's pixels, what it is or says, and how sure the model is."""

    label: str
    box: Box
    score: float = 1.0


@dataclass(frozen=True)
class Said:
    """A model's answers about a picture."""

    objects: tuple[Found, ...]
    captions: dict[Detail, str]
    words: tuple[Found, ...]


def ask(annotator: Annotator, pictures: Sequence[Picture]) -> list[Said]:
    images = (Image.fromarray(picture.pixels) for picture in pictures)
    return [said(answers) for answers in annotator.stream(images, ASKED)]


def said(answers: Sequence[Answer]) -> Said:
    by_task = {answer.task: answer for answer in answers}
    captions = {detail: by_task[task].text for detail, task in CAPTIONS.items()}
    return Said(_found(by_task[Task.OD]), captions, _found(by_task[Task.OCR_WITH_REGION]))


def _found(answer: Answer) -> tuple[Found, ...]:
    """Surest first. A score is the label's times the place's."""
    found = []
    for one in answer.annotations:
        box = quad_box(one.quad) if one.quad else one.box  # type: ignore[arg-type]
        if box:
            found.append(Found(one.label, box, (one.label_score or 0.0) * (one.score or 0.0)))
    return tuple(sorted(found, key=lambda one: -one.score))


def measure(answers: Sequence[Said], pictures: Sequence[Picture]) -> dict[str, float | None]:
    """By name; all over all pictures together.

    f1, f1_boxes: objects at IoU 0.5, with the right label and whatever the label.  ap, ap50: COCO's.
    facts_<detail>: F1 of what the captions state.
    characters: error rate of all text in a picture, as the floor has it; characters_matched: of the words alone that
    are where one is, at IoU 0.5 (None if none is); words: F1 of their places.
    """
    both = list(zip(answers, pictures, strict=True))
    objects = [(answer.objects, _shapes(picture)) for answer, picture in both]
    words = [(answer.words, _words(picture)) for answer, picture in both]
    ap, ap50 = average_precision(objects, pictures[0].world.labels)
    tallies = {d: sum((score(facts(a.captions[d]), p, d) for a, p in both), Tally()) for d in DETAILS}
    pairs = [pair for found, true in words for pair in matched(found, true, anything)]
    return {
        "f1": f1(objects, same_label),
        "f1_boxes": f1(objects, anything),
        "ap": ap,
        "ap50": ap50,
        **{f"facts_{detail}": tally.f1 for detail, tally in tallies.items()},
        "characters": character_errors((read(answer.words), reading(picture)) for answer, picture in both),
        "characters_matched": character_errors((found.label, true.label) for found, true in pairs) if pairs else None,
        "words": f1(words, anything),
    }


def _shapes(picture: Picture) -> list[Found]:
    return [Found(shape.label, shape.box) for shape in picture.shapes]


def _words(picture: Picture) -> list[Found]:
    return [Found(word.text, quad_box(word.quad)) for word in picture.words]


def read(words: Sequence[Found]) -> str:
    """All of it in the order of `world.reading`."""
    return " ".join(text for _, text in sorted((word.box[1::-1], word.label) for word in words))


Agree: TypeAlias = Callable[[Found, Found], bool]
Pair: TypeAlias = tuple[Sequence[Found], Sequence[Found]]  # found in a picture, and true of it


def same_label(found: Found, true: Found) -> bool:
    return found.label == true.label


def anything(found: Found, true: Found) -> bool:
    return True


def matched(found: Sequence[Found], true: Sequence[Found], agree: Agree) -> list[tuple[Found, Found]]:
    """Each of `found` in its order takes what it covers best of what is left, from IoU 0.5 on."""
    left, pairs = list(true), []
    for one in found:
        overlaps = [iou(one.box, other.box) if agree(one, other) else 0.0 for other in left]
        if overlaps and max(overlaps) >= IOU:
            pairs.append((one, left.pop(int(np.argmax(overlaps)))))
    return pairs


def f1(pairs: Sequence[Pair], agree: Agree) -> float:
    """Over all pictures together."""
    right = sum(len(matched(found, true, agree)) for found, true in pairs)
    return 2 * right / max(sum(len(found) + len(true) for found, true in pairs), 1)


def average_precision(pairs: Sequence[Pair], labels: Sequence[str]) -> tuple[float, float]:
    """COCO's AP over IoU 0.5 to 0.95, and at 0.5: the mean over the labels that are there. A label that the world
    doesn't have is in no class, and costs nothing here."""
    numbers = {label: number for number, label in enumerate(labels, 1)}
    true = [_coco(n, one, numbers) for n, (_, those) in enumerate(pairs, 1) for one in those]
    found = [_coco(n, one, numbers) for n, (those, _) in enumerate(pairs, 1) for one in those if one.label in numbers]
    if not true or not found:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
        truth = COCO()
        truth.dataset = {
            "images": [{"id": n} for n in range(1, len(pairs) + 1)],
            "categories": [{"id": number, "name": label} for label, number in numbers.items()],
            "annotations": [{**one, "id": n} for n, one in enumerate(true, 1)],  # with 0 it would count as unmatched
        }
        truth.createIndex()
        results = COCO()
        results.dataset = {**truth.dataset, "annotations": [{**one, "id": n} for n, one in enumerate(found, 1)]}
        results.createIndex()
        judge = COCOeval(truth, results, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return max(float(judge.stats[0]), 0.0), max(float(judge.stats[1]), 0.0)


def _coco(image: int, one: Found, numbers: dict[str, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = one.box
    box = [x0, y0, x1 - x0, y1 - y0]
    about = {"category_id": numbers[one.label], "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
    return {"image_id": image, "score": one.score, **about}
