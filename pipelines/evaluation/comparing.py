"""Who is right, where: the best source of each class, size and length, and how often one is right where another is
not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.evaluation.measured import Judged


def compared(strata: Mapping[str, Sequence[str]], judged: Mapping[str, Judged]) -> dict[str, Any]:
    """By dimension and stratum how many things there are, what each source is worth there and which is the best; and
    `pairs`: of how many things is one source's worth greater than another's."""
    return {
        "things": len(next(iter(judged.values())).worth) if judged else 0,
        "best": {dimension: _best(dimension, values, judged) for dimension, values in strata.items()},
        "pairs": {
            one: {other: int((judged[one].worth > judged[other].worth).sum()) for other in judged if other != one}
            for one in judged
        },
    }


def _best(dimension: str, values: Sequence[str], judged: Mapping[str, Judged]) -> dict[str, Any]:
    names, codes = np.unique(np.array(values, dtype=object).astype(str), return_inverse=True)
    things = np.bincount(codes, minlength=len(names))
    worth = {source: _worth(names, codes, things, dimension, one) for source, one in judged.items()}
    told = {}
    for at in np.argsort(-things, kind="stable").tolist():
        own = {source: float(values[at]) for source, values in worth.items()}
        most = max(own.values(), default=0.0)
        best = [source for source, value in own.items() if value == most] if most > 0 else []
        told[str(names[at])] = {"things": int(things[at]), "best": best, "worth": own}
    return told


def _worth(names: Any, codes: Any, things: Any, dimension: str, judged: Judged) -> Any:
    """Of each stratum F1 where it is known what is too much, else the mean."""
    right = np.bincount(codes, judged.worth, len(names))
    if judged.surplus is None:
        return right / things
    surplus = np.array([judged.surplus[dimension][str(name)] for name in names])
    return 2 * right / (things + right + surplus)
