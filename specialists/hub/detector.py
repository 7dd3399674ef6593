"""Detectors of the DETR family, the role of the paper's DINO: objects of the classes they know, and proposals.

RT-DETR and its second version, RF-DETR, Deformable and Conditional DETR, D-FINE, DETR and whatever else transformers
has as an object detector. Boxes are those of each model's own post-processing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from PIL import Image as Pillow
from pydantic import Field

from engine.protocols import Image, Reads, Sample
from engine.records import Region, Scores
from engine.vocabulary import Vocabulary
from specialists.hub.pixels import alike, in_full, widened
from specialists.hub.specialist import HubSpecialist
from specialists.hub.weights import Precision, Weights

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=100_000)]


@dataclass
class Detr(HubSpecialist):
    """Regions of kind "object" (label and label score) and "proposal" (box score), the surest first.

    A score is the probability that the model gives the class: by a sigmoid, or a softmax with "no object". A proposal's
    is that of its likeliest class. Classes that a checkpoint calls "N/A" or "no object" are left out.
    """

    name: str = "detector"
    model: Annotated[str, Field(description="a folder, or a hub's id (owner/name)")] = "PekingU/rtdetr_v2_r101vd"
    precision: Annotated[
        Precision, Field(description="bfloat16 moves the sides of boxes by a thousandth of the image's")
    ] = "float32"
    min_score: Annotated[Share, Field(description="objects below are not reported")] = 0.2
    min_proposal_score: Annotated[Share, Field(description="proposals below are not reported")] = 0.1
    max_objects: Annotated[Count, Field(description="the surest so many of an image; 0: no objects")] = 100
    max_proposals: Annotated[Count, Field(description="the surest so many of an image; 0: no proposals")] = 50
    iou: Annotated[Share, Field(description="of proposals that overlap more, one is reported")] = 0.7
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    reads: ClassVar[Reads] = "image"
    models: ClassVar[dict[str, str]] = {
        "PekingU/rtdetr_v2_r18vd": "Apache-2.0",
        "PekingU/rtdetr_v2_r50vd": "Apache-2.0",
        "PekingU/rtdetr_v2_r101vd": "Apache-2.0",
        "Roboflow/rf-detr-base": "Apache-2.0",
        "SenseTime/deformable-detr": "Apache-2.0",
        "microsoft/conditional-detr-resnet-50": "Apache-2.0",
        "facebook/detr-resnet-50": "Apache-2.0",
        "ustc-community/dfine-large-obj365": "Apache-2.0",
    }
    families: ClassVar[tuple[str, ...]] = (
        *("rt_detr", "rt_detr_v2", "rf_detr", "d_fine", "deimv2", "lw_detr"),
        *("deformable_detr", "conditional_detr", "dab-detr", "detr", "table-transformer", "yolos"),
    )
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)

    def _load(self, weights: Weights) -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        self._model = weights.load(AutoModelForObjectDetection, self.precision)
        self._processor = weights.processor(AutoImageProcessor)

    def annotate(self, batch: Sequence[Sample]) -> list[list[Region]]:
        found = self.in_batches(self._detect, [sample.image for sample in batch])
        return [list(self._regions(sample, one)) for sample, one in zip(batch, found, strict=True)]

    def _detect(self, images: Sequence[Image]) -> list[dict[str, Any]]:
        """Of each image scores [n], labels [n] and boxes [n, 4] in its pixels, the surest first."""
        lowest = min(self.min_score if self.max_objects else 1, self.min_proposal_score if self.max_proposals else 1)
        found: dict[int, dict[str, Any]] = {}
        for places, pixels in alike([self._pixels(image) for image in images]):
            outputs = self._model(pixel_values=pixels.to(self._model.device, self._model.dtype))
            sizes = [widened(images[place]).shape[:2] for place in places]
            raw = self._processor.post_process_object_detection(in_full(outputs), lowest, sizes)
            found.update(zip(places, raw, strict=True))
        return [ranked(found[place], image) for place, image in enumerate(images)]

    def _pixels(self, image: Image) -> Any:
        """[1, 3, height, width]; not padded to another's size, which would let an image's neighbours have a say."""
        return self._processor(images=Pillow.fromarray(widened(image)), return_tensors="pt")["pixel_values"]

    def _regions(self, sample: Sample, found: dict[str, Any]) -> Iterator[Region]:
        from torchvision.ops import nms

        ids = sample.record.ids(self.name)
        names = [self._word(label) for label in found["labels"].tolist()]
        scores, boxes = found["scores"].tolist(), found["boxes"].tolist()
        objects = [n for n, word in enumerate(names) if word and scores[n] >= self.min_score]
        for n in objects[: self.max_objects]:
            yield Region(
                id=next(ids),
                source=self.name,
                kind="object",
                box=tuple(boxes[n]),
                raw_label=names[n],
                label=self.vocabulary.canonical(names[n]),
                scores=Scores(label=scores[n]),
            )
        for n in nms(found["boxes"], found["scores"], self.iou).tolist()[: self.max_proposals]:
            if scores[n] >= self.min_proposal_score:
                yield Region(
                    id=next(ids),
                    source=self.name,
                    kind="proposal",
                    box=tuple(boxes[n]),
                    scores=Scores(box=scores[n]),
                )

    def _word(self, label: int) -> str:
        """The class's name as the checkpoint has it; empty for places of its list that are no class."""
        word = str(self._model.config.id2label.get(label, "")).strip()
        return "" if word.casefold() in ("n/a", "no object", "no-object", "background") else word


def ranked(found: dict[str, Any], image: Image) -> dict[str, Any]:
    """The same, the surest first and of equals the earlier, on the CPU; without boxes that show nothing of the image.

    Boxes have x0 <= x1 and y0 <= y1, whatever a model says of its widths.
    """
    import torch
    from torchvision.ops import box_area, clip_boxes_to_image

    corners = found["boxes"].cpu()
    boxes = torch.cat([torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1)
    order = found["scores"].cpu().argsort(descending=True, stable=True)
    order = order[box_area(clip_boxes_to_image(boxes, image.shape[:2]))[order] > 0]
    return {"scores": found["scores"].cpu()[order], "labels": found["labels"].cpu()[order], "boxes": boxes[order]}
