"""From a round's shards to rows that the model can learn: read, decoded, augmented and tokenised by tasks of Ray.

Workers ask for picks; tasks, on whatever machine has time, answer with prepared images. Nothing passes through the
driver. What an image gives depends on the seed and its place in the stream alone, so that a training that was stopped
goes on as if it had not been.

Ray Data would do the same, but its scheduler is a thread of whoever consumes, and does not sleep while it waits for
him: it held Python's lock 92 % of the time, and a step of a small model took 2.7 times as long.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from PIL import Image

from engine.annotate import open_image
from engine.config import Ingest
from engine.errors import ImageError, OutputError
from engine.folds import Folds
from engine.layout import Output, ShardId
from engine.records import Record
from engine.runner.tasks import DEATHS
from engine.storage import Tables, read_items, read_shard
from engine.watchdog import within
from florence2.errors import Florence2Error
from florence2.processor import Processor, resized
from florence2.scene import Scene
from florence2.targets import Example, fit
from florence2.training.batch import Row, tokenise
from pipelines.scenes import scene_of
from pipelines.training.crew import data_cpus
from pipelines.training.picks import AT_A_TIME, Pick
from pipelines.training.settings import ReadyPhase

CHUNK_BYTES = 8 * 2**20  # of pixels in a task's answer: enough to make the task worth it, few enough to be kept ready
STEPS_AHEAD = 8  # what is kept ready


@dataclass(frozen=True)
class Source:
    """What is read, and which of it: a fold's model learns from no image of that fold and from none held out."""

    output: Output
    round: int
    ingest: Ingest
    folds: Folds
    fold: int | None  # None: of all folds
    held_out: float
    item_seconds: float  # that an image may take until it is prepared
    seen: Mapping[str, frozenset[str]] = field(default_factory=dict)  # source -> the labels that it has in the round

    def scene(self, record: Record, phase: ReadyPhase) -> Scene:
        """What a phase learns of a record."""
        exhaustive = {
            name: self.seen.get(name, frozenset()) if classes is None else classes
            for name, classes in phase.exhaustive.items()
        }
        return scene_of(
            record,
            exclude_sources=phase.exclude,
            text_sources=phase.config.texts_from,
            exhaustive_sources=exhaustive,
        )

    def learns(self, record: Record) -> bool:
        fold = self.folds.of(record.item)
        return self._usable(record) and fold != self.fold and not self.folds.held_out(record.item, self.held_out)

    def judges(self, record: Record) -> bool:
        return self._usable(record) and self.folds.held_out(record.item, self.held_out)

    def _usable(self, record: Record) -> bool:
        """Withheld images are neither learned nor held out: they are for the judgement of whole rounds."""
        item, folds = record.item, self.folds
        return not record.error and not item.duplicate_of and folds.chosen(item) and not folds.is_withheld(item)


@dataclass(frozen=True)
class Prepared:
    """One image ready to be learned: uint8 [height, width, 3], and the examples drawn for it."""

    place: int
    item_id: bytes
    pixels: npt.NDArray[np.uint8]
    rows: tuple[Row, ...]
    cut: int  # regions of its answers that were left out, for their length


@dataclass(frozen=True)
class Unprepared:
    """One image that can't be learned, and why."""

    place: int
    item_id: bytes
    message: str


@dataclass(frozen=True)
class Passed:
    """All picks up to here were looked at."""

    place: int


@dataclass(frozen=True)
class Preparation:
    """How images become rows: for training with augmentation, for judging without."""

    source: Source
    phase: ReadyPhase
    processor: Processor
    seed: int
    max_answer: int  # ids that an answer may have
    judging: bool = False

    @property
    def chunk(self) -> int:
        height, width = self.processor.size
        return max(1, min(64, CHUNK_BYTES // (height * width * 3)))

    def chunk_of(self, picks: list[Pick]) -> Iterator[Prepared | Unprepared]:
        """What the picks give, in their order; nothing for those that are not learned or say nothing."""
        for pick in picks:
            try:
                record = self.record(pick)
                with within(self.source.item_seconds):
                    made = self.prepared(record, pick) if record else None
                if made:
                    yield made
            except OutputError as error:
                yield Unprepared(pick.place, b"", str(error))

    def record(self, pick: Pick) -> Record | None:
        source = self.source
        (record,) = _tables(source.output, source.round, pick.shard).records([pick.row])
        return record if (source.judges if self.judging else source.learns)(record) else None

    def prepared(self, record: Record, pick: Pick) -> Prepared | Unprepared | None:
        """None if nothing that the phase wants is known of the image."""
        item, phase = record.item, self.phase
        rng = random.Random(f"{self.seed} {pick.epoch} {item.item_id.hex()}")
        scene = self.source.scene(record, phase)
        if not phase.mix.weights(list(phase.targets.kinds(scene, rng))):
            return None
        try:
            image: npt.NDArray[np.uint8] = open_image(item, self.source.ingest, self.source.output.downloads)
            if not self.judging:
                image, scene = phase.augment(image, scene, rng)
            drawn = phase.mix.draw(scene, phase.targets, phase.config.tasks_per_image, rng)
            height, width = self.processor.size
            pixels = resized(Image.fromarray(image), 0, (width, height), self.processor.resample)
        except (ImageError, Florence2Error) as error:
            return Unprepared(pick.place, item.item_id, f"{item.uri}: {error}")
        rows, cut = self.rows(drawn)
        return Prepared(pick.place, item.item_id, pixels, rows, cut) if rows else None

    def rows(self, examples: Sequence[Example]) -> tuple[tuple[Row, ...], int]:
        """Tokenised, and how much of them was left out for its length: regions, ends of texts, whole long questions."""
        rows, left_out, tokens = [], 0, self.processor.tokens
        for whole in examples:
            example, cut = fit(whole, tokens, self.max_answer)
            row = tokenise(example, tokens, self.phase.config.eos_weight)
            asked = len(row.prompt) <= (self.processor.max_prompt_tokens or len(row.prompt))
            left_out += cut if asked else 1
            if asked and (example.answer or not cut):  # what nothing is left of would say that nothing is there
                rows.append(row)
        return tuple(rows), left_out


def stream(
    preparation: Preparation, chunks: Iterable[list[Pick]], share: float
) -> Generator[Prepared | Unprepared | Passed, None, None]:
    """What the chunks of picks give, in their order, some steps ahead; in `share` of the object store at most."""
    readers, ahead = Readers(preparation), chunks_ahead(preparation, share)
    waiting: deque[tuple[list[Pick], Any]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, readers.ask(chunk)))
            if len(waiting) > ahead:
                yield from readers.answer(*waiting.popleft())
        while waiting:
            yield from readers.answer(*waiting.popleft())
    finally:
        for _, task in waiting:
            ray.cancel(task)


class Readers:
    """The tasks that prepare images, and what becomes of those that a picture kills."""

    def __init__(self, preparation: Preparation) -> None:
        options = {"num_cpus": data_cpus(), "max_retries": 1, "scheduling_strategy": "DEFAULT"}
        self.prepare = ray.remote(**options)(_prepared)
        self.preparation = preparation
        self.known = [ray.put(preparation)]
        self.deadly: set[tuple[ShardId, int]] = set()

    def ask(self, chunk: list[Pick]) -> Any:
        harmless = [pick for pick in chunk if (pick.shard, pick.row) not in self.deadly]
        return self.prepare.remote(self.known, harmless, chunk[-1].place)

    def answer(self, chunk: list[Pick], task: Any) -> Iterator[Prepared | Unprepared | Passed]:
        try:
            yield from ray.get(task)
        except DEATHS:
            for pick in chunk:
                yield from self.alone(pick)
            yield Passed(chunk[-1].place)

    def alone(self, pick: Pick) -> list[Prepared | Unprepared | Passed]:
        """What one pick gives, where it may be the one that kills."""
        try:
            told: list[Prepared | Unprepared | Passed] = ray.get(self.ask([pick]))
        except DEATHS as error:
            self.deadly.add((pick.shard, pick.row))
            item = read_items(self.preparation.source.output, pick.shard)[pick.row]
            limit = f"or takes longer than {self.preparation.source.item_seconds:g} s"
            why = f"{item.uri}: whoever reads it dies, {limit} ({type(error).__name__})"
            told = [Unprepared(pick.place, item.item_id, why)]
        return told


def _prepared(known: list[Any], picks: list[Pick], last: int) -> list[Prepared | Unprepared | Passed]:
    """`known` is a reference to the preparation, in a list: Ray would bring it anew for each task otherwise."""
    return [*_fetched(known[0]).chunk_of(picks), Passed(last)]


@lru_cache(maxsize=2)
def _fetched(preparation: Any) -> Preparation:
    """Kept by each of Ray's processes: a tokenizer takes longer to unpack than an image to prepare."""
    there: Preparation = ray.get(preparation)
    return there


def chunks_ahead(preparation: Preparation, share: float) -> int:
    """How many are kept ready: some steps' worth, as far as the object store has room. No more: what prepares them
    would take from the model the time that it needs itself."""
    room = share * ray.cluster_resources().get("object_store_memory", 2**28)
    wanted = STEPS_AHEAD * preparation.phase.config.images_per_step / preparation.chunk
    return max(1, min(ceil(wanted), int(room / CHUNK_BYTES)))


@lru_cache(maxsize=2 * AT_A_TIME)
def _tables(output: Output, round_number: int, shard: ShardId) -> Tables:
    """Kept by each of Ray's processes: neighbouring picks come from the same few shards."""
    return read_shard(output, round_number, shard)
