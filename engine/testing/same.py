"""Whether two answers are the same, up to the noise of floating point.

Ids and the component's name don't count, so that a component can be compared with itself under another name.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

import numpy as np

from engine.geometry import mask_iou
from engine.records import AnyAnnotation, Decision, Mask

Answer: TypeAlias = Sequence[AnyAnnotation | Decision]
LEAST_IOU = 0.99  # of two masks: a pixel on an edge may fall to either side
SIGNATURE = ("id", "source", "by")


@dataclass(frozen=True)
class Tolerance:
    """By how much scores (relative too, if above 1) and coordinates (pixels) may differ."""

    score: float
    pixel: float

    def allows(self, path: str, one: Any, other: Any) -> bool:
        """Whether two leaves of annotations, which stand at `path` in them, are the same."""
        if isinstance(one, Mask) and isinstance(other, Mask):
            return one.counts == other.counts or mask_iou(one, other) >= LEAST_IOU
        if isinstance(one, float | np.floating) and isinstance(other, float | np.floating):
            is_pixel = "box." in path or "quad." in path
            relative, absolute = (0.0, self.pixel) if is_pixel else (self.score, self.score)
            return math.isclose(one, other, rel_tol=relative, abs_tol=absolute)
        return bool(one == other)


def difference(one: Answer, other: Answer, tolerance: Tolerance, ordered: bool) -> str:
    """What one of the answers has and the other hasn't; empty if they are the same, `ordered` or in any order."""
    left = list(zip(other, map(dict, _all_leaves(other)), strict=True))
    for entry, ours in zip(one, map(dict, _all_leaves(one)), strict=True):
        places = range(len(left))[: 1 if ordered else None]
        place = next((n for n in places if _same(ours, left[n][1], tolerance)), None)
        if place is None:
            rival = f", but {left[0][0]!r}" if ordered and left else ""
            return f"once {entry!r}, once not{rival}"
        del left[place]
    return f"once {left[0][0]!r}, once not" if left else ""


def _same(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: Tolerance) -> bool:
    return one.keys() == other.keys() and all(tolerance.allows(path, one[path], other[path]) for path in one)


def _all_leaves(answer: Answer) -> Iterator[Iterator[tuple[str, Any]]]:
    own = {entry.id: entry for entry in answer if not isinstance(entry, Decision)}
    return (_leaves(entry, type(entry).__name__, own) for entry in answer)


def _leaves(value: Any, path: str, own: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What an annotation says, value by value; for an id of the same answer, in `own`, what that annotation says."""
    if isinstance(value, tuple):
        yield f"{path}.length", len(value)
        for place, one in enumerate(value):
            yield from _leaves(one, f"{path}.{place}", own)
    elif isinstance(value, str) and value in own:
        referred = own[value]
        yield from _leaves(
            referred, f"{path}.{type(referred).__name__}", {**own, value: None}
        )  # once: it may be a ring
    elif is_dataclass(value):
        for field in fields(value):
            if field.name == "counts":
                yield f"{path}.counts", value
            elif field.name not in SIGNATURE:
                yield from _leaves(getattr(value, field.name), f"{path}.{field.name}", own)
    else:
        yield path, value


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """With the global random numbers of Python, NumPy and, where it is loaded, PyTorch begun at `seed`; afterwards they
    go on as before."""
    torch: Any = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    if torch:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch:
            torch.set_rng_state(before[2])
