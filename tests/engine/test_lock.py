"""The run lock, held by a real second process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.lock import run_lock

HOLDER = """
import sys
from pathlib import Path
from engine.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_one_run_at_a_time(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=rf"in use by another run \(process {holder.pid}"), run_lock(tmp_path):
        raise AssertionError("never reached")
    holder.communicate("")
    with run_lock(tmp_path):
        pass


def test_a_killed_run_holds_nothing(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    with run_lock(tmp_path):
        pass


def test_it_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path / "new"):
        raise ZeroDivisionError
    with run_lock(tmp_path / "new"):
        pass
