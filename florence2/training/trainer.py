"""One step of training after the other, and their state on disk. Whoever drives it chooses the batches.

The loss of a step is one mean over all tokens of all ranks and micro-batches, so that neither their number nor where
the images went changes it: the tokens are counted, and the counts summed over the ranks, before the first backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from florence2.errors import ConfigError, Florence2Error, NonFiniteLoss
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.training import ranks, state
from florence2.training.batch import TASKS, Batch
from florence2.training.lora import Lora, adapt, adapters, base, within
from florence2.training.objective import Objective, weights_and_tokens
from florence2.training.optimiser import AdamW
from florence2.training.recipe import PARTS, Recipe

__all__ = ["Lora", "Recipe", "StepReport", "TaskLoss", "Trainer"]


class TaskLoss(NamedTuple):
    loss: float  # the mean over the tokens by their weights
    tokens: int  # with a weight


@dataclass(frozen=True)
class StepReport:
    """One step, over all ranks and micro-batches: the loss before it, `grad_norm` before clipping."""

    step: int  # from 1
    loss: float
    losses: dict[str, TaskLoss]  # by task
    grad_norm: float
    learning_rate: float
    images: int
    tokens: int


class Trainer:
    """Trains `model` in place. With torch.distributed on, every rank makes one and calls each method with its share.

    With `processor` its files are saved with the model, and a state of another tokenizer is refused. Florence2Error
    for weights that are not float32: smaller steps than bf16 can hold would be lost. ConfigError for a model that has
    adapters already.
    """

    def __init__(
        self, model: Florence2, recipe: Recipe, device: torch.device | str = "cpu", processor: Processor | None = None
    ) -> None:
        if model.dtype is not torch.float32:
            raise Florence2Error(
                f"expected weights in float32 to train, got {model.dtype}: load the model without dtype"
            )
        if adapters(model):
            raise ConfigError(
                "expected a model without adapters: load the weights that it was trained from, or saved to"
            )
        self.model, self.recipe, self.processor = model.to(device), recipe, processor
        self.done = 0  # steps
        self.frozen = [PARTS[part] for part in recipe.freeze]
        for name, parameter in model.named_parameters():  # an earlier trainer may have frozen others
            parameter.requires_grad_(not within(name, self.frozen))
        if recipe.lora is not None:
            with seeded(model.device, recipe.seed, "adapters"):
                adapt(model, recipe.lora, self.frozen)
        model.checkpoint_gradients(recipe.checkpoint_gradients)
        self.optimiser = AdamW(model, recipe)
        again = recipe.checkpoint_gradients
        self.objective = Objective(model, recipe.precision == "bf16", recipe.location_smoothing, again)
        self.parallel = ranks.in_parallel(self.objective)

    @cached_property
    def start(self) -> str | None:
        """With LoRA the digest of the weights that it started from, which never change."""
        return state.digest(base(self.model)) if self.recipe.lora else None

    def step(self, micro_batches: Sequence[Batch]) -> StepReport:
        """ONE step of the optimiser over all of them. A rank may have fewer than others, or none.

        NonFiniteLoss on every rank if one has such a loss or gradient; Florence2Error if no rank has a token to learn.
        """
        batches = [batch for batch in micro_batches if len(batch)]
        counts = self.counted(batches)
        weights, tokens = counts[:-1].view(2, -1)
        if not weights.sum() > 0:
            raise Florence2Error(f"step {self.done + 1}: expected answers with tokens to learn, got none on any rank")
        self.learn_mode()
        with seeded(self.model.device, self.recipe.seed, self.done, ranks.rank()):
            sums = self.backward(batches or [Batch.blank(self.model.config)], weights.sum())
        norm = clip_grad_norm_(self.optimiser.parameters.values(), self.recipe.clip_norm)
        if not (sums.sum() + norm).isfinite():
            self.optimiser.clear()
            raise self.non_finite(batches)
        rate = self.recipe.rate(self.done)
        self.optimiser.step(rate)
        self.optimiser.clear()
        self.done += 1
        loss, total = float(sums.sum() / weights.sum()), int(tokens.sum())
        return StepReport(self.done, loss, by_task(sums, weights, tokens), float(norm), rate, int(counts[-1]), total)

    def counted(self, batches: Iterable[Batch]) -> Tensor:
        """Over all ranks: the weights of each task's tokens, how many they are, and the number of images."""
        counts = torch.zeros(2 * len(TASKS) + 1, dtype=torch.float64, device=self.model.device)
        for batch in batches:
            counts[:-1] += weights_and_tokens(batch).flatten().to(counts.device)
            counts[-1] += len(batch.image_ids)
        return ranks.summed(counts)

    def backward(self, batches: Sequence[Batch], weight: Tensor) -> Tensor:
        """Leaves the gradients of the mean loss; the sums of the losses by task, over all ranks."""
        scale = (ranks.count() / weight).float()  # the ranks' gradients are averaged
        sums = torch.zeros(len(TASKS), dtype=torch.float64, device=self.model.device)
        for n, batch in enumerate(batches, start=1):
            last = n == len(batches)
            with nullcontext() if last or not ranks.together() else self.parallel.no_sync():
                loss, by_task = self.parallel(batch.to(self.model.device))
                (loss * scale).backward()
            sums += by_task
        return ranks.summed(sums)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, TaskLoss]:
        """The losses of batches that teach nothing, by task, over all ranks: without dropout and smoothing."""
        self.model.eval()
        objective = Objective(self.model, self.objective.bf16)
        counts = torch.zeros(3, len(TASKS), dtype=torch.float64, device=self.model.device)
        for batch in batches:
            moved = batch.to(self.model.device)
            counts[0] += objective(moved)[1]
            counts[1:] += weights_and_tokens(moved)
        return by_task(*ranks.summed(counts))

    def learn_mode(self) -> None:
        """Training, but for the frozen parts; also after somebody has asked the model."""
        self.model.train()
        for part in self.frozen:
            self.model.get_submodule(part).eval()

    @torch.no_grad()
    def non_finite(self, batches: Sequence[Batch]) -> NonFiniteLoss:
        """Looks for the images whose answers alone have such a loss, on this rank; then all say what they have."""
        self.model.eval()
        suspects: list[str] = []
        for batch in (batch.to(self.model.device) for batch in batches):
            for rows, losses in self.objective.losses(batch):
                found = batch.image_of_row[rows[~losses.isfinite()]]
                suspects += [batch.image_ids[place] for place in found.unique().tolist()]
        own = [image_id for batch in batches for image_id in batch.image_ids]
        everywhere = zip(*ranks.gathered((own, suspects)), strict=True)
        image_ids, named = (tuple(dict.fromkeys(chain.from_iterable(part))) for part in everywhere)
        return NonFiniteLoss(self.done + 1, image_ids, named)

    def save(self, folder: str | Path, extra: Mapping[str, Any] | None = None) -> None:
        """A whole model, and what going on needs; see state.py. On one rank: all have the same."""
        state.save(self, Path(folder), dict(extra or {}))

    def restore(self, folder: str | Path) -> dict[str, Any]:
        """Goes on where `save` was called, on every rank with the same folder; gives back its `extra`.

        CheckpointError for a state of another recipe, configuration, tokenizer or start, or a damaged one; nothing has
        changed then.
        """
        return state.restore(self, Path(folder))


def by_task(sums: Tensor, weights: Tensor, tokens: Tensor) -> dict[str, TaskLoss]:
    rows = zip(TASKS, sums.tolist(), weights.tolist(), tokens.tolist(), strict=True)
    return {task: TaskLoss(loss / weight, int(count)) for task, loss, weight, count in rows if weight > 0}


@contextmanager
def seeded(device: torch.device, *what: object) -> Iterator[None]:
    """Random numbers that depend on `what` alone; those outside go on as if nothing had been drawn.

    With the step in it no generator's state need be saved.
    """
    seed = int.from_bytes(sha256(repr(what).encode()).digest()[:8], "big")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
