"""Sizes: the released ones, those that fit together, and JSON from strangers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.config import PRESETS, Florence2Config, TextConfig, VisionConfig
from florence2.errors import ConfigError
from florence2.model import Florence2

MICROSOFT_ROWS = 51289  # of its embedding, which isn't padded


def with_rows(config: Florence2Config, rows: int) -> Florence2Config:
    return replace(config, text=replace(config.text, vocab_size=rows), image_token_id=None)


def parameters(config: Florence2Config) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Florence2(config).parameters())


# As in microsoft/Florence-2-base, with what it says of other things left in.
MICROSOFT: dict[str, Any] = {
    "architectures": ["Florence2ForConditionalGeneration"],
    "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"},
    "bos_token_id": 2,
    "eos_token_id": 1,
    "ignore_index": -100,
    "is_encoder_decoder": True,
    "model_type": "florence2",
    "pad_token_id": 0,
    "projection_dim": 768,
    "text_config": {
        "_name_or_path": "",
        "activation_dropout": 0.1,
        "activation_function": "gelu",
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "attention_dropout": 0.1,
        "bos_token_id": 0,
        "d_model": 768,
        "decoder_attention_heads": 12,
        "decoder_ffn_dim": 3072,
        "decoder_layerdrop": 0.0,
        "decoder_layers": 6,
        "decoder_start_token_id": 2,
        "dropout": 0.1,
        "early_stopping": True,
        "encoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
        "encoder_layers": 6,
        "eos_token_id": 2,
        "id2label": {"0": "LABEL_0"},
        "init_std": 0.02,
        "is_encoder_decoder": True,
        "max_position_embeddings": 1024,
        "model_type": "",
        "pad_token_id": 1,
        "scale_embedding": False,
        "vocab_size": MICROSOFT_ROWS,
    },
    "vision_config": {
        "model_type": "davit",
        "drop_path_rate": 0.1,
        "patch_size": [7, 3, 3, 3],
        "patch_stride": [4, 2, 2, 2],
        "patch_padding": [3, 1, 1, 1],
        "patch_prenorm": [False, True, True, True],
        "enable_checkpoint": False,
        "dim_embed": [128, 256, 512, 1024],
        "num_heads": [4, 8, 16, 32],
        "num_groups": [4, 8, 16, 32],
        "depths": [1, 1, 9, 1],
        "window_size": 12,
        "projection_dim": 768,
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    },
    "vocab_size": MICROSOFT_ROWS,
}


# --- presets ---------------------------------------------------------------------------------------------------------


def test_the_released_sizes() -> None:
    base, large = (with_rows(Florence2Config.preset(name), MICROSOFT_ROWS) for name in ("base", "large"))
    assert parameters(base) == 231_414_016
    assert parameters(large) == 776_465_408
    assert parameters(replace(large, text=replace(large.text, max_position_embeddings=1024))) == 770_173_952
    assert base.vision.stride == large.vision.stride == 32


def test_nano() -> None:
    nano = Florence2Config.preset("nano", 3000)
    assert nano == Florence2Config.preset("nano") and nano.vision.stride == 16
    assert parameters(nano) == 6_239_872
    smaller = Florence2Config.preset("nano", vocabulary=1500)
    assert (smaller.text.vocab_size, smaller.image_token_id) == (1536, 1500)
    assert parameters(nano) - parameters(smaller) == (3008 - 1536) * nano.text.d_model


@pytest.mark.parametrize(("tokens", "rows"), [(63, 64), (64, 128), (3000, 3008), (51289, 51328)])
def test_rows_for_a_vocabulary_and_the_image_token(tokens: int, rows: int) -> None:
    config = Florence2Config.preset("base", tokens)
    assert (config.text.vocab_size, config.image_token_id) == (rows, tokens)


@pytest.mark.parametrize("tokens", [-1, -100])
def test_vocabularies_without_tokens(tokens: int) -> None:
    with pytest.raises(ConfigError, match=r"vocab_size|image_token_id"):
        Florence2Config.preset("nano", tokens)


def test_no_such_preset() -> None:
    with pytest.raises(ConfigError, match="one of base, large, nano, pico; got 'huge'"):
        Florence2Config.preset("huge")  # type: ignore[arg-type]


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip(name: str) -> None:
    config = PRESETS[name]
    assert Florence2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    microsofts = replace(config, image_token_id=None)
    assert Florence2Config.from_dict(microsofts.to_dict()) == microsofts


@pytest.mark.parametrize("name", PRESETS)
def test_transformers_reads_and_writes_the_same(name: str) -> None:
    from transformers import Florence2Config as NativeConfig

    config = PRESETS[name]
    theirs = NativeConfig(**config.to_dict())
    for part, sizes in ((theirs.vision_config, config.vision), (theirs.text_config, config.text)):
        for field in fields(sizes):
            expected, value = getattr(sizes, field.name), getattr(part, field.name)
            assert (tuple(value) if isinstance(value, list) else value) == expected, field.name
    for use_diff in (True, False):
        assert Florence2Config.from_dict(json.loads(theirs.to_json_string(use_diff=use_diff))) == config


def test_microsofts() -> None:
    assert Florence2Config.from_dict(MICROSOFT) == with_rows(Florence2Config.preset("base"), MICROSOFT_ROWS)


def test_what_is_absent_is_as_in_base() -> None:
    parts: dict[str, Any]
    for parts in ({}, {"vision_config": None, "text_config": {}}):
        config = Florence2Config.from_dict({"model_type": "florence2", "image_token_id": 51289, **parts})
        assert config == Florence2Config.preset("base")


# --- sizes that don't fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("vision", {"num_heads": [4, 8, 16, 30]}, "width 1024 is no multiple of 30 heads and 32 groups"),
        ("vision", {"num_groups": [4, 8, 17, 32]}, "width 512 is no multiple of 16 heads and 17 groups"),
        ("vision", {"depths": [1, 1, 9]}, "one value a stage everywhere, got .*'depths': 3, 'patch_size': 4"),
        ("vision", {"embed_dim": [128, 256, 512, 1025], "num_heads": [1] * 4, "num_groups": [1] * 4}, "even.*1025"),
        ("vision", {"projection_dim": 1024}, "projection_dim == text.d_model, got 1024 and 768"),
        ("vision", {"activation_function": "relu"}, "vision: expected activation gelu, got relu"),
        ("text", {"d_model": 770}, "d_model 770 is no multiple of 12 heads"),
        ("text", {"decoder_attention_heads": 7}, "d_model 768 is no multiple of 7 heads"),
        ("text", {"activation_function": "silu"}, "text: expected activation gelu, got silu"),
        ("text", {"vocab_size": 51200}, "image_token_id with a row in vocab_size 51200, or None; got 51289"),
        ("text", {"eos_token_id": 51328}, "eos_token_id 51328 has no row in vocab_size 51328"),
        ("text", {"pad_token_id": -1}, "pad_token_id to be int from 0 to .*, got -1"),
        ("text", {"pad_token_id": None}, "pad_token_id .* got None"),
        ("text", {"max_position_embeddings": "many"}, "text: expected max_position_embeddings .* got 'many'"),
        ("text", {"max_position_embeddings": 1024.0}, "got 1024.0"),
        ("text", {"encoder_layers": 10**9}, "encoder_layers to be int from 1 to 256, got 1000000000"),
        ("text", {"encoder_layers": True}, "encoder_layers .* got True"),
        ("text", {"vocab_size": 10**300}, "vocab_size .* got 1000"),
        ("text", {"d_model": 0}, "d_model .* got 0"),
        ("text", {"encoder_attention_heads": 0}, "encoder_attention_heads .* got 0"),
        ("text", {"dropout": float("nan")}, "dropout to be float from 0 to 1, got nan"),
        ("text", {"dropout": -0.1}, "got -0.1"),
        ("text", {"init_std": float("inf")}, "got inf"),
        ("text", {"scale_embedding": "yes"}, "scale_embedding to be bool, got 'yes'"),
        ("text", {"activation_function": ["gelu"]}, r"activation_function to be str, got \('gelu',\)"),
        ("vision", {"max_position_embeddings": None}, "vision: expected max_position_embeddings .* got None"),
        ("vision", {"depths": 4}, "depths to be a list of int from 1 to 256, got 4"),
        ("vision", {"depths": []}, r"depths .* got \(\)"),
        ("vision", {"depths": [1, 1, 10**6, 1]}, r"depths .* got \(1, 1, 1000000, 1\)"),
        ("vision", {"depths": [1, [1], 9, 1]}, "depths"),
        ("vision", {"depths": {"0": 1}}, "depths .* got {'0': 1}"),
        ("vision", {"patch_prenorm": [0, 1, 1, 1]}, "patch_prenorm to be a list of bool"),
        ("vision", {"patch_padding": [3, 1, 1, -1]}, "patch_padding to be a list of int from 0"),
        ("vision", {"patch_stride": [4, 2, 2, 0]}, "patch_stride"),
        ("vision", {"mlp_ratio": "4"}, "mlp_ratio .* got '4'"),
        ("vision", {"drop_path_rate": 1}, "drop_path_rate .* got 1"),
    ],
)
def test_sizes_that_do_not_fit(part: str, changes: Mapping[str, Any], words: str) -> None:
    data = Florence2Config.preset("base").to_dict()
    data[f"{part}_config"] |= changes
    with pytest.raises(ConfigError, match=words):
        Florence2Config.from_dict(data)


@pytest.mark.parametrize("id", [-1, 51328, 1.5, "51289", True, [51289]])
def test_an_image_token_without_a_row(id: Any) -> None:
    with pytest.raises(ConfigError, match="image_token_id with a row in vocab_size 51328"):
        Florence2Config.from_dict(Florence2Config.preset("base").to_dict() | {"image_token_id": id})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bart"}, "model_type florence2, got 'bart'"),
        ({"model_type": ["florence2"]}, "got .'florence2'."),
        ({"model_type": None}, "got None"),
        ({"vision_config": [1, 2]}, r"vision_config to be an object, got \[1, 2\]"),
        ({"text_config": "base"}, "text_config to be an object, got 'base'"),
        ({"text_config": 0}, "text_config to be an object, got 0"),
    ],
)
def test_configs_of_something_else(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Florence2Config.from_dict(MICROSOFT | changes)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("image_pos_embed", None, "image_pos_embed.max_pos_embeddings in a vision_config of Microsoft's; it is absent"),
        ("image_pos_embed", [50], "image_pos_embed to be an object"),
        ("image_pos_embed", {"type": "learned_abs_2d"}, "max_pos_embeddings .* absent"),
        ("image_pos_embed", {"max_pos_embeddings": None}, "vision: expected max_position_embeddings .* got None"),
        ("visual_temporal_embedding", {"max_temporal_embeddings": [100]}, "max_temporal_embeddings"),
        ("dim_embed", None, "embed_dim"),
    ],
)
def test_microsofts_with_something_wrong(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Florence2Config.from_dict(MICROSOFT | {"vision_config": MICROSOFT["vision_config"] | {name: value}})


def test_long_and_deep_values_are_shown_in_short() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10**6, [7] * 10**6):
        with pytest.raises(ConfigError) as caught:
            Florence2Config.from_dict(MICROSOFT | {"text_config": {"d_model": value}})
        assert len(str(caught.value)) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [(part, f.name) for part, kind in (("vision", VisionConfig), ("text", TextConfig)) for f in fields(kind)]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), JSON | st.just(51289))
@settings(max_examples=300, deadline=None)
def test_any_json_is_a_config_or_an_error_of_ours(changes: Mapping[tuple[str, str], Any], image: Any) -> None:
    data = Florence2Config.preset("base").to_dict() | {"image_token_id": image}
    for (part, name), value in changes.items():
        data[f"{part}_config"][name] = value
    try:
        config = Florence2Config.from_dict(json.loads(json.dumps(data)))
    except ConfigError:
        return
    assert Florence2Config.from_dict(config.to_dict()) == config


def test_the_deepest_network_that_is_allowed_can_be_built() -> None:
    config = PRESETS["nano"]
    deep = replace(
        config, text=replace(config.text, encoder_layers=256), vision=replace(config.vision, depths=(9, 9, 9, 9))
    )
    assert parameters(deep) > 10 * parameters(config)


def test_a_padded_vocabulary_that_does_not_name_the_image_token() -> None:
    """Rows up to a multiple of 64 and no image_token_id: transformers' default, as its processor says."""
    native = Florence2Config.preset("base").to_dict()
    del native["image_token_id"]
    assert Florence2Config.from_dict(native).image_token_id == 51289
    native["text_config"]["vocab_size"] = 51289
    assert Florence2Config.from_dict(native).image_token_id is None


def test_whole_numbers_where_transformers_wants_floats() -> None:
    config = Florence2Config(VisionConfig(mlp_ratio=4), TextConfig(init_std=1))
    data = transformers.Florence2Config(**config.to_dict()).to_dict()
    assert Florence2Config.from_dict(data) == config


def test_another_order_of_norms() -> None:
    data = Florence2Config.preset("nano").to_dict()
    data["text_config"]["normalize_before"] = True
    with pytest.raises(ConfigError, match="normalize_before"):
        Florence2Config.from_dict(data)
