"""The segmenter, the role of the paper's SAM: masks of regions by their boxes, and of any thing as proposals.

SAM, SAM 2 and 2.1, SAM 3 (its tracker, which takes boxes and points; not its detector, which takes words), HQ-SAM.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field

from engine.errors import ConfigError
from engine.geometry import area, clip
from engine.protocols import Sample
from engine.records import Decision, Kind, Mask, Record, Region, Scores
from specialists.hub.predictor import PROCESSORS, Cut, Encoded, Prompted, encode, grid, stability, tight
from specialists.hub.specialist import Batches, HubSpecialist
from specialists.hub.weights import Weights

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=100_000)]

STABILITY = "stability"  # the reason of its opinions of masks

# What of an image is found: of each box its mask, if it is one, and the proposals, the surest first.
Found = tuple[list[Cut | None], list[Cut]]


@dataclass
class Sam(HubSpecialist):
    """A mask of each object region and of each region that a triplet names, by its box; and proposals with their masks.

    A mask's score is its IoU with the truth as the model predicts it: SAM's own may be above 1. The opinion of it,
    STABILITY, is the IoU of the masks with the logits' threshold raised and lowered by 1 (Kirillov et al. 2023, section
    5), measured at the image's own size as in their code. Empty masks are not reported.

    A box gets the model's one mask for prompts that are not ambiguous, not the best of its three, as in its authors'
    examples with boxes. SAM 2 and 3 learned it so: three masks are for one point at most, and a box is two. They turn
    to the best of three by themselves where the one mask is unstable.

    Proposals are the masks of a grid of points, three a point, as SAM's authors chose the masks of SA-1B, without crops
    of the image. The region is the box around the mask. It has no score, since the model says nothing of boxes.
    """

    name: str = "segmenter"
    model: Annotated[str, Field(description="a folder, or a hub's id (owner/name)")] = "facebook/sam2.1-hiera-large"
    at_once: Annotated[
        int, Field(ge=1, le=100_000, description="images encoded together at most; halved until memory holds them")
    ] = 4
    prompts_at_once: Annotated[
        int, Field(ge=1, le=100_000, description="boxes or points of an image, likewise; as many masks, or three times")
    ] = 64
    kinds: Annotated[tuple[Kind, ...], Field(description="kinds of region that get a mask")] = ("object",)
    named: Annotated[bool, Field(description="so do regions of any kind that a triplet names")] = True
    min_score: Annotated[Share, Field(description="regions with a lower label score get no mask")] = 0.35
    max_regions: Annotated[Count, Field(description="of an image; the surest get masks")] = 100
    points_per_side: Annotated[
        int, Field(ge=0, le=128, description="of the grid whose masks are proposals; SAM's authors: 32; 0: none")
    ] = 0
    min_predicted_iou: Annotated[
        float, Field(ge=0, description="lowest score of a proposal's mask; the authors of SAM: 0.88, of SAM 2: 0.8")
    ] = 0.88
    min_stability: Annotated[Share, Field(description="lowest stability of a proposal's mask")] = 0.95
    iou: Annotated[Share, Field(description="of proposals whose boxes overlap more, one is reported")] = 0.7
    max_proposals: Annotated[Count, Field(description="the surest so many of an image")] = 100
    models: ClassVar[dict[str, str]] = {
        "facebook/sam-vit-base": "Apache-2.0",
        "facebook/sam-vit-large": "Apache-2.0",
        "facebook/sam-vit-huge": "Apache-2.0",
        "facebook/sam2-hiera-large": "Apache-2.0",
        "facebook/sam2.1-hiera-tiny": "Apache-2.0",
        "facebook/sam2.1-hiera-small": "Apache-2.0",
        "facebook/sam2.1-hiera-base-plus": "Apache-2.0",
        "facebook/sam2.1-hiera-large": "Apache-2.0",
        "facebook/sam3": "SAM License",
    }
    families: ClassVar[tuple[str, ...]] = (
        *("sam", "sam_hq", "sam2", "sam2_video", "sam3_tracker", "sam3_tracker_video", "sam3_video"),
    )
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)
    _prompts: Batches = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._prompts = Batches(self.prompts_at_once)

    def _load(self, weights: Weights) -> None:
        import transformers

        self._model = weights.load(transformers.AutoModelForMaskGeneration, self.precision)
        kind = type(self._model).__name__
        if kind not in PROCESSORS:
            raise ConfigError(f"specialist {self.name}: {self.model} is a {kind}; expected {' or '.join(PROCESSORS)}")
        self._processor = weights.processor(getattr(transformers, PROCESSORS[kind]))

    def annotate(self, batch: Sequence[Sample]) -> list[list[Region | Mask | Decision]]:
        chosen = [self._chosen(sample) for sample in batch]
        asked = [n for n, regions in enumerate(chosen) if regions or self.points_per_side]
        found = self.in_batches(self._segment, [self._prompted(batch[n], chosen[n]) for n in asked])
        answers: list[list[Region | Mask | Decision]] = [[] for _ in batch]
        for n, one in zip(asked, found, strict=True):
            answers[n] = list(self._annotations(batch[n], chosen[n], one))
        return answers

    def _chosen(self, sample: Sample) -> list[Region]:
        """The surest first; those without a score count as sure."""
        record = sample.standing
        height, width = sample.image.shape[:2]
        scored = [
            (1.0 if region.scores.label is None else region.scores.label, region)
            for region in self._without_mask(record)
            if area(clip(region.box, width, height))
        ]
        ranked = sorted(scored, key=lambda pair: pair[0], reverse=True)
        return [region for score, region in ranked if score >= self.min_score][: self.max_regions]

    def _without_mask(self, record: Record) -> Iterator[Region]:
        named = {id_ for triplet in record.triplets for id_ in triplet.region_ids} if self.named else set()
        masked = {mask.region_id for mask in record.masks}
        for region in record.regions:
            if region.id not in masked and (region.kind in self.kinds or region.id in named):
                yield region

    def _prompted(self, sample: Sample, regions: Sequence[Region]) -> Prompted:
        height, width = sample.image.shape[:2]
        boxes = [clip(region.box, width, height) for region in regions]
        return Prompted(sample.image, boxes, grid(self.points_per_side, width, height))

    def _segment(self, prompted: Sequence[Prompted]) -> list[Found]:
        return [(self._of_boxes(one), self._of_points(one)) for one in encode(self._model, self._processor, prompted)]

    def _of_boxes(self, image: Encoded) -> list[Cut | None]:
        return self._prompts.run(partial(_boxed, image), image.prompts.get("input_boxes", ()))

    def _of_points(self, image: Encoded) -> list[Cut]:
        """The best, each cut out again: of most masks it is known by then that others show the same."""
        import torch
        from torchvision.ops import nms

        some = self._prompts.run(partial(self._sure, image), image.prompts.get("input_points", ()))
        sure = [one for of_point in some for one in of_point]
        boxes = torch.tensor([box for box, _, _ in sure], dtype=torch.float64).reshape(-1, 4)
        scores = torch.tensor([score for _, score, _ in sure], dtype=torch.float64)
        best = [sure[n] for n in nms(boxes, scores, self.iou)[: self.max_proposals].tolist()]
        return [cut for _, score, logits in best if (cut := image.cut(logits, score))]

    def _sure(self, image: Encoded, points: Any) -> list[list[tuple[Any, float, Any]]]:
        """Of each point the masks that are sure and stable: box, score and logits, as small as the model has them."""
        masks, ious = image.predict(several=True, input_points=points)
        kept = (ious >= self.min_predicted_iou) & ious.isfinite()
        boxes = []
        for n, m in kept.nonzero().tolist():
            whole = image.upscaled(masks[n, m])
            box = tight(whole > 0)
            if box and stability(whole) >= self.min_stability:
                boxes.append(box)
            else:
                kept[n, m] = False
        found: list[list[tuple[Any, float, Any]]] = [[] for _ in points]
        # One copy, not one each: small tensors that stay between large ones that go leave memory in pieces.
        for (n, m), box, logits in zip(kept.nonzero().tolist(), boxes, masks[kept], strict=True):
            found[n].append((box, float(ious[n, m]), logits))
        return found

    def _annotations(
        self, sample: Sample, regions: Sequence[Region], found: Found
    ) -> Iterator[Region | Mask | Decision]:
        ids = sample.record.ids(self.name)
        of_boxes, proposed = found
        for region, cut in zip(regions, of_boxes, strict=True):
            if cut:
                yield from self._mask(sample, region, cut, next(ids))
        for cut in proposed:
            region = Region(id=next(ids), source=self.name, kind="proposal", box=cut.box)
            yield region
            yield from self._mask(sample, region, cut, next(ids))

    def _mask(self, sample: Sample, region: Region, cut: Cut, id_: str) -> Iterator[Mask | Decision]:
        yield Mask(
            id=id_,
            source=self.name,
            derived_from=(region.id,),
            region_id=region.id,
            size=(sample.image.shape[0], sample.image.shape[1]),
            counts=cut.counts,
            scores=Scores(mask=cut.score if math.isfinite(cut.score) else None),
        )
        yield Decision(annotation_id=id_, action="keep", by=self.name, reason=STABILITY, value=cut.stability)


def _boxed(image: Encoded, boxes: Any) -> list[Cut | None]:
    masks, ious = image.predict(several=False, input_boxes=boxes)
    return [image.cut(logits[0], score) for logits, (score,) in zip(masks, ious.tolist(), strict=True)]
