"""What goes into the model and what comes out, as tensors and text: images of one size, prompts as ids, ids as text.

The files of a folder, each read where it is there:
- tokenizer.json, or vocab.json and merges.txt: the tokens;
- processor_config.json or preprocessor_config.json: the images' size, mean and standard deviation;
- config.json, which is the model's: how many positions there are, and so how long a prompt may be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from florence2.config import Florence2Config
from florence2.errors import CheckpointError, ConfigError, ImageError, PromptError
from florence2.hub import resolve
from florence2.tasks import Prompt
from florence2.tokens import BOS, EOS, IMAGE, MASK, PAD, UNK, Tokens, parsed, text_of

FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "processor_config.json",
    "preprocessor_config.json",
    "config.json",
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in the released models
LARGEST = 8192  # pixels a side; a larger size in a file is a mistake, and would take all memory

Source = Image.Image | str | Path | bytes

# What transformers' processor leaves out of a grounding's answer (Microsoft's list).
BANNED = [
    *"it I me mine you your yours he him his she her hers they them their theirs one oneself we us our ours its".split(),
    *"myself yourself himself herself itself ourselves yourselves themselves this that these those who whom".split(),
    *"whose which what all another any anybody anyone anything each everybody everyone everything few many".split(),
    *"nobody none several some somebody someone something image images the a an lots".split(),
    *("each other", "one another", "the image", "a group", "other objects", "a set"),
]
PARSERS = (
    *("ocr", "pure_text", "description_with_bboxes", "description_with_polygons", "polygons", "bboxes"),
    "description_with_bboxes_or_polygons",
)


def image_tokens(size: tuple[int, int], stride: int) -> int:
    """How many tokens an image of `size` (height, width) is: its mean, and one for each `stride` x `stride` pixels."""
    return 1 + math.ceil(size[0] / stride) * math.ceil(size[1] / stride)


@dataclass(frozen=True)
class Processor:
    tokens: Tokens
    size: tuple[int, int] = (768, 768)  # height, width in pixels
    image_tokens: int = 577
    positions: int | None = None  # of the encoder, for image and prompt together; None: not known
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def __post_init__(self) -> None:
        if self.positions is not None and self.positions < self.image_tokens + 3:
            raise ConfigError(
                f"expected positions for {self.image_tokens} image tokens and a prompt; got {self.positions}. "
                "Take a smaller size"
            )

    @classmethod
    def for_model(cls, config: Florence2Config, tokens: Tokens, size: tuple[int, int] = (768, 768)) -> Processor:
        """For a model of `config` and images of `size` (height, width)."""
        count = image_tokens(size, config.vision.stride)
        return cls(tokens, size, count, config.text.max_position_embeddings)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Processor:
        """From a folder or a hub's id, in Microsoft's form or transformers'. CheckpointError where a file won't do."""
        folder = resolve(source, FILES)
        config = read(folder / "config.json") or {}
        settings, path = image_settings(folder)
        try:
            return cls(tokens_of(folder), positions=positions_of(config), **chosen(settings, config))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path}: {error}") from error

    def save_pretrained(self, path: str | Path) -> None:
        """Files that `from_pretrained` reads, and transformers' AutoProcessor. The positions stay in config.json."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "tokenizer.json": json.loads(self.tokens.with_image().to_json()),
            "tokenizer_config.json": TOKENIZER_CONFIG,
            "preprocessor_config.json": self._image_settings(),
            "processor_config.json": PROCESSOR_CONFIG,
        }
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _image_settings(self) -> dict[str, Any]:
        height, width = self.size
        return {
            "processor_class": "Florence2Processor",
            "image_processor_type": "CLIPImageProcessor",
            "image_seq_length": self.image_tokens,
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": height, "width": width},
            "resample": int(self.resample),
            "do_center_crop": False,
            "crop_size": {"height": height, "width": width},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    @property
    def max_prompt_tokens(self) -> int | None:
        """How many ids a prompt may have, <s> and </s> among them: 447 in the base model at 768 px. None: not known."""
        return None if self.positions is None else self.positions - self.image_tokens

    def images(self, images: Sequence[Source]) -> torch.Tensor:
        """[B, 3, height, width], float32, normalised.

        Each is stretched to the size (the aspect is not kept), transparency over white, 16-bit grey scaled to 8.
        Nothing is turned: what EXIF says of the orientation is for the caller to apply (PIL.ImageOps.exif_transpose).
        ImageError, with its place in `images`, for what is no image, is broken, or has no pixels.
        """
        height, width = self.size
        pixels = np.empty((len(images), height, width, 3), np.uint8)
        for n, image in enumerate(images):
            pixels[n] = resized(image, n, (width, height), self.resample)
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        mean, std = (torch.tensor(triple).view(3, 1, 1) for triple in (self.mean, self.std))
        return values.div_(255).sub_(mean).div_(std)

    def prompts(self, prompts: Sequence[Prompt | str]) -> tuple[torch.Tensor, torch.Tensor]:
        """input_ids and attention_mask, both [B, L] int64: <s> text </s>, pads at the end.

        A text's <loc_7>, <and> ... are read as structure, also where a user wrote them, as transformers does;
        </s>, <s>, <pad>, <unk>, <mask> and <image> in it are characters. PromptError if one is too long.
        """
        texts = [prompt.text if isinstance(prompt, Prompt) else prompt for prompt in prompts]
        rows = [self.tokens.sentence(text) for text in texts]
        for n, row in enumerate(rows):
            if self.max_prompt_tokens is not None and len(row) > self.max_prompt_tokens:
                raise PromptError(
                    f"prompt {n} has {len(row)} tokens, and {self.max_prompt_tokens} fit ({self.positions} positions "
                    f"less {self.image_tokens} of the image); shorten {texts[n]!r:.60}..."
                )
        longest = max(map(len, rows), default=0)
        ids = torch.tensor([row + [self.tokens.pad] * (longest - len(row)) for row in rows], dtype=torch.int64)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.int64)
        return ids.view(len(rows), longest), mask.view(len(rows), longest)

    def decode(self, ids: Iterable[int]) -> str:
        """An answer as it is written, structure and all, without <s>, </s> and <pad>. `ids` may be a row of a tensor."""
        ends = {self.tokens.bos, self.tokens.pad, self.tokens.eos}
        return self.tokens.raw(id for id in map(int, ids) if id not in ends)


TOKENIZER_CONFIG = {
    "tokenizer_class": "BartTokenizer",
    "processor_class": "Florence2Processor",
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": False,
    "bos_token": BOS,
    "cls_token": BOS,
    "eos_token": EOS,
    "sep_token": EOS,
    "pad_token": PAD,
    "unk_token": UNK,
    "mask_token": MASK,
    "extra_special_tokens": {"image_token": IMAGE},
}
PROCESSOR_CONFIG: dict[str, Any] = {
    "processor_class": "Florence2Processor",
    "num_additional_image_tokens": 0,  # image_seq_length counts the mean already
    "post_processor_config": {
        **{name: {} for name in PARSERS},
        "phrase_grounding": {"banned_grounding_tokens": BANNED},
    },
}
# What the model was trained with; a file that says otherwise is another model's.
ALWAYS = {"do_resize": True, "do_center_crop": False, "do_rescale": True, "do_normalize": True}


def resized(image: Source, n: int, size: tuple[int, int], resample: Image.Resampling) -> npt.NDArray[np.uint8]:
    """[height, width, 3] of an image, a file or its bytes. `size` is (width, height), Pillow's order."""
    what = f"image {n}" + (f" ({image})" if isinstance(image, str | Path) else "")
    if not isinstance(image, Image.Image | str | Path | bytes):
        raise ImageError(f"{what}: expected a PIL image, a path or a file's bytes; got {type(image).__name__}")
    if isinstance(image, Image.Image) and 0 in image.size:
        raise ImageError(f"{what}: expected pixels, got a size of {image.width} x {image.height}")
    try:
        if isinstance(image, Image.Image):
            return np.asarray(to_rgb(image).resize(size, resample))
        with Image.open(BytesIO(image) if isinstance(image, bytes) else image) as opened:
            return np.asarray(to_rgb(opened).resize(size, resample))
    except Exception as error:  # decoders raise whatever they stumble over: SyntaxError, struct.error, MemoryError, ...
        raise ImageError(f"{what}: can't be read ({type(error).__name__}: {error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def read(path: Path) -> dict[str, Any] | None:
    return parsed(text_of(path), str(path)) if path.exists() else None


def tokens_of(folder: Path) -> Tokens:
    if (folder / "tokenizer.json").exists():
        return Tokens.from_file(folder / "tokenizer.json")
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if vocab.exists() and merges.exists():
        return Tokens.from_vocabulary(vocab, merges)
    raise CheckpointError(f"{folder}: expected tokenizer.json, or vocab.json and merges.txt; fetch the folder as a whole")


def image_settings(folder: Path) -> tuple[Mapping[str, Any], Path]:
    """What is said about images, and where."""
    nested = read(folder / "processor_config.json") or {}
    if isinstance(nested.get("image_processor"), dict):
        return nested["image_processor"], folder / "processor_config.json"
    path = folder / "preprocessor_config.json"
    settings = read(path)
    if settings is None:
        raise CheckpointError(
            f"{folder}: expected preprocessor_config.json, or a processor_config.json with image_processor; "
            "fetch the folder as a whole"
        )
    return settings, path


def chosen(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Processor. ValueError, TypeError or KeyError for what is not Florence-2's preprocessing."""
    for name, value in ALWAYS.items():
        if settings.get(name, value) is not value:
            raise ValueError(f"expected {name} {value}, got {settings[name]!r}; this is not Florence-2's preprocessing")
    if not math.isclose(settings.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise ValueError(f"expected rescale_factor 1/255, got {settings['rescale_factor']}")
    size = settings.get("size", {"height": 768, "width": 768})
    if not isinstance(size, dict) or not all(whole(size.get(side), LARGEST) for side in ("height", "width")):
        raise ValueError(f"expected a size of height and width, 1 to {LARGEST} pixels each; got {size!r}")
    height, width = size["height"], size["width"]
    count = settings.get("image_seq_length", image_tokens((height, width), stride_of(config)))
    if not whole(count, LARGEST * LARGEST):
        raise ValueError(f"expected image_seq_length, a number of tokens; got {count!r}")
    return {
        "size": (height, width),
        "image_tokens": count,
        "mean": triple(settings, "image_mean", MEAN),
        "std": triple(settings, "image_std", STD),
        "resample": Image.Resampling(settings.get("resample", Image.Resampling.BICUBIC)),
    }


def whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def triple(settings: Mapping[str, Any], name: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    values = settings.get(name, default)
    red, green, blue = (float(value) for value in values)
    if not all(math.isfinite(v) and (v > 0 or name == "image_mean") for v in (red, green, blue)):
        raise ValueError(f"expected {name}, three numbers; got {values!r}")
    return red, green, blue


def stride_of(config: Mapping[str, Any]) -> int:
    return math.prod((config.get("vision_config") or {}).get("patch_stride") or (32,))


def positions_of(config: Mapping[str, Any]) -> int | None:
    positions: int | None = (config.get("text_config") or {}).get("max_position_embeddings")
    return positions
