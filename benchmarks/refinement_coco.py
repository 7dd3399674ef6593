"""The protocol of benchmarks/refinement on COCO, for whoever has the images and a GPU.

    python benchmarks/refinement_coco.py --images val2017 --instances instances_val2017.json
        [--captions captions_val2017.json] [--labelled 500] [--rounds 2] [--start microsoft/Florence-2-base]
        [--config PIPELINE] [--set KEY.PATH=VALUE] [--out DIR]

The truth of some images, drawn at random, are the labels: by them scores are calibrated and rounds are judged, and none
of them is trained on. The others' truth nobody sees but this benchmark: what stands in each round is held against it,
by all measures of the gate and COCO's AP. A row a round; DIR/refinement.json has the verdicts, too.

Weights that were fine-tuned on COCO know its labels: begin with such that were not.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == HERE:  # run as `python benchmarks/refinement_coco.py`
    sys.path[0] = str(HERE.parent)

from benchmarks.refinement.setting import engine
from benchmarks.train.measures import Found, average_precision
from engine import open_dataset
from engine.atomic import read_json
from engine.config import Config, load_config
from engine.gate.measures import measure
from engine.labels import Labels, read_labels
from engine.layout import Output
from engine.records import Record


def split(path: Path, chosen: frozenset[Any], to: Path) -> None:
    """Writes what a COCO file says of the chosen images (ids) to `to`. File names stay as they are."""
    document = json.loads(path.read_text())
    document["images"] = [image for image in document["images"] if image["id"] in chosen]
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] in chosen]
    to.write_text(json.dumps(document))


def draw(path: Path, count: int, seed: int) -> frozenset[Any]:
    """So many image ids of a COCO file, at random."""
    ids = sorted(image["id"] for image in json.loads(path.read_text())["images"])
    if count >= len(ids):
        raise SystemExit(f"--labelled {count}: {path} has {len(ids)} images, and some must be left to measure by")
    return frozenset(random.Random(seed).sample(ids, count))


def row(records: Sequence[Record], truth: Labels, config: Config) -> dict[str, float | None]:
    """The gate's measures, and COCO's AP, over images whose truth is known."""
    known = [record for record in records if record.item.item_id in truth.records]
    said = [truth.records[record.item.item_id] for record in known]
    measured = measure(known, said, config)
    told: dict[str, float | None] = {name: measured.ratio(name).value for name in measured.names if "/" not in name}
    pairs = [(_found(record.standing), _found(one, crowds=False)) for record, one in zip(known, said, strict=True)]
    labels = sorted({one.label for _, true in pairs for one in true})
    told["AP"], told["AP50"] = average_precision(pairs, labels)
    return told


def _found(record: Record, crowds: bool = True) -> list[Found]:
    objects = [r for r in record.regions if r.kind == "object" and r.label and (crowds or not r.crowd)]
    scores = [r.scores.calibrated if r.scores.calibrated is not None else r.score for r in objects]
    found = [Found(r.label or "", r.box, s if s is not None else 1.0) for r, s in zip(objects, scores, strict=True)]
    return sorted(found, key=lambda one: -one.score)


def run(given: argparse.Namespace) -> dict[str, Any]:
    root = given.out.absolute()
    root.mkdir(parents=True)
    chosen = draw(given.instances, given.labelled, given.seed)
    files = [path for path in (given.instances, given.captions) if path]
    labels = [root / f"labels-{path.name}" for path in files]
    for path, to in zip(files, labels, strict=True):
        split(path, chosen, to)
    log, out = root / "engine.log", root / "out"
    config = ["--config", str(given.config)] if given.config else []
    more = [word for one in given.set for word in ("--set", one)]
    engine(["run", *config, "--images", str(given.images), "--out", str(out), *more], log)
    gate = f"gate.labels=[{', '.join(json.dumps(str(path)) for path in labels)}]"
    image_root = f"gate.image_root={json.dumps(str(given.images.absolute()))}"
    start = [] if given.start is None else ["--set", f"train.start={given.start}"]
    settings = ["--set", gate, "--set", image_root, *start]
    engine(["refine", "--out", str(out), "--rounds", str(given.rounds), *settings, *more], log)
    return told(out, files, given.images)


def told(out: Path, truth_files: Sequence[Path], images: Path) -> dict[str, Any]:
    """A row for each round, over the images that are not labelled."""
    output, config = Output(out), load_config(out / "config.yaml")
    labelled = read_labels(output, config)
    update = {"labels": tuple(map(str, truth_files)), "image_root": str(images.absolute())}
    everything = config.model_copy(update={"gate": config.gate.model_copy(update=update)})
    truth = read_labels(output, everything, Output(out.with_name("truth")))
    hidden = truth.of(truth.ids - labelled.ids)
    rows, verdicts, number = {}, {}, 0
    while number == 0 or output.round(number).manifest.exists():
        rows[f"round {number}"] = row(list(open_dataset(out, number).records()), hidden, config)
        if number:
            verdict = read_json(output.round(number).manifest)["verdict"]
            verdicts[f"round {number}"] = {key: verdict[key] for key in ("outcome", "reasons")}
        number += 1
    return {"images": len(hidden.records), "labelled": len(labelled.records), "rows": rows, "verdicts": verdicts}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder")
    parser.add_argument("--instances", type=Path, required=True)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--labelled", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--start", help="train.start; none: the configuration's")
    parser.add_argument("--config", type=Path, help="pipeline; none: the embedded one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/refinement_coco"), help="a new folder")
    given = parser.parse_args(arguments)
    found = run(given)
    (given.out / "refinement.json").write_text(json.dumps(found, indent=1))
    names = list(dict.fromkeys(name for one in found["rows"].values() for name in one))
    print(f"{'':24}" + "".join(f"{round_:>12}" for round_ in found["rows"]))
    for name in names:
        values = [one.get(name) for one in found["rows"].values()]
        print(f"{name:24}" + "".join(f"{'':>12}" if value is None else f"{value:12.3f}" for value in values))
    for round_, verdict in found["verdicts"].items():
        print(f"{round_}: {verdict['outcome']}: {verdict['reasons'][0]}")


if __name__ == "__main__":
    main()
