"""Rules that show over many samples only: scores that are invented, boxes in units that aren't pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.protocols import Sample
from engine.records import Decision, Region, Scores
from engine.testing.refusal import require
from engine.testing.same import Answer

MOST_ALIKE = 5  # scores that may be one number, or boxes that may lie within one pixel, by chance
LARGE = 16  # px: sides of an image in which a thing is larger than a pixel


def check_something(answers: Sequence[Answer]) -> None:
    """It had something to say: what never speaks breaks no rule."""
    require(
        any(answers),
        "something to check",
        "an annotation or an opinion of one sample at least",
        f"none over {len(answers)} samples",
        "Add samples that show what it is for: check_specialist(..., [*engine.testing.samples(), mine]), or lower what "
        "it must be sure of",
    )


def check_scores(answers: Sequence[Answer], constant: bool) -> None:
    """Of no kind of annotation all scores are one number, unless `constant`; none is called calibrated."""
    said: dict[str, list[float]] = {}
    for kind, score, value in _scores(answers):
        require(
            score != "calibrated",
            "calibrated",
            "None: what is calibrated, merging measures against labels",
            value,
            "Give the model's own number as label, phrase, box or mask score",
        )
        said.setdefault(f"{score} scores of {kind}", []).append(value)
    for kind, values in said.items():
        require(
            constant or len(values) < MOST_ALIKE or len(set(values)) > 1,
            "honest scores",
            "scores that differ, or None where the model gives none",
            f"{len(values)} {kind}, all {values[0]!r}",
            "Don't invent a number: thresholds would be set on it. If it is the model's, pass constant_scores=True",
        )


def _scores(answers: Sequence[Answer]) -> Iterator[tuple[str, str, float]]:
    for entry in (entry for answer in answers for entry in answer if not isinstance(entry, Decision)):
        kind = f"{entry.kind} regions" if isinstance(entry, Region) else f"{type(entry).__name__} annotations"
        for score in Scores.__slots__:
            value = getattr(entry.scores, score)
            if value is not None:
                yield kind, score, value


def check_units(samples: Sequence[Sample], answers: Sequence[Answer]) -> None:
    """Not all boxes of larger images lie in their first pixel."""
    boxes = [
        entry.box
        for sample, answer in zip(samples, answers, strict=True)
        if min(sample.image.shape[:2]) >= LARGE
        for entry in answer
        if isinstance(entry, Region)
    ]
    require(
        len(boxes) < MOST_ALIKE or any(max(map(abs, box)) > 1 for box in boxes),
        "boxes",
        "pixels of the upright image",
        f"{len(boxes)} boxes within the first pixel, such as {boxes[:1]}: shares of the image's sides?",
        "Multiply x by sample.image.shape[1] and y by sample.image.shape[0]",
    )
