"""A dataset's examples as a torch IterableDataset: for whoever trains a Florence-2, ours or transformers', in a loop of
their own.

    examples = open_dataset("out").to_torch(task=["OD", "CAPTION"], processor=processor, split="train")
    for batch in DataLoader(examples, batch_size=8, num_workers=2, collate_fn=examples.collate): ...

Ours learns from a batch by `model.loss(model.encode_image(batch["pixel_values"]), batch["input_ids"],
batch["attention_mask"], batch["labels"])`, transformers' by `model(**batch).loss`.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, Protocol

import torch
import torch.distributed
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from engine.annotate import open_image
from engine.contamination import contaminated
from engine.dataset import Dataset
from engine.errors import ConfigError, ImageError, RunError
from engine.export.split import Splits, splits_of
from engine.layout import ShardId
from engine.records import Item, Record
from engine.storage import read_shard
from florence2.errors import Florence2Error
from florence2.examples import Example, fit
from florence2.model import IGNORED
from florence2.processor import Processor
from florence2.tasks import Task
from pipelines.lessons import lessons_of

PIECES = (
    4  # that each worker gets at least, where there are so few shards that these are cut: they are of like size then
)
SHARES = {"train": 0.9, "val": 0.1}
POSITIONS = 1024  # of the released models, where nobody says
Missing = Literal["skip", "stop"]
Piece = tuple[ShardId, int, int]  # every n-th row of a shard, from a row on: shard, row, n


class Asking(Protocol):
    """A processor of images, prompts and answers, whoever's."""

    @property
    def size(self) -> int:
        """Of what the model sees: the longer side in pixels."""

    @property
    def most(self) -> tuple[int, int]:
        """Ids that a prompt and an answer may have."""

    @property
    def pad(self) -> int: ...

    def sentence(self, text: str, /) -> list[int]: ...

    def encode(self, text: str, /) -> list[int]: ...

    def tensors(self, image: Image.Image, prompt: str, /) -> dict[str, torch.Tensor]: ...


class TorchDataset(IterableDataset[dict[str, Any]]):  # type: ignore[misc]
    """All examples of some tasks, an image's shuffled among those of others.

    Without a processor a sample is {"image": upright PIL image, "task", "prompt", "target", "item_id"}; with one it has
    besides the strings "pixel_values", "input_ids", "attention_mask" and "labels", which `collate` pads and stacks.
    `processor` is a `florence2.Processor` or transformers' Florence2Processor. `split` is one of `shares`, in which an
    image is as in an export with the same shares. `seed` orders; None is the order of the set. `missing` says what
    becomes of images whose bytes are gone: left out, with a warning at the end, or RunError.

    Workers of a DataLoader and ranks of torch.distributed each get their part of the set, together all of it, once.
    Parts differ in length, so ranks that step together should count steps, not epochs. ConfigError for what can't be.
    """

    def __init__(
        self,
        dataset: Dataset,
        task: str | Sequence[str] = "OD",
        processor: Any = None,
        *,
        split: str | None = None,
        shares: Mapping[str, float] = SHARES,
        seed: int | None = 0,
        buffer: int = 1000,
        missing: Missing = "skip",
    ) -> None:
        super().__init__()
        try:
            self.tasks = [Task.of(name) for name in ([task] if isinstance(task, str) else task)]
        except Florence2Error as error:
            raise ConfigError(f"to_torch: {error}") from error
        if split is not None and split not in shares:
            raise ConfigError(f"to_torch: expected a split of {', '.join(shares)}; got {split!r}")
        if missing not in ("skip", "stop") or buffer < 1 or not self.tasks:
            raise ConfigError("to_torch: expected a task, a buffer of 1 at least, and missing 'skip' or 'stop'")
        self.dataset, self.split, self.seed, self.buffer, self.missing = dataset, split, seed, buffer, missing
        self.asking = asking(processor)
        self.lessons = lessons_of(dataset.output, dataset.round)
        if self.asking:
            self.lessons = self.lessons.at(self.asking.size)
        self.splits = splits_of(dataset, shares) if split else Splits()
        self.ranks = ranks()
        self._contaminated = contaminated(dataset.output)
        # In memory that a DataLoader's workers share, who live longer than an epoch if they are persistent.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Another order. Each epoch has its own; the same number gives the same one."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        left_out: Counter[str] = Counter()
        examples = self._shuffled(self._examples())
        for item, example in examples:
            try:
                if (sample := self._sample(item, example, left_out)) is not None:
                    yield sample
            except ImageError as error:
                if self.missing == "stop":
                    raise RunError(f"image {item.item_id.hex()}: {error}. Or leave it out: missing='skip'") from error
                left_out[f"whose image is {error.kind}"] += 1
        if left_out:
            told = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
            warnings.warn(f"examples left out: {told}", stacklevel=2)

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch of tensors: pixels [B, 3, H, W]; ids and their mask [B, L]; labels [B, T], -100 behind an answer.
        Without a processor, lists."""
        if self.asking is None:
            return {name: [sample[name] for sample in samples] for name in samples[0]}
        fills = {"input_ids": self.asking.pad, "attention_mask": 0, "labels": IGNORED}
        rows = {name: [sample[name] for sample in samples] for name in fills}
        padded = {
            name: torch.nn.utils.rnn.pad_sequence(rows[name], batch_first=True, padding_value=fill)
            for name, fill in fills.items()
        }
        return {"pixel_values": torch.stack([sample["pixel_values"] for sample in samples]), **padded}

    # What is read, and by whom

    def _pieces(self) -> list[Piece]:
        """What this worker of this rank reads, in the order of the epoch."""
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        rank, all_ranks = self.ranks if self.ranks[1] > 1 else ranks()
        number, count = rank * count + number, all_ranks * count
        shards = self.dataset.shards()
        cuts = 1 if count == 1 else ceil(PIECES * count / max(1, len(shards)))
        pieces = [(shard, start, cuts) for shard in shards for start in range(cuts)]
        if self.seed is not None:
            random.Random(f"{self.seed} {int(self._epoch)}").shuffle(pieces)
        return pieces[number::count]

    def _examples(self) -> Iterator[tuple[Item, Example]]:
        for shard, start, step in self._pieces():
            tables = read_shard(self.dataset.output, self.dataset.round, shard)
            rows = range(start, len(tables.items), step)
            for record in tables.records(rows) if rows else ():
                if self._usable(record):
                    scene = self.lessons.view(record).scene()
                    seed = f"{self.seed} {int(self._epoch)} {record.item.item_id.hex()}"
                    for example in self.lessons.examples(scene, self.tasks, seed):
                        yield record.item, example

    def _usable(self, record: Record) -> bool:
        item = record.item
        if record.error or item.error or item.duplicate_of or item.content_id is None:
            return False
        if item.item_id in self._contaminated:
            return False
        return self.split is None or self.splits.of(item.content_id.hex()) == self.split

    def _shuffled(self, examples: Iterable[tuple[Item, Example]]) -> Iterator[tuple[Item, Example]]:
        """Each changes places with one of those that wait."""
        if self.seed is None:
            yield from examples
            return
        rng, waiting = random.Random(f"{self.seed} {int(self._epoch)} waiting"), list[tuple[Item, Example]]()
        for example in examples:
            if len(waiting) < self.buffer:
                waiting.append(example)
                continue
            place = rng.randrange(self.buffer)
            yield waiting[place]
            waiting[place] = example
        rng.shuffle(waiting)
        yield from waiting

    # Samples

    def _sample(self, item: Item, example: Example, left_out: Counter[str]) -> dict[str, Any] | None:
        """None for one that is too long for the model."""
        labels: list[int] = []
        if self.asking:
            most_asked, most_said = self.asking.most
            example, cut = fit(example, self.asking, most_said)
            if len(self.asking.sentence(example.prompt.text)) > most_asked or (cut and not example.answer):
                left_out["that are too long"] += 1
                return None
            labels = self.asking.sentence(example.answer)
        image = Image.fromarray(open_image(item, self.lessons.ingest, self.dataset.output.downloads))
        said = {"task": example.task.value, "prompt": example.prompt.text, "target": example.answer}
        strings = {**said, "item_id": item.item_id.hex()}
        if self.asking is None:
            return {"image": image, **strings}
        return {**strings, **self.asking.tensors(image, example.prompt.text), "labels": torch.tensor(labels)}


def ranks() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def asking(processor: Any) -> Asking | None:
    """A processor as a dataset asks it. ConfigError for what is none of Florence-2's."""
    if processor is None:
        return None
    if isinstance(processor, Processor):
        return Ours(processor)
    if hasattr(processor, "tokenizer") and hasattr(processor, "num_image_tokens"):
        return Theirs(processor)
    raise ConfigError(
        "to_torch: expected a florence2.Processor or transformers' Florence2Processor; got "
        f"{type(processor).__module__}.{type(processor).__name__}"
    )


@dataclass(frozen=True)
class Ours:
    processor: Processor

    @property
    def size(self) -> int:
        return max(self.processor.size)

    @property
    def most(self) -> tuple[int, int]:
        positions = self.processor.positions or POSITIONS
        return positions - self.processor.image_tokens, positions

    @property
    def pad(self) -> int:
        return self.processor.tokens.pad

    def sentence(self, text: str) -> list[int]:
        return self.processor.tokens.sentence(text)

    def encode(self, text: str) -> list[int]:
        return self.processor.tokens.encode(text)

    def tensors(self, image: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
        ids = torch.tensor(self.sentence(prompt))
        pixels = self.processor.images([image])[0]
        return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


@dataclass(frozen=True)
class Theirs:
    """transformers' processor. The prompt goes past its own reading of tasks: a caption in it may say "<OD>"."""

    processor: Any

    @property
    def size(self) -> int:
        size = self.processor.image_processor.size
        return int(max(size["height"], size["width"]))

    @property
    def most(self) -> tuple[int, int]:
        most = min(self.processor.tokenizer.model_max_length, POSITIONS)
        return most - self.processor.num_image_tokens, most

    @property
    def pad(self) -> int:
        pad: int = self.processor.tokenizer.pad_token_id
        return pad

    def sentence(self, text: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        return [tokenizer.bos_token_id, *self.encode(text), tokenizer.eos_token_id]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def tensors(self, image: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
        """The image's tokens come first, as the processor itself puts them."""
        image_ids = [self.processor.image_token_id] * self.processor.num_image_tokens
        ids = torch.tensor([*image_ids, *self.sentence(prompt)])
        pixels = self.processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
