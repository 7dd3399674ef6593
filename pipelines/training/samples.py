"""Sample answers as pictures: what the model says of a few images while it is trained, for a person to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from engine.atomic import aside, write_text
from florence2.annotate import Annotator
from florence2.draw import draw
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.tasks import Task
from pipelines.training.stream import Prepared

ASKED = (Task.OD, Task.CAPTION, Task.OCR_WITH_REGION)  # one picture has room for these
MOST_TOKENS = 200  # an untrained model would write to the end of its positions


def draw_samples(
    model: Florence2, processor: Processor, images: Sequence[Prepared], tasks: Sequence[Task], folder: Path, step: int
) -> None:
    """Asks `tasks` of the images, as the model sees them, and replaces the pictures in `folder` by these."""
    annotator = Annotator(model, processor, num_beams=1, max_new_tokens=MOST_TOKENS)
    pictures = [Image.fromarray(image.pixels) for image in images]
    asked = [task for task in ASKED if task in tasks]
    lines = []
    for number, answers in enumerate(annotator.stream(pictures, asked) if asked else ()):
        with aside(folder / f"{number}.jpg") as file:
            draw(pictures[number], answers).convert("RGB").save(file, "JPEG", quality=85)
        said = {str(answer.task): answer.text for answer in answers}
        lines.append({"picture": f"{number}.jpg", "item": images[number].item_id.hex(), "step": step, "said": said})
    write_text(folder / "samples.json", json.dumps(lines, indent=2, ensure_ascii=False) + "\n")
