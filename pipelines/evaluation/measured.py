"""What a kind gives for one row of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.said import Said

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Measured:
    """`numbers` as `florence2.evaluation` has them. `score` says what kind of score they go by. `unmapped` are the
    labels that no class of the truth has, of `labels` in all."""

    numbers: Numbers
    counts: Mapping[str, int]
    protocol: str
    score: str = ""
    unmapped: Counter[str] = field(default_factory=Counter)
    labels: int = 0
    classes: Mapping[str, Numbers] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        share = sum(self.unmapped.values()) / self.labels if self.labels else None
        mapping = {"share": share, "first": [word for word, _ in self.unmapped.most_common(10)]}
        told = {"numbers": self.numbers, "score": self.score or None, "counts": dict(self.counts)}
        return (
            told | ({"unmapped": mapping} if self.labels else {}) | ({"classes": self.classes} if self.classes else {})
        )


@dataclass(frozen=True)
class Judged:
    """What each thing of the truth was worth to who was asked: 1 if it has it right, 0 if not, or a measure of its own.
    `surplus` is what it has besides, by dimension and stratum; None where that can't be said."""

    worth: npt.NDArray[np.float64]
    surplus: Mapping[str, Counter[str]] | None = None


class Kind(Protocol):
    """`reads` are columns of `engine.schema`; `mains` those tables by which sources are told apart, of regions those of
    a `region_kind` alone. What is found out on the way is in `notes`. `strata` has by dimension, such as "size", the
    stratum of each thing that is judged; `by` says what makes a source the best of one, and `judging` how that is found
    out. Where `measure` gives a "threshold", `judge` is asked about what the source made with that score or more."""

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def mains(self) -> tuple[str, ...]: ...

    @property
    def region_kind(self) -> str | None: ...

    @property
    def by(self) -> str: ...

    @property
    def judging(self) -> str: ...

    @property
    def notes(self) -> list[str]: ...

    @property
    def strata(self) -> Mapping[str, Sequence[str]]: ...

    def measure(self, found: Said, *, standing: bool) -> Measured: ...

    def judge(self, found: Said) -> Judged | None: ...
