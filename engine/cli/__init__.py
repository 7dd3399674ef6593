"""The command line. It sits on top: the one part of `engine` that knows the pipelines.

All that is heavy is imported by `main`, once a Ctrl-C is heard: the first second is of imports. From then until a
command begins, a stop ends the process on the spot; in a command it is a KeyboardInterrupt.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

from engine import process

QUARANTINED, FAILED = 1, 3


def main() -> None:
    """The `engine` command."""
    process.is_command = True
    for stop in _heard():
        signal.signal(stop, _stopped)
    from engine.cli.commands import run

    code: Any = 0
    try:
        run()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:  # once the command has said all it had to
        code = process.STOPPED
    if code not in (None, 0, QUARANTINED):  # what has to be in order is; Ray's farewell may fail, and takes seconds
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed when we came
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def begin() -> None:
    """A stop of the command is an exception from here on: there is something to leave in order."""
    if process.is_command:
        sys.unraisablehook = process.unraisable
        for stop in _heard():
            signal.signal(stop, process.stop)


def _heard() -> list[signal.Signals]:
    return [stop for stop in process.STOPS if signal.getsignal(stop) != signal.SIG_IGN]  # as `nohup` has it


def _stopped(number: int, frame: object) -> None:
    """Before anything was begun. What is being imported may take an exception for one of its own."""
    os.write(2, b"Stopped.\n")
    os._exit(process.STOPPED)
