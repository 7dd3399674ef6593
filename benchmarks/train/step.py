"""A training step of ours beside transformers', on the same images, rows and weights, taking turns.

transformers' model encodes an image anew for each of its rows; ours once. So there are two comparisons: with the tasks
an image that the configuration has, and with one, where nothing can be shared. Both step in float32 by a fused AdamW,
with clipping; batches are ready before the time is taken.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.florence2 import Plan, Prepare, Run, Setting, Work, theirs, turns
from benchmarks.florence2 import table as table_of_runs
from benchmarks.world import Picture, World, tell
from benchmarks.world.scenes import scene_of
from engine.config import Config
from florence2.model import Florence2
from florence2.processor import Processor, resized
from florence2.targets import fit
from florence2.training import Batch, Recipe, Trainer, tokenise
from pipelines.training.census import Census
from pipelines.training.scratch import scratch
from pipelines.training.settings import ReadyPhase, Settings, settings_of
from pipelines.training.worker import MOST_ANSWER

BATCHES = 8  # that a contender goes through, again and again
TEXTS = 500  # scenes whose texts make the tokenizer
BATCH_FILE, RECIPE_FILE = "batches.pt", "recipe.pt"


def step(world: World, config: Config, folder: Path, threads: int, repeats: int) -> dict[str, Any]:
    """Prints a table for each comparison; their seconds, by the number of tasks an image."""
    settings = settings_of(config)
    size = prepare_model(world, settings, folder / "model")
    found = {}
    for tasks in sorted({settings.phases[0].config.tasks_per_image, 1}, reverse=True):
        here = folder / f"tasks-{tasks}"
        prepare_batches(world, settings.phases[0], tasks, folder / "model", here)
        images = settings.phases[0].config.images_per_step
        setting = Setting(here, "nano", size, images, tokens=0, threads=threads, quick=False)
        runs = turns(CONTENDERS, setting, Plan(repeats, warm=2, skip=()))
        table_of_runs(f"a training step: {images} images at {size} px, {tasks} tasks each, {threads} threads", runs)
        check(runs)
        found[f"tasks_{tasks}"] = {name: described(done) for name, done in runs.items()}
    return found


def described(done: list[Run]) -> dict[str, Any]:
    seconds = [run.seconds for run in done]
    return {
        "median": median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "peak_mb": max(r.peak for r in done),
    }


def check(runs: dict[str, list[Run]]) -> None:
    """SystemExit unless both had the same loss before the first step, without dropout: else they did other work."""
    ours, others = (runs[name][0].result for name in CONTENDERS)
    print(f"loss before the first step, without dropout: {ours:.5f} and {others:.5f}")
    if abs(ours - others) > 1e-4 * ours:
        raise SystemExit("the losses differ: so does the work")


# --- what both are given ----------------------------------------------------------------------------------------------


def prepare_model(world: World, settings: Settings, folder: Path) -> int:
    """A new model as the stage would make it, and its image size."""
    texts = [text for n in range(TEXTS) for text in texts_of(world.picture(0, n))]
    scratch(settings, Census(texts=texts), folder)
    return max(Processor.from_pretrained(folder).size)


def texts_of(picture: Picture) -> Iterator[str]:
    yield from (told.text for told in tell(picture))
    yield from (word.text for word in picture.words)
    yield from (shape.label for shape in picture.shapes)


def prepare_batches(world: World, phase: ReadyPhase, tasks: int, model: Path, folder: Path) -> None:
    """The model's files, the batches and the recipe in a folder that both sides read."""
    folder.mkdir(parents=True)
    for path in model.iterdir():
        (folder / path.name).hardlink_to(path)
    processor, count = Processor.from_pretrained(model), phase.config.images_per_step
    indices = [range(n, n + count) for n in range(0, BATCHES * count, count)]
    torch.save([batch_of(world, phase, tasks, processor, some) for some in indices], folder / BATCH_FILE)
    torch.save(replace(phase.recipe, precision="fp32", location_smoothing=0.0), folder / RECIPE_FILE)


def batch_of(world: World, phase: ReadyPhase, tasks: int, processor: Processor, indices: range) -> Batch:
    """Without noise objects and weights of single tokens, which transformers' loss doesn't have."""
    targets = replace(phase.targets, model_size=max(processor.size), noise=0)
    height, width = processor.size
    pixels, rows = [], []
    for index in indices:
        picture, rng = world.picture(0, index), random.Random(index)
        drawn = phase.mix.draw(scene_of(picture), targets, tasks, rng)
        fitted = [fit(example, processor.tokens, MOST_ANSWER)[0] for example in drawn]
        rows.append([tokenise(example, processor.tokens) for example in fitted])
        image = resized(Image.fromarray(picture.pixels), 0, (width, height), processor.resample)
        pixels.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return Batch.of(pixels, rows, [str(index) for index in indices], processor)


def given(setting: Setting) -> tuple[list[Batch], Recipe]:
    batches, recipe = (torch.load(setting.folder / name, weights_only=False) for name in (BATCH_FILE, RECIPE_FILE))
    return batches, recipe  # pickled a moment ago, by ourselves


# --- the contenders ---------------------------------------------------------------------------------------------------


def our_step(setting: Setting) -> Work:
    batches, recipe = given(setting)
    trainer = Trainer(Florence2.from_pretrained(setting.folder), recipe)
    losses = trainer.evaluate(batches[:1]).values()
    first: float = sum(one.loss * one.tokens for one in losses) / sum(one.tokens for one in losses)

    def work() -> float:
        trainer.step([batches[trainer.done % len(batches)]])
        return first

    return work


def their_step(setting: Setting) -> Work:
    """A row is an image with a prompt, as in fine-tuning scripts; rows are padded to the longest."""
    (model, _), (batches, recipe) = theirs(setting), given(setting)
    inputs = [native(batch, model) for batch in batches]
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    with torch.no_grad():
        first, done = float(model(**inputs[0]).loss), 0
    model.train()

    def work() -> float:
        nonlocal done
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(done)
        loss = model(**inputs[done % len(inputs)]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        done += 1
        loss.item()  # as ours reports it
        return first

    return work


def native(batch: Batch, model: Any) -> dict[str, torch.Tensor]:
    """transformers wants <image> in front of the prompt, once for each token of the image."""
    with torch.no_grad():
        count = model.get_image_features(batch.pixel_values[:1]).pooler_output.shape[1]
    image = torch.full((len(batch), count), model.config.image_token_id)
    return {
        "pixel_values": batch.pixel_values[batch.image_of_row],
        "input_ids": torch.cat([image, batch.input_ids], dim=1),
        "attention_mask": torch.cat([torch.ones_like(image), batch.attention_mask], dim=1),
        "labels": batch.labels,
    }


CONTENDERS: dict[str, Prepare] = {"ours": our_step, "transformers": their_step}
