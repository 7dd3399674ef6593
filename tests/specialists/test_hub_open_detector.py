"""OWLv2 as a detector of a vocabulary's classes and as a grounder, loaded from a tiny checkpoint on disk."""

from __future__ import annotations

import pickle
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from phrased import phrase, picture, sample
from PIL import Image as Pillow
from tiny import grounders

from engine.errors import ConfigError
from engine.geometry import clip, iou
from engine.protocols import Image, Sample
from engine.records import Box, Decision, Region, Triplet
from engine.vocabulary import ClassEntry, Vocabulary
from specialists.hub.open_detector import Owl, Owlv2, Owlv2Grounder, squared

pytestmark = pytest.mark.usefixtures("one_thread")
Made = TypeVar("Made", Owlv2, Owlv2Grounder)
SIZES = ((48, 70), (90, 41))  # height, width
CLASSES = {"cat": ClassEntry(synonyms=("kitten",)), "dog": ClassEntry(prompt="a small dog"), "ball": ClassEntry()}
VOCABULARY = Vocabulary(classes=CLASSES)
PROMPTS = {"cat": "a photo of a cat", "dog": "a small dog", "ball": "a photo of a ball"}
DOG = "A brown dog on the grass. Two balls"
DOG_PHRASES = [phrase(DOG, "A brown dog", DOG[:24]), phrase(DOG, "the grass"), phrase(DOG, "Two balls", count=2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grounders.owlv2(tmp_path_factory.mktemp("owlv2"))


def loaded(built: Made) -> Made:
    """As a worker has it."""
    made: Made = pickle.loads(pickle.dumps(built))
    made.setup()
    torch.set_num_threads(1)  # setup takes all there are
    return made


def detector(folder: Path, **parameters: Any) -> Owlv2:
    limits = {"min_score": 0, "min_proposal_score": 0, "iou": 1, "vocabulary": VOCABULARY}
    return loaded(Owlv2(model=str(folder), **limits | parameters))


def grounder(folder: Path, **parameters: Any) -> Owlv2Grounder:
    limits = {"min_phrase": 0, "min_box": 0, "iou": 1, "same_iou": 1}
    return loaded(Owlv2Grounder(model=str(folder), **limits | parameters))


def network(owl: Owl, image: Image, queries: list[str]) -> Any:
    """What the whole network says of an image on a grey square and some queries."""
    side = max(image.shape[:2])
    square = np.full((side, side, 3), 128, np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    inputs = owl.processor(text=[queries], images=Pillow.fromarray(square), return_tensors="pt")
    with torch.inference_mode():
        return owl.model(**inputs)


def in_pixels(outputs: Any, image: Image) -> list[Box]:
    """What lies in the image of the boxes, which are parts of the square around it."""
    height, width = image.shape[:2]
    side = max(height, width)
    corners = [
        ((x - w / 2) * side, (y - h / 2) * side, (x + w / 2) * side, (y + h / 2) * side)
        for x, y, w, h in outputs.pred_boxes[0].double().tolist()
    ]
    return [clip(box, width, height) for box in corners]


def has_area(box: Box) -> bool:
    return box[0] < box[2] and box[1] < box[3]


@pytest.mark.parametrize("size", SIZES)
def test_objects_and_proposals_are_the_networks_in_pixels(folder: Path, size: tuple[int, int]) -> None:
    model, image = detector(folder), picture(*size)
    [found] = model.annotate([sample(image, {})])
    outputs = network(model._owl, image, list(PROMPTS.values()))
    boxes = in_pixels(outputs, image)
    likely, objectness = outputs.logits[0].sigmoid().tolist(), outputs.objectness_logits[0].sigmoid().tolist()
    seen = [n for n, box in enumerate(boxes) if has_area(box)]
    assert len(seen) > 8 and len({likely[n].index(max(likely[n])) for n in seen}) > 1
    objects = [region for region in found if region.kind == "object"]
    for region, n in zip(objects, sorted(seen, key=lambda n: -max(likely[n])), strict=True):
        name = list(PROMPTS)[likely[n].index(max(likely[n]))]
        assert (region.label, region.raw_label) == (name, CLASSES[name].prompt or name)
        assert numbers(region) == pytest.approx([*boxes[n], max(likely[n]), 0, objectness[n]], abs=1e-3)
    proposals = [region for region in found if region.kind == "proposal"]
    for region, n in zip(proposals, sorted(seen, key=lambda n: -objectness[n]), strict=True):
        assert region.label is None and region.scores.label is None
        assert numbers(region) == pytest.approx([*boxes[n], 0, 0, objectness[n]], abs=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_those_of_the_models_own_post_processing(folder: Path, size: tuple[int, int]) -> None:
    model, image = detector(folder, max_proposals=0), picture(*size)
    [found] = model.annotate([sample(image, {})])
    outputs = network(model._owl, image, list(PROMPTS.values()))
    [own] = model._owl.processor.post_process_grounded_object_detection(outputs, 0, [size], [list(PROMPTS)])
    clipped = [clip(tuple(box), size[1], size[0]) for box in own["boxes"].tolist()]
    theirs = [
        (label, *box, score)
        for label, box, score in zip(own["text_labels"], clipped, own["scores"].tolist(), strict=True)
        if has_area(box)
    ]
    theirs.sort(key=lambda one: -one[-1])
    assert [region.label for region in found] == [label for label, *_ in theirs]
    ours = [(*region.box, region.scores.label) for region in found]
    assert np.allclose(ours, [numbers for _, *numbers in theirs], atol=1e-3)


def test_of_boxes_of_one_label_and_of_proposals_the_surest_is_reported(folder: Path) -> None:
    shown = sample(picture(48, 70), {})
    everything = detector(folder).annotate([shown])[0]
    some = detector(folder, iou=0.1).annotate([shown])[0]
    for kind in ("object", "proposal"):
        kept = [region for region in some if region.kind == kind]
        lost = [region for region in everything if region.kind == kind and region.box not in {r.box for r in kept}]
        pairs = [(a, b) for a, b in combinations(kept, 2) if a.label == b.label]
        assert lost and all(iou(a.box, b.box) <= 0.1 + 1e-6 for a, b in pairs)
        assert all(any(r.label == k.label and iou(r.box, k.box) > 0.1 for k in kept) for r in lost)
    objects = [region for region in some if region.kind == "object"]
    assert any(a.label != b.label and iou(a.box, b.box) > 0.1 for a, b in combinations(objects, 2))


def test_limits(folder: Path) -> None:
    shown = sample(picture(48, 70), {})
    everything = detector(folder).annotate([shown])[0]
    objects = [region for region in everything if region.kind == "object"]
    proposals = [region for region in everything if region.kind == "proposal"]
    middle, low = objects[4].scores.label or 0, proposals[4].scores.box or 0
    some = detector(folder, min_score=middle - 1e-5, min_proposal_score=low - 1e-8).annotate([shown])[0]
    assert [region.box for region in some] == [region.box for region in objects[:5] + proposals[:5]]
    few = detector(folder, max_objects=2, max_proposals=1).annotate([shown])[0]
    assert [region.box for region in few] == [region.box for region in objects[:2] + proposals[:1]]
    assert detector(folder, min_score=1, min_proposal_score=1).annotate([shown]) == [[]]


def test_alone_an_image_gives_what_it_gives_among_others(folder: Path) -> None:
    sizes = [(48, 70), (90, 41), (48, 70), (1, 300), (300, 1), (1, 1)]
    images = [picture(*size, seed=n) for n, size in enumerate(sizes)] + [np.zeros((30, 40, 3), np.uint8)]
    for model in (detector(folder), grounder(folder)):
        texts = {DOG: DOG_PHRASES} if isinstance(model, Owlv2Grounder) else {}
        shown = [sample(image, texts) for image in images]
        together = model.annotate(shown)
        for one, found in zip(shown, together, strict=True):
            [alone] = model.annotate([one])
            assert close(alone, found)
            one.record.append(region for region in found if not isinstance(region, Decision))
        assert all(together[:3]) and not close(together[0], together[2])
        assert model.annotate([]) == []


def numbers(one: Any) -> list[float]:
    """Box and scores, or what an opinion measured."""
    if isinstance(one, Decision):
        return [one.value or 0]
    scores = one.scores
    return [*getattr(one, "box", ()), scores.label or 0, scores.phrase or 0, scores.box or 0]


def close(some: list[Any], others: list[Any]) -> bool:
    return [type(one) for one in some] == [type(one) for one in others] and all(
        np.allclose(numbers(a), numbers(b), rtol=1e-4, atol=1e-3) for a, b in zip(some, others, strict=True)
    )


def test_in_half_precision_boxes_stay_where_they_are(folder: Path) -> None:
    shown = sample(picture(48, 70), {})
    found, half = (
        detector(folder, max_objects=0, precision=precision).annotate([shown])[0]
        for precision in ("float32", "bfloat16")
    )
    assert len(half) > 8 and half != found
    for one in half[:8]:
        assert min(np.abs(np.array(one.box) - other.box).max() for other in found) < 1


def test_prompts_are_read_once(folder: Path) -> None:
    model, read = detector(folder), []
    model._owl.model.owlv2.text_model.register_forward_hook(lambda *_: read.append(1))
    model.annotate([sample(picture(48, 70), {}), sample(picture(90, 41), {})])
    assert not read
    model._owl.embed(["a dog"])
    assert read


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (Vocabulary(), "vocabulary has no classes.*vocabulary.classes"),
        (Vocabulary(classes={"dog": ClassEntry(prompt="dog" * 20)}), "can't read 'dogdog.*shorter"),
    ],
)
def test_a_vocabulary_that_cannot_be_asked_for_is_turned_down(
    folder: Path, vocabulary: Vocabulary, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Owlv2(model=str(folder), vocabulary=vocabulary).setup()


def test_a_dry_run_says_what_is_wrong_with_the_vocabulary(folder: Path) -> None:
    assert list(Owlv2(model=str(folder), vocabulary=VOCABULARY).needs()) == []
    with pytest.raises(ConfigError, match="no classes"):
        Owlv2(model=str(folder)).needs()


@pytest.mark.parametrize("size", [(48, 70), (90, 41), (1, 1), (300, 400)])
def test_an_image_is_shown_on_a_grey_square(size: tuple[int, int]) -> None:
    image = picture(*size)
    shown = np.asarray(squared(image, 128))
    side = min(max(size), 128)
    assert shown.shape == (side, side, 3)
    height, width = (round(length * side / max(size)) for length in size)
    assert (shown[height:] == 128).all() and (shown[:, width:] == 128).all()
    if max(size) <= 128:
        assert (shown[:height, :width] == image).all()
    else:
        assert shown[:height, :width].std() > 10 and not (shown[height - 1, :width] == 128).all()


def test_a_large_photo_is_made_smaller_first_and_its_boxes_are_in_its_own_pixels(folder: Path, photos: Path) -> None:
    """By what is seen in a photo twice as large as is looked at, and in one of four times that."""
    photo = Pillow.open(photos / "coffee.png").convert("RGB").resize((128, 85))
    [small], [large] = (
        detector(folder, max_objects=0, max_proposals=3).annotate([sample(np.asarray(photo.resize(size)), {})])
        for size in ((128, 85), (512, 340))
    )
    for one, other in zip(small, large, strict=True):
        assert np.allclose(np.array(one.box) * 4, other.box, atol=4)


@pytest.mark.parametrize("size", SIZES)
def test_phrases_are_asked_for_in_their_own_words(folder: Path, size: tuple[int, int]) -> None:
    model, image = grounder(folder), picture(*size)
    shown = sample(image, {DOG: DOG_PHRASES})
    [found] = model.annotate([shown])
    record = shown.record.append(one for one in found if not isinstance(one, Decision))
    regions = {region.id: region for region in record.regions}
    said = {DOG[t.start : t.stop]: t for t in record.triplets}
    queries = ["A brown dog", "A brown dog on the grass", "the grass", "Two balls"]
    assert list(said) == queries
    outputs = network(model._owl, image, queries)
    boxes, likely = in_pixels(outputs, image), outputs.logits[0].sigmoid()
    objectness = outputs.objectness_logits[0].sigmoid()
    for column, count in ((0, 20), (2, 20), (3, 2)):
        ranked = likely[:, column].argsort(descending=True).tolist()
        seen = [n for n in ranked if has_area(boxes[n])][:count]
        triplet = said[queries[column]]
        assert [regions[id_].box for id_ in triplet.region_ids] == [pytest.approx(boxes[n], abs=1e-3) for n in seen]
        expected = [0, likely[seen[0], column].item(), objectness[seen].min().item()]
        assert numbers(triplet) == pytest.approx(expected, abs=1e-5)
        if column == 0:
            whole = said["A brown dog on the grass"]
            assert whole.scores.phrase == pytest.approx(likely[seen[0], 1].item(), abs=1e-5)
            assert whole.region_ids == triplet.region_ids
    assert [(one.reason, one.value) for one in found if isinstance(one, Decision)] == [("grounded", 1)]


def test_a_phrase_that_the_text_encoder_does_not_read_to_its_end_is_not_asked_for(folder: Path) -> None:
    text = f"A dog on the {'very ' * 10}green grass. 🐶 cafe\u0301 in 一只狗."
    endless = f"the {'very ' * 10}green grass"
    phrases = [phrase(text, "A dog", text[: text.index(".")]), phrase(text, endless), phrase(text, "🐶 cafe\u0301")]
    [found] = grounder(folder).annotate([sample(picture(48, 70), {text: phrases})])
    assert [text[t.start : t.stop] for t in found if isinstance(t, Triplet)] == ["A dog", "🐶 cafe\u0301"]
    assert [one.value for one in found if isinstance(one, Decision)] == [pytest.approx(2 / 3)]
    [nothing] = grounder(folder).annotate([sample(picture(48, 70), {text: [phrase(text, endless)]})])
    assert [one.value for one in nothing if isinstance(one, Decision)] == [0] and len(nothing) == 1


def test_it_links_to_what_stands(folder: Path) -> None:
    shown = sample(picture(48, 70), {"A dog": [phrase("A dog", "A dog", count=1)]})
    [first, *_] = grounder(folder).annotate([shown])[0]
    assert isinstance(first, Region)
    standing = Region(id="r", source="d", kind="object", box=first.box, label="dog")
    record = shown.record.append([standing])
    [triplet, _] = grounder(folder, vocabulary=VOCABULARY).annotate([Sample(shown.image, record)])[0]
    assert isinstance(triplet, Triplet) and triplet.region_ids == ("r",)
