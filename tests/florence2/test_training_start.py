"""Weights for training from nothing: reproducible, in balance, with places as smooth codes, and quick to learn by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from florence import bart_sized_tokens, small_tokens
from torch import Tensor
from torch.nn import functional as F

from florence2.codec import Annotation, encode
from florence2.config import Florence2Config, TextConfig, VisionConfig
from florence2.davit import Block
from florence2.errors import ConfigError
from florence2.model import Florence2, Memory
from florence2.tasks import Form, Task
from florence2.tokens import Tokens
from florence2.training.start import PASSING, code, first_location, start_from_scratch

TINY = Florence2Config(
    VisionConfig(
        depths=(1, 1),
        patch_size=(7, 3),
        patch_stride=(4, 2),
        patch_padding=(3, 1),
        patch_prenorm=(False, True),
        embed_dim=(16, 64),
        num_heads=(1, 2),
        num_groups=(1, 2),
        window_size=4,
        projection_dim=64,
        drop_path_rate=0.0,
    ),
    TextConfig(
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    ),
).with_vocabulary(small_tokens().size)
SIDE = 4  # tokens, of 32 px


def started(seed: int = 0, config: Florence2Config = TINY) -> Florence2:
    model = Florence2(config)
    start_from_scratch(model, seed, SIDE)
    return model


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_seed_alone_decides() -> None:
    torch.manual_seed(1)
    first = started(seed=3).state_dict()
    torch.manual_seed(2)
    dice = torch.get_rng_state()
    model = Florence2(TINY)
    torch.set_rng_state(dice)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    start_from_scratch(model, 3, SIDE)
    assert torch.equal(torch.get_rng_state(), dice)  # the caller's dice are not thrown
    assert all(torch.equal(tensor, first[name]) for name, tensor in model.state_dict().items())
    assert not torch.equal(started(seed=4).language_model.shared.weight, first["language_model.shared.weight"])


@pytest.mark.parametrize("tokens", [small_tokens(), bart_sized_tokens()], ids=["trained", "released"])
def test_where_the_locations_are(tokens: Tokens) -> None:
    assert first_location(Florence2(TINY.with_vocabulary(tokens.size))) == tokens.loc_start


@pytest.mark.parametrize("end", [None, 1000])
def test_a_config_that_does_not_tell(end: int | None) -> None:
    model = Florence2(replace(TINY, image_token_id=end))
    before = model.language_model.shared.weight.clone()
    with pytest.raises(ConfigError, match="number of tokens as image_token_id"):
        start_from_scratch(model, 0)
    assert torch.equal(model.language_model.shared.weight, before)


@pytest.mark.parametrize("width", [32, 33, 192])
def test_the_code_is_smooth_and_tells_places_apart(width: int) -> None:
    places = (torch.arange(1000) + 0.5) / 1000
    rows = code(places, width)
    assert rows.shape == (1000, width)
    assert rows.square().mean().item() == pytest.approx(1, abs=0.05)
    alike = F.normalize(rows) @ F.normalize(rows).T
    assert (alike.diagonal(1) > 0.99).all()
    near, far = alike.diagonal(10).min(), alike.diagonal(200).max()
    assert near > 0.8 > far  # a hundredth of a side is near, a fifth is not
    assert (alike.fill_diagonal_(-1).argmax(1) - torch.arange(1000)).abs().max() == 1


def test_one_code_for_locations_and_for_the_map() -> None:
    model, tokens = started(), small_tokens()
    table = model.multi_modal_projector.image_position_embed
    middles = (torch.arange(SIDE) + 0.5) / SIDE
    for rows in (table.row_embeddings.weight, table.column_embeddings.weight):
        torch.testing.assert_close(rows[:SIDE], code(middles, rows.shape[1]))
    words = model.language_model.shared.weight
    locations = words[tokens.loc_start : tokens.loc_start + 1000]
    assert torch.equal(*locations.chunk(2, dim=1))
    similar = F.normalize(locations[:, :32]) @ F.normalize(table.column_embeddings.weight[:SIDE]).T
    assert similar.argmax(0).tolist() == pytest.approx([1000 * m for m in middles.tolist()], abs=1)
    others = torch.cat([words[3 : tokens.loc_start], words[tokens.loc_start + 1000 : tokens.size]])
    assert locations.std().item() == pytest.approx(others.std().item(), rel=0.1)
    assert (words[TINY.text.pad_token_id] == 0).all()


def test_branches_do_nothing_at_first_and_can_learn_to() -> None:
    model = started().train()
    x = torch.randn(2, 4, 4, 64)
    block = model.vision_tower.blocks[1][0]
    assert isinstance(block, Block) and torch.equal(block(x), x)
    states = F.layer_norm(torch.randn(2, 9, 64), (64,))
    torch.testing.assert_close(model.language_model.encoder.layers[0](states, None), states, atol=1e-4, rtol=0)
    loss = model.loss(model.encode_image(images(2)), torch.tensor([[5, 6], [7, 8]]), None, torch.tensor([[9, 10]] * 2))
    loss.backward()
    for half in (block.spatial_block, block.channel_block):
        for last in (half.conv1, half.get_submodule(half.attention).proj, half.conv2, half.ffn.fc2):
            assert last.weight.grad is not None and last.weight.grad.abs().max() > 0


@pytest.mark.parametrize("at", range(SIDE))
def test_the_place_that_attention_is_at_is_what_the_head_says(at: int) -> None:
    """Of a token on the diagonal, with row and column alike, and nothing to be seen there."""
    model, first = started(), small_tokens().loc_start
    with torch.no_grad():
        states = model.encode(model.encode_image(torch.zeros(1, 3, 32, 32)), torch.tensor([[0, 2]])).states
        token = 1 + at * SIDE + at
        hidden = model.decode(Memory(states[:, token : token + 1], None), torch.tensor([[2, 0]]))
        said = model.head(hidden)[0, -1]
    assert first <= said.argmax() < first + 1000
    assert said[first : first + 1000].argmax().item() == pytest.approx(1000 * (at + 0.5) / SIDE, abs=25)


def test_the_preset_for_it() -> None:
    pico = Florence2Config.preset("pico", small_tokens().size)
    model = started(config=pico)
    assert torch.equal(model.multi_modal_projector.image_projection.weight, torch.eye(64))
    assert model.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 65, 64)
    assert sum(p.numel() for p in model.parameters()) < 5e5


@pytest.mark.parametrize(("widths", "layers"), [((16, 32), 2), ((16, 96), 1)])
def test_other_widths_and_layers(widths: tuple[int, int], layers: int) -> None:
    """Where the map is narrower or wider than the language model, its projection is as any linear layer."""
    config = replace(
        TINY, vision=replace(TINY.vision, embed_dim=widths), text=replace(TINY.text, decoder_layers=layers)
    )
    model = started(config=config)
    weight = model.multi_modal_projector.image_projection.weight
    assert weight.std().item() == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.1)
    *others, last = (decoder.encoder_attn for decoder in model.language_model.decoder.layers)
    assert torch.equal(last.v_proj.weight, torch.eye(64)) and torch.equal(last.out_proj.weight, PASSING * torch.eye(64))
    assert not any(attention.out_proj.weight.any() for attention in others)


def test_places_and_what_is_there_have_one_scale() -> None:
    """In every image token, before and behind the language model's encoder, and all of it shows in the logits."""
    model = started()
    with torch.no_grad():
        seen = model.vision_tower(images())[-1]
        place = model.multi_modal_projector.image_position_embed(SIDE, SIDE)
        assert 0.5 < seen.std() / place.std() < 2
        prompt = torch.tensor([small_tokens().sentence(Task.OD.sentence)]).expand(8, -1)
        states = model.encode(model.encode_image(images()), prompt).states[:, 1 : 1 + SIDE * SIDE]
        between_images, between_places = states.var(0).mean(), states.mean(0).var(0).mean()
        assert 0.1 < between_images / between_places < 10
        logits = model(images(), prompt)
        assert 0.1 < logits.std() < 2


def loss_after(model: Florence2, steps: int) -> float:
    """Boxes that say where the one bright square of an image is."""
    tokens, generator = small_tokens(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=2e-3, weight_decay=0.0)
    prompt = torch.tensor([tokens.sentence(Task.REGION_PROPOSAL.sentence)]).expand(16, -1)
    losses = []
    for _ in range(steps):
        pixels, labels = torch.zeros(16, 3, 32, 32), []
        for image, (x, y) in zip(pixels, torch.randint(0, 20, (16, 2), generator=generator).tolist(), strict=True):
            image[:, y : y + 12, x : x + 12] = 2.0
            box = (float(x), float(y), x + 12.0, y + 12.0)
            labels.append(tokens.sentence(encode(Form.BOXES, [Annotation(box=box)], (32, 32))))
        loss = model.loss(model.encode_image(pixels), prompt, None, torch.tensor(labels))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


def test_it_learns_sooner() -> None:
    """After 60 steps the loss is 1.5; a fresh model's is 2.4, with the same boxes for every image."""
    torch.manual_seed(0)
    assert loss_after(started(), 60) < loss_after(Florence2(TINY), 60) - 0.4
