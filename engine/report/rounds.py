"""The rounds up to the one that is shown: what stands in each, whether it was accepted, why, and what it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.atomic import is_there, read_json
from engine.dataset import Dataset
from engine.report.curves import Scale, Tick
from engine.report.plots import Bar, bars
from engine.summary import count_round

MOST_CHANGES, MOST_TRACKS = 40, 12


@dataclass(frozen=True)
class Judged:
    """One round. `changes` are rows of what changed, kind, source, reason and how often, the most frequent first;
    `standing` is by kind."""

    number: int
    outcome: str
    reasons: list[str]
    images: int
    comparisons: list[dict[str, Any]]
    habits: list[tuple[str, float, float]]
    changes: list[tuple[str, str, str, str, int]]
    more_changes: int
    standing: dict[str, int]


@dataclass(frozen=True)
class Standing:
    """What stands of each kind, a bar a round."""

    rounds: list[int]
    kinds: list[tuple[str, tuple[Bar, ...]]]


@dataclass(frozen=True)
class Dot:
    """A measure of one round, in per cent of the plot, from above. `whisker` spans where it might lie, seen from the
    round before: that round's value with the bounds of the difference."""

    round: int
    outcome: str
    value: float
    x: float
    y: float
    whisker: tuple[float, float] | None


@dataclass(frozen=True)
class Track:
    """A measure over rounds; `line` is in a box of 100 by 100."""

    name: str
    dots: tuple[Dot, ...]
    line: str
    rows: tuple[Tick, ...]

    @property
    def said(self) -> str:
        """The plot in words, for those who can't see it."""
        return f"{self.name}: " + ", ".join(
            f"round {dot.round} {dot.value:.3f} {dot.outcome}".strip() for dot in self.dots
        )


def rounds(dataset: Dataset) -> list[Judged]:
    """Those that were judged."""
    paths = [dataset.output.round(number).manifest for number in range(1, dataset.round + 1)]
    return [_judged(read_json(path)) for path in paths if is_there(path)]


def standing(dataset: Dataset, judged: Sequence[Judged]) -> Standing:
    """Of the first round, which nobody judges, and of those that were."""
    first = _by_kind(count_round(dataset.output, 0, dataset.shards()))
    counts = [first, *(one.standing for one in judged)]
    kinds = dict.fromkeys(kind for count in counts for kind in count)
    rows = [(kind, [count.get(kind, 0) for count in counts]) for kind in kinds]
    return Standing(
        [0, *(one.number for one in judged)],
        [(kind.replace("_", " "), bars((kind, count, count) for count in row)) for kind, row in rows],
    )


def tracks(judged: Sequence[Judged]) -> list[Track]:
    """The measures over rounds; those of single classes are in the tables alone."""
    names = dict.fromkeys(row["name"] for one in judged for row in one.comparisons if "/" not in row["name"])
    return [track for name in names if (track := _track(name, judged))][:MOST_TRACKS]


@dataclass(frozen=True)
class _Point:
    round: int
    outcome: str
    value: float
    bounds: tuple[float, float] | None = None


def _track(name: str, judged: Sequence[Judged]) -> Track | None:
    points = list(_points(name, judged))
    if not points:
        return None
    values = [value for point in points for value in (point.value, *(point.bounds or ()))]
    scale, slots = Scale.over(min(values), max(values), 4), judged[-1].number + 1

    def height(value: float) -> float:
        return scale.tick(value).at

    dots = tuple(
        Dot(
            point.round,
            point.outcome,
            point.value,
            100 * (point.round + 0.5) / slots,
            height(point.value),
            (height(point.bounds[1]), height(point.bounds[0])) if point.bounds else None,
        )
        for point in points
    )
    line = "M" + "L".join(f"{dot.x:.2f} {dot.y:.2f}" for dot in (dots if len(dots) > 1 else dots * 2))
    return Track(name, dots, line, tuple(scale.tick(value) for value in scale.ticks()))


def _points(name: str, judged: Sequence[Judged]) -> Iterator[_Point]:
    begun = False
    for one in judged:
        row = next((row for row in one.comparisons if row["name"] == name), None)
        if row is None:
            continue
        before, after, interval = row["before"], row["after"], row["interval"]
        if not begun and before is not None:
            yield _Point(one.number - 1, "", before)
        if after is not None:
            begun = True
            known = interval is not None and before is not None
            bounds = (before + interval["low"], before + interval["high"]) if known else None
            yield _Point(one.number, one.outcome, after, bounds)


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
        _by_kind(manifest["counts"]),
    )


def _by_kind(counts: dict[str, Any]) -> dict[str, int]:
    """Of all sources together, parses left out: they are about texts, not about images."""
    found: Counter[str] = Counter()
    for kinds in counts["annotations"].values():
        found.update({kind: count["standing"] for kind, count in kinds.items() if kind != "parse"})
    return dict(sorted(found.items()))


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
