"""How the kit says that a rule is broken."""

from __future__ import annotations

from typing import NoReturn

LONGEST = 400  # characters of what came


def require(holds: object, rule: str, expected: str, came: object, remedy: str) -> None:
    """Raises AssertionError unless the rule holds."""
    if not holds:
        refuse(rule, expected, came, remedy)


def refuse(rule: str, expected: str, came: object, remedy: str, cause: Exception | None = None) -> NoReturn:
    raise AssertionError(f"{rule}: expected {expected}; got {shown(came)}. {remedy}.") from cause


def shown(came: object) -> str:
    """A sentence as it is, an exception with its type, anything else as Python writes it; not too long."""
    if isinstance(came, Exception):
        words = f"{type(came).__name__}: {came}"
    else:
        words = came if isinstance(came, str) else repr(came)
    # Lone surrogates can't be printed.
    words = words.encode(errors="backslashreplace").decode()
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."
