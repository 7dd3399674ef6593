"""Images are opened in a process apart: one that kills or hangs it is an ImageError, and the others come."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass

import psutil
import pytest

from engine.apart import TOGETHER, WHILE, Apart
from engine.config import Run
from engine.errors import CutShort, ImageError, RunError


@dataclass(frozen=True)
class Named:
    uri: str


def suffer(image: Named) -> int:
    """What befalls whoever opens it goes by its name; else the process that it is opened in."""
    match image.uri:
        case "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exits":
            sys.exit(0)
        case "hangs":  # native code that holds the interpreter's lock
            ctypes.PyDLL(None).sleep(60)
        case "stops":
            os.kill(os.getpid(), signal.SIGTERM)
        case "gone":
            raise ImageError("missing", "no such file: gone")
        case "odd":
            raise KeyError("odd")
        case "large":
            raise MemoryError
        case "slow":  # and answered for before the next one is opened
            time.sleep(2 * WHILE)
        case "dies as it answers":  # which is more than a pipe holds
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return 1 << 8 * 10**7
        case "store":
            raise RunError("s3://bucket can't be reached")
    return os.getpid()


def opened(apart: Apart[Named, int], *names: str) -> list[int | str]:
    came = apart.each([Named(name) for name in names])
    return [f"{one.kind}: {one}" if isinstance(one, ImageError) else one for one in came]


def test_whoever_kills_or_hangs_its_opener_is_told_and_the_others_come() -> None:
    apart = Apart(suffer, Run(item_seconds=0.5, attempts=1))
    a, gone, b, hung, c, killed, d, left, e = opened(apart, "a", "gone", "b", "hangs", "c", "kills", "d", "exits", "e")
    assert a == b and len({a, c, d, e, os.getpid()}) == 5
    assert gone == "missing: no such file: gone"
    assert str(hung).startswith("timeout: hangs took longer than 0.5 s, in File ") and "in suffer; given" in str(hung)
    assert killed == "killed: kills killed whoever opened it; given up after 1 attempt(s)"
    assert left == "killed: exits killed whoever opened it; given up after 1 attempt(s)"
    assert opened(apart, "f", "g") == [e, e], "the process is kept"
    assert opened(apart) == []


def test_it_is_tried_again_and_too_many_in_a_row_are_no_images_fault() -> None:
    apart = Apart(suffer, Run(attempts=2, failures_in_a_row=2))
    assert opened(apart, "kills", "a")[0] == "killed: kills killed whoever opened it; given up after 2 attempt(s)"
    apart = Apart(suffer, Run(attempts=1, failures_in_a_row=2))
    with pytest.raises(RunError, match=r"2 images in a row \(run\.failures_in_a_row\).*at last kills killed"):
        opened(apart, "kills", "kills", "a")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("store", RunError, r"s3://bucket can't be reached"),
        ("odd", RunError, r"odd: KeyError\('odd'\)"),
        ("stops", CutShort, "told to end"),
    ],
)
def test_what_is_no_images_fault_is_raised(name: str, error: type[Exception], words: str) -> None:
    apart = Apart(suffer, Run())
    with pytest.raises(error, match=words):
        opened(apart, "a", name, "b")
    assert len(opened(apart, "a", "b")) == 2, "of another process"


def test_one_that_takes_too_much_memory_is_told() -> None:
    a, large, b = opened(Apart(suffer, Run()), "a", "large", "b")
    assert (a, large) == (b, "memory: large takes more memory than there is")


def test_an_answer_that_breaks_off_is_none() -> None:
    apart = Apart(suffer, Run(attempts=1))
    came = apart.each([Named("slow"), Named("dies as it answers"), Named("b")])
    first = next(came)
    time.sleep(1)  # it dies with half of the answer sent
    again, b = came
    assert again == 1 << 8 * 10**7, "whole, as nobody waited this time"
    assert isinstance(b, int) and b != first


def test_who_is_opened_beside_one_that_kills_is_not_blamed() -> None:
    names = [f"{n}" for n in range(2 * TOGETHER)]
    names[TOGETHER + 1] = "kills"
    names.insert(TOGETHER - 1, "hangs")
    came = opened(Apart(suffer, Run(item_seconds=0.5, attempts=2)), *names)
    blamed = [name for name, one in zip(names, came, strict=True) if isinstance(one, str)]
    assert blamed == ["hangs", "kills"]


def test_it_is_deaf_where_its_parent_is() -> None:
    """As `nohup` has it, for a terminal that is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        apart = Apart(suffer, Run())
        (pid,) = opened(apart, "a")
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGHUP)
        assert opened(apart, "b", "c") == [pid, pid]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_nobody_waited_for_is_no_answer_to_the_next_question() -> None:
    apart = Apart(suffer, Run())
    first = next(iter(apart.each([Named("a"), Named("gone"), Named("b")])))
    second, third = opened(apart, "c", "d")
    assert second == third != first


def test_its_process_ends_with_it() -> None:
    apart = Apart(suffer, Run())
    (pid,) = opened(apart, "a")
    assert isinstance(pid, int)
    process = psutil.Process(pid)
    del apart
    assert process.wait(20) == 0
