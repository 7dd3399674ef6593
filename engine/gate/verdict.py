"""Whether a round is accepted: better by more than chance where it counts, nowhere worse by more than is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from engine.config import Config
from engine.gate.bootstrap import Interval, interval
from engine.gate.drift import Habits, drifts
from engine.gate.measures import RARE, Measured, measure, texts_of
from engine.records import DETAILS, Record

Outcome = Literal["accepted", "refused", "unverified"]
TEXTS = tuple(map(texts_of, DETAILS))
LEAST_IMAGES = 20  # labelled: with fewer, a bootstrap says nothing
SURE = 0.999  # of labels that fit; those of other images do so by chance in one of 2,000 rounds
ALIKE = 0.5  # F1 of the objects of two images from which on they show the same


@dataclass(frozen=True)
class Comparison:
    """A measure before and after the round. CIDEr-D counts in tenths, so that the margin is of the same kind."""

    name: str
    before: float | None
    after: float | None
    interval: Interval | None
    instances: int

    @property
    def difference(self) -> float:
        return (self.after or 0.0) - (self.before or 0.0)


@dataclass(frozen=True)
class Verdict:
    """What became of a round, and why: `reasons` are sentences."""

    outcome: Outcome
    reasons: tuple[str, ...]
    images: int = 0
    comparisons: tuple[Comparison, ...] = ()
    habits: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return self.outcome != "refused"

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def judge(
    before: Sequence[Record],
    after: Sequence[Record],
    labels: Sequence[Record],
    config: Config,
    habits: tuple[Habits, Habits],
) -> Verdict:
    """By records of the same labelled images, in the same order; without any, by the habits of the two rounds."""
    told = {"before": habits[0].told(), "after": habits[1].told()}
    if len(labels) < LEAST_IMAGES:
        why = (
            f"{len(labels)} labelled images are too few to judge by ({LEAST_IMAGES} at least; engine audit draws some)"
            if labels
            else "no labelled images (gate.labels; engine audit draws some to be labelled)"
        )
        changed = drifts(*habits, config.gate.drift)
        return Verdict("refused" if changed else "unverified", (why, *changed), len(labels), (), told)
    now = measure(after, labels, config)
    comparisons = compare(measure(before, labels, config), now, config)
    primary = _primary(comparisons)
    # Of all else nobody said enough to tell whether it is worse.
    judged = {one.name for one in comparisons if one is primary or one.instances >= config.gate.min_instances}
    reasons = _faults(comparisons, primary, config) + drifts(*habits, config.gate.drift, judged)
    if primary is not None and (strange := _strange(primary, now, after, labels, config)):
        reasons.append(strange)
    if reasons:
        return Verdict("refused", tuple(reasons), len(labels), tuple(comparisons), told)
    assert primary is not None
    assert primary.interval is not None
    better = f"{primary.name}: {primary.before:.3f} before, {primary.after:.3f} now, {_told(primary.interval)}"
    return Verdict("accepted", (better,), len(labels), tuple(comparisons), told)


def _strange(
    primary: Comparison, now: Measured, after: Sequence[Record], labels: Sequence[Record], config: Config
) -> str | None:
    """Labels that fit their images no better than those of other images would, though these are others, say nothing:
    as if they had been mixed up."""
    half = len(labels) // 2
    others = [replace(said, item=own.item) for said, own in zip([*labels[half:], *labels[:half]], labels, strict=True)]
    if primary.name == "objects" and (measure(labels, others, config).ratio("objects").value or 0.0) > ALIKE:
        return None
    own, theirs = (measured.ratio(primary.name) for measured in (now, measure(after, others, config)))
    found = interval(theirs, own, config.gate.samples, SURE, config.gate.seed)
    if found is not None and found.low > 0:
        return None
    return (
        f"the labels fit their images no better than those of other images would ({primary.name}: "
        f"{own.value or 0:.3f}, with others' {theirs.value or 0:.3f}): were they mixed up?"
    )


def compare(before: Measured, after: Measured, config: Config) -> list[Comparison]:
    gate = config.gate
    return [
        Comparison(
            name,
            before.ratio(name).value,
            after.ratio(name).value,
            interval(before.ratio(name), after.ratio(name), gate.samples, gate.confidence, gate.seed),
            after.instances[name],
        )
        for name in sorted({*before.names, *after.names}, key=_order)
    ]


def _order(name: str) -> tuple[bool, bool, str]:
    return "/" in name or "," in name, name != "objects", name


def _primary(comparisons: Sequence[Comparison]) -> Comparison | None:
    """Objects with their labels; where people labelled none, the first of what they did."""
    return next((one for one in comparisons if one.instances), None)


def _faults(comparisons: Sequence[Comparison], primary: Comparison | None, config: Config) -> list[str]:
    if primary is None or primary.interval is None:
        return ["the labels have neither objects nor texts: there is nothing to judge by"]
    faults = []
    if primary.interval.low <= 0:
        how = "that is worse" if primary.interval.high < 0 else "that may be chance"
        faults.append(
            f"{primary.name}: {primary.before or 0:.3f} before, {primary.after or 0:.3f} now; {how} "
            f"({_told(primary.interval)}): the lower bound is not above 0"
        )
    for one in comparisons:
        scale = 10 if one.name in TEXTS else 1  # CIDEr-D goes to 10
        judged = one.instances >= config.gate.min_instances or one.name == f"objects/{RARE}"
        if one is not primary and one.instances and judged and one.difference < -config.gate.margin * scale:
            faults.append(
                f"{one.name}: {one.before or 0:.3f} before, {one.after or 0:.3f} now, worse by more than gate.margin, "
                f"{config.gate.margin * scale:g}"
            )
    return faults


def _told(interval: Interval) -> str:
    return f"difference {interval.low:+.3f} to {interval.high:+.3f}"
