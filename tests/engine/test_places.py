"""Where output folders and inputs may be, and what is read and written there, on a real server that speaks S3."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import hub
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from s3 import Bucket, Fault, Proxy, Server, environment, faulty, first, never, s3_server

from engine import files, lock, places
from engine.atomic import aside, is_there, names_in, read_json, remove, remove_all, there, write_json
from engine.config import load_config
from engine.contamination import contaminated
from engine.errors import ConfigError, ImageError, OutputError, RunError, StoreAway
from engine.export.coco import Coco
from engine.export.format import Format, Setting, Whole
from engine.export.hf import HuggingFace
from engine.export.llava import Llava
from engine.export.selection import KINDS, Selection
from engine.export.webdataset import WebDataset
from engine.heartbeat import read_heartbeat
from engine.layout import LOCK, Output, ShardId
from engine.listing import Listing
from engine.lock import run_lock
from engine.places import is_local, is_remote_uri, place, store_of
from engine.reading import read
from engine.report.training import trainings
from engine.storage import read_table, write_table


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """Through which all goes in these tests."""
    with faulty(server) as proxy, environment(proxy.url):
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is tried once, by the client and by who calls it."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)


@pytest.fixture
def bucket(server: Server, proxy: Proxy) -> Bucket:
    return server.bucket()


def table(rows: int = 1000) -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table({"a": random.random(rows), "b": random.random(rows)})


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


# Names


def test_places_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place("out") == tmp_path / "out" == place(Path("out"))
    assert place("~/out") == Path.home() / "out"
    assert place(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    there = place("S3://bucket/a/out/")
    assert (str(there), str(there / "b" / "c.json"), there.name) == (
        "s3://bucket/a/out",
        "s3://bucket/a/out/b/c.json",
        "out",
    )
    assert not is_local(there)
    assert is_local(tmp_path)
    assert place(there) == there


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://example.org/out", "web server"),
        ("az://bucket/out", "az:// isn't known"),
        ("s3://key:secret@bucket/out", "AWS_ACCESS_KEY_ID"),
        ("s3:///out", "names no bucket"),
        ("s3://bucket/out?X-Amz-Signature=secret", "can't have"),
        ("s3://bucket/o[ut]", "can't have"),
        ("memory://x::s3://bucket/out", "can't have"),
    ],
)
def test_what_is_no_place(uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        place(uri)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"pip install 'florence-engine\[gcs\]'"):
        place("gs://bucket/out")


@given(st.text(max_size=30))
def test_whatever_somebody_types_is_a_place_or_an_error(text: str) -> None:
    with suppress(ConfigError):
        assert is_local(place(text)) != is_remote_uri(text)


def test_stores_of_uris() -> None:
    assert store_of("s3://bucket/a/b.jpg") == "s3://bucket" == store_of("S3://bucket/c.tar#d.jpg")
    assert store_of("hf://datasets/user/name@main/a.jpg") == "hf://datasets/user/name"
    assert store_of("hf://user/name/a.jpg") == "hf://user/name"
    assert store_of("/a/s3://bucket/b.jpg") is None
    assert store_of("https://example.org/a.jpg") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://b/a/../c.jpg", "s3://b/c.jpg"),
        ("s3://b/../../c.jpg", "s3://b/c.jpg"),
        ("s3://b/a//c.jpg", "s3://b/a//c.jpg"),
        ("s3://b/a//./d/../c.jpg", "s3://b/a//c.jpg"),
        ("s3://b/..", "s3://b"),
        ("/a/../c", "/c"),
    ],
)
def test_detours_stay_in_the_bucket(path: str, expected: str) -> None:
    assert files.normal(path) == expected


def test_the_configuration_leaves_uris_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("ingest:\n  images: [s3://bucket/photos, local]\n  image_root: gs://other/x\n")
    ingest = load_config(tmp_path / "c.yaml").ingest
    assert ingest.images == ("s3://bucket/photos", str(tmp_path / "local"))
    assert ingest.image_root == "gs://other/x"


# An output folder on a store


def test_output_in_memory() -> None:
    root = place("memory://test_output_in_memory/out")
    write_json(root / "a" / "b.json", {"n": 1})
    write_table(root / "a" / "t.parquet", table())
    assert read_json(root / "a" / "b.json") == {"n": 1}
    assert read_table(root / "a" / "t.parquet", ["b"]).equals(table().select(["b"]))
    assert names_in(root / "a") == ["b.json", "t.parquet"]
    remove_all(root / "a")
    assert names_in(root) == []


def test_output_on_s3(bucket: Bucket) -> None:
    out = Output(place(f"{bucket.uri}/sets/out"))
    assert pickle.loads(pickle.dumps(out)) == out
    out.check_ours()
    shard = ShardId(0, 3)
    write_table(out.items(shard), table(), "digest")
    write_json(out.round(0).summary, {"told": "é\n"})
    assert bucket.keys() == ["sets/out/images/part-00000/shard-00003.parquet", "sets/out/round-0/summary.json"]
    assert pq.read_table(io.BytesIO(bucket.read(bucket.keys()[0]))).equals(table())  # by others
    assert read_table(out.items(shard)).equals(table())
    assert read_json(out.round(0).summary) == {"told": "é\n"}
    assert there([out.items(shard), out.items(ShardId(0, 4)), out.round(1).summary]) == {out.items(shard)}
    with pytest.raises(OutputError, match="no run's output"):
        out.check_ours()
    bucket.write(f"sets/out/{LOCK}", b"{}")
    bucket.write("sets/out/notes.txt", b"ours are not the only ones")
    bucket.write("sets/out-of-others/round-0/a", b"")
    out.forget(shard)
    assert names_in(out.root) == [LOCK, "images", "notes.txt"]
    write_json(out.round(0).summary, {})
    out.sweep()
    out.clear()
    assert bucket.keys() == ["sets/out-of-others/round-0/a", f"sets/out/{LOCK}", "sets/out/notes.txt"]


def test_what_is_broken_off_is_no_object(bucket: Bucket) -> None:
    root = place(f"{bucket.uri}/out")
    with pytest.raises(ZeroDivisionError), aside(root / "a.bin") as file:
        file.write(b"half of it")
        _ = 1 / 0
    assert bucket.keys() == []


def test_columns_are_read_by_ranges(bucket: Bucket, proxy: Proxy) -> None:
    path = place(f"{bucket.uri}/t.parquet")
    write_table(path, table(300_000))
    size = len(bucket.read("t.parquet"))
    proxy.sent = 0
    assert read_table(path, ["a"]).equals(table(300_000).select(["a"]))
    assert 0.4 * size < proxy.sent < 0.6 * size
    proxy.asked.clear()
    read_table(path)
    assert proxy.asked.total() == 1


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_flipped_bit_is_found(where: str, bucket: Bucket, tmp_path: Path) -> None:
    """In the values, which nothing but the pages' checksums watches over."""
    path = place(f"{bucket.uri}/t.parquet") if where == "there" else tmp_path / "t.parquet"
    values = pa.table({"a": np.random.default_rng(0).integers(0, 2**62, 10_000)})
    write_table(path, values)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(OutputError, match="damaged"):
        read_table(path)


@pytest.mark.parametrize(
    ("what", "method"),
    [("busy", "GET"), ("busy", "PUT"), ("busy", "HEAD"), ("cut", "GET"), ("cut", "PUT"), ("slow", "GET")],
)
def test_faults_that_pass(what: str, method: str, bucket: Bucket, proxy: Proxy) -> None:
    path = place(f"{bucket.uri}/t.parquet")
    proxy.fault = first(1, what, (method,))
    write_table(path, table(100_000))
    assert read_table(path, ["a"]).equals(table(100_000).select(["a"]))
    assert read_table(path).equals(table(100_000))
    assert proxy.done[what] == 1


@pytest.mark.parametrize(
    ("what", "words", "kind"),
    [("busy", "after several attempts", StoreAway), ("refused", "credentials of the environment", RunError)],
)
def test_faults_that_stay(
    what: str, words: str, kind: type[RunError], bucket: Bucket, proxy: Proxy, impatient: None
) -> None:
    root = place(f"{bucket.uri}/out")
    proxy.fault = first(1000, what)
    for action in (
        lambda: write_json(root / "a.json", 1),
        lambda: read_json(root / "a.json"),
        lambda: names_in(root),
        lambda: is_there(root / "a.json"),
        lambda: remove(root / "a.json"),
        lambda: Output(root).check_ours(),
        lambda: read_heartbeat(Output(root).round(0)),
        lambda: contaminated(Output(root)),
        lambda: trainings(Output(root).round(0)),
        lambda: read("https://example.org/a.jpg", max_bytes=1, downloads=root / "downloads"),
    ):
        with pytest.raises(RunError, match=words) as caught:
            action()
        assert str(root) in str(caught.value)
        assert "run the same again" in str(caught.value)
        assert type(caught.value) is kind
    assert bucket.keys() == []


def test_a_read_is_tried_no_more_often_than_the_rest(
    bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times, as s3fs has it; a read was tried so often five times."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.fault = lambda method, path: "gone"
    with pytest.raises(StoreAway, match="Connection was closed before"):
        read_json(place(f"{bucket.uri}/a.json"))
    assert proxy.done["gone"] <= 2 * 5  # a connection that is closed is opened once more


def test_a_bucket_that_is_not_there(proxy: Proxy) -> None:
    root = place("s3://tests-no-such-bucket/out")
    for action in (lambda: write_json(root / "a.json", 1), lambda: names_in(root), lambda: read_json(root / "a.json")):
        with pytest.raises(RunError, match=r"s3://tests-no-such-bucket/out.* in a bucket that isn't there"):
            action()


def test_a_hub_that_fails_has_not_said_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client's own `exists` takes any failed request for a no, and its listings are kept."""

    def at(url: str) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        places._filesystem.cache_clear()

    root = place("hf://someone/tiny")
    with hub() as server:
        at(f"http://127.0.0.1:{server.server_port}")
        assert [is_there(path) for path in (root, root / "config.json", root / "new.json")] == [True, True, False]
        server.files = {**server.files, "new.json": b"{}"}
        assert is_there(root / "new.json")
        assert "new.json" in names_in(root)
        for status in (429, 500):
            at(f"http://127.0.0.1:{server.server_port}")
            server.failing = status
            with pytest.raises(RunError, match=f"config.json can't be reached.*{status}"):
                is_there(root / "config.json")
    at("http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"can't be reached.*ConnectError"):
        is_there(root / "config.json")


def test_no_server_at_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with environment("http://127.0.0.1:9"), pytest.raises(RunError, match="can't be reached"):
        write_json(place("s3://bucket/a.json"), 1)


def test_after_a_fork_the_child_has_connections_of_its_own(bucket: Bucket) -> None:
    path = place(f"{bucket.uri}/a.json")
    write_json(path, [1])
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if read_json(path) == [1] else 1)
    assert os.waitpid(child, 0)[1] == 0


# The lease


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW", 0.2), ("STALE", 30.0), ("SETTLE", 0.1)):
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture
def lapsing(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "STALE", 0.8)


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("not after half a minute")


def test_a_lease_is_taken_renewed_and_given_back(bucket: Bucket, quick: None) -> None:
    root = place(f"{bucket.uri}/out")
    key = f"out/{LOCK}"
    with run_lock(root):
        before = json.loads(bucket.read(key))
        assert before["pid"] == os.getpid()
        wait_for(lambda: json.loads(bucket.read(key))["beats"] > before["beats"])
        assert json.loads(bucket.read(key))["token"] == before["token"]
    assert json.loads(bucket.read(key))["token"] == ""
    Output(root).check_ours()
    start = time.monotonic()
    with run_lock(root):
        assert time.monotonic() - start < lock.STALE / 2, "nobody is waited for"


def test_a_second_run_is_refused_while_the_first_lives(bucket: Bucket, quick: None) -> None:
    root = place(f"{bucket.uri}/out")
    with run_lock(root):
        with pytest.raises(OutputError, match=rf"in use by another run \(process {os.getpid()} on "), run_lock(root):
            raise AssertionError("two have it")
        time.sleep(0.3)  # the first one goes on


def test_the_lock_of_a_dead_run_is_taken_over(bucket: Bucket, lapsing: None) -> None:
    root = place(f"{bucket.uri}/out")
    bucket.write(f"out/{LOCK}", json.dumps({"token": "dead", "pid": 1, "host": "h", "beats": 7}).encode())
    start = time.monotonic()
    with run_lock(root):
        assert time.monotonic() - start >= lock.STALE


@pytest.mark.parametrize("data", [b"", b"\xff", b"[1]", b"{}", b'{"token": 7}'])
def test_a_lock_that_is_damaged_is_nobodys_or_lapses(data: bytes, bucket: Bucket, lapsing: None) -> None:
    bucket.write(f"out/{LOCK}", data)
    with run_lock(place(f"{bucket.uri}/out")):
        pass


def test_a_run_stops_once_another_has_its_lease(bucket: Bucket, quick: None) -> None:
    root = place(f"{bucket.uri}/out")
    theirs = json.dumps({"token": "theirs", "pid": 7, "host": "elsewhere", "since": "today"}).encode()
    with pytest.raises(RunError, match=r"taken over by another run \(process 7 on elsewhere"), run_lock(root):
        bucket.write(f"out/{LOCK}", theirs)
        for _ in range(100):  # in Python, as the driver waits
            time.sleep(0.1)
        raise AssertionError("it goes on for ever")
    assert bucket.read(f"out/{LOCK}") == theirs


def test_of_runs_that_begin_together_one_has_it(bucket: Bucket, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE", 0.5)
    monkeypatch.setattr("_thread.interrupt_main", lambda: None)
    root, held, refused = place(f"{bucket.uri}/out"), [], []
    barrier = threading.Barrier(4)

    def begin(number: int) -> None:
        barrier.wait()
        try:
            with run_lock(root):
                held.append(number)
                time.sleep(1)
        except OutputError:
            refused.append(number)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)


def test_a_lease_outlives_a_short_absence_of_the_store(bucket: Bucket, proxy: Proxy, quick: None) -> None:
    root = place(f"{bucket.uri}/out")
    with run_lock(root):
        proxy.fault = first(1, "refused")
        wait_for(lambda: proxy.done["refused"] == 1)
        before = bucket.read(f"out/{LOCK}")
        wait_for(lambda: bucket.read(f"out/{LOCK}") != before)
    assert json.loads(bucket.read(f"out/{LOCK}"))["token"] == ""


def test_the_lease_is_given_back_though_another_store_is_gone(bucket: Bucket, quick: None) -> None:
    with suppress(StoreAway), run_lock(place(f"{bucket.uri}/out")):
        raise StoreAway("s3://photos/a.png can't be reached")
    assert json.loads(bucket.read(f"out/{LOCK}"))["token"] == ""


@pytest.mark.parametrize("who", ["its lease", "the run itself"])
def test_a_store_that_is_gone_is_not_told_of_the_end(
    who: str, bucket: Bucket, proxy: Proxy, quick: None, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever found that out. Each question would take it a minute or more, and a lease lapses by itself."""
    root = place(f"{bucket.uri}/out")
    with suppress(StoreAway), run_lock(root):
        if who == "its lease":
            proxy.fault = lambda method, path: "gone"
            wait_for(lambda: "can't be renewed" in caplog.text)
        proxy.fault = lambda method, path: "hangs" if path.endswith(LOCK) else "gone"
        wait_for(lambda: proxy.done["hangs"] > 0)
        began = time.monotonic()
        if who == "the run itself":
            read_json(root / "a.json")
    assert time.monotonic() - began < 2


def test_a_lease_outlives_whatever_its_renewal_fails_at(
    bucket: Bucket, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    key = f"out/{LOCK}"
    with run_lock(place(f"{bucket.uri}/out")):
        ours = bucket.read(key)
        bucket.write(key, b"[" * 100_000)  # which is no ValueError, but a RecursionError
        wait_for(lambda: "can't be renewed: maximum recursion depth" in caplog.text)
        bucket.write(key, ours)
        wait_for(lambda: json.loads(bucket.read(key))["beats"] > json.loads(ours)["beats"])


# Inputs


def listed(*paths: str, image_root: str | None = None) -> list[tuple[str, str | None]]:
    listing = Listing(paths, image_root=image_root)
    return [(entry.uri, entry.error.kind if entry.error else None) for entry in listing]


@pytest.fixture
def photos_there(bucket: Bucket) -> str:
    """A folder as a local one would have it: with a hidden file, and one whose name says nothing."""
    for name in ("b.png", "a/2.png", "a/10.png", "c.txt", ".hidden.png", "a/noname", "empty"):
        bucket.write(f"photos/{name}", b"" if name == "empty" else png(len(name)))
    bucket.write("photos/", b"")  # the marker that consoles make
    bucket.write("photos-of-others/d.png", png(1))
    return f"{bucket.uri}/photos"


def test_a_folder_is_listed_as_on_this_machine(photos_there: str, bucket: Bucket, tmp_path: Path) -> None:
    bucket.download("photos", tmp_path / "photos") if not bucket.remove("photos/") else None
    here = [uri.removeprefix(str(tmp_path)) for uri, _ in listed(str(tmp_path / "photos"))]
    assert [uri.removeprefix(bucket.uri) for uri, _ in listed(photos_there)] == here
    assert len(here) == 5


def test_a_folder_of_more_than_a_page(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # of 1000
    names = [f"{number:04d}.png" for number in range(25)]
    for name in names:
        bucket.write(f"many/{name}", b"")
    assert [uri for uri, _ in listed(f"{bucket.uri}/many")] == [f"{bucket.uri}/many/{name}" for name in names]


def test_every_slash_of_a_key_counts(bucket: Bucket) -> None:
    """Folders without a name, and their markers; what has a folder's name and bytes is no image, and counted."""
    keys = ["//a.png", "/b/c.png", "in///d.png", "in//e.png", "in//f/g.png", "in/h//i.png", "in/j.png"]
    for key in keys:
        bucket.write(key, png(len(key)))
    for key in ("in/", "in//", "in/k//"):
        bucket.write(key, b"")
    bucket.write("in/l.png/", png(1))
    for folder, inside in ((bucket.uri, keys), (f"{bucket.uri}/in", keys[2:])):
        listing = Listing([folder])
        uris = [entry.uri for entry in listing]
        assert uris == [f"{bucket.uri}/{key}" for key in inside]
        assert [read(uri, max_bytes=10_000) for uri in uris] == [png(len(key)) for key in inside]
        assert listing.skipped == {"no extension": 1}


def test_names_that_look_like_places_in_files(bucket: Bucket) -> None:
    """And are told from such places, and from what is really called as they are written."""
    keys = ["100%.tar#2.png", "a.parquet#1", "b.tar#c/d%23.png", "e.tar%23f.png"]
    for key in keys:
        bucket.write(f"in/{key}", png(len(key)))
    bucket.write("in/b.tar", wide_tar())
    uris = [entry.uri.removeprefix(bucket.uri) for entry in Listing([f"{bucket.uri}/in", f"{bucket.uri}/in/b.tar"])]
    assert uris[:4] == [
        "/in/./100%25.tar%232.png",
        "/in/./a.parquet%231",
        "/in/b.tar%23c/./d%2523.png",
        f"/in/{keys[3]}",
    ]
    assert uris[4:] == [f"/in/b.tar#{number}.png" for number in range(4)]
    assert [read(f"{bucket.uri}{uri}", max_bytes=10_000) for uri in uris[:4]] == [png(len(key)) for key in keys]
    bucket.write("list.txt", "\n".join(f"{bucket.uri}{uri}" for uri in uris).encode())
    assert listed(f"{bucket.uri}/list.txt") == [(f"{bucket.uri}{uri}", None) for uri in uris]
    bucket.write("list.txt", b"in/./100%25.png")  # as somebody typed it
    assert listed(f"{bucket.uri}/list.txt") == [(f"{bucket.uri}/in/100%25.png", None)]


def test_images_are_read(photos_there: str, bucket: Bucket, proxy: Proxy) -> None:
    for name in ("b.png", "a/10.png"):
        assert read(f"{photos_there}/{name}", max_bytes=10_000) == png(len(name))
    assert read(f"{photos_there}/empty", max_bytes=10_000) == b""
    proxy.sent = 0
    with pytest.raises(ImageError, match="has 77 bytes") as caught:
        read(f"{photos_there}/b.png", max_bytes=20)
    assert (caught.value.kind, proxy.sent) == ("too_large", 0), "its body isn't asked for"
    for name, kind in (("gone.png", "missing"), ("a", "unreadable")):
        with pytest.raises(ImageError) as caught:
            read(f"{photos_there}/{name}", max_bytes=10_000)
        assert caught.value.kind == kind


def test_what_a_store_fails_at_is_no_fault_of_the_image(
    photos_there: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fault = first(2, "cut", ("GET",))
    assert read(f"{photos_there}/b.png", max_bytes=10_000) == png(5)
    proxy.fault = first(1, "refused", ("GET",))
    with pytest.raises(ImageError, match="credentials") as caught:
        read(f"{photos_there}/b.png", max_bytes=10_000)
    assert caught.value.kind == "forbidden"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    places._filesystem.cache_clear()
    proxy.fault = first(99, "busy")
    with pytest.raises(RunError, match=r"b\.png .* after several attempts"):
        read(f"{photos_there}/b.png", max_bytes=10_000)


def test_what_cannot_be_listed(bucket: Bucket) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        Listing([f"{bucket.uri}/nowhere"])
    with pytest.raises(ConfigError, match=r"bucket that isn't there|no such file"):
        Listing(["s3://tests-no-such-bucket/photos"])
    with pytest.raises(ConfigError, match="credentials don't belong"):
        Listing(["s3://key:secret@bucket/photos"])


def after(count: int, what: str) -> Fault:
    """The fault on all downloads but the first."""
    first_ones = iter(range(count))
    return lambda method, path: what if method == "GET" and next(first_ones, None) is None else None


def wide_tar() -> bytes:
    """Four images with texts, and between them more than is read at once."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(4):
            for name, data in (
                (f"{number}.png", png(number)),
                (f"{number}.txt", f"text {number}".encode()),
                (f"{number}.bin", os.urandom(3 << 20)),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_members_of_a_tar_are_read_by_ranges(bucket: Bucket, proxy: Proxy) -> None:
    bucket.write("set/0.tar", wide_tar())
    found = list(Listing([f"{bucket.uri}/set/0.tar"]))
    assert [entry.uri for entry in found] == [f"{bucket.uri}/set/0.tar#{number}.png" for number in range(4)]
    assert [given.text for entry in found for given in entry.given()] == [f"text {n}" for n in range(4)]
    proxy.sent = 0
    assert read(found[2].uri, max_bytes=10_000) == png(2)
    assert proxy.sent < 1000


@pytest.mark.parametrize("what", ["busy", "cut", "gone"])
def test_a_store_that_fails_is_no_end_of_a_tar(what: str, bucket: Bucket, proxy: Proxy, impatient: None) -> None:
    """Nor is half of its index kept."""
    bucket.write("0.tar", wide_tar())
    proxy.fault = after(2, what)  # its first bytes, and the first headers
    with pytest.raises(RunError, match=r"0\.tar can't be reached"):
        list(Listing([f"{bucket.uri}/0.tar"]))
    assert proxy.done[what]
    proxy.fault = never
    assert listed(f"{bucket.uri}/0.tar") == [(f"{bucket.uri}/0.tar#{number}.png", None) for number in range(4)]


def parquet(**columns: Any) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data, row_group_size=1)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "before"),  # what is looked at before it is read
    [
        ("list.txt", b"a.png\n", 0),
        ("urls.tsv", b"url\nhttps://example.org/a.png\n", 0),
        ("m.parquet", parquet(uri=["a.png"]), 0),
        ("c.json", json.dumps({"images": [{"id": 1, "file_name": "a.png"}]}).encode(), 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("what", ["busy", "gone"])
def test_a_store_that_fails_is_no_fault_of_a_list(
    what: str, name: str, data: bytes, before: int, bucket: Bucket, proxy: Proxy, impatient: None
) -> None:
    bucket.write(name, data)
    proxy.fault = after(before, what)
    with pytest.raises(RunError, match=rf"{name} can't be reached"):
        listed(f"{bucket.uri}/{name}")
    assert proxy.done[what]


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_damaged_page_is_a_fault_of_its_rows(where: str, tmp_path: Path) -> None:
    path = place(f"memory://{tmp_path.name}/i.parquet") if where == "there" else tmp_path / "i.parquet"
    data = bytearray(parquet(bytes=[png(1), png(2), png(3)]))
    start = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 16] = b"\xff" * 16
    path.write_bytes(bytes(data))
    uris = [uri for uri, _ in listed(str(path))]
    assert [read(uri, max_bytes=10_000) for uri in uris[::2]] == [png(1), png(3)]
    with pytest.raises(ImageError, match="can't be read as Parquet: Couldn't deserialize thrift") as caught:
        read(uris[1], max_bytes=10_000)
    assert caught.value.kind == "unreadable"


def test_an_arrow_file_that_is_cut_off_is_a_fault_of_its_rows(tmp_path: Path) -> None:
    folder = place(f"memory://{tmp_path.name}")
    write_json(folder / "dataset_info.json", {"features": {"image": {"_type": "Image"}}})
    table = pa.table({"image": [{"bytes": png(1), "path": None}]})
    with aside(folder / "a.arrow") as file:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        file.truncate(file.tell() - 50)
    with pytest.raises(ImageError, match="Expected to be able to read") as caught:
        read(f"{folder}/a.arrow#0", max_bytes=10_000)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("format_", "fault"),
    [
        (Coco(), first(99, "gone", ("GET",), "train.images")),
        (Llava(), first(99, "gone", ("GET",), "train.json")),
        (HuggingFace(), first(99, "gone", ("HEAD",), "x.parquet")),
        (WebDataset(), first(99, "gone", ("GET",), "prefix=to/train/")),
    ],
)
def test_what_an_export_ends_with_says_where_a_store_fails(
    format_: Format, fault: first, bucket: Bucket, proxy: Proxy, impatient: None
) -> None:
    to, shard = place(f"{bucket.uri}/to"), ShardId(0, 0)
    for name in ("train.images", "train.instances", "train.json"):
        bucket.write(f"to/.export/{shard}/{name}", b"{}")
    bucket.write("to/data/train/x.parquet", b"")
    setting = Setting(to, Output(place(f"{bucket.uri}/out")), 0, ("train",), ("cat",), {}, Selection(frozenset(KINDS)))
    proxy.fault = fault
    with pytest.raises(RunError, match="can't be reached"):
        format_.finish(Whole(setting, [shard], {"train": {"images": 1, "regions": 1}}))
    assert proxy.done["gone"]


def test_parquet_manifests_and_lists(bucket: Bucket, proxy: Proxy) -> None:
    for name in ("a.png", "b.png"):
        bucket.write(f"set/{name}", png(len(name)))
    bucket.write("set/list.txt", f"a.png\n{bucket.uri}/set/b.png\n../set/a.png\n".encode())
    assert listed(f"{bucket.uri}/set/list.txt") == [(f"{bucket.uri}/set/{name}.png", None) for name in "ab"]
    for name, column in (
        ("m", pa.table({"uri": ["a.png"], "captions": [["a cat"]]})),
        ("i", pa.table({"bytes": [png(9)]})),
    ):
        data = io.BytesIO()
        pq.write_table(column, data)
        bucket.write(f"set/{name}.parquet", data.getvalue())
    (entry,) = Listing([f"{bucket.uri}/set/m.parquet"])
    assert entry.uri == f"{bucket.uri}/set/a.png"
    assert [given.text for given in entry.given()] == ["a cat"]
    (inside,) = Listing([f"{bucket.uri}/set/i.parquet"])
    assert inside.uri == f"{bucket.uri}/set/i.parquet#0"
    assert read(inside.uri, max_bytes=10_000) == png(9)


def test_coco_beside_its_images(bucket: Bucket) -> None:
    bucket.write("coco/train/a.png", png(3))
    document = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 8, "height": 6},
            {"id": 2, "file_name": "/etc/passwd", "width": 8, "height": 6},
            {"id": 3, "file_name": "s3://elsewhere/secret.png", "width": 8, "height": 6},
        ],
        "categories": [{"id": 5, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]}],
    }
    bucket.write("coco/annotations/instances_train.json", json.dumps(document).encode())
    first_, second, third = Listing([f"{bucket.uri}/coco/annotations/instances_train.json"])
    assert first_.uri == f"{bucket.uri}/coco/train/a.png"
    assert [(given.label, given.box) for given in first_.given()] == [("cat", (1, 2, 4, 6))]
    assert [entry.error.kind for entry in (second, third) if entry.error] == ["outside_root"] * 2


def test_a_slash_behind_a_folder_is_none_of_its_name(bucket: Bucket) -> None:
    bucket.write("set/images/train/a.png", png(3))
    bucket.write("set/data.yaml", b"train: images/train/\nnames: [cat]\n")
    bucket.write("lists/validation-annotations-bbox.csv", b"ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/01,0,1,0,1\n")
    images, lists = f"{bucket.uri}/set/images/train/", f"{bucket.uri}/lists/validation-annotations-bbox.csv"
    for path, root in ((images, None), (f"{bucket.uri}/set/", None), (lists, images)):
        assert listed(path, image_root=root) == [(f"{images}a.png", None)]


def test_lists_lead_nowhere_that_nobody_named(bucket: Bucket, server: Server, tmp_path: Path) -> None:
    other = server.bucket()
    other.write("secret.png", png(1))
    bucket.write("a.png", png(2))
    secret, own = f"{other.uri}/secret.png", f"{bucket.uri}/a.png"
    here = tmp_path / "here.png"
    here.write_bytes(png(3))
    (tmp_path / "list.txt").write_text(f"{secret}\n{here}\n")
    assert listed(str(tmp_path / "list.txt")) == [(secret, "foreign_store"), (str(here), None)]
    assert listed(str(tmp_path / "list.txt"), other.uri) == [(secret, None), (str(here), None)]
    bucket.write("list.txt", f"{secret}\n{here}\nfile://{here}\na.png\n".encode())
    there = f"{bucket.uri}/list.txt"
    assert listed(there) == [(secret, "foreign_store"), (str(here), "outside_root"), (own, None)]
    assert listed(there, f"{other.uri}/secret.png")[0] == (secret, None)
    inside = tmp_path / "inside"
    inside.mkdir()
    bucket.write("list.txt", f"{here}\n{inside}/../here.png\n{inside}/a.png\n".encode())
    assert listed(there, image_root=str(inside)) == [(str(here), "outside_root"), (f"{inside}/a.png", None)]
    bucket.write("list.txt", f"{secret}\n{here}\n".encode())
    # That a file of this machine is named elsewhere does not open it to a list on a store.
    assert (str(here), "outside_root") in listed(there, str(tmp_path / "list.txt"))[:2]


def test_what_changed_since_has_another_stamp(bucket: Bucket) -> None:
    bucket.write("a.png", png(1))
    before = files.stamp(f"{bucket.uri}/a.png")
    assert before == files.stamp(f"{bucket.uri}/a.png")
    bucket.write("a.png", png(2))
    assert before != files.stamp(f"{bucket.uri}/a.png")


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = (
        "import engine.listing, engine.storage, sys; print({'fsspec', 's3fs', 'upath', 'botocore'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
