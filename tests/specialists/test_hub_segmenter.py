"""SAM's family, each loaded from a tiny checkpoint on disk, held against transformers' own pipeline and formulas."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Pillow
from tiny import detectors, segmenters

from engine.errors import ConfigError
from engine.geometry import decode_mask, iou, mask_iou
from engine.protocols import Image, Sample
from engine.records import Box, Decision, Item, Kind, Mask, Record, Region, Scores, Text, Triplet
from specialists.hub.predictor import Encoded, Prompted, encode, grid
from specialists.hub.segmenter import STABILITY, Sam

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = ((48, 90), (70, 41))  # height, width
PROCESSORS = {
    "sam": transformers.SamProcessor,
    "sam_hq": transformers.SamHQProcessor,
    "sam2": transformers.Sam2Processor,
    "sam2_video": transformers.Sam2Processor,
    "sam3_tracker": transformers.Sam3TrackerProcessor,
    "sam3_video": transformers.Sam3TrackerProcessor,
}


@pytest.fixture(scope="module", params=segmenters.FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segmenters.FAMILIES[request.param](tmp_path_factory.mktemp("hub") / request.param)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segmenters.sam2(tmp_path_factory.mktemp("hub") / "sam2")


def loaded(folder: Path, **parameters: Any) -> Sam:
    """As a worker has it, but for a model of its own, which tests may listen to and break."""
    segmenter: Sam = pickle.loads(pickle.dumps(Sam(model=str(folder), **parameters)))
    segmenter.setup()
    segmenter._model = copy.deepcopy(segmenter._model)
    return segmenter


def picture(height: int, width: int, seed: int = 0) -> Image:
    """Noise with a bright box in it."""
    image = np.random.default_rng(seed).integers(0, 120, (height, width, 3), dtype=np.uint8)
    image[height // 4 : height // 2, width // 3 : width // 2] += 120
    return image


def boxes_in(height: int, width: int) -> list[Box]:
    return [
        (0.1 * width, 0.2 * height, 0.6 * width, 0.7 * height),
        (0.0, 0.0, float(width), float(height)),
        (0.55 * width, 0.05 * height, 0.9 * width, 0.4 * height),
        (0.3 * width, 0.6 * height, 0.4 * width, 0.95 * height),
    ]


def region(box: Box, number: int = 0, score: float | None = None, kind: Kind = "object") -> Region:
    return Region(id=f"0.detector.{number}", source="detector", kind=kind, box=box, scores=Scores(label=score))


def sample(image: Image, *regions: Region) -> Sample:
    item = Item(b"0" * 16, "x", width=image.shape[1], height=image.shape[0])
    return Sample(image, Record(item).append(regions))


def with_boxes(image: Image) -> Sample:
    return sample(image, *(region(box, n) for n, box in enumerate(boxes_in(*image.shape[:2]))))


def answer(segmenter: Sam, shown: Sample) -> tuple[list[Region], list[Mask], dict[str, float]]:
    """Proposals, masks, and the stability of each, which the record takes as they come."""
    (found,) = segmenter.annotate([shown])
    annotations = [one for one in found if not isinstance(one, Decision)]
    opinions = [one for one in found if isinstance(one, Decision)]
    shown.record.append(annotations).decide(opinions)
    assert all((one.action, one.by, one.reason) == ("keep", segmenter.name, STABILITY) for one in opinions)
    regions = [one for one in annotations if isinstance(one, Region)]
    masks = [one for one in annotations if isinstance(one, Mask)]
    assert [one.annotation_id for one in opinions] == [mask.id for mask in masks], "one of each"
    return regions, masks, {one.annotation_id: one.value or 0.0 for one in opinions}


class Pipeline:
    """transformers' own way from an image and its prompts to masks, from the same files."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.AutoModelForMaskGeneration.from_pretrained(folder).eval()
        self.processor = PROCESSORS[folder.name].from_pretrained(folder)
        if folder.name.startswith("sam3"):  # a level that is not used, to which it adds what it should add to the next
            self.model.vision_encoder.neck.fpn_layers = self.model.vision_encoder.neck.fpn_layers[:3]

    def __call__(self, image: Image, several: bool, **prompts: Any) -> tuple[Any, Any]:
        """Logits [prompts, masks, height, width], and predicted IoUs [prompts, masks]."""
        inputs = self.processor(images=Pillow.fromarray(image), return_tensors="pt", **prompts)
        sizes = {key: inputs.pop(key) for key in ("original_sizes", "reshaped_input_sizes") if key in inputs}
        with torch.inference_mode():
            outputs = self.model(**inputs, multimask_output=several)
        (logits,) = self.processor.post_process_masks(outputs.pred_masks, **sizes, binarize=False)
        return logits, outputs.iou_scores[0]


def check(mask: Mask, stable: float, logits: Any, score: float) -> None:
    """A mask is that of such logits, with its numbers. Where a logit is 0 but for its last bits, either will do."""
    decided = (logits.abs() > 1e-3).numpy()
    assert np.array_equal(decode_mask(mask)[decided], (logits > 0).numpy()[decided])
    assert mask.scores == Scores(mask=mask.scores.mask)
    assert mask.scores.mask == pytest.approx(score, abs=1e-4)
    assert stable == pytest.approx(int((logits > 1).sum()) / int((logits > -1).sum()), abs=2e-3)


@pytest.mark.parametrize("size", SIZES)
def test_masks_are_those_of_the_models_own_pipeline(folder: Path, size: tuple[int, int]) -> None:
    image = picture(*size)
    _, masks, stable = answer(loaded(folder), with_boxes(image))
    logits, ious = Pipeline(folder)(image, False, input_boxes=[[list(box) for box in boxes_in(*size)]])
    assert len(masks) == len(logits) == 4
    for mask, one, score in zip(masks, logits[:, 0], ious[:, 0].tolist(), strict=True):
        assert mask.size == size
        check(mask, stable[mask.id], one, score)
    assert len({mask.counts for mask in masks}) == 4, "the boxes make a difference"


def test_masks_say_whose_they_are(sam2: Path) -> None:
    regions, masks, stable = answer(loaded(sam2), with_boxes(picture(48, 90)))
    assert regions == []
    assert [(mask.region_id, mask.derived_from) for mask in masks] == [
        (f"0.detector.{n}", (f"0.detector.{n}",)) for n in range(4)
    ]
    assert {mask.source for mask in masks} == {"segmenter"}
    assert all(0 <= value <= 1 for value in stable.values())


def seen(folder: Path, height: int, width: int) -> tuple[float, float]:
    """Pixels of the model's square (height, width) that an image takes: SAM keeps its proportions, later ones don't."""
    if folder.name not in ("sam", "sam_hq"):
        return segmenters.SIDE, segmenters.SIDE
    scale = segmenters.SIDE / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def encoded(segmenter: Sam, image: Image, **prompts: Any) -> Encoded:
    (one,) = encode(segmenter._model, segmenter._processor, [Prompted(image, **prompts)])
    return one


@pytest.mark.parametrize("size", SIZES)
def test_prompts_reach_the_model_in_its_own_pixels(folder: Path, size: tuple[int, int]) -> None:
    segmenter, (height, width), got = loaded(folder, points_per_side=3), size, {}

    def hear(module: Any, positional: Any, named: dict[str, Any]) -> None:
        got.update({key: value[0].float().numpy() for key, value in named.items() if value is not None})

    segmenter._model.prompt_encoder.register_forward_pre_hook(hear, with_kwargs=True)
    segmenter.annotate([with_boxes(picture(height, width))])
    rows, columns = seen(folder, height, width)
    boxes = np.array(boxes_in(height, width)) * np.array([columns / width, rows / height] * 2)
    assert got["input_boxes"] == pytest.approx(boxes, abs=1e-4)
    middles = [columns / 6, columns / 2, columns * 5 / 6], [rows / 6, rows / 2, rows * 5 / 6]
    points = [(x, y) for y in middles[1] for x in middles[0]]
    assert got["input_points"][:, 0] == pytest.approx(np.array(points), abs=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_a_slope_comes_back_where_it_was(folder: Path, size: tuple[int, int]) -> None:
    """What is linear stays so under bilinear interpolation, up to half a pixel of the mask's from its edges."""
    (height, width), side = size, segmenters.SIDE // 2
    rows, columns = (n / 2 for n in seen(folder, height, width))  # of the mask's pixels
    v, u = np.indices((side, side))
    found = encoded(loaded(folder), picture(height, width)).upscaled(torch.tensor(3.0 * u + 5.0 * v - 7.0))
    assert found.shape == size
    y, x = np.indices(size)
    expected = 3.0 * ((x + 0.5) * columns / width - 0.5) + 5.0 * ((y + 0.5) * rows / height - 0.5) - 7.0
    assert found.numpy()[4:-4, 4:-4] == pytest.approx(expected[4:-4, 4:-4], abs=1e-3)


def test_sam_3_sees_images_as_its_model_for_videos_does_at_the_first_frame(tmp_path: Path) -> None:
    folder, image = segmenters.sam3_video(tmp_path / "sam3_video"), picture(48, 90)
    one = encoded(loaded(folder), image)
    video = transformers.Sam3VideoModel.from_pretrained(folder).eval()
    pixels = PROCESSORS["sam3_video"].from_pretrained(folder)(images=Pillow.fromarray(image), return_tensors="pt")
    with torch.inference_mode():
        levels, _ = video.get_vision_features_for_tracker(
            video.detector_model.get_vision_features(pixels["pixel_values"])
        )
    levels[-1] = levels[-1] + video.tracker_model.no_memory_embedding
    for ours, theirs in zip(one.embeddings["image_embeddings"], levels, strict=True):
        assert torch.allclose(ours.flatten(2).permute(2, 0, 1), theirs, atol=1e-4)


def alike(some: list[Any], others: list[Any]) -> bool:
    """The same, but for a pixel here and there and the last bits of scores, which random networks blow up."""
    if [type(one) for one in some] != [type(one) for one in others]:
        return False
    for a, b in zip(some, others, strict=True):
        if isinstance(a, Mask):
            same = a.region_id == b.region_id and mask_iou(a, b) > 0.95
            if not same or a.scores.mask != pytest.approx(b.scores.mask, abs=2e-3):
                return False
        elif isinstance(a, Region):
            if a.box != b.box:
                return False
        elif a.annotation_id != b.annotation_id or a.value != pytest.approx(b.value, abs=0.01):
            return False
    return True


def test_an_image_alone_gives_what_it_gives_among_others(folder: Path) -> None:
    segmenter = loaded(folder, points_per_side=2, min_predicted_iou=0.1, min_stability=0.1, at_once=3)
    images = [picture(48, 90, 1), picture(1, 300), picture(70, 41, 2), picture(300, 1), picture(1, 1)]
    shown = [with_boxes(image) for image in images]
    shown += [with_boxes(np.zeros((48, 90, 3), dtype=np.uint8)), sample(picture(48, 90, 3))]
    together = segmenter.annotate(shown)
    assert together == segmenter.annotate(shown), "the same again"
    assert len(together) == len(shown)
    for one, found in zip(shown, together, strict=True):
        assert alike(segmenter.annotate([one])[0], found)
    assert not alike(together[0], together[5])
    for one, found in zip(shown, together, strict=True):
        sizes = {entry.size for entry in found if isinstance(entry, Mask)}
        assert sizes <= {one.image.shape[:2]}
    assert {entry.size for entry in together[1] if isinstance(entry, Mask)} == {(1, 300)}, "thin ones have masks, too"


def listen(segmenter: Sam) -> list[int]:
    """Hears how many prompts go through the decoder together."""
    taken: list[int] = []

    def hear(module: Any, positional: Any, named: dict[str, Any]) -> None:
        taken.append(named["sparse_prompt_embeddings"].shape[1])

    segmenter._model.mask_decoder.register_forward_pre_hook(hear, with_kwargs=True)
    return taken


def test_prompts_go_through_the_decoder_in_parts(folder: Path) -> None:
    shown = with_boxes(picture(48, 90))
    parameters = {"points_per_side": 3, "min_predicted_iou": 0.1, "min_stability": 0.1}
    whole, parts = loaded(folder, **parameters), loaded(folder, prompts_at_once=3, **parameters)
    taken_whole, taken_parts = listen(whole), listen(parts)
    assert alike(whole.annotate([shown])[0], parts.annotate([shown])[0])
    assert (taken_whole, taken_parts) == ([4, 9], [3, 1, 3, 3, 3])


def test_where_memory_is_too_small_half_as_many_prompts_go_together(folder: Path) -> None:
    segmenter, shown = loaded(folder), with_boxes(picture(48, 90))
    before = segmenter.annotate([shown])[0]
    taken = listen(segmenter)

    def fill(module: Any, positional: Any) -> None:
        if taken[-1] > 2:
            np.ones(1 << 58)

    segmenter._model.mask_decoder.register_forward_pre_hook(fill)
    assert alike(segmenter.annotate([shown])[0], before)
    assert taken == [4, 2, 2]
    segmenter.annotate([shown])
    assert taken == [4, 2, 2, 2, 2], "remembered"


def tight_box(mask: Mask) -> Box:
    rows, columns = np.nonzero(decode_mask(mask))
    return float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1


@pytest.mark.parametrize("size", SIZES)
def test_proposals_are_the_masks_of_a_grid_of_points(folder: Path, size: tuple[int, int]) -> None:
    """All of them, where nothing is left out for its score or for another's."""
    image = picture(*size)
    segmenter = loaded(folder, points_per_side=3, min_predicted_iou=0, min_stability=0, iou=1)
    regions, masks, stable = answer(segmenter, sample(image))
    points = [[[(x + 0.5) / 3 * size[1], (y + 0.5) / 3 * size[0]]] for y in range(3) for x in range(3)]
    logits, ious = Pipeline(folder)(image, True, input_points=[points])
    assert ious.shape == (9, 3)
    expected = [
        (score, one) for score, one in zip(ious.flatten().tolist(), logits.flatten(0, 1), strict=True) if score >= 0
    ]
    expected = sorted(((score, one) for score, one in expected if (one > 0).any()), key=lambda pair: -pair[0])
    assert len(masks) == len(regions) == len(expected) > 5
    for proposal, mask, (score, one) in zip(regions, masks, expected, strict=True):
        check(mask, stable[mask.id], one, score)
        assert proposal.kind == "proposal"
        assert proposal.scores == Scores(), "nothing is said of the box"
        assert mask.region_id == proposal.id
        assert proposal.box == tight_box(mask)


@pytest.mark.parametrize("make", [segmenters.sam, segmenters.sam2])
def test_of_proposals_the_sure_and_stable_ones_that_show_something_new(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    segmenter = loaded(make(tmp_path / make.__name__), points_per_side=5, min_predicted_iou=0, min_stability=0, iou=1)
    shown = sample(picture(48, 90))
    _, everything, stable = answer(segmenter, shown)
    scores = [mask.scores.mask or 0.0 for mask in everything]
    sure, steady = (sum(sorted(some)[len(scores) // 3 :][:2]) / 2 for some in (scores, stable.values()))
    segmenter.min_predicted_iou, segmenter.min_stability, segmenter.iou = sure, steady, 0.9
    regions, masks, values = answer(segmenter, shown)
    kept: list[Mask] = []
    for mask, score in zip(everything, scores, strict=True):  # the surest first
        good = score >= sure and stable[mask.id] >= steady
        if good and all(iou(tight_box(mask), tight_box(other)) <= 0.9 for other in kept):
            kept.append(mask)
    assert 1 < len(kept) < len(scores)
    assert [mask.counts for mask in masks] == [mask.counts for mask in kept]
    assert [region.box for region in regions] == [tight_box(mask) for mask in kept]
    assert all((mask.scores.mask or 0) >= sure and values[mask.id] >= steady for mask in masks)
    segmenter.max_proposals = 1
    assert [region.box for region in answer(segmenter, shown)[0]] == [tight_box(kept[0])]


def test_who_gets_a_mask(sam2: Path) -> None:
    box: Box = (10.0, 10.0, 60.0, 40.0)
    regions = [
        region(box, 0, 0.3),
        region(box, 1, 0.9),
        region(box, 2, None, "proposal"),
        region(box, 3, None),
        region(box, 4, 0.4),
        region(box, 5, 0.99, "text"),
        region((95.0, 10.0, 120.0, 40.0), 6, 0.99),  # outside
        region((20.0, 10.0, 20.0, 40.0), 7, 0.99),  # without area
        region(box, 8, 0.95),
    ]
    text = Text(id="0.writer.0", source="writer", text="a dog", detail="brief")
    triplet = Triplet(
        id="0.grounder.0", source="grounder", text_id=text.id, start=0, stop=5, region_ids=(regions[2].id,)
    )
    masked = Mask(id="0.other.0", source="other", region_id=regions[8].id, size=(48, 90), counts=b"PQ1")
    shown = sample(picture(48, 90), *regions)
    record = shown.record.append([text, triplet, masked])

    def got(record: Record, **parameters: Any) -> list[int]:
        _, masks, _ = answer(loaded(sam2, min_score=0.4, **parameters), Sample(shown.image, record))
        return [int(mask.region_id.rsplit(".", 1)[1]) for mask in masks]

    def reject(id_: str) -> Decision:
        return Decision(annotation_id=id_, action="reject", by="person", reason="wrong")

    assert got(record) == [2, 3, 1, 4], "the surest first, and of equals the earlier"
    assert got(record, named=False) == [3, 1, 4]
    assert got(record, kinds=("text",)) == [2, 5]
    assert got(record, max_regions=2) == [2, 3]
    assert got(record.decide([reject(triplet.id), reject(masked.id)])) == [3, 8, 1, 4]
    assert got(record.decide([reject(regions[3].id)])) == [2, 1, 4]


def test_boxes_are_cut_at_the_images_edges(sam2: Path) -> None:
    segmenter, image = loaded(sam2), picture(48, 90)
    _, (beyond,), _ = answer(segmenter, sample(image, region((-30.0, 10.0, 50.0, 80.0))))
    _, (inside,), _ = answer(segmenter, sample(image, region((0.0, 10.0, 50.0, 48.0))))
    assert beyond.counts == inside.counts


def test_images_without_regions_have_no_masks(folder: Path) -> None:
    segmenter = loaded(folder)
    assert segmenter.annotate([]) == []
    assert segmenter.annotate([sample(picture(48, 90)), sample(picture(1, 1))]) == [[], []]


def test_broken_numbers_are_no_scores_and_no_masks(sam2: Path) -> None:
    segmenter = loaded(sam2, points_per_side=2, min_predicted_iou=0, min_stability=0)
    decoder = segmenter._model.mask_decoder
    decoder.iou_prediction_head.proj_out.bias.fill_(float("nan"))
    regions, masks, _ = answer(segmenter, with_boxes(picture(48, 90)))
    assert regions == []
    assert [mask.scores for mask in masks] == [Scores()] * 4
    decoder.upscale_conv2.bias.fill_(float("nan"))
    assert segmenter.annotate([with_boxes(picture(48, 90))]) == [[]]


def test_empty_masks_are_not_reported(folder: Path) -> None:
    one = encoded(loaded(folder), picture(48, 90))
    assert one.cut(torch.full((32, 32), -0.5), 1.0) is None
    full = one.cut(torch.full((32, 32), 0.5), 1.0)
    assert full is not None
    assert (full.box, full.stability) == ((0, 0, 90, 48), 0.0)


def test_half_precision_reads_the_same_files(folder: Path) -> None:
    segmenter = loaded(folder, precision="bfloat16", points_per_side=2, min_predicted_iou=0, min_stability=0)
    _, masks, _ = answer(segmenter, with_boxes(picture(48, 90)))
    assert len(masks) >= 4
    assert segmenter._model.dtype == torch.bfloat16


def test_points_are_in_the_middles_of_equal_parts() -> None:
    assert grid(2, 100, 40) == [(25, 10), (75, 10), (25, 30), (75, 30)]
    assert grid(0, 100, 40) == []


def test_other_models_and_versions(sam2: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is of the family rt_detr_v2; expected one of sam, "):
        loaded(detectors.rt_detr_v2(tmp_path / "detr"))
    assert Sam(model=str(sam2)).version == Sam(model=str(sam2), points_per_side=4).version
    assert Sam(model=str(sam2)).version != Sam(model=str(segmenters.sam(tmp_path / "sam"))).version
    assert Sam().licence == "Apache-2.0"
