"""Listing real folders, lists and manifests, with everything that people have in them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine import listing
from engine.entry import GivenText
from engine.errors import ConfigError, ImageError
from engine.listing import Listing
from engine.reading import read
from engine.uris import uri_of

NOT_UNICODE = os.fsdecode(b"caf\xe9.jpg")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def uris(*paths: str | Path) -> list[str]:
    return [entry.uri for entry in Listing(paths)]


def names(root: Path, entries: Iterable[str]) -> list[str]:
    return [uri.removeprefix(f"{root}/") for uri in entries]


# Folders


def test_a_folder_is_sorted_at_every_level(tmp_path: Path) -> None:
    expected = ["B.jpg", "a/2.jpg", "a/b/1.jpg", "a/b.jpg", "a.jpg", "b/10.jpg", "b/9.jpg", "z.jpg"]
    touch(tmp_path, *reversed(expected))
    assert names(tmp_path, uris(tmp_path)) == expected
    assert uris(tmp_path) == uris(str(tmp_path) + "/") == uris(tmp_path / "a" / "..")


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "set/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert uris("set") == uris("set/a.jpg") == uris("./set/../set") == [f"{tmp_path}/set/a.jpg"]


def test_listing_is_lazy_and_can_be_repeated(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg", "b/notes.txt")
    found = Listing([tmp_path])
    entries = iter(found)
    assert next(entries).uri == f"{tmp_path}/a/1.jpg"
    touch(tmp_path, "b/4.jpg")  # b has not been looked into
    assert [entry.uri for entry in entries] == [f"{tmp_path}/{name}.jpg" for name in ("a/2", "b/3", "b/4")]
    assert len(list(found)) == 4 and found.skipped == {".txt": 1}


def test_an_image_with_a_row_for_each_caption_has_them_all(tmp_path: Path) -> None:
    rows = {"uri": ["0.jpg", "0.jpg", "0.jpg", "1.jpg", "0.jpg"], "caption": ["a", "b", "c", "d", "e"]}
    pq.write_table(pa.table(rows | {"labels": ["x", "y", "x", "z", "w"]}), tmp_path / "set.parquet")
    found = Listing([tmp_path / "set.parquet"])
    first, second = found
    assert [one.text for one in first.given() if isinstance(one, GivenText)] == ["a", "b", "c"]
    assert first.labels == ("x", "y") and second.labels == ("z",)
    assert found.repeated == 3
    assert found.faults.counts == {"repeated_image": 2}  # the text and the label that came later


def test_names_that_are_too_long_are_left_out(tmp_path: Path) -> None:
    rows = {
        "uri": ["0.jpg", "1" * 2**15, "2.jpg"],
        "dataset": ["a" * 1000, "b", "c" * 1001],
        "licence": ["a" * 1000, "b", "c" * 1001],
        "labels": [["a" * 1000, "b" * 1001], [], ["c"]],
    }
    pq.write_table(pa.table(rows), tmp_path / "set.parquet")
    found = Listing([tmp_path / "set.parquet"])
    first, second, third = found
    assert (first.dataset, first.licence, first.labels, first.error) == ("a" * 1000, "a" * 1000, ("a" * 1000,), None)
    assert second.error and (second.error.stage, second.error.kind) == ("ingest", "too_long")
    assert second.uri.startswith(f"{tmp_path}/111") and len(second.uri) < 300
    assert (third.dataset, third.licence, third.labels) == (None, None, ("c",))
    assert found.faults.counts == {"too_long": 3}
    assert found.faults.first[0].message.startswith("a text of 1,001 characters, more than 1,000")


def test_images_by_name_or_content(tmp_path: Path) -> None:
    extensions = sorted(listing.IMAGE_EXTENSIONS)
    touch(tmp_path, *(f"{n}{extension}" for n, extension in enumerate(extensions)), "x.JPG", "y.TiFF")
    for format_ in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"by content {format_}", format_)
    Image.new("RGB", (8, 8)).save(tmp_path / "really.txt", "PNG")
    (tmp_path / "text").write_bytes(b"BMW, GIFs and RIFFs")
    found = Listing([tmp_path])
    assert len(list(found)) == len(extensions) + 2 + 7 + 1
    assert found.skipped == {"no extension": 1}


def test_what_is_skipped_is_counted_by_extension(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", *(f"{n}.json" for n in range(10)), "1.txt", "sub/2.TXT", "README", "2024.01 a long name")
    touch(tmp_path, "list.parquet", ".hidden.jpg", ".git/a.jpg", "__MACOSX/a.jpg", "sub/Thumbs.db", "sub/._a.jpg")
    touch(tmp_path, os.fsdecode(b"x.caf\xe9"))
    found = Listing([tmp_path])
    assert len(list(found)) == 1
    assert found.skipped == {".json": 10, ".txt": 2, ".parquet": 1, "no extension": 3}
    assert found.describe_skipped() == (
        "skipped 16 files that are not images by name or content (.json 10, no extension 3, .txt 2, .parquet 1)"
    )


def test_nothing_skipped_is_nothing_to_say(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    found = Listing([tmp_path])
    assert len(list(found)) == 1 and found.describe_skipped() == ""


def test_a_hidden_folder_that_was_asked_for_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, ".cache/a.jpg")
    assert uris(tmp_path / ".cache") == [f"{tmp_path}/.cache/a.jpg"]


@pytest.mark.parametrize(
    "name", ["line\nbreak.jpg", " leading and trailing .jpg", "snow☃🎈.png", "a#1.jpg", "100%25.gif"]
)
def test_odd_names_come_as_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    (uri,) = uris(tmp_path)
    assert uri == f"{tmp_path}/{name}"
    assert read(uri, max_bytes=7) == b"content"


@pytest.mark.parametrize("name", [NOT_UNICODE, "x.parquet#3"])
def test_names_that_need_a_file_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.new("RGB", (8, 8)).save(path, "JPEG")
    (uri,) = uris(tmp_path)
    assert uri == path.as_uri() and uri.isascii()
    assert read(uri, max_bytes=10_000) == path.read_bytes()


names_in_folders = st.lists(
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(b"/\0") & set(name) and name[:1] != b"."),
    min_size=1,
    max_size=8,
    unique_by=lambda name: os.fsdecode(name).lower(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names_in_folders)
def test_any_name_can_be_listed_and_read(tmp_path_factory: pytest.TempPathFactory, stems: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("names")
    for stem in stems:
        (folder / os.fsdecode(stem + b".jpg")).write_bytes(stem)
    found = uris(folder)
    assert sorted(read(uri, max_bytes=12) for uri in found) == sorted(stems)
    for uri in found:
        uri.encode()


def test_links(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "elsewhere/deep/2.jpg", "set/a.jpg")
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/b.jpg").symlink_to(tmp_path / "set/a.jpg")
    (tmp_path / "set/dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set/circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "set/dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set/circle").symlink_to("circle")
    found = Listing([tmp_path / "set"])
    expected = ["a.jpg", "b.jpg", "circle.jpg", "dangling.jpg", "linked/1.jpg", "linked/deep/2.jpg"]
    assert names(tmp_path / "set", [entry.uri for entry in found]) == expected
    assert found.skipped == {"no extension": 2}
    for name in ("circle.jpg", "dangling.jpg"):
        with pytest.raises(ImageError) as error:
            read(f"{tmp_path}/set/{name}", max_bytes=1)
        assert error.value.kind == "missing"


def test_folders_that_link_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/to b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to a").symlink_to(tmp_path / "a")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path)
    found = Listing([tmp_path])
    assert names(tmp_path, [entry.uri for entry in found]) == ["a/1.jpg", "a/to b/2.jpg"]
    # Of "a/to b": "to a" and "up"; of the top: "b", by then listed as "a/to b", and "self".
    assert found.skipped == {"folder listed already": 4}
    assert found.describe_skipped() == "folder listed already 4"


def test_very_deep_folders(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python's recursion, within the length of a path
        os.mkdir("d", dir_fd=here)
        inside = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inside
    os.close(os.open("deep.jpg", os.O_CREAT, dir_fd=here))
    os.close(here)
    assert uris(tmp_path) == [f"{tmp_path}/{'d/' * 1500}deep.jpg"]
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest's clean-up is recursive


def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # socket paths are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.sock")
        found = Listing([tmp_path])
        assert names(tmp_path, [entry.uri for entry in found]) == ["a.jpg", "pipe.jpg"]
    assert found.skipped == {"no extension": 1, ".sock": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folders_without_permission(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "secret/b.jpg", "file")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "file").chmod(0)
    try:
        found = Listing([tmp_path])
        assert len(list(found)) == 1
        assert found.skipped == {"unreadable folder": 1, "no extension": 1}
        with pytest.raises(ConfigError, match="secret can't be read: Permission denied"):
            uris(tmp_path / "secret")
    finally:
        (tmp_path / "secret").chmod(0o700)


# What is given


def test_a_path_that_does_not_exist_stops(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "set/b.jpg")
    for paths in ([tmp_path / "sett"], [tmp_path / "a.jpg", tmp_path / "sett"], [tmp_path / "b.jpg"], [""]):
        with pytest.raises(ConfigError, match=re.escape(f"no such file or folder: {paths[-1]}")):
            Listing(paths)


def test_one_of_several_images_may_be_gone(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    assert names(tmp_path, uris(tmp_path / "a.jpg", tmp_path / "gone.jpg")) == ["a.jpg", "gone.jpg"]


def test_a_file_that_is_given_is_an_image(tmp_path: Path) -> None:
    touch(tmp_path, "notes.md", "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path, uris(tmp_path / "notes.md", tmp_path / "a", tmp_path / "dangling")) == [
        "notes.md",
        "a",
        "dangling",
    ]


def test_nothing_at_all_is_explained(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no images in .*: no files seen; expected images by name \(\.apng .*\.webp\)"
    ):
        uris(tmp_path)
    touch(tmp_path, "1.json", "2.json", "a.parquet")
    with pytest.raises(
        ConfigError, match=r"no images in .*: skipped 3 files .*\(\.json 2, \.parquet 1\); expected .*manifest"
    ):
        uris(tmp_path)
    with pytest.raises(ConfigError, match="no images in no paths"):
        uris()


def test_what_is_listed_twice_comes_once(tmp_path: Path) -> None:
    touch(tmp_path, "set/a.jpg", "set/b.jpg")
    (tmp_path / "list.txt").write_text(f"set/b.jpg\nset/../set/a.jpg\n{(tmp_path / 'set/a.jpg').as_uri()}\nset/c.jpg\n")
    found = Listing([tmp_path / "set", tmp_path / "set/b.jpg", tmp_path / "list.txt"])
    assert names(tmp_path / "set", [entry.uri for entry in found]) == ["a.jpg", "b.jpg", "c.jpg"]
    assert found.repeated == 4


# Sets


def test_class_folders(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    touch(
        tmp_path, "set/top.jpg", "set/n02084071/a.jpg", "set/n02084071/deep/b.jpg", f"set/{odd}/c.jpg", "other/x/d.jpg"
    )
    found = {
        os.path.basename(entry.uri): entry.labels
        for entry in Listing([tmp_path / "set", tmp_path / "other"], class_folders=True)
    }
    assert found == {
        "top.jpg": (),
        "a.jpg": ("n02084071",),
        "b.jpg": ("n02084071",),
        "c.jpg": ("caf\ufffd",),
        "d.jpg": ("x",),
    }
    assert not any(entry.labels for entry in Listing([tmp_path / "set"]))


def test_annotated_sets_come_first_so_that_a_folder_listed_before_them_hides_nothing(tmp_path: Path) -> None:
    for name, image in (("1.json", "a.jpg"), ("2.json", "b.jpg")):
        (tmp_path / name).write_text(f'{{"images": [{{"id": 1, "file_name": "{image}"}}]}}')
    for name, image in (("1.csv", "c"), ("2.csv", "d")):
        (tmp_path / name).write_text(f"ImageID,Source,LabelName,Confidence\n{image},human,/m/cat,1\n")
    touch(tmp_path, "a.jpg", "set/z.jpg", "set/y.json", "folder.json/x.jpg")
    order = ["set", "a.jpg", "1.json", "1.csv", "2.json", "folder.json", "2.csv"]
    expected = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "z.jpg", "x.jpg"]
    found = Listing([tmp_path / name for name in order])
    assert [os.path.basename(entry.uri) for entry in found] == expected
    assert found.skipped == {".json": 1} and found.repeated == 1
    assert found.faults.counts == {"unknown_category": 1}


def test_an_image_of_a_folder_and_a_set_comes_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "x.json").write_text('{"images": [{"id": 1, "file_name": "a.jpg"}]}')
    found = Listing([tmp_path / "x.json", tmp_path])
    assert names(tmp_path, [entry.uri for entry in found]) == ["a.jpg"]
    assert found.repeated == 1


# Lists


def test_lists(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbfa.jpg",
        b"",
        b"   ",
        b"sub/b c.jpg\r",
        b" d.jpg ",
        b"/absolute/e.jpg",
        b"../f.jpg",
        b"file:///g%20h.jpg",
        b"caf\xe9.jpg",
        b"rows.parquet#3",
        b"file:///r.parquet#4",
        b"https://example.org/i.jpg",
        b"s3://bucket/r.parquet#5",
        "snow☃.jpg".encode(),
    ]
    (tmp_path / "list.TXT").write_bytes(b"\n".join(lines))
    assert uris(tmp_path / "list.TXT") == [
        f"{tmp_path}/a.jpg",
        f"{tmp_path}/sub/b c.jpg",
        f"{tmp_path}/ d.jpg ",
        "/absolute/e.jpg",
        f"{tmp_path.parent}/f.jpg",
        "/g h.jpg",
        (tmp_path / NOT_UNICODE).as_uri(),
        f"{tmp_path}/rows.parquet#3",
        "/r.parquet#4",
        "https://example.org/i.jpg",
        "s3://bucket/r.parquet#5",
        f"{tmp_path}/snow☃.jpg",
    ]


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n", encoding="utf-16")
    with pytest.raises(
        ConfigError, match=r"list\.txt can't be read as a list of paths: line 1 has a zero byte; expected UTF-8"
    ):
        uris(tmp_path / "list.txt")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
@settings(deadline=None)
def test_repeats_are_told_where_the_images_are_too_many_for_the_memory(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int]
) -> None:
    path = tmp_path_factory.mktemp("listed") / "list.txt"
    path.write_text("".join(f"{n}.jpg\n" for n in numbers))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.spill.FEW", 2)
        listing = Listing([path])
        assert [Path(entry.uri).stem for entry in listing] == list(map(str, dict.fromkeys(numbers)))
    assert listing.repeated == len(numbers) - len(set(numbers))


# URIs


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_uris_of_valid_paths_are_the_paths(name: str) -> None:
    path = os.path.abspath(f"/{name}")
    assert uri_of(path) == path or (re.search(r"\.parquet#\d+$", path, re.I) and uri_of(path) == Path(path).as_uri())
