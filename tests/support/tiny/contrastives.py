"""SigLIP, SigLIP 2 and CLIP. A character is a token to their tokenizers, so that texts are soon long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def siglip(folder: Path) -> Path:
    """As the SigLIP 2 of one resolution is: SigLIP's model with Gemma's tokenizer."""
    words = gemma_tokenizer(folder)
    config = SiglipConfig(
        text_config={**LAYERS, "vocab_size": words, "bos_token_id": 2, "eos_token_id": 1},
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8},
    )
    _save(SiglipModel, config, folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def siglip2(folder: Path) -> Path:
    """As "naflex" is: images in their own shape."""
    words = gemma_tokenizer(folder)
    config = Siglip2Config(
        text_config={**LAYERS, "vocab_size": words, "bos_token_id": 2, "eos_token_id": 1},
        vision_config={**LAYERS, "num_patches": 16, "patch_size": 8},
    )
    _save(Siglip2Model, config, folder)
    Siglip2ImageProcessor(patch_size=8, max_num_patches=20).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[], model_max_length=77)
    tokenizer.save_pretrained(folder)
    config = CLIPConfig(
        text_config={**LAYERS, "vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    _save(CLIPModel, config, folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


def chinese_clip(folder: Path) -> Path:
    """A model of another family that is loaded by the same class."""
    text = {**LAYERS, "vocab_size": 8}
    vision = {**LAYERS, "image_size": 16, "patch_size": 8}
    _save(ChineseCLIPModel, ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=8), folder)
    return folder


def gemma_tokenizer(folder: Path) -> int:
    """Writes one like Gemma's, as SigLIP 2 has it: <eos> behind a text. Its class would pad on the left. Returns its
    size."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "\u2581", *map(chr, range(33, 127))]
    words += [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(
        models.BPE({word: n for n, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.add_special_tokens(words[:4])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer", **names}))
    return len(words) + 1  # and <mask>, which the tokenizer's class adds


def _save(kind: Any, config: Any, folder: Path) -> None:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
