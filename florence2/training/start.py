"""Weights for training from nothing: what a new model's random numbers must be for locations to be learnt soon.

A Florence-2 that starts from `text.init_std` everywhere learns which labels are frequent, and nothing of the image for
thousands of steps. To learn where things are, attention has to choose tokens by what they show, and what it reads there
has to become a location; each is of no use without the other, so neither has a gradient to follow. Here the second is
given: a token's place is written in the code that locations are written in, and passes to the head unchanged. Then
the first is learnt within a few hundred steps. docs/training.md has what was tried.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from florence2.bart import Attention, Bart, Layer
from florence2.davit import Half
from florence2.errors import ConfigError
from florence2.locations import BINS
from florence2.model import Florence2
from florence2.projector import Positions2d
from florence2.tokens import SPECIALS

WORDS = 0.06  # standard deviation of embeddings: the logits' is sqrt(d) times as large, about 0.6, and so still flat
PLACES = 0.02  # of positions in a sequence: a third of the words', so that what is said counts more than when
PASSING = 3.0  # what is read of the image, against what was written last: 1 was lost in it, 6 as good
WAVES = (0.25, 16.0)  # of the code, a side: a quarter of a wave tells left from right, 16 waves tell neighbours apart


@torch.no_grad()
def start_from_scratch(model: Florence2, seed: int, side: int | None = None) -> None:
    """Sets all weights, in place; the same for the same seed, whatever the device. `side`: image tokens a side.

    - Linear layers: Xavier. Convolutions that embed patches: He's, without the factor for a ReLU.
    - All residual branches end in zeros, those of the tower and of the language model: a block does nothing at first,
      and noise of untrained layers hides neither edges and colours nor places. Each joins in at its first steps.
    - <loc_k>, and the image's rows and columns: one smooth code of their value. Neighbouring bins start as neighbours,
      to what reads them and, the embedding being the head, to what writes them. The code of a location stands in both
      halves of its row, since the image's tokens have that of their column in one half, of their row in the other.
    - The projection, and values and output of the last cross-attention, pass these halves on as they are.
    Norms and biases are as new. `side` None: the tables' length. ConfigError if the config does not tell <loc_0>.
    """
    generator = torch.Generator().manual_seed(seed)
    first = first_location(model)
    for module in model.modules():
        weights(module, generator)
    quiet(model)
    positions(model.multi_modal_projector.image_position_embed, side)
    embeddings(model.language_model, first, generator)
    passage(model)


def weights(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, nn.Linear):
        fill(module.weight, math.sqrt(2 / (module.in_features + module.out_features)), generator)
    elif isinstance(module, nn.Conv2d):
        fill(module.weight, module.weight[0].numel() ** -0.5, generator)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm) and module.bias is not None:
        nn.init.zeros_(module.bias)


def quiet(model: Florence2) -> None:
    """The last layer of each residual branch to zero."""
    for module in model.modules():
        if isinstance(module, Half):
            attention = module.get_submodule(module.attention)
            for last in (module.conv1, attention.proj, module.conv2, module.ffn.fc2):
                nn.init.zeros_(last.weight)
        elif isinstance(module, Attention):
            nn.init.zeros_(module.out_proj.weight)
        elif isinstance(module, Layer):
            nn.init.zeros_(module.fc2.weight)


def positions(tables: Positions2d, side: int | None) -> None:
    """Token i of `side` has the code of its middle; mean square 1, as the features after convolutions and norms."""
    for table in (tables.row_embeddings.weight, tables.column_embeddings.weight):
        middles = (torch.arange(len(table)) + 0.5) / (side or len(table))
        table.copy_(code(middles, table.shape[1]))


def embeddings(bart: Bart, first: int, generator: torch.Generator) -> None:
    """Words at random, locations by their code in both halves, all of one scale; the pad is nothing."""
    table = bart.shared.weight
    fill(table, WORDS, generator)
    table[bart.shared.padding_idx] = 0
    width = table.shape[1]
    middles = (torch.arange(BINS) + 0.5) / BINS
    halves = [code(middles, part) for part in (width - width // 2, width // 2)]
    table[first : first + BINS] = (WORDS * torch.cat(halves, dim=1)).to(table)
    for stack in (bart.encoder, bart.decoder):
        fill(stack.embed_positions.weight, PLACES, generator)


def passage(model: Florence2) -> None:
    """From the image's tokens to the head, by the last decoder layer: through two at once it was learnt later.

    A projection to another width stays random, since halves would not meet there: `pico` and `nano` have none.
    """
    projection = model.multi_modal_projector.image_projection.weight
    if projection.shape[0] == projection.shape[1]:
        nn.init.eye_(projection)
    attention = model.language_model.decoder.layers[-1].encoder_attn
    nn.init.eye_(attention.v_proj.weight)
    nn.init.eye_(attention.out_proj.weight).mul_(PASSING)


def code(values: Tensor, width: int) -> Tensor:
    """[N] in 0..1 -> [N, width], mean square 1: sines and cosines of waves from the first to the last of WAVES."""
    waves = torch.logspace(math.log10(WAVES[0]), math.log10(WAVES[1]), (width + 1) // 2)
    angles = 2 * math.pi * values[:, None] * waves
    return math.sqrt(2) * torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


def first_location(model: Florence2) -> int:
    """The id of <loc_0>, as `Tokens` lays them out: the specials come last, <image> after them."""
    end = model.config.image_token_id
    if end is None or end < len(SPECIALS):
        raise ConfigError(
            f"expected the number of tokens as image_token_id, at least {len(SPECIALS)}; got {end}: "
            "make the config by Florence2Config.preset(name, tokens.size)"
        )
    return end - len(SPECIALS) + SPECIALS.index("<loc_0>")


def fill(weight: Tensor, std: float, generator: torch.Generator) -> None:
    weight.copy_(torch.randn(weight.shape, generator=generator) * std)
