"""What merging goes by: the thresholds of the YAML, and what was learned of the sources and of the round before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from engine.calibration import Calibration, Stratum
from engine.config import Merge
from engine.merge.choosing import ByClass, Chooser
from engine.merge.claims import Claim, families_of
from engine.merge.edges import Edges, of
from engine.records import Detail
from engine.vocabulary import Vocabulary

# What a text is preferred for: its granularity, and what it is ranked by.
Ground: TypeAlias = tuple[Detail, Literal["agreement", "gain"]]


@dataclass(frozen=True)
class Rules:
    """`distrusted` is what texts are not ranked by, since labelled images show that it makes them worse.

    `counts`: of each class that the round before has, how many regions an image has of it that has any ("" are
    proposals). `families`: sources that are one model family have one word; what is not in it is a family of its own.
    """

    config: Merge = field(default_factory=Merge)
    calibration: Calibration = field(default_factory=Calibration)
    edges: Mapping[Stratum, Edges] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)
    distrusted: frozenset[Ground] = frozenset()
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    chooser: Chooser = field(default_factory=ByClass)

    def precision(self, claim: Claim) -> float | None:
        return self.calibration.precision(claim.strata, claim.region.label or "", claim.value)

    def edges_of(self, claim: Claim) -> Edges:
        return of(self.edges, places(claim))

    def families_of(self, origins: frozenset[str]) -> frozenset[str]:
        return families_of(origins, self.families)

    def room(self, label: str | None) -> int:
        """How many regions of a class ("": proposals) an image may have before an uncalibrated one is one too many;
        none of what has no label."""
        return round(self.counts.get(label, 0.0)) if label is not None else 0


def places(claim: Claim) -> tuple[Stratum, ...]:
    """What a claim's place is calibrated with; the closest first."""
    of_source = (claim.drawn_by, claim.region.kind)
    return (*of_source, claim.size), of_source
