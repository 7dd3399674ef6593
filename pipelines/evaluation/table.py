"""An evaluation on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.untrusted import plain

AS_THEY_ARE = ("threshold",)
SHORT = {"constant": "const.", "threshold": "thresh.", "precision": "prec.", "end-to-end": "e2e", "detection": "det."}
NAMED = 20  # characters of a line that rows' names have
LONGEST = 40  # characters of a name that others gave
MOST = 12  # strata that are shown of a dimension; --json has all


def print_evaluation(told: Mapping[str, Any], console: Console) -> None:
    console.print(_safe(_head(told)), soft_wrap=True)
    for note in told["notes"]:
        console.print(_safe(f"! {note}", "yellow"), soft_wrap=True)
    for table in _tables(told, console.width):
        console.print(table)
    for line in _below(told):
        console.print(_safe(line), soft_wrap=True)
    if told["where"]:
        _print_where(told["where"], console)


def _head(told: Mapping[str, Any]) -> str:
    truth = told["truth"]
    how = ", ".join(f"{count} by {name}" for name, count in truth["matched"].items())
    line = f"{told['kind']}: {truth['images']} images of the set have truth ({how})"
    return line + (
        f"; {truth['strangers']['count']} images of the truth are not in the set" if truth["strangers"]["count"] else ""
    )


def _tables(told: Mapping[str, Any], width: int) -> Iterator[Table]:
    """Measures across, as many as fit; each word of their names is a line of its own, and numbers never wrap."""
    headers: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in told["rows"] for name in row["numbers"]):
        headers[name] = [SHORT.get(word, word) for word in name.split()]
    left = list(headers)
    while left:
        room, names = width - NAMED, list[str]()
        while left and (room := room - 1 - max(5, *map(len, headers[left[0]]))) >= 0:
            names.append(left.pop(0))
        names = names or [left.pop(0)]
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", min_width=NAMED)
        for name in names:
            table.add_column("\n".join(headers[name]), justify="right", no_wrap=True, min_width=5)
        for row in told["rows"]:
            table.add_row(_safe(row["name"]), *(_number(name, row["numbers"].get(name)) for name in names))
        yield table


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if name in AS_THEY_ARE else f"{100 * value:.1f}"


def _below(told: Mapping[str, Any]) -> Iterator[str]:
    yield "times 100, but for thresholds; -: nothing to measure, or no scores to rank by"
    for row in told["rows"]:
        unmapped = row.get("unmapped", {"share": None})
        about = [f"score: {row['score']}"] if row["score"] else []
        if unmapped["share"]:
            words = ", ".join(word[:LONGEST] for word in unmapped["first"])
            about.append(f"{unmapped['share']:.1%} of its labels have no class of the truth ({words})")
        if about:
            yield f"{row['name']}: {'; '.join(about)}"
    yield f"protocol: {told['protocol']}"


def _print_where(where: Mapping[str, Any], console: Console) -> None:
    for dimension, strata in where["best"].items():
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name, justify in ((dimension, "left"), ("things", "right"), ("best", "left"), (where["by"], "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for stratum, own in list(strata.items())[:MOST]:
            value = max(own["worth"].values(), default=0.0)
            best = ", ".join(own["best"]) or "none"
            table.add_row(
                _safe(stratum), f"{own['things']:,}", _safe(best), f"{100 * value:.1f}" if own["best"] else "-"
            )
        console.print(table)
        if len(strata) > MOST:
            console.print(f"and {len(strata) - MOST} more: --json", highlight=False)
    if where["thresholds"]:
        own = ", ".join(
            f"{one} {'none, by all' if least is None else f'{least:.3f}'}" for one, least in where["thresholds"].items()
        )
        console.print(_safe(f"each is judged by what it made from its own threshold on: {own}"), soft_wrap=True)
    for one, others in where["pairs"].items():
        told = ", ".join(f"{other} {count:,}" for other, count in others.items())
        if told:
            console.print(
                _safe(f"of {where['things']:,}, {one} is {where['how']} where these are not: {told}"), soft_wrap=True
            )


def _safe(text: str, style: str = "") -> Text:
    """What others wrote, without what terminals obey."""
    return Text(plain(text), style=style)
