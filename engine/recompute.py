"""A shard made again, where a source whose digest is the same is replayed from the old shard instead of computed.

Each source has a digest of all that its annotations depend on: its own code, weights and parameters, the decoder of
images, and, if it reads the record, the digests of the sources before it and of the filters. They lie in the metadata
of every annotation shard. Replaying appends, in the sources' order, what they said then, so that the result is the one
of computing all. What was in quarantine, or has no decisions any more, is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.annotate import look
from engine.atomic import is_there
from engine.config import Ingest
from engine.decide import Filter
from engine.errors import RecordError
from engine.layout import Output, ShardId
from engine.protocols import Sample, Specialist
from engine.records import AnyAnnotation, Decision, Record
from engine.storage import Tables, read_shard, shard_digests

DECODE = "decode"  # what stands among the sources for the decoder of images, on which all of them depend
Answer = tuple[AnyAnnotation | Decision, ...]


@dataclass(frozen=True)
class Known:
    """Of a shard that is made again: the round's part of the records that are of use, by image, and the sources whose
    digests are the same."""

    records: Mapping[bytes, Record] = field(default_factory=dict)
    sources: frozenset[str] = frozenset()

    def covers(self, record: Record, specialists: Iterable[Specialist]) -> bool:
        """Whether all that they would say of an image is known."""
        return record.item.item_id in self.records and all(one.name in self.sources for one in specialists)

    def answer(self, record: Record, source: str) -> Answer:
        """What a source said of an image then: its annotations, and its opinions."""
        old = self.records[record.item.item_id]
        annotations = (a for a in old.annotations() if a.source == source and a.id not in record.by_id)
        return (*annotations, *(decision for decision in old.decisions if decision.by == source))


NOTHING = Known()


def known_of(output: Output, number: int, shard: ShardId, sources: Mapping[str, str]) -> Known:
    """What round `number` knows of a shard, for a pipeline whose sources have these digests."""
    layer = output.round(number)
    if not is_there(layer.decisions(shard)) or not is_there(layer.annotations(shard)):
        return NOTHING
    _, there = shard_digests(layer.annotations(shard))
    if there.get(DECODE) != sources.get(DECODE):
        return NOTHING
    tables = read_shard(output, number, shard, merged=False)
    records = Tables(tables.items, tables.layers[-1:], tables.numbers[-1:]).records()
    # Without a hash it was a duplicate when it was annotated, or is one of the few images that have none.
    of_use = (r for r in records if r.error is None and (number or r.perceptual_hash is not None))
    return Known(
        {record.item.item_id: record for record in of_use},
        frozenset(name for name, digest in sources.items() if there.get(name) == digest),
    )


@dataclass
class Replayed:
    """A specialist that is asked only about images of which it is not known what it says."""

    name: str
    specialist: Specialist
    known: Known

    @property
    def licence(self) -> str:
        return self.specialist.licence

    @property
    def version(self) -> str:
        return self.specialist.version

    def setup(self) -> None:
        self.specialist.setup()

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation | Decision]]:
        unknown = [sample for sample in batch if not self.known.covers(sample.record, [self.specialist])]
        said = list(self.specialist.annotate(unknown)) if unknown else []
        if len(said) != len(unknown):
            raise RecordError(f"{self.name} gave {len(said)} answers for {len(unknown)} images")
        answers = {sample.record.item.item_id: answer for sample, answer in zip(unknown, said, strict=True)}
        return [
            answers[id_]
            if (id_ := sample.record.item.item_id) in answers
            else self.known.answer(sample.record, self.name)
            for sample in batch
        ]


def look_again(
    records: Sequence[Record],
    befores: Sequence[Record],
    specialists: Sequence[Specialist],
    filters: Sequence[Filter],
    ingest: Ingest,
    seconds: dict[str, float],
    downloads: Path | None,
    known: Known,
) -> list[Record]:
    """As `engine.annotate.look`, but what is known is replayed. No image is opened for which that is all."""
    kept = {
        r.item.item_id: _replayed(r, specialists, known)
        for r in records
        if _is_asked(r) and known.covers(r, specialists)
    }
    rest = [pair for pair in zip(records, befores, strict=True) if pair[0].item.item_id not in kept]
    again = (
        [Replayed(specialist.name, specialist, known) for specialist in specialists] if known.records else specialists
    )
    looked = look([r for r, _ in rest], [b for _, b in rest], again, filters, ingest, seconds, downloads)
    kept.update((record.item.item_id, record) for record in looked)
    return [kept[record.item.item_id] for record in records]


def needed(specialists: Sequence[Specialist], records: Iterable[Record], known: Known) -> list[Specialist]:
    """The specialists that are asked about one of the images at least."""
    asked = [record for record in records if _is_asked(record)]
    return [one for one in specialists if any(not known.covers(record, [one]) for record in asked)]


def looked_at(specialists: Sequence[Specialist], records: Iterable[Record], known: Known) -> dict[str, int]:
    """How many of the images each specialist is asked about, and how many are opened for that."""
    asked = [record for record in records if _is_asked(record)]
    by_all = {DECODE: specialists, **{one.name: [one] for one in specialists}}
    return {name: sum(not known.covers(record, some) for record in asked) for name, some in by_all.items()}


def _is_asked(record: Record) -> bool:
    return not record.error and not record.item.duplicate_of


def _replayed(record: Record, specialists: Sequence[Specialist], known: Known) -> Record:
    old = known.records[record.item.item_id]
    record = replace(record, perceptual_hash=record.perceptual_hash or old.perceptual_hash)
    for specialist in specialists:
        answer = known.answer(record, specialist.name)
        record = record.append(one for one in answer if not isinstance(one, Decision))
        record = record.decide(one for one in answer if isinstance(one, Decision))
    return record
