"""The benchmark's results as a table in Markdown, and as a plot by round in SVG."""

from __future__ import annotations

from collections.abc import Sequence
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
    "wrong labels repaired": "labels repaired",
    "wrong labels copied": "labels copied",
    "right if no fault": "right, if no fault",
    "right if missed": "if missed",
    "right if mislabelled": "if mislabelled",
    "right if too small": "if too small",
    "right if hidden": "if hidden",
    "right if renamed": "if renamed",
}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 300, 50, 20, 40
LINES = {"f1": "#1f6feb", "f1 small": "#8250df", "f1 rare": "#bf3989", "facts brief": "#1a7f37"}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Means over the seeds, with the standard deviation where there are several."""
    names = list(dict.fromkeys(name for one in results for name in one["rows"]))
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    for name in names:
        there = [one["rows"][name] for one in results if name in one["rows"]]
        lines.append(f"| {name} | " + " | ".join(_cell([row.get(key) for row in there]) for key in COLUMNS) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {stdev(known):.3f}" if len(known) > 1 else ""
    return f"{mean(known):.3f}{spread}"


def plot(results: Sequence[dict[str, Any]], to: Path) -> None:
    """Some columns by round: filtered is round 0. A dot for each seed, a line through the means."""
    rounds = ["filtered", *sorted({n for one in results for n in one["rows"] if n.startswith("round ")})]
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
        x, y = points[-1]
        parts.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}" fill="{colour}">{COLUMNS[key]}</text>')
    to.write_text("\n".join([*parts, "</svg>"]) + "\n")
