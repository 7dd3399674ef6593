"""Average precision, held against pycocotools, which is its definition; F1 against a plain search."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from florence2 import Florence2Error
from florence2.evaluation.detection import Objects, average_precision
from florence2.evaluation.masks import Rle, mask_of, mask_of_runs

CATEGORIES = {1: "person", 17: "cat", 90: "toothbrush"}  # sparse, as COCO's are
SIDE = 200


def pixels(box: list[float]) -> Rle:
    """An ellipse in the box: its area is not the box's."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    width, height = max(box[2] - box[0], 1), max(box[3] - box[1], 1)
    inside = ((x - (box[0] + box[2]) / 2) * 2 / width) ** 2 + ((y - (box[1] + box[3]) / 2) * 2 / height) ** 2 <= 1
    return dict(coco_mask.encode(np.asfortranarray(inside.astype(np.uint8))))


def some(seed: int, scores: bool = True) -> tuple[dict[int, Objects], dict[int, Objects]]:
    """Truth and answers of twelve images, two without objects, one without answers; crowds, ties, duplicates."""
    random = np.random.default_rng(seed)
    truth, found = {}, {}
    for image in random.permutation(900)[:12].tolist():
        count = 0 if len(truth) < 2 else int(random.integers(1, 9))
        corners = random.uniform(0, SIDE * 0.7, (count, 2))
        sides = random.uniform(3, SIDE * 0.3, (count, 2)) * random.choice([0.2, 1, 3], (count, 1))
        boxes = np.concatenate([corners, np.minimum(corners + sides, SIDE)], axis=1)
        labels = random.choice(list(CATEGORIES), count)
        crowd = random.random(count) < 0.2
        areas = [float(coco_mask.area(pixels(box))) for box in boxes]
        truth[image] = Objects(labels.tolist(), boxes, [pixels(b) for b in boxes], crowd=crowd.tolist(), areas=areas)
        again = random.integers(0, count, 2 * count) if count else np.empty(0, int)
        moved = (boxes[again] + random.normal(0, 3, (len(again), 4))).clip(0, SIDE)
        moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)
        stray = random.uniform(0, SIDE / 2, (3, 2))
        moved = np.concatenate([moved, np.concatenate([stray, stray + 40], axis=1)])
        named = np.where(random.random(len(again)) < 0.2, random.choice(list(CATEGORIES), len(again)), labels[again])
        said = [*named.tolist(), *random.choice(list(CATEGORIES), 3).tolist()]
        own = np.round(random.random(len(moved)), 1).tolist() if scores else None
        found[image] = Objects(said, moved, [pixels(box) for box in moved], own)
    found.pop(max(found))
    return truth, found


def by_pycocotools(
    truth: dict[int, Objects], found: dict[int, Objects], masks: bool, constant: bool = False
) -> COCOeval:
    annotations: list[dict[str, Any]] = []
    for image, objects in truth.items():
        for n, (label, box) in enumerate(zip(objects.labels, np.asarray(objects.boxes).tolist(), strict=True)):
            assert objects.masks and objects.crowd and objects.areas
            place = {"bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]], "segmentation": objects.masks[n]}
            about = {"area": objects.areas[n], "iscrowd": int(objects.crowd[n]), "id": len(annotations) + 1}
            annotations.append({"image_id": image, "category_id": label, **about, **place})
    results: list[dict[str, Any]] = []
    for image, objects in found.items():
        for n, (label, box) in enumerate(zip(objects.labels, np.asarray(objects.boxes).tolist(), strict=True)):
            assert objects.masks
            score = 1.0 if constant or objects.scores is None else objects.scores[n]
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            where: dict[str, Any] = {"segmentation": objects.masks[n]} if masks else {"bbox": bbox}
            results.append({"image_id": image, "category_id": label, "score": score, **where})
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = {
            "images": [{"id": image, "height": SIDE, "width": SIDE} for image in truth],
            "annotations": annotations,
            "categories": [{"id": id, "name": name} for id, name in CATEGORIES.items()],
        }
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(results), "segm" if masks else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools(seed: int, masks: bool) -> None:
    truth, found = some(seed)
    result = average_precision(truth, found, CATEGORIES, masks=masks)
    theirs = by_pycocotools(truth, found, masks)
    names = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
    ours = [-1 if (number := result.numbers[name]) is None else number for name in names]
    assert ours == pytest.approx(theirs.stats[:6].tolist(), abs=1e-12)
    assert result.numbers["AR@100"] == pytest.approx(theirs.stats[8], abs=1e-12)
    constant = by_pycocotools(truth, found, masks, constant=True)
    assert result.numbers["AP constant scores"] == pytest.approx(constant.stats[0], abs=1e-12)
    assert 0.05 < constant.stats[0] < theirs.stats[0] + 0.2 < 1.0, "or nothing is compared"
    precision = theirs.eval["precision"][:, :, :, 0, 2]
    for at, name in enumerate(CATEGORIES.values()):
        assert result.classes[name]["AP"] == pytest.approx(precision[:, :, at].mean(), abs=1e-12)
        assert result.classes[name]["AP50"] == pytest.approx(precision[0, :, at].mean(), abs=1e-12)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_best_f1_is_that_of_every_threshold_tried(seed: int, masks: bool) -> None:
    truth, found = some(seed)
    theirs = by_pycocotools(truth, found, masks)
    right: list[tuple[float, bool]] = []  # score and whether it is matched, of what is not ignored
    for entry in theirs.evalImgs:
        if entry and entry["aRng"] == [0, 1e10]:
            for score, match, ignored in zip(
                entry["dtScores"], entry["dtMatches"][0], entry["dtIgnore"][0], strict=True
            ):
                right += [] if ignored else [(score, match > 0)]
    there = sum(not crowd for objects in truth.values() for crowd in objects.crowd or ())
    tried = {}
    for threshold in {score for score, _ in right}:
        hits = [hit for score, hit in right if score >= threshold]
        tried[threshold] = 2 * sum(hits) / (len(hits) + there), sum(hits) / len(hits), sum(hits) / there
    numbers = average_precision(truth, found, CATEGORIES, masks=masks).numbers
    best = max(f1 for f1, _, _ in tried.values())
    threshold = numbers["threshold"]
    assert threshold is not None and len(tried) > 5
    assert (numbers["F1"], numbers["precision"], numbers["recall"]) == pytest.approx(tried[threshold])
    assert numbers["F1"] == pytest.approx(best)


def test_by_hand() -> None:
    """One of two found with IoU 0.8, at the higher of two scores; a stray at the lower."""
    truth = {"a": Objects(["dog", "dog"], [[0, 0, 10, 10], [50, 50, 60, 60]]), "b": Objects([])}
    found = {"a": Objects(["dog"], [[0, 0, 10, 8]], scores=[0.9]), "b": Objects(["dog"], [[0, 0, 5, 5]], scores=[0.2])}
    result = average_precision(truth, found, {"dog": "dog"}, score="made up")
    # Precision is 1 up to a recall of 0.5, 51 of 101 steps, at the IoUs 0.5, 0.55, ... 0.8: 7 of 10.
    assert result.numbers["AP"] == pytest.approx(0.7 * 51 / 101)
    assert result.numbers["AP50"] == result.numbers["AP75"] == pytest.approx(51 / 101)
    assert (result.numbers["AP small"], result.numbers["AP medium"]) == (pytest.approx(0.7 * 51 / 101), None)
    assert result.numbers["AR@100"] == pytest.approx(0.7 * 0.5)
    assert result.numbers["F1"] == pytest.approx(2 / 3) and result.numbers["threshold"] == 0.9
    assert (result.numbers["precision"], result.numbers["recall"]) == (1.0, 0.5)
    assert "made up" in result.protocol and "crowds ignored" in result.protocol
    assert result.counts == {
        "images": 2,
        "images without objects": 1,
        "objects": 2,
        "crowds": 0,
        "found": 2,
        "found without score": 0,
        "images without truth": 0,
    }


def test_the_best_f1_by_hand() -> None:
    """Right, wrong, wrong, right, of three: 2 * 1 / (1 + 3) at the first, 2 * 2 / (4 + 3) at the last."""
    places = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    found = [places[0], [60, 0, 70, 10], [60, 0, 70, 10], places[1]]
    result = average_precision(
        {1: Objects([1] * 3, places)}, {1: Objects([1] * 4, found, scores=[8, 7, 6, 5])}, {1: "x"}
    )
    assert result.numbers["F1"] == pytest.approx(4 / 7) and result.numbers["threshold"] == 5


def test_without_scores() -> None:
    truth, found = some(1, scores=False)
    result = average_precision(truth, found, CATEGORIES)
    assert result.numbers["AP"] == result.numbers["AP constant scores"] and result.numbers["threshold"] is None
    assert result.numbers["AP"] == pytest.approx(by_pycocotools(truth, found, masks=False).stats[0])
    assert result.counts["found without score"] == result.counts["found"] > 0


def test_without_a_score_is_last() -> None:
    truth = {1: Objects(["x"], [[0, 0, 10, 10]])}
    places = [[0, 0, 10, 10], [20, 20, 30, 30]]
    last = average_precision(truth, {1: Objects(["x", "x"], places, scores=[None, -7])}, {"x": "x"})
    first = average_precision(truth, {1: Objects(["x", "x"], places, scores=[0.0, None])}, {"x": "x"})
    assert (last.numbers["AP"], first.numbers["AP"]) == (pytest.approx(0.5), pytest.approx(1.0))
    assert (last.numbers["threshold"], first.numbers["threshold"]) == (None, 0.0)
    assert last.counts["found without score"] == first.counts["found without score"] == 1


def test_at_most_100_a_class_and_image() -> None:
    truth = {1: Objects([1], [[0, 0, 10, 10]]), 2: Objects([])}
    strays = [[20.0, 20, 30, 30]] * 100
    scores = [0.9] * 100
    late = {1: Objects([1] * 101, [*strays, [0, 0, 10, 10]], scores=[*scores, 0.5])}
    assert average_precision(truth, late, CATEGORIES).numbers["AR@100"] == 0
    assert average_precision(truth, late, CATEGORIES).numbers["F1"] == 0
    just = {1: Objects([1] * 100, [*strays[1:], [0, 0, 10, 10]], scores=[*scores[1:], 0.5])}
    assert average_precision(truth, just, CATEGORIES).numbers["AR@100"] == 1
    assert average_precision(truth, just, CATEGORIES).numbers["F1"] == pytest.approx(2 / 101)
    other = {1: Objects([17] * 100 + [1], [*strays, [0, 0, 10, 10]], scores=[*scores, 0.5])}
    assert average_precision(truth, other, CATEGORIES).numbers["AR@100"] == 1


def test_nothing_found_and_nothing_there() -> None:
    truth = {1: Objects([1], [[0, 0, 10, 10]])}
    nothing = average_precision(truth, {}, CATEGORIES).numbers
    assert (nothing["AP"], nothing["F1"], nothing["precision"], nothing["threshold"]) == (0, 0, None, None)
    empty = average_precision({1: Objects([])}, {1: truth[1]}, CATEGORIES)
    assert (empty.numbers["AP"], empty.numbers["F1"], empty.classes["cat"]["AP"]) == (None, None, None)
    elsewhere = average_precision(truth, {9: truth[1]}, CATEGORIES)
    assert elsewhere.numbers["AP"] == 0 and elsewhere.counts["images without truth"] == 1


NAN = float("nan")
BOX = [0.0, 0, 10, 10]


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        (Objects([1], [[0, 0, NAN, 10]]), "image 7: expected boxes of finite x0 <= x1"),
        (Objects([1], [[0, 0, float("inf"), 10]]), "image 7: expected boxes of finite"),
        (Objects([1], [[10, 0, 0, 10]]), "image 7: expected boxes of finite x0 <= x1"),
        (Objects([1], [[0, 0, 10]]), "image 7: expected boxes [n, 4]"),
        (Objects([1], "abcd"), "image 7: expected boxes [n, 4]"),
        (Objects([1, 1], [BOX]), "image 7: expected 2 boxes, one a label; got 1"),
        (Objects([2], [BOX]), "image 7: expected labels that are categories, got 2"),
        (Objects([1], [BOX], scores=[NAN]), "image 7: scores: expected 1 finite numbers"),
        (Objects([1], [BOX], scores=[0.5, 0.5]), "image 7: scores: expected 1 finite numbers"),
        (Objects([1], [BOX], crowd=[]), "image 7: crowd: expected 1 finite numbers"),
        (Objects([1], [BOX], areas=[float("inf")]), "image 7: areas: expected 1 finite numbers"),
    ],
)
def test_what_is_no_object(objects: Objects, says: str) -> None:
    with pytest.raises(Florence2Error) as error:
        average_precision({7: objects}, {}, CATEGORIES)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [10, 10], "counts": b"0"},  # ends early
        {"size": [10, 10], "counts": b"oooooooooooooooo"},  # never ends
        {"size": [10, 10], "counts": b"0T10000000000000"},  # goes on
        {"size": [10, 10], "counts": "Größe"},
        {"size": [10, 10], "counts": "\udcff"},
        {"size": [10**6, 10**6], "counts": b"PPP1"},
        {"size": [-10, -10], "counts": b"T3"},
        {"size": [10], "counts": b"T3"},
        {"size": "10", "counts": b"T3"},
        {"counts": b"T3"},
        {"size": [0, 0], "counts": b""},
        None,
    ],
)
def test_what_is_no_mask(mask: Any) -> None:
    with pytest.raises(Florence2Error, match=r"image 7: expected COCO's compressed run lengths that fill their size"):
        average_precision({7: Objects([1], masks=[mask])}, {}, CATEGORIES, masks=True)


def test_masks_of_polygons_and_runs() -> None:
    square = mask_of([[2, 3, 6, 3, 6, 5, 2, 5]], (10, 12))
    expected = np.zeros((10, 12), np.uint8)
    expected[3:5, 2:6] = 1
    assert (coco_mask.decode(square) == expected).all()
    assert coco_mask.area(mask_of([], (10, 12))) == 0
    runs = mask_of_runs([0, 1, 119], (10, 12))
    assert coco_mask.decode(runs)[0, 0] == 1 and coco_mask.area(runs) == 1
    text = square | {"counts": square["counts"].decode()}
    truth = {1: Objects([1], masks=[square])}
    assert average_precision(truth, {1: Objects([1], masks=[text])}, CATEGORIES, masks=True).numbers["AP"] == 1
    for ring in ([1, 2, 3, 4], [1, 2, 3, 4, 5], [0, 0, 1e9, 0, 1, 1], [0, 0, NAN, 0, 1, 1], ["a"] * 6):
        with pytest.raises(Florence2Error, match="x 7: expected polygons"):
            mask_of([ring], (10, 12), "x 7")  # type: ignore[list-item]
    for counts in ([1, 2], [-1, 121], [0.5, 119.5]):
        with pytest.raises(Florence2Error, match="expected run lengths that fill"):
            mask_of_runs(counts, (10, 12))  # type: ignore[arg-type]
    with pytest.raises(Florence2Error, match="masks of one size"):
        average_precision({1: Objects([1, 1], masks=[square, mask_of([], (5, 5))])}, {}, CATEGORIES, masks=True)


def test_masks_of_an_answer_in_another_size() -> None:
    truth = {1: Objects([1], masks=[mask_of([[0, 0, 5, 0, 5, 5]], (10, 10))])}
    found = {1: Objects([1], masks=[mask_of([[0, 0, 5, 0, 5, 5]], (20, 20))])}
    with pytest.raises(Florence2Error, match="image 1: expected masks of one size"):
        average_precision(truth, found, CATEGORIES, masks=True)
