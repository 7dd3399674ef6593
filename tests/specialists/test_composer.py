"""The composer on drawn scenes whose words are known, and on records of every kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import records

from engine.decide import decide
from engine.geometry import encode_mask
from engine.protocols import Image, Sample
from engine.records import DETAILS, Box, Decision, Item, Mask, Record, Region, RegionText, Scores, Text
from filters.text import Characters, Complexity, Length, Objects, RepeatedText, Repetition
from specialists.composer import Composer
from specialists.detector import CLASSES
from specialists.parser import Parser

PAINT = {
    "red": (200, 20, 20),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "green": (30, 140, 40),
    "blue": (30, 60, 200),
    "brown": (110, 65, 25),
    "orange": (245, 130, 20),
    "grey": (150, 150, 140),
    None: (150, 150, 140),
}
SIZE = (640, 480)
TEXT_FILTERS = (Length(), Characters(), Repetition(), RepeatedText(), Objects(), Complexity())

Thing: TypeAlias = tuple[str | None, Box] | tuple[str | None, Box, str | None]


@pytest.fixture(scope="module")
def composer() -> Composer:
    made = Composer()
    made.setup()
    return made


def drawn(
    *things: Thing,
    texts: Sequence[tuple[str, Box]] = (),
    crowds: frozenset[int] = frozenset(),
    paper: str = "grey",
    uri: str = "a.jpg",
) -> Sample:
    """A sample of `SIZE` in which things are painted boxes."""
    image = np.full((SIZE[1], SIZE[0], 3), PAINT[paper], np.uint8)
    regions = []
    for n, (label, box, *colour) in enumerate(things):
        x0, y0, x1, y1 = (int(max(v, 0)) for v in box)
        if colour:
            image[y0:y1, x0:x1] = PAINT[colour[0]]
        regions.append(found(n, box, label=label, crowd=n in crowds))
    for n, (words, box) in enumerate(texts):
        regions.append(Region(id=f"0.ocr.{n}", source="ocr", kind="text", box=box, text=words))
    return Sample(image, Record(item(uri)).append(regions))


def item(uri: str = "a.jpg") -> Item:
    return Item(Item.id_of(uri), uri, width=SIZE[0], height=SIZE[1])


def found(number: int, box: Box, **fields: Any) -> Region:
    scores = Scores(label=fields.pop("score", 0.8))
    return Region(id=f"0.detector.{number}", source="detector", kind="object", box=box, scores=scores, **fields)


def composed(composer: Composer, sample: Sample) -> tuple[dict[str, Text], list[RegionText]]:
    """The texts by granularity and the region texts, after the record's own checks."""
    (made,) = composer.annotate([sample])
    sample.record.append(made)
    return {t.detail: t for t in made if isinstance(t, Text)}, [t for t in made if isinstance(t, RegionText)]


STREET = drawn(
    ("person", (40, 180, 110, 420)),
    ("person", (130, 170, 200, 430)),
    ("motorcycle", (215, 240, 500, 430), "red"),
    ("car", (520, 200, 620, 330), "white"),
    texts=[("STOP", (600, 60, 630, 80)), ("Main  Street", (300, 20, 460, 50))],
    uri="street.jpg",
)
CUPS = drawn(*(("cup", (20 + 150 * n, 150, 120 + 150 * n, 260), "blue") for n in range(4)), uri="cups.jpg")
CROWD = drawn(
    ("sheep", (0, 220, 640, 480), "white"),
    ("dog", (500, 150, 580, 230), "black"),
    crowds=frozenset({0}),
    paper="green",
    uri="crowd.jpg",
)
SIGN = drawn(
    texts=[
        ("GRAND OPENING", (100, 60, 540, 140)),
        ("Saturday at ten", (140, 200, 500, 240)),
        ("All visitors are welcome to the new library building", (60, 400, 600, 430)),
    ],
    paper="green",
    uri="sign.jpg",
)
BIRD = drawn(("bird", (500, 60, 530, 85), "black"), paper="blue", uri="bird.jpg")
GOLDEN: dict[str, tuple[Sample, tuple[str, ...], tuple[str, ...]]] = {
    "street": (
        STREET,
        (
            "A motorcycle, two people and a car.",
            "The image contains a red motorcycle at the bottom and two people on the left. There is also a white car. "
            'Text at the top reads "Main Street".',
            "In the image there is a red motorcycle, two people and a white car. The motorcycle is at the bottom and "
            "spans about two fifths of the width and of the height. The two people are side by side on the left, and "
            "each spans about a tenth of the width and half of the height. "
            'A piece of text at the top reads "Main Street" and one in the upper right corner reads "STOP".',
        ),
        (
            "a red motorcycle at the bottom",
            "a person on the left",
            "a person on the left",
            "a white car on the right",
        ),
    ),
    "cups": (
        CUPS,
        (
            "The image shows four blue cups in a row across the middle.",
            "There are four blue cups across the middle of the image. Grey is the main colour of the image.",
            "Four blue cups can be seen in the image. The four cups are in a row across the middle, and each spans "
            "about a fifth of the width and a quarter of the height. Grey is the main colour of the image.",
        ),
        (
            "a blue cup on the left",
            "a blue cup in the centre",
            "a blue cup in the centre",
            "a blue cup on the right",
        ),
    ),
    "crowd": (
        CROWD,
        (
            "Many sheep at the bottom and a black dog on the right.",
            "The image contains many sheep at the bottom and a black dog on the right. Much of the image is white and "
            "green.",
            "Many sheep and a black dog can be seen in the image. The sheep are at the bottom and span almost all of "
            "the width and about half of the height, reaching the left, right and bottom edges. On the right is the "
            "dog. Much of the image is white and green.",
        ),
        ("many sheep at the bottom", "a black dog on the right"),
    ),
    "sign": (
        SIGN,
        (
            'The text "GRAND OPENING" can be read at the top of the image.',
            "Three pieces of text are legible in the image. "
            'One at the top reads "GRAND OPENING" and one in the centre reads "Saturday at ten". '
            "Much of the image is green.",
            "Three pieces of text are legible in the image. "
            'One at the top reads "GRAND OPENING", one in the centre reads "Saturday at ten", and one at the bottom '
            'begins with "All visitors are welcome to the new". The one that reads "GRAND OPENING" spans about two '
            "thirds of the width and a fifth of the height. Much of the image is green.",
        ),
        (),
    ),
    "bird": (
        BIRD,
        (
            "A small black bird can be seen in the upper right corner of the image.",
            "There is a small black bird in the upper right corner of the image. It spans about a twentieth of the "
            "width and of the height. Much of the image is blue.",
            "There is a small black bird in the image. The bird is in the upper right corner and takes up only a small "
            "part of the image. Much of the image is blue.",
        ),
        ("a small black bird in the upper right corner",),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_texts(composer: Composer, name: str) -> None:
    sample, texts, region_texts = GOLDEN[name]
    made, of_regions = composed(composer, sample)
    assert tuple(made[detail].text for detail in DETAILS) == texts
    assert tuple(each.text for each in of_regions) == region_texts
    assert all(each.derived_from == (each.region_id,) for each in of_regions)


def test_a_text_comes_from_what_it_speaks_of(composer: Composer) -> None:
    made, _ = composed(composer, STREET)
    people, motorcycle, car = {"0.detector.0", "0.detector.1"}, {"0.detector.2"}, {"0.detector.3"}
    assert set(made["brief"].derived_from) == people | motorcycle | car
    assert set(made["detailed"].derived_from) == people | motorcycle | car | {"0.ocr.1"}
    assert set(made["more_detailed"].derived_from) == people | motorcycle | car | {"0.ocr.0", "0.ocr.1"}


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (drawn(("cup", (100, 200, 160, 280)), ("laptop", (180, 180, 400, 380))), "laptop .*(next to|beside) a cup"),
        (drawn(("cup", (10, 200, 70, 280)), ("bed", (300, 180, 600, 380))), "bed .*to the right of a cup"),
        (drawn(("kite", (200, 10, 300, 90)), ("dog", (180, 300, 350, 470))), "dog .*below a kite"),
        (
            drawn(("person", (120, 140, 200, 420)), ("person", (440, 150, 520, 430)), ("bench", (215, 280, 430, 420))),
            "[Tt]wo people .*on either side of a bench",
        ),
    ],
    ids=["beside", "right", "below", "either side"],
)
def test_relations(composer: Composer, sample: Sample, words: str) -> None:
    made, _ = composed(composer, sample)
    assert re.search(words, made["brief"].text)


def test_boxes_one_inside_the_other_stand_in_no_relation(composer: Composer) -> None:
    """A cup's box inside a table's: on it, before it, or behind it."""
    made, _ = composed(composer, drawn(("dining table", (50, 200, 600, 470)), ("cup", (300, 250, 360, 330))))
    for text in made.values():
        assert not re.search("next to|beside|left of|right of|above|below", text.text)


def test_fourteen_are_many(composer: Composer) -> None:
    boxes: list[Box] = [(20 + n % 7 * 88, 100 + n // 7 * 160, 80 + n % 7 * 88, 180 + n // 7 * 160) for n in range(14)]
    for count, word in ((14, "many cups"), (12, "twelve cups")):
        made, _ = composed(composer, drawn(*(("cup", box) for box in boxes[:count])))
        assert all(word in text.text.lower() for text in made.values())


def test_colours_and_sizes_are_not_said_of_people(composer: Composer) -> None:
    made, of_regions = composed(composer, drawn(("person", (100, 100, 500, 400), "brown"), paper="white"))
    for text in (*made.values(), *of_regions):
        assert not re.search("(brown|large) person", text.text)


def test_colours_differ_and_are_left_out(composer: Composer) -> None:
    cups = drawn(("cup", (50, 200, 150, 300), "red"), ("cup", (450, 200, 550, 300), "blue"))
    made, of_regions = composed(composer, cups)
    assert "wo cups" in made["brief"].text
    assert {each.text for each in of_regions} == {"a red cup on the left", "a blue cup on the right"}


def test_an_orange_is_not_called_orange(composer: Composer) -> None:
    _, (one,) = composed(composer, drawn(("orange", (20, 10, 620, 480), "orange")))
    assert one.text == "an orange filling most of the image"


def test_a_black_and_white_image_has_no_grey_things(composer: Composer) -> None:
    sample = drawn(("cup", (50, 200, 150, 300)))
    sample.image[:] = 128
    made, (one,) = composed(composer, sample)
    assert one.text == "a cup on the left"
    assert "black-and-white" in made["detailed"].text or "black and white" in made["detailed"].text


def test_the_colour_of_what_is_around_is_not_said_of_a_thing(composer: Composer) -> None:
    """Of a fork, a box shows the table for the most part."""
    table: Thing = ("dining table", (0, 240, 640, 480), "brown")
    _, (of_table, of_fork) = composed(composer, drawn(table, ("fork", (200, 300, 260, 420))))
    assert (of_table.text, of_fork.text) == ("a large brown dining table at the bottom", "a fork at the bottom")
    _, (_, of_fork) = composed(composer, drawn(table, ("fork", (200, 300, 260, 420), "white")))
    assert of_fork.text == "a white fork at the bottom"


def test_the_colour_is_that_under_the_mask(composer: Composer) -> None:
    sample = drawn(("kite", (100, 100, 300, 300), "white"), paper="white")
    pixels = np.zeros((SIZE[1], SIZE[0]), bool)
    pixels[110:130, 110:290] = True
    sample.image[pixels] = PAINT["red"]
    mask = Mask(id="0.m.0", source="m", region_id="0.detector.0", size=pixels.shape, counts=encode_mask(pixels))
    _, (without,) = composed(composer, sample)
    _, (with_mask,) = composed(composer, Sample(sample.image, sample.record.append([mask])))
    assert (without.text, with_mask.text) == ("a kite on the left", "a red kite on the left")


@pytest.mark.parametrize(
    ("read", "quoted"),
    [
        ("STOP", '"STOP"'),
        (" Main \n\t Street ", '"Main Street"'),
        ('He said "hi"\x07 to us', '"He said hi to us"'),
        ("<script>alert(1)</script>", '"<script>alert(1)</script>"'),
        ("grüne Straße", '"grüne Straße"'),
        ("Mind the gap.", '"Mind the gap"'),
        ("Open until 6 p.m.", '"Open until 6 p.m."'),
        ("All visitors are welcome to the new library", 'begins with "All visitors are welcome to the new'),
        ("x" * 300, f'"{"x" * 40}"'),
    ],
)
def test_quotes(composer: Composer, read: str, quoted: str) -> None:
    sample = drawn(("cup", (50, 200, 150, 300)), texts=[(read, (300, 200, 500, 230))])
    made, _ = composed(composer, sample)
    assert quoted in made["detailed"].text
    assert "0.ocr.0" in made["detailed"].derived_from


@pytest.mark.parametrize("read", ["", "0000", "A", "7 x 3 = 21", "\x00\u202e", "...", "a-------b"])
def test_what_is_not_legible_is_not_quoted(composer: Composer, read: str) -> None:
    made, _ = composed(composer, drawn(texts=[(read, (300, 200, 500, 230))]))
    assert made == {}


def test_what_is_read_twice_is_counted_twice_and_quoted_once(composer: Composer) -> None:
    made, _ = composed(composer, drawn(texts=[("STOP", (10, 10, 90, 40)), ("Stop", (500, 400, 590, 440))]))
    assert made["detailed"].text.startswith(("Two pieces", "In the image, two pieces", "The image has two pieces"))
    assert made["detailed"].text.lower().count('"stop"') == 1


@pytest.mark.parametrize("label", [None, "", " \n", "42", "a", "The", "x" * 300, "\u202e\x00"])
def test_regions_that_have_no_name_are_left_out(composer: Composer, label: str | None) -> None:
    made, of_regions = composed(composer, drawn((label, (50, 50, 300, 300)), ("cup", (400, 200, 460, 280))))
    assert {id_ for text in (*made.values(), *of_regions) for id_ in text.derived_from} == {"0.detector.1"}


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", "traffic\n light", "猫", "{0}%s", "b", "ÉTÉ"])
def test_labels_are_words_whatever_they_say(composer: Composer, label: str) -> None:
    made, (one,) = composed(composer, drawn((label, (50, 50, 200, 300)), uri=label))
    assert all(" ".join(label.split()) in text.text for text in (*made.values(), one))


def test_nothing_is_said_of_nothing(composer: Composer) -> None:
    assert composed(composer, drawn()) == ({}, [])
    proposal = Region(id="0.p.0", source="p", kind="proposal", box=(10, 10, 90, 90), label="cup")
    blank = drawn()
    assert composed(composer, Sample(blank.image, blank.record.append([proposal]))) == ({}, [])


def test_what_fell_is_not_spoken_of(composer: Composer) -> None:
    decision = Decision(annotation_id="0.detector.2", action="reject", by="x", reason="x")
    made, of_regions = composed(composer, Sample(STREET.image, STREET.record.decide([decision])))
    assert not any("motorcycle" in text.text for text in (*made.values(), *of_regions))


def test_regions_beyond_the_most_get_no_phrase_and_still_count() -> None:
    few = Composer(max_regions=2)
    made, of_regions = composed(few, CUPS)
    assert len(of_regions) == 2
    assert "our cups" in made["brief"].text, "without the colour that was measured of two alone"


def test_images_are_told_in_different_words(composer: Composer) -> None:
    """At least four ways for each granularity."""
    for sample in (STREET, CUPS):
        ways: dict[str, set[str]] = {detail: set() for detail in DETAILS}
        for n in range(40):
            other = Record(item(f"{n}.jpg")).append(sample.record.regions)
            for text in composed(composer, Sample(sample.image, other))[0].values():
                ways[text.detail].add(text.text)
        assert all(len(texts) >= 4 for texts in ways.values())


LABELS = [*CLASSES, "猫", "<b>", "", None, "flowers", "\x00", "x" * 300, "person", "person", "cup"]


@st.composite
def samples(draw: st.DrawFn, labels: Sequence[str | None] = LABELS) -> Sample:
    """A few labels, some of many things, in the image and over its edges; texts; on patches of several colours."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), 80, axis=0), 80, axis=1)
    if draw(st.booleans()):
        image[:] = image.mean(axis=2, keepdims=True)
    regions: list[Region] = []
    for label in draw(st.lists(st.sampled_from(labels), max_size=7)):
        for _ in range(draw(st.sampled_from([1, 1, 1, 2, 2, 3, 5, 14]))):
            x, y = rng.uniform(-50, SIZE[0] - 5), rng.uniform(-50, SIZE[1] - 5)
            box = (x, y, x + rng.uniform(5, SIZE[0]), y + rng.uniform(5, SIZE[1]))
            crowd, score = bool(rng.random() < 0.1), float(rng.uniform(0, 1))
            regions.append(found(len(regions), box, label=label, crowd=crowd, score=score))
    reading = st.sampled_from(
        ["STOP", "Bus 42", "0", "Please keep off the grass", "Fresh bread from our own oven every day"]
    )
    for n, words in enumerate(draw(st.lists(reading, max_size=5))):
        x, y = rng.uniform(0, SIZE[0] - 80), rng.uniform(0, SIZE[1] - 30)
        box = (x, y, x + rng.uniform(20, 80), y + rng.uniform(8, 30))
        regions.append(Region(id=f"0.ocr.{n}", source="ocr", kind="text", box=box, text=words))
    uri = draw(st.text("abc", max_size=4))
    return Sample(image.astype(np.uint8), Record(item(uri)).append(regions))


def check(sample: Sample, made: Sequence[Text | RegionText]) -> None:
    """What holds of anything that the composer says."""
    standing = {region.id for region in sample.standing.regions}
    texts = [each for each in made if isinstance(each, Text)]
    assert len({text.detail for text in texts}) == len(texts)
    for each in made:
        assert each.derived_from
        assert standing.issuperset(each.derived_from)
        assert "  " not in each.text
        assert each.text == each.text.strip()
    for text in texts:
        assert text.text[0].isupper()
        assert text.text.endswith(".")
        outside = re.sub('"[^"]*"', '"', text.text)
        assert not re.search(r"\b(a|an|the) (a|an|the)\b|, ,|,,|\band and\b|\band[,.]", outside)
        assert not re.search(r"\b(most|different parts)(?! of)\b", outside), "of what?"


@given(samples(), samples())
@settings(max_examples=150, deadline=None)
def test_scenes_of_all_kinds(composer: Composer, one: Sample, other: Sample) -> None:
    there, back = composer.annotate([one, other]), composer.annotate([other, one])
    assert [list(each) for each in there] == [list(each) for each in reversed(back)], "whatever else is in the batch"
    for sample, made in zip((one, other), there, strict=True):
        sample.record.append(made)
        check(sample, made)


@given(records())
@settings(max_examples=100, deadline=None)
def test_records_of_all_kinds(composer: Composer, record: Record) -> None:
    size = (record.item.height or 7, record.item.width or 5)
    sample = Sample(blank(size), record)
    (made,) = composer.annotate([sample])
    record.append(made)
    check(sample, made)
    if not any(region.kind in ("object", "text") for region in sample.standing.regions):
        assert not made


def blank(size: tuple[int, int]) -> Image:
    return np.zeros((*size, 3), np.uint8)


@given(samples(labels=CLASSES))
@settings(max_examples=150, deadline=None)
def test_the_filters_for_texts_have_nothing_against_them(composer: Composer, sample: Sample) -> None:
    (made,) = composer.annotate([sample])
    record = decide(sample.record.append(made), TEXT_FILTERS)
    # But for two texts of a scene with little to tell, which may come out alike: that is for the filter to find.
    assert {decision.reason for decision in record.decisions} <= {"repeats_text"}


def test_the_parser_finds_the_labels_again(composer: Composer) -> None:
    """In the noun phrases' heads, which is where the grounder looks for them."""
    parser = Parser()
    parser.setup()
    for sample in (STREET, CUPS, CROWD, BIRD):
        (made,) = composer.annotate([sample])
        record = sample.record.append(made)
        (parses,) = parser.annotate([Sample(sample.image, record)])
        texts = {text.id: text for text in record.texts}
        for parse in parses:
            heads = {phrase.head.replace("people", "person") for phrase in parse.phrases}
            spoken = (record.by_id[id_] for id_ in texts[parse.text_id].derived_from)
            assert {region.label for region in spoken if isinstance(region, Region) and region.label} <= heads
