"""Examples as tensors. Rows of one image share its pixels, and rows of like length lie together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from florence2.config import Florence2Config
from florence2.errors import Florence2Error, ImageError, PromptError
from florence2.examples import Example
from florence2.model import IGNORED
from florence2.processor import Processor
from florence2.tasks import Form, Task
from florence2.tokens import Tokens

WORTH = 500  # padded positions that one more bucket must spare
OTHER = "OTHER"  # prompts of a fine-tuned checkpoint have no task
TASKS: tuple[str, ...] = (
    *(task.value for task in Task),
    OTHER,
)  # the order in which losses are counted, the same on every rank


@dataclass(frozen=True)
class Row:
    """One example as token ids, <s> and </s> among them.

    `weights` of the loss, one for each id of the answer (None: ones). With 0 there is no loss, but the decoder reads
    the token all the same: an object that was made up as noise.
    """

    task: str
    prompt: list[int]
    answer: list[int]
    weights: list[float] | None = None

    def __post_init__(self) -> None:
        if not self.prompt or not self.answer:
            raise Florence2Error(f"expected a prompt and an answer with <s> and </s>, got {self!r:.200}")
        if self.weights is None:
            return
        if len(self.weights) != len(self.answer) or not all(0 <= weight < inf for weight in self.weights):
            raise Florence2Error(
                f"{self.task}: expected a weight >= 0 for each of {len(self.answer)} tokens, got {self.weights!r:.200}"
            )


def tokenise(example: Example, tokens: Tokens, eos_weight: float = 1.0) -> Row:
    """An example's row. `eos_weight` is for the </s> of lists: below 1, a list that ends early is learnt less."""
    prompt = example.prompt
    ids, places = tokens.encode_with_places(example.answer)
    silent = [any(overlap(place, span) for span in example.silent) for place in places]
    end = 1.0 if prompt.form is Form.TEXT else eos_weight
    weights = [1.0, *(0.0 if quiet else 1.0 for quiet in silent), end]
    plain = all(weight == 1 for weight in weights)
    answer = [tokens.bos, *ids, tokens.eos]
    return Row(prompt.task or OTHER, tokens.sentence(prompt.text), answer, None if plain else weights)


def overlap(place: tuple[int, int], span: tuple[int, int]) -> bool:
    """Whether a token's characters and a span's meet. A token of white space alone has none: its start counts."""
    start, stop = place
    return start < span[1] and max(stop, start + 1) > span[0]


class Bucket(NamedTuple):
    """Rows [start, stop) of a batch, whose prompts and answers are no longer than this."""

    start: int
    stop: int
    prompt: int
    answer: int


@dataclass
class Batch:
    """I images and R rows, the longest answers first."""

    pixel_values: Tensor  # [I, 3, H, W] float32, normalised
    image_of_row: Tensor  # [R]
    input_ids: Tensor  # [R, L], and which of them are no pads:
    attention_mask: Tensor  # [R, L]
    labels: Tensor  # [R, T], pads are -100
    weights: Tensor  # [R, T] float32, pads are 0
    task_of_row: Tensor  # [R], places in TASKS
    tasks: tuple[str, ...]  # R
    image_ids: tuple[str, ...]  # I
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(
        cls, images: Sequence[Tensor], rows: Sequence[Sequence[Row]], ids: Sequence[str], processor: Processor
    ) -> Batch:
        """Of `images` [3, H, W] at the processor's size, uint8 or float from 0 to 1, and the rows of each.

        An image without rows is left out. ImageError and PromptError, with the image's id, for a size that is not the
        processor's and for a row that is longer than the model's positions.
        """
        if not len(images) == len(rows) == len(ids):
            raise Florence2Error(f"expected rows and an id for each of {len(images)} images: {len(rows)}, {len(ids)}")
        used = [n for n in range(len(images)) if rows[n]]
        placed = [(place, row) for place, n in enumerate(used) for row in rows[n]]
        placed.sort(key=lambda entry: (len(entry[1].answer), len(entry[1].prompt)), reverse=True)
        for place, row in placed:
            check_length(row, ids[used[place]], processor)
        ordered = [row for _, row in placed]
        prompts = padded([row.prompt for row in ordered], processor.tokens.pad)
        tasks = tuple(str(row.task) if row.task in TASKS else OTHER for row in ordered)
        return cls(
            pixel_values=normalised([(images[n], ids[n]) for n in used], processor),
            image_of_row=torch.tensor([place for place, _ in placed], dtype=torch.int64),
            input_ids=prompts,
            attention_mask=padded([[1] * len(row.prompt) for row in ordered], 0),
            labels=padded([row.answer for row in ordered], IGNORED),
            weights=padded([row.weights or [1.0] * len(row.answer) for row in ordered], 0.0),
            task_of_row=torch.tensor([TASKS.index(task) for task in tasks], dtype=torch.int64),
            tasks=tasks,
            image_ids=tuple(ids[n] for n in used),
            buckets=tuple(bucketed(ordered)),
        )

    @classmethod
    def blank(cls, config: Florence2Config) -> Batch:
        """One dark image and an answer without weight: gradients of zero, for a rank that has no image in a step."""
        text, side = config.text, 2 * config.vision.stride
        one = torch.ones(1, 2, dtype=torch.int64)
        return cls(
            pixel_values=torch.zeros(1, config.vision.in_channels, side, side),
            image_of_row=torch.zeros(1, dtype=torch.int64),
            input_ids=one * text.eos_token_id,
            attention_mask=one,
            labels=one * text.eos_token_id,
            weights=torch.zeros(1, 2),
            task_of_row=torch.tensor([TASKS.index(OTHER)]),
            tasks=(OTHER,),
            image_ids=(),
            buckets=(Bucket(0, 1, 2, 2),),
        )

    def __len__(self) -> int:
        """Rows."""
        return len(self.tasks)

    def to(self, device: torch.device | str) -> Batch:
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


def check_length(row: Row, image_id: str, processor: Processor) -> None:
    limits = ("prompt", row.prompt, processor.max_prompt_tokens), ("answer", row.answer, processor.positions)
    for name, ids, limit in limits:
        if limit is not None and len(ids) > limit:
            raise PromptError(
                f"image {image_id}, {row.task}: expected at most {limit} tokens of {name}, got {len(ids)}"
            )


def padded(rows: Sequence[Sequence[Any]], pad: Any) -> Tensor:
    """[R, longest], int64 or float32."""
    longest = max(map(len, rows), default=0)
    dtype = torch.float32 if isinstance(pad, float) else torch.int64
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], dtype=dtype).view(len(rows), longest)


def normalised(images: Sequence[tuple[Tensor, str]], processor: Processor) -> Tensor:
    """[I, 3, H, W] float32 of images with their ids."""
    shape = (3, *processor.size)
    for image, image_id in images:
        if image.shape != shape or not (image.dtype is torch.uint8 or image.is_floating_point()):
            got = f"{image.dtype} {tuple(image.shape)}"
            raise ImageError(f"image {image_id}: expected uint8 or float {shape} (channels, height, width), got {got}")
    mean, std = torch.tensor([processor.mean, processor.std])[..., None, None]
    unit = [image * (1 / 255) if image.dtype is torch.uint8 else image.float() for image, _ in images]
    return (torch.stack(unit) - mean) / std if unit else torch.empty(0, *shape)


def bucketed(rows: Sequence[Row], start: int = 0) -> Iterator[Bucket]:
    """Rows in their order, the longest answer first, cut in two where that spares most padding, and each part again."""
    longest, stop = len(rows[0].answer) if rows else 0, start + len(rows)
    spared = [(len(rows) - n) * (longest - len(row.answer)) for n, row in enumerate(rows)]
    if rows and max(spared) > WORTH:
        place = spared.index(max(spared))
        yield from bucketed(rows[:place], start)
        yield from bucketed(rows[place:], start + place)
    elif rows:
        yield Bucket(start, stop, max(len(row.prompt) for row in rows), longest)
