"""Values from files that nobody vouches for: numbers that are none, and showing what came instead."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any

# Control characters, each as one that can be seen: HTML has no place for them, and terminals obey them.
UNSEEN = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD)
)


def printable(text: str) -> str:
    """A text with its control characters made visible, and what isn't Unicode replaced."""
    return text.translate(UNSEEN)


def shown(value: object) -> str:
    """A value that nobody vouches for, shortened, as it can be printed."""
    try:
        return reprlib.repr(value)
    except (ValueError, RecursionError):  # an int of more than 4300 digits
        return f"a {type(value).__name__}"


def numbers(values: Sequence[Any]) -> list[float] | None:
    """The values as floats; None if one is no finite number."""
    try:
        floats = [float(value) for value in values if isinstance(value, int | float)]
    except OverflowError:
        return None
    return floats if len(floats) == len(values) and all(map(math.isfinite, floats)) else None
