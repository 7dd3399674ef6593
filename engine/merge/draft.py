"""What merging makes of a record as it goes: new annotations, decisions, and who took whose place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from engine.merge.case import Case
from engine.records import (
    HUMAN,
    MERGE,
    Action,
    Annotation,
    AnyAnnotation,
    Box,
    Decision,
    Record,
    Region,
    Scores,
    cascade,
)


@dataclass
class Draft:
    """Every choice is a decision by "merge". `heirs` has for each region that was superseded the one in its place,
    `ousted` for each that was rejected the one that stands there with another label."""

    case: Case
    made: list[AnyAnnotation] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    heirs: dict[str, Region] = field(default_factory=dict)
    ousted: dict[str, Region] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    _ids: Iterator[str] | None = None

    def id(self) -> str:
        self._ids = self._ids or self.case.record.ids(MERGE)
        return next(self._ids)

    def decide(
        self,
        action: Action,
        annotation: Annotation,
        reason: str,
        value: float | None = None,
        threshold: float | None = None,
        against: str | None = None,
    ) -> None:
        """One decision on an annotation, and no second one. What people annotated stands, whatever is asked."""
        if annotation.id in self.settled:
            raise ValueError(f"merge decided on {annotation.id} twice")
        self.settled.add(annotation.id)
        if annotation.source == HUMAN:
            action = "keep"
        if action == "reject":
            self.rejected.add(annotation.id)
        number = self.case.record.round
        self.decisions.append(
            Decision(
                annotation_id=annotation.id,
                action=action,
                by=MERGE,
                reason=reason,
                value=value,
                threshold=threshold,
                against=against,
                round=number,
            )
        )

    def stand(
        self, annotation: Annotation, reason: str, value: float | None = None, threshold: float | None = None
    ) -> None:
        """It stands: kept if it did before, added if it is new."""
        self.decide("add" if self.case.is_new(annotation) else "keep", annotation, reason, value, threshold)

    def make(self, annotation: AnyAnnotation, reason: str, value: float | None = None) -> None:
        self.made.append(annotation)
        self.decide("add", annotation, reason, value)

    def choose(self, annotation: Annotation, value: float) -> None:
        """It stays, as chosen among others."""
        if annotation.id not in self.settled:
            self.stand(annotation, "chosen", value)

    def overrule(self, annotation: Annotation, reason: str, against: str) -> None:
        """It is superseded, also if merging made it a moment ago: what was decided last counts."""
        self.settled.discard(annotation.id)
        self.decide("supersede", annotation, reason, against=against)

    def inherit(self, parents: Sequence[Region], box: Box, reason: str, precision: float | None) -> None:
        """A region in the place of its parents, of which the first says what it is."""
        heir = replace(
            parents[0],
            id=self.id(),
            source=MERGE,
            derived_from=tuple(sorted(parent.id for parent in parents)),
            scores=Scores(calibrated=precision),
            box=box,
        )
        self.make(heir, reason, precision)
        for parent in parents:
            self.yield_to(parent, heir, reason)

    def yield_to(self, region: Region, heir: Region, reason: str) -> None:
        """The region is superseded by the other."""
        self.decide("supersede", region, reason, against=heir.id)
        self.heirs[region.id] = heir

    def standing(self) -> Record:
        """What stands as things are."""
        return self.record().standing

    def record(self) -> Record:
        return self.case.record.append(self.made).decide(self.decisions)

    def finished(self) -> Record:
        """The record with all that follows."""
        record = self.record()
        return record.decide(cascade(record))
