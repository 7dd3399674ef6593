"""Every error of the engine's own, in one tree.

EngineError
├── ConfigError      wrong usage or configuration (exit code 2)
├── OutputError      an output folder that can't be used: another configuration's, in use, no run's (exit code 2)
├── RunError         a run that can't go on: no space, too few resources, workers that keep ending (exit code 3)
│   ├── CutShort     and whose reason may be gone: the same again goes on
│   └── StoreAway    a store that does not answer, or fails, however often it is asked
├── RecordError      an annotation that contradicts its record (a specialist's or filter's fault)
└── ImageError       an image that can't be used; its item is quarantined under `kind`

A message says what was expected, what came, which thing, and what to do.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class EngineError(Exception):
    """Something went wrong that the engine can explain."""

    exit_code: ClassVar[int] = 3


class ConfigError(EngineError):
    """Wrong usage or configuration, found before anything heavy starts."""

    exit_code = 2


class RecordError(EngineError):
    """An annotation or decision that contradicts the record it is for."""


class ImageError(EngineError):
    """An image that can't be used. `kind` is a word one can group by."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


class OutputError(EngineError):
    """An output folder that can't be used."""

    exit_code = 2


class RunError(EngineError):
    """A run that can't go on."""


class CutShort(RunError):
    """Something outside ended a run: what is done is safe, and the same again goes on."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. What is done is safe; run the same again to go on")
        self.what = what

    def __reduce__(self) -> tuple[type[CutShort], tuple[str]]:
        """Or its words would come twice."""
        return type(self), (self.what,)


class StoreAway(RunError):
    """A store did not answer, or failed, in all of several attempts: a minute or more."""


def is_no_space(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that a disk or quota is full."""
    return _says(error, errno.ENOSPC, errno.EDQUOT)


def is_forbidden(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that a disk is read-only, or a file or folder not ours to change."""
    return _says(error, errno.EROFS, errno.EACCES, errno.EPERM)


def unwritable(error: BaseException, where: object) -> str:
    """The sentence for it if a disk is full or read-only, by what `error`, or what caused it, says; or ""."""
    if is_no_space(error):
        return f"no space left in {where}. What is done is safe; make room and run the same again"
    if _says(error, errno.EROFS):
        return (
            f"{where} can't be written: its disk is read-only. What is done is safe; mend that and run the same again"
        )
    return ""


def _says(error: BaseException, *numbers: int) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in numbers:
            return True
        seen = seen.__cause__
    return False
