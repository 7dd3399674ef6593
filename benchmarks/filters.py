"""What the filters cost beside the libraries that do the work: text filters and parser, region filters and NMS.

    python benchmarks/filters.py [texts|regions] [--images 1000]

Texts: records of three texts each, one a granularity, go through the parser and then through every text filter; bare
`nlp.pipe` reads the same texts in the same batches of 256.

Regions: records of 10 to 300 regions go through `Nms`, which decides label by label and says what each box lost
against, and through all region filters of the embedded pipeline; bare `torchvision.ops.nms` gets the same boxes as
tensors that are there already: once an image without labels, and once a label of each image, which is what `Nms` has
to find out.

Always in turns, as machines drift, on one thread; the medians count.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # this folder, where engine.py would hide the package

import numpy as np

from engine.config import load_config
from engine.decide import decide
from engine.protocols import Sample
from engine.records import DETAILS, Box, Item, Record, Region, Scores, Text
from filters.language import Language
from filters.nms import Nms
from filters.text import Characters, Complexity, Length, Objects, RepeatedText, Repetition
from pipelines.build import EMBEDDED, build_pipeline
from specialists.parser import TOGETHER, UNUSED, Parser

SENTENCES = (
    "A man in a red shirt throws a frisbee.",
    "Two dogs run across the green grass behind an old wooden fence.",
    "A cup of coffee stands on the table next to a silver spoon.",
    "The astronaut smiles in front of an American flag and a model of the shuttle.",
    "People are walking down a busy street with tall buildings on both sides.",
)
FILTERS = (Length(), Characters(), Repetition(), RepeatedText(), Objects(), Complexity())
REGIONS = (10, 30, 100, 300)  # an image
LABELS = 12
WIDTH, HEIGHT = 1024, 768


def make_records(count: int) -> list[Record]:
    """Texts of one, three and six sentences, in another order for each image."""
    dice, made = random.Random(0), []
    for n in range(count):
        texts = [
            Text(id=f"0.a.{k}", source="a", text=" ".join(dice.choices(SENTENCES, k=length)), detail=detail)
            for k, (detail, length) in enumerate(zip(DETAILS, (1, 3, 6), strict=True))
        ]
        made.append(Record(Item(Item.id_of(str(n)), str(n))).append(texts))
    return made


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each work, all of them in turns; the first round, which warms up, doesn't count."""
    times = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds + 1)]
    return {name: statistics.median(some[name] for some in times[1:]) for name in works}


def texts_half(images: int) -> None:
    records = make_records(images)
    parser, image = Parser(), np.zeros((1, 1, 3), np.uint8)
    parser.setup()
    import spacy

    nlp = spacy.load(parser._package(), exclude=UNUSED)
    texts = [text.text for record in records for text in record.texts]
    samples = [Sample(image, record) for record in records]
    parsed: list[Record] = []

    def bare() -> None:
        for _ in nlp.pipe(texts, batch_size=TOGETHER):
            pass

    def ours() -> None:
        answers = parser.annotate(samples)
        parsed[:] = [record.append(answer) for record, answer in zip(records, answers, strict=True)]

    median = medians(
        {
            "bare": bare,
            "parser": ours,
            "filters": lambda: [decide(record, FILTERS) for record in parsed],
            "language": lambda: [decide(record, [Language()]) for record in parsed],  # a model of its own
        },
        rounds=5,
    )
    print(f"{len(texts)} texts of {np.mean([len(text.split()) for text in texts]):.0f} words on average")
    print(f"bare nlp.pipe              {len(texts) / median['bare']:8.0f} texts/s")
    print(f"parser                     {len(texts) / median['parser']:8.0f} texts/s")
    print(f"text filters               {len(texts) / median['filters']:8.0f} texts/s")
    print(f"language filter            {len(texts) / median['language']:8.0f} texts/s")
    together = median["parser"] + median["filters"]
    print(f"ratio parser + text filters / bare            {median['bare'] / together:5.3f}")
    print(f"ratio parser + text and language filters / bare {median['bare'] / (together + median['language']):5.3f}")


def make_regions(count: int, name: str) -> Record:
    """Objects of a dozen labels and every size, 4 in 10 of them found again: a few pixels off, and surer or less so."""
    dice, things = random.Random(name), []
    for _ in range(count - count * 4 // 10):
        width, height = (math.exp(dice.uniform(math.log(16), math.log(400))) for _ in range(2))
        x, y = dice.uniform(-10, WIDTH - width / 2), dice.uniform(-10, HEIGHT - height / 2)
        things.append(((x, y, x + width, y + height), f"label {dice.randrange(LABELS)}"))
    again = [(_moved(box, dice), label) for box, label in dice.choices(things, k=count - len(things))]
    found = dice.sample(things + again, count)
    regions = [
        Region(id=f"0.d.{n}", source="detector", kind="object", box=box, label=label, scores=Scores(label=score))
        for n, ((box, label), score) in enumerate((pair, dice.uniform(0.2, 1)) for pair in found)
    ]
    return Record(Item(Item.id_of(name), name, width=WIDTH, height=HEIGHT)).append(regions)


def _moved(box: Box, dice: random.Random) -> Box:
    x0, y0, x1, y1 = box
    dx, dy = dice.gauss(0, (x1 - x0) / 15), dice.gauss(0, (y1 - y0) / 15)
    return x0 + dx, y0 + dy, x1 + dx, y1 + dy


def regions_half(images: int) -> None:
    import torch
    from torchvision.ops import nms

    torch.set_num_threads(1)
    ours, pipeline = Nms(iou=0.5), build_pipeline(load_config(EMBEDDED)).filters
    of_regions = [filter_ for filter_ in pipeline if type(filter_).__module__ in ("filters.region", "filters.nms")]
    print(f"\nregions/s, and in brackets the ratio to the bare kernel; {len(of_regions)} region filters")
    print(f"{'':8s} {'nms':>10s} {'by label':>16s} {'Nms':>16s} {'region filters':>16s}")
    for count in REGIONS:
        records = [make_regions(count, f"{count} {n}") for n in range(max(images * 10 // count, 1))]
        whole = [_tensors(record.regions) for record in records]
        parts = [_tensors(some) for record in records for some in _by_label(record)]
        median = medians(
            {
                "bare": lambda whole=whole: [nms(*pair, 0.5) for pair in whole],
                "by label": lambda parts=parts: [nms(*pair, 0.5) for pair in parts],
                "Nms": lambda records=records: [list(ours.decide(record)) for record in records],
                "all": lambda records=records: [decide(record, of_regions) for record in records],
            },
            rounds=7,
        )
        rate = {name: count * len(records) / value for name, value in median.items()}
        ratios = "".join(f" {rate[name]:8.0f} ({rate[name] / rate['bare']:5.3f})" for name in rate if name != "bare")
        print(f"{count:3d} each {rate['bare']:10.0f}{ratios}")


def _by_label(record: Record) -> list[list[Region]]:
    labels = sorted({region.label or "" for region in record.regions})
    return [[region for region in record.regions if region.label == label] for label in labels]


def _tensors(regions: Sequence[Region]) -> tuple[Any, Any]:
    """Boxes [regions, 4] and scores [regions]."""
    import torch

    boxes, scores = [region.box for region in regions], [region.scores.label for region in regions]
    return torch.tensor(boxes), torch.tensor(scores)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("half", nargs="?", choices=("texts", "regions"), help="only this half")
    arguments.add_argument("--images", type=int, default=1000)
    given = arguments.parse_args()
    if given.half != "regions":
        texts_half(given.images)
    if given.half != "texts":
        regions_half(given.images)


if __name__ == "__main__":
    main()
