"""What a specialist keeps to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, replace
from typing import NoReturn

import numpy as np

from engine.protocols import Sample, Specialist, reads_of
from engine.records import Record
from engine.rounds import begun
from engine.testing.answers import check_answer
from engine.testing.component import check_built, renamed, unpickled
from engine.testing.overall import check_scores, check_something, check_units
from engine.testing.refusal import refuse, require
from engine.testing.same import Answer, Tolerance, difference, seeded
from engine.testing.scenes import as_handed, name_of
from engine.testing.scenes import samples as kit_samples

SAME = "the same annotations of the same sample"
FORGET = "Keep nothing of one call for the next, and sort what comes from a set"


def check_specialist(
    specialist: Specialist,
    samples: Sequence[Sample] | None = None,
    *,
    score_tolerance: float = 1e-3,
    pixel_tolerance: float = 0.05,
    constant_scores: bool = False,
) -> None:
    """Raises AssertionError with the first rule that `specialist`, built and not set up, breaks over the samples.

    Without `samples`, over the kit's own (`engine.testing.samples()`), to which one's own can be added. The tolerances
    are for the noise of floating point between an image alone and in a batch.
    """
    check_built(specialist)
    _check_provenance(specialist)
    ready, other = unpickled(specialist), renamed(specialist)
    _check_version(specialist, ready)
    shown = kit_samples() if samples is None else samples
    _set_up(ready)
    answers = answers_of(ready, shown)
    _check_all(ready, shown, answers)
    check_something(answers)
    check_scores(answers, constant_scores)
    check_units(shown, answers)
    _set_up(other)
    _check_same(ready, other, shown, answers, Tolerance(score_tolerance, pixel_tolerance))
    if reads_of(specialist) == "image":
        _check_reads_image(ready, shown, answers, Tolerance(score_tolerance, pixel_tolerance))


def answers_of(specialist: Specialist, samples: Sequence[Sample], seed: int = 0) -> list[Answer]:
    """What the specialist says of a batch, which it has to leave as it is."""
    handed = as_handed(samples)
    with seeded(seed):
        try:
            answers: list[Answer] = [tuple(answer) for answer in specialist.annotate([*handed])]
        except Exception as error:
            for sample in samples if len(samples) > 1 else ():
                answers_of(specialist, [sample], seed)  # the one that it is
            _raised(samples, error)
    require(
        len(answers) == len(samples),
        "one answer a sample",
        f"{len(samples)} answers for {len(samples)} samples",
        f"{len(answers)}",
        "Give an empty list for a sample with nothing to say of",
    )
    for before, after in zip(samples, handed, strict=True):
        require(
            np.array_equal(before.image, after.image) and before.record == after.record,
            "only appends",
            "image and record as they were",
            f"another one of {name_of(before)}",
            "Work on a copy: sample.image.copy()",
        )
    return answers


def _raised(samples: Sequence[Sample], error: Exception) -> NoReturn:
    where = name_of(samples[0]) if len(samples) == 1 else f"a batch of {len(samples)}, each of which is well alone"
    came = f"{type(error).__name__}: {error} (over {where})"
    if isinstance(error, FrozenInstanceError) or "read-only" in str(error):
        refuse("only appends", "image and record to be left as they are", came, "Work on a copy", error)
    remedy = "In a run it would be quarantined for that; give no annotations where there is nothing to say"
    refuse("no exception", "an answer to every sample", came, remedy, error)


def _check_provenance(specialist: Specialist) -> None:
    for field, remedy in (
        ("licence", "Say the licence of code and weights, as a class variable where it is always the same"),
        ("version", "Use engine.versions.digest_of(__name__, *weights, packages=...), before setup too"),
    ):
        try:
            said = getattr(specialist, field)
        except Exception as error:
            refuse(field, "a word before setup", error, remedy, error)
        require(isinstance(said, str) and said.strip(), field, "a word", repr(said), remedy)


def _check_version(specialist: Specialist, copy: Specialist) -> None:
    said = {specialist.version, specialist.version, copy.version}
    require(
        len(said) == 1,
        "version",
        "the same word each time, in a worker too",
        ", ".join(sorted(said)),
        "Make it of code and weights alone: engine.versions.digest_of",
    )


def _set_up(specialist: Specialist) -> None:
    try:
        specialist.setup()
    except Exception as error:
        refuse(
            "setup", "setup of a pickled copy to load it", error, "Keep parameters in fields, the rest in setup", error
        )


def _check_all(specialist: Specialist, samples: Sequence[Sample], answers: Sequence[Answer]) -> None:
    for sample, answer in zip(samples, answers, strict=True):
        try:
            check_answer(specialist.name, sample, answer)
        except AssertionError as error:
            raise AssertionError(f"{error} This was over {name_of(sample)}.") from error.__cause__


def _check_reads_image(
    ready: Specialist, samples: Sequence[Sample], answers: Sequence[Answer], tolerance: Tolerance
) -> None:
    """What it says of an image is not computed again when the record before it is another one."""
    bare = [Record(sample.record.item, round=sample.record.round) for sample in samples]
    again = answers_of(ready, [replace(s, record=r, before=begun(r)) for s, r in zip(samples, bare, strict=True)])
    for sample, one, other in zip(samples, answers, again, strict=True):
        came = difference(one, other, tolerance, ordered=False)
        require(
            not came,
            'reads = "image"',
            "the same annotations with an empty record",
            f"{came} (over {name_of(sample)})",
            'Say reads = "record", or leave it out: then it is asked again when what it reads has changed',
        )


def _check_same(
    ready: Specialist, other: Specialist, samples: Sequence[Sample], answers: Sequence[Answer], tolerance: Tolerance
) -> None:
    """The same answers whatever else is different: another instance, name and seed; no batch. Where they differ, causes
    are tried one by one. With the batch another one, equal scores may come in another order."""

    def differs(again: Sequence[Answer], ordered: bool) -> str:
        for sample, one, now in zip(samples, answers, again, strict=True):
            if found := difference(one, now, tolerance, ordered):
                return f"{found} (over {name_of(sample)})"
        return ""

    def turned() -> list[Answer]:
        *rest, first = answers_of(ready, [*samples[1:], samples[0]])
        return [first, *rest]

    def alone(seed: int = 0) -> list[Answer]:
        return [answers_of(ready, [sample], seed)[0] for sample in samples]

    others = answers_of(other, samples, 1)
    _check_all(other, samples, others)
    found = differs(others, ordered=True) or differs(alone(2), ordered=False)
    if not found:
        return
    causes: tuple[tuple[str, bool, Callable[[], list[Answer]], str], ...] = (
        ("same twice", True, lambda: answers_of(ready, samples), FORGET),
        ("global random state", True, lambda: answers_of(ready, samples, 1), "Use a generator with a seed of its own"),
        ("instances", True, lambda: answers_of(other, samples), "Seed what setup makes; keep nothing in the class"),
        ("order kept", False, turned, "Give answers in the batch's order: answers[i] is of batch[i]"),
        ("alone as in a batch", False, alone, "Group images by shape: padding lets neighbours have a say"),
    )
    for rule, ordered, run, remedy in causes:
        what = differs(run(), ordered)
        require(not what, rule, SAME, what, remedy)
    refuse("same twice", SAME, found, FORGET)
