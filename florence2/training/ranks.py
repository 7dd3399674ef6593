"""The processes that train together, where torch.distributed is on; one alone, where it is not."""

from __future__ import annotations

from typing import Any

from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def together() -> bool:
    """Whether there are several."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    return distributed.get_rank() if together() else 0


def count() -> int:
    return distributed.get_world_size() if together() else 1


def summed(value: Tensor) -> Tensor:
    """Over all ranks. `value` itself is changed."""
    if together():
        distributed.all_reduce(value)
    return value


def gathered(value: Any) -> list[Any]:
    """One of each rank, in their order."""
    if not together():
        return [value]
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


def in_parallel(module: nn.Module) -> nn.Module:
    """The module, with gradients that are averaged over the ranks after a backward. All start with rank 0's weights.

    Parts that are frozen have no gradients and aren't looked for; all others take part in every forward.
    """
    if not together():
        return module
    return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)
