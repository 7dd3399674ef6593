"""A record as merging sees it: what stood before the round, what the round adds, and who thinks what of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from engine.records import MERGE, VERIFIED, VERIFIED_BLANK, Annotation, Decision, Kind, Record, Region, Text


@dataclass(frozen=True)
class Case:
    """`record` is that of the round before merging, `before` that of the round before.

    `judges` are the sources whose opinions count, of models trained on the round in folds: of what stood by the one
    that was kept from the image, unless that was found by its like alone, which it may go on from; of a new text by one
    that did not write it. `outsiders` are models that were trained elsewhere: theirs count, but for what goes back to
    themselves. `learners` annotate what they were trained on: what they say is what they were told.
    """

    record: Record
    before: Record
    judges: frozenset[str] = frozenset()
    outsiders: frozenset[str] = frozenset()
    learners: frozenset[str] = frozenset()

    @cached_property
    def standing(self) -> Record:
        return self.record.standing

    @property
    def says_nothing(self) -> bool:
        """Whether the round has neither annotations nor opinions: there is nothing to merge."""
        return len(self.record.by_id) == len(self.before.by_id) and not self._opinions

    def is_new(self, annotation: Annotation) -> bool:
        return annotation.id not in self.before.by_id

    def regions(self, kind: Kind) -> list[Region]:
        """What stands, without crowds: many things in one box are not one thing."""
        return [region for region in self.standing.regions if region.kind == kind and not region.crowd]

    def renamed(self, region: Region) -> Region | None:
        """What a region gives another label, in the same box: its place is the other's, and its label its own."""
        parents = (self.record.by_id.get(id_) for id_ in region.derived_from if region.source != MERGE)
        regions = (parent for parent in parents if isinstance(parent, Region) and parent.kind == region.kind)
        return next((one for one in regions if one.box == region.box and one.label != region.label), None)

    def rival(self, region: Region) -> Region | None:
        """What it renames, if that stands: if not, it has the place for itself."""
        parent = self.renamed(region)
        return parent if parent and parent.id in self.standing.by_id and not parent.crowd else None

    def drawn_by(self, region: Region) -> str:
        """The source of its box."""
        parent = self.renamed(region)
        return self.drawn_by(parent) if parent else region.source

    def origins(self, annotation: Annotation) -> frozenset[str]:
        """The sources that an annotation goes back to: of what was fused all that had a part in it."""
        if isinstance(annotation, Region) and self.renamed(annotation):
            return frozenset({annotation.source})
        parents = [self.record.by_id[id_] for id_ in annotation.derived_from if id_ in self.record.by_id]
        same_kind = [parent for parent in parents if isinstance(parent, Region | Text)]
        return frozenset().union(*map(self.origins, same_kind)) if same_kind else frozenset({annotation.source})

    def witnesses(self, annotation: Annotation) -> frozenset[str]:
        """The sources whose word it is that there is such a thing: none for what a learner says."""
        return self.origins(annotation) - self.learners

    def opinion(self, annotation: Annotation) -> float | None:
        """log p per token, given the image; the mean of all who have a say."""
        return self._mean(annotation.id, VERIFIED)

    def gain(self, annotation: Annotation) -> float | None:
        """How much likelier a text is with the image than with a blank one: log p per token."""
        gains = self._opinions.get((annotation.id, VERIFIED), {})
        blank = self._opinions.get((annotation.id, VERIFIED_BLANK), {})
        both = [gains[by] - blank[by] for by in gains if by in blank]
        return sum(both) / len(both) if both else None

    def _mean(self, id_: str, reason: str) -> float | None:
        values = list(self._opinions.get((id_, reason), {}).values())
        return sum(values) / len(values) if values else None

    @cached_property
    def _opinions(self) -> Mapping[tuple[str, str], dict[str, float]]:
        """(annotation, reason) -> judge -> value: of what the round adds, the latest of each."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for decision in self.record.decisions[len(self.before.decisions) :]:
            if decision.action == "keep" and decision.value is not None and self._counts(decision):
                found.setdefault((decision.annotation_id, decision.reason), {})[decision.by] = decision.value
        return found

    def _counts(self, decision: Decision) -> bool:
        annotation = self.record.by_id.get(decision.annotation_id)
        if annotation is None:
            return False
        if decision.by in self.outsiders:
            return decision.by not in self.origins(annotation)
        own = annotation.id in self.before.by_id and self.origins(annotation) == {decision.by}
        return decision.by in self.judges and not own
