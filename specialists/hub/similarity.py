"""How close an image and a text are, to a model trained to tell which belong together: SigLIP, SigLIP 2 or CLIP."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from PIL import Image as Pillow
from pydantic import Field

from engine.protocols import Image
from specialists.hub.specialist import HubSpecialist
from specialists.hub.weights import Weights

WINDOW = 16  # characters a token up to which a part of a text may go; English has four
LONGEST = 8  # of an image's sides, the ratio up to which a model that looks at the middle gets it whole

# Where a text may be cut, best first: behind a sentence, behind a word, behind a character.
ENDS = tuple(
    map(re.compile, (r"[.!?\u2026]+[\"')\]\u201d\u2019]*(?=\s)|[\u3002\uff01\uff1f]+|\n", r"(?<=\S)(?=\s)", r"(?s:.)"))
)


@dataclass
class ContrastiveModel(HubSpecialist):
    """An encoder for images and one for texts.

    Similarity is the cosine of the two embeddings, in [-1, 1], without the model's scale and bias. What belongs
    together has 0.1 to 0.2 in SigLIP's models and 0.25 to 0.35 in CLIP's, what does not some 0.1 less: it is compared
    within one model only. SigLIP's models see an image squeezed to a square, CLIP's the square in its middle, SigLIP 2
    "naflex" the whole in its own shape.

    A text that is longer than the encoder takes (64 tokens, CLIP 77) goes in parts, whole sentences where they fit, and
    its similarity is the mean of theirs, weighted by their tokens. All are lower-cased, as in training.
    """

    model: Annotated[str, Field(description="a folder, or a hub's id (owner/name)")] = (
        "google/siglip2-so400m-patch14-384"
    )
    margin: Annotated[
        float, Field(ge=0, le=1, description="of a box's sides: what is seen around it, on each side")
    ] = 0.0
    models: ClassVar[dict[str, str]] = {
        "google/siglip2-so400m-patch14-384": "Apache-2.0",
        "google/siglip2-base-patch16-224": "Apache-2.0",
        "google/siglip-so400m-patch14-384": "Apache-2.0",
        "openai/clip-vit-large-patch14": "MIT",
    }
    families: ClassVar[tuple[str, ...]] = ("clip", "siglip", "siglip2")
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)
    _positions: int = field(default=0, init=False, repr=False, compare=False)  # of the text encoder
    _around: int = field(default=0, init=False, repr=False, compare=False)  # tokens that begin and end every text

    def _load(self, weights: Weights) -> None:
        from transformers import AutoModelForZeroShotImageClassification, AutoProcessor

        self._model = weights.load(AutoModelForZeroShotImageClassification, self.precision)
        self._processor = weights.processor(AutoProcessor)  # SigLIP's own, not SigLIP 2's, needs sentencepiece
        self._positions = self._model.config.text_config.max_position_embeddings
        self._around = len(self._processor.tokenizer("")["input_ids"])

    def similarities(self, pairs: Sequence[tuple[Image, Sequence[str]]]) -> list[dict[str, float]]:
        """Of each image its similarity to each of its texts. A text without a token of its own is left out, and so is
        what the model gives no finite number for."""
        written = self._of_texts(dict.fromkeys(text.lower() for _, texts in pairs for text in texts))
        seen = self.in_batches(self._images, [image for image, _ in pairs])
        return [
            dict(_cosines(image, {text: written.get(text.lower()) for text in texts}))
            for image, (_, texts) in zip(seen, pairs, strict=True)
        ]

    def _of_texts(self, texts: Iterable[str]) -> dict[str, Any]:
        """Of each text the mean of its parts' embeddings: the mean of cosines is the cosine with that."""
        of_parts = [(text, part) for text in texts for part in self._parts(text)]
        vectors = self.in_batches(self._texts, [part for _, part in of_parts])
        sums: dict[str, Any] = {}
        tokens: dict[str, int] = {}
        for (text, part), vector in zip(of_parts, vectors, strict=True):
            weight = self._tokens(part)
            sums[text] = sums.get(text, 0) + weight * vector
            tokens[text] = tokens.get(text, 0) + weight
        return {text: total / tokens[text] for text, total in sums.items()}

    def _parts(self, text: str) -> Iterator[str]:
        most = self._positions - self._around
        found = parts(text, lambda some: self._tokens(some) <= most, WINDOW * most)
        return (part for part in found if self._tokens(part))

    def _tokens(self, text: str) -> int:
        """How many tokens of its own a text has."""
        return len(self._processor.tokenizer(text, split_special_tokens=True)["input_ids"]) - self._around

    def _texts(self, texts: Sequence[str]) -> Any:
        """[texts, d]. As in training padded on the right to the full length, and the padding is seen; CLIP, whose
        attention is causal, does not mind. A text that says "<eos>" does not end there."""
        encoded = self._processor.tokenizer(
            list(texts),
            padding="max_length",
            padding_side="right",
            max_length=self._positions,
            truncation=False,
            split_special_tokens=True,
            return_tensors="pt",
        )
        return _unit(self._model.get_text_features(input_ids=encoded["input_ids"].to(self._model.device)))

    def _images(self, images: Sequence[Image]) -> Any:
        """[images, d]."""
        processor = self._processor.image_processor
        if getattr(processor, "do_center_crop", False):
            images = [middle(image) for image in images]
        inputs = processor(images=[Pillow.fromarray(image) for image in images], return_tensors="pt")
        inputs = inputs.to(self._model.device, self._model.dtype)
        return _unit(self._model.get_image_features(**inputs))


def middle(image: Image) -> Image:
    """An image with its ends cut off if it is very long: made larger until a line of pixels is as wide as a model asks
    for, it would need gigabytes, and all of it but the middle is thrown away then."""
    height, width = image.shape[:2]
    most = LONGEST * min(height, width)
    top, left = max(height - most, 0) // 2, max(width - most, 0) // 2
    return image[top : top + most, left : left + most]


def parts(text: str, fits: Callable[[str], bool], window: int) -> Iterator[str]:
    """A text in pieces that fit, as long as can be and at most `window` characters, in its order. Nothing is lost but
    white space between them."""
    rest = text.strip()
    while rest:
        stop = len(rest) if len(rest) <= window and fits(rest) else _stop(rest[:window], fits)
        yield rest[:stop].rstrip()
        rest = rest[stop:].lstrip()


def _stop(text: str, fits: Callable[[str], bool]) -> int:
    """Where the last sentence ends up to which the text fits, or else the last word or character."""
    for pattern in ENDS:
        stops = [match.end() for match in pattern.finditer(text)]
        count = bisect_left(stops, True, key=lambda stop: not fits(text[:stop]))
        if count:
            return stops[count - 1]
    return 1


def _unit(output: Any) -> Any:
    """The embeddings [n, d] of an encoder's output, on the CPU and of length 1."""
    vectors = output.pooler_output.float().cpu()
    return vectors / vectors.norm(dim=-1, keepdim=True)


def _cosines(image: Any, texts: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for text, vector in texts.items():
        if vector is not None and math.isfinite(cosine := float(image @ vector)):
            yield text, cosine
