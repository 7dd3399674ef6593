"""Qwen2.5-VL, which sees images of any size as so many tokens, and Qwen2, which is for text alone."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Bytes
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

TURNS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SPECIAL = (*TURNS, *VISION)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
}


def qwen2_5_vl(folder: Path) -> Path:
    """It sees 28 x 28 pixels as one token."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(list(SPECIAL)), strict=True))
    config = Qwen2_5_VLConfig(
        text_config=SMALL
        | {
            **_vocabulary(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.5,
        },
        image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        video_token_id=ids["<|video_pad|>"],
    )
    _save(Qwen2_5_VLForConditionalGeneration(config), tokenizer, folder)
    images = Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16})
    Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE).save_pretrained(folder)
    return folder


def qwen2(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    tokenizer.chat_template = TEMPLATE
    _save(Qwen2ForCausalLM(Qwen2Config(**SMALL, **_vocabulary(tokenizer))), tokenizer, folder)
    tokenizer.save_pretrained(folder)
    return folder


def _save(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """It says letters, and ends after some 10 tokens by itself."""
    generation = model.generation_config
    generation.pad_token_id, generation.eos_token_id = tokenizer.pad_token_id, [tokenizer.eos_token_id, 0]
    says = {n for token, n in tokenizer.get_vocab().items() if token.removeprefix("Ġ").isalpha() and token.isascii()}
    generation.suppress_tokens = sorted({*range(len(tokenizer))} - says - {tokenizer.eos_token_id})
    generation.min_new_tokens, generation.exponential_decay_length_penalty = 4, (8, 1.5)
    model.save_pretrained(folder)


def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    end = tokenizer.eos_token_id
    return {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end}


def _tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, so that it can say any Unicode."""
    alphabet = {token: n for n, token in enumerate([*SPECIAL, *sorted(ByteLevel.alphabet())])}
    tokens = Tokenizer(BPE(alphabet, []))
    tokens.pre_tokenizer, tokens.decoder = ByteLevel(add_prefix_space=False), Bytes()
    tokens.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )
