"""Lists of URLs as people have them, and an ingest of one from a real server that then goes away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from web import Handler, page, serving

from engine.annotate import open_image
from engine.config import Http, Ingest, load_config
from engine.entry import Entry, GivenText
from engine.errors import ConfigError, ImageError
from engine.ingest import ingest, listed_digest, restore
from engine.layout import Output, ShardId
from engine.listing import Listing
from engine.reading import read
from engine.records import ALT
from engine.sources import tables
from engine.storage import read_given, read_items
from engine.uris import download_of

A, B, C = (f"https://example.org/{name}.jpg" for name in "abc")


def listed(path: Path) -> tuple[list[tuple[str, str | None, str | None, str]], list[tuple[str, str]]]:
    """The entries as (uri, text, licence, where), and the faults as (where, kind)."""
    listing = Listing([path])
    rows = []
    for entry in listing:
        texts = [text for text in entry.given() if isinstance(text, GivenText)]
        assert len(texts) == len(entry.given()) <= 1 and all(text.source == ALT for text in texts)
        text, where = (texts[0].text, texts[0].where) if texts else (None, "")
        rows.append((entry.uri, text, entry.licence, where))
    return rows, [(fault.where, fault.kind) for fault in listing.faults.first]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(data: str | bytes, name: str = "list.tsv") -> Path:
        (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["url", "URL", " Image_URL ", "uri"])
@pytest.mark.parametrize("text", ["caption", "alt", "alt_text", "text", "TEXT", "Caption"])
@pytest.mark.parametrize(("extension", "between"), [("csv", ","), ("TSV", "\t")])
def test_columns_by_name(written: Callable[..., Path], name: str, text: str, extension: str, between: str) -> None:
    lines = [["n", text, name, "License"], ["1", "a cat", A, "CC0"], ["2", "", B, ""], ["3", " a dog ", f" {C} ", "?"]]
    path = written("\n".join(between.join(line) for line in lines), f"list.{extension}")
    assert listed(path)[0] == [
        (A, "a cat", "CC0", f"line 2 of list.{extension}"),
        (B, None, None, ""),
        (C, "a dog", "?", f"line 4 of list.{extension}"),
    ]


def test_lists_without_a_header(written: Callable[..., Path]) -> None:
    """As CC3M's, captions with quotes and all, and CC12M's, which have the URL first."""
    expected = [(A, '"hello" says a cat', None, "line 1 of list.tsv"), (B, '"a dog', None, "line 2 of list.tsv")]
    assert listed(written(f'"hello" says a cat\t{A}\n"a dog\t{B}\n')) == (expected, [])
    assert listed(written(f'{A}\t"hello" says a cat\n{B}\t"a dog\n')) == (expected, [])
    assert listed(written(f'"a dog\t{B}\n'))[0] == [(B, '"a dog', None, "line 1 of list.tsv")]
    assert listed(written(f"{A}\r\n{B}\r\n")) == ([(A, None, None, ""), (B, None, None, "")], [])


def test_csv_quotes_and_line_breaks(written: Callable[..., Path]) -> None:
    rows, faults = listed(written(f'url,text\n{A},"a ""cat"",\nand\ta dog"\n"{B},c",x\n', "list.csv"))
    assert rows == [
        (A, 'a "cat",\nand\ta dog', None, "line 2 of list.csv"),
        (f"{B},c", "x", None, "line 4 of list.csv"),
    ]
    assert faults == []


def test_tabs_and_quotes(written: Callable[..., Path]) -> None:
    """Quotes around a whole field are pandas'; all others are the texts' own, with a header as without one."""
    texts = {'"a ""cat"""': 'a "cat"', '"a dog': '"a dog', '"a" and "b"': '"a" and "b"', 'a "b': 'a "b', '"': '"'}
    lines = [f"https://example.org/{n}.jpg\t{text}" for n, text in enumerate(texts)]
    for header in ("", '"url"\t"text"\n'):
        rows, faults = listed(written(header + "\n".join(lines), "{0} {list}.tsv"))
        assert [text for _, text, *_ in rows] == list(texts.values())
        assert not faults and rows[0][3] == f"line {1 + bool(header)} of {{0}} {{list}}.tsv"


def test_lists_without_a_header_and_with_more_columns(written: Callable[..., Path]) -> None:
    for first in (f"000001,{A},a cat,x9", f"{B.replace('b.jpg', '')},a cat,12,{A}", f"1,a cat,,{A}"):
        (row,), faults = listed(written(first, "list.csv"))
        assert row[1] == "a cat" and not faults


def test_bytes_that_are_no_utf_8(written: Callable[..., Path]) -> None:
    """Of Windows, which has no 0x81; a line that is UTF-8 is taken as such."""
    data = b"\xef\xbb\xbfurl,text\n" + f"{A},caf".encode() + b"\xe9 \x81\n" + f"{B},a\0b \u00e9\n{C}".encode()
    assert listed(written(data + b"\xdf,x\n", "list.csv")) == (
        [
            (A, "caf\u00e9 \ufffd", None, "line 2 of list.csv"),
            (B, "a\0b \u00e9", None, "line 3 of list.csv"),
            (f"{C}\u00df", "x", None, "line 4 of list.csv"),
        ],
        [("line 2 of list.csv", "not_utf8")],
    )


@pytest.mark.parametrize(
    "row",
    ["", "   ", "ftp://a/b.jpg", "javascript:alert(1)", "data:image/png;base64,AA", "a.jpg", "//a/b.jpg", "file:///a"],
)
def test_rows_without_a_url(written: Callable[..., Path], row: str) -> None:
    rows, faults = listed(written(f"text\turl\nx\t{row}\ny\t{A}\nz\n\n\n"))
    assert [uri for uri, *_ in rows] == [A]
    assert faults == [("line 2 of list.tsv", "bad_url"), ("line 4 of list.tsv", "bad_url")]
    listing = Listing([written(f"text\turl\nx\t{row}\n")])
    with pytest.raises(ConfigError, match=r"no images in .*line 2 of list\.tsv: .*the row was left out"):
        list(listing)


@pytest.mark.parametrize("after", [[], [f'{C},"a ""dog"", and', 'more"']])
@pytest.mark.parametrize("count", [1, 300])
def test_a_quote_that_never_ends(written: Callable[..., Path], after: list[str], count: int) -> None:
    """Neither at the end of the file, nor within the longest field, nor in the next quoted field: it costs its row."""
    middle = [f"https://example.org/{n}.jpg,{'x' * 1000}" for n in range(count)]
    rows, faults = listed(written("\n".join(["url,text", f'{A},"a cat', f"{B},b", *middle, *after]), "list.csv"))
    assert [uri for uri, *_ in rows] == [B, *(line.partition(",")[0] for line in middle), *([C] if after else [])]
    assert rows[0] == (B, "b", None, "line 3 of list.csv")
    assert faults == [("line 2 of list.csv", "bad_row")]
    if after:
        assert rows[-1] == (C, 'a "dog", and\nmore', None, f"line {count + 4} of list.csv")


def test_quotes_that_do_not_hold_a_field_together(written: Callable[..., Path]) -> None:
    rows, faults = listed(written(f'url,text\n{A},"a" cat\n{B},5" dog\n{C}, "x"\n', "list.csv"))
    assert [text for _, text, *_ in rows] == ["a cat", '5" dog', '"x"'] and not faults


@pytest.mark.parametrize("name", ["list.csv", "list.tsv"])
def test_a_bad_first_row_is_counted_once(written: Callable[..., Path], name: str) -> None:
    between = "," if name == "list.csv" else "\t"
    for data in (f"{'x' * 200_000}\nurl{between}text\n{A}{between}a\n", f"{'x' * 200_000}\n{A}{between}a\n"):
        rows, faults = listed(written(data, name))
        assert [row[:2] for row in rows] == [(A, "a")] and faults == [(f"line 1 of {name}", "bad_row")]


def test_lines_that_never_end(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 1000)
    rows, faults = listed(written(f"url\ttext\n{A}\t{'x' * 5000}\n{B}\ty\n"))
    assert [uri for uri, *_ in rows] == [A, B] and {kind for _, kind in faults} == {"bad_url"}


def test_urls_that_are_listed_twice(written: Callable[..., Path], tmp_path: Path) -> None:
    listing = Listing([written(f"text\turl\na cat\t{A}\na dog\t{B}\na tabby\t{A}\n\t{B}\n"), tmp_path / "list.tsv"])
    assert [entry.uri for entry in listing] == [A, B]
    assert listing.repeated == 2 + 4
    faults = [(fault.where, fault.kind, "a tabby" in fault.message) for fault in listing.faults.first]
    repeated = "repeated_url"
    assert faults[0] == ("line 4 of list.tsv", repeated, True)
    # What is listed right behind itself comes together, and the same text once.
    assert [fault[0] for fault in faults[1:]] == [f"line {n} of list.tsv" for n in (2, 4)]


@pytest.mark.parametrize(
    ("data", "name", "found"),
    [
        (b"name,size\na,1\n", "list.csv", "'name', 'size'"),
        (b"a.jpg\nb.jpg\n", "list.tsv", "'a.jpg'"),
        (b"", "list.csv", "none"),
        ("url,text\n".encode("utf-16"), "list.csv", "'"),
        (b"\0" * 5000, "list.csv", "'"),
        (f"url;text\n{A};x\n".encode(), "list.csv", "'url;text'"),
    ],
)
def test_what_is_no_list_of_urls(written: Callable[..., Path], data: bytes, name: str, found: str) -> None:
    with pytest.raises(ConfigError) as error:
        list(Listing([written(data, name)]))
    for word in (f"{name} is no list of URLs", "url, image_url, uri", "caption, alt", f"found the columns {found}"):
        assert word in str(error.value)


def test_a_list_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no such file: .*link\.csv"):
        list(Listing([tmp_path / "link.csv"]))


# Parquet


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "list.parquet", row_group_size=2)
    return folder / "list.parquet"


def test_laion(tmp_path: Path) -> None:
    texts = pa.array(["a cat", None, "a dog", "x"]).dictionary_encode()
    path = parquet(tmp_path, SAMPLE_ID=range(4), TEXT=texts, URL=[A, B, C, None], LICENSE=["?", None, "CC0", None])
    rows, faults = listed(path)
    assert rows == [
        (A, "a cat", "?", "row 0 of list.parquet"),
        (B, None, None, ""),
        (C, "a dog", "CC0", "row 2 of list.parquet"),
    ]
    assert faults == [("row 3 of list.parquet", "bad_url")]


def test_strings_that_are_no_utf_8(tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(1, *pa.array([b"caf\xe9"]).buffers()[1:])
    assert listed(parquet(tmp_path, url=[A], text=broken))[0] == [(A, "caf�", None, "row 0 of list.parquet")]


def test_a_parquet_with_uris_is_a_manifest(tmp_path: Path) -> None:
    assert list(Listing([parquet(tmp_path, uri=[A, "b.jpg"], url=[B, C])])) == [Entry(A), Entry(f"{tmp_path}/b.jpg")]
    path = parquet(tmp_path, bytes=[b"0"], url=[A])
    assert list(Listing([path])) == [Entry(f"{path}#0")]
    assert [entry.uri for entry in Listing([parquet(tmp_path, image=["a.jpg"], url=[A])])] == [A]


def test_columns_that_are_no_strings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"list\.parquet: column `url` must be string, not int64"):
        list(Listing([parquet(tmp_path, url=[1])]))
    with pytest.raises(ConfigError, match=r"column `text` must be string, not list"):
        list(Listing([parquet(tmp_path, url=[A], text=[["x"]])]))
    (tmp_path / "list.parquet").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"list\.parquet can't be read as a Parquet"):
        list(Listing([tmp_path / "list.parquet"]))


# Elsewhere


def test_urls_in_place_of_paths(tmp_path: Path) -> None:
    assert list(Listing([A, B])) == [Entry(A), Entry(B)]
    (tmp_path / "pipeline.yaml").write_text(f"ingest: {{images: [photos, '{A}']}}")
    assert load_config(tmp_path / "pipeline.yaml").ingest.images == (f"{tmp_path}/photos", A)


@pytest.mark.parametrize(
    "settings", [{"user_agent": "a\r\nX: y"}, {"user_agent": ""}, {"attempts": 0}, {"connection": 1}]
)
def test_settings_that_are_wrong(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "pipeline.yaml").write_text("{}")
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=rf"ingest\.http\.{name}"):
        load_config(tmp_path / "pipeline.yaml", overrides={f"ingest.http.{name}": value})


# From a list to a dataset


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_from_a_list_to_a_dataset_and_again_without_the_net(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Twenty images, one of them twice, and what goes wrong with others; shards of three."""
    folder = image_set(20)
    images = [(folder / name).read_bytes() for name in sorted(os.listdir(folder))]
    with serving() as web:
        web.pages = {f"/{n}.png": page(data) for n, data in enumerate(images)}
        web.pages |= {"/copy.png": page(images[0]), "/page.png": page(b"<html>"), "/busy.png": page(b"", 503)}
        names = [*(f"{n}.png" for n in range(20)), "copy.png", "gone.png", "page.png", "busy.png", "reset.png"]
        web.pages["/reset.png"] = Handler.reset
        rows = [f"{web.url('/' + name)}\ta picture of {name}\tCC0" for name in names]
        (tmp_path / "list.tsv").write_text("\n".join(["url\tcaption\tlicence", *rows, "ftp://a/b\tx\tCC0", rows[3]]))
        http = Http(private_addresses=True, backoff_seconds=0, attempts=2)
        config = Ingest(images=(str(tmp_path / "list.tsv"),), http=http, shard_size=3)
        output = Output(tmp_path / "out")
        digest = listed_digest(config)
        assert not web.asked
        done: list[int] = []
        manifest = ingest(output, config, "digest", done.append)
        assert sum(done) == 25 and manifest["listed"] == digest
        assert web.asked == {f"/{name}": 2 if name in ("busy.png", "reset.png") else 1 for name in names}
    assert manifest["errors"] == {"http_404": 1, "http_503": 1, "not_an_image": 1, "unreachable": 1}
    assert manifest["given"] == {"alt texts": 21} and manifest["duplicates"] == 1
    assert manifest["faults"] == {"bad_url": 1, "repeated_url": 1, "unread_image": 4}
    records = [record for shard in output.shards() for record in read_given(output, shard)]
    assert [record.item.uri.rpartition("/")[2] for record in records] == names
    for n, record in enumerate(records[:20]):
        assert open_image(record.item, config, output.downloads).shape == (96, 96, 3)
        assert [(text.source, text.text) for text in record.texts] == [(ALT, f"a picture of {n}.png")]
    before = files(output.root)
    output.manifest.unlink()
    ingest(output, config, "digest", lambda items: None)
    assert files(output.root) == before


def test_what_is_there_is_not_fetched_again(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """A killed ingest leaves downloads of shards that it never wrote; a lost download is fetched again."""
    folder = image_set(9)
    with serving() as web:
        web.pages = {f"/{name}": page((folder / name).read_bytes()) for name in os.listdir(folder)}
        (folder / "list.txt").write_text("".join(f"{web.url('/' + name)}\n" for name in sorted(os.listdir(folder))[:9]))
        config = Ingest(images=(str(folder / "list.txt"),), shard_size=3, http=Http(private_addresses=True))
        output = Output(tmp_path / "out")
        ingest(output, config, "digest", lambda items: None)
        before = files(output.root)
        output.manifest.unlink()
        output.items(ShardId(0, 1)).unlink()
        ingest(output, config, "digest", lambda items: None)
        assert files(output.root) == before and set(web.asked.values()) == {1}
        lost = read_items(output, ShardId(0, 2))[0]
        (output.downloads / lost.item_id.hex()[:2] / lost.item_id.hex()).unlink()
        output.manifest.unlink()
        ingest(output, config, "digest", lambda items: None)
        assert files(output.root) == before and web.asked.total() == 10


def test_a_download_that_is_lost_is_fetched_by_what_is_said_of_it(
    image_set: Callable[..., Path], tmp_path: Path
) -> None:
    folder, output = image_set(2), Output(tmp_path / "out")
    with serving() as web:
        web.pages = {f"/{name}": page((folder / name).read_bytes()) for name in sorted(os.listdir(folder))[:2]}
        (folder / "list.txt").write_text("".join(f"{web.url(name)}\n" for name in web.pages))
        config = Ingest(images=(str(folder / "list.txt"),), http=Http(private_addresses=True))
        ingest(output, config, "digest", lambda items: None)
        before, item = files(output.root), read_items(output, ShardId(0, 0))[1]
        download_of(output.downloads, item.uri).unlink()
        with pytest.raises(ImageError, match=rf"Remove the shard in {output.root / 'images'} that lists it"):
            read(item.uri, max_bytes=config.max_bytes, downloads=output.downloads)
        output.items(ShardId(0, 0)).unlink()
        restore(output, config)
        assert files(output.root) == before and web.asked.total() == 3


class Stopped(BaseException):
    """As KeyboardInterrupt, which pytest takes for its own."""


def test_an_ingest_that_is_stopped_ends_at_once(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Its hosts would take half a minute each to answer."""
    folder = image_set(3)

    def stop(items: int) -> None:
        raise Stopped

    with serving() as web:
        web.pages = {f"/{n:04d}.png": page((folder / f"{n:04d}.png").read_bytes()) for n in range(3)}
        web.pages |= {f"/{n}": Handler.silence for n in range(200)}
        lines = [*web.pages][:3] + [f"/{n}" for n in range(200)]
        (folder / "list.txt").write_text("".join(f"{web.url(line)}\n" for line in lines))
        http = Http(private_addresses=True, timeout_seconds=60, total_seconds=60)
        config = Ingest(images=(str(folder / "list.txt"),), shard_size=3, http=http)
        with pytest.raises(Stopped):
            ingest(Output(tmp_path / "out"), config, "digest", stop)
        assert not web.gone.is_set() and web.asked.total() <= 3 + 32
    assert not Output(tmp_path / "out").manifest.exists()
    assert [*files(tmp_path / "out")].count("images/part-00000/shard-00001.parquet") == 0
