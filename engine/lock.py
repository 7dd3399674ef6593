"""One run at a time on an output folder.

On this machine's disks the kernel keeps a lock, and frees it with its process. An object store has none: there the lock
is a *lease*, a file that its run writes anew every RENEW seconds. A lease that nobody renews for STALE seconds is of a
run that died, and is taken over; that is found out by watching it, not by anybody's clock.

What is promised on a store: of two runs one is refused, or stops within RENEW seconds of the other's lease and says so,
and no file is ever half-written. What is not: that they never write at the same time. Two that begin in the same
second, or one that was cut off from the store, or stopped, for a minute and then goes on, overlap until one of them
reads its lease again. Files are the same whoever writes them, so that such a moment costs work and no data.
"""

from __future__ import annotations

import _thread
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from engine import process
from engine.atomic import read_bytes, write_json
from engine.errors import EngineError, OutputError, RunError, StoreAway, is_forbidden, is_no_space
from engine.layout import LOCK
from engine.places import is_local

RENEW = 15.0  # seconds
STALE = 60.0
SETTLE = 1.0  # between writing a lease and reading whose it is: of runs that begin together the last one has it
log = logging.getLogger(__name__)


@contextmanager
def run_lock(root: Path, *, reads: bool = False) -> Iterator[None]:
    """Holds the lock in `root`. To be called in the main thread, which a lost lease interrupts.

    Whoever only `reads` there may do so where nothing can be written, if no run is seen to hold the lock.

    Raises OutputError, which says who holds it, when another run lives, and when `root` can't be written to; RunError
    once another run has taken over a lease that we could not renew.
    """
    with _locked(root, reads) if is_local(root) else _leased(root, reads):
        yield


@contextmanager
def _locked(root: Path, reads: bool) -> Iterator[None]:
    file = _opened(root, reads)
    if file is None:
        yield
        return
    with file:
        try:
            # Where it may only be read, it can only be shared; a run, which wants it alone, is refused then, too.
            fcntl.flock(file, (fcntl.LOCK_EX if file.writable() else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(root, file.read().decode(errors="replace")) from None
        except OSError as error:
            raise OutputError(
                f"{root} is on a file system without locks ({error.strerror}), where two runs could mix their files. "
                "Name a folder on another one."
            ) from error
        if file.writable():
            with suppress(OSError):  # who holds it is good to know, and on a full disk the lock does without
                file.truncate(0)
                file.write(json.dumps(_ourselves()).encode())
        yield


def _opened(root: Path, reads: bool) -> FileIO | None:
    """The lock's file. Where no file may be written that is read alone, and None if there is none."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        return _lock_file(root, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if reads and (is_forbidden(error) or is_no_space(error)):
            return _lock_to_read(root)
        if is_no_space(error):  # which the command explains
            raise
        raise _unusable(root, error) from error


def _lock_to_read(root: Path) -> FileIO | None:
    try:
        return _lock_file(root, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(root, error) from error


def _lock_file(root: Path, flags: int) -> FileIO:
    """Not through a link, which would lead the lock, and what is written into it, to another file."""
    return FileIO(os.open(root / LOCK, flags | os.O_NOFOLLOW, 0o666), "r" if flags == os.O_RDONLY else "r+")


def _unusable(root: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{root} can't be used as an output folder: {error.filename}: {error.strerror}. Mend that, or name another "
        "folder."
    )


# Where there are no locks


@contextmanager
def _leased(root: Path, reads: bool) -> Iterator[None]:
    lease = _Lease(root)
    if not lease.take(reads):
        yield
        return
    thread = threading.Thread(target=lease.renew, name="lease", daemon=True)
    thread.start()
    try:
        try:
            yield
        except StoreAway as error:  # of this store, or of one that images are on
            lease.away = lease.away or lease.store in str(error)
            raise
        finally:
            lease.ended.set()
            if not lease.away:
                thread.join()
    except BaseException as error:
        if lease.lost:  # whatever our own interruption has become by now
            raise lease.taken_over() from error
        raise
    finally:
        lease.release()
    if lease.lost:  # at the very end, when nothing was left to interrupt
        raise lease.taken_over()


@dataclass
class _Lease:
    """Who has it is whose token the lock says; "" is nobody's."""

    root: Path
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    holder: dict[str, Any] = field(default_factory=lambda: _ourselves())
    beats: int = 0
    lost: bool = False
    away: bool = False  # the store, when it was asked last
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def store(self) -> str:
        """As `s3://bucket/`."""
        return "/".join([*str(self.root).split("/")[:3], ""])

    def take(self, reads: bool) -> bool:
        """Whether it is ours now. Who only `reads` does without where we may not write."""
        self._wait_for_the_dead()
        try:
            self._write(self.token)
        except RunError as error:
            if reads and isinstance(error.__cause__, PermissionError):
                return False
            raise
        time.sleep(SETTLE)
        if (there := self._read()).get("token") != self.token:
            raise _in_use(self.root, json.dumps(there))
        return True

    def renew(self) -> None:
        """Until it has ended, or is another's, by which the main thread is interrupted."""
        while not self.ended.wait(RENEW):
            try:
                if self._read().get("token") != self.token:
                    self.lost = process.is_ours = True
                    _thread.interrupt_main(_heard())
                    return
                self._write(self.token)
                self.away = False
            except Exception as error:  # the store is away, in whatever words; without this thread the lease lapses
                self.away = isinstance(error, StoreAway)
                log.warning("the lease of %s can't be renewed: %s", self.root, error)

    def release(self) -> None:
        """The lock stays: its presence says that the folder is ours. A store that is away isn't asked once more, which
        would take it a minute: the lease lapses by itself."""
        if self.away:
            return
        try:
            if self._read().get("token") == self.token:
                self._write("")
        except EngineError as error:  # it lapses by itself
            log.warning("the lease of %s can't be given back: %s", self.root, error)

    def taken_over(self) -> RunError:
        return RunError(
            f"{self.root} was taken over by another run ({_holder(json.dumps(self._read()))}), as this one could not "
            f"renew its lease for {STALE:.0f} seconds: it stops. Nothing is half-written; the other one goes on."
        )

    def _wait_for_the_dead(self) -> None:
        """Until the lock is nobody's, or has not changed for so long that its run must be dead. Raises OutputError as
        soon as it changes: its run lives."""
        first = self._read()
        if not first.get("token"):
            return
        log.warning(
            "%s was in use by %s. If that run is dead, this one begins in %.0f seconds",
            self.root,
            _holder(json.dumps(first)),
            STALE,
        )
        end = time.monotonic() + STALE
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, RENEW / 4))
            now = self._read()
            if not now.get("token"):
                return
            if now != first:
                raise _in_use(self.root, json.dumps(now))

    def _read(self) -> dict[str, Any]:
        """What the lock says; nothing if there is none, or none of ours."""
        try:
            said = json.loads(read_bytes(self.root / LOCK))
        except (FileNotFoundError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def _write(self, token: str) -> None:
        self.beats += 1  # so that it changes with every renewal
        write_json(self.root / LOCK, {**self.holder, "token": token, "beats": self.beats})


def _heard() -> signal.Signals:
    """A signal that interrupts the main thread: of what a script starts in the background SIGINT may be ignored."""
    return signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM


def _in_use(root: Path, holder: str) -> OutputError:
    return OutputError(
        f"{root} is in use by another run ({_holder(holder)}). Wait for it, stop it, or name another folder."
    )


def _ourselves() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "which has not said who it is"
