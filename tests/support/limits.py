"""How much memory something takes, and that it ends."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in what lasts longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def memory_of(call: Callable[..., Any], *args: Any) -> tuple[float, str]:
    """The megabytes that a call takes at most, in a process of its own, and what came of it: the error, or "done"."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_measured, args=(sender, call, args))
    process.start()
    sender.close()
    try:
        taken, told = receiver.recv()
    except EOFError:
        raise AssertionError(f"the process ended with {process.exitcode}") from None
    finally:
        process.join(60)
    return taken, told


def _measured(sender: Connection, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the highest use so far is forgotten
    before = _kilobytes("VmRSS")
    signal.alarm(120)
    try:
        call(*args)
        told = "done"
    except Exception as error:
        told = "".join(traceback.format_exception_only(error)).strip()
    sender.send(((_kilobytes("VmHWM") - before) / 1024, told))


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
