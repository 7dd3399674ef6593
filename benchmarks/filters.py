"""What the parser and the text filters cost beside spaCy alone.

    python benchmarks/filters.py [--images 1000]

Records of three texts each, one a granularity, go through the parser and then through every text filter; bare
`nlp.pipe` reads the same texts in the same batches of 256. Both in turns, as machines drift; the medians count.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # this folder, where engine.py would hide the package

import numpy as np

from engine.decide import decide
from engine.protocols import Sample
from engine.records import DETAILS, Item, Record, Text
from filters.text import Characters, Complexity, Length, Objects, RepeatedText, Repetition
from specialists.parser import TOGETHER, UNUSED, Parser

SENTENCES = (
    "A man in a red shirt throws a frisbee.",
    "Two dogs run across the green grass behind an old wooden fence.",
    "A cup of coffee stands on the table next to a silver spoon.",
    "The astronaut smiles in front of an American flag and a model of the shuttle.",
    "People are walking down a busy street with tall buildings on both sides.",
)
FILTERS = (Length(), Characters(), Repetition(), RepeatedText(), Objects(), Complexity())


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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=1000)
    records = make_records(arguments.parse_args().images)
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

    times: dict[str, list[float]] = {"bare": [], "parser": [], "filters": []}
    for _ in range(3):
        times["bare"].append(seconds(bare))
        times["parser"].append(seconds(ours))
        times["filters"].append(seconds(lambda: [decide(record, FILTERS) for record in parsed]))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{len(texts)} texts of {np.mean([len(text.split()) for text in texts]):.0f} words on average")
    print(f"bare nlp.pipe              {len(texts) / median['bare']:8.0f} texts/s")
    print(f"parser                     {len(texts) / median['parser']:8.0f} texts/s")
    print(f"text filters alone         {len(texts) / median['filters']:8.0f} texts/s")
    print(f"ratio parser + filters / bare {median['bare'] / (median['parser'] + median['filters']):5.3f}")


if __name__ == "__main__":
    main()
