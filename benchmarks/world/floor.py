"""The best that a model can do which never looks: one answer for every image, tuned on the training images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from benchmarks.world.captions import Fact, holds, tell
from benchmarks.world.facts import Tally, score
from benchmarks.world.picture import Picture
from engine.geometry import quad_box
from engine.records import DETAILS, Box, Detail

IOU = 0.5
STEPS = 9  # centres tried along each side
SIDES = (0.1, 0.15, 0.2, 0.28, 0.4, 0.55)  # of boxes tried, of the image's
TEXTS = 20  # words, and as many letters, tried as an answer


@dataclass(frozen=True)
class Floor:
    """What the constant answers get on held-out pictures, and the answers. `regions` is F1 at IoU 0.5 with the label,
    `characters` the error rate of all text in an image, `facts` F1 of what captions state."""

    regions: float
    characters: float
    facts: dict[Detail, float]
    boxes: tuple[tuple[str, Box], ...]
    text: str
    captions: dict[Detail, frozenset[Fact]]


def floor(train: Sequence[Picture], held_out: Sequence[Picture]) -> Floor:
    """Rather too much than too little: a box is right if it lies on any shape of its label, and the answer that a
    caption's facts come from may contradict itself (a red star, and two red stars)."""
    boxes, text = best_boxes(train), best_text(train)
    captions: dict[Detail, frozenset[Fact]] = {detail: best_facts(train, detail) for detail in DETAILS}
    scores = {d: sum((score(captions[d], p, d) for p in held_out), Tally()).f1 for d in DETAILS}
    hit, total = int(_hits(boxes, held_out).any(axis=0).sum()), sum(len(p.shapes) for p in held_out)
    return Floor(
        regions=2 * hit / max(len(boxes) * len(held_out) + total, 1),
        characters=character_errors((text, reading(p)) for p in held_out),
        facts=scores,
        boxes=tuple(boxes),
        text=text,
        captions=captions,
    )


def best_boxes(train: Sequence[Picture]) -> list[tuple[str, Box]]:
    """Boxes are added while F1 rises, each time the one that adds most."""
    width, height = train[0].world.size
    candidates = []
    for label, side, n, m in product(train[0].world.labels, SIDES, range(STEPS), range(STEPS)):
        w, h = width * side, height * side
        x, y = (width - w) * n / (STEPS - 1), (height - h) * m / (STEPS - 1)
        candidates.append((label, (x, y, x + w, y + h)))
    hits = _hits(candidates, train)
    chosen: list[tuple[str, Box]] = []
    covered, best = np.zeros(hits.shape[1], bool), 0.0
    while True:
        gains = (hits & ~covered).sum(axis=1)
        n = int(gains.argmax())
        f1 = 2 * int(covered.sum() + gains[n]) / max((len(chosen) + 1) * len(train) + hits.shape[1], 1)
        if f1 <= best:
            return chosen
        best, covered = f1, covered | hits[n]
        chosen.append(candidates[n])


def best_text(train: Sequence[Picture]) -> str:
    """Of nothing, the commonest words and the commonest letters, what leaves the lowest character error rate."""
    truths = [reading(picture) for picture in train]
    words = Counter(word for truth in truths for word in truth.split())
    letters = Counter(letter for truth in truths for letter in truth)
    candidates = ["", *(text for some in (words, letters) for text, _ in some.most_common(TEXTS))]
    return min(candidates, key=lambda text: character_errors((text, truth) for truth in truths))


def best_facts(train: Sequence[Picture], detail: Detail) -> frozenset[Fact]:
    """So many of the facts that hold most often as give the best F1."""
    right, found = Counter[Fact](), Counter[Fact]()
    for picture in train:
        right.update(holds(picture, detail))
        found.update(fact for told in tell(picture) if told.detail == detail for fact in told.facts)
    often = [fact for fact, _ in sorted(right.items(), key=lambda pair: (-pair[1], pair[0]))]
    tally, best, size = Tally(), 0.0, 0
    for n, fact in enumerate(often, 1):
        tally = Tally(n * len(train), tally.right + right[fact], found.total(), tally.found + found[fact])
        best, size = max((best, size), (tally.f1, n))
    return frozenset(often[:size])


def reading(picture: Picture) -> str:
    """All words in a picture, from the top down, with a space between."""
    boxes = sorted((quad_box(word.quad)[1::-1], word.text) for word in picture.words)
    return " ".join(text for _, text in boxes)


def character_errors(pairs: Iterable[tuple[str, str]]) -> float:
    """Over pairs of (answer, truth): letters to be put in, taken out or changed, of all letters in the truths."""
    counted = Counter(pairs)
    wrong = sum(Levenshtein.distance(answer, truth) * n for (answer, truth), n in counted.items())
    return wrong / max(sum(len(truth) * n for (_, truth), n in counted.items()), 1)


def _hits(answer: Sequence[tuple[str, Box]], pictures: Sequence[Picture]) -> npt.NDArray[np.bool_]:
    """Which boxes of the answer lie on which shapes of the pictures, [boxes, shapes]."""
    shapes = [shape for picture in pictures for shape in picture.shapes]
    a = np.array([box for _, box in answer], np.float32).reshape(-1, 1, 4)
    b = np.array([shape.box for shape in shapes], np.float32).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    inter = sides.prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (a, b)]
    same = np.array([label for label, _ in answer])[:, None] == np.array([shape.label for shape in shapes])[None]
    found: npt.NDArray[np.bool_] = (inter >= IOU * (areas[0] + areas[1] - inter)) & same
    return found
