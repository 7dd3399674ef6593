"""Folders on an object store as copies on this machine, on a real server that speaks S3."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from s3 import Bucket, Proxy, Server, environment, faulty, first, never, s3_server

from engine.copies import FETCHING, UNFINISHED, fetched, forget, located, moved, near
from engine.errors import RunError
from engine.places import place

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 100, "parts/one.bin": b"1", "empty": b""}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with faulty(server) as proxy, environment(proxy.url):
        yield proxy


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture
def bucket(server: Server, proxy: Proxy, caches: Path) -> Bucket:
    """With a folder out/model."""
    bucket = server.bucket()
    for name, data in FILES.items():
        bucket.write(f"out/model/{name}", data)
    bucket.write("out/model-2/config.json", b"another one, whose name begins alike")
    return bucket


@pytest.fixture
def model(bucket: Bucket) -> Path:
    return place(f"{bucket.uri}/out/model")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copies(model: Path) -> set[str]:
    return {path.name for path in near(model).iterdir() if path.is_dir()}


def test_what_is_here_is_its_own_copy(tmp_path: Path) -> None:
    assert fetched(tmp_path) == near(tmp_path) == located(tmp_path) == tmp_path
    assert located("microsoft/Florence-2-base") == "microsoft/Florence-2-base"
    forget(tmp_path)
    assert tmp_path.is_dir()


def test_fetched_once(model: Path, proxy: Proxy, caches: Path) -> None:
    copy = fetched(model)
    assert content(copy) == FILES
    assert copy.is_relative_to(caches / "florence-engine" / "stores" / "s3")
    sent = proxy.sent
    assert fetched(model) == located(str(model)) == copy
    assert proxy.sent - sent < len(FILES["model.safetensors"]), "listings alone"


def test_fetched_anew_once_it_has_changed(model: Path, bucket: Bucket) -> None:
    before = fetched(model)
    bucket.write("out/model/parts/one.bin", b"2")  # of the same size
    after = fetched(model)
    assert content(after) == {**FILES, "parts/one.bin": b"2"}
    assert content(before) == FILES, "another run may be reading it"
    os.utime(before, (time.time() - 4000,) * 2)
    bucket.remove("out/model/empty")
    last = fetched(model)
    assert "empty" not in content(last)
    assert copies(model) == {after.name, last.name}


def test_what_is_not_there(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        fetched(place(f"{bucket.uri}/out/mod"))
    with pytest.raises(RunError, match="bucket that isn't there"):
        fetched(place("s3://no-bucket-of-tests/model"))


@pytest.mark.parametrize("fault", ["refused", "gone"])
def test_what_breaks_off_is_no_copy(model: Path, proxy: Proxy, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.fault = first(100, fault, ("GET",), "model.safetensors")
    with pytest.raises(RunError, match=r"s3://.*/out/model"):
        fetched(model)
    assert copies(model) == {UNFINISHED}
    (near(model) / UNFINISHED / "left").write_bytes(b"of a fetch that was killed")
    proxy.fault = never
    assert content(fetched(model)) == FILES
    assert len(copies(model)) == 1


def test_several_at_once_fetch_it_once(model: Path, proxy: Proxy) -> None:
    found: list[dict[str, bytes]] = []
    workers = [threading.Thread(target=lambda: found.append(content(fetched(model)))) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [FILES] * 6
    assert proxy.sent < 2 * len(FILES["model.safetensors"])


def test_what_is_forgotten_while_others_wait_for_it(model: Path) -> None:
    """They wait for those who came later: a lock that is gone is none."""
    found: list[dict[str, bytes]] = []
    waiting = threading.Thread(target=lambda: found.append(content(fetched(model))))
    lock = near(model) / FETCHING
    with locked(lock):
        waiting.start()
        wait_for_waiting(lock)
        forget(model)
        later = locked(lock)
    with later:
        wait_for_waiting(lock)
        assert not copies(model)
    waiting.join()
    assert found == [FILES]


def locked(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def wait_for_waiting(lock: Path) -> None:
    """Until somebody waits for it: the kernel's list shows who with an arrow."""
    inode = f":{lock.stat().st_ino} "
    for _ in range(500):
        if any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
            return
        time.sleep(0.02)
    raise AssertionError("nobody waits")


def test_a_file_whose_name_leads_elsewhere(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.copies._listed", lambda path: {"config.json": "1", "../../evil": "2"})
    with pytest.raises(RunError, match=r"a file named '\.\./\.\./evil', which leads elsewhere"):
        fetched(model)


def test_a_disk_that_takes_no_copy(model: Path, caches: Path) -> None:
    caches.write_text("no folder")
    with pytest.raises(RunError, match=r"can't be used \(Not a directory\).* XDG_CACHE_HOME"):
        fetched(model)


def test_names_that_no_disk_takes(caches: Path) -> None:
    folder = near(place("s3://bucket/.. /@0/" + "é" * 400))
    assert folder.is_relative_to(caches)
    assert all(0 < len(name.encode()) < 110 and name[0] not in ".@" for name in folder.relative_to(caches).parts)


def filled(folder: Path) -> Path:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_moved_there_the_last_file_says_that_all_are(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    bucket.write("out/new/config.json", b"old")
    bucket.write("out/new/old.bin", b"old")
    target = place(f"{bucket.uri}/out/new")
    order: list[str] = []
    proxy.fault = lambda method, path: order.append(path) if method == "PUT" else None
    moved(filled(tmp_path / "made"), target, "config.json")
    assert order[-1].endswith("out/new/config.json")
    assert {key.removeprefix("out/new/"): bucket.read(key) for key in bucket.keys("out/new/")} == FILES
    assert not (tmp_path / "made").exists()
    sent = proxy.sent
    assert content(fetched(target)) == FILES
    assert proxy.sent - sent < len(FILES["model.safetensors"]), "it is here already"


def test_a_move_that_breaks_off_has_no_last_file(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.write("out/new/config.json", b"old")
    proxy.fault = first(100, "gone", ("PUT", "POST"), "model.safetensors")
    with pytest.raises(RunError, match="can't be reached"):
        moved(filled(tmp_path / "made"), place(f"{bucket.uri}/out/new"), "config.json")
    assert not bucket.keys("out/new/config.json")
    assert content(tmp_path / "made") == FILES


def test_moved_on_this_machine(tmp_path: Path) -> None:
    filled(tmp_path / "new" / "deep")
    moved(filled(tmp_path / "made"), tmp_path / "new", "config.json")
    assert content(tmp_path / "new") == FILES
    assert not (tmp_path / "made").exists()


def test_forgotten_with_all_in_it(bucket: Bucket, model: Path) -> None:
    fetched(model), fetched(other := place(f"{bucket.uri}/out/model-2"))
    forget(model)
    assert not near(model).exists()
    assert copies(other)
    forget(place(f"{bucket.uri}/out"))
    assert not near(other).exists()
    assert len(bucket.keys()) == len(FILES) + 1
