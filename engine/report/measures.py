"""What is counted over a whole dataset, in one pass that reads shard by shard and opens no image."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from engine.dataset import Dataset
from engine.records import DETAILS, Decision, Detail, ItemError, Parse, Record, Text
from engine.report.pictures import is_composed
from engine.schema import ANNOTATION_COLUMNS
from engine.storage import ShardId, read_records

MOST_QUARANTINED = 200  # that the page lists
COUNTED = tuple(column for column in ANNOTATION_COLUMNS if column != "masks")  # the heaviest, and nothing here is of it
SCORE_BINS = 20
MEASURES = ("objects", "attributes", "actions", "proper_nouns", "object_complexity", "action_complexity")

# FLD-5B's texts (Florence-2, tables 2 and 3): tokens, then MEASURES.
PUBLISHED: dict[Detail, tuple[float, ...]] = {
    "brief": (7.95, 3.23, 2.80, 0.58, 1.10, 2.80, 1.14),
    "detailed": (31.65, 13.31, 7.27, 4.21, 2.40, 4.00, 3.63),
    "more_detailed": (70.53, 28.06, 16.25, 8.76, 2.41, 4.02, 4.38),
}


@dataclass
class Semantics:
    """Sums over standing texts of one kind, and over those of them that have a parse."""

    texts: int = 0
    words: int = 0
    parsed: int = 0
    sums: Counter[str] = field(default_factory=Counter)

    def add(self, text: Text, parse: Parse | None) -> None:
        self.texts += 1
        self.words += len(text.text.split())
        if parse is not None:
            self.parsed += 1
            self.sums.update({measure: getattr(parse, measure) for measure in MEASURES})

    @property
    def means(self) -> tuple[float | None, ...]:
        """Words, then MEASURES; None where no text has a parse."""
        parsed = [self.sums[measure] / self.parsed if self.parsed else None for measure in MEASURES]
        return (self.words / self.texts if self.texts else None, *parsed)


@dataclass
class Scores:
    """How often each twentieth of 0..1 was scored, made and standing, and what the scores were held against."""

    made: Counter[int] = field(default_factory=Counter)
    standing: Counter[int] = field(default_factory=Counter)
    outside: int = 0
    thresholds: set[float] = field(default_factory=set)

    def add(self, score: float, fallen: Decision | None) -> None:
        if fallen and fallen.value == score and fallen.threshold is not None:
            self.thresholds.add(fallen.threshold)
        if not 0 <= score <= 1:
            self.outside += 1
            return
        bin_ = min(int(score * SCORE_BINS), SCORE_BINS - 1)
        self.made[bin_] += 1
        if not fallen:
            self.standing[bin_] += 1


@dataclass
class Measures:
    """The counts that the columns alone don't give (see `engine.summary.count_round` for those that they do)."""

    images: int = 0
    duplicates: int = 0
    annotated: int = 0
    quarantined: int = 0
    quarantine: list[tuple[str, ItemError]] = field(default_factory=list)
    licences: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    regions: Counter[int] = field(default_factory=Counter)
    lengths: dict[Detail, Counter[int]] = field(default_factory=lambda: {detail: Counter() for detail in DETAILS})
    scores: dict[tuple[str, str], Scores] = field(default_factory=lambda: defaultdict(Scores))
    semantics: dict[tuple[Detail, bool], Semantics] = field(default_factory=lambda: defaultdict(Semantics))
    pictures: dict[ShardId, int] = field(default_factory=dict)  # how many of a shard's records can have a card

    def add(self, record: Record) -> None:
        self.images += 1
        self.licences[record.item.dataset or "", record.item.licence or ""] += 1
        if error := record.error or record.item.error:
            self.quarantined += 1
            if len(self.quarantine) < MOST_QUARANTINED:
                self.quarantine.append((record.item.uri, error))
        elif record.item.duplicate_of:
            self.duplicates += 1
        else:
            self.annotated += 1
            self._add_regions(record)
            self._add_texts(record)

    def _add_regions(self, record: Record) -> None:
        falls = {d.annotation_id: d for d in reversed(record.decisions) if d.annotation_id in record.fallen}
        for region in record.regions:
            if (score := region.score) is not None:
                self.scores[region.source, region.kind].add(score, falls.get(region.id))
        standing = [region for region in record.standing.regions if region.kind != "proposal"]
        self.regions[len(standing)] += 1
        self.labels.update(
            region.label or region.raw_label or "without label" for region in standing if region.kind == "object"
        )

    def _add_texts(self, record: Record) -> None:
        parses = {parse.text_id: parse for parse in record.standing.parses}
        for text in record.standing.texts:
            self.lengths[text.detail][len(text.text.split())] += 1
            self.semantics[text.detail, is_composed(text, record)].add(text, parses.get(text.id))


def measure(dataset: Dataset) -> Measures:
    measures = Measures()
    for shard in dataset.shards():
        records = read_records(dataset.output, dataset.round, shard, columns=COUNTED)
        for record in records:
            measures.add(record)
        measures.pictures[shard] = sum(has_card(record) for record in records)
    return measures


def has_card(record: Record) -> bool:
    """Whether a record is one of those that cards are chosen from: a copy has no annotations, and what could not be
    read has no picture."""
    return record.item.duplicate_of is None and record.item.error is None
