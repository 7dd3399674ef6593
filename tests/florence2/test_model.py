"""The whole network on a small configuration: half precision, training, sizes of images, losses, names, copies.

Equality with transformers is tested elsewhere.
"""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence2 import Florence2, Florence2Config
from florence2.bart import Attention
from florence2.davit import ChannelAttention, DropPath, WindowAttention
from florence2.errors import ImageError, PromptError
from florence2.search import Decoding, search

ROWS = 1500
NANO = Florence2Config.preset("nano", ROWS)
HALVES = [torch.bfloat16, torch.float16]


def made(seed: int = 0, std: float = 0.08, **text: Any) -> Florence2:
    """Random weights, larger than a fresh model's: attention is then far from a plain mean."""
    torch.manual_seed(seed)
    return Florence2(replace(NANO, text=replace(NANO.text, init_std=std, **text)))


@pytest.fixture(scope="module")
def shared() -> Florence2:
    """For tests that leave it as it is."""
    return made()


@pytest.fixture(autouse=True)
def same_dice() -> None:
    torch.manual_seed(1)


def pixels(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *(size or (64, 64)))


def ids(*shape: int) -> Tensor:
    return torch.randint(4, ROWS, shape)


def norms(model: nn.Module) -> list[nn.LayerNorm]:
    return [module for module in model.modules() if isinstance(module, nn.LayerNorm)]


# --- half precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "largest", "mean"), [(torch.bfloat16, 0.1, 0.02), (torch.float16, 0.02, 0.003)])
def test_logits_in_half_precision(dtype: torch.dtype, largest: float, mean: float, shared: Florence2) -> None:
    """Errors on logits whose standard deviation is 1.1. Measured: bf16 0.05 at most and 0.012 on average, fp16 an
    eighth of that, as 8 and 11 bits of mantissa have it.
    """
    half = copy.deepcopy(shared).to(dtype)
    prompt, answer, mask = ids(2, 9), ids(2, 12), torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    with torch.no_grad():
        expected = shared(images := pixels(96, 96), prompt, mask, answer)
        logits = half(images, prompt, mask, answer)  # float32 images: the model takes them to its own dtype
    error = (logits.float() - expected).abs()
    assert logits.dtype == half.dtype == dtype and logits.isfinite().all()
    assert 0.9 < expected.std() < 1.3
    assert error.max() < largest and error.mean() < mean
    assert error.max() > 1e-4  # it was computed in half precision


@pytest.mark.parametrize("dtype", HALVES)
def test_norms_in_half_precision(dtype: torch.dtype, shared: Florence2) -> None:
    """Squares of these overflow fp16 (65504), and a mean of 2000 leaves bf16 no bit of a deviation of 3."""
    step = torch.finfo(dtype).eps
    for norm in norms(copy.deepcopy(shared).to(dtype)):
        width = norm.normalized_shape[0]
        for x in (300 * torch.randn(5, width), 60_000 * torch.rand(5, width), 2000 + 100 * torch.randn(5, width)):
            x = x.to(dtype)
            expected = F.layer_norm(x.float(), (width,), norm.weight.float(), norm.bias.float(), norm.eps)
            torch.testing.assert_close(norm(x).float(), expected, rtol=step, atol=step)


def sharpened(attention: nn.Module, factor: float) -> nn.Module:
    """With its queries and keys larger by a factor."""
    attention = copy.deepcopy(attention)
    with torch.no_grad():
        if isinstance(attention, Attention):
            for layer in (attention.q_proj, attention.k_proj):
                layer.weight *= factor
        else:
            attention.qkv.weight[: 2 * attention.qkv.in_features] *= factor
    return attention


def assert_near_fp32(attention: nn.Module, dtype: torch.dtype, *inputs: Tensor, **options: Any) -> None:
    """On weights and inputs that are rounded already, so that arithmetic alone makes a difference."""
    half = copy.deepcopy(attention).to(dtype)
    inputs = tuple(x.to(dtype) for x in inputs)
    with torch.no_grad():
        result = half(*inputs, **options).float()
        expected = half.float()(*(x.float() for x in inputs), **options)
    assert result.isfinite().all()
    error = (result - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < 8 * torch.finfo(dtype).eps, error


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("masked", [False, True])
def test_softmax_over_tokens_in_half_precision(dtype: torch.dtype, masked: bool, shared: Florence2) -> None:
    """Ordinary logits: softmax and its sum over 300 tokens are not rounded to 8 bits on the way."""
    x = torch.randn(2, 300, NANO.text.d_model)
    mask = (torch.arange(300) < torch.tensor([[300], [170]]))[:, None, None] if masked else None
    encoder, decoder = shared.language_model.encoder.layers[0], shared.language_model.decoder.layers[0]
    assert_near_fp32(encoder.self_attn, dtype, x, x, mask=mask)
    assert_near_fp32(decoder.self_attn, dtype, x, x, causal=True)
    assert_near_fp32(decoder.encoder_attn, dtype, x[:, :7], x, mask=mask)


def test_logits_beyond_fp16(shared: Florence2) -> None:
    """Of attention over tokens, in text and windows: q k reaches 300,000, and fp16 ends at 65,504."""
    x = torch.randn(2, 40, NANO.text.d_model)
    attention = sharpened(shared.language_model.encoder.layers[0].self_attn, 300)
    q, k = attention.split(attention.q_proj(x)), attention.split(attention.k_proj(x))
    assert (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).abs().max() > 3e5
    window = sharpened(shared.vision_tower.blocks[0][0].spatial_block.window_attn, 300)
    with torch.no_grad():
        for module, inputs in ((attention, (x, x)), (window, (10 * torch.randn(2, 12, 12, 32),))):
            half = copy.deepcopy(module).half()
            result, expected = half(*(part.half() for part in inputs)).float(), module(*inputs)
            assert result.isfinite().all()
            agree = (result - expected).abs().amax(-1) < 0.05 * expected.abs().max()
            assert agree.float().mean() > 0.95  # where one key wins by far; elsewhere rounding of q and k decides


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("side", "mean"), [(24, 0.0), (96, 0.0), (96, 1.0)])
def test_channel_attention_in_half_precision(dtype: torch.dtype, side: int, mean: float, shared: Florence2) -> None:
    """Many tokens: each logit is a sum over `side` squared of them, times side ** -1.

    Where queries and keys have a mean, logits are large and near each other (96 at 9216 tokens, a mean of 1): rounded
    to half precision before their softmax they say little, since bf16 has steps of 0.5 there.
    """
    attention = copy.deepcopy(shared.vision_tower.blocks[0][0].channel_block.channel_attn)
    width = attention.qkv.in_features
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(width).repeat(3, 1) + 0.02 * torch.randn(3 * width, width))
        attention.qkv.bias[: 2 * width].fill_(mean)
        attention.proj.weight.copy_(torch.eye(width))
    loud = torch.randn(1, side, side, width) / math.sqrt(side)  # else each channel sees itself alone
    assert_near_fp32(attention, dtype, loud)


def test_channel_logits_beyond_fp16(shared: Florence2) -> None:
    attention = copy.deepcopy(shared.vision_tower.blocks[0][0].channel_block.channel_attn)
    with torch.no_grad():
        attention.qkv.bias[: 2 * attention.qkv.in_features].fill_(30.0)  # 900 * 96 > 65504
        assert attention.half()(torch.randn(1, 96, 96, 32).half()).isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_decoding_in_half_precision(dtype: torch.dtype, shared: Florence2) -> None:
    """Scores of answers that half precision found, against what the fp32 model says of the same tokens."""
    half = copy.deepcopy(shared).to(dtype)
    prompt, mask = ids(3, 9), torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 9])
    images = pixels(batch=3)
    with torch.no_grad():
        found = search(half, half.encode(half.encode_image(images), prompt, mask), Decoding(3, 16))
        for row, hypothesis in enumerate(found):
            labels, one = torch.tensor([hypothesis.token_ids]), slice(row, row + 1)
            features, real = shared.encode_image(images[one]), prompt[one, : int(mask[row].sum())]
            logp = shared.log_likelihood(features, real, None, labels)
            logp -= shared.log_likelihood(features, real, None, labels[:, :1])
            assert hypothesis.token_logp.isfinite().all() and hypothesis.token_logp.dtype == torch.float32
            mean = hypothesis.token_logp[1:].mean().item()
            assert mean == pytest.approx(logp.item() / (len(hypothesis.token_ids) - 1), abs=0.05)


@pytest.mark.parametrize("dtype", HALVES)
def test_training_in_half_precision(dtype: torch.dtype) -> None:
    model = made().to(dtype)
    prompt, labels = ids(2, 5), ids(2, 6)
    loss = model.loss(model.encode_image(images := pixels()), prompt, None, labels)
    loss.backward()
    reference = made()
    expected = reference.loss(reference.encode_image(images), prompt, None, labels)
    assert loss.dtype == torch.float32  # its softmax, too
    assert loss.item() == pytest.approx(expected.item(), abs=0.05)
    assert all(p.grad is not None and p.grad.dtype == dtype and p.grad.isfinite().all() for p in model.parameters())


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (32, 96), (33, 65), (1, 1), (7, 130), (800, 16), (16, 800)])
def test_any_size_of_image(size: tuple[int, int], shared: Florence2) -> None:
    """Stride 16; tables for 50 x 50."""
    height, width = (math.ceil(side / NANO.vision.stride) for side in size)
    images = pixels(*size)
    with torch.no_grad():
        features = shared.encode_image(images)
        assert features.shape == (2, 1 + height * width, NANO.text.d_model)
        assert shared(images, ids(2, 3)).isfinite().all()
        torch.testing.assert_close(shared.encode_image(images[1:]), features[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(801, 16), (16, 801), (1600, 1600)])
def test_images_beyond_the_position_tables(size: tuple[int, int], shared: Florence2) -> None:
    height, width = (math.ceil(side / 16) for side in size)
    with torch.device("meta"):
        model = Florence2(NANO)
        with pytest.raises(ImageError, match=f"at most 50 x 50 image tokens, got {width} x {height}: use smaller"):
            model.encode_image(torch.empty(1, 3, *size))


@pytest.mark.parametrize("size", [(64, 64), (96, 40), (33, 65)])
def test_pyramid(size: tuple[int, int], shared: Florence2) -> None:
    images = pixels(*size)
    with torch.no_grad():
        maps = shared.encode_image(images, pyramid=True)
        for strides, channels, x in zip((4, 8, 16, 16), NANO.vision.embed_dim, maps, strict=True):
            assert x.shape == (2, channels, *(math.ceil(side / strides) for side in size))
        last = shared.multi_modal_projector(maps[-1].permute(0, 2, 3, 1))
        assert torch.equal(last, shared.encode_image(images))


def test_strides_of_the_released_models() -> None:
    with torch.device("meta"):
        model = Florence2(Florence2Config.preset("base"))
        images = torch.empty(1, 3, 768, 768)
        maps = model.encode_image(images, pyramid=True)
        assert [tuple(x.shape) for x in maps] == [
            (1, 128, 192, 192),
            (1, 256, 96, 96),
            (1, 512, 48, 48),
            (1, 1024, 24, 24),
        ]
        assert model.encode_image(images).shape == (1, 577, 768)


def test_rows_and_columns_are_told_apart(shared: Florence2) -> None:
    images = pixels()
    with torch.no_grad():
        features, turned = shared.encode_image(images), shared.encode_image(images.transpose(2, 3))
    assert (features[:, 1:].unflatten(1, (4, 4)) - turned[:, 1:].unflatten(1, (4, 4)).transpose(1, 2)).abs().max() > 0.1


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_image_and_prompt_together_fill_the_positions() -> None:
    model = made(max_position_embeddings=30)  # 17 of them for 64 px
    with torch.no_grad():
        assert model(pixels(), ids(2, 13), None, ids(2, 30)).shape == (2, 30, model.config.text.vocab_size)
        with pytest.raises(PromptError, match="at most 30 tokens in a sequence, got 31"):
            model(pixels(), ids(2, 14))
        with pytest.raises(PromptError, match="at most 30 tokens in a sequence, got 31"):
            model(pixels(), ids(2, 3), None, ids(2, 31))


def test_what_is_masked_is_not_read(shared: Florence2) -> None:
    images, prompt = pixels(), ids(2, 9)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    with torch.no_grad():
        logits = shared(images, prompt, mask)
        alone = shared(images[1:], prompt[1:, :5])
        other = shared(images, prompt.masked_fill(mask == 0, 77), mask)
        assert torch.equal(logits, other)
        torch.testing.assert_close(logits[1:], alone, atol=1e-4, rtol=1e-4)
        assert (shared(images, prompt)[1:] - alone).abs().max() > 0.01
        assert logits.shape == (2, 1, shared.config.text.vocab_size)  # of the start token


def test_no_position_sees_those_after_it(shared: Florence2) -> None:
    images, prompt, answer = pixels(), ids(2, 4), ids(2, 8)
    with torch.no_grad():
        logits = shared(images, prompt, None, answer)
        answer[:, 5:] = 9
        changed = (shared(images, prompt, None, answer) - logits).abs().amax(dim=(0, 2))
    assert (changed[:5] < 1e-5).all() and (changed[5:] > 0.01).all()


# --- losses ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_counted_labels(shared: Florence2) -> None:
    features, prompt, labels = shared.encode_image(pixels()), ids(2, 5), ids(2, 7)
    labels[0, 4:], labels[1, 2] = -100, -100
    start = torch.full((2, 1), shared.config.text.decoder_start_token_id)
    before = torch.cat([start, labels[:, :-1]], dim=1)
    before[before == -100] = shared.config.text.pad_token_id
    logits = shared.head(shared.decode(shared.encode(features, prompt), before))
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    loss = shared.loss(features, prompt, None, labels)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    labels[0, 4] = 9
    assert (shared.loss(features, prompt, None, labels) - loss).abs() > 1e-3


def test_padding_changes_no_loss(shared: Florence2) -> None:
    features, prompt, labels = shared.encode_image(pixels()), ids(2, 5), ids(2, 7)
    padded = F.pad(labels, (0, 9), value=-100)
    for measure in (shared.loss, shared.log_likelihood):
        expected = measure(features, prompt, None, labels)
        torch.testing.assert_close(measure(features, prompt, None, padded), expected, atol=1e-4, rtol=1e-5)


def test_rows_of_one_image_share_it() -> None:
    """Several tasks of an image from one encoding: the same loss and gradients as from one for each."""
    rows = torch.tensor([0, 1, 1, 0, 1])
    images, prompt, labels = pixels(), ids(5, 5), ids(5, 6)
    together, apart = made(), made()
    loss = together.loss(together.encode_image(images)[rows], prompt, None, labels)
    expected = apart.loss(apart.encode_image(images[rows]), prompt, None, labels)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.backward()
    assert_same_gradients(together, apart, atol=1e-5)


def assert_same_gradients(left: nn.Module, right: nn.Module, atol: float) -> None:
    for (name, one), other in zip(left.named_parameters(), right.parameters(), strict=True):
        assert one.grad is not None, name
        torch.testing.assert_close(one.grad, other.grad, atol=atol, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


def test_log_likelihood(shared: Florence2) -> None:
    """Additive: of labels it is the sum over their tokens, each given those before it. A row has its own."""
    features, prompt, labels = shared.encode_image(pixels()), ids(2, 5), ids(2, 6)
    mask = torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    with torch.no_grad():
        logp = [shared.log_likelihood(features, prompt, mask, labels[:, :n]) for n in range(1, 7)]
        before = shared.shifted(labels)
        tokens = shared.head(shared.decode(shared.encode(features, prompt, mask), before)).log_softmax(-1)
        steps = tokens.gather(2, labels[..., None])[..., 0]
        for n, total in enumerate(logp):
            assert total.shape == (2,) and (total < 0).all()
            torch.testing.assert_close(total, steps[:, : n + 1].sum(1), atol=1e-4, rtol=1e-5)
        ragged = labels.clone()
        ragged[1, 4:] = -100
        both = shared.log_likelihood(features, prompt, mask, ragged)
        torch.testing.assert_close(both, torch.stack([logp[5][0], logp[3][1]]), atol=1e-4, rtol=1e-5)
        mean = -both.sum() / (ragged != -100).sum()
        torch.testing.assert_close(shared.loss(features, prompt, mask, ragged), mean, atol=1e-5, rtol=1e-5)
        nothing = shared.log_likelihood(features, prompt, mask, torch.full_like(labels, -100))
        assert nothing.tolist() == [0, 0]


def test_a_new_model_knows_nothing() -> None:
    model = Florence2(NANO)
    loss = model.loss(model.encode_image(pixels()), ids(2, 5), None, ids(2, 9))
    assert loss.item() == pytest.approx(math.log(NANO.text.vocab_size), abs=0.2)
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms(model))
    weights = model.language_model.decoder.layers[0].fc1.weight
    assert weights.std().item() == pytest.approx(NANO.text.init_std, rel=0.02)
    assert (model.language_model.shared.weight[NANO.text.pad_token_id] == 0).all()
    assert not any(module.training for module in model.modules())


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_gradient_checkpointing(drop: float) -> None:
    """The same loss and gradients, dropout and dropped paths included, from layers that run twice."""
    config = replace(NANO, vision=replace(NANO.vision, drop_path_rate=drop))
    images, prompt, labels = pixels(), ids(2, 5), ids(2, 6)
    mask = torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    models, losses, runs = [], [], []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        model = Florence2(config).train()
        model.checkpoint_gradients(checkpointing)
        runs.append(count := [])
        layers = [model.vision_tower.blocks[2][1], *model.language_model.encoder.layers]
        for layer in (*layers, *model.language_model.decoder.layers):
            layer.register_forward_pre_hook(lambda layer, inputs, count=count: count.append(layer))
        torch.manual_seed(4)
        losses.append(model.loss(model.encode_image(images), prompt, mask, labels))
        losses[-1].backward()
        models.append(model)
    assert torch.equal(*losses)
    assert len(runs[1]) == 2 * len(runs[0]) == 2 * (1 + 2 + 3)
    assert_same_gradients(*models, atol=1e-7)
    models[1].eval()
    runs[1].clear()
    models[1].loss(models[1].encode_image(images), prompt, mask, labels).backward()
    assert len(runs[1]) == 1 + 2 + 3  # in eval mode nothing is kept or run twice
    models[1].train().checkpoint_gradients(False)
    models[1].loss(models[1].encode_image(images), prompt, mask, labels).backward()
    assert len(runs[1]) == 2 * (1 + 2 + 3)


def test_dropout_is_active_in_training_alone(shared: Florence2) -> None:
    """nano has none."""
    text = replace(shared.config.text, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1)
    model = Florence2(replace(shared.config, text=text, vision=replace(shared.config.vision, drop_path_rate=0.1)))
    model.load_state_dict(shared.state_dict())
    images, prompt, answer = pixels(), ids(2, 5), ids(2, 6)
    with torch.no_grad():
        assert torch.equal(model(images, prompt, None, answer), model(images, prompt, None, answer))
        model.language_model.train()
        assert torch.equal(model.encode_image(images), model.encode_image(images))
        first, second = model(images, prompt, None, answer), model(images, prompt, None, answer)
        assert (first - second).abs().max() > 0.1
        model.train()
        assert (model.encode_image(images) - model.encode_image(images)).abs().max() > 0.01
        model.eval()
        assert torch.equal(model(images, prompt, None, answer), shared(images, prompt, None, answer))


@pytest.mark.parametrize("probability", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_works_by_itself(probability: str) -> None:
    none = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
    model = made(**none)
    memory = torch.randn(2, 9, NANO.text.d_model)
    with torch.no_grad():
        for settings, random in ((none, False), (none | {probability: 0.3}, True)):
            part = made(**settings).language_model.train()
            embedded = part.embed(ids(2, 5))
            for run in (lambda: part.encoder(embedded, None), lambda: part.decoder(embedded, memory, None)):  # noqa: B023
                assert torch.equal(run(), run()) != random
    assert not model.training


@pytest.mark.parametrize("preset", ["nano", "base"])
def test_rates_of_drop_path_are_those_of_transformers(preset: str) -> None:
    from transformers import Florence2Config as NativeConfig
    from transformers import Florence2ForConditionalGeneration
    from transformers.models.florence2.modeling_florence2 import Florence2DropPath

    config = Florence2Config.preset(preset)  # type: ignore[arg-type]
    config = replace(config, vision=replace(config.vision, drop_path_rate=0.3))
    with torch.device("meta"):
        tower = Florence2(config).vision_tower
        theirs = Florence2ForConditionalGeneration(NativeConfig(**config.to_dict())).model.vision_tower
    ours = {name: module.rate for name, module in tower.named_modules() if isinstance(module, DropPath)}
    native = {
        name.replace("drop_path1", "drop"): module.drop_prob
        for name, module in theirs.named_modules()
        if isinstance(module, Florence2DropPath) and name.endswith("drop_path1")
    }
    assert {name: rate for name, rate in ours.items() if rate} == pytest.approx(native)
    rates = list(ours.values())
    assert rates == pytest.approx([0.3 * k / (len(rates) - 1) for k in range(len(rates))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_drop_path(dtype: torch.dtype) -> None:
    x = torch.ones(8192, 2, 3, 4, dtype=dtype)
    drop = DropPath(0.25)
    assert drop.eval()(x) is x
    assert DropPath(0.0).train()(x) is x
    dropped = drop.train()(x)
    images = dropped.flatten(1)
    assert dropped.dtype == dtype and (images == images[:, :1]).all()  # whole images
    assert set(images[:, 0].tolist()) == {0, torch.tensor(1 / 0.75, dtype=dtype).item()}
    share = (images[:, 0] > 0).float().mean().item()
    assert share == pytest.approx(0.75, abs=5 * math.sqrt(0.25 * 0.75 / 8192))
    assert dropped.float().mean().item() == pytest.approx(1, abs=0.04)


# --- parameters ------------------------------------------------------------------------------------------------------


def test_embedding_and_head_are_one_parameter() -> None:
    model = made()
    rows = [name for name, p in model.named_parameters() if p.shape[0] == model.config.text.vocab_size]
    assert rows == ["language_model.shared.weight"]
    assert [name for name in model.state_dict() if name.endswith(("lm_head.weight", "embed_tokens.weight"))] == []
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = [p for group in optimiser.param_groups for p in group["params"]]
    assert len(seen) == len({id(p) for p in seen}) and sum(p is model.language_model.shared.weight for p in seen) == 1
    token, hidden = torch.tensor([[9]]), torch.randn(NANO.text.d_model)
    embedded, logit = model.language_model.embed(token), model.head(hidden)[9]
    model.loss(model.encode_image(pixels()), ids(2, 5), None, ids(2, 6).index_fill(1, torch.tensor([2]), 9)).backward()
    optimiser.step()
    assert not torch.equal(model.language_model.embed(token), embedded)
    assert not torch.equal(model.head(hidden)[9], logit)


def test_names_are_those_of_transformers() -> None:
    from transformers import Florence2Config as NativeConfig
    from transformers import Florence2ForConditionalGeneration

    with torch.device("meta"):
        ours = Florence2(NANO)
        theirs = Florence2ForConditionalGeneration(NativeConfig(**NANO.to_dict()))
    shapes = {f"model.{name}": tensor.shape for name, tensor in ours.state_dict().items()}
    tied = {"lm_head.weight", *(f"model.language_model.{side}.embed_tokens.weight" for side in ("encoder", "decoder"))}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items() if name not in tied}
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_saved_and_loaded(dtype: torch.dtype, shared: Florence2, tmp_path: Path) -> None:
    shared.save_pretrained(tmp_path)
    model = Florence2.from_pretrained(tmp_path, dtype=dtype)
    assert model.config == shared.config and model.dtype == dtype and model.device == shared.device
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
    assert all(torch.equal(tensor, shared.state_dict()[name].to(dtype)) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and not p.is_meta for p in model.parameters())
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        images, prompt = pixels(), ids(2, 4)
        assert torch.equal(model(images, prompt), copy.deepcopy(shared).to(dtype)(images, prompt))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(copied: Any, shared: Florence2) -> None:
    with torch.no_grad():
        images, prompt = pixels(), ids(2, 4)
        expected = shared(images, prompt)
        model = copied(shared)
        assert model.config == shared.config and torch.equal(model(images, prompt), expected)
        model.language_model.shared.weight += 1  # its own
        assert torch.equal(shared(images, prompt), expected)
        assert not torch.equal(model(images, prompt), expected)


def test_attention_modules_are_where_the_tests_of_half_precision_look(shared: Florence2) -> None:
    kinds = [type(module) for module in shared.modules()]
    assert kinds.count(WindowAttention) == kinds.count(ChannelAttention) == sum(NANO.vision.depths)
    assert kinds.count(Attention) == NANO.text.encoder_layers + 2 * NANO.text.decoder_layers
