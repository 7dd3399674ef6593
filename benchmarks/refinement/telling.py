"""The benchmark's results as a table in Markdown, and as a plot by round in SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

COLUMNS = {
    "f1": "F1",
    "boxes": "boxes",
    "ap": "AP",
    "f1 common": "F1 common",
    "f1 rare": "F1 rare",
    "f1 large": "F1 large",
    "f1 small": "F1 small",
    "mask iou": "mask IoU",
    "facts brief": "facts, brief",
    "facts more_detailed": "facts, long",
    "cider brief": "CIDEr-D, brief",
    "grounding": "grounding",
    "character errors": "character errors",
    "regions an image": "regions",
    "entropy of classes": "entropy",
    "doubles": "doubles",
    "calibration error": "calibration error",
}
# What became of the objects that the first detector was wrong about, of its boxes and labels, and of what is read.
FAULTS = {
    "right if missed": "missed",
    "right if mislabelled": "mislabelled",
    "right if too small": "too small",
    "right if hidden": "half hidden",
    "right if renamed": "always renamed",
    "right if no fault": "right",
    "too far right and below": "boxes off",
    "confused letters right": "confused letters",
    "other letters right": "other letters",
    "wrong labels repaired": "labels repaired",
    "wrong labels copied": "labels copied",
}
FUSION = "fusion, no training"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 300, 50, 20, 40
LINES = {"f1": "#1f6feb", "f1 small": "#8250df", "f1 rare": "#bf3989", "facts brief": "#1a7f37"}


def table(results: Sequence[dict[str, Any]], columns: Mapping[str, str] = COLUMNS) -> str:
    """Means over the seeds, with the standard deviation where there are several."""
    names = list(dict.fromkeys(name for one in results for name in one["rows"]))
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---|" + "---|" * len(columns)]
    for name in names:
        there = [one["rows"][name] for one in results if name in one["rows"]]
        lines.append(f"| {name} | " + " | ".join(_cell([row.get(key) for row in there]) for key in columns) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    digits = 0 if all(isinstance(value, int) for value in known) else 3
    spread = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{spread}"


def plot(results: Sequence[dict[str, Any]], to: Path) -> None:
    """Some columns by round: filtered is round 0. A dot for each seed, a line through the means; dashed what fusion
    without training has."""
    names = {name for one in results for name in one["rows"]}
    rounds = ["filtered", *sorted(name for name in names if name.removeprefix("round ").isdigit())]
    step = (WIDTH - LEFT - 170) / max(len(rounds) - 1, 1)

    def at(n: int, value: float) -> tuple[float, float]:
        return LEFT + n * step, TOP + (1 - value) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for tenth in range(0, 11, 2):
        _, y = at(0, tenth / 10)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 170}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for n, name in enumerate(rounds):
        parts.append(f'<text x="{at(n, 0)[0]:.1f}" y="{HEIGHT - 15}" text-anchor="middle">{name}</text>')
    ends: list[tuple[float, str]] = []
    for key, colour in LINES.items():
        points = []
        for n, name in enumerate(rounds):
            values = [one["rows"][name][key] for one in results if name in one["rows"]]
            points.append(at(n, mean(values)))
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" opacity="0.5"/>'
                for x, y in (at(n, value) for value in values)
            ]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        ends.append((points[-1][1], key))
        fused = [one["rows"][FUSION][key] for one in results if FUSION in one["rows"]]
        if fused:
            _, y = at(0, mean(fused))
            parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 170}" stroke="{colour}" stroke-dasharray="3 5"/>')
    lowest = -math.inf
    for y, key in sorted(ends):
        lowest = max(y, lowest + 15)  # names must not lie upon each other
        parts.append(f'<text x="{WIDTH - 160}" y="{lowest + 4:.1f}" fill="{LINES[key]}">{COLUMNS[key]}</text>')
    if FUSION in names:
        parts.append(f'<text x="{WIDTH - 160}" y="{TOP + 4}" fill="#666">dashed: {FUSION}</text>')
    to.write_text("\n".join([*parts, "</svg>"]) + "\n")
