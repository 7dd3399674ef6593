"""Checkpoints in every form, made by transformers, laid out as Microsoft's, written by us; and what must be refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import Florence2Config as NativeConfig
from transformers import Florence2ForConditionalGeneration, GenerationConfig

from florence2.checkpoint import SHARED, SINUSOIDS, load_into, read_config, read_state, write
from florence2.config import Florence2Config, TextConfig, VisionConfig
from florence2.errors import CheckpointError

# One block a stage and one layer a side; the projection is not square, but see `test_a_square_projection`.
TINY = Florence2Config(
    VisionConfig(
        depths=(1, 1, 1, 1),
        embed_dim=(8, 8, 16, 24),
        num_heads=(1, 2, 2, 2),
        num_groups=(2, 1, 2, 2),
        window_size=4,
        projection_dim=16,
        max_temporal_embeddings=5,
        max_position_embeddings=7,
    ),
    TextConfig(
        vocab_size=64,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=40,
        max_position_embeddings=30,
    ),
    image_token_id=62,
)
# Microsoft's modules and ours, written out; each has a weight and a bias. {s} is a stage.
MODULES = """
vision_tower.convs.{s}.proj                                    vision_tower.convs.{s}.conv
vision_tower.convs.{s}.norm                                    vision_tower.convs.{s}.norm
vision_tower.blocks.{s}.0.spatial_block.conv1.fn.dw            vision_tower.blocks.{s}.0.spatial_block.conv1
vision_tower.blocks.{s}.0.spatial_block.window_attn.norm       vision_tower.blocks.{s}.0.spatial_block.norm1
vision_tower.blocks.{s}.0.spatial_block.window_attn.fn.qkv     vision_tower.blocks.{s}.0.spatial_block.window_attn.qkv
vision_tower.blocks.{s}.0.spatial_block.window_attn.fn.proj    vision_tower.blocks.{s}.0.spatial_block.window_attn.proj
vision_tower.blocks.{s}.0.spatial_block.conv2.fn.dw            vision_tower.blocks.{s}.0.spatial_block.conv2
vision_tower.blocks.{s}.0.spatial_block.ffn.norm               vision_tower.blocks.{s}.0.spatial_block.norm2
vision_tower.blocks.{s}.0.spatial_block.ffn.fn.net.fc1         vision_tower.blocks.{s}.0.spatial_block.ffn.fc1
vision_tower.blocks.{s}.0.spatial_block.ffn.fn.net.fc2         vision_tower.blocks.{s}.0.spatial_block.ffn.fc2
vision_tower.blocks.{s}.0.channel_block.conv1.fn.dw            vision_tower.blocks.{s}.0.channel_block.conv1
vision_tower.blocks.{s}.0.channel_block.channel_attn.norm      vision_tower.blocks.{s}.0.channel_block.norm1
vision_tower.blocks.{s}.0.channel_block.channel_attn.fn.qkv    vision_tower.blocks.{s}.0.channel_block.channel_attn.qkv
vision_tower.blocks.{s}.0.channel_block.channel_attn.fn.proj   vision_tower.blocks.{s}.0.channel_block.channel_attn.proj
vision_tower.blocks.{s}.0.channel_block.conv2.fn.dw            vision_tower.blocks.{s}.0.channel_block.conv2
vision_tower.blocks.{s}.0.channel_block.ffn.norm               vision_tower.blocks.{s}.0.channel_block.norm2
vision_tower.blocks.{s}.0.channel_block.ffn.fn.net.fc1         vision_tower.blocks.{s}.0.channel_block.ffn.fc1
vision_tower.blocks.{s}.0.channel_block.ffn.fn.net.fc2         vision_tower.blocks.{s}.0.channel_block.ffn.fc2
image_proj_norm                                                 multi_modal_projector.image_proj_norm
language_model.model.encoder.layernorm_embedding                language_model.encoder.layernorm_embedding
language_model.model.encoder.layers.0.self_attn.k_proj          language_model.encoder.layers.0.self_attn.k_proj
language_model.model.encoder.layers.0.self_attn.v_proj          language_model.encoder.layers.0.self_attn.v_proj
language_model.model.encoder.layers.0.self_attn.q_proj          language_model.encoder.layers.0.self_attn.q_proj
language_model.model.encoder.layers.0.self_attn.out_proj        language_model.encoder.layers.0.self_attn.out_proj
language_model.model.encoder.layers.0.self_attn_layer_norm      language_model.encoder.layers.0.self_attn_layer_norm
language_model.model.encoder.layers.0.fc1                       language_model.encoder.layers.0.fc1
language_model.model.encoder.layers.0.fc2                       language_model.encoder.layers.0.fc2
language_model.model.encoder.layers.0.final_layer_norm          language_model.encoder.layers.0.final_layer_norm
language_model.model.decoder.layernorm_embedding                language_model.decoder.layernorm_embedding
language_model.model.decoder.layers.0.self_attn.k_proj          language_model.decoder.layers.0.self_attn.k_proj
language_model.model.decoder.layers.0.self_attn.v_proj          language_model.decoder.layers.0.self_attn.v_proj
language_model.model.decoder.layers.0.self_attn.q_proj          language_model.decoder.layers.0.self_attn.q_proj
language_model.model.decoder.layers.0.self_attn.out_proj        language_model.decoder.layers.0.self_attn.out_proj
language_model.model.decoder.layers.0.self_attn_layer_norm      language_model.decoder.layers.0.self_attn_layer_norm
language_model.model.decoder.layers.0.encoder_attn.k_proj       language_model.decoder.layers.0.encoder_attn.k_proj
language_model.model.decoder.layers.0.encoder_attn.v_proj       language_model.decoder.layers.0.encoder_attn.v_proj
language_model.model.decoder.layers.0.encoder_attn.q_proj       language_model.decoder.layers.0.encoder_attn.q_proj
language_model.model.decoder.layers.0.encoder_attn.out_proj     language_model.decoder.layers.0.encoder_attn.out_proj
language_model.model.decoder.layers.0.encoder_attn_layer_norm   language_model.decoder.layers.0.encoder_attn_layer_norm
language_model.model.decoder.layers.0.fc1                       language_model.decoder.layers.0.fc1
language_model.model.decoder.layers.0.fc2                       language_model.decoder.layers.0.fc2
language_model.model.decoder.layers.0.final_layer_norm          language_model.decoder.layers.0.final_layer_norm
"""
TENSORS = {
    "image_projection": "multi_modal_projector.image_projection.weight",  # transposed
    "image_pos_embed.row_embeddings.weight": "multi_modal_projector.image_position_embed.row_embeddings.weight",
    "image_pos_embed.column_embeddings.weight": "multi_modal_projector.image_position_embed.column_embeddings.weight",
    "visual_temporal_embed.pos_idx_to_embed": "multi_modal_projector.visual_temporal_embed.pos_idx_to_embed",
    "language_model.model.shared.weight": "language_model.shared.weight",
    "language_model.model.encoder.embed_positions.weight": "language_model.encoder.embed_positions.weight",
    "language_model.model.decoder.embed_positions.weight": "language_model.decoder.embed_positions.weight",
}
MICROSOFT_COPIES = (
    "language_model.model.encoder.embed_tokens.weight",
    "language_model.model.decoder.embed_tokens.weight",
    "language_model.lm_head.weight",
)
# As Microsoft's config.json has it, sizes apart.
MICROSOFT_CONFIG: dict[str, Any] = {
    "architectures": ["Florence2ForConditionalGeneration"],
    "auto_map": {"AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration"},
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "ignore_index": -100,
    "model_type": "florence2",
    "projection_dim": 16,
    "text_config": {
        "activation_dropout": 0.1,
        "activation_function": "gelu",
        "add_final_layer_norm": False,
        "attention_dropout": 0.1,
        "bos_token_id": 0,
        "d_model": 16,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 40,
        "decoder_layers": 1,
        "decoder_start_token_id": 2,
        "dropout": 0.1,
        "early_stopping": True,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "encoder_layers": 1,
        "eos_token_id": 2,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "init_std": 0.02,
        "max_position_embeddings": 30,
        "model_type": "florence2_language",
        "no_repeat_ngram_size": 3,
        "num_beams": 3,
        "pad_token_id": 1,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "vocab_size": 64,
    },
    "torch_dtype": "float16",
    "vision_config": {
        "model_type": "davit",
        "drop_path_rate": 0.1,
        "patch_size": [7, 3, 3, 3],
        "patch_stride": [4, 2, 2, 2],
        "patch_padding": [3, 1, 1, 1],
        "patch_prenorm": [False, True, True, True],
        "enable_checkpoint": False,
        "dim_embed": [8, 8, 16, 24],
        "num_heads": [1, 2, 2, 2],
        "num_groups": [2, 1, 2, 2],
        "depths": [1, 1, 1, 1],
        "window_size": 4,
        "projection_dim": 16,
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 5},
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 7},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    },
    "vocab_size": 64,
}
State = dict[str, Tensor]


def native_model(config: Florence2Config = TINY) -> Florence2ForConditionalGeneration:
    """transformers' own, no two tensors of it alike (fresh ones have biases and norms that are)."""
    model = Florence2ForConditionalGeneration(NativeConfig(**config.to_dict()))
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def with_our_names(config: Florence2Config = TINY, device: str = "cpu") -> torch.nn.Module:
    """A model with our parameter names, to load into: transformers' inner one, with one name for the embedding."""
    with torch.device(device):
        model: torch.nn.Module = Florence2ForConditionalGeneration(NativeConfig(**config.to_dict())).model
    del model.language_model.encoder.embed_tokens, model.language_model.decoder.embed_tokens
    return model


def state_of(native: Florence2ForConditionalGeneration) -> State:
    """In our names; independent of the code under test."""
    state = {key.removeprefix("model."): tensor for key, tensor in native.state_dict().items()}
    return {key: tensor for key, tensor in state.items() if "embed_tokens" not in key and "lm_head" not in key}


def microsoft(state: Mapping[str, Tensor], *copies: str) -> State:
    """Our state under Microsoft's names, with the given names of the embedding besides or in place of `shared`."""
    table = dict(TENSORS)
    for line in MODULES.split("\n")[1:-1]:
        theirs, our = line.split()
        for s in range(4) if "{s}" in line else (0,):
            for kind in ("weight", "bias"):
                table[f"{theirs.format(s=s)}.{kind}"] = f"{our.format(s=s)}.{kind}"
    assert sorted(table.values()) == sorted(state), "the table has every tensor, once"
    laid_out = {theirs: state[our].clone() for theirs, our in table.items()}
    laid_out["image_projection"] = laid_out["image_projection"].T.contiguous()
    return laid_out | {copy: state[SHARED].clone() for copy in copies}


def same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name


def config_file(folder: Path, data: object = MICROSOFT_CONFIG) -> None:
    (folder / "config.json").write_text(json.dumps(data))


@pytest.fixture(scope="module")
def native() -> Florence2ForConditionalGeneration:
    return native_model()


@pytest.fixture(scope="module")
def state(native: Florence2ForConditionalGeneration) -> State:
    return state_of(native)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config_file(tmp_path)
    return tmp_path


# What loads


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_native(
    native: Florence2ForConditionalGeneration, state: State, tmp_path: Path, shard: str, device: str
) -> None:
    native.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    assert read_config(tmp_path) == TINY
    model = with_our_names(device=device)
    load_into(model, tmp_path)
    same(model.state_dict(), state)
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in model.parameters())


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize("copies", [(), MICROSOFT_COPIES[2:], MICROSOFT_COPIES])
def test_microsoft(state: State, folder: Path, pickled: bool, copies: tuple[str, ...]) -> None:
    laid_out = microsoft(state, *copies) | {"language_model.final_logits_bias": torch.zeros(1, 64)}
    if pickled:
        torch.save(laid_out, folder / "pytorch_model.bin")
    else:
        save_file(laid_out, folder / "model.safetensors")
    assert read_config(folder) == replace(TINY, image_token_id=None)
    model = with_our_names()
    load_into(model, folder)
    same(model.state_dict(), state)


@pytest.mark.parametrize("name", MICROSOFT_COPIES)
def test_the_embedding_under_any_of_its_names(state: State, folder: Path, name: str) -> None:
    laid_out = microsoft(state, name)
    del laid_out["language_model.model.shared.weight"]
    save_file(laid_out, folder / "model.safetensors")
    same(read_state(folder), state)


def test_a_square_projection(tmp_path: Path) -> None:
    """The name says whether to transpose, not the shape."""
    square = replace(TINY, vision=replace(TINY.vision, projection_dim=24), text=replace(TINY.text, d_model=24))
    state = state_of(native_model(square))
    save_file(microsoft(state), tmp_path / "model.safetensors")
    same(read_state(tmp_path), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_of_the_file_is_kept(state: State, folder: Path, dtype: torch.dtype) -> None:
    half = {name: tensor.to(dtype) for name, tensor in state.items()}
    write(half, TINY, folder)
    model = with_our_names()
    load_into(model, folder)
    same(model.state_dict(), half)
    assert Florence2ForConditionalGeneration.from_pretrained(folder).dtype is dtype


def test_sinusoids_may_be_absent_where_the_model_has_computed_them(state: State, folder: Path) -> None:
    laid_out = microsoft(state)
    del laid_out["visual_temporal_embed.pos_idx_to_embed"]
    save_file(laid_out, folder / "model.safetensors")
    model = with_our_names()
    load_into(model, folder)
    same(model.state_dict(), state)
    with pytest.raises(CheckpointError, match=f"1 missing: {SINUSOIDS}"):
        load_into(with_our_names(device="meta"), folder)


def test_a_model_without_a_buffer_for_sinusoids(state: State, folder: Path) -> None:
    save_file(microsoft(state), folder / "model.safetensors")
    model = with_our_names()
    del model.multi_modal_projector.visual_temporal_embed
    load_into(model, folder)
    same(model.state_dict(), {name: tensor for name, tensor in state.items() if name != SINUSOIDS})


# What we write


def test_transformers_loads_what_we_write(
    native: Florence2ForConditionalGeneration, state: State, tmp_path: Path
) -> None:
    write(state, TINY, tmp_path / "new" / "folder")
    loaded, report = Florence2ForConditionalGeneration.from_pretrained(
        tmp_path / "new/folder", output_loading_info=True
    )
    assert not any(report.values()), report
    same(loaded.state_dict(), native.state_dict())
    assert loaded.config.text_config.vocab_size == 64
    settings = GenerationConfig.from_pretrained(tmp_path / "new/folder")
    assert (settings.forced_bos_token_id, settings.forced_eos_token_id, settings.decoder_start_token_id) == (0, 2, 2)
    assert (settings.num_beams, settings.no_repeat_ngram_size, settings.early_stopping) == (3, 3, True)


def test_round_trip(state: State, tmp_path: Path) -> None:
    unpacked = {name: tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor for name, tensor in state.items()}
    write(unpacked, TINY, tmp_path)
    assert read_config(tmp_path) == TINY
    same(read_state(tmp_path), state)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1, "who reads one may read all"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


def test_a_model_of_microsoft_gets_an_image_token(state: State, tmp_path: Path) -> None:
    """transformers uses what we write unchanged, and its prompts hold <image>."""
    write(state, replace(TINY, image_token_id=None), tmp_path)
    config = read_config(tmp_path)
    assert (config.image_token_id, config.text.vocab_size) == (64, 128)
    loaded = Florence2ForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight[:64], state[SHARED])
    prompt = torch.tensor([[64] * 5 + [0, 7, 8, 2]])  # a map of 2 x 2, and its mean
    logits = loaded(
        input_ids=prompt, pixel_values=torch.rand(1, 3, 64, 64), decoder_input_ids=torch.tensor([[2]])
    ).logits
    assert logits[..., 64:].max() < logits[..., :64].max(), "rows of no token never win"


def test_weights_in_use_can_be_written_over(state: State, tmp_path: Path) -> None:
    write(state, TINY, tmp_path)
    loaded = read_state(tmp_path)
    write({name: tensor + 1 for name, tensor in state.items()}, TINY, tmp_path)
    same(loaded, state)
    write(loaded, TINY, tmp_path)
    same(read_state(tmp_path), state)


def test_a_save_that_fails_leaves_the_old_files(state: State, tmp_path: Path) -> None:
    write(state, TINY, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a full disk
    try:
        with pytest.raises(CheckpointError, match=r"could not be written .* what was there before is whole"):
            write({name: tensor + 1 for name, tensor in state.items()}, TINY, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def save_forever(states: list[State], folder: Path) -> None:
    while True:
        for state in states:
            write(state, TINY, folder)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2])
def test_a_save_that_is_killed_leaves_whole_files(state: State, tmp_path: Path, delay: float) -> None:
    shapes = {name: tensor.shape for name, tensor in state.items()} | {
        SHARED: (1_000_000, 8)
    }  # 32 MB: the save takes a while
    states = [{name: torch.full(shape, fill) for name, shape in shapes.items()} for fill in (1.0, 2.0, 3.0)]
    write(states[0], TINY, tmp_path)
    saving = multiprocessing.get_context("fork").Process(target=save_forever, args=(states[1:], tmp_path))
    saving.start()
    while not list(tmp_path.glob(".unfinished-*")):
        time.sleep(0.001)
    time.sleep(delay)
    saving.kill()
    saving.join()
    assert read_config(tmp_path) == TINY
    found = read_state(tmp_path)
    assert found.keys() == state.keys()
    assert len({float(value) for tensor in found.values() for value in tensor.aminmax()}) == 1, "all of one save"


# What must be refused


def refused(folder: Path, *words: str) -> None:
    """Loading fails, says each of the words, and names a file or the folder."""
    model = with_our_names()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        read_config(folder)
        load_into(model, folder)
    assert str(caught.value).startswith(str(folder))
    for word in words:
        assert word in str(caught.value)
    same(model.state_dict(), before)


def weights(folder: Path, state: State) -> Path:
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


def shards(folder: Path, state: State, **weight_map: Any) -> None:
    """An index that has all of the state in one.safetensors, and what the test adds to it."""
    save_file(state, folder / "one.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, "one.safetensors") | weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"model_type": "bart", "vocab_size": 64}, ["florence2", "'bart'"]),
        ({"model_type": "davit"}, ["florence2", "'davit'"]),
        ({"model_type": "llava", "vision_config": {}, "text_config": {}}, ["florence2", "'llava'"]),
        ({}, ["florence2", "None"]),
        ([1, 2], ["expected a JSON object, got list"]),
        (MICROSOFT_CONFIG | {"vision_config": 5}, ["not the configuration of a Florence-2"]),
        (MICROSOFT_CONFIG | {"vision_config": {"dim_embed": [8]}}, ["image_pos_embed"]),
        (MICROSOFT_CONFIG | {"text_config": {"d_model": "16"}}, ["not the configuration of a Florence-2"]),
        (MICROSOFT_CONFIG | {"text_config": {"encoder_attention_heads": 0}}, ["not the configuration of a Florence-2"]),
        (MICROSOFT_CONFIG | {"text_config": {"d_model": 24}}, ["projection_dim", "24"]),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, data: object, words: list[str]) -> None:
    config_file(tmp_path, data)
    refused(tmp_path, "config.json", *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["No such file"]),
        (b"", ["not readable as JSON", "download or copy it again"]),
        (b'{"model_type": "flor', ["not readable as JSON"]),
        (b"\xff\xfe\x00", ["not readable as JSON"]),
        (b"[" * 100_000, ["not readable as JSON"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", ["git lfs pull"]),
    ],
)
def test_a_config_that_is_damaged(tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    refused(tmp_path, "config.json", *words)


def test_no_weights(folder: Path) -> None:
    refused(folder, "model.safetensors, model.safetensors.index.json, pytorch_model.bin", "none is there")
    (folder / "model.safetensors").mkdir()
    refused(folder, "model.safetensors", "Is a directory")


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"])
def test_the_pointer_of_git_lfs(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 463221266\n")
    refused(folder, name, "git-lfs", "git lfs pull")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["model.shared.weight", "model.encoder.layers.0.fc1.weight", "lm_head.weight"], "model.encoder.layers.0.fc1"),
        (
            ["convs.0.proj.weight", "blocks.0.0.spatial_block.ffn.norm.weight"],
            "blocks.0.0.spatial_block.ffn.norm.weight",
        ),
        (["model.vision_tower.vision_model.post_layernorm.bias"], "vision_tower.vision_model.post_layernorm.bias"),
        ([], "none"),
    ],
    ids=["bart", "davit", "llava", "empty"],
)
def test_another_architecture(folder: Path, keys: list[str], words: str) -> None:
    weights(folder, {key: torch.zeros(2) for key in keys})
    refused(folder, "another architecture; its tensors: " + words)


def test_missing_and_surplus(folder: Path, state: State) -> None:
    some = {name: tensor for name, tensor in state.items() if ".layers.0.fc1" not in name}
    weights(folder, some | {"vision_tower.head.weight": torch.zeros(2), "a\x1b[31m": torch.zeros(2)})
    first = "language_model.decoder.layers.0.fc1"
    refused(
        folder, f"expected {len(state)} tensors", f"4 missing: {first}.bias, {first}.weight, language_model.encoder"
    )
    refused(folder, ", ...; 2 surplus: 'a\\x1b[31m', vision_tower.head.weight")


def test_no_embedding(folder: Path, state: State) -> None:
    weights(folder, {name: tensor for name, tensor in state.items() if name != SHARED})
    refused(folder, f"1 missing: {SHARED}")


def test_another_size(folder: Path, state: State) -> None:
    weights(folder, state | {SHARED: torch.zeros(65, 16)})
    refused(folder, f"{SHARED}: expected shape [64, 16], got [65, 16]", "another configuration")


def test_a_projection_that_is_not_transposed(folder: Path, state: State) -> None:
    weights(folder, microsoft(state) | {"image_projection": torch.zeros(16, 24)})
    refused(folder, "image_projection.weight: expected shape [16, 24], got [24, 16]")


@pytest.mark.parametrize("name", MICROSOFT_COPIES)
def test_untied(folder: Path, state: State, name: str) -> None:
    laid_out = microsoft(state, *MICROSOFT_COPIES)
    laid_out[name][5, 7] += 1
    weights(folder, laid_out)
    refused(folder, "differs", SHARED, "untied")


def test_one_tensor_under_both_names(folder: Path, state: State) -> None:
    name = "vision_tower.convs.0.conv.bias"
    weights(folder, state | {"vision_tower.convs.0.proj.bias": state[name] + 1})
    refused(folder, "differs", name)


def test_a_bias_of_the_logits(folder: Path, state: State) -> None:
    weights(folder, state | {"language_model.final_logits_bias": torch.ones(1, 64)})
    refused(folder, "final_logits_bias is not zero")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float64, torch.float8_e4m3fn])
def test_other_numbers(folder: Path, state: State, dtype: torch.dtype) -> None:
    weights(folder, state | {SHARED: torch.zeros(64, 16).to(dtype)})
    refused(folder, "model.safetensors", "expected float32, float16 or bfloat16, got torch.", "not quantised")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("tensor", [torch.zeros(64, 16).to_sparse(), torch.zeros(64, 16, device="meta")])
def test_tensors_without_numbers(folder: Path, state: State, tensor: Tensor) -> None:
    torch.save(state | {SHARED: tensor}, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", SHARED)


@pytest.mark.parametrize("name", [SHARED, "language_model.final_logits_bias"])
def test_a_tensor_without_end(folder: Path, state: State, name: str) -> None:
    torch.save(state | {name: torch.zeros(1).expand(10**6, 10**7)}, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", name, "repeats")


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.9999])
@pytest.mark.parametrize("pickled", [True, False])
def test_truncated(folder: Path, state: State, share: float, pickled: bool) -> None:
    path = folder / ("pytorch_model.bin" if pickled else "model.safetensors")
    (torch.save if pickled else save_file)(state, path)
    os.truncate(path, int(path.stat().st_size * share))
    refused(folder, path.name, "not a whole", "download or copy it again")


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ({"x": "two.safetensors"}, ["two.safetensors", "2 files", "not there"]),
        ({"x": "../../x.safetensors"}, ["own folder", "../../x.safetensors"]),
        ({"x": "/etc/passwd"}, ["own folder", "/etc/passwd"]),
        ({"x": "sub/x.safetensors"}, ["own folder"]),
        ({"x": ".."}, ["own folder"]),
        ({"x": ""}, ["own folder"]),
        ({"x": "one.bin"}, ["own folder", "one.bin"]),
        ({"x": "\0.safetensors"}, ["'\\x00.safetensors'", "not there"]),
        ({"x": 5}, ["weight_map"]),
    ],
)
def test_an_index_of_other_files(folder: Path, state: State, added: dict[str, Any], words: list[str]) -> None:
    shards(folder, state, **added)
    refused(folder, "model.safetensors.index.json", *words)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', "{", "[]"])
def test_an_index_that_is_damaged(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    refused(folder, "model.safetensors.index.json")


def test_a_shard_may_be_a_link(folder: Path, state: State) -> None:
    """As in the hub's cache."""
    shards(folder, state)
    (folder / "blobs").mkdir()
    (folder / "one.safetensors").rename(folder / "blobs" / "f00d")
    (folder / "one.safetensors").symlink_to(folder / "blobs" / "f00d")
    same(read_state(folder), state)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_asks_for_more(folder: Path, state: State, tmp_path: Path) -> None:
    torch.save(state | {"x": Malicious(tmp_path / "made")}, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "posix.mkdir", "nothing of it was executed", "safetensors")
    assert not (tmp_path / "made").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "made").exists(), "it would have worked"


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([torch.zeros(2)], ["got list"]),
        ({"state_dict": {"x": torch.zeros(2)}, "epoch": 3}, ["got a dict with epoch, state_dict"]),
        ({5: torch.zeros(2)}, ["got a dict with 5"]),
    ],
)
def test_a_pickle_of_something_else(folder: Path, held: object, words: list[str]) -> None:
    torch.save(held, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "expected a dict of names and tensors alone", *words)


def test_a_bare_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": 1}, protocol=2))
    refused(folder, "pytorch_model.bin", "not a whole PyTorch file")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes]]:
    """Two small files that can be read, each in a folder of its own, and their bytes."""
    state = {"model.vision_tower.convs.0.norm.bias": torch.arange(4.0), "lm_head.weight": torch.ones(2, 2)}
    found = {}
    for name, save in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        path = tmp_path_factory.mktemp("whole") / name
        save(state, path)
        found[name] = path, path.read_bytes()
    return found


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(["model.safetensors", "pytorch_model.bin"]), data=st.data())
def test_damage_is_refused_or_harmless(whole: dict[str, tuple[Path, bytes]], name: str, data: st.DataObject) -> None:
    """Bytes changed or cut out anywhere: tensors, or a CheckpointError that names the file; never another error."""
    path, content = whole[name]
    damaged = bytearray(content)
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    start = data.draw(st.integers(0, len(content)))
    del damaged[start : start + data.draw(st.sampled_from([0, 0, 1, 8, 1000]))]
    path.write_bytes(damaged)
    try:
        for tensor in read_state(path.parent).values():
            tensor.sum()
    except CheckpointError as error:
        assert str(error).startswith(str(path))
