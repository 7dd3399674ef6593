"""A tiny model and something for it to learn: eight images of noise, each with an example of all fifteen tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from florence import small_tokens
from torch import Tensor, nn

from florence2 import Florence2, Florence2Config, Processor, Task, ask
from florence2.codec import Annotation, encode
from florence2.config import TextConfig, VisionConfig
from florence2.examples import Example
from florence2.tasks import Form
from florence2.training import Batch, Recipe, Row, Trainer, tokenise

SIDE = 64  # pixels
NOUNS = ("dog", "car", "cup", "table", "spoon", "river", "window", "plate")
VISION = VisionConfig(
    depths=(1, 1, 1, 1),
    embed_dim=(16, 32, 48, 64),
    num_heads=(1, 2, 3, 4),
    num_groups=(1, 2, 3, 4),
    patch_stride=(4, 2, 2, 1),
    window_size=4,
    drop_path_rate=0.0,
    projection_dim=96,
)
TEXT = TextConfig(
    d_model=96,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=192,
    decoder_ffn_dim=192,
    max_position_embeddings=128,
    init_std=0.1,
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0),
)
TINY = Florence2Config(VISION, TEXT).with_vocabulary(small_tokens().size)
PROCESSOR = Processor.for_model(TINY, small_tokens(), (SIDE, SIDE))


def tiny(seed: int = 0, dropout: float = 0.0, **text: Any) -> Florence2:
    """Half a million parameters. With `dropout` also that of paths."""
    kinds = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), dropout)
    vision = replace(VISION, drop_path_rate=dropout)
    torch.manual_seed(seed)
    return Florence2(replace(TINY, vision=vision, text=replace(TINY.text, **kinds, **text)))


def picture(n: int) -> Tensor:
    """[3, SIDE, SIDE] uint8, other blocks of colour for each n."""
    blocks = torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    return blocks.repeat_interleave(SIDE // 4, 1).repeat_interleave(SIDE // 4, 2)


def examples(n: int) -> list[Example]:
    """One of each task, other answers for each of eight n."""
    noun, other = NOUNS[n], NOUNS[(n + 3) % 8]
    box, small = (4.0 + n, 8.0, 40.0 + 2 * n, 60.0), (20.0, 2.0 + 3 * n, 30.0, 36.0 + n)
    ring = (8.0, 8.0 + n, 50.0, 8.0, 50.0, 50.0 - n)
    one, two = Annotation(noun, box, polygons=(ring,)), Annotation(other, small)
    line = Annotation(f"{noun} {n}", quad=(4.0, 4.0, 40.0 + n, 4.0, 40.0 + n, 12.0, 4.0, 12.0))
    inputs: dict[Task, Any] = {
        Task.CAPTION_TO_PHRASE_GROUNDING: f"a {noun} beside a {other}",
        Task.REFERRING_EXPRESSION_SEGMENTATION: f"the {noun}",
        Task.OPEN_VOCABULARY_DETECTION: noun,
        **{task: box for task in Task if task.takes_region},
    }
    said: dict[Form, Any] = {
        Form.LABELLED_BOXES: [one, two],
        Form.LABELLED_QUADS: [line],
        Form.BOXES: [one, two],
        Form.POLYGONS: [one],
        Form.BOXES_OR_POLYGONS: [replace(one, polygons=None)],
    }
    size, found = (SIDE, SIDE), []
    for number, task in enumerate(Task):
        text = f"a {noun} and a {other}, {number}"
        prompt = ask(task, inputs.get(task), size)
        found.append(Example(task, prompt, encode(task.form, said.get(task.form, text), size)))
    return found


def rows(n: int) -> list[Row]:
    return [tokenise(example, small_tokens()) for example in examples(n)]


def batch(*numbers: int, tasks: int = 15) -> Batch:
    """Of some of the eight images, each with its first `tasks` rows."""
    return Batch.of(
        [picture(n) for n in numbers], [rows(n)[:tasks] for n in numbers], [f"image-{n}" for n in numbers], PROCESSOR
    )


def recipe(**options: Any) -> Recipe:
    return Recipe(**{"steps": 20, "learning_rate": 1e-3, "schedule": "constant"} | options)


def gentle() -> Recipe:
    """AdamW divides a gradient by its size: one that is zero but for rounding moves its weight by the whole rate."""
    return recipe(learning_rate=1e-5, clip_norm=float("inf"))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def farthest(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def assert_same_step(one: Trainer, two: Trainer) -> None:
    """The same weights after `gentle` steps, and before AdamW divides them the same gradients.

    But for the bias of keys: it adds the same to all logits of a query, so that its gradient is rounding alone.
    """
    found = [{k: v for k, v in weights(t.model).items() if "k_proj.bias" not in k} for t in (one, two)]
    assert farthest(*found) < 1e-6
    left, right = one.optimiser.state(), two.optimiser.state()
    for name in (name for name in left if name.startswith("exp_avg:")):
        torch.testing.assert_close(
            left[name], right[name], rtol=1e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
