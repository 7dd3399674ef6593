"""What a measure gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Result:
    """`numbers` by their names, as fractions (CIDEr-D: 0 to 10); None where there was nothing to measure.

    `protocol` is how they were come by, for a reader. `counts` is of what; `classes` has the numbers of each class.
    """

    numbers: Numbers
    counts: dict[str, int]
    protocol: str
    classes: Mapping[str, Numbers] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def f_measure(right: int, found: int, there: int) -> Numbers:
    """Precision, recall and their harmonic mean, of `right` among `found` and of those that are `there`."""
    return {
        "precision": ratio(right, found),
        "recall": ratio(right, there),
        "F1": ratio(2 * right, found + there),
    }
