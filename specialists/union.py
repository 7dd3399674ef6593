"""The union of what several questions found in one image: one thing for all the boxes that are of the same.

Objects (from detection, with or without a query) are the same if they have one label and overlap; descriptions and
proposals, which have no label, go to whatever overlaps them most. What is surest of its place says where the thing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.geometry import iou
from engine.records import Box


@dataclass(frozen=True)
class Sighting:
    """One box of one answer. `label` is the vocabulary's, None for what is no object; `said` are the model's words: the
    label as it was given, a description, or nothing. Scores are None where there are none."""

    box: Box
    said: str = ""
    label: str | None = None
    said_score: float | None = None
    box_score: float | None = None


@dataclass
class Thing:
    """What the sightings of one thing come to: the first is the surest of its place, and has a label if one has."""

    seen: list[Sighting] = field(default_factory=list)

    @property
    def box(self) -> Box:
        return self.seen[0].box

    @property
    def box_score(self) -> float | None:
        return self.seen[0].box_score

    @property
    def label(self) -> str | None:
        return self.seen[0].label

    @property
    def named(self) -> Sighting | None:
        """The one whose label is surest: which question found the thing says little of it."""
        return max(
            (one for one in self.seen if one.label is not None), key=lambda one: _score(one.said_score), default=None
        )

    @property
    def label_score(self) -> float | None:
        return self.named.said_score if self.named else None

    @property
    def described(self) -> list[Sighting]:
        """Those with a description, one for each wording, the surest place first."""
        found: dict[str, Sighting] = {}
        for one in self.seen:
            if one.said and one.label is None:
                found.setdefault(one.said, one)
        return list(found.values())


def union(sightings: Iterable[Sighting], same_label: float, any_label: float) -> list[Thing]:
    """The things, objects first and each kind the surest first; in whatever order the sightings come.

    `same_label` is the lowest IoU at which two objects of one label are one, `any_label` that at which a description
    or a proposal is of a thing.
    """
    ranked = sorted(sightings, key=_rank)
    things: list[Thing] = []
    for one in (one for one in ranked if one.label is not None):
        _join(one, things, [thing for thing in things if thing.label == one.label], same_label)
    for one in (one for one in ranked if one.label is None):
        _join(one, things, things, any_label)
    return things


def nearest(box: Box, things: Sequence[Thing], least: float) -> Thing | None:
    """The thing that a box overlaps most, by an IoU of `least` or more; of equals the first."""
    overlap, place = max(((iou(thing.box, box), -n) for n, thing in enumerate(things)), default=(-1.0, 0))
    return things[-place] if overlap >= least else None


def _join(one: Sighting, things: list[Thing], among: Sequence[Thing], least: float) -> None:
    thing = nearest(one.box, among, least)
    if thing is None:
        thing = Thing()
        things.append(thing)
    thing.seen.append(one)


def _rank(one: Sighting) -> tuple[float, float, str, str, Box]:
    """The surest place first; the rest only makes the order the same every time."""
    return -_score(one.box_score), -_score(one.said_score), one.label or "", one.said, one.box


def _score(score: float | None) -> float:
    return -1.0 if score is None else score
