"""A small Florence-2 that knows a few answers by heart, made in seconds: where a random one would only babble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from florence import small_tokens
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from florence2 import Florence2, Florence2Config, Processor, Prompt

SIDE = 64  # px of what it sees


def untrained(seed: int = 0) -> tuple[Florence2, Processor]:
    """0.4 million parameters, most of them for the words of `small_tokens`."""
    torch.manual_seed(seed)
    config = Florence2Config.preset("nano")
    vision = replace(
        config.vision,
        depths=(1, 1, 1, 1),
        embed_dim=(16, 16, 32, 64),
        num_heads=(1, 1, 2, 2),
        num_groups=(1, 1, 2, 2),
        drop_path_rate=0.0,
        projection_dim=64,
    )
    text = replace(
        config.text,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_position_embeddings=256,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    )
    config = Florence2Config(vision, text, None).with_vocabulary(small_tokens().size)
    return Florence2(config), Processor.for_model(config, small_tokens(), (SIDE, SIDE))


def memorised(answers: Mapping[Prompt, str], steps: int = 100, seed: int = 0) -> tuple[Florence2, Processor]:
    """Gives these answers, as they are written, to these prompts, whatever the image."""
    model, processor = untrained(seed)
    tokens = processor.tokens
    rows = [torch.tensor(tokens.sentence(answer)) for answer in answers.values()]
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    input_ids, mask = processor.prompts(list(answers))
    images = processor.images([Image.new("RGB", (SIDE, SIDE), colour) for colour in ("grey", "white", "red", "black")])
    with torch.no_grad():
        encoded = model.encode_image(images)
    optimiser = torch.optim.AdamW(model.language_model.parameters(), lr=8e-3)
    for step in range(steps):
        features = encoded[step % len(images)].expand(len(rows), -1, -1)
        loss = model.loss(features, input_ids, mask, labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.language_model.parameters(), 1.0)
        optimiser.step()
    return model, processor


def saved(folder: Path, made: tuple[Florence2, Processor]) -> Path:
    """As a trained model lies in its folder."""
    for part in made:
        part.save_pretrained(folder)
    return folder
