"""The rounds up to the one that is shown: whether each was accepted, why, and what it changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.dataset import Dataset
from engine.storage import read_json

MOST_CHANGES = 40


@dataclass(frozen=True)
class Judged:
    """One round. `changes` are rows of what changed, kind, source, reason and how often, the most frequent first."""

    number: int
    outcome: str
    reasons: list[str]
    images: int
    comparisons: list[dict[str, Any]]
    habits: list[tuple[str, float, float]]
    changes: list[tuple[str, str, str, str, int]]
    more_changes: int


def rounds(dataset: Dataset) -> list[Judged]:
    """Those that were judged."""
    paths = [dataset.output.round(number).manifest for number in range(1, dataset.round + 1)]
    return [_judged(read_json(path)) for path in paths if path.exists()]


def _judged(manifest: dict[str, Any]) -> Judged:
    verdict = manifest["verdict"]
    before, after = (verdict["habits"][key] for key in ("before", "after"))
    changes = sorted(_changes(manifest["diff"]), key=lambda row: -row[4])
    return Judged(
        manifest["round"],
        verdict["outcome"],
        verdict["reasons"],
        verdict["images"],
        verdict["comparisons"],
        [(name, before.get(name, 0.0), after.get(name, 0.0)) for name in {**before, **after}],
        changes[:MOST_CHANGES],
        len(changes[MOST_CHANGES:]),
    )


def _changes(diff: dict[str, Any]) -> Iterator[tuple[str, str, str, str, int]]:
    """Over all classes together."""
    counts: dict[tuple[str, str, str, str], int] = {}
    for change, kinds in diff.items():
        for kind, sources in kinds.items():
            for source, labels in sources.items():
                for reasons in labels.values():
                    for reason, count in reasons.items():
                        key = (change, kind, source, reason)
                        counts[key] = counts.get(key, 0) + count
    yield from ((*key, count) for key, count in counts.items())
