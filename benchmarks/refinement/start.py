"""The start of the models that are refined: trained on another world's truth, as the paper starts from UniCL and BART.

    python -m benchmarks.refinement.start --minutes 120 --to benchmarks/refinement/start

Its tokenizer knows the words of both worlds, as BART's knows those of whatever a Florence-2 is trained on; what HERE's
mean, and how anything of it looks, nobody tells the model. `--earlier` goes on from an earlier one: the shipped start
had 75 minutes with the first six shapes of THERE, up to five a picture, and after that 42 with all of them, three at
most; it is the last checkpoint of these.
"""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import chain
from pathlib import Path

import torch

from benchmarks.refinement.worlds import HERE, THERE
from benchmarks.train.curve import Course, curve, table
from benchmarks.train.step import TEXTS, texts_of
from engine.config import Config, load_config
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.tasks import Task
from florence2.tokens import Tokens
from florence2.training.start import start_from_scratch
from pipelines.training.settings import settings_of

WORDS = 999  # the seed of pictures whose words are the tokenizer's: of none that anything is measured by


def beginning(folder: Path, config: Config, earlier: Path | None) -> Path:
    """An untrained model, or an earlier one, with a tokenizer for both worlds."""
    settings, size = settings_of(config), (HERE.size[1], HERE.size[0])
    told = (texts_of(world.picture(WORDS, n)) for world in (THERE, HERE) for n in range(TEXTS))
    texts = [*(task.sentence for task in Task), *chain.from_iterable(told), *HERE.vocabulary, *HERE.labels]
    tokens = Tokens.train(texts, settings.train.vocabulary_size)
    layout = settings.preset.with_vocabulary(tokens.size)
    model = Florence2(layout)
    start_from_scratch(model, settings.train.seed, side=-(-max(size) // layout.vision.stride))
    if earlier:
        take(model, tokens, earlier)
    model.save_pretrained(folder)
    Processor.for_model(layout, tokens, size).save_pretrained(folder)
    return folder


@torch.no_grad()
def take(model: Florence2, tokens: Tokens, earlier: Path) -> None:
    """The weights of an earlier model; of its words those that both tokenizers have."""
    theirs, known = Florence2.from_pretrained(earlier), ids_of(Processor.from_pretrained(earlier).tokens)
    table, words = model.language_model.shared.weight, theirs.language_model.shared.weight
    body = {name: one for name, one in theirs.state_dict().items() if one.shape[:1] != words.shape[:1]}
    model.load_state_dict(body, strict=False)
    for piece, id_ in ids_of(tokens).items():
        if piece in known:
            table[id_] = words[known[piece]]


def ids_of(tokens: Tokens) -> dict[str, int]:
    document = json.loads(tokens.to_json())
    return document["model"]["vocab"] | {added["content"]: added["id"] for added in document["added_tokens"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--scenes", type=int, default=30_000)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--earlier", type=Path, help="the folder of an earlier start to go on from")
    parser.add_argument("--work", type=Path, default=Path("out/start"), help="a new or empty folder")
    parser.add_argument("--to", type=Path, default=Path(__file__).with_name("start"))
    given = parser.parse_args()
    config = load_config(Path(__file__).with_name("start.yaml"))
    root = given.work.absolute()
    begun = beginning(root / "beginning", config, given.earlier)
    config = config.model_copy(update={"train": config.train.model_copy(update={"start": str(begun)})})
    course = Course(root, THERE, config, given.scenes, given.held_out, given.minutes)
    result = curve(course)
    print(table(result))
    (course.root / "curve.json").write_text(json.dumps(result, indent=1, default=str))
    made = course.output.round(0).model()
    model = made if made.exists() else max(course.models.glob("step-*"))  # its time was over before its steps were
    given.to.mkdir(parents=True, exist_ok=True)
    for path in sorted(model.iterdir()):
        if path.is_file():
            shutil.copy(path, given.to / path.name)
    print(f"{sum(path.stat().st_size for path in given.to.iterdir()) / 1e6:.1f} MB in {given.to}")


if __name__ == "__main__":
    main()
