"""Grounding DINO and MM Grounding DINO, each loaded from a tiny checkpoint on disk, and what becomes of their boxes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from phrased import phrase, picture, sample
from PIL import Image as Pillow
from tiny import grounders

from engine.geometry import clip, iou
from engine.protocols import Image, Sample
from engine.records import Box, Decision, Region, Scores, Triplet
from engine.vocabulary import ClassEntry, Vocabulary
from specialists.hub.grounder import GroundingDino, divided
from specialists.hub.linking import Found, Linking, Sight
from specialists.hub.phrase_grounder import PhraseGrounder

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = ((48, 70), (90, 41))  # height, width
EVERYTHING: dict[str, Any] = {"min_phrase": 0, "min_box": 0, "iou": 1, "same_iou": 1}
DOG = "A brown dog on the grass. Two balls"
DOG_PHRASES = [phrase(DOG, "A brown dog", DOG[:24]), phrase(DOG, "the grass"), phrase(DOG, "Two balls", count=2)]
# A text, a phrase in it, and the phrase's places among the tokens that the text has, [CLS] being the first.
SPANS = [
    ("A dog.", "A dog", [1, 2]),
    ("a  brown   DOG", "brown   DOG", [2, 3]),
    ("The Café on the grass.", "The Café", [1, 2]),
    ("The cafe\u0301 🐶 and cat.", "cafe\u0301 🐶", [2, 3]),
    ("🐶🐶 A dog!", "A dog", [2, 3]),
    ("一只狗 on grass.", "只狗", [2, 3]),
    ('"Dogs" on dog-grass', "Dogs", [2, 3]),
    ('"Dogs" on dog-grass', "dog-grass", [6, 7, 8]),
    ("No dog? A\u200bcat. A ball", "A ball", [6, 7]),  # one word, as BERT reads it
]


@pytest.fixture(scope="module", params=[grounders.grounding_dino, grounders.mm_grounding_dino], ids=["dino", "mm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = request.param(tmp_path_factory.mktemp(request.param.__name__))
    return made


@pytest.fixture(scope="module")
def everything(folder: Path) -> GroundingDino:
    return grounder(folder, **EVERYTHING)


def grounder(folder: Path, **parameters: Any) -> GroundingDino:
    """As a worker has it."""
    loaded: GroundingDino = pickle.loads(pickle.dumps(GroundingDino(model=str(folder), **parameters)))
    loaded.setup()
    torch.set_num_threads(1)  # setup takes all there are
    return loaded


def answers(model: PhraseGrounder, shown: Sample) -> tuple[dict[str, Region], dict[str, Triplet], list[Decision]]:
    """Regions by id, triplets by what they say, and opinions; all of which the record takes."""
    [found] = model.annotate([shown])
    annotations = [one for one in found if not isinstance(one, Decision)]
    opinions = [one for one in found if isinstance(one, Decision)]
    record = shown.record.append(annotations).decide(opinions)
    texts = {text.id: text.text for text in record.texts}
    said = {texts[t.text_id][t.start : t.stop]: t for t in record.triplets}
    assert len(said) == len(record.triplets)
    return {region.id: region for region in record.regions}, said, opinions


def network(model: GroundingDino, image: Image, text: str) -> tuple[Any, Any]:
    """What it says of the whole text: probabilities [queries, tokens], and its outputs."""
    words = model._processor.tokenizer(text, return_tensors="pt")
    pixels = model._processor.image_processor(Pillow.fromarray(image), return_tensors="pt")
    with torch.inference_mode():
        outputs = model._model(**words, **pixels)
    return outputs.logits[0].sigmoid()[:, : words["input_ids"].shape[1]], outputs


def in_pixels(outputs: Any, image: Image) -> list[Box]:
    """What lies in the image of the boxes, of all queries in their order."""
    height, width = image.shape[:2]
    return [
        clip(((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height), width, height)
        for x, y, w, h in outputs.pred_boxes[0].double().tolist()
    ]


@pytest.mark.parametrize(("text", "said", "tokens"), SPANS)
def test_a_phrases_score_is_the_mean_over_its_own_tokens(
    everything: GroundingDino, text: str, said: str, tokens: list[int]
) -> None:
    image = picture(48, 70)
    _, triplets, _ = answers(everything, sample(image, {text: [phrase(text, said)]}))
    likely, _ = network(everything, image, text if text.endswith(".") else f"{text}.")
    scores = likely[:, tokens].mean(dim=1)
    assert list(triplets) == [said]
    assert triplets[said].scores.phrase == pytest.approx(max(scores.tolist()), abs=1e-5)
    others = [likely[:, [n + shift for n in tokens]].mean(dim=1).max().item() for shift in (-1, 1)]
    assert triplets[said].scores.phrase not in [pytest.approx(other, abs=1e-5) for other in others]


@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_the_networks_in_pixels_and_the_surest_of_the_phrase_come_first(
    everything: GroundingDino, size: tuple[int, int]
) -> None:
    image = picture(*size)
    regions, triplets, _ = answers(everything, sample(image, {DOG: DOG_PHRASES}))
    likely, outputs = network(everything, image, f"{DOG}.")
    boxes, box_scores = in_pixels(outputs, image), likely.amax(dim=1).tolist()
    assert len({tuple(box) for box in boxes}) > 10
    for said, tokens, count in (
        ("A brown dog", [1, 2, 3], 20),
        ("the grass", [5, 6], 20),
        ("Two balls", [8, 9, 10], 2),
    ):
        scores = likely[:, tokens].mean(dim=1).tolist()
        queries = sorted(range(len(boxes)), key=lambda n: -scores[n])
        seen = [n for n in queries if boxes[n][0] < boxes[n][2] and boxes[n][1] < boxes[n][3]][:count]
        found = [regions[id_] for id_ in triplets[said].region_ids]
        assert [region.box for region in found] == [pytest.approx(boxes[n], abs=1e-3) for n in seen]
        assert [region.scores.box for region in found] == [pytest.approx(box_scores[n], abs=1e-5) for n in seen]
        assert triplets[said].scores.phrase == pytest.approx(scores[seen[0]], abs=1e-5)
        assert triplets[said].scores.box == pytest.approx(min(box_scores[n] for n in seen), abs=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_those_of_the_models_own_post_processing(everything: GroundingDino, size: tuple[int, int]) -> None:
    image = picture(*size)
    regions, triplets, _ = answers(everything, sample(image, {DOG: DOG_PHRASES}))
    _, outputs = network(everything, image, f"{DOG}.")
    ids = everything._processor.tokenizer(f"{DOG}.", return_tensors="pt")["input_ids"]
    [own] = everything._processor.post_process_grounded_object_detection(outputs, ids, 0, 0, [size])
    clipped = [clip(tuple(box), size[1], size[0]) for box in own["boxes"].tolist()]
    theirs = [(*box, score) for box, score in zip(clipped, own["scores"].tolist(), strict=True)]
    ours = [(*regions[id_].box, regions[id_].scores.box) for id_ in triplets["A brown dog"].region_ids]
    assert len(ours) > 10
    for one in ours:
        assert any(np.allclose(one, other, atol=1e-3) for other in theirs)


def test_an_expression_is_scored_by_all_its_words_in_the_surest_box_of_its_phrase(everything: GroundingDino) -> None:
    image = picture(48, 70)
    _, triplets, _ = answers(everything, sample(image, {DOG: DOG_PHRASES}))
    likely, _ = network(everything, image, f"{DOG}.")
    best = likely[:, [1, 2, 3]].mean(dim=1).argmax()
    core, whole = triplets["A brown dog"], triplets["A brown dog on the grass"]
    assert whole.scores.phrase == pytest.approx(likely[best, 1:7].mean().item(), abs=1e-5)
    assert (whole.region_ids, whole.scores.box) == (core.region_ids, core.scores.box)
    assert list(triplets) == ["A brown dog", "A brown dog on the grass", "the grass", "Two balls"]


def test_thresholds_are_of_the_phrase_and_of_the_box(folder: Path) -> None:
    image = picture(48, 70)
    shown = sample(image, {DOG: DOG_PHRASES[1:2]})
    likely, outputs = network(grounder(folder), image, f"{DOG}.")
    scores, box_scores = likely[:, [5, 6]].mean(dim=1), likely.amax(dim=1)
    boxes = in_pixels(outputs, image)
    has_area = torch.tensor([box[0] < box[2] and box[1] < box[3] for box in boxes])
    low, high = scores[has_area].median().item(), box_scores[has_area].median().item()
    for limits, kept in (
        ({"min_phrase": low, "min_box": 0}, scores >= low),
        ({"min_phrase": 0, "min_box": high}, box_scores >= high),
        ({"min_phrase": low, "min_box": high}, (scores >= low) & (box_scores >= high)),
    ):
        _, triplets, _ = answers(grounder(folder, **{**EVERYTHING, **limits}), shown)
        assert 0 < int((kept & has_area).sum()) < int(has_area.sum())
        assert len(triplets["the grass"].region_ids) == int((kept & has_area).sum())
    regions, triplets, opinions = answers(grounder(folder, min_phrase=1, min_box=1), shown)
    assert not regions and not triplets and [opinion.value for opinion in opinions] == [0]


def test_alone_a_text_gives_what_it_gives_among_others(everything: GroundingDino) -> None:
    longer = "A brown dog on the grass and a red ball on the leash."
    texts = {"a dog": [phrase("a dog", "a dog")], longer: [phrase(longer, "a red ball")], DOG: DOG_PHRASES}
    shown = [
        sample(picture(48, 70, 1), texts),
        sample(picture(90, 41, 2), {DOG: DOG_PHRASES}),
        sample(picture(48, 70, 3), {}),
        sample(picture(48, 70, 4), texts),
        *(sample(picture(*size), {DOG: DOG_PHRASES}) for size in ((1, 300), (300, 1), (1, 1))),
        sample(np.zeros((30, 40, 3), np.uint8), {DOG: DOG_PHRASES}),
    ]
    together = everything.annotate(shown)
    for one, found in zip(shown, together, strict=True):
        [alone] = everything.annotate([one])
        assert close(alone, found)
        assert bool(found) == bool(one.record.texts)
    assert not close(together[0], together[3])
    [first, *_] = everything.annotate([sample(picture(48, 70, 1), {"a dog": [phrase("a dog", "a dog")]})])
    assert close(first[-2:-1], [one for one in together[0] if isinstance(one, Triplet)][:1], ids=False)
    assert everything.annotate([]) == []


def close(some: list[Any], others: list[Any], ids: bool = True) -> bool:
    """The same annotations, but for the last bits of sums of another order."""

    def words(one: Any) -> Any:
        named = (one.id, getattr(one, "region_ids", None)) if ids and not isinstance(one, Decision) else None
        return type(one), named, getattr(one, "start", None), getattr(one, "stop", None)

    def numbers(one: Any) -> list[float]:
        if isinstance(one, Decision):
            return [one.value or 0]
        return [*getattr(one, "box", ()), one.scores.phrase or 0, one.scores.box or 0]

    return [*map(words, some)] == [*map(words, others)] and all(
        np.allclose(numbers(a), numbers(b), rtol=1e-4, atol=1e-3) for a, b in zip(some, others, strict=True)
    )


def test_parts_of_a_long_text_are_texts_of_their_own(everything: GroundingDino) -> None:
    sentences = ["A brown dog on the grass and a cat on the grass.", "No man on a leash and a red ball!", "The shirt."]
    said = ["A brown dog", "a red ball", "The shirt"]
    text, image = "  ".join(sentences), picture(48, 70)
    assert len(everything._processor.tokenizer(text)["input_ids"]) > grounders.MOST_TOKENS
    whole = sample(image, {text: [phrase(text, words) for words in said]})
    _, together, opinions = answers(everything, whole)
    assert list(together) == said and opinions[0].value == 1
    parts = [sentences[0], f"{sentences[1]}  {sentences[2]}"]
    for part, some in zip(parts, (said[:1], said[1:]), strict=True):
        _, alone, _ = answers(everything, sample(image, {part: [phrase(part, words) for words in some]}))
        for words in some:
            assert together[words].scores.phrase == pytest.approx(alone[words].scores.phrase, abs=1e-5)
            assert together[words].scores.box == pytest.approx(alone[words].scores.box, abs=1e-5)


def test_a_long_sentence_is_divided_between_its_words(everything: GroundingDino) -> None:
    text = " and ".join(["a dog"] * 12 + ["a cat"])
    _, triplets, _ = answers(
        everything, sample(picture(48, 70), {text: [phrase(text, "a dog"), phrase(text, "a cat")]})
    )
    [first, last] = triplets.values()
    likely, _ = network(everything, picture(48, 70), f"{text[: len('a dog and ') * 7]}.")
    assert likely.shape[1] == grounders.MOST_TOKENS
    assert first.scores.phrase == pytest.approx(likely[:, [1, 2]].mean(dim=1).max().item(), abs=1e-5)
    assert text[last.start : last.stop] == "a cat"


def test_a_phrase_longer_than_the_encoder_takes_is_not_found(everything: GroundingDino) -> None:
    endless = "red " * 30 + "ball"
    text = f"A dog. {endless} on the grass."
    phrases = [phrase(text, said) for said in ("A dog", endless, "the grass")]
    _, triplets, opinions = answers(everything, sample(picture(48, 70), {text: phrases}))
    assert list(triplets) == ["A dog", "the grass"]
    assert [opinion.value for opinion in opinions] == [pytest.approx(2 / 3)]


@given(st.data())
def test_a_text_is_divided_between_words_and_not_in_phrases(data: st.DataObject) -> None:
    """Tokens of one character or two, words of one token or two."""
    pieces = data.draw(st.lists(st.sampled_from(["a", "bb", "a.", ".", "ab?", "。"]), min_size=1, max_size=40))
    text = " ".join(pieces)
    words, spans, at = [], [], 0
    for n, piece in enumerate(pieces):
        tokens = [piece[:1], piece[1:]] if len(piece) > 1 else [piece]
        for token in tokens:
            words.append(n)
            spans.append((at, at + len(token)))
            at += len(token)
        at += 1
    most = data.draw(st.integers(2, 9))
    begin = data.draw(st.integers(0, len(pieces) - 1))
    said = " ".join(pieces[begin : begin + data.draw(st.integers(1, 4))])
    start = len(" ".join([*pieces[:begin], ""]))
    named = phrase(" " * start + said, said)
    parts = list(divided(text, words, spans, [named], most))
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])] and parts[-1][1] == len(text)
    inside = [sum(start <= first < stop for first, _ in spans) for start, stop in parts]
    assert max(inside) <= most and min(inside) > 0
    cuts = [stop for _, stop in parts[:-1]]
    assert all(text[cut - 1] == " " for cut in cuts)
    length = sum(named.start <= first < named.stop for first, _ in spans)
    if length * 2 <= most:
        assert not any(named.start < cut < named.stop for cut in cuts)


def test_parts_end_with_sentences_where_they_can() -> None:
    text = "a b. c d. e f g h"
    spans = [(n, n + 1) for n, character in enumerate(text) if character != " "]
    words = list(range(len(spans)))
    assert [text[a:b] for a, b in divided(text, words, spans, [], 8)] == ["a b. c d. ", "e f g h"]
    assert [text[a:b] for a, b in divided(text, words, spans, [], 4)] == ["a b. ", "c d. ", "e f g h"]
    assert [text[a:b] for a, b in divided(text, words, spans, [], 2)] == ["a b", ". ", "c d", ". ", "e f ", "g h"]
    for named, most, parts in (
        ("g h", 3, ["a b. ", "c d. ", "e f ", "g h"]),
        ("b. c", 4, ["a b. c ", "d. ", "e f g h"]),
    ):
        assert [text[a:b] for a, b in divided(text, words, spans, [phrase(text, named)], most)] == parts


def test_only_standing_texts_with_a_parse_and_phrases_that_are_there_are_asked(folder: Path) -> None:
    model = grounder(folder, **{**EVERYTHING, "details": ("brief",)})
    text = "A man and no dog."
    shown = sample(picture(48, 70), {text: [phrase(text, "A man"), phrase(text, "no dog"), phrase(text, "dog")]})
    _, triplets, opinions = answers(model, shown)
    assert list(triplets) == ["A man"] and opinions[0].value == 1
    assert (opinions[0].annotation_id, opinions[0].reason, opinions[0].by) == ("t0", "grounded", "grounder")
    fallen = shown.record.decide([shown.record.reject(shown.record.texts[0], "length", "too_short")])
    assert model.annotate([Sample(shown.image, fallen)]) == [[]]
    unparsed = sample(picture(48, 70), {})
    unparsed = Sample(unparsed.image, unparsed.record.append(shown.record.texts))
    assert model.annotate([unparsed, sample(picture(48, 70), {text: []})]) == [[], []]
    assert GroundingDino(model=str(folder), details=("detailed",)).annotate([shown]) == [[]]


def test_in_half_precision_boxes_stay_where_they_are(folder: Path, everything: GroundingDino) -> None:
    half = grounder(folder, **EVERYTHING, precision="bfloat16")
    shown = sample(picture(48, 70), {DOG: DOG_PHRASES})
    _, full, _ = answers(everything, shown)
    _, some, _ = answers(half, shown)
    assert list(some) == list(full)
    assert some["the grass"].scores.phrase == pytest.approx(full["the grass"].scores.phrase, abs=0.1)


# What becomes of boxes

PLACE: Box = (10, 10, 50, 50)
NEAR: Box = (10, 10, 50, 46)  # IoU 0.9
PART: Box = (10, 10, 50, 34)  # IoU 0.6
VOCABULARY = Vocabulary(classes={"dog": ClassEntry(synonyms=("puppy",)), "hot dog": ClassEntry()})


def region(n: int, box: Box, label: str | None, crowd: bool = False) -> Region:
    kind = "object" if label else "proposal"
    return Region(id=f"r{n}", source="detector", kind=kind, box=box, label=label, crowd=crowd)  # type: ignore[arg-type]


def linked(said: str, boxes: list[tuple[Box, float]], *regions: Region) -> tuple[list[Region], list[Triplet]]:
    shown = sample(picture(100, 100), {said: [phrase(said, said)]}, *regions)
    sights = [Sight(box, 0.5, None, score) for box, score in boxes]
    found = Found(shown.record.texts[0], phrase(said, said), sights)
    new = list(Linking(shown, [found], PhraseGrounder(vocabulary=VOCABULARY)).annotations())
    shown.record.append(new)
    return [one for one in new if isinstance(one, Region)], [one for one in new if isinstance(one, Triplet)]


@pytest.mark.parametrize(
    ("said", "regions", "expected"),
    [
        ("a dog", [("dog", NEAR)], "r0"),
        ("a puppy", [("dog", NEAR)], "r0"),
        ("two dogs", [("dog", NEAR)], "r0"),
        ("a dog", [("dog", PART)], None),
        ("a shirt", [("person", PLACE)], None),  # of who wears it
        ("a hot dog", [("dog", NEAR)], None),
        ("a dog", [(None, PLACE), ("dog", NEAR)], "r1"),  # what is called so before what has no name
        ("a dog", [(None, NEAR)], "r0"),
        ("a shirt", [("person", PLACE), (None, NEAR)], "r1"),
        ("a dog", [("dog", NEAR), ("dog", PLACE)], "r1"),  # the nearest
        ("a dog", [], None),
    ],
)
def test_a_box_shows_what_stands_there(said: str, regions: list[tuple[str | None, Box]], expected: str | None) -> None:
    new, [triplet] = linked(said, [(PLACE, 0.8)], *(region(n, box, label) for n, (label, box) in enumerate(regions)))
    if expected:
        assert not new and triplet.region_ids == (expected,)
    else:
        assert triplet.region_ids == (new[0].id,)
        assert new == [
            Region(
                id="0.grounder.0",
                source="grounder",
                derived_from=("t0",),
                kind="proposal",
                box=PLACE,
                scores=Scores(box=0.8),
            )
        ]
    assert triplet.scores == Scores(phrase=0.5, box=0.8) and triplet.derived_from == ("t0",)


def test_a_crowd_is_not_one_of_its_things() -> None:
    new, [triplet] = linked("a dog", [(PLACE, 0.8)], region(0, PLACE, "dog", crowd=True))
    assert triplet.region_ids == (new[0].id,)


def test_what_fell_is_no_place_to_link_to() -> None:
    shown = sample(picture(100, 100), {"a dog": [phrase("a dog", "a dog")]}, region(0, PLACE, "dog"))
    record = shown.record.decide([shown.record.reject(shown.record.regions[0], "size", "too_small")])
    found = Found(record.texts[0], phrase("a dog", "a dog"), [Sight(PLACE, 0.5, None, 0.8)])
    [new, triplet] = Linking(Sample(shown.image, record), [found], PhraseGrounder()).annotations()
    assert isinstance(triplet, Triplet) and triplet.region_ids == (new.id,)


def test_the_same_new_box_of_several_phrases_is_one_region() -> None:
    texts = {"a dog": [phrase("a dog", "a dog")], "an animal": [phrase("an animal", "an animal")]}
    shown = sample(picture(100, 100), texts)
    [one, other] = shown.record.texts
    far: Box = (60, 60, 90, 90)
    found = [
        Found(one, texts["a dog"][0], [Sight(NEAR, 0.9, 0.4, 0.6), Sight(far, 0.5, None, 0.9)]),
        Found(other, texts["an animal"][0], [Sight(PLACE, 0.5, 0.1, 0.8), Sight(NEAR, 0.3, None, 0.7)]),
        Found(other, texts["an animal"][0], []),
    ]
    [first, second, *triplets] = Linking(shown, found, PhraseGrounder()).annotations()
    assert isinstance(first, Region) and isinstance(second, Region)
    assert (first.box, first.scores.box, first.derived_from) == (far, 0.9, ("t0",))
    assert (second.box, second.scores.box) == (PLACE, 0.8) and set(second.derived_from) == {"t0", "t1"}
    spans = [(t.text_id, t.region_ids, t.scores) for t in triplets if isinstance(t, Triplet)]
    assert spans == [
        ("t0", (second.id, first.id), Scores(phrase=0.9, box=0.6)),
        ("t0", (second.id, first.id), Scores(phrase=0.4, box=0.6)),  # the expression, of which it is sure enough
        ("t1", (second.id,), Scores(phrase=0.5, box=0.7)),
    ]


BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [40, 40, 40, 50], [50, 50, 60, 60]])
SURE = torch.tensor([0.5, 0.9, 0.7, 1.0, float("nan")])


@pytest.mark.parametrize(
    ("count", "limits", "expected"),
    [
        (None, {}, [1, 2]),  # the first repeats the second; one has no area, and one no score
        (None, {"iou": 0.95}, [1, 2, 0]),
        (1, {"iou": 0.95}, [1]),
        (2, {"iou": 0.95}, [1, 2]),
        (0, {}, []),
        (None, {"iou": 0.95, "max_boxes": 2}, [1, 2]),
        (5, {"max_boxes": 1}, [1]),
    ],
)
def test_a_phrase_has_as_many_boxes_as_it_says(count: int | None, limits: dict[str, Any], expected: list[int]) -> None:
    model = PhraseGrounder(**limits)
    sights = model._sights(phrase("a dog", "dog", count=count), BOXES, SURE, None, torch.full((5,), 0.5))
    assert [sight.box for sight in sights] == [tuple(BOXES[n].tolist()) for n in expected]
    assert [sight.phrase for sight in sights] == [pytest.approx(SURE[n].item()) for n in expected]
    assert iou(PLACE, NEAR) == pytest.approx(0.9) and iou(PLACE, PART) == pytest.approx(0.6)
