"""The report over records of every kind, hostile ones among them. In a browser: test_report_browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from strategies import records

from engine import open_dataset
from engine.atomic import write_json
from engine.config import Ingest
from engine.dataset import Dataset
from engine.geometry import encode_mask
from engine.ingest import ingest
from engine.layout import Output, ShardId
from engine.records import (
    Decision,
    Item,
    ItemError,
    Mask,
    Parse,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
)
from engine.report import write_report
from engine.report.page import visible
from engine.report.pictures import LONGEST_TEXT, MOST_REGIONS
from engine.report.plots import histogram
from engine.report.shapes import Frame, mask_outline
from engine.report.spans import Span, tokens
from engine.schema import items_to_table
from engine.stats.histograms import MOST_BINS, of_whole_numbers
from engine.storage import Tables, read_items, write_annotations, write_decisions, write_table

VOID = {"meta", "link", "img", "input", "br"}
URLS = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href", "ping"}
ATTACK = "document.title='taken'"
HOSTILE = [
    f"<script>{ATTACK}</script>",
    f'"><img src=x onerror="{ATTACK}">',
    f"' onmouseover='{ATTACK}' autofocus onfocus='{ATTACK}' tabindex=1 '",
    f"</style></script></title></textarea><script>{ATTACK}</script>",
    f"<!--<svg onload={ATTACK}> ]]>",
    f"javascript:{ATTACK}",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &amp;amp; <b>bold</b>",
    "\u202eright to left \u2066 override \u200f",
    "\x00\x01\x08\x1b[31m\x7f\x85\r\n\ufffe",
    "x" * 100_000,
    "a\u0300" * 500,
]


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    within: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """The elements of a page in order, each with all text in it. Fails where tags don't nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attributes}) == len(attributes)
        element = Element(tag, {k: v or "" for k, v in attributes}, within=[e.tag for e in self.open])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements with this tag that have these words among their attributes'."""
        found = (e for e in self.elements if e.tag == tag)
        return [e for e in found if all(v in e.attributes.get(k, "").split() for k, v in attributes.items())]

    def rows(self) -> list[list[str]]:
        """The cells of every table's rows."""
        found: list[list[str]] = []
        for element in self.elements:
            if element.tag == "tr":
                found.append([])
            elif element.tag in ("th", "td"):
                found[-1].append(" ".join(element.text.split()))
        return found


FAULTY = {"faults": {HOSTILE[0]: 3}, "first_faults": [dict.fromkeys(("where", "kind", "message"), HOSTILE[1])]}


def write(root: Path, made: Sequence[Record], shard_size: int = 4) -> Dataset:
    """An output folder of records as `engine run` leaves them, without summary."""
    output = Output(root)
    shards = [made[at : at + shard_size] for at in range(0, len(made), shard_size)]
    for number, some in enumerate(shards):
        shard = ShardId(0, number)
        write_table(output.items(shard), items_to_table([record.item for record in some]))
        write_annotations(output.round(0), shard, some, "")
        write_decisions(output.round(0), shard, some, "")
    write_json(output.manifest, {"items": len(made), "partitions": [{"shards": len(shards)}], **FAULTY})
    return open_dataset(root)


def page(made: Sequence[Record], tmp_path: Path, **options: Any) -> Page:
    to = write_report(write(tmp_path / "out", made), Ingest(), tmp_path / "report", **options)
    return Page(to.read_text())


def ingested(folder: Path, tmp_path: Path) -> list[Record]:
    """An empty record for each image of a folder."""
    output = Output(tmp_path / "ingested")
    ingest(output, Ingest(images=(os.fspath(folder),)), "", lambda items: None)
    return [Record(item) for shard in output.shards() for item in read_items(output, shard)]


def described(record: Record, text: str, phrases: Sequence[tuple[str, tuple[str, ...]]], **fields: Any) -> Record:
    """The record with a text, and a triplet for each phrase in it with the regions of these ids."""
    id_ = next(record.ids("writer"))
    record = record.append([Text(id=id_, **{"source": "writer", "detail": "brief", **fields}, text=text)])
    ids = record.ids("grounder")
    made = []
    for phrase, regions in phrases:
        start = text.index(phrase)
        made.append(
            Triplet(
                id=next(ids),
                source="grounder",
                text_id=id_,
                start=start,
                stop=start + len(phrase),
                region_ids=regions,
            )
        )
    return record.append(made)


def parse_of(text: Text) -> Parse:
    return Parse(
        id="0.parser.0",
        source="parser",
        text_id=text.id,
        objects=3,
        attributes=2,
        actions=1,
        proper_nouns=0,
        object_complexity=1.5,
        action_complexity=2.25,
        max_object_complexity=2,
        max_action_complexity=3,
    )


def thing(number: int, box: tuple[float, float, float, float] = (8, 8, 40, 40), **fields: Any) -> Region:
    common: dict[str, Any] = {"source": "detector", "kind": "object", "label": "cup", "scores": Scores(label=0.5)}
    return Region(id=f"0.detector.{number}", box=box, **{**common, **fields})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A page over images with hostile names and records in which every string is hostile."""
    tmp_path = tmp_path_factory.mktemp("hostile")
    folder = tmp_path / "images"
    folder.mkdir()
    cup = Image.open(photos / "coffee.png").convert("RGB").resize((120, 80))
    names = [re.sub("[/\0]", "", text)[:120].encode() + b".png" for text in HOSTILE]
    for n, name in enumerate([*names, b"not utf-8 \xff.png"]):
        cup.rotate(n).save(os.fspath(folder) + "/" + os.fsdecode(name))
    texts = cycle(HOSTILE)
    made = [infested(record, [next(texts) for _ in HOSTILE]) for record in ingested(folder, tmp_path)]
    made.append(Record(made[0].item, error=ItemError(*HOSTILE[:3])))
    made[-1] = replace(made[-1], item=replace(made[-1].item, item_id=Item.id_of("another")))
    dataset = write(tmp_path / "out <b>&amp;<b>", made)
    about = dict.fromkeys(("specialist", "version", "licence"), HOSTILE[3]) | {"parameters": {HOSTILE[0]: HOSTILE[1]}}
    sources = {text[:80]: about for text in HOSTILE if text[:80].isprintable()} | {"lone \ud800": about}
    path = dataset.output.round(0).sources
    path.write_text(json.dumps({"sources": sources}))
    return write_report(dataset, Ingest(images=tuple(HOSTILE)), tmp_path / "report")


def infested(record: Record, texts: Sequence[str]) -> Record:
    """Annotations in which every string is one of `texts`."""
    a, b, c, d = texts[:4]
    size = (record.item.height or 1, record.item.width or 1)
    mask = encode_mask(np.eye(*size, dtype=bool))
    record = replace(record, item=replace(record.item, dataset=a, licence=b, labels=(c, d)))
    record = record.append(
        [
            Region(id=f"r{n} {text[:60]}", source=text[:80], kind=kind, box=(1, 2, 60, 70), label=text, text=text)
            for n, text in enumerate(texts)
            for kind in (("object", "text", "proposal")[n % 3],)
        ]
    )
    ids = [region.id for region in record.regions]
    record = record.append([Mask(id="m", source=a[:80], region_id=ids[0], size=size, counts=mask)])
    record = record.append([RegionText(id="rt", source=b[:80], region_id=ids[1], text=c)])
    for n, text in enumerate(texts):
        record = record.append(
            [
                Text(id=f"t{n}", source=text[:80], detail="brief", text=text),
                Triplet(id=f"x{n}", source=d[:80], text_id=f"t{n}", start=1, stop=len(text) - 1, region_ids=(ids[n],)),
                Triplet(id=f"y{n}", source=d[:80], text_id=f"t{n}", start=0, stop=4, region_ids=(ids[0], ids[1])),
            ]
        )
    falls = [ids[2], "t3"]
    return record.decide([Decision(annotation_id=id_, action="reject", by=a, reason=b, against="m") for id_ in falls])


def test_hostile_page_is_data_alone(hostile: Path) -> None:
    found = Page(hostile.read_text())
    (policy,) = (e.attributes["content"] for e in found.all("meta") if "http-equiv" in e.attributes)
    (data, script), (style,) = found.all("script"), found.all("style")
    for element, directive in ((script, "script-src"), (style, "style-src-elem")):
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
        assert not element.attributes
    assert data.attributes == {"type": "application/json", "id": "index"}
    assert re.fullmatch("[\n -~]*", data.text)
    assert not set("<>&") & set(data.text)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert not any(attack in script.text + style.text for attack in (ATTACK, "taken", "xxx"))
    for element in found.elements:
        assert re.fullmatch("[a-z][a-z0-9]*", element.tag)
        for name, value in element.attributes.items():
            assert re.fullmatch("[a-z][a-z-]*", name), name
            assert not name.startswith("on")
            assert name not in URLS or value.startswith(("data:image/jpeg;base64,", "#")) or value == "data:,"
            assert name != "href" or value == "data:," or re.fullmatch("#[a-z0-9-]+", value)
            assert name != "style" or re.fullmatch("[a-z:;%0-9.-]+", value)


def test_hostile_strings_are_there_to_be_read(hostile: Path) -> None:
    text = "".join(element.text for element in Page(hostile.read_text()).all("body"))
    for string in HOSTILE[:9]:
        assert string in text
    assert visible(HOSTILE[9])[:8] == "␀␁␈␛[31m"
    assert visible(HOSTILE[9]) in text
    assert "x" * 201 in text
    assert "x" * (LONGEST_TEXT + 1) not in text
    assert "it has 100,000 characters" in text


def test_what_is_hostile_is_isolated_in_direction(hostile: Path) -> None:
    found = Page(hostile.read_text())
    isolating = [e for e in found.elements if e.tag == "bdi" or (e.tag == "p" and e.attributes.get("dir") == "auto")]
    said = sum(e.text.count("\u202e") for e in isolating)
    everywhere = sum(e.text.count("\u202e") for e in found.all("body"))
    assert said == everywhere > 10


def test_marks_are_the_phrases(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    record = record.append([thing(n, label=f"thing {n}") for n in range(3)])
    one, two, three = (region.id for region in record.regions)
    text = "Zwei Tassen 🐈 on <a> saucer & a spoon."
    phrases = [("Zwei Tassen 🐈 on <a> saucer", (one, two)), ("<a> saucer & a spoon", (three,)), ("🐈", (two,))]
    found = page([described(record, text, phrases)], tmp_path)
    (said,) = (e for e in found.all("p") if e.attributes.get("dir") == "auto")
    assert said.text == text
    marked: dict[str, str] = {}
    for mark in found.all("mark"):
        marked[mark.attributes["data-regions"]] = marked.get(mark.attributes["data-regions"], "") + mark.text
    assert marked == {"1 2": phrases[0][0], "3": phrases[1][0], "2": phrases[2][0]}
    assert ["mark" in mark.within for mark in found.all("mark")] == [False, True, True, False]


spans = st.lists(st.tuples(st.integers(0, 14), st.integers(1, 8)), max_size=8)


@given(st.text(max_size=16), spans)
@settings(max_examples=300, deadline=None)
def test_tokens_nest_and_lose_nothing(text: str, drawn: list[tuple[int, int]]) -> None:
    made = [Span(start, start + length, n) for n, (start, length) in enumerate(drawn)]
    under: dict[int, str] = {span.value: "" for span in made}
    open_: list[int] = []
    whole = ""
    for token in tokens(text, made):
        if token.closes:
            open_.pop()
        elif token.opens is not None:
            open_.append(token.opens)
        whole += token.text
        for value in open_:
            under[value] += token.text
    assert not open_
    assert whole == text
    assert under == {span.value: text[span.start : span.stop] for span in made}


def test_regions_phrases_and_lists_share_numbers_and_colours(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    cup, spoon = thing(0), thing(1, label="spoon", box=(50, 50, 90, 90))
    record = record.append([cup, thing(2), thing(3, kind="proposal", label=None), spoon])
    record = record.append([RegionText(id="0.w.0", source="w", region_id=spoon.id, text="a silver spoon")])
    found = page([described(record, "A cup and a spoon", [("A cup", (cup.id,)), ("a spoon", (spoon.id,))])], tmp_path)
    hues = {
        number: {
            re.findall("hue-[0-9]|plain", e.attributes["class"])[0]
            for tag in ("g", "span", "li", "mark")
            for e in found.all(tag)
            if number in e.attributes.get("data-regions", "").split()
        }
        for number in "1234"
    }
    assert [len(some) for some in hues.values()] == [1, 1, 1, 1]
    assert hues["1"] == hues["2"] != hues["3"]
    assert hues["4"] == {"plain"}
    (told,) = found.all("li", **{"data-regions": "3"})
    assert "a silver spoon" in told.text
    (box,) = (e for e in found.all("path", **{"class": "line"}) if e.attributes["d"].startswith("M50 "))
    assert box.attributes["d"] == "M50 50L90 50L90 90L50 90Z"


def test_thumbnails_and_shapes_are_to_scale(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.open(photos / "coffee.png").convert("RGB").resize((1600, 1000)).save(folder / "a.png")
    (record,) = ingested(folder, tmp_path)
    quad = (160.0, 100.0, 320.0, 120.0, 320.0, 220.0, 160.0, 200.0)
    record = record.append(
        [thing(0, box=(800, 500, 9000, 9000)), thing(1, kind="text", box=(160, 100, 320, 220), quad=quad)]
    )
    found = page([record], tmp_path)
    (img,) = found.all("img")
    thumbnail = Image.open(io.BytesIO(base64.b64decode(img.attributes["src"].partition(",")[2])))
    assert thumbnail.size == (640, 400)
    assert thumbnail.format == "JPEG"
    paths = {e.attributes["d"] for e in found.all("path", **{"class": "line"})}
    assert paths == {"M320 200L640 200L640 400L320 400Z", "M64 40L128 48L128 88L64 80Z"}


def test_mask_outlines_are_the_masks() -> None:
    rows, columns = np.mgrid[:900, :1200]
    distance = np.hypot(rows - 400, columns - 500)
    pixels = (distance < 300) & (distance > 120)
    mask = Mask(id="m", source="s", region_id="r", size=(900, 1200), counts=encode_mask(pixels))
    path = mask_outline(mask, Frame.of(1200, 900))
    rings = [
        np.array([[float(v) for v in point.split()] for point in ring.split("L")])
        for ring in re.findall("M([^Z]+)Z", path)
    ]
    assert len(rings) == 2
    assert sum(map(len, rings)) < 120
    drawn = np.zeros((480, 640), np.uint8)
    cv2.fillPoly(drawn, [np.round(ring * 16 - 8).astype(np.int32) for ring in rings], 1, shift=4)
    small = cv2.resize(pixels.astype(np.uint8) * 255, (640, 480), interpolation=cv2.INTER_AREA) >= 128
    assert (small & (drawn > 0)).sum() / (small | (drawn > 0)).sum() > 0.97


def test_an_image_that_is_gone_or_another_says_so(image_set: Any, tmp_path: Path) -> None:
    folder = image_set(3)
    made = [record.append([thing(0)]) for record in ingested(folder, tmp_path)]
    (folder / "0000.png").unlink()
    (folder / "0001.png").write_bytes((folder / "0002.png").read_bytes())
    found = page(made, tmp_path)
    notices = [e.text for e in found.all("p", **{"class": "notice"})]
    assert ["(missing)" in notices[0], "(changed)" in notices[1], len(notices)] == [True, True, 2]
    assert len(found.all("img")) == 1
    assert len(found.all("article")) == len(found.all("svg", **{"class": "shapes"})) == 3


def test_a_damaged_mask_costs_itself_alone(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    masks = [
        Mask(id=f"0.s.{n}", source="s", region_id="0.detector.0", size=(96, 96), counts=counts)
        for n, counts in enumerate((b"\xff\xff", encode_mask(np.ones((96, 96), bool))))
    ]
    found = page([record.append([thing(0), *masks])], tmp_path)
    assert len(found.all("path", **{"class": "mask"})) == 1
    (notice,) = found.all("p", **{"class": "notice"})
    assert "0.s.0" in notice.text


def test_what_fell_is_told_with_value_and_threshold(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    record = record.append([thing(0), thing(1, scores=Scores(label=0.125))])
    record = record.decide([record.reject(record.regions[1], "score", "low_score", 0.125, 0.4)])
    found = page([record], tmp_path)
    assert ["2 object 0.detector.1", "cup", "score", "low score", "0.125 against 0.4"] in found.rows()
    assert ["score", "low score", "1", "0.125", "0.4"] in found.rows()
    assert all("fallen" in e.attributes["class"] for e in found.all("g", **{"data-regions": "2"}))
    (threshold,) = found.all("line", **{"class": "threshold"})
    assert threshold.attributes["x1"] == "40.00%"
    (example,) = found.all("figure", **{"class": "example"})
    assert " ".join(example.text.split()) == "cupobject · 0.125 against 0.4 · 0000.png"


def test_masks_and_parses_that_fell_say_what_they_are_of(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    counts = encode_mask(np.ones((96, 96), bool))
    of = Mask(id="0.s.0", source="s", region_id="0.detector.0", size=(96, 96), counts=counts)
    record = described(record.append([thing(0, label="blue cup"), of]), "A cup of tea", [])
    record = record.append([parse_of(record.texts[0])])
    fallen = [record.by_id[id_] for id_ in ("0.s.0", "0.parser.0")]
    found = page([record.decide([record.reject(one, "cascade", "region_fell") for one in fallen])], tmp_path)
    told = {tuple(row[:2]) for row in found.rows() if "cascade" in row}
    assert told >= {("1 mask 0.s.0", "blue cup"), ("parse 0.parser.0", "A cup of tea")}


def test_quarantine_is_listed_up_to_a_number(tmp_path: Path) -> None:
    error = ItemError("ingest", "empty", "no byte")
    items = (Item(Item.id_of(f"{n}.jpg"), f"{n}.jpg", error=error) for n in range(230))
    made = [Record(item, error=error) for item in items]
    found = page(made, tmp_path)
    assert sum(e.text.endswith(".jpg") for e in found.all("td", **{"class": "uri"})) == 200
    assert "And 30 more." in [e.text for e in found.all("p")]
    (lead, *_) = (" ".join(e.text.split()) for e in found.all("p") if "230 images" in e.text)
    assert lead == "230 images could not be read or annotated: 230 empty in ingest. None of them is opened here."
    assert not found.all("article")


def names(found: Page) -> list[str]:
    return [e.text for e in found.all("h3") if "article" in e.within]


def test_pictures_are_the_most_disputed(image_set: Any, tmp_path: Path) -> None:
    made = ingested(image_set(6), tmp_path)
    twin = replace(made[0].item, item_id=Item.id_of("twin"), uri="twin.png", duplicate_of=made[0].item.item_id)
    for n, falls in ((1, (0.39,)), (3, (0.39, 0.38)), (4, (0.1, 0.2))):  # against 0.4: two of them are close calls
        record = made[n].append([thing(k, scores=Scores(label=score)) for k, score in enumerate(falls)])
        made[n] = record.decide([record.reject(r, "score", "low_score", r.score, 0.4) for r in record.regions])
    made.insert(1, Record(twin))
    assert names(page(made, tmp_path, images=3)) == ["0003.png", "0001.png", "0004.png"]
    everything = page(made, tmp_path, images=None)
    assert names(everything) == [f"{n:04d}.png" for n in (3, 1, 4, 0, 2, 5)]
    assert [" ".join(e.text.split()) for e in everything.all("p", **{"class": "disputed"})] == [
        "2 disputed 2 close calls",
        "1 disputed 1 close call",
    ]
    assert not page(made, tmp_path, images=0).all("article")


def test_only_shards_with_pictures_become_records(
    image_set: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.report.gallery as gallery

    read: list[int] = []
    reading = gallery.read_shard

    def counting(output: Output, round: int, shard: ShardId) -> Tables:
        read.append(shard.number)
        return reading(output, round, shard)

    monkeypatch.setattr(gallery, "read_shard", counting)
    made = ingested(image_set(20), tmp_path)
    for n in (5, 14):
        made[n] = made[n].append([thing(0)])
        made[n] = made[n].decide([made[n].reject(made[n].regions[0], "score", "low_score", 0.5, 0.5)])
    page(made, tmp_path, images=2)
    assert read == [1, 3]


def test_a_record_without_end_makes_a_card_with_one(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    record = record.append([thing(n) for n in range(3000)])
    record = record.append([Text(id=f"t{n}", source="a", detail="brief", text="long " * 9999) for n in range(300)])
    found = page([record], tmp_path)
    assert len(found.all("g", **{"data-regions": "1"})) == 1
    assert len(found.all("li", **{"class": "object"})) == MOST_REGIONS
    assert "2800 more regions are not shown." in [e.text for e in found.all("p")]
    assert (tmp_path / "report/index.html").stat().st_size < 400_000


def test_composed_texts_are_said_to_be_and_counted_apart(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    record = record.append([thing(0)])
    record = described(record, "one two three four", [])
    record = described(record, "one two", [], derived_from=("0.detector.0",))
    parse = parse_of(record.texts[0])
    found = page([record.append([parse])], tmp_path)
    assert [e.text for e in found.all("span", **{"class": "badge"})] == ["composed from regions"]
    rows = [row for row in found.rows() if row[0] in ("written", "composed from regions", "FLD-5B")]
    assert rows[:3] == [
        ["written", "1", "4.00", "3.00", "2.00", "1.00", "0.00", "1.50", "2.25"],
        ["composed from regions", "1", "2.00", *["-"] * 6],
        ["FLD-5B", "", "7.95", "3.23", "2.80", "0.58", "1.10", "2.80", "1.14"],
    ]


@given(st.dictionaries(st.integers(0, 5000), st.integers(1, 99), max_size=30))
def test_histograms_count_everything_once(counts: dict[int, int]) -> None:
    made = histogram("words", of_whole_numbers(Counter(counts)), whole=True)
    assert sum(bar.value for bar in made.bars) == sum(counts.values())
    assert 1 <= len(made.bars) <= MOST_BINS
    assert max((bar.length for bar in made.bars), default=0) in (0, 100)


@given(st.lists(records(), max_size=3, unique_by=lambda record: record.item.item_id))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_record_can_be_shown(made: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = page(made, Path(folder))
    cards = [record for record in made if record.item.duplicate_of is None and record.item.error is None]
    assert len(found.all("article")) == len(cards)
    assert len(found.all("script")) == 1 + bool(cards)
    assert len(found.all("style")) == 1


def test_the_same_dataset_gives_the_same_page(image_set: Any, tmp_path: Path) -> None:
    made = [record.append([thing(0)]) for record in ingested(image_set(2), tmp_path)]
    dataset = write(tmp_path / "out", made)
    one, two = (write_report(dataset, Ingest(), tmp_path / name).read_bytes() for name in ("1", "2"))
    assert one == two
