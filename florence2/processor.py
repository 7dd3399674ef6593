"""What goes into the model and what comes out, as tensors and text: images of one size, prompts as ids, ids as text.

The files of a folder, each read where it is there:
- tokenizer.json, or vocab.json and merges.txt: the tokens;
- processor_config.json or preprocessor_config.json: the images' size, mean and standard deviation;
- config.json, which is the model's: how many positions there are, and so how long a prompt may be.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from florence2.config import Florence2Config, fits
from florence2.errors import CheckpointError, ConfigError, ImageError, PromptError
from florence2.hub import resolve
from florence2.tasks import Prompt, Task, ask
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
STRIDE = 32  # pixels a token's side, in the released models
LARGEST = 8192  # pixels a side; a larger size in a file is a mistake, and would take all memory

Source = Image.Image | str | Path | bytes

# What transformers' processor leaves out of a grounding's answer (Microsoft's list).
BANNED = """
it, I, me, mine, you, your, yours, he, him, his, she, her, hers, they, them, their, theirs, one, oneself, we, us, our,
ours, its, myself, yourself, himself, herself, itself, ourselves, yourselves, themselves, this, that, these, those,
who, whom, whose, which, what, all, another, any, anybody, anyone, anything, each, everybody, everyone, everything,
few, many, nobody, none, several, some, somebody, someone, something, each other, one another, the image, image,
images, the, a, an, a group, other objects, lots, a set
"""
PARSERS = (
    *("ocr", "pure_text", "description_with_bboxes", "description_with_polygons", "polygons", "bboxes"),
    "description_with_bboxes_or_polygons",
)


def image_tokens(size: tuple[int, int], stride: int) -> int:
    """How many tokens an image of `size` (height, width) is: its mean, and one for each `stride` x `stride` pixels."""
    return 1 + math.ceil(size[0] / stride) * math.ceil(size[1] / stride)


@dataclass(frozen=True)
class Processor:
    """Images and prompts to tensors, ids to text; one for all models of a vocabulary, an image size and a stride.

    From a checkpoint by `from_pretrained`, for a new model by `for_model`; never changed afterwards. ConfigError for
    sizes that do not fit together.
    """

    tokens: Tokens
    size: tuple[int, int] = (768, 768)  # height, width in pixels
    image_tokens: int = 0  # of an image; 0: as many as the size gives with the released models' stride
    positions: int | None = None  # of the encoder, for image and prompt together; None: not known
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(fits(side, int, 1, LARGEST) for side in self.size):
            raise ConfigError(f"expected a size (height, width) of 1 to {LARGEST} pixels a side; got {self.size}")
        if self.image_tokens == 0:
            object.__setattr__(self, "image_tokens", image_tokens(self.size, STRIDE))
        if not fits(self.image_tokens, int, 1, LARGEST**2):
            raise ConfigError(f"expected a number of image tokens; got {self.image_tokens!r}")
        if self.positions is not None and self.positions <= self.image_tokens + len((BOS, EOS)):
            raise ConfigError(
                f"expected positions for {self.image_tokens} image tokens and a prompt; got {self.positions}: "
                "take a smaller size"
            )
        for values, least in ((self.mean, -math.inf), (self.std, 0)):
            if len(values) != 3 or not all(least < value < math.inf for value in values):
                raise ConfigError(f"expected mean and std of three channels; got {self.mean} and {self.std}")

    @classmethod
    def for_model(cls, config: Florence2Config, tokens: Tokens, size: tuple[int, int] = (768, 768)) -> Processor:
        """For a model of `config` and images of `size` (height, width)."""
        count = image_tokens(size, config.vision.stride)
        return cls(tokens, size, count, config.text.max_position_embeddings)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Processor:
        """From a folder or a hub's id, in Microsoft's form or transformers'. CheckpointError where a file won't do."""
        folder = resolve(source, FILES)
        tokens, config = tokens_of(folder), config_of(folder)
        path, settings = image_settings(folder)
        try:
            positions = config.text.max_position_embeddings if config else None
            return cls(tokens, positions=positions, **fields(settings, config))
        except (TypeError, ValueError, KeyError, ArithmeticError) as error:
            raise CheckpointError(f"{path}: {error}; this is not Florence-2's preprocessing") from error

    def save_pretrained(self, path: str | Path) -> None:
        """Files that `from_pretrained` reads, and transformers' AutoProcessor. The positions stay in config.json.

        CheckpointError if they can't be written.
        """
        folder = Path(path)
        files = {
            "tokenizer.json": json.loads(self.tokens.with_image().to_json()),
            "tokenizer_config.json": TOKENIZER_CONFIG,
            "preprocessor_config.json": self._image_settings(),
            "processor_config.json": PROCESSOR_CONFIG,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"{folder}: could not be written ({error}); expected a folder, or none yet"
            ) from error

    def _image_settings(self) -> dict[str, Any]:
        height, width = self.size
        return {
            "processor_class": "Florence2Processor",
            "image_processor_type": "CLIPImageProcessor",
            "image_seq_length": self.image_tokens,
            **ALWAYS,
            "do_convert_rgb": True,
            "size": {"height": height, "width": width},
            "crop_size": {"height": height, "width": width},
            "resample": int(self.resample),
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    @property
    def max_prompt_tokens(self) -> int | None:
        """How many ids a prompt may have, <s> and </s> among them: 447 in the base model at 768 px. None: not known."""
        return None if self.positions is None else self.positions - self.image_tokens

    def images(self, images: Iterable[Source]) -> torch.Tensor:
        """[B, 3, height, width], float32, normalised.

        Each is stretched to the size (the aspect is not kept), transparency over white, 16-bit grey scaled to 8.
        Nothing is turned: what EXIF says of the orientation is for the caller to apply (PIL.ImageOps.exif_transpose).
        ImageError, with its place in `images`, for what is no image, is broken, or has no pixels.
        """
        if isinstance(images, Source) or not isinstance(images, Iterable):
            raise ImageError(f"expected a list of images, as in images([image]); got {images!r:.80}")
        images = list(images)
        height, width = self.size
        values = np.empty((len(images), 3, height, width), np.float32)
        tables = self._tables()
        for n, image in enumerate(images):
            pixels = resized(image, n, (width, height), self.resample)
            for channel, table in enumerate(tables):  # mode: without it numpy writes by way of a buffer
                np.take(table, pixels[..., channel], out=values[n, channel], mode="clip")
        return torch.from_numpy(values)

    def _tables(self) -> npt.NDArray[np.float32]:
        """[3, 256]: what each byte of each channel becomes, rounded where transformers rounds."""
        unit = (np.arange(256) * (1 / 255)).astype(np.float32)
        mean, std = np.array([self.mean, self.std], np.float32)[..., None]
        tables: npt.NDArray[np.float32] = (unit - mean) / std
        return tables

    def prompts(self, prompts: Iterable[Prompt | Task | str]) -> tuple[torch.Tensor, torch.Tensor]:
        """input_ids and attention_mask, both [B, L] int64: <s> text </s>, pads at the end.

        A Task stands for its sentence, a text for itself. A text's <loc_7>, <and> ... are read as structure, also where
        a user wrote them, as transformers does; </s>, <s>, <pad>, <unk>, <mask> and <image> in it are characters.
        PromptError if one is too long.
        """
        if isinstance(prompts, str | Prompt) or not isinstance(prompts, Iterable):
            raise PromptError(f"expected a list of prompts, as in prompts([prompt]); got {prompts!r:.80}")
        prompts = [ask(prompt) if isinstance(prompt, Task) else prompt for prompt in prompts]
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
        """An answer as it is written, structure and all, but for <s>, </s> and <pad>. `ids`: a row of a tensor, too."""
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
        "phrase_grounding": {"banned_grounding_tokens": re.split(r",\s+", BANNED.strip())},
    },
}
# What is always done; a file that says otherwise is another model's.
ALWAYS = {
    "do_resize": True,
    "do_center_crop": False,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
}


def named(image: object, n: int) -> str:
    """Its number and, where it has come from a file, that one's name: a PIL image knows until it is changed."""
    file = image if isinstance(image, str | Path) else getattr(image, "filename", None)
    return f"image {n} ({file})" if file else f"image {n}"


def opened(image: Source, n: int) -> Image.Image:
    """An image, or that of a file or its bytes, whose pixels are not read yet. `n` is its number, for ImageError."""
    what = named(image, n)
    if not isinstance(image, Image.Image | str | Path | bytes):
        raise ImageError(f"{what}: expected a PIL image, a path or a file's bytes; got {type(image).__name__}")
    if not isinstance(image, Image.Image):
        try:
            image = Image.open(BytesIO(image) if isinstance(image, bytes) else image)
        except Exception as error:
            raise unreadable(what, error) from error
    if 0 in image.size:
        raise ImageError(f"{what}: expected pixels, got a size of {image.width} x {image.height}")
    return image


def resized(image: Source, n: int, size: tuple[int, int], resample: Image.Resampling) -> npt.NDArray[np.uint8]:
    """[height, width, 3] of an image, a file or its bytes. `size` is (width, height), Pillow's order."""
    source = opened(image, n)
    try:
        # Sideways first, as torchvision does and Pillow always did: from 13 on it takes the cheaper order, which shows.
        sideways = to_rgb(source).resize((size[0], source.height), resample)
        return np.asarray(sideways.resize(size, resample))
    except Exception as error:
        raise unreadable(named(source, n), error) from error
    finally:
        if source is not image:
            source.close()


def unreadable(what: str, error: Exception) -> ImageError:
    """Decoders raise whatever they stumble over: SyntaxError, struct.error, MemoryError, ..."""
    return ImageError(f"{what}: can't be read ({type(error).__name__}: {error})")


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} does not say what is white; convert it to L")
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def tokens_of(folder: Path) -> Tokens:
    if (folder / "tokenizer.json").exists():
        return Tokens.from_file(folder / "tokenizer.json")
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if vocab.exists() and merges.exists():
        return Tokens.from_vocabulary(vocab, merges)
    raise CheckpointError(f"{folder}: expected tokenizer.json, or vocab.json and merges.txt; fetch the whole folder")


def config_of(folder: Path) -> Florence2Config | None:
    """The model's, where it is there."""
    path = folder / "config.json"
    data = read(path)
    try:
        return None if data is None else Florence2Config.from_dict(data)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def image_settings(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """What is said about images, and where."""
    path = folder / "processor_config.json"
    nested = (read(path) or {}).get("image_processor")
    if isinstance(nested, dict):
        return path, nested
    path = folder / "preprocessor_config.json"
    settings = read(path)
    if settings is None:
        raise CheckpointError(
            f"{folder}: expected preprocessor_config.json, or a processor_config.json with image_processor; "
            "fetch the whole folder"
        )
    return path, settings


def fields(settings: Mapping[str, Any], config: Florence2Config | None) -> dict[str, Any]:
    """A Processor's fields. ValueError, TypeError or KeyError for what can't be Florence-2's."""
    settings = {name: value for name, value in settings.items() if value is not None}
    for name, value in ALWAYS.items():
        if settings.get(name, value) != value:
            raise ValueError(f"expected {name} {value}, got {settings[name]!r}")
    size = settings.get("size", {"height": 768, "width": 768})
    if not isinstance(size, dict) or not size.keys() >= {"height", "width"}:
        raise ValueError(f"expected a size of height and width, got {size!r}")
    size = (size["height"], size["width"])
    stride = config.vision.stride if config else STRIDE
    return {
        "size": size,
        "image_tokens": settings["image_seq_length"] if "image_seq_length" in settings else image_tokens(size, stride),
        "mean": tuple(settings.get("image_mean", MEAN)),
        "std": tuple(settings.get("image_std", STD)),
        "resample": Image.Resampling(settings.get("resample", Image.Resampling.BICUBIC)),
    }


def read(path: Path) -> dict[str, Any] | None:
    return parsed(text_of(path), str(path)) if path.exists() else None
