"""Values from files that nobody vouches for: numbers that are none, and showing what came instead."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any

# Characters of what a set says: a label, or the name of a set or licence, which one line of a list may say of each of a
# million images; any other text; and where an image is, a member of a tar in a path, say, each of 4096 bytes.
LONGEST_NAME, LONGEST_TEXT, LONGEST_URI = 1000, 1 << 17, 1 << 15

# Control characters, each as one that can be seen: HTML has no place for them, and terminals obey them.
UNSEEN = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD)
)
TURNING = dict.fromkeys([0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)  # the direction


def printable(text: str) -> str:
    """A text with its control characters made visible, and what isn't Unicode replaced."""
    return text.translate(UNSEEN)


def plain(text: str) -> str:
    """A text for a terminal: without what that obeys, control characters and marks that turn the direction round."""
    return printable(text).translate(TURNING)


def shown(value: object) -> str:
    """A value that nobody vouches for, shortened, as it can be printed."""
    try:
        return reprlib.repr(value)
    except (ValueError, RecursionError):  # an int of more than 4300 digits
        return f"a {type(value).__name__}"


def some(things: Sequence[object], most: int = 3) -> str:
    """The first of a list, and how many more there are."""
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(map(str, things[:most])) + more


def too_long(text: str, most: int) -> str:
    """What is wrong with a text of more than `most` characters; "" if nothing is."""
    return f"a text of {len(text):,} characters, more than {most:,}" if len(text) > most else ""


def numbers(values: Sequence[Any]) -> list[float] | None:
    """The values as floats; None if one is no finite number."""
    try:
        floats = [float(value) for value in values if isinstance(value, int | float)]
    except OverflowError:
        return None
    return floats if len(floats) == len(values) and all(map(math.isfinite, floats)) else None
