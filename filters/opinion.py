"""Filters that go by what a specialist thinks of others' annotations: its opinions, decisions to keep with a value.

What there is no opinion of stands. Values are compared with those of one source and reason only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from engine.records import (
    HUMAN,
    AnyAnnotation,
    Decision,
    Detail,
    Kind,
    Mask,
    Record,
    Region,
    RegionText,
    Text,
    Triplet,
)

Judged: TypeAlias = Detail | Kind | Literal["region_text", "mask", "triplet"]
By = Annotated[str, Field(description="source key of whose opinions count")]
Reason = Annotated[str, Field(description="which of its opinions: similarity, stability, verified, ...")]
Value = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Opinion:
    """Rejects annotations of which an opinion has a lower value than what they are needs."""

    name: str = "opinion"
    by: By = "contrastive"
    reason: Reason = "similarity"
    minimum: Annotated[
        dict[Judged, Value],
        Field(
            description="granularity of a text, kind of a region, region_text, mask or triplet -> lowest value that "
            "stands; whatever is not listed stands"
        ),
    ] = field(default_factory=dict)

    def decide(self, record: Record) -> Iterator[Decision]:
        values = opinions(record, self.by, self.reason)
        for annotation in record.standing.annotations():
            judged, value = judged_as(annotation), values.get(annotation.id)
            lowest = self.minimum.get(judged) if judged else None
            if value is not None and lowest is not None and value < lowest:
                yield record.reject(annotation, self.name, f"low_{self.reason}", value, lowest)


@dataclass(frozen=True)
class Closest:
    """Of the texts of a region, rejects all but the one of the highest value; of equals the first stands.

    What a person wrote of a region is compared with nothing: all that is said of it stands, as in merging.
    """

    name: str = "closest"
    by: By = "contrastive"
    reason: Reason = "similarity"

    def decide(self, record: Record) -> Iterator[Decision]:
        values = opinions(record, self.by, self.reason)
        of_region: dict[str, list[RegionText]] = defaultdict(list)
        for text in record.standing.region_texts:
            of_region[text.region_id].append(text)
        for texts in of_region.values():
            judged = [text for text in texts if text.id in values]
            if not judged or any(text.source == HUMAN for text in texts):
                continue
            closest = max(judged, key=lambda text: values[text.id])
            for text in judged:
                if text is not closest:
                    value, highest = values[text.id], values[closest.id]
                    yield record.reject(text, self.name, "less_close", value, highest, closest.id)


def opinions(record: Record, by: str, reason: str) -> dict[str, float]:
    """The value of the latest opinion of each annotation that has one."""
    return {
        decision.annotation_id: decision.value
        for decision in record.decisions
        if (decision.action, decision.by, decision.reason) == ("keep", by, reason) and decision.value is not None
    }


def judged_as(annotation: AnyAnnotation) -> Judged | None:
    """What a threshold may be asked of it by; None: by nothing."""
    match annotation:
        case Text():
            return annotation.detail
        case Region():
            return annotation.kind
        case RegionText():
            return "region_text"
        case Mask():
            return "mask"
        case Triplet():
            return "triplet"
    return None
