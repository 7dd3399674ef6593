"""What a model of SAM's family says of an image: encoded once, it has masks for any number of prompts.

SAM (Kirillov et al. 2023), SAM 2, SAM 3's tracker and HQ-SAM. Prompts go to a model, and its masks come back to the
image's pixels, by the model's own processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image as Pillow

from engine.geometry import encode_mask
from engine.protocols import Image
from engine.records import Box
from specialists.hub.pixels import widened

# By the model, not by what its folder says: the hub's folders of SAM 2 and 3 are those of the models for videos, whose
# processors know no prompts on images.
PROCESSORS = {
    "SamModel": "SamProcessor",
    "SamHQModel": "SamHQProcessor",
    "Sam2Model": "Sam2Processor",
    "Sam3TrackerModel": "Sam3TrackerProcessor",
}
OFFSET = 1.0  # of the logits' threshold, 0, to both sides: between them a stable mask has few pixels


@dataclass(frozen=True)
class Prompted:
    """An image and its prompts, in its pixels: boxes, and points (x, y)."""

    image: Image
    boxes: Sequence[Box] = ()
    points: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Cut:
    """A mask, of at least one pixel, as COCO's run lengths, and the smallest box around it.

    `score` is its IoU with the truth as the model predicts it.
    """

    counts: bytes
    box: tuple[int, int, int, int]
    score: float
    stability: float


@dataclass(frozen=True)
class Encoded:
    """An image as the model has it. `size` is (height, width), `prompts` are in the model's pixels."""

    model: Any
    processor: Any
    size: tuple[int, int]
    sizes: dict[str, Any]  # with which the processor finds its way back
    prompts: dict[str, Any]  # "input_boxes" [n, 4], "input_points" [n, 1, 2]
    embeddings: dict[str, Any]

    def predict(self, several: bool, **prompts: Any) -> tuple[Any, Any]:
        """Of n prompts of one kind logits [n, masks, h, w], as large as the model has them, and IoUs [n, masks]."""
        given = {kind: some[None].to(self.model.device) for kind, some in prompts.items()}
        outputs = self.model(**given, **self.embeddings, multimask_output=several)
        return outputs.pred_masks[0].float(), outputs.iou_scores[0].float()

    def upscaled(self, logits: Any) -> Any:
        """Logits [h, w] of one mask as logits [height, width] of the image's pixels.

        One at a time: the 3072 of a grid of points would be 150 GB for a photo of 12 MP.
        """
        whole = self.processor.post_process_masks([logits[None, None]], **self.sizes, binarize=False)[0][0, 0]
        return whole[: self.size[0], : self.size[1]]

    def cut(self, logits: Any, score: float) -> Cut | None:
        """The mask of such logits; None where it is empty."""
        whole = self.upscaled(logits)
        box = tight(whole > 0)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        inside = (whole[y0:y1, x0:x1] > 0).cpu().numpy()
        return Cut(encode_mask(inside, (x0, y0), self.size), box, score, stability(whole))


def encode(model: Any, processor: Any, prompted: Sequence[Prompted]) -> Iterator[Encoded]:
    """Images, through the model's encoder together."""
    import torch

    inputs = [_inputs(processor, one) for one in prompted]
    pixels = torch.cat([some["pixel_values"] for some in inputs])
    embeddings = _embeddings(model, pixels.to(model.device, model.dtype))
    for n, (one, some) in enumerate(zip(prompted, inputs, strict=True)):
        yield Encoded(
            model,
            processor,
            (one.image.shape[0], one.image.shape[1]),
            {key: some[key] for key in ("original_sizes", "reshaped_input_sizes") if key in some},
            {key: some[key][0] for key in ("input_boxes", "input_points") if key in some},
            {key: _at(some, n) for key, some in embeddings.items()},
        )


def tight(mask: Any) -> tuple[int, int, int, int] | None:
    """The smallest box around a mask [height, width], x1 and y1 exclusive; None around nothing."""
    columns, rows = mask.any(dim=0).nonzero(), mask.any(dim=1).nonzero()
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def stability(logits: Any) -> float:
    """The IoU of the masks above a threshold and below it, one in the other, of a mask that is not empty."""
    return float((logits > OFFSET).sum() / (logits > -OFFSET).sum())


def grid(side: int, width: int, height: int) -> list[tuple[float, float]]:
    """The middles of side x side equal parts of an image, row by row."""
    shares = [(n + 0.5) / side for n in range(side)]
    return [(x * width, y * height) for y in shares for x in shares]


def _inputs(processor: Any, one: Prompted) -> Any:
    return processor(
        images=Pillow.fromarray(widened(one.image)),
        input_boxes=[[list(box) for box in one.boxes]] if one.boxes else None,
        input_points=[[[list(point)] for point in one.points]] if one.points else None,
        return_tensors="pt",
    )


def _embeddings(model: Any, pixels: Any) -> dict[str, Any]:
    """What the decoder wants of images: tensors [images, ...], or lists of these, one for each level.

    Models for videos are told that there is nothing before the image, by what is added to the coarsest level that they
    use. It is done here because Sam3TrackerModel (transformers 5.24) adds it to a level that is then left away.
    """
    if hasattr(model, "no_memory_embedding"):
        sizes = model.backbone_feature_sizes
        levels = list(model.get_image_features(pixels).fpn_hidden_states[: len(sizes)])  # each [h x w, images, width]
        levels[-1] = levels[-1] + model.no_memory_embedding
        shaped = [level.permute(1, 2, 0).unflatten(2, tuple(size)) for level, size in zip(levels, sizes, strict=True)]
        return {"image_embeddings": shaped}
    found = model.get_image_embeddings(pixels)
    if isinstance(found, tuple):
        return {"image_embeddings": found[0], "intermediate_embeddings": list(found[1])}  # HQ-SAM
    return {"image_embeddings": found}


def _at(some: Any, n: int) -> Any:
    return [_at(level, n) for level in some] if isinstance(some, list) else some[n : n + 1]
