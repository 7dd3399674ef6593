"""Does refinement make labels better? The real stages on a world whose whole truth is known.

    python -m benchmarks.refinement [--images 2500] [--labelled 600] [--steps 1500] [--rounds 2] [--seeds 0]
                                    [--out DIR] [--parts refine fusion shuffled defaults start labels long raw truth]

refine    `engine run` with specialists that have stated faults (pipeline.yaml), then `engine refine`, in which a second
          detector and two more readers take part beside the model; all rows that can be told from its rounds
fusion    the same specialists without the model: round 1 is merged from both detectors and all readers
shuffled  round 1, and then people's labels, of one image beside another: the gate must refuse both
defaults  round 1 merged by the thresholds that are the defaults, and not by the pipeline's
start     what the start model says, before it learned anything of these images
labels    a student that learns the labelled images alone, which nobody else learns
long      one round, with the steps of all
raw       a student that learns what no filter looked at
truth     a student that learns the whole truth: what these steps can give at best

Of each round two models are trained. What is printed is of
all images but the labelled ones. Results are written to DIR/refinement.json.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.refinement.faults import by_fault, letters, off, repaired
from benchmarks.refinement.faulty import Detector, Reader
from benchmarks.refinement.rows import index_of, only, oracle, raw, row
from benchmarks.refinement.setting import IMAGES, PIPELINE, draw, engine, label
from benchmarks.refinement.telling import FAULTS, FUSION, plot, table
from benchmarks.refinement.worlds import HERE
from benchmarks.world import Picture
from engine import open_dataset
from engine.atomic import read_json
from engine.config import Merge, load_config
from engine.gate.drift import Habits
from engine.gate.verdict import judge
from engine.labels import read_labels
from engine.layout import Output
from engine.records import Record

START = Path(__file__).with_name("start")
SMALL = 0.25
PARTS = ("refine", "fusion", "shuffled", "defaults", "start", "labels", "long", "raw", "truth")
FAULTY = {"specialists": ("detector", "ocr", "captioner"), "reannotate.specialists": ("second", "reader", "third")}


@dataclass
class Bench:
    """One seed."""

    root: Path
    seed: int
    images: int
    labelled: int
    steps: int
    rounds: int
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.root / "engine.log"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def prepare(self) -> None:
        self.pictures = draw(self.root, HERE, self.seed, self.images)
        some = sorted(random.Random(self.seed).sample(range(self.images), self.labelled))
        label(self.root, self.pictures, some)
        self.judged = frozenset(some)
        started = time.monotonic()
        images = ["--images", str(self.root / IMAGES)]
        self.engine("run", "--config", str(PIPELINE), *images, settings=self.seeds)
        self.seconds["annotate"] = time.monotonic() - started

    def engine(self, *arguments: str, out: Path | None = None, settings: Sequence[str] = ()) -> None:
        to = ["--out", str(out or self.out)] if arguments[0] != "diff" else []
        engine([*arguments, *to, *(word for one in settings for word in ("--set", one))], self.log)

    @property
    def seeds(self) -> list[str]:
        """Of the pictures that specialists know, and of their faults."""
        return [
            f"{section}.{name}.{key}={self.seed}"
            for section, names in FAULTY.items()
            for name in names
            for key in ("seed", "scenes")
        ]

    def again(self, *names: str, **changes: Any) -> str:
        """That images are annotated again by these alone."""
        those = load_config(Output(self.out).config).reannotate.specialists
        return f"reannotate.specialists={json.dumps({name: those[name] | changes for name in names})}"

    @property
    def settings(self) -> list[str]:
        start = str(START) if START.exists() else "pico"
        labels = f"gate.labels=[{self.root / 'labels.json'},{self.root / 'label_captions.json'}]"
        steps = [f"train.steps={self.steps}", f"train.checkpoint_steps={max(self.steps // 2, 1)}"]
        warm_up = f"train.recipe.warmup_steps={min(200, self.steps // 10)}"
        return [labels, f"train.start={start}", *steps, warm_up, f"train.seed={self.seed}"]

    def parameters(self, name: str) -> dict[str, Any]:
        """Of a specialist, as the pipeline has them."""
        there = load_config(Output(self.out).config).specialists[name] or {}
        return {name: value for name, value in there.items() if name != "use"}

    @cached_property
    def detector(self) -> Detector:
        return Detector(**self.parameters("detector"))

    @cached_property
    def reader(self) -> Reader:
        return Reader(**self.parameters("ocr"))

    def records(self, number: int, out: Path | None = None) -> list[Record]:
        """Of the images that are not labelled."""
        there = open_dataset(out or self.out, number).records()
        return [record for record in there if index_of(record) not in self.judged and not record.item.duplicate_of]

    def measure(self, name: str, records: Sequence[Record]) -> None:
        pictures = [self.pictures[index_of(record)] for record in records]
        self.rows[name] = row(records, pictures, HERE.rare_shapes, SMALL) | self.faults(records, pictures)
        print(
            f"{name:32}"
            + "".join(f"{self.rows[name][key]:8.3f}" for key in ("f1", "boxes", "ap", "f1 rare", "f1 small")),
            flush=True,
        )

    def faults(self, records: Sequence[Record], pictures: Sequence[Picture]) -> dict[str, float | None]:
        """What became of each kind of them."""
        made = [self.detector.faults(record) for record in records]
        told = by_fault(records, pictures, made) | letters(records, pictures, self.reader.confused)
        return told | {"too far right and below": off(records, pictures)}

    def refine(self) -> None:
        rounds = (
            "[" + ", ".join(["{images: all}", *["{images: all, train: {start: previous}}"] * (self.rounds - 1)]) + "]"
        )
        started = time.monotonic()
        self.engine("refine", "--rounds", str(self.rounds), settings=[*self.settings, f"refine.rounds={rounds}"])
        self.seconds["refine"] = time.monotonic() - started
        before = self.records(0)
        pictures = [self.pictures[index_of(record)] for record in before]
        self.measure("raw", [raw(record) for record in before])
        self.measure("filtered", before)
        for number in range(1, self.rounds + 1):
            path = Output(self.out).round(number).manifest
            if not path.exists():
                break
            manifest = read_json(path)
            self.verdicts[f"round {number}"] = {k: manifest["verdict"][k] for k in ("outcome", "reasons")}
            after = self.records(number)
            self.measure(f"student of round {number}", [only(record, "florence2") for record in after])
            self.measure(f"round {number}", after)
            self.rows[f"round {number}"] |= {
                f"wrong labels {k}": v for k, v in repaired(before, after, pictures).items()
            }
            best = [oracle(a, b, p) for a, b, p in zip(self.records(number - 1), after, pictures, strict=True)]
            self.measure(f"oracle merge of round {number}", best)

    def fusion(self) -> None:
        """Round 1 by a second detector, without a model."""
        out = self.without_rounds("fusion")
        specialists = self.again("second", "reader", "third")
        self.engine("run", "--stage", "reannotate", out=out, settings=[specialists])
        self.engine("run", "--stage", "merge", "--round", "1", out=out, settings=[specialists, self.settings[0]])
        self.measure(FUSION, self.records(1, out))

    def shuffled(self) -> None:
        """The gate about round 1 with other images' annotations; and merging and gate with labels that say nothing."""
        self.verdicts["shuffled annotations"] = self.sabotaged()
        out = self.root / "shuffled"
        shutil.copytree(
            self.out, out, ignore=shutil.ignore_patterns("round-2", "merge", "round.json", "labels", "training")
        )
        label(self.root, self.pictures, sorted(self.judged), shuffled=True)
        try:
            self.engine("run", "--stage", "merge", "--round", "1", out=out, settings=[self.settings[0]])
        finally:
            label(self.root, self.pictures, sorted(self.judged))
        manifest = read_json(Output(out).round(1).manifest)
        self.verdicts["shuffled labels"] = {k: manifest["verdict"][k] for k in ("outcome", "reasons")}
        self.measure("shuffled labels", self.records(1, out))

    def sabotaged(self) -> dict[str, Any]:
        config = load_config(Output(self.out).config, [self.settings[0]])
        labels = read_labels(Output(self.out), config).records
        before, after = (
            [record for record in open_dataset(self.out, number).records() if record.item.item_id in labels]
            for number in (0, 1)
        )
        others = random.Random(0).sample(after, len(after))
        moved = [replace(other, item=record.item) for other, record in zip(others, after, strict=True)]
        habits = Habits(), Habits()
        for one, records in zip(habits, (before, moved), strict=True):
            for record in records:
                one.add(record)
        told = judge(before, moved, [labels[record.item.item_id] for record in before], config, habits).told()
        return {k: told[k] for k in ("outcome", "reasons")}

    def defaults(self) -> None:
        out = self.root / "defaults"
        shutil.copytree(self.out, out, ignore=shutil.ignore_patterns("round-2", "merge", "round.json"))
        usual = [f"merge.{name}={getattr(Merge(), name)}" for name in ("enter", "fall", "min_matches")]
        self.engine("run", "--stage", "merge", "--round", "1", out=out, settings=[self.settings[0], *usual])
        self.measure("round 1, default thresholds", self.records(1, out))

    def labels(self) -> None:
        few, out = self.root / "few", self.without_rounds("labels")
        images = [word for name in ("labels", "label_captions") for word in ("--images", f"{self.root / name}.json")]
        nobody = ["specialists={}", "filters={}", "train.exhaustive={human: all}"]
        self.engine("run", "--config", str(PIPELINE), *images, out=few, settings=nobody)
        self.engine("run", "--stage", "train", out=few, settings=[*self.settings[1:], "train.folds=1"])
        model = str(Output(few).round(0).model())
        specialists = self.again("florence2", model=model, verify=False, rename=False)
        self.engine("run", "--stage", "reannotate", out=out, settings=[specialists])
        self.measure("student on the labelled images", [only(record, "florence2") for record in self.records(1, out)])

    def start(self) -> None:
        out = self.without_rounds("start")
        specialists = self.again("florence2", model=str(START), verify=False, rename=False)
        self.engine("run", "--stage", "reannotate", out=out, settings=[specialists])
        self.measure("start model", [only(record, "florence2") for record in self.records(1, out)])

    def long(self) -> None:
        out = self.without_rounds("long")
        steps = [f"train.steps={self.steps * self.rounds}", f"train.checkpoint_steps={self.steps}"]
        self.engine(
            "refine", "--rounds", "1", out=out, settings=[*self.settings, *steps, "refine.rounds=[{images: all}]"]
        )
        self.measure("one round, all steps", self.records(1, out))

    def raw(self) -> None:
        out = self.without_rounds("raw")
        self.engine("run", "--stage", "filter", out=out, settings=["filters={}"])
        self.engine("run", "--stage", "reannotate", out=out, settings=[*self.settings, self.again("florence2")])
        self.measure("student on raw", [only(record, "florence2") for record in self.records(1, out)])

    def truth(self) -> None:
        out = self.root / "truth"
        files = label(self.root, self.pictures, range(self.images), name="truth")
        images = [word for path in files for word in ("--images", str(path))]
        nobody = ["specialists={}", "filters={}", "train.exhaustive={human: all}"]
        self.engine("run", "--config", str(PIPELINE), *images, out=out, settings=nobody)
        self.engine("run", "--stage", "reannotate", out=out, settings=[*self.settings, self.again("florence2")])
        self.measure("student on truth", [only(record, "florence2") for record in self.records(1, out)])

    def without_rounds(self, name: str) -> Path:
        out = self.root / name
        shutil.copytree(self.out, out, ignore=shutil.ignore_patterns("round-[1-9]*", "model", "training", "labels"))
        return out

    def told(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "images": self.images,
            "labelled": self.labelled,
            "steps": self.steps,
            "seconds": self.seconds,
            "verdicts": self.verdicts,
            "rows": self.rows,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="refinement", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--labelled", type=int, default=600)
    parser.add_argument("--steps", type=int, default=1500, help="of each model")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:3])
    parser.add_argument("--out", type=Path, default=Path("out/refinement"), help="a new or empty folder")
    given = parser.parse_args()
    results = []
    for seed in given.seeds:
        root = (given.out / f"seed-{seed}").absolute()
        root.mkdir(parents=True)
        bench = Bench(root, seed, given.images, given.labelled, given.steps, given.rounds)
        print(f"{'seed ' + str(seed):32}" + "".join(f"{key:>8}" for key in ("f1", "boxes", "ap", "rare", "small")))
        bench.prepare()
        for part in PARTS:
            if part in given.parts:
                getattr(bench, part)()
        results.append(bench.told())
        (given.out / "refinement.json").write_text(json.dumps(results, indent=1))
        (given.out / "refinement.md").write_text(f"{table(results)}\n\n{table(results, FAULTS)}\n")
        plot(results, given.out / "refinement.svg")
        for name, verdict in bench.verdicts.items():
            print(f"{name}: {verdict['outcome']}: {verdict['reasons'][0]}")


if __name__ == "__main__":
    main()
