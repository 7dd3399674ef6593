"""The reader: where boxes lie that a model writes in thousandths or pixels, and what is no answer."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from completions import Asked, Completions, completing
from tiny.qwen import qwen2_5_vl

from engine.components import build
from engine.errors import ConfigError
from engine.protocols import Image, Sample
from engine.records import NO_SCORES, Item, Record, Region
from engine.vocabulary import Vocabulary
from specialists.chat.question import Unanswered
from specialists.chat.reader import Lines, Reader

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(300, 800), (900, 200)]  # height, width
Serve = Callable[..., AbstractContextManager[Completions]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    return partial(completing, tmp_path / "cache")


def written(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> Image:
    """A white page with a black sign."""
    page = np.full((height, width, 3), 255, np.uint8)
    page[y0:y1, x0:x1] = 0
    return page


def sample(image: Image) -> Sample:
    return Sample(image, Record(Item(b"0" * 16, "x", width=image.shape[1], height=image.shape[0])))


def ready(reader: Reader) -> Reader:
    copy: Reader = pickle.loads(pickle.dumps(reader))
    copy.setup()
    return copy


def regions(reader: Reader, *images: Image) -> list[list[Region]]:
    samples = [sample(image) for image in images]
    answers = reader.annotate(samples)
    for one, answer in zip(samples, answers, strict=True):
        one.record.append(answer)
    return answers


def lines(*found: tuple[str, Any]) -> str:
    return json.dumps({"lines": [{"text": text, "box": box} for text, box in found]})


def sees(asked: Asked) -> tuple[int, int, int, int, int, int]:
    """Width and height of the image that came, and the box of what is dark in it, by its own pixels."""
    (image,) = asked.images
    rows, columns = np.nonzero(image.mean(axis=2) < 128)
    return image.shape[1], image.shape[0], columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def in_thousandths(asked: Asked) -> str:
    """As a model with good eyes answers that writes them."""
    width, height, x0, y0, x1, y1 = sees(asked)
    box = [1000 * x0 / width, 1000 * y0 / height, 1000 * x1 / width, 1000 * y1 / height]
    return lines(("STOP", [round(number) for number in box]))


def in_pixels(asked: Asked) -> str:
    width, height, *box = sees(asked)
    assert f"{width} pixels wide and {height} high" in asked.prompt
    return lines(("STOP", [int(number) for number in box]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [1024, 150, 4096])
@pytest.mark.parametrize("coordinates", ["thousandths", "pixels"])
def test_boxes_lie_where_the_model_sees_the_line(
    serve: Serve, size: tuple[int, int], side: int, coordinates: str
) -> None:
    """Whatever the size at which the image is sent."""
    height, width = size
    truth = (width // 8, height // 4, width // 2, height * 3 // 4)
    say = {"thousandths": in_thousandths, "pixels": in_pixels}[coordinates]
    with serve(say, image_side=side) as server:
        reader = Reader(model="m", server=server.settings, coordinates=coordinates)  # type: ignore[arg-type]
        ((line,),) = regions(ready(reader), written(*size, *truth))
    sent = server.asked[0].images[0].shape
    assert max(sent) == min(side, max(size))
    pixel = max(size) / max(sent)  # of what is sent, in the image's own
    slack = pixel * 0.75 + max(size) / 2000
    assert line.box == pytest.approx(truth, abs=slack)
    assert slack < 0.1 * min(truth[2] - truth[0], truth[3] - truth[1])


def test_a_known_answer_in_known_pixels(serve: Serve) -> None:
    """By hand: an image of 800 x 300 that is sent as 400 x 150."""
    with serve(lambda asked: lines(("STOP", [100, 30, 300, 60.5])), image_side=400) as server:
        found = {
            coordinates: regions(
                ready(Reader(model="m", server=server.settings, coordinates=coordinates)),  # type: ignore[arg-type]
                np.zeros((300, 800, 3), np.uint8),
            )[0][0].box
            for coordinates in ("thousandths", "pixels")
        }
    assert found["pixels"] == (200.0, 60.0, 600.0, 121.0)
    assert found["thousandths"] == pytest.approx((80.0, 9.0, 240.0, 18.15))
    assert ["in thousandths of" in asked.prompt for asked in server.asked] == [True, False]


def test_what_the_regions_are(serve: Serve) -> None:
    said = lines((" Open\n24 h ", [0, 0, 500, 100]), ("{x} \u202e\U0001f415", [0.5, 100, 500, 200]))
    with serve(lambda asked: said) as server:
        reader = ready(Reader(model="m", server=server.settings, name="eyes"))
        first, second = regions(reader, np.zeros((10, 20, 3), np.uint8), np.zeros((20, 10, 3), np.uint8))
    assert [(region.id, region.text) for region in first] == [
        ("0.eyes.0", "Open 24 h"),
        ("0.eyes.1", "{x} \u202e\U0001f415"),
    ]
    assert [region.box for region in first] == [(0.0, 0.0, 10.0, 1.0), pytest.approx((0.01, 1.0, 10.0, 2.0))]
    assert second[0].box == (0.0, 0.0, 5.0, 2.0)
    for region in first:
        assert (region.kind, region.quad, region.label, region.raw_label) == ("text", None, None, None)
        assert (region.scores, region.derived_from) == (NO_SCORES, ())
    assert len(server.asked) == 2
    assert all(asked.fields == ["lines"] and len(asked.images) == 1 for asked in server.asked)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([-100, -5, 500, 2000], (0.0, 0.0, 10.0, 10.0)),
        ([500, 500, 1e308, 1e308], (10.0, 5.0, 20.0, 10.0)),
        ([500, 500, 500, 600], None),
        ([500, 500, 400, 600], None),
        ([500, 500, 400, 400], None),
        ([1000, 0, 1200, 100], None),
        ([-9, -9, -1, -1], None),
    ],
)
def test_boxes_are_clipped_and_those_without_area_left_out(
    serve: Serve, box: list[float], expected: tuple[float, ...] | None
) -> None:
    with serve(lambda asked: lines(("A", box), ("B", [0, 0, 1000, 1000]))) as server:
        (found,) = regions(ready(Reader(model="m", server=server.settings)), np.zeros((10, 20, 3), np.uint8))
    assert [region.box for region in found if region.text == "A"] == ([expected] if expected else [])
    assert [region.id for region in found if region.text == "B"] == [f"0.reader.{1 if expected else 0}"]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "STOP",
        "[]",
        '{"lines": [{"text": "A"}]}',
        '{"lines": [{"text": "A", "box": [0, 0, 1]}]}',
        '{"lines": [{"text": "A", "box": [0, 0, 1, 1, 1]}]}',
        '{"lines": [{"text": "A", "box": [0, 0, 1, NaN]}]}',
        '{"lines": [{"text": "A", "box": [0, 0, 1, Infinity]}]}',
        '{"lines": [{"text": "A", "box": [0, 0, 1, "1"]}]}',
        '{"lines": [{"text": "A", "box": [0, 0, 1, null]}]}',
        '{"lines": [{"text": " ", "box": [0, 0, 1, 1]}]}',
        '{"lines": [{"text": null, "box": [0, 0, 1, 1]}]}',
        '{"lines": [{"text": "A", "box": [0, 0, 1, 1], "score": 1}]}',
        '{"lines": [{"text": "A", "box": [0, 0, 1, 1]}',
        '{"lines": {}}',
    ],
)
def test_what_does_not_fit_is_no_answer(serve: Serve, said: str) -> None:
    with serve(lambda asked: said) as server:
        reader = ready(Reader(model="m", server=server.settings))
        with pytest.raises(Unanswered):
            reader.annotate([sample(np.zeros((9, 9, 3), np.uint8))])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3), (40, 60, 3)])
def test_odd_images(serve: Serve, shape: tuple[int, ...]) -> None:
    with serve(lambda asked: lines(("A", [0, 0, 1000, 1000])), image_side=16) as server:
        ((line,),) = regions(ready(Reader(model="m", server=server.settings)), np.zeros(shape, np.uint8))
        nothing = ready(Reader(model="n", server=server.settings))
        assert nothing.annotate([]) == []
    assert line.box == (0.0, 0.0, float(shape[1]), float(shape[0]))


def test_nothing_to_read_is_an_answer(serve: Serve) -> None:
    with serve(lambda asked: '```json\n{"lines": []}\n```') as server:
        assert regions(ready(Reader(model="m", server=server.settings)), np.zeros((9, 9, 3), np.uint8)) == [[]]


def test_a_hubs_model_that_babbles_has_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is asked has the schema in it, and what it says goes through the same door."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    reader = ready(Reader(model=str(qwen2_5_vl(tmp_path)), max_new_tokens=20, coordinates="pixels"))
    with pytest.raises(Unanswered, match="expected JSON that fits Lines"):
        reader.annotate([sample(np.zeros((40, 60, 3), np.uint8))])
    question = reader._question(np.zeros((40, 60, 3), np.uint8))
    assert question.schema is Lines
    assert "60 pixels wide and 40 high" in question.prompt


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match=r"reader\.coordinates"):
        build("specialists", "reader", {"coordinates": "percent"}, Vocabulary())
    with pytest.raises(ConfigError, match="unknown key"):
        Reader(prompt="describe-1")
