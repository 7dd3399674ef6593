"""WebDataset: its own loader gives back all that stands, and no byte of a shard depends on when it was written."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from exporting import SHARES, asked, run, standing
from hypothesis import given
from hypothesis import strategies as st
from known import HOSTILE, document_of, documents_in, known, single
from PIL import Image
from webdataset import WebDataset as Loader

from engine.config import Run
from engine.errors import RunError
from engine.export.run import Export, _digest, _setting, write_part
from engine.export.webdataset import WebDataset, _header, braces, captions_of
from engine.images import decode
from engine.layout import Output
from engine.reading import read


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return known(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def exported(output: Output, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("export") / "to"
    run(asked(output, WebDataset(), to))
    return to


def loaded(*shards: str) -> list[dict[str, Any]]:
    return list(Loader(list(shards) if len(shards) > 1 else shards[0], shardshuffle=False).decode("pil"))


def test_the_library_gives_back_what_stands(output: Output, exported: Path) -> None:
    samples = [
        (split, sample)
        for split in SHARES
        for sample in loaded(*[str(path) for path in sorted((exported / split).glob("*.tar"))])
    ]
    records = standing(output)
    assert sorted(sample["__key__"] for _, sample in samples) == sorted(records)
    for split, sample in samples:
        record = records[sample["__key__"]]
        document = single(sample["json"])
        assert document == document_of(record, split=split)
        brief = sorted(document["texts"], key=lambda text: (text["detail"] != "brief", text["composed"]))
        assert sample.get("txt") == (brief[0]["text"] if brief else None)
    assert sum(len(sample["json"]["triplets"]) for _, sample in samples) == 6 * 5
    assert any(HOSTILE[5] in text["text"] for _, sample in samples for text in sample["json"]["texts"])


def test_images_are_the_files_themselves_unless_they_have_to_be_turned(output: Output, exported: Path) -> None:
    turned = 0
    for path in sorted(exported.glob("*/*.tar")):
        with tarfile.open(path) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        for name, data in members.items():
            key, _, extension = name.partition(".")
            if extension in ("json", "txt"):
                continue
            document = json.loads(members[f"{key}.json"])
            there = read(document["uri"], max_bytes=10**8)
            assert Image.open(BytesIO(data)).size == (document["width"], document["height"])
            if document["uri"].endswith("turned.jpg"):
                turned += 1
                was = decode(there, max_pixels=10**8).astype(int)
                assert data != there and not Image.open(BytesIO(data)).getexif()
                assert np.abs(np.asarray(Image.open(BytesIO(data))).astype(int) - was).mean() < 8
            else:
                assert data == there
    assert turned == 1


def test_members_come_in_order_and_say_nothing_of_who_wrote_them(exported: Path) -> None:
    for path in sorted(exported.glob("*/*.tar")):
        with tarfile.open(path) as archive:
            members = archive.getmembers()
        assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in members} <= {
            (0, 0, 0, "", "", 0o644)
        }
        keys = [member.name.partition(".")[0] for member in members]
        assert all(member.name.count(".") == 1 for member in members)
        assert len(set(keys)) == sum(keys[n] != keys[n - 1] for n in range(len(keys))) or len(set(keys)) <= 1


def test_a_killed_export_goes_on_to_the_same_bytes(output: Output, exported: Path, tmp_path: Path) -> None:
    one = asked(output, WebDataset(), tmp_path / "to")
    begin(one, shards=2)
    run(one)
    there = {path.relative_to(exported): path.read_bytes() for path in exported.rglob("*.*") if path.is_file()}
    again = {path.relative_to(one.to): path.read_bytes() for path in one.to.rglob("*.*") if path.is_file()}
    assert again == there and not (one.to / ".export").exists()


def begin(one: Export, shards: int) -> None:
    """Some parts alone, as a run that is killed leaves them."""
    digest = _digest(one)
    listed = one.dataset.shards()
    setting = _setting(one, listed, one.to / ".export" / "plan.json", digest)
    counts = list(one.dataset.output.counts().values())
    firsts = {shard: sum(counts[:n]) for n, shard in enumerate(listed)}
    for shard in listed[:shards]:
        write_part(one, Run(), setting, firsts, shard)


def test_images_that_are_gone_stop_it_or_are_left_out(tmp_path: Path) -> None:
    output = known(tmp_path)
    (tmp_path / "pictures" / "a.png").unlink()
    one = asked(output, WebDataset(), tmp_path / "to", shares={})
    with pytest.raises(RunError, match=r"1 annotated image\(s\) can't be read any more"):
        run(one)
    one = replace(one, missing="skip", to=tmp_path / "others")
    told = run(one)
    assert told["missing"] == 1 and told["splits"]["train"]["images"] == 6
    names = [Path(document["uri"]).name for document in documents_in(one.to)]
    assert len(names) == 6 and "a.png" not in names
    text = (one.to / "README.md").read_text()
    assert "| train | 6 |" in text and "| CC BY 4.0 | 6 |" in text
    assert "| b.c | | | | 15 regions, 5 masks, 25 triplets |" in " ".join(text.replace("|  |", "| |").split())


def test_shards_in_braces_are_what_the_loader_expands(exported: Path, output: Output, tmp_path: Path) -> None:
    to = tmp_path / "to"
    run(asked(output, WebDataset(), to, shares={}))
    named = braces(path.relative_to(to) for path in (to / "train").glob("*.tar"))
    assert named == "train/part-00000-shard-{00000..00002}.tar"
    assert named in (to / "README.md").read_text()
    assert len(loaded(f"{to}/{named}")) == 7
    assert braces([Path("a/part-00000-shard-00000.tar"), Path("a/part-00000-shard-00002.tar")]) is None
    assert braces([Path("a/part-00000-shard-00000.tar"), Path("a/part-00001-shard-00001.tar")]) is None


def test_the_readme_tells_how_to_load_it_and_whose_it_is(
    exported: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (exported / "README.md").read_text()
    monkeypatch.chdir(exported)
    found: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], found)
    assert found["document"]["format"] == "florence-engine/1" and found["image"].size[0] == found["document"]["width"]
    assert "| CC BY 4.0 | 7 |" in text and "| flickr\\|30k | 1 |" in text and "| not said | 1 |" in text
    sources = [line for line in text.splitlines() if line.startswith("| b.c |")]
    assert len(sources) == 1 and "18 regions" in sources[0] and "30 triplets" in sources[0] and "6 masks" in sources[0]


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        ([("detailed", False), ("brief", True), ("brief", False)], 2),
        ([("detailed", False), ("brief", True)], 1),
        ([("more_detailed", False), ("detailed", False)], 0),
    ],
)
def test_the_caption_is_a_brief_one(texts: list[tuple[str, bool]], chosen: int) -> None:
    told = [{"row": 3, "detail": d, "composed": c, "text": str(n)} for n, (d, c) in enumerate(texts)]
    assert captions_of(pa.Table.from_pylist(told)) == {3: str(chosen)}


@given(st.text("ab.0", min_size=1, max_size=100), st.integers(0, 8**11 - 1))
def test_headers_are_tarfiles(name: str, size: int) -> None:
    about = tarfile.TarInfo(name)
    about.size = size
    assert _header(name.encode(), size) == about.tobuf(tarfile.USTAR_FORMAT)


def test_what_a_tar_has_no_room_for_is_refused() -> None:
    for name, size in ((b"a" * 101, 1), (b"a", 8**11)):
        with pytest.raises(ValueError, match="a tar has room"):
            _header(name, size)
