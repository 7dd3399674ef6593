"""The run lock, held by a real second process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import disks
import pytest
from s3 import environment, faulty, s3_server

from engine.errors import OutputError, RunError
from engine.layout import LOCK
from engine.lock import run_lock
from engine.places import place

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
    with pytest.raises(OutputError, match=rf"{tmp_path}/{name} can't be used .*Mend that, or name another folder\."):
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


# Who only reads


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """`tmp_path` itself, as nobody can write to it."""
    with disks.read_only(tmp_path, tmp_path.parent / f"{tmp_path.name}-read-only") as view:
        yield view


@pytest.mark.parametrize("there", [True, False])
def test_who_reads_may_do_so_where_nothing_can_be_written(there: bool, read_only: Path, tmp_path: Path) -> None:
    if there:
        (tmp_path / LOCK).touch()
    with pytest.raises(OutputError, match="Read-only file system"):
        run_lock(read_only).__enter__()
    with run_lock(read_only, reads=True), run_lock(read_only, reads=True):
        if there:
            with pytest.raises(OutputError, match="in use by another run"):
                run_lock(tmp_path).__enter__()
    with run_lock(tmp_path):
        pass
    with run_lock(read_only / "never made", reads=True):
        pass


def test_who_reads_waits_for_a_run_that_others_may_have_there(
    holder: subprocess.Popen[str], read_only: Path, tmp_path: Path
) -> None:
    for folder in (read_only, tmp_path):
        with pytest.raises(OutputError, match=rf"in use by another run \(process {holder.pid}"):
            run_lock(folder, reads=True).__enter__()


def test_who_reads_holds_it_alone_where_it_can_be_written(tmp_path: Path) -> None:
    with run_lock(tmp_path, reads=True), pytest.raises(OutputError, match="in use by another run"):
        run_lock(tmp_path, reads=True).__enter__()


def test_a_lock_that_may_not_be_looked_at_is_no_free_one(tmp_path: Path, read_only: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path)
    with pytest.raises(OutputError, match="can't be used"):
        run_lock(read_only, reads=True).__enter__()


def test_who_reads_a_store_need_not_be_allowed_to_write_there() -> None:
    with s3_server() as server, faulty(server) as proxy, environment(proxy.url):
        bucket = server.bucket()
        bucket.write(f"out/{LOCK}", b'{"token": ""}')
        proxy.fault = lambda method, path: "refused" if method == "PUT" else None
        root = place(f"{bucket.uri}/out")
        with pytest.raises(RunError, match="credentials"):
            run_lock(root).__enter__()
        with run_lock(root, reads=True):
            assert bucket.read(f"out/{LOCK}") == b'{"token": ""}'


# Full disks


def test_a_full_disk_keeps_nobody_from_the_lock(tmp_path: Path) -> None:
    with disks.small(tmp_path / "full", "4k") as full:
        (full / LOCK).touch()
        (full / "ballast").write_bytes(b"x" * 4096)
        with run_lock(full):
            assert (full / LOCK).read_bytes() == b""
            with pytest.raises(OutputError, match="which has not said who it is"):
                run_lock(full).__enter__()
