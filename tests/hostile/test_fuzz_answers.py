"""What models say: whatever it is, it becomes annotations in the image, or is turned down, or is its own image's
quarantine. The others of its batch are not touched."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import deadline
from mutations import ODD, mutated
from pydantic import BaseModel, ConfigDict, FiniteFloat

from engine.annotate import annotate
from engine.config import Http, Ingest
from engine.download import Downloader
from engine.entry import Entry
from engine.ingest import item_of
from engine.protocols import Sample
from engine.records import AnyAnnotation, Item, Mask, Record, Region, Scores, Text, Triplet
from engine.worker import storable
from florence2.codec import decode, pieces_of_text
from florence2.tasks import Form
from specialists.chat.answers import parsed, words
from specialists.chat.question import Unanswered

PIECES = (
    *("<loc_0>", "<loc_999>", "<loc_52>" * 4, "<loc_1>" * 8, "<loc_3>" * 7),
    *("<loc_1000>", "<loc_-1>", "<loc_", "<loc_01>"),
    *("<poly>", "</poly>", "<sep>", "<and>", "<s>", "</s>", "<pad>", "dog", " ", "\n", "\0", "\u202e", "<image>"),
)
answers = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=60).map("".join)


@given(form=st.sampled_from(Form), answer=answers, width=st.integers(1, 10**6), height=st.integers(1, 10**6))
@settings(max_examples=150, deadline=None)
def test_places_of_a_florence_are_in_its_image(form: Form, answer: str, width: int, height: int) -> None:
    for found in decode(form, pieces_of_text(answer), (width, height)):
        one = found.annotation
        rings = [one.box or (), one.quad or (), *(one.polygons or ())]
        assert any(rings)
        for ring in rings:
            assert all(0 <= value <= (width, height)[n % 2] for n, value in enumerate(ring))
        if one.box:
            assert one.box[0] <= one.box[2] and one.box[1] <= one.box[3]


def test_a_long_answer_takes_time_by_its_length() -> None:
    for piece in PIECES:
        with deadline(20):
            for form in Form:
                decode(form, pieces_of_text(piece * 1000), (100, 100))


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str
    box: list[FiniteFloat] = []


@given(
    answer=st.binary(max_size=30) | mutated(b'<think>so</think>```json\n{"word": "dog", "box": [1, 2.5, 3, 4]}\n```')
)
@settings(max_examples=150, deadline=None)
def test_a_chat_model_is_read_strictly(answer: bytes) -> None:
    said = answer.decode(errors="replace")
    for read in (lambda: parsed(said, Answer), lambda: words(said), lambda: words(said, complete=False)):
        try:
            value = read()
        except Unanswered as error:
            assert len(str(error)) < 1000
        else:
            assert not isinstance(value, Answer) or all(map(math.isfinite, value.box))


@pytest.mark.parametrize(
    "said", ["[" * 10**6, '{"word": ' * 10**5, "<think>" * 10**5, "9" * 10**6, '{"word": "' + "\\" * 10**6]
)
def test_a_long_answer_of_a_chat_model_is_turned_down(said: str) -> None:
    with deadline(20), pytest.raises(Unanswered):
        parsed(said, Answer)


# A specialist that says anything of one image of three


@dataclass
class Rogue:
    """Says `odd` of the image called 1.png, and the truth of the others."""

    odd: Callable[[Sample], Any]
    name: str = "rogue"
    version: str = "1"

    def setup(self) -> None: ...

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        return [self.odd(s) if s.record.item.uri.endswith("1.png") else [text("a cup")] for s in batch]


def text(said: Any) -> Text:
    return Text(id="0.rogue.0", source="rogue", text=said, detail="brief")


numbers = st.floats() | st.integers(-(10**40), 10**40) | st.sampled_from(ODD)
strings = st.text() | st.sampled_from(ODD)


@st.composite
def oddities(draw: st.DrawFn) -> Callable[[Sample], Any]:
    """An answer about one image, made when it is asked for: what dataclasses turn down is raised there."""
    kind = draw(st.sampled_from(("region", "text", "triplet", "mask", "raw", "many")))
    values = {name: draw(numbers) for name in ("x0", "y0", "x1", "y1", "score")}
    word: Any = draw(strings)
    other: Any = draw(strings)

    def say(sample: Sample) -> Any:
        box: Any = tuple(values[name] for name in ("x0", "y0", "x1", "y1"))
        score: Any = values["score"]
        whole: Any = [text("a cup"), Text(id="0.rogue.1", source="rogue", text="b", detail="brief")]
        about: Any = {"source": "rogue", "scores": Scores(label=score)}
        if kind == "raw":
            return word
        if kind == "text":
            return [text(word), *whole]
        if kind == "triplet":
            span: Any = (values["x0"], values["y0"])
            return [*whole, Triplet(id="0.rogue.2", text_id=other, start=span[0], stop=span[1], region_ids=(), **about)]
        if kind == "mask":
            size: Any = (values["x0"], values["y0"])
            return [*whole, Mask(id="0.rogue.2", region_id=other, size=size, counts=word, **about)]
        region = Region(id="0.rogue.2", kind="object", box=box, label=word, raw_label=other, **about)
        return [*whole, region, *[region] * (3 if kind == "many" else 0)]

    return say


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> list[Item]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("three")
    for n in range(3):
        Image.open(photos / "coffee.png").crop((40 * n, 0, 40 * n + 64, 48)).save(folder / f"{n}.png")
    nothing = Downloader(folder, Http(), max_bytes=0)
    return [item_of(Entry(str(path)), Ingest(), nothing) for path in sorted(folder.iterdir())]


@given(odd=oddities())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_specialist_that_says_anything(items: list[Item], odd: Callable[[Sample], Any]) -> None:
    with deadline(20):
        found = annotate([Record(item) for item in items], [Rogue(odd)], (), Ingest(), {})  # type: ignore[list-item]
        records = [storable(record) for record in found]
    assert [record.item for record in records] == items
    for record in (records[0], records[2]):
        assert record.error is None
        assert [one.text for one in record.texts] == ["a cup"]
    for region in records[1].regions:
        assert all(map(math.isfinite, region.box))
    if records[1].error:
        assert not records[1].by_id
        json.dumps(records[1].error.message).encode()
        assert len(records[1].error.message) < 5000
