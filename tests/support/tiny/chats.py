"""Chat models."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Bytes
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SENTENCES = (
    "A small dog sits on green grass beside a red car.",
    "Two people ride bicycles along the river; a third one walks.",
    "a cup of coffee, a spoon and a plate on a wooden table",
)
PAD, BOS, EOS, IMAGE = SPECIAL = ("<pad>", "<bos>", "<eos>", "<image>")
TEMPLATE = (
    "<bos>{% for message in messages %}{{ message.role }}: "
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endif %}"
    "\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def vision_chat(folder: Path) -> Path:
    """LLaVA, which sees 32 x 32 pixels as 16 tokens. Its weights are so large that what it sees changes what it says.

    It answers with letters and blanks, and ends after some 10 tokens by itself.
    """
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    model = LlavaForConditionalGeneration(_config(tokenizer))
    says = {
        n for token, n in tokenizer.get_vocab().items() if token.removeprefix("Ġ").isalpha() and token[-1:].isascii()
    }
    generation = model.generation_config
    generation.pad_token_id, generation.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    generation.suppress_tokens = sorted({*range(len(tokenizer))} - says - {tokenizer.eos_token_id})
    generation.exponential_decay_length_penalty = (8, 1.5)
    model.save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def _config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        initializer_factor=10.0,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.5,
    )
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image, image_seq_length=16, initializer_range=0.5
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, so that it can say any Unicode, and some merges."""
    tokens = Tokenizer(BPE())
    tokens.pre_tokenizer, tokens.decoder = ByteLevel(add_prefix_space=False), Bytes()
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=340, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False)
    tokens.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
    )
