"""Annotating: items in, records out, as many as came in. Plain Python; the Ray runner calls it in its workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.breaker import Failures
from engine.config import Ingest
from engine.decide import Filter, FilterFault, decide
from engine.errors import ImageError, RecordError, RunError
from engine.heartbeat import PoolSpeed
from engine.images import decode
from engine.near import perceptual_hash
from engine.protocols import Image, Sample, Specialist
from engine.reading import read
from engine.records import AnyAnnotation, Decision, Item, ItemError, Record, digest16
from engine.rounds import begun


@dataclass
class Tally:
    """What was done since the last one: for progress and for where the time goes."""

    items: int = 0
    annotations: int = 0
    fallen: int = 0
    quarantined: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    passed: int = 0  # images through a pool: one counts in each
    looked_at: Counter[str] = field(default_factory=Counter)  # those that were not replayed, by specialist and decode
    failures: Failures = field(default_factory=Failures)  # of one report; they are not added up
    pools: dict[str, PoolSpeed] = field(default_factory=dict)  # of all reports: how each pool went, by name

    def add(self, other: Tally) -> None:
        self.items += other.items
        self.annotations += other.annotations
        self.fallen += other.fallen
        self.quarantined += other.quarantined
        self.passed += other.passed
        self.looked_at.update(other.looked_at)
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def count(self, records: Iterable[Record]) -> None:
        for record in records:
            self.items += 1
            self.annotations += len(record.by_id)
            self.fallen += len(record.fallen)
            self.quarantined += record.error is not None


def annotate(
    records: Sequence[Record],
    specialists: Sequence[Specialist],
    filters: Sequence[Filter],
    ingest: Ingest,
    seconds: dict[str, float],
    downloads: Path | None = None,
) -> list[Record]:
    """`records`, in order, with what every specialist adds and every filter decides; images are decoded once."""
    befores = [begun(record) for record in records]
    looked = look(records, befores, specialists, filters, ingest, seconds, downloads)
    return settle(looked, befores, filters, seconds)


def look(
    records: Sequence[Record],
    befores: Sequence[Record],
    specialists: Sequence[Specialist],
    filters: Sequence[Filter],
    ingest: Ingest,
    seconds: dict[str, float],
    downloads: Path | None = None,
) -> list[Record]:
    """`records`, in order, with what every specialist adds; `befores` are these records as the round found them.

    An item that can't be decoded, or on which a specialist raises, comes back with an error and without what this
    round made of it; the others of its batch are not touched by it. A RunError is no image's fault, and passes through.
    A duplicate keeps what came along with it, which may be another than its original's. `seconds` gains the time each
    part took. Filters decide nothing here: they say what stands for those who build upon it.
    """
    done: dict[bytes, Record] = {}
    samples: list[Sample] = []
    start = time.perf_counter()
    for record, before in zip(records, befores, strict=True):
        item = record.item
        if record.error or item.duplicate_of:
            done[item.item_id] = record
            continue
        try:
            image = open_image(item, ingest, downloads)
            hashed = replace(record, perceptual_hash=record.perceptual_hash or perceptual_hash(image))
            samples.append(Sample(image, hashed, filters, before))
        except ImageError as error:
            done[item.item_id] = quarantined(before, "decode", error.kind, error.message)
    start = _lap(seconds, "decode", start)
    for specialist in specialists:
        samples = _run(specialist, samples, done)
        start = _lap(seconds, specialist.name, start)
    done.update((sample.record.item.item_id, sample.record) for sample in samples)
    return [done[record.item.item_id] for record in records]


def settle(
    records: Sequence[Record], befores: Sequence[Record], filters: Sequence[Filter], seconds: dict[str, float]
) -> list[Record]:
    """`records`, in order, with what every filter decides; one on which a filter raises comes back with an error and
    without what this round made of it. What the round itself put in quarantine has nothing to decide on."""
    start = time.perf_counter()
    settled = [
        record if record.error and not record.item.error else _decided(record, filters, before)
        for record, before in zip(records, befores, strict=True)
    ]
    _lap(seconds, "filters", start)
    return settled


def _decided(record: Record, filters: Sequence[Filter], before: Record) -> Record:
    try:
        return decide(record, filters, before)
    except FilterFault as fault:  # a filter's fault on one record must not take its shard along
        return quarantined(before, fault.filter_name, "raised", str(fault))


def quarantined(before: Record, stage: str, kind: str, message: str) -> Record:
    """An item's record as it was when the round began, with an error for what would have been added."""
    # Messages may hold file names that are not valid Unicode, which Arrow turns down.
    message = message.encode(errors="replace").decode()
    return replace(before, error=ItemError(stage, kind, message[:1000]))


def open_image(item: Item, ingest: Ingest, downloads: Path | None = None) -> Image:
    """The pixels of an item; `downloads` is where images that were at URLs are kept.

    Raises ImageError, also of kind "changed": where it was is another file by now.
    """
    data = read(item.uri, max_bytes=ingest.max_bytes, downloads=downloads)
    if digest16(data) != item.content_id:
        raise ImageError("changed", f"{item.uri} is not the file that was ingested; ingest the image set again")
    return decode(data, max_pixels=ingest.max_pixels)


def _run(specialist: Specialist, samples: Sequence[Sample], done: dict[bytes, Record]) -> list[Sample]:
    """The samples with the specialist's annotations; those it fails on go to `done`, in quarantine."""
    if not samples:
        return []
    try:
        return _extended(specialist, samples)
    except RunError:
        raise
    except Exception as error:
        if len(samples) == 1:
            before = _before(samples[0])
            done[before.item.item_id] = quarantined(before, specialist.name, "raised", _reason(error))
            return []
        return [kept for sample in samples for kept in _run(specialist, [sample], done)]


def _before(sample: Sample) -> Record:
    return sample.before or Record(sample.record.item)


def _extended(specialist: Specialist, samples: Sequence[Sample]) -> list[Sample]:
    answers = [tuple(answer) for answer in specialist.annotate(samples)]
    if len(answers) != len(samples):
        raise RecordError(f"{specialist.name} gave {len(answers)} answers for {len(samples)} images")
    return [
        replace(sample, record=_with(sample.record, specialist, answer))
        for sample, answer in zip(samples, answers, strict=True)
    ]


def _with(record: Record, specialist: Specialist, answer: Sequence[AnyAnnotation | Decision]) -> Record:
    opinions = [_opinion(specialist, entry, record.round) for entry in answer if isinstance(entry, Decision)]
    annotations = [_signed(specialist, entry) for entry in answer if not isinstance(entry, Decision)]
    return record.append(annotations).decide(opinions)


def _signed(specialist: Specialist, annotation: AnyAnnotation) -> AnyAnnotation:
    if annotation.source != specialist.name:
        raise RecordError(
            f"annotation {annotation.id} of specialist {specialist.name!r} says its source is "
            f"{annotation.source!r}; a specialist signs with its own name"
        )
    return annotation


def _opinion(specialist: Specialist, decision: Decision, round_number: int) -> Decision:
    if decision.action != "keep" or decision.by != specialist.name:
        raise RecordError(
            f"specialist {specialist.name!r} gave a decision to {decision.action} {decision.annotation_id}, by "
            f"{decision.by!r}; a specialist has opinions: decisions to keep, signed with its own name"
        )
    return replace(decision, round=round_number)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _lap(seconds: dict[str, float], name: str, start: float) -> float:
    now = time.perf_counter()
    seconds[name] = seconds.get(name, 0.0) + now - start
    return now
