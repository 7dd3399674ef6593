"""Captioners, each loaded from a tiny checkpoint on disk: what they say is nonsense, but by the rules."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from tiny import captioners

from engine.protocols import Image, Sample
from engine.records import Box, Item, Record, Region, RegionText, Text
from specialists.hub.captioner import Captioner
from specialists.hub.crops import Crops
from specialists.hub.pixels import crop

pytestmark = pytest.mark.usefixtures("one_thread")


def picture(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample(image: Image, *boxes: Box) -> Sample:
    record = Record(Item(bytes(16), "x", width=image.shape[1], height=image.shape[0]))
    regions = [Region(id=f"0.d.{n}", source="d", kind="object", box=box, label="cat") for n, box in enumerate(boxes)]
    return Sample(image, record.append(regions))


@pytest.fixture(scope="module", params=captioners.FAMILY, ids=lambda make: make.__name__)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = request.param(tmp_path_factory.mktemp(request.param.__name__))
    return made


def captioner(folder: Path, **parameters: Any) -> Captioner:
    """As a worker has it."""
    loaded: Captioner = pickle.loads(pickle.dumps(Captioner(model=str(folder), max_new_tokens=12, **parameters)))
    loaded.setup()
    return loaded


def said(one: Captioner, image: Image) -> tuple[str, float | None]:
    [[text]] = one.annotate([sample(image)])
    assert isinstance(text, Text)
    return text.text, text.scores.phrase


def test_the_score_is_the_probability_of_the_wording_per_token(folder: Path) -> None:
    """By another way: the whole text is given, and the probability of each next token read off."""
    one, image = captioner(folder), picture(40, 60)
    text, score = said(one, image)
    pixels = one._processor.image_processor(images=Pillow.fromarray(image), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        made = one._model.generate(
            pixel_values=pixels, num_beams=3, do_sample=False, length_penalty=1.0, max_new_tokens=12
        )
        assert one._processor.decode(made[0], skip_special_tokens=True).split() == text.split()
        if folder.name.startswith("blip_2"):
            if not (made == one._model.config.image_token_id).any():
                prompt = torch.tensor([[one._model.config.image_token_id] * 4 + [5]])
                made = torch.cat([prompt, made[made != 5][None]], dim=1)
            start = 5
        else:
            start = 1
        logits = one._model(pixel_values=pixels, input_ids=made).logits
    steps = logits[0].log_softmax(-1)[start - 1 : -1]
    gained = steps.gather(1, made[0, start:, None])
    assert score == pytest.approx(math.exp(gained.mean().item()), rel=1e-4)


def test_a_regions_text_is_that_of_its_crop(folder: Path) -> None:
    image, boxes = picture(60, 90), ((10.0, 5.0, 40.0, 55.0), (30.0, 0.0, 90.0, 60.0), (2.0, 2.0, 9.0, 60.0))
    one = captioner(folder, max_regions=5, margin=0, min_side=8, detail=None)
    [found] = one.annotate([sample(image, *boxes)])
    assert [(text.region_id, text.derived_from) for text in found if isinstance(text, RegionText)] == [
        ("0.d.1", ("0.d.1",)),
        ("0.d.0", ("0.d.0",)),
    ], "the largest first; one is too narrow"
    brief = captioner(folder)
    for text, (x0, y0, x1, y1) in zip(found, (boxes[1], boxes[0]), strict=True):
        alone = said(brief, np.ascontiguousarray(image[int(y0) : int(y1), int(x0) : int(x1)]))
        assert text.text == alone[0]
        assert text.scores.phrase == pytest.approx(alone[1], rel=1e-4)


def test_an_image_alone_gives_what_it_gives_among_others(folder: Path) -> None:
    one = captioner(folder, max_regions=2)
    box = (5.0, 5.0, 30.0, 30.0)
    samples = [sample(picture(40, 60, 1), box), sample(picture(1, 300)), sample(picture(50, 41, 2), box, box)]
    together = one.annotate(samples)
    assert [len(found) for found in together] == [2, 1, 3]
    for shown, found in zip(samples, together, strict=True):
        [alone] = one.annotate([shown])
        assert [text.text for text in alone] == [text.text for text in found]
        assert [t.scores.phrase for t in alone] == pytest.approx([t.scores.phrase for t in found], rel=1e-4)
        shown.record.append(found)
    assert one.annotate([]) == []


def test_crops_have_their_margin_and_end_with_the_image() -> None:
    image = picture(40, 60)
    assert np.array_equal(crop(image, (10, 5, 20, 25)), image[5:25, 10:20])
    assert np.array_equal(crop(image, (10, 5, 20, 25), 0.1), image[3:27, 9:21])
    assert np.array_equal(crop(image, (-5, 30, 20, 99)), image[30:40, 0:20])
    assert crop(image, (70, 5, 90, 25)).size == 0
    assert Crops(5, 0, 1).of(sample(image, (70, 5, 90, 25), (3, 3, 3, 9))) == []
