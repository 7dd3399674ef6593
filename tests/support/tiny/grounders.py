"""Grounding DINO, its second training by OpenMMLab, and OWLv2, each with a tokenizer of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    SwinConfig,
)

# BERT's ids, which are written into the model: it tells sentences apart by them.
PLACES = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
WORDS = (
    *("a", "the", "two", "of", "on", "and", "no", "is", "dog", "cat", "man", "shirt", "leash", "grass", "ball", "cafe"),
    *("red", "brown", "##s", "##n", "!", ",", '"', "-", "。", "一", "只", "狗"),
)
MOST_TOKENS = 24  # that the tiny Grounding DINOs take, three of them besides a text's
MOST_BYTES = 30  # of a query that the tiny OWLv2 takes
SIDE = 64  # px, of what the models see


def grounding_dino(folder: Path) -> Path:
    config = GroundingDinoConfig(**_layers())
    return _saved(GroundingDinoForObjectDetection, config, folder)


def mm_grounding_dino(folder: Path) -> Path:
    config = MMGroundingDinoConfig(**_layers())
    return _saved(MMGroundingDinoForObjectDetection, config, folder)


def owlv2(folder: Path) -> Path:
    torch.manual_seed(0)
    vocab = _bytes()
    layers: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = Owlv2Config(
        text_config={**layers, "vocab_size": len(vocab), "max_position_embeddings": MOST_BYTES + 2},
        vision_config={**layers, "image_size": SIDE, "patch_size": 8},
        projection_dim=16,
    )
    model = Owlv2ForObjectDetection(config)
    _spread(model.class_head, model.box_head, model.objectness_head, model.owlv2.text_projection)
    model.save_pretrained(folder)
    tokenizer = CLIPTokenizer(vocab=vocab, pad_token="!", model_max_length=MOST_BYTES + 2)
    processor = Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE})
    Owlv2Processor(processor, tokenizer).save_pretrained(folder)
    return folder


def _layers() -> dict[str, Any]:
    backbone = SwinConfig(
        image_size=SIDE,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_indices=[2, 3, 4],
    )
    text = BertConfig(
        vocab_size=len(_wordpieces()),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    return {
        "backbone_config": backbone,
        "text_config": text,
        "num_queries": 20,
        "num_feature_levels": 3,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "max_text_len": MOST_TOKENS,
    }


def _saved(kind: Any, config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    model = kind(config)
    _spread(model.bbox_embed)
    model.model.decoder.layer_norm.weight.data *= 0.1  # so that not all is 0 or 1
    model.save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE})
    words = BertTokenizer(vocab=_wordpieces(), do_lower_case=True)
    GroundingDinoProcessor(images, words).save_pretrained(folder)
    return folder


def _spread(*heads: torch.nn.Module) -> None:
    """Weights of a head so large that its answers differ, and boxes come in all sizes."""
    for head in heads:
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.3)


def _wordpieces() -> dict[str, int]:
    """BERT's vocabulary in small: its special tokens where they are, the words in the places between them."""
    words = iter(WORDS)
    places = {number: token for token, number in PLACES.items()}
    tokens = [places.get(n) or next(words, f"[unused{n}]") for n in range(max(places) + 1)]
    return {token: n for n, token in enumerate(tokens)}


def _bytes() -> dict[str, int]:
    """CLIP's in small: all bytes, each also as the end of a word, and the two ends of a text as its last entries."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {token: n for n, token in enumerate(tokens)}
