"""The report in a real browser: boxes lie on the objects, switches and keys do what they say, and data do nothing."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import chromium, visit
from PIL import Image, ImageDraw
from test_report import ATTACK, HOSTILE, described, infested, ingested, thing, write

from engine.config import Ingest
from engine.geometry import encode_mask
from engine.records import Box, Decision, Item, ItemError, Mask, Record, Region, Scores, Text
from engine.report import write_report
from engine.report.gallery import A_PAGE, FIRST, ON_ONE_PAGE
from engine.rounds import added
from engine.storage import write_annotations, write_decisions

MANY = ON_ONE_PAGE + 7
RED: dict[str, tuple[tuple[int, int], Box]] = {  # the size of a picture, and where in it a red rectangle is
    "0 landscape.png": ((400, 200), (60, 50, 140, 120)),
    "1 portrait.png": ((150, 300), (40, 180, 110, 260)),
    "2 large.png": ((1600, 1000), (800, 500, 1203, 907)),
    "3 edge.png": ((300, 300), (0, 200, 100, 300)),
}
SIZES = [(1280, 900), (390, 800)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browsed")


def pictures(to: Path, sizes: Sequence[tuple[str, tuple[int, int], Box | None]]) -> Path:
    """Blue images, each another blue, with a red rectangle."""
    to.mkdir()
    for n, (name, size, box) in enumerate(sizes):
        image = Image.new("RGB", size, (40, 60, 100 + n))
        if box:
            x0, y0, x1, y1 = box
            ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=(255, 0, 0))
        image.save(to / name)
    return to


@pytest.fixture(scope="module")
def boxed(folder: Path) -> Path:
    """A report over the red rectangles, an object on each; the same that fell is among the examples."""
    images = pictures(folder / "red", [(name, size, box) for name, (size, box) in RED.items()])
    made = []
    for record in ingested(images, folder):
        size, box = RED[name_of(record)]
        record = record.append([thing(0, box=box), thing(1, box=box, scores=Scores(label=0.3))])
        counts = encode_mask(np.ones((int(box[3] - box[1]), int(box[2] - box[0])), bool), box[:2], size[::-1])
        region_id = record.regions[0].id
        record = record.append([Mask(id="0.m.0", source="m", region_id=region_id, size=size[::-1], counts=counts)])
        made.append(record.decide([record.reject(record.regions[1], "score", "low_score", 0.3, 0.4)]))
    return write_report(write(folder / "boxed", made), Ingest(), folder / "boxed-report")


def name_of(record: Record) -> str:
    return record.item.uri.rpartition("/")[2].replace("%20", " ")


def picture(page: Any, name: str) -> Any:
    return page.locator("article", has_text=name).locator(".picture")


def box_of(locator: Any) -> Box:
    """Left, top, right and bottom in pixels of the window, strokes aside."""
    found = locator.evaluate("e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; }")
    return tuple(found)


def follow(page: Any, link: Any) -> None:
    """To another page, until it is there."""
    with page.expect_navigation():
        link.click()


def loaded(image: Any) -> None:
    """Fails where its file is no picture, or not there."""
    image.scroll_into_view_if_needed()
    image.evaluate("e => e.decode()")


def pixels(locator: Any) -> np.ndarray[Any, Any]:
    locator.evaluate("e => e.scrollIntoView({block: 'center'})")  # not below the bar
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB")).astype(int)


def red_box(shot: np.ndarray[Any, Any]) -> Box:
    rows, columns = np.nonzero((shot[..., 0] > 160) & (shot[..., 1] < 90) & (shot[..., 2] < 90))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def near(one: Box, other: Box, by: float = 1.0) -> bool:
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_boxes_lie_on_the_objects(browser: Any, boxed: Path, width: int, height: int) -> None:
    with visit(browser, boxed, width, height) as page:
        for name, (size, box) in RED.items():
            shown = picture(page, name)
            shown.scroll_into_view_if_needed()
            left, top, right, bottom = box_of(shown.locator("img"))
            assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1], rel=0.02)
            scale = (right - left) / size[0]
            expected = (left + box[0] * scale, top + box[1] * scale, left + box[2] * scale, top + box[3] * scale)
            (drawn,) = shown.locator("g.object:not(.fallen) .line").all()
            assert near(box_of(drawn), expected)
            assert near(box_of(shown.locator(".mask")), expected, 1 + scale)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_is_drawn_encloses_the_red_pixels(browser: Any, boxed: Path, width: int, height: int) -> None:
    """As pixels: what changes when the box is shown is a frame around what is red in the picture itself."""
    with visit(browser, boxed, width, height) as page:
        page.evaluate("document.querySelectorAll('.tags, .mask').forEach(e => e.remove())")
        for name in RED:
            shown = picture(page, name)
            shown.scroll_into_view_if_needed()
            shown.locator(".shapes").evaluate("e => e.style.opacity = 0")
            without = pixels(shown)
            shown.locator(".shapes").evaluate("e => e.style.opacity = 1")
            changed = np.abs(pixels(shown) - without).sum(axis=2) > 60
            rows, columns = np.nonzero(changed)
            frame = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            red = red_box(without)
            stroke = 3  # the casing, half of which lies outside
            edges = zip(frame, red, (-1, -1, 1, 1), (0, 0, *without.shape[1::-1]), strict=True)
            for at, edge, outwards, border in edges:
                assert outwards * (at - edge) >= 0 or at == border
                assert abs(at - edge) <= stroke
            x, y = (red[0] + red[2]) // 2, (red[1] + red[3]) // 2
            assert not changed[y - 5 : y + 5, x - 5 : x + 5].any()


def test_what_fell_is_cut_out_with_its_box(browser: Any, boxed: Path) -> None:
    with visit(browser, boxed) as page:
        examples = page.locator(".example")
        assert examples.count() == len(RED)
        for example in examples.all():
            assert example.locator(".file").inner_text() in RED
            shown = example.locator(".picture")
            shown.scroll_into_view_if_needed()
            left, top, *_ = box_of(shown)
            line = box_of(example.locator(".line"))
            page.evaluate("document.querySelectorAll('.example svg').forEach(e => e.style.opacity = 0)")
            red = red_box(pixels(shown))
            page.evaluate("document.querySelectorAll('.example svg').forEach(e => e.style.opacity = 1)")
            assert near(tuple(value - (left, top)[n % 2] for n, value in enumerate(line)), red, 2)
            around = line[2] - line[0] < shown.bounding_box()["width"] - 4
            assert around  # there is something of the image beside it


@dataclass(frozen=True)
class Shape:
    """What can be seen of a region, and what hides it."""

    kind: str
    source: str
    round: int
    fell: int | None


SHAPES = [
    Shape("object", "detector", 0, None),
    Shape("text", "ocr", 0, None),
    Shape("proposal", "detector", 0, None),
    Shape("object", "detector", 0, 0),
    Shape("object", "detector", 0, 1),
    Shape("object", "florence2", 1, None),
    Shape("text", "florence2", 1, 1),
]


@pytest.fixture(scope="module")
def rounds(folder: Path) -> Path:
    """A report over many pictures of two rounds, each with all of SHAPES in order of their numbers below."""
    images = pictures(folder / "many", [(f"{n:03d}.png", (64, 48), None) for n in range(MANY)])
    first, second = [], []
    for record in ingested(images, folder / "rounds"):
        before = record.append(region for n, region in enumerate(regions()) if SHAPES[n].round == 0)
        before = before.decide(
            before.reject(region, "score", "low_score", 0.1, 0.4)
            for n, region in enumerate(regions())
            if SHAPES[n].fell == 0
        )
        number = int(name_of(record)[:3])
        before = described(before, f"A cup number {number}", [("A cup", ("0.detector.0",))])
        after = replace(before, round=1).append(r for n, r in enumerate(regions()) if SHAPES[n].round == 1)
        falls = [
            Decision(annotation_id=region.id, action="reject", by="merge", reason="outvoted", round=1)
            for n, region in enumerate(regions())
            if SHAPES[n].fell == 1
        ]
        first.append(before)
        second.append(added(after.decide(falls), before))
    dataset = write(folder / "rounds" / "out", first, shard_size=40)
    for shard, at in zip(dataset.shards(), range(0, MANY, 40), strict=True):
        write_annotations(dataset.output.round(1), shard, second[at : at + 40], "")
        write_decisions(dataset.output.round(1), shard, second[at : at + 40], "")
    return write_report(replace(dataset, round=1), Ingest(), folder / "rounds" / "report", None)


def regions() -> Iterator[Region]:
    for n, shape in enumerate(SHAPES):
        yield Region(
            id=f"{shape.round}.{shape.source}.{n}",
            source=shape.source,
            kind=shape.kind,
            box=(2 + n, 2 + n, 20 + n, 20 + n),
            label=f"thing {n}",
            scores=Scores(label=0.5, box=0.5),
        )


def shown(page: Any, card: int = 1) -> set[int]:
    """The numbers in SHAPES of what can be seen of a card's regions."""
    probe = (
        "all => all.filter(e => getComputedStyle(e).display !== 'none').map(e => [e.dataset.regions, e.textContent])"
    )
    tags = dict(page.locator(f"#picture-{card} .tag").evaluate_all(probe))
    drawn = dict(page.locator(f"#picture-{card} g").evaluate_all(probe))
    assert tags.keys() == drawn.keys()
    words = re.findall(r"thing \d", " ".join(tags.values()))
    assert len(words) == len(tags)
    return {int(word.removeprefix("thing ")) for word in words}


def having(test: Callable[[Shape], bool]) -> set[int]:
    return {n for n, shape in enumerate(SHAPES) if test(shape)}


HIDES: dict[str, Callable[[Shape], bool]] = {
    "objects": lambda shape: shape.kind == "object",
    "texts in the image": lambda shape: shape.kind == "text",
    "proposals": lambda shape: shape.kind == "proposal",
    "fallen in round 0": lambda shape: shape.fell == 0,
    "fallen in round 1": lambda shape: shape.fell == 1,
    "detector": lambda shape: shape.source == "detector",
    "florence2": lambda shape: shape.source == "florence2",
    "ocr": lambda shape: shape.source == "ocr",
    "made in round 0": lambda shape: shape.round == 0,
    "made in round 1": lambda shape: shape.round == 1,
}


def switch(page: Any, name: str) -> Any:
    group, _, rest = name.partition(" in ")
    if group in ("fallen", "made"):
        return page.get_by_role("group", name="Fallen" if group == "fallen" else "Made in").get_by_label(rest)
    return page.get_by_role("checkbox", name=name, exact=False).first


def test_each_switch_hides_what_it_says(browser: Any, rounds: Path) -> None:
    everything = set(range(len(SHAPES)))
    with visit(browser, rounds) as page:
        assert shown(page) == having(lambda shape: shape.kind != "proposal" and shape.fell is None)
        for name in ("proposals", "fallen in round 0", "fallen in round 1"):
            switch(page, name).check()
        assert shown(page) == everything
        for name, hides in HIDES.items():
            switch(page, name).uncheck()
            assert shown(page) == everything - having(hides), name
            switch(page, name).check()
        assert shown(page) == everything


def test_what_is_switched_stays_from_page_to_page(browser: Any, rounds: Path) -> None:
    with visit(browser, rounds) as page:
        switch(page, "objects").uncheck()
        switch(page, "fallen in round 1").check()
        left = shown(page)
        follow(page, page.get_by_role("link", name="Page by page"))
        assert shown(page) == left
        assert page.locator("article").count() == A_PAGE
        follow(page, page.get_by_role("link", name="Next").first)
        assert page.url.split("#")[0].endswith("gallery/0002.html")
        assert shown(page, A_PAGE + 1) == left
        page.keyboard.press("0")
        assert shown(page, A_PAGE + 1) == having(lambda shape: shape.kind != "proposal" and shape.fell is None)
        page.go_back()
        assert shown(page) == left
        follow(page, page.get_by_role("link", name="Find pictures"))
        follow(page, page.locator("#tiles a").nth(MANY - 1))
        assert page.url.split("#")[0].endswith("gallery/0003.html")
        assert shown(page, MANY) == left
        assert page.evaluate("document.activeElement.id") == f"picture-{MANY}"
        follow(page, page.get_by_role("link", name="Report on"))
        assert shown(page) == left


def test_pages_have_all_pictures_and_lead_to_each_other(browser: Any, rounds: Path) -> None:
    found = []
    with visit(browser, rounds) as page:
        assert page.locator("article").count() == FIRST
        follow(page, page.get_by_role("link", name="Page by page"))
        while True:
            found += page.locator("article h3").all_text_contents()
            loaded(page.locator("article img").last)
            further = page.get_by_role("link", name="Next →")
            if not further.count():
                break
            follow(page, further.first)
    assert sorted(found) == [f"{n:03d}.png" for n in range(MANY)]


def test_keys_go_from_picture_to_picture(browser: Any, rounds: Path) -> None:
    with visit(browser, rounds.parent / "gallery" / "0001.html") as page:
        at = "document.activeElement.id"
        pressed = page.keyboard.press
        pressed("j")
        assert page.evaluate(at) == "picture-1"
        pressed("j"), pressed("j"), pressed("k")
        assert page.evaluate(at) == "picture-2"
        top = page.locator("#picture-2").bounding_box()["y"]
        bar = page.locator(".show").bounding_box()
        assert 0 <= top - bar["y"] - bar["height"] < 40
        page.locator(f"#picture-{A_PAGE}").focus()
        pressed("j")
        page.wait_for_url("**/0002.html*")
        assert page.evaluate(at) == f"picture-{A_PAGE + 1}"
        pressed("k")
        page.wait_for_url("**/0001.html*")
        assert page.evaluate(at) == f"picture-{A_PAGE}"


def test_keys_switch_and_can_be_switched_off(browser: Any, rounds: Path, boxed: Path) -> None:
    with visit(browser, rounds) as page:
        before = shown(page)
        page.keyboard.press("1")
        assert shown(page) == before - having(HIDES["objects"])
        page.keyboard.press("1")
        page.keyboard.press("Control+1")
        assert shown(page) == before
        page.keyboard.press("?")
        assert page.get_by_text("next, previous picture").is_visible()
        page.locator(".keys summary").focus()
        page.keyboard.press("Escape")
        assert not page.get_by_text("next, previous picture").is_visible()
        assert page.locator(".keys summary").evaluate("e => e === document.activeElement")
        page.keyboard.press("?")
        page.get_by_label("Use these keys").uncheck()
        page.keyboard.press("1")
        assert shown(page) == before
        page.get_by_label("Use these keys").focus()
        page.keyboard.press("Escape")
        assert page.locator(".keys summary").evaluate("e => e === document.activeElement")
    for path in (boxed, rounds.parent / "gallery" / "find.html"):
        with visit(browser, path) as page:
            page.keyboard.press("/")
            page.keyboard.type("1 jk/")
            assert page.locator("#search").input_value() == "1 jk/"
            assert page.locator("#switches input:not(:checked)").count() == 2 * (path == boxed)


def test_the_keyboard_reaches_everything_and_leaves_again(browser: Any, boxed: Path) -> None:
    with visit(browser, boxed) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
        assert page.locator(".skip").bounding_box()["y"] >= 0
        probe = """() => { const e = document.activeElement; const all = [...document.querySelectorAll('*')];
                   const seen = e.matches(':focus-visible') && e.checkVisibility();
                   return [all.indexOf(e), e.tagName, e.id, seen]; }"""
        places, tags = [], set()
        for _ in range(200):
            page.keyboard.press("Tab")
            place, tag, id_, seen = page.evaluate(probe)
            if tag == "BODY" or (places and place < places[-1]):
                break
            assert seen, (tag, id_)
            places.append(place)
            tags.add(id_ or tag)
        assert places == sorted(set(places))
        assert {"show-object", "fell-0", "source-0", "order", "search", "LI", "SUMMARY"} <= tags


def test_pictures_are_found(browser: Any, rounds: Path) -> None:
    with visit(browser, rounds.parent / "gallery" / "find.html") as page:
        tiles, said = page.locator("#tiles li"), page.locator("#found")
        assert said.inner_text() == f"{MANY} pictures"
        page.locator("#search").fill("NUMBER  7")
        assert said.inner_text() == "19 pictures"  # the words "number" and 7, 17, ..., 70, 71, ...
        page.locator("#search").fill("042.png")
        assert said.inner_text() == "1 picture"
        assert tiles.locator("bdi").all_inner_texts() == ["042.png"]
        page.locator("#search").fill("nothing like that")
        assert said.inner_text() == "There is no such picture."
        assert tiles.count() == 0
        page.get_by_role("button", name="Clear").click()
        page.locator("#order").select_option("set")
        assert tiles.locator("bdi").first.inner_text() == "000.png"
        page.locator("#label").select_option(label=f"thing 5 ({MANY})")
        assert said.inner_text() == f"{MANY} pictures"
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        loaded(tiles.locator("img").last)


def test_pages_are_above_the_tiles_that_have_no_end(browser: Any, rounds: Path) -> None:
    with visit(browser, rounds.parent / "gallery" / "find.html") as page:
        page.get_by_text("Page by page").click()
        last = page.locator(".pages a").last
        assert last.bounding_box()["y"] < page.locator("#tiles li").first.bounding_box()["y"]
        follow(page, last)
        assert page.locator("article").count() == MANY % A_PAGE


def test_one_page_is_ordered_and_filtered_by_its_cards(browser: Any, folder: Path) -> None:
    images = pictures(folder / "few", [(f"{n}.png", (64, 48), None) for n in range(4)])
    made = ingested(images, folder / "filtered")
    for n, (label, scores) in enumerate((("cup", (0.1,)), ("dog", (0.39, 0.1)), ("cup", (0.1, 0.2, 0.3)), ("dog", ()))):
        record = made[n].append([thing(0, label=label)])
        record = record.append([thing(1 + k, scores=Scores(label=score)) for k, score in enumerate(scores)])
        falls = [record.reject(region, "score", "low", region.score, 0.4) for region in record.regions[1:]]
        made[n] = record.decide(falls)
    made[3] = made[3].append([Text(id="0.writer.0", source="writer", detail="brief", text="Ein Hund & <b>mehr")])
    to = write_report(write(folder / "filtered" / "out", made), Ingest(), folder / "filtered" / "report")
    with visit(browser, to) as page:

        def cards() -> list[str]:
            return page.locator("article:visible h3").all_text_contents()

        assert cards() == ["1.png", "2.png", "0.png", "3.png"]
        page.locator("#order").select_option("fallen")
        assert cards() == ["2.png", "1.png", "0.png", "3.png"]
        page.locator("#order").select_option("set")
        assert cards() == ["0.png", "1.png", "2.png", "3.png"]
        page.locator("#label").select_option(label="cup (2)")
        assert cards() == ["0.png", "2.png"]
        page.keyboard.press("Escape")
        page.locator("h2#pictures-name").click()
        page.keyboard.press("j"), page.keyboard.press("j")
        assert page.evaluate("document.activeElement.id") == "picture-2"
        page.get_by_role("button", name="Clear").click()
        page.locator("#source").select_option(label="writer (1)")
        assert cards() == ["3.png"]
        page.get_by_role("button", name="Clear").click()
        page.locator("#filter").select_option(label="score (3)")
        assert cards() == ["0.png", "1.png", "2.png"]
        page.get_by_role("button", name="Clear").click()
        page.locator("#search").fill("hund & <b>")
        assert cards() == ["3.png"]


def test_pointing_lights_up_the_other_side(browser: Any, rounds: Path) -> None:
    with visit(browser, rounds) as page:
        switch(page, "objects").uncheck()
        assert 0 not in shown(page)
        page.locator("#picture-1 mark").hover()
        assert 0 in shown(page)
        assert page.locator("#picture-1 g.lit").count() == page.locator("#picture-1 li.lit").count() == 1
        page.locator("#picture-1 h3").hover()
        assert 0 not in shown(page)
        page.locator("#picture-1 mark").focus()
        assert 0 in shown(page)


@pytest.fixture(scope="module")
def hostile(folder: Path) -> Path:
    """A report with pages beside it over hostile file names, labels and texts."""
    to = folder / "hostile"
    (to / "images").mkdir(parents=True)
    clean = [re.sub("[/\0]", "", text)[:100] for text in HOSTILE]
    for n in range(MANY):
        Image.new("RGB", (40, 30), (n, 90, 120)).save(to / "images" / f"{clean[n % len(clean)]}{n:03d}.png")
    made = ingested(to / "images", to)
    short = [text[:300] for text in HOSTILE]
    for n, record in enumerate(made):
        made[n] = (
            infested(record, short[n % 5 :] + short[: n % 5])
            if n < 20
            else record.append([thing(0, label=short[n % 12])])
        )
    gone = Item(Item.id_of(HOSTILE[0]), HOSTILE[0], error=ItemError(*short[:3]))
    dataset = write(to / "out", [*made, Record(gone, error=gone.error)], shard_size=50)
    return write_report(dataset, Ingest(images=tuple(HOSTILE)), to / "report", None)


def test_hostile_data_do_nothing(browser: Any, hostile: Path) -> None:
    pages = [hostile, *(hostile.parent / "gallery" / name for name in ("0001.html", "0003.html", "find.html"))]
    for path in pages:
        with visit(browser, path) as page:
            title = page.title()
            for _ in range(4):
                page.mouse.wheel(0, 1500)
            page.locator("mark:visible, li:visible, #tiles a").first.hover()
            page.locator("#switches input:not(#use-keys)").evaluate_all("all => all.forEach(box => box.click())")
            page.keyboard.press("j")
            assert page.title() == title != "taken"
            assert page.locator("img[src=x], [onerror], [onload], [onfocus], svg[onload], b:text('bold')").count() == 0
            assert page.locator("script").count() <= 2
            assert page.evaluate("[...document.links].every(a => a.protocol === 'file:')")
            assert page.evaluate("document.documentElement.dataset.ready") == ""


def test_hostile_names_are_found_and_shown_as_they_are(browser: Any, hostile: Path) -> None:
    with visit(browser, hostile.parent / "gallery" / "find.html") as page:
        page.locator("#search").fill("<img src=x")
        names = page.locator("#tiles bdi").all_inner_texts()
        assert sum("<img src=x onerror=" in name for name in names) == len(range(1, MANY, len(HOSTILE)))
        for text in HOSTILE[:8]:
            page.locator("#search").fill(text)
        page.locator("#search").fill("")
        for select in ("label", "source", "filter"):
            for index in range(1, min(page.locator(f"#{select} option").count(), 5)):
                page.locator(f"#{select}").select_option(index=index)
                assert page.locator("#tiles li").count() > 0
            page.locator(f"#{select}").select_option(index=0)


def test_the_policy_stops_what_would_get_through(browser: Any, hostile: Path) -> None:
    """The tests above could not fail if the browser ran no script from a page's body at all."""
    source = hostile.read_text()
    assert f"<script>{ATTACK}</script>" not in source
    attacked = source.replace("</main>", f"<script>{ATTACK}</script></main>")
    for name, text in (("with.html", attacked), ("without.html", re.sub("<meta http-equiv[^>]*>", "", attacked))):
        (hostile.parent / name).write_text(text)
    with visit(browser, hostile.parent / "without.html") as page:
        assert page.title() == "taken"
    with visit(browser, hostile.parent / "with.html") as page:
        assert page.title() != "taken"
        (complaint,) = page.heard.complaints
        assert "Content Security Policy" in complaint
        page.heard.complaints.clear()


def test_without_a_script_it_can_be_read_and_switched(browser: Any, rounds: Path) -> None:
    with visit(browser, rounds, java_script_enabled=False) as page:
        assert page.locator("#picture-1 g.object:visible").count() == 2
        switch(page, "objects").uncheck()
        assert page.locator("#picture-1 g.object:visible").count() == 0
        assert not page.locator("#finder:visible, .keys:visible").count()
        follow(page, page.get_by_role("link", name="Find among"))
        follow(page, page.get_by_role("link", name="2", exact=True))
        follow(page, page.get_by_role("link", name="Next").first)
        assert page.locator("article").count() == MANY - 2 * A_PAGE


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark(browser: Any, rounds: Path, scheme: Any) -> None:
    with visit(browser, rounds, color_scheme=scheme) as page:
        ground = luminance(page, "body", "backgroundColor")
        assert (ground > 0.5) == (scheme == "light")
        card = luminance(page, "article", "backgroundColor")
        for selector, behind in (
            ("h1", ground),
            (".lead", ground),
            ("nav a", ground),
            ("article p", card),
            (".by", card),
        ):
            lighter, darker = sorted((luminance(page, selector, "color"), behind), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector


def luminance(page: Any, selector: str, name: str) -> float:
    """Relative luminance of a colour, as WCAG 2 has it."""
    told = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{name}")
    channels = np.array([int(value) / 255 for value in re.findall(r"\d+", told)[:3]])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_nothing_overflows_a_phone(browser: Any, hostile: Path, boxed: Path) -> None:
    pages = [boxed, hostile, *(hostile.parent / "gallery" / name for name in ("0001.html", "find.html"))]
    for path in pages:
        with visit(browser, path, 360, 740, is_mobile=True, has_touch=True) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == 360, path
            for opened in page.locator(".show").all():
                opened.locator("summary").first.click()
                page.locator("#show-object").uncheck()
                assert page.evaluate("document.documentElement.scrollWidth") == 360, path
            page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") == 360, path


@pytest.fixture(scope="module")
def strips(folder: Path) -> Path:
    """A report over a strip that stands and one that lies, in each an object that fell, with a label that goes on."""
    sizes = {"standing.png": (40, 2000), "lying.png": (2000, 40)}
    images = pictures(folder / "strips", [(name, size, None) for name, size in sizes.items()])
    made = []
    for record in ingested(images, folder / "stripped"):
        width, height = sizes[name_of(record)]
        record = record.append([thing(0, box=(4, 4, width / 2, height / 2), label="a long name " * 6)])
        record = record.append([thing(1, box=(4, 4, width - 4, height - 4), scores=Scores(label=0.3))])
        made.append(record.decide([record.reject(record.regions[1], "score", "low_score", 0.3, 0.4)]))
    return write_report(write(folder / "stripped" / "out", made), Ingest(), folder / "stripped" / "report")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_strip_takes_no_more_than_a_screen(browser: Any, strips: Path, width: int, height: int) -> None:
    with visit(browser, strips, width, height) as page:
        tall = picture(page, "standing.png").bounding_box()
        assert tall["height"] <= 800
        assert tall["height"] / tall["width"] == pytest.approx(2000 / 40, rel=0.02)
        for example in page.locator(".example .picture").all():
            assert example.bounding_box()["height"] <= 160


def test_choices_stand_side_by_side_whatever_a_label_is(browser: Any, strips: Path) -> None:
    with visit(browser, strips) as page:
        boxes = [one.bounding_box() for one in page.locator(".finder select, #search").all()]
        assert len({box["y"] for box in boxes}) == 1
        for one, other in itertools.pairwise(boxes):
            assert 0 < other["x"] - one["x"] - one["width"] < 40


def test_a_small_picture_has_numbers_and_a_word_where_one_points(browser: Any, boxed: Path) -> None:
    for (width, height), words in zip(SIZES, (True, False), strict=True):
        with visit(browser, boxed, width, height) as page:
            card = page.locator("article", has_text="0 landscape.png")
            word = card.locator(".tag:not(.fallen) .word")
            assert word.is_visible() == words
            assert card.locator(".tag:not(.fallen) b").is_visible()
            card.locator(".regions li").first.focus()
            assert word.is_visible()


def test_a_table_that_goes_on_has_a_shadow_there(browser: Any, boxed: Path) -> None:
    """At the side that it goes on to: there the ground, between two lines, is darker than in the middle."""
    with visit(browser, boxed, 390, 800) as page:
        table = page.get_by_role("region", name="Annotations beside FLD-5B")
        table.locator("table").evaluate("e => e.style.visibility = 'hidden'")

        def shadows() -> list[bool]:
            row = pixels(table)[20].sum(axis=1)
            return [bool(row[at] < row[row.size // 2] - 20) for at in (1, -2)]

        assert shadows() == [False, True]
        table.evaluate("e => e.scrollLeft = e.scrollWidth")
        assert shadows() == [True, False]


def test_print_leaves_out_what_cannot_be_pressed(browser: Any, boxed: Path) -> None:
    with visit(browser, boxed) as page:
        page.emulate_media(media="print")
        assert not page.locator(".show:visible, nav:visible, .finder:visible").count()
        assert page.locator("article:visible").count() == len(RED)


def test_landmarks_and_names_for_those_who_hear_it(browser: Any, rounds: Path) -> None:
    for path in (rounds, rounds.parent / "gallery" / "0002.html", rounds.parent / "gallery" / "find.html"):
        with visit(browser, path) as page:
            assert page.get_by_role("main").count() == page.get_by_role("heading", level=1).count() == 1
            assert page.locator("img:not([alt])").count() == 0
            unnamed = "all => all.filter(e => !(e.labels?.length || e.ariaLabel || e.innerText?.trim())).map(e => e.id)"
            assert page.locator("input, select, button, nav a").evaluate_all(unnamed) == []
            regions = page.locator("section:not([aria-labelledby]):not(article section)")
            assert regions.count() == 0
