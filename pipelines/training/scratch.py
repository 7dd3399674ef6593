"""A model that knows nothing yet, and a tokenizer for the words of its round."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.atomic import is_there
from engine.copies import moved, near
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.tasks import Task
from florence2.tokens import Tokens
from florence2.training.start import start_from_scratch
from florence2.training.state import disk_errors
from pipelines.training.census import Census
from pipelines.training.settings import Settings

SIDE = {"nano": 96, "pico": 64}  # px, where the configuration says no size
RELEASED_SIDE = 768
LAST = "processor_config.json"


def scratch(settings: Settings, counted: Census, folder: Path) -> Path:
    """Becomes `folder`, unless it is there already: a training that goes on keeps its tokens."""
    if is_there(folder / LAST):
        return folder
    texts = [task.sentence for task in Task] + sorted(counted.texts)
    tokens = Tokens.train(texts, settings.train.vocabulary_size)
    config = settings.preset.with_vocabulary(tokens.size)
    size = settings.phases[0].config.size
    assert size is not None  # see Settings.at
    model = Florence2(config)
    start_from_scratch(model, settings.train.seed, side=-(-max(size) // config.vision.stride))
    aside = near(folder).with_name(f".{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    with disk_errors(folder):
        model.save_pretrained(aside)
        Processor.for_model(config, tokens, size).save_pretrained(aside)
    moved(aside, folder, LAST)
    return folder
