"""The run lock, held by a real second process."""

from __future__ import annotations

import json
import os
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


def test_a_new_run_says_that_it_is_the_holder(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """What an earlier holder wrote is gone, however long it was."""
    holder.communicate("")
    (tmp_path / ".engine-lock").write_text("x" * 1000)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / ".engine-lock").read_text())["pid"] == os.getpid()


def test_a_program_that_the_run_started_does_not_hold_it(tmp_path: Path) -> None:
    """Or workers that outlive a killed run for a while would."""
    with run_lock(tmp_path):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    with run_lock(tmp_path):
        assert child.poll() is None
    child.kill()
    child.wait()


@pytest.mark.parametrize("name", ["file", "file/below", "busy"])
def test_what_can_not_be_an_output_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "busy/.engine-lock").mkdir(parents=True)
    with pytest.raises(OutputError, match=rf"{tmp_path}/{name} can't be used .*Name another folder with --out"):
        run_lock(tmp_path / name).__enter__()


def test_a_link_does_not_lead_the_lock_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.engine-lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="can't be used as an output folder"):
        run_lock(tmp_path / "out").__enter__()
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"mine can't be used .*Permission denied"):
        run_lock(tmp_path / "mine").__enter__()
