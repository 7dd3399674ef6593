"""An outcome for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

FRACTIONS = ("threshold",)  # numbers that nobody prints times 100


def table(outcome: Mapping[str, Any]) -> Iterator[str]:
    """Lines: what was measured on which model, the numbers beside the published ones, and how they were come by."""
    result, about, published = outcome["result"], outcome["about"], outcome["published"]
    yield f"{outcome['benchmark']}: {about['split']}, {part(about['limit'], about['images'])}, task {about['task']}"
    yield f"data {about['data']}"
    yield f"model {outcome['model']['path']} (weights {outcome['model']['digest'][:12]})"
    yield ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in outcome["decoding"].items())
    yield ""
    figures = published["figures"]
    names = [
        *result["numbers"],
        *dict.fromkeys(n for own in figures.values() for n in own if n not in result["numbers"]),
    ]
    rows = [[name, *(shown(name, own.get(name)) for own in (result["numbers"], *figures.values()))] for name in names]
    yield from aligned([*headings(["", "here", *figures]), *rows])
    yield ""
    others = [name for name in names if name in FRACTIONS]
    yield f"times 100{', but for ' * bool(others)}{', '.join(others)}; -: nothing to measure, or not published"
    yield published["note"]
    yield ", ".join(f"{name} {count}" for name, count in result["counts"].items())
    if outcome["missing"]:
        how = "left out" if outcome["skipped"] else "counted as wrong"
        images = min(about["limit"] or about["images"], about["images"])
        yield f"missing or unreadable: {len(outcome['missing'])} of {images} images, {how}"
    yield asked(outcome)
    yield f"protocol: {result['protocol']}"


def part(limit: int | None, images: int) -> str:
    return f"all {images} images" if limit is None or limit >= images else f"the first {limit} of {images} images"


def asked(outcome: Mapping[str, Any]) -> str:
    now, seconds, rate = outcome["asked"], outcome["seconds"], outcome["images_per_second"]
    how_fast = f", in {seconds:.1f} s ({rate:.3g} a second)" if now else ""
    before = f"; asked before {outcome['kept']} (--answers)" if outcome["kept"] else ""
    return f"images asked now {now}{how_fast}{before}"


def shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if name in FRACTIONS else f"{100 * value:.1f}"


def headings(names: Sequence[str]) -> list[list[str]]:
    """A line for each word, as a table with long names is too wide for a terminal; one word stands below."""
    words = [name.split()[::-1] for name in names]
    return [list(line) for line in zip_longest(*words, fillvalue="")][::-1]


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
