"""Captioners that are asked nothing: BLIP, BLIP-2, GIT, a vision encoder with a language model as decoder.

They write brief texts, of the image and of what is cut out of it: the paper has its regions' texts from captions of
their crops (Florence-2, section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from PIL import Image as Pillow
from pydantic import Field

from engine.protocols import Image, Reads, Sample
from engine.records import Detail, Region, RegionText, Scores, Text
from specialists.hub.crops import Crops
from specialists.hub.pixels import alike, widened
from specialists.hub.specialist import HubSpecialist
from specialists.hub.weights import Weights

Caption = tuple[str, float | None]


@dataclass
class Captioner(HubSpecialist):
    """A text of each image, and a text of each object region, from its crop.

    The phrase score is the probability of the wording, per token: exp(mean log p). It says how fluent a caption is to
    the model, and little of whether it is true.
    """

    name: str = "captioner"
    model: Annotated[str, Field(description="a folder, or a hub's id")] = "Salesforce/blip-image-captioning-large"
    detail: Annotated[Detail | None, Field(description="granularity of the image's text; none: no such text")] = "brief"
    max_regions: Annotated[
        int, Field(ge=0, le=10_000, description="of an image; the largest objects get texts from their crops; 0: none")
    ] = 0
    margin: Annotated[float, Field(ge=0, le=1, description="of a crop around its box, as a share of its sides")] = 0.1
    min_side: Annotated[int, Field(ge=1, description="px: of smaller boxes there is no text")] = 16
    beams: Annotated[int, Field(ge=2, le=100, description="of the search for the likeliest wording")] = 3
    max_new_tokens: Annotated[int, Field(ge=2, le=10_000, description="of a text; one that is longer is cut")] = 40
    models: ClassVar[dict[str, str]] = {
        "Salesforce/blip-image-captioning-base": "BSD-3-Clause",
        "Salesforce/blip-image-captioning-large": "BSD-3-Clause",
        "Salesforce/blip2-flan-t5-xl": "MIT",
        "Salesforce/blip2-opt-2.7b": "MIT; its language model, OPT, non-commercial",
        "microsoft/git-large-coco": "MIT",
    }
    families: ClassVar[tuple[str, ...]] = ("blip", "blip-2", "git", "vision-encoder-decoder")
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def reads(self) -> Reads:
        return "record" if self.max_regions else "image"

    def _load(self, weights: Weights) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._model = weights.load(AutoModelForImageTextToText, self.precision)
        self._processor = weights.processor(AutoProcessor)

    def annotate(self, batch: Sequence[Sample]) -> list[list[Text | RegionText]]:
        crops = Crops(self.max_regions, self.margin, self.min_side)
        cut = [crops.of(sample) for sample in batch]
        whole = [sample.image for sample in batch] if self.detail else []
        captions = iter(self.in_batches(self._caption, [*whole, *(image for some in cut for _, image in some)]))
        of_images = [next(captions) for _ in whole] or [("", None)] * len(batch)
        return [
            list(self._said(sample, caption, [(region, next(captions)) for region, _ in some]))
            for sample, caption, some in zip(batch, of_images, cut, strict=True)
        ]

    def _caption(self, images: Sequence[Image]) -> list[Caption]:
        found: dict[int, Caption] = {}
        for places, pixels in alike([self._pixels(image) for image in images]):
            found.update(zip(places, self._written(pixels), strict=True))
        return [found[place] for place in range(len(images))]

    def _pixels(self, image: Image) -> Any:
        picture = Pillow.fromarray(widened(image))
        return self._processor.image_processor(images=picture, return_tensors="pt")["pixel_values"]

    def _written(self, pixels: Any) -> list[Caption]:
        made = self._model.generate(
            pixel_values=pixels.to(self._model.device, self._model.dtype),
            num_beams=self.beams,
            do_sample=False,
            length_penalty=1.0,  # with it a beam's score is the mean log p of its tokens, its end among them
            max_new_tokens=self.max_new_tokens,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = self._processor.batch_decode(made.sequences, skip_special_tokens=True)
        scores = made.sequences_scores.float().exp().tolist()
        return [(" ".join(text.split()), score) for text, score in zip(texts, scores, strict=True)]

    def _said(
        self, sample: Sample, caption: Caption, of_regions: Sequence[tuple[Region, Caption]]
    ) -> Iterator[Text | RegionText]:
        ids, name = sample.record.ids(self.name), self.name
        text, score = caption
        if text and self.detail:
            yield Text(id=next(ids), source=name, text=text, detail=self.detail, scores=Scores(phrase=score))
        for region, (text, score) in of_regions:
            if text:
                yield RegionText(
                    id=next(ids),
                    source=name,
                    derived_from=(region.id,),
                    region_id=region.id,
                    text=text,
                    scores=Scores(phrase=score),
                )
