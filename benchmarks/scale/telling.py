"""Figures as tables in Markdown, and a plot in SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.scale.parts import Row

PANEL, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 320, 260, 55, 40, 40, 95
ROOM = 70  # between two numbers below
# Panel -> its unit, the figure of a row, and the parts that are drawn, with their colours.
DRAWN: dict[str, tuple[str, dict[str, str]]] = {
    "rss_mb": ("driver, MB", {"ingest": "#1f6feb", "annotate": "#1a7f37", "one shard to do": "#bf3989"}),
    "seconds": (
        "seconds",
        {"nothing to do": "#1f6feb", "status": "#8250df", "plan": "#bf3989", "verify": "#1a7f37", "regions": "#9a6700"},
    ),
}


def told(figures: Sequence[Row]) -> str:
    """A table of what goes by rows, one of workers and nodes, and one of the simulation, as far as they are there."""
    tables = [_by_rows(figures), _paced(figures), _simulated(figures)]
    return "\n\n".join(filter(None, tables))


def _by_rows(figures: Sequence[Row]) -> str:
    there = [row for row in figures if row["part"] not in ("workers", "nodes", "simulate", "bytes")]
    lines = (
        [row["part"], f"{row['rows']:,}", *_cost(row), _speed(row), f"{row['load']:.1f}"]
        for row in sorted(there, key=lambda row: (_order(there, row), row["rows"]))
    )
    return _table(["", "rows", "seconds", "RSS, MB", "USS, MB", "images/s", "load"], lines)


def _order(rows: Sequence[Row], row: Row) -> int:
    return list(dict.fromkeys(one["part"] for one in rows)).index(row["part"])


def _speed(row: Row) -> str:
    speed = row.get("images_per_second") or (row["images"] / row["seconds"] if "images" in row else None)
    return "" if speed is None else f"{speed:,.0f}"


def _paced(figures: Sequence[Row]) -> str:
    there = [row for row in figures if row["part"] in ("workers", "nodes")]
    pairs: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in there:
        speeds = pairs.setdefault((row["part"], row["by"]), {})
        speeds.setdefault(row[row["part"]], []).append(row["images_per_second"])
    lines = []
    for (part, by), speeds in pairs.items():
        ratios = [two / one for one, two in zip(speeds[1], speeds.get(2, []), strict=False)]
        shown = (", ".join(f"{speed:.1f}" for speed in speeds.get(count, [])) for count in (1, 2))
        lines.append([f"{part}, {by}", *shown, ", ".join(f"{ratio:.2f}" for ratio in ratios)])
    return _table(["", "1: images/s", "2: images/s", "ratio"], lines)


def _simulated(figures: Sequence[Row]) -> str:
    lines = (
        [row["what"], f"{row['rows']:,}", *_cost(row), f"{row['load']:.1f}"]
        for row in figures
        if row["part"] == "simulate"
    )
    return _table(["", "rows", "seconds", "RSS, MB", "USS, MB", "load"], lines)


def _cost(row: Row) -> list[str]:
    return [f"{row['seconds']:.1f}", f"{row['rss_mb']:.0f}", f"{row['uss_mb']:.0f}"]


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    body = ["| " + " | ".join(line) + " |" for line in lines]
    return (
        "\n".join(["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|", *body]) if body else ""
    )


def plot(figures: Sequence[Row], to: Path) -> None:
    """A panel of the driver's memory and one of seconds, by rows; both axes of the second are logarithmic."""
    width = len(DRAWN) * (PANEL + LEFT + RIGHT)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for n, (figure, (unit, colours)) in enumerate(DRAWN.items()):
        parts.append(f'<g transform="translate({n * (PANEL + LEFT + RIGHT)} 0)">')
        parts += _panel([row for row in figures if row["part"] in colours], figure, unit, colours)
        parts.append("</g>")
    to.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(rows: Sequence[Row], figure: str, unit: str, colours: dict[str, str]) -> Iterable[str]:
    across = sorted({row["rows"] for row in rows})
    logarithmic = figure == "seconds"
    ticks = [0.1, 1.0, 10.0, 100.0, 1000.0] if logarithmic else _ticks(max((row[figure] for row in rows), default=1))

    def x(count: int) -> float:
        span = math.log10(across[-1] / across[0]) or 1.0
        return LEFT + PANEL * math.log10(count / across[0]) / span

    def y(value: float) -> float:
        low, high = (math.log10(ticks[0]), math.log10(ticks[-1])) if logarithmic else (ticks[0], ticks[-1])
        at = math.log10(max(value, ticks[0])) if logarithmic else value
        return TOP + (1 - (at - low) / (high - low)) * (HEIGHT - TOP - BOTTOM)

    yield f'<text x="{LEFT}" y="{TOP - 18}">{unit}</text>'
    for tick in ticks:
        yield f'<path d="M{LEFT} {y(tick):.1f}H{LEFT + PANEL}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
    last = math.inf
    for count in reversed(across):  # the largest has its number, and of the others those that have room
        if last - x(count) > ROOM:
            last = x(count)
            yield f'<text x="{last:.1f}" y="{HEIGHT - 15}" text-anchor="middle">{count:,}</text>'
    lowest = -math.inf
    for name, points in sorted(_lines(rows, figure).items(), key=lambda line: y(line[1][-1][1])):
        path = "L".join(f"{x(count):.1f} {y(value):.1f}" for count, value in points)
        yield f'<path d="M{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>'
        lowest = max(y(points[-1][1]), lowest + 15)  # names must not lie upon each other
        yield f'<text x="{LEFT + PANEL + 8}" y="{lowest + 4:.1f}" fill="{colours[name]}">{name}</text>'


def _ticks(highest: float) -> list[float]:
    step = 10 ** math.floor(math.log10(highest))
    return [step * n for n in range(math.ceil(highest / step) + 1)]


def _lines(rows: Sequence[Row], figure: str) -> dict[str, list[tuple[int, float]]]:
    lines: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        lines.setdefault(row["part"], {}).setdefault(row["rows"], []).append(row[figure])
    return {name: [(n, min(values)) for n, values in sorted(points.items())] for name, points in lines.items()}
