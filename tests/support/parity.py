"""Pairs of models with the same random weights, transformers' and ours, and questions for both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Florence2Config as NativeConfig
from transformers import Florence2ForConditionalGeneration

from florence2.config import Florence2Config
from florence2.model import IGNORED, Florence2
from florence2.processor import image_tokens
from florence2.search import Decoding, Hypothesis, search

# transformers' names for the one matrix that embeds and is the head
COPIES = {"lm_head.weight", *(f"model.language_model.{side}.embed_tokens.weight" for side in ("encoder", "decoder"))}
CONSTANT = 8.0


def pair(config: Florence2Config, seed: int = 0, spread: float = 1.0) -> tuple[Any, Florence2]:
    """transformers' model and ours, which are made once for a configuration; each call gives both new weights."""
    theirs, ours = models(config)
    randomise(ours, seed, spread)
    copy(ours, theirs)
    return theirs, ours


@lru_cache(maxsize=2)
def models(config: Florence2Config) -> tuple[Any, Florence2]:
    theirs: Any = Florence2ForConditionalGeneration(NativeConfig(**config.to_dict()))
    return theirs.eval(), Florence2(config)


def randomise(model: nn.Module, seed: int, spread: float = 1.0) -> None:
    """Weights that show a difference: matrices keep the size of what goes through them, so that attention is neither
    even nor all on one place; no norm is 1, no bias 0. Logits have a standard deviation of about `spread`."""
    with torch.no_grad():
        dice = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                size = spread if name.endswith("shared.weight") else 1.0
                parameter.normal_(std=size * parameter[0].numel() ** -0.5, generator=dice)
            else:
                parameter.normal_(0.0 if name.endswith("bias") else 1.0, 0.1, generator=dice)


def copy(ours: Florence2, theirs: Any) -> None:
    """Parameters alone, name for name: what transformers computes for itself stays its own."""
    state = {f"model.{name}": parameter for name, parameter in ours.named_parameters()}
    missing, surplus = theirs.load_state_dict(state, strict=False)
    assert not surplus
    assert set(missing) - COPIES == {f"model.{name}" for name, _ in ours.named_buffers()}


def lean(model: Florence2, tokens: list[int], nats: float) -> None:
    """Adds nats to the logits of some tokens. For that the last hidden state's first channel becomes a constant."""
    with torch.no_grad():
        last, embedding = model.language_model.decoder.layers[-1].final_layer_norm, model.language_model.shared.weight
        if last.weight[0] != 0:
            last.weight[0], last.bias[0] = 0.0, CONSTANT
            embedding[:, 0] = 0.0
        embedding[tokens, 0] += nats / CONSTANT


@dataclass(frozen=True)
class Questions:
    """An image [3, height, width] and a prompt [L] a row. Prompts are unequal, with pads at the end."""

    pixels: Tensor
    ids: Tensor
    mask: Tensor

    @classmethod
    def make(cls, seed: int, count: int = 3, size: tuple[int, int] = (96, 96), longest: int = 9) -> Questions:
        dice = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, longest + 1, (count,), generator=dice)
        lengths[seed % count] = longest
        mask = torch.arange(longest) < lengths[:, None]
        ids = torch.randint(3, 1000, (count, longest), generator=dice).where(mask, torch.tensor(1))
        return cls(torch.randn(count, 3, *size, generator=dice), ids, mask.long())

    def __getitem__(self, rows: list[int]) -> Questions:
        """Without the columns that are pads in all of them."""
        longest = int(self.mask[rows].sum(dim=1).max())
        return Questions(self.pixels[rows], self.ids[rows, :longest], self.mask[rows, :longest])


def native(questions: Questions, theirs: Any) -> dict[str, Tensor]:
    """As transformers takes them: <image> in front of the prompt, once for each token of the image."""
    tokens = image_tokens(questions.pixels.shape[2:], math.prod(theirs.config.vision_config.patch_stride))
    images = questions.ids.new_full((len(questions.ids), tokens), theirs.config.image_token_id)
    return {
        "pixel_values": questions.pixels,
        "input_ids": torch.cat([images, questions.ids], dim=1),
        "attention_mask": torch.cat([torch.ones_like(images), questions.mask], dim=1),
    }


def end_now_and_then(model: Florence2, questions: Questions, seed: int, share: float = 0.05) -> None:
    """Makes </s> the likeliest token at about a `share` of the places of an answer: some end early, some never."""
    with torch.no_grad():
        dice = torch.Generator().manual_seed(seed)
        eos = model.config.text.eos_token_id
        model.language_model.shared.weight[eos] *= 2  # its logit varies more than the others'
        lean(model, [], 0.0)
        answers = torch.randint(3, 1000, (len(questions.ids), 24), generator=dice)
        logits = model(questions.pixels, questions.ids, questions.mask, answers)
        behind = logits.amax(dim=-1) - logits[..., eos]
        lean(model, [eos], behind.flatten().quantile(share).item())


def generated(theirs: Any, questions: Questions, decoding: Decoding) -> tuple[list[list[int]], list[float] | None]:
    """transformers' answers: ids behind the start token, padded to the longest; and the scores, if there are beams."""
    settings = dict(vars(decoding))
    forced_bos, forced_eos, eos_penalty = (settings.pop(name) for name in ("forced_bos", "forced_eos", "eos_penalty"))
    assert eos_penalty == 0, "transformers has no such thing"
    if decoding.num_beams == 1:
        del settings["early_stopping"], settings["length_penalty"]
    text = theirs.config.text_config
    out = theirs.generate(
        **native(questions, theirs),
        **settings,
        forced_bos_token_id=text.bos_token_id if forced_bos else None,
        forced_eos_token_id=text.eos_token_id if forced_eos else None,
        bos_token_id=text.bos_token_id,
        pad_token_id=text.pad_token_id,
        eos_token_id=text.eos_token_id,
        decoder_start_token_id=text.decoder_start_token_id,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return out.sequences[:, 1:].tolist(), None if decoding.num_beams == 1 else out.sequences_scores.tolist()


def searched(model: Florence2, questions: Questions, decoding: Decoding, **rules: Any) -> list[Hypothesis]:
    with torch.inference_mode():
        memory = model.encode(model.encode_image(questions.pixels), questions.ids, questions.mask)
        hypotheses: list[Hypothesis] = search(model, memory, decoding, **rules)
    return hypotheses


def padded(hypotheses: list[Hypothesis]) -> list[list[int]]:
    """As transformers gives its answers."""
    longest = max(len(hypothesis.token_ids) for hypothesis in hypotheses)
    return [h.token_ids + [1] * (longest - len(h.token_ids)) for h in hypotheses]


def labels(seed: int, rows: int, length: int) -> Tensor:
    """[rows, length]: answers of different lengths; -100 behind them, and at one place within the first."""
    dice = torch.Generator().manual_seed(seed)
    made = torch.randint(3, 1000, (rows, length), generator=dice)
    made[:, 0] = 0
    for row in range(1, rows):
        made[row, length - row * length // (rows + 1) :] = IGNORED
    made[0, length // 2] = IGNORED
    return made
