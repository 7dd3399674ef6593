"""What a Florence-2 thinks of annotations that stand: how likely it finds the label of a region, or a text.

An opinion is a decision to keep, with log p per token of what the model would have had to write, <s> and </s> among
it. It is measured under the model's whole vocabulary, and comes as it is: what follows from it is for a merge to say.
Of a text there is a second one, of the same with a grey image instead: what the text owes to the language alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from engine.geometry import area, clip
from engine.protocols import Sample
from engine.records import VERIFIED, VERIFIED_BLANK, AnyAnnotation, Decision, Detail, Region, Text
from florence2 import Florence2, Form, Processor, Prompt, Task, ask
from florence2.codec import encode
from florence2.model import IGNORED
from specialists.findings import CAPTIONS

TASKS: dict[Detail, Task] = {detail: task for task, detail in CAPTIONS.items()}


class Claim(NamedTuple):
    """An annotation of an image (its place in the batch), as the question to which it would be the answer."""

    image: int
    annotation_id: str
    prompt: Prompt
    target: list[int]  # <s> answer </s>
    is_text: bool


class Told(NamedTuple):
    """What is said of an image of `size` (width, height)."""

    size: tuple[int, int]
    regions: Sequence[Region]
    texts: Sequence[Text]

    @classmethod
    def standing(cls, sample: Sample) -> Told:
        height, width = sample.image.shape[:2]
        return cls((width, height), sample.standing.regions, sample.standing.texts)

    @classmethod
    def written(cls, sample: Sample, found: Sequence[AnyAnnotation]) -> Told:
        """The texts of what was found. Of its regions the scores are calibrated, and by images that neither model was
        trained on: an opinion of who was trained on all others would be another one there."""
        height, width = sample.image.shape[:2]
        return cls((width, height), (), [one for one in found if isinstance(one, Text)])


def verified(
    model: Florence2,
    processor: Processor,
    told: Sequence[Told],
    features: Tensor,
    blank: Callable[[], Tensor],
    at_once: int,
    by: str,
) -> list[list[Decision]]:
    """The opinions of what is told of each image. `features` [images, N, d] are their encodings, `blank` gives
    that of a grey image, [1, N, d].

    None of what can't be said: an answer with more tokens than the model has positions, a region without area.
    """
    most = model.config.text.max_position_embeddings
    claims = [claim for n, one in enumerate(told) for claim in claims_of(n, one, processor)]
    claims = [claim for claim in claims if len(claim.target) <= most and asks(processor, claim.prompt)]
    of_image = scored(model, processor, claims, features, at_once)
    texts = [claim for claim in claims if claim.is_text]
    of_blank = scored(model, processor, [claim._replace(image=0) for claim in texts], blank(), at_once) if texts else []
    opinions: list[list[Decision]] = [[] for _ in told]
    for some, values, reason in ((claims, of_image, VERIFIED), (texts, of_blank, VERIFIED_BLANK)):
        for claim, value in zip(some, values, strict=True):
            opinion = Decision(annotation_id=claim.annotation_id, action="keep", by=by, reason=reason, value=value)
            opinions[claim.image].append(opinion)
    return opinions


def scored(
    model: Florence2, processor: Processor, claims: Sequence[Claim], features: Tensor, at_once: int
) -> list[float]:
    """log p per token of each claim, `at_once` together."""
    by_length = sorted(range(len(claims)), key=lambda n: (len(claims[n].target), n))  # less padding
    values: dict[int, float] = {}
    for start in range(0, len(claims), at_once):
        places = by_length[start : start + at_once]
        values.update(zip(places, likelihoods(model, processor, [claims[n] for n in places], features), strict=True))
    return [values[n] for n in range(len(claims))]


def likelihoods(model: Florence2, processor: Processor, claims: Sequence[Claim], features: Tensor) -> list[float]:
    """log p per token of each claim."""
    input_ids, mask = (x.to(model.device) for x in processor.prompts([claim.prompt for claim in claims]))
    rows = [torch.tensor(claim.target) for claim in claims]
    labels = pad_sequence(rows, batch_first=True, padding_value=IGNORED).to(model.device)
    with torch.inference_mode():
        total = model.log_likelihood(features[[claim.image for claim in claims]], input_ids, mask, labels).cpu()
    return [value / len(claim.target) for value, claim in zip(total.tolist(), claims, strict=True)]


def claims_of(image: int, told: Told, processor: Processor) -> Iterator[Claim]:
    """Of each object with a label, and each text."""
    size = told.size
    for region in told.regions:
        box = clip(region.box, *size)
        if region.kind == "object" and region.label and region.label.strip() and area(box):
            prompt = ask(Task.REGION_TO_CATEGORY, box, size)
            yield Claim(image, region.id, prompt, written(region.label, size, processor), False)
    for text in told.texts:
        if text.text.strip():
            yield Claim(image, text.id, ask(TASKS[text.detail]), written(text.text, size, processor), True)


def written(text: str, size: tuple[int, int], processor: Processor) -> list[int]:
    """As the model would write it."""
    return processor.tokens.sentence(encode(Form.TEXT, text, size))


def asks(processor: Processor, prompt: Prompt) -> bool:
    """Whether a prompt has room beside the image."""
    return processor.max_prompt_tokens is None or (
        len(processor.tokens.sentence(prompt.text)) <= processor.max_prompt_tokens
    )
