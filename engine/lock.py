"""One run at a time on an output folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from engine.errors import OutputError, is_no_space
from engine.storage import LOCK


@contextmanager
def run_lock(root: Path) -> Iterator[None]:
    """Holds the lock file in `root`. The kernel frees it with the process, however that ends.

    Raises OutputError, which says who holds it, when another run lives, and when `root` can't be written to.
    """
    with _opened(root) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise OutputError(
                f"{root} is in use by another run ({_holder(file.read())}). "
                "Wait for it, stop it, or name another folder with --out."
            ) from None
        except OSError as error:
            raise OutputError(
                f"{root} is on a file system without locks ({error.strerror}), where two runs could mix their files. "
                "Name a folder on another one with --out."
            ) from error
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}))
        file.flush()
        yield


def _opened(root: Path) -> TextIO:
    try:
        root.mkdir(parents=True, exist_ok=True)
        # A link would lead the lock, and what is written into it, to another file.
        return open(os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "a+")
    except OSError as error:
        if is_no_space(error):  # which the run explains
            raise
        raise OutputError(
            f"{root} can't be used as an output folder: {error.filename}: {error.strerror}. "
            "Name another folder with --out."
        ) from error


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "which has not said who it is"
