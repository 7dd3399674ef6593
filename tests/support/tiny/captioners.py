"""BLIP, BLIP-2 and their tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

WORDS = (
    *("a", "an", "the", "dog", "cat", "red", "small", "sits", "on", "under", "grass", "table", "with", "two", "cups"),
    *("of", "coffee", "and", "person", "rides", "bicycle"),
)
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PIXELS = {"image_size": 32, "patch_size": 8}


def word_tokenizer(folder: Path) -> BertTokenizer:
    """A wordpiece tokenizer that knows WORDS and single letters."""
    letters = [chr(n) for n in range(97, 123)]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[BOS]",
        *WORDS,
        *letters,
        *(f"##{c}" for c in letters),
        ".",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces))
    return BertTokenizer(str(folder / "vocab.txt"), bos_token="[BOS]", eos_token="[SEP]")


def blip(folder: Path) -> Path:
    tokenizer = word_tokenizer(folder)
    special = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config={"vocab_size": len(tokenizer), "encoder_hidden_size": 16, **LAYERS, **special},
        vision_config=LAYERS | PIXELS,
        projection_dim=16,
        image_text_hidden_size=16,
    )
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(config)
    _shake(model)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def blip_2(folder: Path) -> Path:
    tokenizer = word_tokenizer(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    special = {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 0}
    config = Blip2Config(
        vision_config=LAYERS | PIXELS,
        qformer_config={"vocab_size": 10, "encoder_hidden_size": 16, **LAYERS},
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "word_embed_proj_dim": 16,
            "ffn_dim": 32,
            "max_position_embeddings": 128,
            **LAYERS,
            **special,
        },
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_text_hidden_size=16,
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    _shake(model)
    model.save_pretrained(folder)
    processor = Blip2Processor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer, num_query_tokens=4)
    processor.save_pretrained(folder)
    return folder


def _shake(model: torch.nn.Module) -> None:
    """Weights so large that what a model says depends on what it sees."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.6)


FAMILY: tuple[Callable[[Path], Path], ...] = (blip, blip_2)
