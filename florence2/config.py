"""The sizes of a Florence-2: every size in the code comes from here. Fields are named as in transformers' config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from reprlib import repr as short  # a stranger's JSON may be long and deep
from typing import Any, Literal, get_args, get_origin, get_type_hints

from florence2.errors import ConfigError


@dataclass(frozen=True)
class VisionConfig:
    """DaViT: four stages, each of them coarser and wider than the one before."""

    in_channels: int = 3
    depths: tuple[int, ...] = (1, 1, 9, 1)
    patch_size: tuple[int, ...] = (7, 3, 3, 3)
    patch_stride: tuple[int, ...] = (4, 2, 2, 2)
    patch_padding: tuple[int, ...] = (3, 1, 1, 1)
    patch_prenorm: tuple[bool, ...] = (False, True, True, True)
    embed_dim: tuple[int, ...] = (128, 256, 512, 1024)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    num_groups: tuple[int, ...] = (4, 8, 16, 32)
    window_size: int = 12
    drop_path_rate: float = 0.1
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    activation_function: str = "gelu"
    projection_dim: int = 768
    max_temporal_embeddings: int = 100
    max_position_embeddings: int = 50

    def __post_init__(self) -> None:
        check(self, "vision")
        stages = {name: len(value) for name, value in vars(self).items() if isinstance(value, tuple)}
        if len(set(stages.values())) != 1:
            raise ConfigError(f"vision: expected one value a stage everywhere, got {stages}")
        for width, heads, groups in zip(self.embed_dim, self.num_heads, self.num_groups, strict=True):
            if width % heads or width % groups:
                raise ConfigError(f"vision: width {width} is no multiple of {heads} heads and {groups} groups")
        if self.embed_dim[-1] % 2:
            raise ConfigError(f"vision: expected an even last width (sines and cosines), got {self.embed_dim[-1]}")
        if self.activation_function != "gelu":
            raise ConfigError(f"vision: expected activation gelu, got {self.activation_function}")

    @property
    def stride(self) -> int:
        """Pixels per token side after the last stage (32 in the released models)."""
        total = 1
        for stride in self.patch_stride:
            total *= stride
        return total


@dataclass(frozen=True)
class TextConfig:
    """BART: encoder and decoder, post-norm, learned positions."""

    vocab_size: int = 51328  # 51289 tokens and <image>, up to a multiple of 64
    d_model: int = 768
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 12
    decoder_attention_heads: int = 12
    encoder_ffn_dim: int = 3072
    decoder_ffn_dim: int = 3072
    max_position_embeddings: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    activation_function: str = "gelu"
    scale_embedding: bool = False
    init_std: float = 0.02
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2
    decoder_start_token_id: int = 2

    def __post_init__(self) -> None:
        check(self, "text")
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if self.d_model % heads:
                raise ConfigError(f"text: d_model {self.d_model} is no multiple of {heads} heads")
        if self.activation_function != "gelu":
            raise ConfigError(f"text: expected activation gelu, got {self.activation_function}")
        for name in ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id"):
            if getattr(self, name) >= self.vocab_size:
                raise ConfigError(f"text: {name} {getattr(self, name)} has no row in vocab_size {self.vocab_size}")


@dataclass(frozen=True)
class Florence2Config:
    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    image_token_id: int | None = 51289  # transformers' <image>; the model itself needs none

    def __post_init__(self) -> None:
        if self.vision.projection_dim != self.text.d_model:
            widths = f"{self.vision.projection_dim} and {self.text.d_model}"
            raise ConfigError(f"expected vision.projection_dim == text.d_model, got {widths}")
        if self.image_token_id is not None and not fits(self.image_token_id, int, 0, self.text.vocab_size - 1):
            raise ConfigError(
                f"expected an image_token_id with a row in vocab_size {self.text.vocab_size}, or None; "
                f"got {short(self.image_token_id)}"
            )

    @classmethod
    def preset(cls, name: Literal["base", "large", "nano", "pico"], vocabulary: int | None = None) -> Florence2Config:
        """The released sizes, or `nano` and `pico`, for training from scratch on a CPU.

        `vocabulary`: another number of tokens.
        """
        if name not in PRESETS:
            raise ConfigError(f"expected a preset, one of {', '.join(PRESETS)}; got {name!r}")
        config = PRESETS[name]
        return config if vocabulary is None else config.with_vocabulary(vocabulary)

    def with_vocabulary(self, tokens: int) -> Florence2Config:
        """Laid out as transformers has it: <image> after the tokens, rows up to a multiple of 64."""
        return replace(self, text=replace(self.text, vocab_size=tokens // 64 * 64 + 64), image_token_id=tokens)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Florence2Config:
        """From a config.json, transformers' or Microsoft's. Fields that are not sizes are passed over.

        ConfigError, naming the field, for what no model could be made of.
        """
        if data.get("model_type") != "florence2":
            raise ConfigError(f"expected model_type florence2, got {short(data.get('model_type'))}")
        vision, text = section(data, "vision_config"), section(data, "text_config")
        if "dim_embed" in vision:  # Microsoft's
            vision["embed_dim"] = vision["dim_embed"]
            vision["max_position_embeddings"] = nested(vision, "image_pos_embed", "max_pos_embeddings")
            vision["max_temporal_embeddings"] = nested(vision, "visual_temporal_embedding", "max_temporal_embeddings")
        if text.get("normalize_before"):
            raise ConfigError("text_config: expected norms behind the residual sums, got normalize_before")
        parts = chosen(VisionConfig, vision), chosen(TextConfig, text)
        default = (
            IMAGE if parts[1].vocab_size > IMAGE else None
        )  # transformers' default; Microsoft's have no row for it
        return cls(*parts, data.get("image_token_id", default))

    def to_dict(self) -> dict[str, Any]:
        """transformers' config.json."""
        return {
            "architectures": ["Florence2ForConditionalGeneration"],
            "model_type": "florence2",
            "is_encoder_decoder": True,
            "tie_word_embeddings": True,
            "image_token_id": self.image_token_id,
            "bos_token_id": self.text.bos_token_id,
            "pad_token_id": self.text.pad_token_id,
            "eos_token_id": self.text.eos_token_id,
            "vision_config": {"model_type": "florence_vision"} | written(self.vision),
            "text_config": {"model_type": "bart", "is_encoder_decoder": True, "tie_word_embeddings": True}
            | written(self.text),
        }


def section(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of a config.json; empty if it is absent or null."""
    found = data.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(f"expected {name} to be an object, got {short(found)}")
    return dict(found or {})


def nested(vision: Mapping[str, Any], part: str, name: str) -> Any:
    if name not in (found := section(vision, part)):
        raise ConfigError(f"expected {part}.{name} in a vision_config of Microsoft's; it is absent")
    return found[name]


def written(config: VisionConfig | TextConfig) -> dict[str, Any]:
    """Its fields; floats as such, since transformers takes no 4 for a 4.0."""
    kinds = get_type_hints(type(config))
    return {name: float(value) if kinds[name] is float else value for name, value in asdict(config).items()}


def chosen(kind: type[Any], data: Mapping[str, Any]) -> Any:
    """The fields of `kind` that `data` has, lists as tuples."""
    known = {entry.name for entry in fields(kind)}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known})


IMAGE = 51289  # the id of <image> in the released vocabulary, behind all other tokens
MOST = 2**20  # of any size: more is a mistake, and would take all memory
# What is no size of at least 1; and the number of layers, which takes time before it takes memory.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("depths", "encoder_layers", "decoder_layers"), (1, 256)),
    **dict.fromkeys(("patch_padding", "bos_token_id", "pad_token_id", "eos_token_id"), (0, MOST)),
    "decoder_start_token_id": (0, MOST),
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), (0, 1)),
    "drop_path_rate": (0, 0.99),  # at 1 nothing would be left to scale up
    "mlp_ratio": (1, 100),
    "init_std": (0, 100),
}


def check(config: VisionConfig | TextConfig, name: str) -> None:
    """ConfigError for a field that is not of its type, or out of its range."""
    for field_name, kind in get_type_hints(type(config)).items():
        value = getattr(config, field_name)
        least, most = RANGES.get(field_name, (1, MOST))
        listed = get_origin(kind) is tuple
        kind = get_args(kind)[0] if listed else kind
        values = value if listed else (value,)
        if not isinstance(values, tuple) or not values or not all(fits(v, kind, least, most) for v in values):
            expected = f"{kind.__name__} from {least} to {most}" if kind in (int, float) else kind.__name__
            expected = f"a list of {expected}" if listed else expected
            raise ConfigError(f"{name}: expected {field_name} to be {expected}, got {short(value)}")


def fits(value: object, kind: type, least: float, most: float) -> bool:
    """Whether a value of a JSON is of a kind; a number within its range too, which NaN never is."""
    if kind not in (int, float):
        return isinstance(value, kind)
    number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return number and least <= value <= most  # type: ignore[operator]


LARGE = Florence2Config(
    VisionConfig(
        embed_dim=(256, 512, 1024, 2048), num_heads=(8, 16, 32, 64), num_groups=(8, 16, 32, 64), projection_dim=1024
    ),
    TextConfig(
        d_model=1024,
        encoder_layers=12,
        decoder_layers=12,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
        max_position_embeddings=4096,
    ),
)
# Six million parameters with a vocabulary of 3,000, for images of about 96 px.
NANO = Florence2Config(
    VisionConfig(
        depths=(1, 1, 3, 1),
        embed_dim=(32, 64, 128, 192),
        num_heads=(1, 2, 4, 6),
        num_groups=(1, 2, 4, 6),
        patch_stride=(4, 2, 2, 1),
        window_size=6,
        drop_path_rate=0.0,
        projection_dim=192,
    ),
    TextConfig(
        d_model=192,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        max_position_embeddings=1024,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    ),
).with_vocabulary(3000)
# Half a million parameters with a vocabulary of 1,400, for images of 64 px: 65 image tokens; windows divide every map.
# The last width is the language model's, so that a place passes from one to the other unchanged (training/start.py). No
# dropout: half an hour on a CPU is too short to learn images by heart. Measured in docs/training.md.
PICO = Florence2Config(
    VisionConfig(
        depths=(1, 1, 1),
        patch_size=(7, 3, 3),
        patch_stride=(4, 2, 1),
        patch_padding=(3, 1, 1),
        patch_prenorm=(False, True, True),
        embed_dim=(16, 32, 64),
        num_heads=(1, 1, 2),
        num_groups=(1, 1, 2),
        window_size=8,
        mlp_ratio=2.0,
        drop_path_rate=0.0,
        projection_dim=64,
    ),
    TextConfig(
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    ),
).with_vocabulary(1400)
PRESETS: dict[str, Florence2Config] = {"base": Florence2Config(), "large": LARGE, "nano": NANO, "pico": PICO}
