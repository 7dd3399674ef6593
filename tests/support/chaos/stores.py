"""An output folder on an object store, and what befalls it there."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from s3 import Bucket, Proxy, every, never

from chaos.faults import Case, Fault, driver_killed, second_refused, signalled, two_at_once

AWAY = 20.0  # seconds that a store is gone, if it comes back
OUT = "out"  # in the bucket; each cell has one of its own


@dataclass(frozen=True)
class Remote:
    """A folder in a bucket, which runs reach through a proxy, and tests do not."""

    bucket: Bucket
    proxy: Proxy

    @property
    def uri(self) -> str:
        return f"{self.bucket.uri}/{OUT}"

    def has(self, pattern: str) -> bool:
        return any(fnmatch(key, f"{OUT}/{pattern}") for key in self.bucket.keys(OUT))

    def fetch(self, folder: Path) -> None:
        """`folder` becomes what is there."""
        shutil.rmtree(folder, ignore_errors=True)
        self.bucket.download(OUT, folder)


def answers(what: str, nth: int, *methods: str) -> Fault:
    """Each n-th request of a whole run fails so, and the run does not."""

    def fault(case: Case) -> None:
        assert case.remote
        befalling = every(nth, what, methods) if methods else every(nth, what)
        case.remote.proxy.fault = befalling
        try:
            assert case.run() == 0, case.said
        finally:
            case.remote.proxy.fault = never
        assert befalling.seen > nth, "nothing befell it"

    return fault


def gone_for_a_while(case: Case) -> None:
    """For so long that some requests outlive it, and others give up."""
    assert case.remote
    process = case.start()
    case.in_the_middle(process)
    case.remote.proxy.fault = lambda method, path: "gone"
    time.sleep(AWAY)
    case.remote.proxy.fault = never
    assert case.end(process) in (0, 3), case.said
    if case.codes[-1]:
        assert "run the same again" in case.told[-1], case.said


def gone(case: Case) -> None:
    assert case.remote
    process = case.start()
    case.in_the_middle(process)
    case.remote.proxy.fault = lambda method, path: "gone"
    try:
        assert case.end(process) == 3, case.said
    finally:
        case.remote.proxy.fault = never
    assert "can't be reached" in case.told[-1], case.said
    assert "run the same again" in case.told[-1], case.said


def two_at_once_there(case: Case) -> None:
    """The first must outlive the second's look at its lease. A training has its images by then: it is the store that
    takes its time, until the first has ended."""
    if case.stage.name != "train":
        case.slow = 4.0
        two_at_once(case)
        return
    assert case.remote
    process = case.start()
    case.in_the_middle(process)
    case.remote.proxy.fault = every(1, "slow")
    try:
        second_refused(case, process)
    finally:
        case.remote.proxy.fault = never


STORE_FAULTS: dict[str, Fault] = {
    "store: answers 503": answers("busy", 5),
    "store: is slow": answers("slow", 2),
    "store: downloads cut off": answers("cut", 4, "GET"),
    "store: uploads cut off": answers("cut", 3, "PUT", "POST"),
    "store: gone for 20 s": gone_for_a_while,
    "store: gone for good": gone,
    "store: driver killed": driver_killed,
    "store: two runs at once": two_at_once_there,
    "store: Ctrl-C": signalled(signal.SIGINT),
}
