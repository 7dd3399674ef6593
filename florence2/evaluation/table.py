"""An outcome for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FRACTIONS = ("threshold",)  # numbers that nobody prints times 100


def table(outcome: Mapping[str, Any]) -> Iterator[str]:
    """Lines: what was measured on which model, the numbers beside the published ones, and how they were come by."""
    result, about, published = outcome["result"], outcome["about"], outcome["published"]
    yield f"{outcome['benchmark']}: {about['split']} of {about['data']}, {about['task']}"
    yield f"model {outcome['model']['path']} (weights {outcome['model']['digest'][:12]})"
    yield ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in outcome["decoding"].items())
    yield ""
    figures = published["figures"]
    names = [
        *result["numbers"],
        *dict.fromkeys(n for own in figures.values() for n in own if n not in result["numbers"]),
    ]
    rows = [["", "here", *figures]]
    for name in names:
        rows.append([name, *(shown(name, own.get(name)) for own in (result["numbers"], *figures.values()))])
    yield from aligned(rows)
    yield ""
    yield ", ".join(f"{count} {name}" for name, count in result["counts"].items())
    if outcome["missing"]:
        how = "left out" if outcome["skipped"] else "counted as wrong"
        yield f"{len(outcome['missing'])} images missing or unreadable, {how}"
    yield f"{outcome['seconds']:.1f} s for {outcome['asked']} images ({outcome['images_per_second']:.3g} a second)"
    yield f"times 100, but for {FRACTIONS[0]}. {published['note']}"
    yield f"protocol: {result['protocol']}"


def shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if name in FRACTIONS else f"{100 * value:.1f}"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
