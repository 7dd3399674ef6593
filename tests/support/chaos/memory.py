"""What the processes of a run take at most, as the kernel keeps it: the driver, and the largest of its workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

WORKER = "ray::"  # Ray's processes that do something of ours are called so
SECONDS = 0.2  # between two looks
MORE = 1.3  # times what an undisturbed one takes is hardly more


@dataclass
class Peaks:
    """Resident MB, with what processes share."""

    driver: float = 0.0
    worker: float = 0.0

    def saw(self, driver: psutil.Process, roots: Iterable[psutil.Process]) -> None:
        """`roots` are the processes from which workers descend."""
        self.driver = max(self.driver, peak(driver.pid))
        workers = (worker for root in roots for worker in descendants(root, WORKER))
        self.worker = max([self.worker, *(peak(worker.pid) for worker in workers)])

    def grown(self, undisturbed: Peaks) -> set[str]:
        """Who took more than an undisturbed one does."""
        return {who for who in ("driver", "worker") if getattr(self, who) > MORE * getattr(undisturbed, who)}

    def __str__(self) -> str:
        return f"{self.driver:.0f} / {self.worker:.0f}" if self.worker else f"{self.driver:.0f}"


def descendants(root: psutil.Process, title: str) -> list[psutil.Process]:
    """Those that live and have `title` in what they are called by."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if title in "".join(child.cmdline()[:1]):
                    found.append(child)
    return found


def peak(pid: int) -> float:
    """0 for a process that has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
    return 0.0


class Watch(threading.Thread):
    """Looks at a run as long as it lives."""

    def __init__(self, pid: int, roots: Callable[[], Iterable[psutil.Process]], peaks: Peaks) -> None:
        super().__init__(daemon=True)
        self.driver, self.roots, self.peaks = psutil.Process(pid), roots, peaks
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(SECONDS) and self.driver.is_running():
            self.peaks.saw(self.driver, [self.driver, *self.roots()])
