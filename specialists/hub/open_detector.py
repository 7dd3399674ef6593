"""OWLv2, which finds what it is asked for by words: the classes of a vocabulary, or the noun phrases of texts.

Each of its boxes is compared with each query by itself, so that queries have no say in each other's answers. It sees
images padded to a square at the right and bottom, and gives boxes of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

from PIL import Image as Pillow
from pydantic import Field

from engine.errors import ConfigError
from engine.protocols import Image, Reads, Sample
from engine.records import Phrase, Region, Scores, Text
from engine.vocabulary import Vocabulary
from specialists.hub.detector import Count, Share
from specialists.hub.linking import Found
from specialists.hub.phrase_grounder import PhraseGrounder, Wanted, is_longer
from specialists.hub.pixels import GREY
from specialists.hub.specialist import HubSpecialist
from specialists.hub.weights import Precision, Weights

MODELS = {
    "google/owlv2-base-patch16-ensemble": "Apache-2.0",
    "google/owlv2-large-patch14-ensemble": "Apache-2.0",
    "google/owlv2-base-patch16": "Apache-2.0",
    "google/owlv2-large-patch14": "Apache-2.0",
}
DEFAULT = "google/owlv2-base-patch16-ensemble"
# CLIP's own, and the one in which the models were published with transformers. The authors average over seven such.
PROMPT = "a photo of a {}"
TOGETHER = 256  # queries through the text encoder
LARGEST = 2  # times the side that the model sees; to smooth a photo of 24 MP as it is takes a gigabyte and seconds


class Seen(NamedTuple):
    """An image's boxes [n, 4] in its pixels (xyxy, what lies inside it), their objectness [n], and features [n, d]."""

    boxes: Any
    objectness: Any
    features: Any


class Owl:
    """The network, in the two halves that meet in a product: images and queries."""

    def __init__(self, weights: Weights, precision: Precision) -> None:
        from transformers import AutoProcessor, Owlv2ForObjectDetection

        self.model = weights.load(Owlv2ForObjectDetection, precision)
        self.processor = weights.processor(AutoProcessor)
        for head in (self.model.class_head, self.model.box_head, self.model.objectness_head):
            head.float()  # in half of that boxes would be off by pixels

    def takes(self, query: str) -> bool:
        """Whether the text encoder reads the query to its end."""
        most = self.model.config.text_config.max_position_embeddings
        return bool(len(self.processor.tokenizer(query)["input_ids"]) <= most)

    def embed(self, queries: Sequence[str]) -> Any:
        """[queries, d]; the product with images does not look at their lengths."""
        import torch

        most = self.model.config.text_config.max_position_embeddings
        words = self.processor.tokenizer(
            list(queries), padding="max_length", max_length=most, truncation=True, return_tensors="pt"
        ).to(self.model.device)
        some = zip(words["input_ids"].split(TOGETHER), words["attention_mask"].split(TOGETHER), strict=True)
        embedded = [
            self.model.owlv2.get_text_features(input_ids=ids, attention_mask=mask).pooler_output for ids, mask in some
        ]
        return torch.cat(embedded).float()

    def look(self, images: Sequence[Image]) -> list[Seen]:
        import torch

        pixels = torch.cat([self._pixels(image) for image in images])
        grids, _ = self.model.image_embedder(pixels.to(self.model.device, self.model.dtype))
        features = grids.flatten(1, 2).float()
        objectness = self.model.objectness_predictor(features).sigmoid().cpu()
        boxes = self.model.box_predictor(features, grids).cpu()
        return [
            Seen(in_pixels(some, image), scores, of_image)
            for image, some, scores, of_image in zip(images, boxes, objectness, features, strict=True)
        ]

    def score(self, seen: Seen, embedded: Any) -> Any:
        """[n, queries]: the probability of each query in each box."""
        logits, _ = self.model.class_predictor(seen.features[None], embedded[None])
        return logits[0].sigmoid().cpu()

    def _pixels(self, image: Image) -> Any:
        """[1, 3, side, side]"""
        processor = self.processor.image_processor
        return processor(squared(image, LARGEST * processor.size["height"]), return_tensors="pt")["pixel_values"]


@dataclass
class Owlv2(HubSpecialist):
    """Objects of the vocabulary's classes (label and label score), and proposals (box score); the surest first.

    A class is asked for by its prompt in the vocabulary, or as "a photo of a {name}". A label score is the probability
    of the query in the box, by a sigmoid, of the class that fits it best; each is a question of its own, so they don't
    add up to 1. A box score is the objectness: how likely there is anything that one could ask for.
    """

    name: str = "open_detector"
    model: Annotated[str, Field(description="a folder, or a hub's id (owner/name)")] = DEFAULT
    min_score: Annotated[Share, Field(description="objects below are not reported")] = 0.2
    min_proposal_score: Annotated[Share, Field(description="proposals below are not reported")] = 0.1
    max_objects: Annotated[Count, Field(description="the surest so many of an image; 0: no objects")] = 100
    max_proposals: Annotated[Count, Field(description="the surest so many of an image; 0: no proposals")] = 50
    iou: Annotated[Share, Field(description="of boxes of a label that overlap more, and of proposals, one stays")] = 0.7
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    reads: ClassVar[Reads] = "image"
    models: ClassVar[dict[str, str]] = MODELS
    families: ClassVar[tuple[str, ...]] = ("owlv2",)
    _owl: Any = field(default=None, init=False, repr=False, compare=False)
    _embedded: Any = field(default=None, init=False, repr=False, compare=False)

    def needs(self) -> Iterator[str]:
        self._check_vocabulary()
        return super().needs()

    def _check_vocabulary(self) -> None:
        if not self.vocabulary.classes:
            raise ConfigError(
                f"specialist {self.name}: the vocabulary has no classes, and an open-vocabulary detector finds what it "
                "is asked for; name some under vocabulary.classes"
            )

    def _load(self, weights: Weights) -> None:
        import torch

        self._check_vocabulary()
        owl = Owl(weights, self.precision)
        prompts = [entry.prompt or PROMPT.format(name) for name, entry in self.vocabulary.classes.items()]
        if cut := [prompt for prompt in prompts if not owl.takes(prompt)]:
            raise ConfigError(
                f"specialist {self.name}: the text encoder of {self.model} can't read {cut[0]!r} to its end; give the "
                "class a shorter name or prompt"
            )
        with torch.inference_mode():
            self._embedded = owl.embed(prompts)
        self._owl = owl

    def annotate(self, batch: Sequence[Sample]) -> list[list[Region]]:
        found = self.in_batches(self._detect, [sample.image for sample in batch])
        return [
            [*self._objects(seen, likely, ids), *self._proposals(seen, ids)]
            for (seen, likely), ids in zip(found, (sample.record.ids(self.name) for sample in batch), strict=True)
        ]

    def _detect(self, images: Sequence[Image]) -> list[tuple[Seen, Any]]:
        """Of each image what is seen, and the probabilities [n, classes] of the classes in its boxes."""
        return [(seen, self._owl.score(seen, self._embedded)) for seen in self._owl.look(images)]

    def _objects(self, seen: Seen, likely: Any, ids: Iterator[str]) -> Iterator[Region]:
        from torchvision.ops import batched_nms, box_area

        scores, classes = likely.max(dim=1)
        good = ((scores >= self.min_score) & (box_area(seen.boxes) > 0)).nonzero()[:, 0]
        # In float64: labels are kept apart by moving their boxes, by more than float32 has digits for.
        best = good[batched_nms(seen.boxes[good].double(), scores[good].double(), classes[good], self.iou)]
        names = list(self.vocabulary.classes)
        for n in best[: self.max_objects].tolist():
            name = names[classes[n]]
            yield Region(
                id=next(ids),
                source=self.name,
                kind="object",
                box=tuple(seen.boxes[n].tolist()),
                raw_label=self.vocabulary.classes[name].prompt or name,
                label=name,
                scores=Scores(label=scores[n].item(), box=seen.objectness[n].item()),
            )

    def _proposals(self, seen: Seen, ids: Iterator[str]) -> Iterator[Region]:
        from torchvision.ops import box_area, nms

        good = ((seen.objectness >= self.min_proposal_score) & (box_area(seen.boxes) > 0)).nonzero()[:, 0]
        best = good[nms(seen.boxes[good], seen.objectness[good], self.iou)]
        for n in best[: self.max_proposals].tolist():
            box, score = tuple(seen.boxes[n].tolist()), seen.objectness[n].item()
            yield Region(id=next(ids), source=self.name, kind="proposal", box=box, scores=Scores(box=score))


@dataclass
class Owlv2Grounder(PhraseGrounder):
    """OWLv2's boxes for the noun phrases of texts, each asked for in its own words.

    A phrase's score is the probability of the query in the box, by a sigmoid, a box's the objectness; an expression is
    a query of its own. Phrases of more than 14 tokens can't be asked for: the text encoder would not read their ends.
    """

    model: Annotated[str, Field(description="a folder, or a hub's id (owner/name)")] = DEFAULT
    min_phrase: Annotated[Share, Field(description="boxes that it finds less of the phrase in are not reported")] = 0.2
    min_box: Annotated[Share, Field(description="boxes that it is less sure of are not reported")] = 0.1
    models: ClassVar[dict[str, str]] = MODELS
    families: ClassVar[tuple[str, ...]] = ("owlv2",)
    _owl: Any = field(default=None, init=False, repr=False, compare=False)

    def _load(self, weights: Weights) -> None:
        self._owl = Owl(weights, self.precision)

    def _look(self, images: Sequence[Image], wanted: Sequence[Sequence[Wanted]]) -> list[list[Found]]:
        asked = [(place, texts) for place, texts in enumerate(wanted) if texts]
        found: list[list[Found]] = [[] for _ in images]
        answers = self.in_batches(self._ask, [(images[place], texts) for place, texts in asked])
        for (place, _), answer in zip(asked, answers, strict=True):
            found[place] = answer
        return found

    def _ask(self, asked: Sequence[tuple[Image, Sequence[Wanted]]]) -> list[list[Found]]:
        seen = self._owl.look([image for image, _ in asked])
        return [list(self._found(one, wanted)) for one, (_, wanted) in zip(seen, asked, strict=True)]

    def _found(self, seen: Seen, wanted: Sequence[Wanted]) -> Iterator[Found]:
        phrases = [(text, phrase) for text, some in wanted for phrase in some]
        queries = list(dict.fromkeys(words for pair in phrases for words in said(*pair) if self._owl.takes(words)))
        likely = dict(zip(queries, self._owl.score(seen, self._owl.embed(queries)).T, strict=True)) if queries else {}
        for text, phrase in phrases:
            core, whole = said(text, phrase)
            if core in likely:
                expression = likely.get(whole) if is_longer(phrase) else None
                yield Found(text, phrase, self._sights(phrase, seen.boxes, likely[core], expression, seen.objectness))


def said(text: Text, phrase: Phrase) -> tuple[str, str]:
    """The words of the phrase, and of its expression."""
    return text.text[phrase.start : phrase.stop], text.text[phrase.expression_start : phrase.expression_stop]


def squared(image: Image, most: int) -> Any:
    """The image on a grey square, at its top left, no larger than `most`.

    As the authors do it: transformers' own preparation pads with black, which the network was not trained on.
    """
    shown = Pillow.fromarray(image)
    shown.thumbnail((most, most))
    square = Pillow.new("RGB", (max(shown.size), max(shown.size)), (GREY, GREY, GREY))
    square.paste(shown)
    return square


def in_pixels(boxes: Any, image: Image) -> Any:
    """[n, 4] as the network has them (centre, width, height; of the square) -> what lies in the image, xyxy."""
    from torchvision.ops import box_convert, clip_boxes_to_image

    corners = box_convert(boxes, "cxcywh", "xyxy") * max(image.shape[:2])
    return clip_boxes_to_image(corners, image.shape[:2])
