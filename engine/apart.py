"""Images are opened in a process apart, where one that kills or hangs whoever opens it is to be outlived.

`engine.watchdog` ends the process that hangs: of a worker, which another one follows, but not of a driver.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, Protocol, TextIO, TypeVar

from engine.config import Run
from engine.errors import CutShort, EngineError, ImageError, RunError
from engine.process import STOPS
from engine.temporary import NOTED
from engine.watchdog import read_note, within


class HasUri(Protocol):
    """What says which image is to be opened."""

    @property
    def uri(self) -> str: ...


TOGETHER = 64  # images at most that are answered for at once
WHILE = 0.02  # seconds that they take, but for the last
T = TypeVar("T", bound=HasUri)
R = TypeVar("R")


class Apart(Generic[T, R]):
    """Calls `opens`, which holds no state, in a process of its own. That starts when it is needed, takes a second for
    it, and ends when nobody refers to this any more."""

    def __init__(self, opens: Callable[[T], R], run: Run) -> None:
        self.opens = opens
        self.run = run
        self._process: _Process | None = None
        self._in_a_row = 0  # images that were given up

    def each(self, images: Sequence[T]) -> Iterator[R | ImageError]:
        """What each image gives, in order, or its ImageError: also for one that took longer than `run.item_seconds`, or
        killed the process, `run.attempts` times alone. Images are opened ahead, some at a time: if the process ends,
        those are opened one by one, as it may be the fault of any. Raises what else goes wrong, and RunError when
        `run.failures_in_a_row` of them were given up."""
        done = ends = alone = 0
        try:
            while done < len(images):
                asked = images[done : done + alone] if alone else images[done:]
                stop = done + len(asked)
                for came in self._answers(asked, 1 if alone else TOGETHER):
                    done, ends, self._in_a_row = done + 1, 0, 0
                    yield came
                if done == stop:
                    alone = 0
                    continue
                error, was_alone = self._end(images[done]), alone
                alone, ends = TOGETHER, ends + bool(was_alone)
                if ends >= self.run.attempts:
                    done, ends = done + 1, 0
                    yield self._given_up(error)
        except BaseException:  # also of whoever wants no more: what comes then is no answer to the next question
            self._process = None
            raise

    def _answers(self, images: Sequence[T], together: int) -> Iterator[R | ImageError]:
        """Fewer than there are images if the process ends."""
        if self._process is None:
            self._process = _started(self.opens, self.run.item_seconds)
        try:
            self._process.pipe.send((images, together))
        except OSError:
            return
        left = len(images)
        while left:
            try:
                answers = self._process.pipe.recv()
            except (EOFError, OSError):  # the latter in the middle of an answer
                return
            left -= len(answers)
            for came in answers:
                if isinstance(came, EngineError) and not isinstance(came, ImageError):
                    raise came
                yield came

    def _end(self, image: T) -> ImageError:
        """Of the process, over an image."""
        assert self._process is not None
        ended, self._process = self._process, None
        ended.process.join()
        if -(ended.process.exitcode or 0) in STOPS:
            raise CutShort("The process that opens images was told to end")
        note = read_note(Path(ended.note.name))
        if note and note.hung_at:
            limit = self.run.item_seconds
            return ImageError("timeout", f"{image.uri} took longer than {limit:g} s, in {note.hung_at}")
        return ImageError("killed", f"{image.uri} killed whoever opened it")

    def _given_up(self, error: ImageError) -> ImageError:
        self._in_a_row += 1
        if self._in_a_row >= self.run.failures_in_a_row:
            raise RunError(
                f"{self._in_a_row} images in a row (run.failures_in_a_row) hung or killed whoever opened them, at last "
                f"{error}. See to the disk or the store that they are on, and run the same again"
            )
        return ImageError(error.kind, f"{error}; given up after {self.run.attempts} attempt(s)")


@dataclass(frozen=True)
class _Process:
    """It ends when our end of the pipe is closed, as it is with us. `note` says where it hung."""

    process: BaseProcess
    pipe: Connection
    note: Any = field(repr=False)  # a NamedTemporaryFile


def _started(opens: Callable[[Any], Any], seconds: float) -> _Process:
    context = get_context("spawn")
    note = tempfile.NamedTemporaryFile(prefix=NOTED)  # noqa: SIM115 (as long as the process lives)
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its, note.name, opens, seconds), name="opener", daemon=True)
    process.start()
    its.close()
    try:
        ours.recv()
    except EOFError:
        process.join()
        raise RunError(
            f"the process that is to open images ended with code {process.exitcode} as it began (out of "
            "memory? In a script, what it does has to stand below `if __name__ == '__main__':`)"
        ) from None
    return _Process(process, ours, note)


def _serve(asks: Connection, note: str, opens: Callable[[Any], Any], seconds: float) -> None:
    for stop in STOPS:  # without a traceback: who has asked for it speaks to whoever started us
        if signal.getsignal(stop) != signal.SIG_IGN:  # as `nohup` has it
            signal.signal(stop, signal.SIG_DFL)
    with open(note, "w") as file, suppress(EOFError, ConnectionError):  # nobody asks any more
        file.write("[]\n")  # whose fault it is knows who asked
        file.flush()
        asks.send(None)
        while True:
            images, together = asks.recv()
            left = iter(images)
            while answers := _answered(opens, islice(left, together), seconds, file):
                asks.send(answers)


def _answered(opens: Callable[[Any], Any], images: Iterable[HasUri], seconds: float, file: TextIO) -> list[Any]:
    """Of as many of the images as are opened in WHILE seconds. A limit for each of them would take longer than most."""
    answers: list[Any] = []
    with within(seconds + WHILE, file):
        end = time.monotonic() + WHILE
        for image in images:
            answers.append(_opened(opens, image))
            if time.monotonic() > end:
                break
    return answers


def _opened(opens: Callable[[Any], Any], image: HasUri) -> Any:
    try:
        return opens(image)
    except EngineError as error:
        return error
    except MemoryError:
        return ImageError("memory", f"{image.uri} takes more memory than there is")
    except Exception as error:
        return RunError(f"{image.uri}: {error!r}")
