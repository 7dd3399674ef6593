"""Ray's own process on this machine, the raylet: when it ends, the run ends too, at once and in order.

Ray itself would wait for it, or end this process with code 1 and without a word.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from engine import process

LOOK_SECONDS = 0.1
STOP_SECONDS = 2.0  # within which we hear of a stop, too, that was meant for all processes of a run
RAYLET, AGENT = "raylet", "agent"
ASKED = "was told to end"
PARENT = "RAY_RAYLET_PID"  # by which Ray's processes know whose end is theirs


@contextmanager
def our_own_parent() -> Iterator[None]:
    """While Ray starts. It looks at our parent otherwise, and ends us without a word if that is gone. It gives its own
    processes one of theirs; what we start later is to have none of us."""
    before = os.environ.get(PARENT)
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        if before is None:
            del os.environ[PARENT]
        else:
            os.environ[PARENT] = before


class Lifeline(threading.Thread):
    """Waits for the end of the raylet that this process starts next, and interrupts the main thread by SIGTERM. How it
    ended is in `end`, which is empty until then, and for an end that was asked for."""

    def __init__(self) -> None:
        super().__init__(name="lifeline", daemon=True)
        self.end = ""
        self.raylet = 0
        self._others = {child.pid for child in psutil.Process().children()}
        self._let_go = threading.Event()

    def start(self) -> None:
        if threading.current_thread() is threading.main_thread():  # another one can't be interrupted
            super().start()

    def run(self) -> None:
        while not self._let_go.wait(LOOK_SECONDS):
            self.raylet = self.raylet or self._found()
            end = _end_of(self.raylet) if self.raylet else ""
            if not end or (end == ASKED and self._let_go.wait(STOP_SECONDS)):
                continue
            self.end, process.is_ours = end, True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            return

    def let_go(self) -> None:
        """Ray may end from now on."""
        self._let_go.set()
        if self.is_alive():
            self.join()
        if self.raylet and not self.end and (end := _end_of(self.raylet)) != ASKED:  # of this very moment
            self.end = end

    def end_workers(self) -> None:
        """Ends the workers that the raylet has started; of what it has left behind, those that can still be told to be
        its own. Its agents end with it, and it with them: then Ray would end this process, too."""
        if not self.raylet:
            return
        with suppress(psutil.Error):
            for worker in psutil.Process(self.raylet).children():
                with suppress(psutil.Error):
                    if AGENT not in " ".join(worker.cmdline()).lower():
                        worker.kill()
        for worker in psutil.process_iter() if self.end else ():
            with suppress(psutil.Error, OSError):
                if worker.environ().get(PARENT) == str(self.raylet):
                    worker.kill()

    def _found(self) -> int:
        """The raylet that was started since; 0 if none was."""
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.pid not in self._others and child.name() == RAYLET:
                    return child.pid
        return 0


def _end_of(child: int) -> str:
    """How it ended, in words; "" while it lives. It is left for Ray to be waited for."""
    try:
        end = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # Ray has
        return "has ended"
    if end is None:
        return ""
    if end.si_code == os.CLD_EXITED:
        return f"ended with code {end.si_status}" if end.si_status else ASKED
    if end.si_status == signal.SIGKILL:
        return "was killed (out of memory?)"
    return ASKED if end.si_status in process.STOPS else f"ended by signal {end.si_status}"
