"""COCO's run lengths as text, taken apart: pycocotools trusts what it gets, and they may come from anywhere."""

from __future__ import annotations


def runs_of(counts: bytes) -> list[int]:
    """The runs in COCO's string: 5 bits a character, the lowest first; from the fourth run on they are differences from
    the run before the last (maskApi.c, rleFrString). ValueError for what is no such string."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("no run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("run lengths that end early")
    return runs
