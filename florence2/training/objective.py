"""What is minimised: the cross-entropy of the answers' tokens. A sum: the trainer divides it, once over all ranks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from florence2.locations import BINS
from florence2.model import IGNORED, Florence2
from florence2.training.batch import TASKS, Batch, Bucket
from florence2.training.start import first_location

AT_ONCE = 4096  # positions through the head where gradients are checkpointed: in base 0.8 GB of logits


class Objective(nn.Module):
    """A module of its own since DistributedDataParallel wants all of a loss in one forward."""

    def __init__(
        self, model: Florence2, bf16: bool = False, location_smoothing: float = 0.0, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.model, self.bf16, self.checkpointing = model, bf16, checkpointing
        self.smoothing = Smoothing(first_location(model), location_smoothing) if location_smoothing else None

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sum of all tokens' losses by their weights; and, without gradient, this sum for each of TASKS."""
        total, by_task = batch.weights.new_zeros(()), batch.weights.new_zeros(len(TASKS))
        for rows, losses in self.losses(batch):
            total = total + losses.sum()
            by_task = by_task.index_add(0, batch.task_of_row[rows], losses.detach())
        return total, by_task

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Bucket by bucket the counted tokens: their rows in the batch, and their losses by their weights."""
        with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.model.encode_image(batch.pixel_values)
            for bucket in batch.buckets:
                yield self.of_bucket(batch, bucket, features)

    def of_bucket(self, batch: Batch, bucket: Bucket, features: Tensor) -> tuple[Tensor, Tensor]:
        model, rows = self.model, slice(bucket.start, bucket.stop)
        own = features[batch.image_of_row[rows]]
        memory = model.encode(own, batch.input_ids[rows, : bucket.prompt], batch.attention_mask[rows, : bucket.prompt])
        labels, weights = batch.labels[rows, : bucket.answer], batch.weights[rows, : bucket.answer]
        hidden = model.decode(memory, model.shifted(labels))
        counted = (labels != IGNORED) & (weights > 0)  # logits are as wide as the vocabulary: no row of them in vain
        losses = self.cross_entropy(hidden[counted], labels[counted])
        return counted.nonzero()[:, 0] + bucket.start, losses * weights[counted]

    def cross_entropy(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Of states [n, d] and labels [n]: [n]."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return self.cross_entropy_at_once(hidden, labels)
        parts = zip(hidden.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
        return torch.cat([checkpoint(self.cross_entropy_at_once, *part, use_reentrant=False) for part in parts])

    def cross_entropy_at_once(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = self.model.head(hidden).float()
        if self.smoothing is None:
            return F.cross_entropy(logits, labels, reduction="none")
        return logits.logsumexp(-1) - self.smoothing(logits, labels)


class Smoothing(nn.Module):
    """Neighbouring locations count as nearly right: in the place of one bin a normal distribution around it.

    A hard target says that the bin next to it is as wrong as the other end of the image, and a model that knows
    nothing yet has nothing to follow. `deviation` is in bins; at the image's edge the distribution is cut.
    """

    def __init__(self, first: int, deviation: float) -> None:
        super().__init__()
        bins = torch.arange(BINS, dtype=torch.float32)
        shares = torch.softmax(-0.5 * ((bins[:, None] - bins) / deviation) ** 2, dim=1)
        self.first = first  # the id of <loc_0>
        self.register_buffer("shares", shares, persistent=False)
        self.shares: Tensor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[n, vocabulary] and [n] -> [n]: the labels' logits, for locations the mean of their neighbours'."""
        hits = logits.gather(1, labels[:, None])[:, 0]
        places = labels - self.first
        located = (places >= 0) & (places < BINS)
        around = logits[located, self.first : self.first + BINS]
        return hits.masked_scatter(located, (self.shares[places[located]] * around).sum(1))


def weights_and_tokens(batch: Batch) -> Tensor:
    """[2, TASKS] float64: the weights of each task's tokens, and how many have one."""
    counts = torch.stack([batch.weights.sum(1), (batch.weights > 0).sum(1)]).double()
    return counts.new_zeros(2, len(TASKS)).index_add(1, batch.task_of_row, counts)
