"""Whether this process is a command, which ends with what it does, or a program that goes on after that; and how a
command is stopped."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a batch system's stop, and a closed terminal, are as Ctrl-C
STOPPED = 130  # the code, as shells have it for SIGINT
STOP_SECONDS = 8
AGAIN_SECONDS = 0.02
is_command = False  # `engine.cli.main` says so
is_stopped = False  # somebody asked for it
is_ours = False  # the next stop: whoever interrupts the main thread for a reason that is told in the end says so


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """Handles the signal of a stop: KeyboardInterrupt. A command that is still there STOP_SECONDS after somebody asked
    for it, since a store that does not answer is asked for something or told of the end, ends as if it were killed."""
    global is_stopped
    if is_command and not is_ours and not is_stopped:
        is_stopped = True
        signal.signal(signal.SIGALRM, _end)
        signal.alarm(STOP_SECONDS)
    raise KeyboardInterrupt(number)


def unraisable(what: UnraisableHookArgs) -> None:
    """Python's hook for what nobody can catch. A stop that fell into a finalizer or a callback, where Python drops
    what is raised and goes on, comes again a moment later."""
    dropped, number = what.exc_value, None
    if isinstance(dropped, KeyboardInterrupt) and dropped.args:
        number = dropped.args[0]
    elif isinstance(dropped, SystemExit) and dropped.code == signal.SIGTERM:  # the stop of Ray's handler
        number = signal.SIGTERM
    if number in STOPS:
        later = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        later.daemon = True
        later.start()
    else:
        sys.__unraisablehook__(what)


def _end(number: int, frame: FrameType | None) -> None:
    said = f"Stopped, without what did not end within {STOP_SECONDS} s. What is done is safe; to go on: {again()}\n"
    os.write(2, os.fsencode(said))
    os._exit(STOPPED)


def again() -> str:
    """The command by which what was stopped goes on."""
    return shlex.join(["engine", *(word for word in sys.argv[1:] if word != "--overwrite")])
