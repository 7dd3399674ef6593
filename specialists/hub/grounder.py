"""The paper's grounder: Grounding DINO, and MM Grounding DINO, which is the same network trained in the open.

A text goes in as it is, in parts that the text encoder takes. Within these the model's own attention keeps sentences
apart, at each "." and "?".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

from PIL import Image as Pillow
from pydantic import Field

from engine.protocols import Image
from engine.records import Phrase, Text
from specialists.hub.linking import Found
from specialists.hub.phrase_grounder import PhraseGrounder, Wanted, is_longer
from specialists.hub.pixels import alike, in_full, widened
from specialists.hub.weights import Precision, Weights

NARROWEST = 16  # longer sides a shorter one: of less than 33 of 1333 px the encoder has no 900 places for the queries
SENTENCE_ENDS = frozenset(".?!\u2026\u3002\uff1f\uff01")
AROUND = 3  # tokens besides the text's: [CLS], [SEP] and a full stop


class Part(NamedTuple):
    """The characters [start, stop) of a text, the phrases in them, and which of the images they are about."""

    place: int
    image: Image
    text: Text
    start: int
    stop: int
    phrases: Sequence[Phrase]

    @property
    def said(self) -> str:
        """With a full stop at the end, without which the model takes each word of the last sentence by itself."""
        words = self.text.text[self.start : self.stop]
        return words if words.rstrip().endswith((".", "?")) else f"{words}."


@dataclass
class GroundingDino(PhraseGrounder):
    """Grounding DINO's boxes for the noun phrases of texts.

    A phrase's score is the mean over its tokens of the probability that the box is theirs, as the authors have it for
    given phrases; the box's is the highest over all tokens of the text: how sure it is that there is anything of which
    the text speaks. Of texts longer than the encoder takes that is of the part with the phrase.
    """

    model: Annotated[str, Field(description="a folder, or a hub's id (owner/name)")] = (
        "IDEA-Research/grounding-dino-base"
    )
    precision: Annotated[
        Precision, Field(description="bfloat16 moves the sides of boxes by a thousandth of the image's")
    ] = "float32"
    at_once: Annotated[
        int, Field(ge=1, le=100_000, description="through the model together at most; halved until memory holds them")
    ] = 4  # texts: a CPU's memory has no end that could be caught, and each takes a gigabyte
    models: ClassVar[dict[str, str]] = {
        "IDEA-Research/grounding-dino-tiny": "Apache-2.0",
        "IDEA-Research/grounding-dino-base": "Apache-2.0",
        "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det": "Apache-2.0",
        "openmmlab-community/mm_grounding_dino_base_all": "Apache-2.0",
        "openmmlab-community/mm_grounding_dino_large_all": "Apache-2.0",
    }
    families: ClassVar[tuple[str, ...]] = ("grounding-dino", "mm-grounding-dino")
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)

    def _load(self, weights: Weights) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        self._model = weights.load(AutoModelForZeroShotObjectDetection, self.precision)
        self._processor = weights.processor(AutoProcessor)

    def _look(self, images: Sequence[Image], wanted: Sequence[Sequence[Wanted]]) -> list[list[Found]]:
        parts = [
            part
            for place, (image, texts) in enumerate(zip(images, wanted, strict=True))
            for text, phrases in texts
            for part in self._parts(place, image, text, phrases)
        ]
        found: list[list[Found]] = [[] for _ in images]
        for part, some in zip(parts, self.in_batches(self._ask, parts), strict=True):
            found[part.place] += some
        return found

    def _parts(self, place: int, image: Image, text: Text, phrases: Sequence[Phrase]) -> Iterator[Part]:
        encoded = self._processor.tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True)
        most = self._model.config.max_text_len - AROUND
        for start, stop in divided(text.text, encoded.word_ids(), encoded["offset_mapping"], phrases, most):
            inside = [phrase for phrase in phrases if start <= phrase.start and phrase.stop <= stop]
            if inside:
                yield Part(place, image, text, start, stop, inside)

    def _ask(self, parts: Sequence[Part]) -> list[list[Found]]:
        images = {part.place: part.image for part in parts}
        pixels = {place: self._pixels(image) for place, image in images.items()}
        found: dict[int, list[Found]] = {}
        for places, some in alike([pixels[part.place] for part in parts]):
            asked = [parts[place] for place in places]
            # Padding has no say: each sentence ends in a token of its own, and attends to nothing behind it.
            words = self._processor.tokenizer(
                [part.said for part in asked], padding=True, return_offsets_mapping=True, return_tensors="pt"
            )
            offsets = words.pop("offset_mapping")
            inputs = some.to(self._model.device, self._model.dtype)
            outputs = in_full(self._model(pixel_values=inputs, **words.to(self._model.device)))
            likely = outputs.logits.sigmoid().cpu()
            for place, part, spans, one, boxes in zip(
                places, asked, offsets, likely, outputs.pred_boxes.cpu(), strict=True
            ):
                found[place] = list(self._found(part, spans + part.start, one, in_pixels(boxes, part.image)))
        return [found[place] for place in range(len(parts))]

    def _pixels(self, image: Image) -> Any:
        """[1, 3, height, width]; not padded to another's size, which would let an image's neighbours have a say."""
        shown = Pillow.fromarray(widened(image, NARROWEST))
        return self._processor.image_processor(shown, return_tensors="pt")["pixel_values"]

    def _found(self, part: Part, spans: Any, likely: Any, boxes: Any) -> Iterator[Found]:
        """`spans` [tokens, 2]: the tokens' characters in the text; `likely` [queries, tokens]; `boxes` [queries, 4]."""
        spans, likely = spans.tolist(), likely[:, : len(spans)]

        def score(start: int, stop: int) -> Any:
            tokens = [n for n, (first, end) in enumerate(spans) if first < stop and end > start]
            return likely[:, tokens].mean(dim=1)  # NaN without a token, which is no score

        for phrase in part.phrases:
            whole = is_longer(phrase) and part.start <= phrase.expression_start and phrase.expression_stop <= part.stop
            expression = score(phrase.expression_start, phrase.expression_stop) if whole else None
            core = score(phrase.start, phrase.stop)
            yield Found(part.text, phrase, self._sights(phrase, boxes, core, expression, likely.amax(dim=1)))


def divided(
    text: str, words: Sequence[int | None], spans: Sequence[tuple[int, int]], phrases: Sequence[Phrase], most: int
) -> Iterator[tuple[int, int]]:
    """A text in parts [start, stop) of at most `most` tokens, which have `spans` in it and are of `words`.

    Up to the last end of a sentence in so many tokens, or else up to a word; within a phrase only if that is longer.
    """
    inside = {at for phrase in phrases for at in range(phrase.start + 1, phrase.stop)}
    bounds = [n for n in range(1, len(spans)) if words[n] != words[n - 1]]
    begin = start = 0
    while len(spans) - begin > most:
        reached = [n for n in bounds if begin < n <= begin + most]
        free = [n for n in reached if spans[n][0] not in inside]
        ends = [n for n in free if text[spans[n - 1][1] - 1] in SENTENCE_ENDS]
        begin = max(ends or free or reached, default=begin + most)
        yield start, spans[begin][0]
        start = spans[begin][0]
    yield start, len(text)


def in_pixels(boxes: Any, image: Image) -> Any:
    """[n, 4] as the network has them (centre, width, height; of what it saw) -> what lies in the image, xyxy."""
    import torch
    from torchvision.ops import box_convert, clip_boxes_to_image

    height, width = widened(image, NARROWEST).shape[:2]
    corners = box_convert(boxes, "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    return clip_boxes_to_image(corners, image.shape[:2])
