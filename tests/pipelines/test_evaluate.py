"""Each row of an evaluation is what one counts by hand; a truth that does not fit is said to, and why."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import disks
import numpy as np
import pytest
from command import Call
from ingesting import Killed
from judged import HEIGHT, WIDTH, Judged, coco, pictures, regions, several
from rich.console import Console

from engine.config import Config, Ingest
from engine.dataset import open_dataset
from engine.errors import ConfigError, OutputError
from engine.geometry import encode_mask
from engine.layout import LOCK
from engine.records import (
    HUMAN,
    AnyAnnotation,
    Box,
    Detail,
    ItemError,
    Mask,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
)
from engine.storage import read_records, write_annotations, write_decisions, write_table
from engine.vocabulary import ClassEntry, Vocabulary
from florence2.evaluation.captions import caption_scores
from florence2.evaluation.detection import Objects, average_precision
from pipelines.evaluating import Evaluation
from pipelines.evaluation.listed import listed_classes
from pipelines.evaluation.table import print_evaluation

DOG, CAT, COW = (10.0, 10.0, 40.0, 40.0), (50.0, 20.0, 90.0, 70.0), (5.0, 50.0, 30.0, 75.0)
NAMES = [f"{n}.png" for n in range(4)]
TRUTH: list[dict[str, Any]] = [
    {"image": "0.png", "label": "dog", "bbox": DOG},
    {"image": "0.png", "label": "cat", "bbox": CAT},
    {"image": "1.png", "label": "dog", "bbox": COW},
    {"image": "2.png", "label": "dog", "bbox": CAT},
    {"image": "2.png", "label": "dog", "bbox": DOG},
]


def moved(box: Box, x: float, y: float = 0.0) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return pictures(tmp_path / "images", 4)


@pytest.fixture
def judged(images: Path, tmp_path: Path) -> Judged:
    """ "sure" has scores and errs, "mute" has none. Round 1 adds what "later" found and takes one of "sure"'s away."""
    made = Judged.of(images, tmp_path / "out")
    made.round(
        {
            0: several(
                regions("sure", ("Dog", moved(DOG, 2), 0.9), ("cat", moved(CAT, 30), 0.8), ("dog", CAT, 0.3)),
                regions("mute", ("cat", CAT), ("dog", DOG)),
            ),
            1: several(regions("sure", ("dog", COW, 0.6)), regions("mute", ("cat", COW))),
            2: several(regions("sure", ("dog", CAT, 0.7), ("dog", moved(CAT, 1), 0.65)), regions("mute", ("dog", DOG))),
            3: regions("sure", ("dog", DOG, 0.95)),
        }
    )
    made.round(
        {2: regions("later", ("dog", DOG, 0.5))},
        lambda record: record.decide(
            record.reject(r, "test", "stray") for r in record.regions if r.source == "sure" and r.score == 0.95
        ),
    )
    return made


def evaluate(judged: Judged, *paths: str, kind: str = "detection", number: int | None = None, **options: Any) -> Any:
    dataset = open_dataset(judged.output.root, len(judged.rounds) - 1 if number is None else number)
    config = options.pop("config", Config(ingest=Ingest(images=(str(judged.images),), shard_size=2)))
    return Evaluation(dataset, config, kind, paths, **options).run()


def row(told: Any, name: str) -> Any:
    return next(row for row in told["rows"] if row["name"] == name)


def plain_ap(found: Iterable[tuple[int, str, Box, float]], truth: Sequence[tuple[int, str, Box]]) -> float:
    """COCO's AP by its definition, a class, an IoU and a recall at a time; for scores that all differ."""
    values = []
    for label in {label for _, label, _ in truth}:
        own = sorted((one for one in found if one[1] == label), key=lambda one: -one[3])
        there = [(image, box) for image, other, box in truth if other == label]
        for least in np.arange(0.5, 0.951, 0.05):
            taken: set[int] = set()
            hits = []
            for image, _, box, _ in own:
                overlaps = {n: iou(box, t) for n, (i, t) in enumerate(there) if i == image and n not in taken}
                best = max(overlaps, key=overlaps.__getitem__, default=None)
                hits.append(best is not None and overlaps[best] >= least - 1e-9)
                if hits[-1] and best is not None:
                    taken.add(best)
            right = np.cumsum(hits) if hits else np.zeros(0)
            precision, recall = right / np.arange(1, len(hits) + 1), right / len(there)
            values += [max(precision[recall >= at - 1e-9], default=0.0) for at in np.linspace(0, 1, 101)]
    return float(np.mean(values))


def iou(a: Box, b: Box) -> float:
    width, height = (max(0.0, min(a[n + 2], b[n + 2]) - max(a[n], b[n])) for n in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def objects(judged: Judged, number: int, source: str | None = None) -> list[tuple[int, str, Box, float]]:
    """Of what stands, or of all that a source made, record by record."""
    found = []
    for uri, record in judged.rounds[number].items():
        for region in (record if source else record.standing).regions:
            if source in (None, region.source):
                score = -1.0 if region.score is None else region.score
                found.append((int(Path(uri).stem), region.label or "", region.box, score))
    return found


THERE = [(int(one["image"][0]), one["label"], one["bbox"]) for one in TRUTH]


def test_each_row_is_what_one_counts_by_hand(judged: Judged, images: Path) -> None:
    told = evaluate(judged, coco(images, NAMES, TRUTH))
    assert [one["name"] for one in told["rows"]] == [
        "round 0, standing",
        "round 1, standing",
        *(f"{source}, {what}" for source in ("later", "mute", "sure") for what in ("made", "standing")),
    ]
    sure = row(told, "sure, made")
    assert sure["numbers"]["AP"] == pytest.approx(plain_ap(objects(judged, 1, "sure"), THERE))
    assert 0.1 < sure["numbers"]["AP"] < 0.9
    # At 0.6: found 0.95 (wrong), 0.9, 0.8 (wrong), 0.7, 0.65 (a second one), 0.6: three right of six, five there.
    assert sure["numbers"]["F1"] == pytest.approx(2 * 3 / (6 + 5))
    assert sure["numbers"]["threshold"] == pytest.approx(0.6)
    standing = row(told, "sure, standing")["numbers"]
    assert standing["F1"] == pytest.approx(2 * 3 / (5 + 5)), "what fell in an image without objects counts no more"
    assert standing["AP"] > sure["numbers"]["AP"]
    later = row(told, "later, made")
    assert later["numbers"]["AP"] == pytest.approx(plain_ap(objects(judged, 1, "later"), THERE))
    assert later["made in round"] == 1
    assert row(told, "later, standing")["numbers"] == later["numbers"]


def test_what_stands_is_of_the_round(judged: Judged, images: Path) -> None:
    told = evaluate(judged, coco(images, NAMES, TRUTH))
    counts = [row(told, f"round {n}, standing")["counts"]["found"] for n in (0, 1)]
    assert counts == [len(objects(judged, 0)), len(objects(judged, 1))]
    assert evaluate(judged, coco(images, NAMES, TRUTH), number=0)["rows"][0] == told["rows"][0]
    assert "later" not in str([one["name"] for one in evaluate(judged, coco(images, NAMES, TRUTH), number=0)["rows"]])


def test_a_source_without_scores_has_no_ranking(judged: Judged, images: Path) -> None:
    """Its order is nobody's: only what needs no score is told."""
    told = evaluate(judged, coco(images, NAMES, TRUTH), source="mute")
    assert [one["name"] for one in told["rows"]] == ["mute, made", "mute, standing"]
    numbers, score = told["rows"][0]["numbers"], told["rows"][0]["score"]
    assert [numbers[name] for name in ("AP", "AP50", "AP75", "AP small", "threshold")] == [None] * 5
    assert score == "none"
    # Of dogs 2 of 4, the sure ones first: 51 of 101 recalls at precision 1. Of cats one, and a wrong one elsewhere.
    assert numbers["AP constant scores"] == pytest.approx((51 / 101 + 1) / 2)
    assert numbers["F1"] == pytest.approx(2 * 3 / (4 + 5))
    assert told["rows"][0]["counts"]["found without score"] == 4


def test_a_source_of_several_rounds_has_a_row_for_each(images: Path, tmp_path: Path) -> None:
    """Or what it found again would be too much."""
    made = Judged.of(images, tmp_path / "out")
    for _ in range(2):
        made.round({0: regions("model", ("dog", DOG, 0.5), ("cat", CAT, 0.4))})
    told = evaluate(made, coco(images, NAMES, TRUTH[:2]), source="model")
    assert [one["name"] for one in told["rows"][::2]] == ["model (round 0), made", "model (round 1), made"]
    assert [one["numbers"]["F1"] for one in told["rows"]] == [1.0] * 4
    assert told["where"]["pairs"] == {
        "model (round 0)": {"model (round 1)": 0},
        "model (round 1)": {"model (round 0)": 0},
    }


def test_what_stands_is_ranked_by_calibrated_scores_and_its_crowds_are_nothing_found(
    images: Path, tmp_path: Path
) -> None:
    """A wrong dog is surer by its own score, and less sure by the calibrated one; a crowd is no dog that was found."""

    def make(record: Record) -> Iterator[Region]:
        for box, own, calibrated, crowd in ((DOG, 0.2, 0.9, False), (CAT, 0.8, 0.1, False), (CAT, None, None, True)):
            scores = Scores(label=own, calibrated=calibrated)
            id_ = f"0.model.{box is CAT}{crowd}"
            yield Region(
                id=id_, source="model", kind="object", box=box, raw_label="dog", label="dog", scores=scores, crowd=crowd
            )

    told = evaluate(Judged.of(images, tmp_path / "out").round({0: make}), coco(images, NAMES, TRUTH[:1]))
    standing, made = row(told, "round 0, standing"), row(told, "model, made")
    assert standing["numbers"]["AP"] == 1  # the right one first
    assert made["numbers"]["AP"] == pytest.approx(0.5)  # behind the wrong one
    assert standing["counts"]["found"] == made["counts"]["found"] == 2


def put_aside(made: Judged, name: str, error: ItemError) -> None:
    """In its first round, as if the image could not be annotated."""
    layer = made.output.round(0)
    for shard in made.output.shards():
        records = read_records(made.output, 0, shard, decided=False)
        aside = [Record(one.item, error=error) if one.item.uri.endswith(f"/{name}") else one for one in records]
        write_annotations(layer, shard, aside, "d")
        write_decisions(layer, shard, aside, "d")


def perfect(images: Path, root: Path, change: Any = lambda label, box: (label, box)) -> Judged:
    made = {
        n: regions("model", *((*change(one["label"], one["bbox"]), 0.5) for one in TRUTH if one["image"] == f"{n}.png"))
        for n in range(3)
    }
    return Judged.of(images, root).round(made)


def test_perfect_is_one_and_a_shifted_box_loses(images: Path, tmp_path: Path) -> None:
    truth = coco(images, NAMES, TRUTH)
    numbers = evaluate(perfect(images, tmp_path / "a"), truth)["rows"][0]["numbers"]
    assert [numbers[name] for name in ("AP", "AP50", "AP75", "F1", "AP constant scores", "AR@100")] == [1.0] * 6
    shifted = perfect(images, tmp_path / "b", lambda label, box: (label, moved(box, 8)))
    worse = evaluate(shifted, truth)["rows"][0]["numbers"]
    assert worse["AP"] < 0.5 < worse["AP50"]
    swapped = perfect(images, tmp_path / "c", lambda label, box: (label, (box[1], box[0], box[3], box[2])))
    assert evaluate(swapped, truth)["rows"][0]["numbers"]["AP"] < 1
    renamed = perfect(images, tmp_path / "d", lambda label, box: ("cat", box))
    assert evaluate(renamed, truth)["rows"][0]["numbers"]["AP50"] < 1


def test_crowds_are_ignored_and_images_without_objects_kept(images: Path, tmp_path: Path) -> None:
    truth = [*TRUTH, {"image": "3.png", "label": "dog", "bbox": (0, 0, 60, 80), "iscrowd": 1}]
    stray = regions("model", ("dog", DOG, 0.9))
    with_stray = perfect(images, tmp_path / "a")
    made = Judged.of(images, tmp_path / "b").round(
        {
            n: regions("model", *((o["label"], o["bbox"], 0.5) for o in TRUTH if o["image"] == f"{n}.png"))
            for n in range(3)
        }
        | {3: stray}
    )
    without = evaluate(made, coco(images, NAMES, TRUTH))
    assert without["rows"][0]["numbers"]["AP"] < 1, "found in an image that has no object"
    assert without["rows"][0]["counts"]["images without objects"] == 1
    in_crowd = evaluate(made, coco(images, NAMES, truth))
    assert in_crowd["rows"][0]["numbers"]["AP"] == 1
    assert in_crowd["where"]["best"]["class"]["dog"]["worth"] == {"model": 1.0}
    assert evaluate(with_stray, coco(images, NAMES, truth))["rows"][0]["counts"]["crowds"] == 1


def test_who_is_right_where(judged: Judged, images: Path) -> None:
    where = evaluate(judged, coco(images, NAMES, TRUTH))["where"]
    assert where["things"] == 5
    # Truth in order: dog and cat in 0, dog in 1, two dogs in 2. sure: 1 0 1 1 0; mute: 1 1 0 0 1; later: 0 0 0 0 1.
    assert where["pairs"]["sure"] == {"later": 3, "mute": 2}
    assert where["pairs"]["mute"] == {"later": 2, "sure": 2}
    assert where["pairs"]["later"] == {"mute": 0, "sure": 1}
    dogs, cats = where["best"]["class"]["dog"], where["best"]["class"]["cat"]
    assert dogs["things"] == 4
    assert dogs["worth"] == {"sure": 2 * 3 / (4 + 5), "mute": 2 * 2 / (4 + 2), "later": 2 * 1 / (4 + 1)}
    assert dogs["best"] == ["mute", "sure"]
    assert cats["best"] == ["mute"]
    assert cats["worth"]["sure"] == 0
    assert set(where["best"]["size"]) == {"small", "medium"}


def test_a_low_bar_costs_nobody_who_is_right(images: Path, tmp_path: Path) -> None:
    """Both find two dogs and err once; one of them gives ten more that it is not sure of."""
    right = [("dog", DOG, 0.9), ("dog", CAT, 0.8), ("cat", DOG, 0.5)]
    strays = [("dog", moved(COW, n), 0.1) for n in range(10)]
    truth = coco(images, NAMES, [{"image": "0.png", "label": "dog", "bbox": box} for box in (DOG, CAT)] + TRUTH[1:2])
    made = Judged.of(images, tmp_path / "out").round(
        {0: several(regions("strict", *right), regions("lax", *right, *strays), regions("mute", ("dog", DOG)))}
    )
    told = evaluate(made, truth)
    where = told["where"]
    assert where["thresholds"] == {"lax": 0.8, "mute": None, "strict": 0.8}
    assert where["thresholds"]["lax"] == row(told, "lax, made")["numbers"]["threshold"]
    assert where["best"]["class"]["dog"]["worth"] == {"lax": 1.0, "mute": 2 / 3, "strict": 1.0}
    assert where["pairs"]["lax"] == {"mute": 1, "strict": 0}
    assert "with the threshold of its row or a higher score" in told["protocol"]
    printed = io.StringIO()
    print_evaluation(told, Console(file=printed, width=160))
    assert "its own threshold on: lax 0.800, mute none, by all, strict 0.800" in printed.getvalue()


def test_both_tables_count_as_many_of_a_class_in_an_image(images: Path, tmp_path: Path) -> None:
    """The first hundred without scores, the surest with them: what is behind is neither right nor wrong in either."""
    strays = [("dog", moved(COW, n / 4)) for n in range(99)]
    found = [*strays, ("dog", DOG), ("dog", CAT), ("cat", CAT)]
    truth = coco(images, NAMES, [TRUTH[0], TRUTH[1], {"image": "0.png", "label": "dog", "bbox": CAT}])
    made = Judged.of(images, tmp_path / "out").round(
        {0: several(regions("mute", *found), regions("sure", *((*one, n / 200) for n, one in enumerate(found))))}
    )
    told = evaluate(made, truth)
    mute = row(told, "mute, made")["numbers"]
    assert mute["F1"] == pytest.approx(2 * 2 / (101 + 3)), "one dog of a hundred, and the cat"
    worth = told["where"]["best"]["class"]
    assert worth["dog"]["worth"]["mute"] == pytest.approx(2 * 1 / (100 + 2))
    assert worth["cat"]["worth"]["mute"] == 1
    assert worth["dog"]["worth"]["sure"] == 1
    assert "of a class in an image as many as the row counts" in told["protocol"]


def test_labels_meet_in_the_vocabulary_or_a_map(images: Path, tmp_path: Path) -> None:
    made = perfect(images, tmp_path / "out", lambda label, box: ({"dog": "puppy", "cat": "kitten"}[label], box))
    truth = coco(images, NAMES, TRUTH)
    with pytest.raises(ConfigError, match=r"no name in common.*puppy.*cat, dog.*--label-map"):
        evaluate(made, truth)
    some = Vocabulary(classes={"hound": ClassEntry(synonyms=("Dog", "puppy"))})
    told = evaluate(made, truth, label_map=some)
    assert told["rows"][0]["numbers"]["AP"] == 1
    assert told["rows"][0]["unmapped"] == {"share": 1 / 5, "first": ["kitten"]}
    assert "20.0% of the truth's objects have no class in the label map (cat)" in told["notes"][0]
    assert "then to the 1 classes of the map" in told["protocol"]
    nameless = coco(images, NAMES, [*TRUTH, {"image": "3.png", "label": "?", "bbox": DOG}], "nameless.json")
    Path(nameless).write_text(Path(nameless).read_text().replace('"?"', "null"))
    same = Vocabulary(classes={"puppy": ClassEntry(synonyms=("dog",)), "kitten": ClassEntry(synonyms=("cat",))})
    config = Config(ingest=Ingest(images=(str(images),), shard_size=2), vocabulary=same)
    assert "16.7% of the truth's objects have no label: left out" in evaluate(made, nameless, config=config)["notes"]
    assert told["never found"]["classes"] == 0
    one = perfect(images, tmp_path / "one", lambda label, box: ("cat", box))
    told = evaluate(one, truth)
    assert told["never found"] == {"share": 4 / 5, "classes": 1, "first": ["dog"]}
    assert "80.0% of the truth's objects are of 1 classes that no row has: dog" in told["notes"]
    own = Vocabulary(classes={"dog": ClassEntry(synonyms=("puppy",)), "cat": ClassEntry(synonyms=("kitten",))})
    config = Config(ingest=Ingest(images=(str(images),), shard_size=2), vocabulary=own)
    assert evaluate(made, truth, config=config)["rows"][0]["numbers"]["AP"] == 1


def changed(path: str, change: Any) -> str:
    """A COCO file after a change."""
    document = json.loads(Path(path).read_text())
    change(document)
    Path(path).write_text(json.dumps(document))
    return path


def listing(path: str, name: str) -> str:
    """A COCO file with a category more, which nothing in it has."""
    return changed(path, lambda document: document["categories"].append({"id": 90, "name": name}))


def scored(found: Iterable[tuple[int, str, Box, float]]) -> Objects:
    labels, boxes, scores = zip(*((label, box, score) for _, label, box, score in found), strict=True)
    return Objects(labels, boxes, scores=scores)


def test_classes_that_the_truth_lists_count_where_nothing_is_of_them(images: Path, tmp_path: Path) -> None:
    """As whoever measures by the same file elsewhere has it: a yak that is found is wrong."""
    made = perfect(images, tmp_path / "out")
    made.round({0: regions("model", ("Yak", COW, 0.9), ("gnu", COW, 0.9)), 3: regions("model", ("yak", DOG, 0.9))})
    found = [one for one in objects(made, 1) if one[1] != "gnu"]
    expected = average_precision(
        {n: Objects([t[1] for t in THERE if t[0] == n], [t[2] for t in THERE if t[0] == n]) for n in range(4)},
        {n: scored(one for one in found if one[0] == n) for n in range(4)},
        {name: name for name in ("cat", "dog", "yak")},
    ).numbers
    told = evaluate(made, listing(coco(images, NAMES, TRUTH), "yak"))
    standing = row(told, "round 1, standing")
    assert standing["numbers"] == pytest.approx(expected)
    assert standing["numbers"]["precision"] == pytest.approx(5 / 7)
    assert standing["unmapped"] == {"share": 1 / 8, "first": ["gnu"]}
    assert "classes of the truth are the 3 that its files list" in told["protocol"]
    other = perfect(images, tmp_path / "truth")
    told = evaluate(made, str(other.output.root))
    assert row(told, "round 1, standing")["numbers"]["precision"] == 1
    assert row(told, "round 1, standing")["unmapped"] == {"share": 3 / 8, "first": ["Yak", "gnu", "yak"]}
    assert "classes of the truth are those that occur in it, as it lists none" in told["protocol"]


def test_where_classes_are_listed(images: Path, tmp_path: Path) -> None:
    """In a COCO file and an export of several, in YOLO's names, in the features of `datasets`; nowhere in a folder."""
    one = listing(coco(images, NAMES, TRUTH), "yak")
    talk = tmp_path / "talk.json"
    talk.write_text(json.dumps([{"id": "0", "image": str(images / NAMES[0]), "conversations": [{"from": "human"}]}]))
    assert listed_classes([one, str(images), str(talk)]) == ["cat", "dog", "yak"]
    for split in ("train", "val"):
        coco(tmp_path / "export", NAMES, [{"image": NAMES[0], "label": split, "bbox": DOG}], f"instances_{split}.json")
    (tmp_path / "export" / "export.json").write_text(json.dumps({"format": "coco"}))
    assert listed_classes([str(tmp_path / "export")]) == ["train", "val"]
    data = images / "data.yaml"
    data.write_text("train: .\nnames: [yes, 'no']\n")
    assert listed_classes([str(images)]) == listed_classes([str(data)]) == ["no", "yes"]
    data.write_text("train: .\nnames: {0: dog, 7: yak}\n")
    assert listed_classes([str(images)]) == ["dog", "yak"]
    objects = datasets.List(
        {"bbox": datasets.List(datasets.Value("float32")), "category": datasets.ClassLabel(names=["dog", "yak"])}
    )
    rows = datasets.Dataset.from_dict(
        {"image": [str(images / NAMES[0])], "objects": [[{"bbox": [1, 2, 3, 4], "category": 0}]]},
        features=datasets.Features({"image": datasets.Image(), "objects": objects}),
    )
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "splits"))
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    for name in ("one", "splits", "rows.parquet"):
        assert listed_classes([str(tmp_path / name)]) == ["dog", "yak"], name
    made = perfect(images, tmp_path / "out")
    assert "the 2 that its files list" in evaluate(made, str(tmp_path / "one"))["protocol"]


def test_images_are_known_by_content_place_or_name(judged: Judged, images: Path, tmp_path: Path) -> None:
    here = evaluate(judged, coco(images, NAMES, TRUTH))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in NAMES:
        shutil.copy(images / name, elsewhere / f"copy of {name}")
    renamed = [one | {"image": f"copy of {one['image']}"} for one in TRUTH]
    copies = evaluate(judged, coco(elsewhere, [f"copy of {name}" for name in NAMES], renamed))
    by_name = evaluate(judged, coco(tmp_path / "far" / "away", NAMES, TRUTH))
    assert here["truth"]["matched"] == copies["truth"]["matched"] == {"content": 4}
    assert by_name["truth"]["matched"] == {"file name": 4}
    assert by_name["truth"]["unread"] == {}
    assert by_name["truth"]["faults"] == {}
    assert here["rows"] == copies["rows"] == by_name["rows"]


def test_by_place_and_not_by_a_name_that_two_have(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "more" / "images")
    (tmp_path / "more" / "images" / "0.png").write_bytes((images / "1.png").read_bytes() + b"\0")
    config = Config(ingest=Ingest(images=(str(images), str(tmp_path / "more")), shard_size=3))
    made = Judged.of(images, tmp_path / "out", config).round({n: regions("model", ("dog", DOG, 0.5)) for n in range(4)})
    assert evaluate(made, coco(tmp_path / "far" / "away", NAMES, TRUTH))["truth"]["matched"] == {"file name": 3}
    twice = [*NAMES, "other/1.png"]
    assert evaluate(made, coco(tmp_path / "far" / "away", twice, TRUTH))["truth"]["matched"] == {"file name": 2}
    truth = coco(images, NAMES, TRUTH)
    (images / "0.png").unlink()
    told = evaluate(made, truth)
    assert told["truth"]["matched"] == {"content": 3, "uri": 1}


def test_images_of_the_truth_that_can_not_be_read_are_named(judged: Judged, images: Path, tmp_path: Path) -> None:
    gone = [f"gone {n}.png" for n in range(7)]
    unread = [{"uri": f"{images}/{name}", "kind": "missing"} for name in gone[:5]]
    lost = {"image": gone[0], "label": "dog", "bbox": DOG}
    told = evaluate(judged, coco(images, [*NAMES, *gone], [*TRUTH, lost]))
    assert told["truth"]["unread"] == {"missing": 7}
    assert told["truth"]["first unread"] == unread
    (note,) = [note for note in told["notes"] if "could not be read" in note]
    assert note.startswith("7 images of the truth could not be read")
    assert note.endswith("(missing 7): " + ", ".join(f"{name} (missing)" for name in gone[:5]) + ", ...")
    assert not any("annotations of the truth" in note for note in told["notes"]), "an image that is not there is told"
    with pytest.raises(
        ConfigError, match=r"of its 2 images.* gone 0\.png \(missing\), gone 1\.png \(missing\); the"
    ) as no:
        evaluate(judged, coco(images, gone[:2], [lost], "gone.json"))
    assert f"looked for at {images}/gone 0.png" in str(no.value)
    with pytest.raises(
        ConfigError, match=r"has no objects; it says nothing at all\. 1 images .*: gone 1\.png \(missing\)"
    ):
        evaluate(judged, coco(images, [NAMES[0], gone[1]], [], "none.json"))


def test_what_is_in_quarantine_says_nothing(judged: Judged, images: Path, tmp_path: Path) -> None:
    """In another output folder one could not be read, one could not be looked at; of the set one could not, either."""
    copies = Path(shutil.copytree(images, tmp_path / "copies"))
    (copies / "2.png").write_bytes(b"was a photo once")
    error = ItemError("decode", "truncated", "the PNG ends early")
    other = perfect(copies, tmp_path / "truth")
    put_aside(other, "0.png", error)
    told = evaluate(judged, str(other.output.root))
    assert told["truth"]["matched"] == {"content": 2}
    assert told["truth"]["unread"] == {"not_an_image": 1, "truncated": 1}
    assert {(Path(one["uri"]).name, one["kind"]) for one in told["truth"]["first unread"]} == {
        ("0.png", "truncated"),
        ("2.png", "not_an_image"),
    }
    assert row(told, "sure, made")["counts"]["objects"] == 1
    assert not any("in quarantine in the set" in note for note in told["notes"])
    for name in ("1.png", "3.png"):
        put_aside(other, name, error)
    with pytest.raises(
        ConfigError, match=r"none of its 4 images is one .*\(not_an_image 1, truncated 3\): ..png \(\w+\)"
    ):
        evaluate(judged, str(other.output.root))
    put_aside(judged, "0.png", error)
    notes = evaluate(judged, coco(images, NAMES, TRUTH))["notes"]
    assert (
        "1 images that have truth are in quarantine in the set (truncated 1): what is in them counts as not found"
        in notes
    )


def test_a_truth_of_other_images_says_which(judged: Judged, tmp_path: Path) -> None:
    other = pictures(tmp_path / "other", 4)
    for name in NAMES:
        path = other / name
        path.write_bytes(path.read_bytes() + b"\0")
        path.rename(other / f"other {name}")
    renamed = [one | {"image": f"other {one['image']}"} for one in TRUTH]
    truth = coco(other, [f"other {name}" for name in NAMES], renamed)
    with pytest.raises(
        ConfigError, match=r"none of its 4 images is one of .*not in the set: other 0\.png, other 1\.png"
    ):
        evaluate(judged, truth)
    shutil.copy(judged.images / "0.png", other / "other 0.png")
    told = evaluate(judged, coco(other, [f"other {name}" for name in NAMES], renamed, "again.json"))
    assert told["truth"]["strangers"] == {"count": 3, "first": [f"other {n}.png" for n in (1, 2, 3)]}
    assert "3 images of the truth are not in the set: other 1.png" in told["notes"][0]
    with pytest.raises(ConfigError, match=r"--truth: no such file"):
        evaluate(judged, str(tmp_path / "nowhere.json"))
    with pytest.raises(ConfigError, match=r"--kind ocr: the truth of 4 images has no line of text"):
        evaluate(judged, coco(judged.images, NAMES, TRUTH), kind="ocr")
    with pytest.raises(ConfigError, match=r"--kind detection: the truth of 4 images has no objects; it says texts 1"):
        evaluate(judged, coco(judged.images, NAMES, [{"image": "0.png", "caption": "a dog"}]))


def test_faults_and_copies_of_the_truth_are_told(judged: Judged, images: Path) -> None:
    shutil.copy(images / "0.png", images / "twin.png")
    outside = {"image": "1.png", "label": "dog", "bbox": (500, 500, 510, 510)}
    again = {"image": "twin.png", "label": "cat", "bbox": DOG}
    told = evaluate(judged, coco(images, [*NAMES, "twin.png"], [*TRUTH, outside, again]))
    assert told["truth"]["faults"] == {"box_outside": 1}
    assert told["truth"]["told twice"] == 1
    assert row(told, "sure, made")["counts"]["objects"] == 5
    assert any("box_outside 1" in note for note in told["notes"])


def doubled(document: Any) -> None:
    for image in document["images"]:
        image |= {"width": 2 * WIDTH, "height": 2 * HEIGHT}
    for one in document["annotations"]:
        one["bbox"] = [2 * value for value in one["bbox"]]


def test_annotations_for_images_of_another_size_are_named(judged: Judged, tmp_path: Path) -> None:
    truth = changed(coco(tmp_path / "far" / "away", NAMES, TRUTH), doubled)
    with pytest.raises(ConfigError, match=r"the truth of 4 images has no objects") as no:
        evaluate(judged, truth)
    assert "5 annotations of the truth could not be taken as they are (image_size 5)" in str(no.value)
    first = "annotation 1 of truth.json (0.png): image_size: it is for an image of 200 x 160, and this one has 100 x 80"
    assert first in str(no.value)


def test_the_first_annotations_that_do_not_fit_are_named(judged: Judged, images: Path) -> None:
    """Of each kind one before the second of any."""
    outside = {"image": "1.png", "label": "dog", "bbox": (500, 500, 510, 510)}

    def broken(document: Any) -> None:
        del document["categories"][0]  # the cat
        document["annotations"] += [{"id": n, "image_id": 1, "category_id": 8, "bbox": [n]} for n in range(10, 17)]

    told = evaluate(judged, changed(coco(images, NAMES, [*TRUTH, outside]), broken))
    assert told["truth"]["faults"] == {"bad_box": 7, "box_outside": 1, "unknown_category": 1}
    first = told["truth"]["first faults"]
    assert [one["kind"] for one in first] == ["unknown_category", "bad_box", "box_outside", "bad_box", "bad_box"]
    assert (first[0]["where"], first[0]["image"]) == ("annotation 2 of truth.json", None)
    assert "category 7 isn't among its categories" in first[0]["message"]
    assert (first[2]["where"], Path(first[2]["image"]).name) == ("annotation 6 of truth.json", "1.png")
    (note,) = [note for note in told["notes"] if "could not be taken" in note]
    assert "annotation 2 of truth.json: unknown_category: category 7" in note
    assert "annotation 6 of truth.json (1.png): box_outside" in note
    assert note.endswith("; ...")
    with pytest.raises(
        ConfigError, match=r"none has a label that counts \(--label-map, categories\): dog, \(no label\)\. "
    ):
        evaluate(
            judged,
            changed(coco(images, NAMES, TRUTH), lambda d: d["categories"].pop(0)),
            label_map=Vocabulary(classes={"gnu": ClassEntry()}),
        )


def test_an_empty_path_is_refused(judged: Judged, images: Path) -> None:
    """It would be the folder that one is in."""
    for path in ("", " "):
        with pytest.raises(ConfigError, match="--truth: expected the path"):
            evaluate(judged, coco(images, NAMES, TRUTH), path)


def test_a_truth_that_was_adopted_by_half_is_told_of_whole(
    judged: Judged, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as without the break, and an image of a name that two have is not taken for the other one."""
    outside = {"image": "3.png", "label": "dog", "bbox": (500, 500, 510, 510)}
    truth = coco(images, [*NAMES, "other/0.png"], [*TRUTH, outside])
    for name in NAMES:
        (images / name).unlink()
    whole = evaluate(judged, truth)
    assert whole["truth"]["matched"] == {"uri": 4}
    assert whole["truth"]["unread"] == {"missing": 1}
    assert whole["truth"]["faults"] == {"box_outside": 1}
    before = {path.relative_to(judged.output.root): path.read_bytes() for path in evaluation_files(judged)}
    for stop in range(4):
        shutil.rmtree(judged.output.root / "evaluation")
        written: list[Path] = []

        def write(path: Path, *arguments: Any, stop: int = stop, written: list[Path] = written) -> None:
            if len(written) == stop:
                raise Killed
            written.append(path)
            write_table(path, *arguments)

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr("engine.truth.write_table", write)
            evaluate(judged, truth)
            raise Killed
        assert evaluate(judged, truth) == whole, stop
        assert {path.relative_to(judged.output.root): path.read_bytes() for path in evaluation_files(judged)} == before


def evaluation_files(judged: Judged) -> list[Path]:
    return [path for path in (judged.output.root / "evaluation").rglob("*") if path.is_file() and path.name != LOCK]


def test_of_two_truths_the_first_counts(judged: Judged, images: Path, tmp_path: Path) -> None:
    """And it is told how its images were known, not how those of the other one were."""
    by_content, by_name = coco(images, NAMES, TRUTH), coco(tmp_path / "far" / "away", NAMES, TRUTH[:2])
    told = evaluate(judged, by_content, by_name)
    assert told["truth"]["matched"] == {"content": 4}
    assert row(told, "sure, made")["counts"]["objects"] == 5
    told = evaluate(judged, by_name, by_content)
    assert told["truth"]["matched"] == {"file name": 4}
    assert row(told, "sure, made")["counts"]["objects"] == 2
    assert "what the first one says counts" in told["notes"][0]
    assert "what the first says counts: those of output folders come before" in told["protocol"]
    other = perfect(images, tmp_path / "truth")
    assert evaluate(judged, by_name, str(other.output.root))["truth"]["matched"] == {"content": 4}


def test_where_nothing_can_be_written_the_way_out_is_one(judged: Judged, call: Call, tmp_path: Path) -> None:
    """The commands that it says, for a truth that is known by names alone, and beside an output folder."""
    truth, other = coco(tmp_path / "far" / "away", NAMES, TRUTH), perfect(judged.images, tmp_path / "other")
    out = judged.output.root
    before = evaluate(judged, str(other.output.root), truth)["rows"]
    shutil.rmtree(out / "evaluation")
    with disks.read_only(out):
        code, said = call("evaluate", str(out), "--truth", truth, "--truth", str(other.output.root), "--round", "1")
        assert code == 2, said
        commands = re.search(r": (engine import .*), then (engine evaluate .*)\. --image-root", " ".join(said.split()))
        assert commands, said
        made, then = (
            shlex.split(command.replace("TRUTH", str(tmp_path / "made")))[1:] for command in commands.groups()
        )
        assert str(other.output.root) not in made
        code, said = call(*made)
        assert code == 0, said
        code, said = call(*then, "--round", "1", "--json")
        assert code == 0, said
        assert json.loads(said)["rows"] == before


def test_the_truth_is_ingested_once(judged: Judged, images: Path) -> None:
    truth = coco(images, NAMES, TRUTH)
    first = evaluate(judged, truth)
    (kept,) = judged.output.root.glob("evaluation/*/images/manifest.json")
    before = kept.stat().st_mtime_ns
    assert evaluate(judged, truth) == first
    assert kept.stat().st_mtime_ns == before
    coco(images, NAMES, TRUTH[:-1])
    assert row(evaluate(judged, truth), "sure, made")["counts"]["objects"] == 4
    judged.output.clear()
    assert not (judged.output.root / "evaluation").exists()


def test_another_output_folder_is_truth_by_what_stands_in_it(judged: Judged, images: Path, tmp_path: Path) -> None:
    copies = Path(shutil.copytree(images, tmp_path / "copies"))
    strict = perfect(copies, tmp_path / "truth")
    told = evaluate(judged, str(strict.output.root))
    assert told["truth"]["matched"] == {"content": 4}
    assert told["rows"] == evaluate(judged, coco(images, NAMES, TRUTH))["rows"]
    strict.round(
        {}, lambda record: record.decide(record.reject(r, "test", "no cat") for r in record.regions if r.label == "cat")
    )
    assert row(evaluate(judged, str(strict.output.root)), "sure, made")["counts"]["objects"] == 5, "not accepted yet"
    strict.output.round(1).manifest.write_text(json.dumps({"outcome": "accepted"}))
    assert row(evaluate(judged, str(strict.output.root)), "sure, made")["counts"]["objects"] == 4
    assert len(list(judged.output.root.glob("evaluation/*/images"))) == 1, "of the COCO file alone"
    next(strict.output.root.glob("round-1/decisions/*/*.parquet")).unlink()
    with pytest.raises(OutputError, match="round 1 is not whole"):
        evaluate(judged, str(strict.output.root))


def test_peoples_own_annotations_are_pointed_out(images: Path, tmp_path: Path) -> None:
    truth = coco(images, NAMES, TRUTH)
    made = Judged.of(images, tmp_path / "out").round({0: regions(HUMAN, ("dog", DOG))})
    assert any("prove nothing" in note for note in evaluate(made, truth)["notes"])
    assert not any("prove nothing" in note for note in evaluate(perfect(images, tmp_path / "o"), truth)["notes"])
    said = coco(images, NAMES, [{"image": "0.png", "caption": "a dog"}], "said.json")
    spoken = Judged.of(images, tmp_path / "spoken").round(
        {0: several(texts(HUMAN, ("a dog", "brief")), texts("model", ("a dog", "brief")))}
    )
    assert any("prove nothing" in note for note in evaluate(spoken, said, kind="captions")["notes"])
    assert not any("prove nothing" in note for note in evaluate(spoken, said, kind="captions", source="model")["notes"])


# Masks


def square(box: Box) -> bytes:
    x0, y0, x1, y1 = (int(value) for value in box)
    return encode_mask(np.ones((y1 - y0, x1 - x0), bool), (x0, y0), (HEIGHT, WIDTH))


def ring(box: Box) -> list[list[float]]:
    x0, y0, x1, y1 = box
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def masked(source: str, *found: tuple[str, Box, Box]) -> Any:
    """Objects of "boxes" with masks of a source: label, box, and the box that the mask fills."""

    def make(record: Record) -> Iterable[AnyAnnotation]:
        boxes = list(regions("boxes", *((label, box, 0.5) for label, box, _ in found))(record))
        yield from boxes
        ids = record.ids(source)
        for region, (_, _, filled) in zip(boxes, found, strict=True):
            yield Mask(id=next(ids), source=source, region_id=region.id, size=(HEIGHT, WIDTH), counts=square(filled))

    return make


def test_masks_are_measured_by_their_pixels(images: Path, tmp_path: Path) -> None:
    truth = coco(images, NAMES, [one | {"segmentation": ring(one["bbox"])} for one in TRUTH[:2]])
    # The boxes are off, the masks are right; and the other way round.
    right = Judged.of(images, tmp_path / "a").round({0: masked("sam", ("dog", CAT, DOG), ("cat", DOG, CAT))})
    wrong = Judged.of(images, tmp_path / "b").round({0: masked("sam", ("dog", DOG, moved(DOG, 40)), ("cat", CAT, CAT))})
    told = evaluate(right, truth, kind="masks")
    assert [one["name"] for one in told["rows"]] == ["round 0, standing", "sam, made", "sam, standing"]
    assert row(told, "sam, made")["numbers"]["AP"] == 1
    assert told["where"]["best"]["class"]["dog"]["worth"] == {"sam": 1.0}
    worse = evaluate(wrong, truth, kind="masks")
    assert row(worse, "sam, made")["numbers"]["AP"] == pytest.approx(0.5)
    assert worse["where"]["best"]["class"]["dog"]["best"] == []
    assert evaluate(wrong, truth)["rows"][0]["numbers"]["AP"] == 1


def test_an_object_without_a_mask_is_ignored(images: Path, tmp_path: Path) -> None:
    truth = coco(
        images, NAMES, [TRUTH[0] | {"segmentation": ring(DOG)}, {"image": "0.png", "label": "dog", "bbox": CAT}]
    )
    made = Judged.of(images, tmp_path / "a").round({0: masked("sam", ("dog", DOG, DOG), ("dog", CAT, CAT))})
    told = evaluate(made, truth, kind="masks")
    assert row(told, "sam, made")["numbers"]["AP"] == 1
    assert row(told, "sam, made")["counts"] | {"objects": 1, "crowds": 1} == row(told, "sam, made")["counts"]
    with pytest.raises(ConfigError, match="has no objects with masks"):
        evaluate(made, coco(images, NAMES, TRUTH), kind="masks")


# Texts


def texts(source: str, *said: tuple[str, Detail]) -> Any:
    def make(record: Record) -> Iterable[AnyAnnotation]:
        ids = record.ids(source)
        for text, detail in said:
            yield Text(id=next(ids), source=source, text=text, detail=detail)

    return make


REFERENCES = {0: ["a brown dog on grass", "a dog runs"], 1: ["two cats asleep"], 2: ["a red bus in the street"]}


def test_captions_are_measured_by_granularity(images: Path, tmp_path: Path) -> None:
    said = [{"image": f"{n}.png", "caption": text} for n, own in REFERENCES.items() for text in own]
    truth = coco(images, NAMES, said)
    answers = {0: "a brown dog on grass", 1: "two cats asleep"}
    made = Judged.of(images, tmp_path / "out").round(
        {
            0: several(
                texts("good", (answers[0], "brief"), ("a second one", "brief")), texts("bad", ("a bus", "brief"))
            ),
            1: several(
                texts(HUMAN, ("by a person", "brief")), texts("good", (answers[1], "brief"), ("long", "detailed"))
            ),
        }
    )
    told = evaluate(made, truth, kind="captions")
    references = {f"{n}": own for n, own in REFERENCES.items()}
    expected = caption_scores(references, {f"{n}": text for n, text in answers.items()}).numbers
    for name in ("good, made", "good, standing", "round 0, standing"):
        assert row(told, name)["numbers"] == {
            "brief CIDEr-D": pytest.approx(expected["CIDEr-D"]),
            "brief BLEU-4": pytest.approx(expected["BLEU-4"]),
        }, name
    assert row(told, "good, made")["counts"]["brief: further texts left out"] == 1
    assert row(told, "good, made")["counts"]["brief: images without caption"] == 1
    assert told["where"]["how"] == "better"
    assert told["where"]["pairs"]["good"] == {"bad": 2, HUMAN: 2}
    assert told["where"]["best"]["granularity"]["brief"]["best"] == ["good"]
    assert "none that people wrote" in told["protocol"]


def test_both_tables_of_captions_have_one_measure(images: Path, tmp_path: Path) -> None:
    """Of words that tokenizers take apart in ways of their own."""
    references = ["a dog's ball isn't black-and-white (yet)", "it can't be a U.S. bus", "two cats: one's asleep"]
    said = ["the dog's ball isn't black-and-white", "it can't be a bus in the U.S.", "two cats, one's (not) asleep"]
    truth = coco(images, NAMES, [{"image": f"{n}.png", "caption": text} for n, text in enumerate(references)])
    made = Judged.of(images, tmp_path / "out").round(
        {n: texts("model", (text, "brief")) for n, text in enumerate(said)}
    )
    told = evaluate(made, truth, kind="captions")
    of_row = row(told, "model, made")["numbers"]["brief CIDEr-D"]
    assert 0 < of_row < 10
    assert told["where"]["best"]["granularity"]["brief"]["worth"]["model"] == pytest.approx(of_row)


def test_a_few_long_references_are_not_a_granularity_of_their_own(images: Path, tmp_path: Path) -> None:
    long = " ".join(["a dog runs over the grass"] * 3)
    said = [{"image": f"{n % 4}.png", "caption": f"a dog number {n}"} for n in range(15)]
    truth = coco(images, NAMES, [*said, {"image": "0.png", "caption": long}])
    made = Judged.of(images, tmp_path / "out").round({0: texts("model", (long, "brief"), (long, "detailed"))})
    told = evaluate(made, truth, kind="captions")
    assert set(row(told, "model, made")["numbers"]) == {"brief CIDEr-D", "brief BLEU-4"}
    assert "1 of the truth's 16 texts are detailed" in told["notes"][0]
    both = coco(images, NAMES, [*said[:4], *({"image": "0.png", "caption": long},) * 2], "both.json")
    assert set(row(evaluate(made, both, kind="captions"), "model, made")["numbers"]) == {
        f"{detail} {name}" for detail in ("brief", "detailed") for name in ("CIDEr-D", "BLEU-4")
    }


# Phrases


CAPTION = "a dog and a dog beside two cows"


def grounded(source: str, *phrases: tuple[int, int, list[Box]], text: str = CAPTION, score: float | None = None) -> Any:
    """A text of "writer", and triplets of a source with regions of its own."""

    def make(record: Record) -> Iterable[AnyAnnotation]:
        written = Text(id=next(record.ids("writer")), source="writer", text=text, detail="brief")
        if not any(one.text == text for one in record.texts):
            yield written
        there = next((one for one in record.texts if one.text == text), written)
        ids = record.ids(source)
        for start, stop, boxes in phrases:
            own = [
                Region(
                    id=next(ids),
                    source=source,
                    kind="object",
                    box=box,
                    label="thing",
                    scores=Scores(label=0.9 - n / 10),
                )
                for n, box in enumerate(boxes)
            ]
            yield from own
            named = tuple(region.id for region in own)
            scores = Scores(phrase=score)
            yield Triplet(
                id=next(ids), source=source, text_id=there.id, start=start, stop=stop, region_ids=named, scores=scores
            )

    return make


def test_phrases_of_the_truth_are_looked_for_at_their_place(images: Path, tmp_path: Path) -> None:
    """The same words twice: each is held against its own box. ANY and MERGED differ where a phrase names two."""
    truth = Judged.of(images, tmp_path / "truth").round(
        {
            0: grounded("people", (0, 5, [DOG]), (10, 15, [CAT]), (23, 31, [COW, moved(COW, 60)])),
            1: grounded("people", (0, 5, [DOG])),
        }
    )
    made = Judged.of(images, tmp_path / "out").round(
        {
            0: several(
                grounded("right", (0, 5, [DOG]), (10, 15, [CAT]), (23, 31, [COW, DOG])),
                grounded("crossed", (0, 5, [CAT]), (10, 15, [DOG]), (23, 31, [(5, 50, 90, 75)])),
            )
        }
    )
    told = evaluate(made, str(truth.output.root), kind="grounding")
    right, crossed = (row(told, f"{name}, made")["numbers"] for name in ("right", "crossed"))
    assert right == {"R@1 ANY": 3 / 4, "R@1 MERGED": 2 / 4}
    assert crossed == {"R@1 ANY": 0, "R@1 MERGED": 1 / 4}
    assert row(told, "right, made")["counts"]["phrases without answer"] == 1
    assert told["where"]["pairs"]["right"] == {"crossed": 3}
    assert told["where"]["best"]["length"]["2 words"]["worth"] == {"right": 3 / 4, "crossed": 0}
    other = Judged.of(images, tmp_path / "o").round({0: grounded("model", (4, 7, [CAT]), text="The dog")})
    told = evaluate(other, str(truth.output.root), kind="grounding")
    assert row(told, "model, made")["numbers"]["R@1 ANY"] == 1 / 4, "in another text the words count: one dog is there"


def test_without_phrases_in_the_truth_objects_are_held_against(images: Path, tmp_path: Path) -> None:
    text = "a brown dog, a lamp and a cat"
    made = Judged.of(images, tmp_path / "out").round(
        {
            0: grounded("model", (0, 11, [moved(DOG, 1)]), (13, 19, [COW]), (24, 29, [COW]), text=text),
            1: grounded("model", (24, 29, [COW]), text=text),
        }
    )
    told = evaluate(made, coco(images, NAMES, TRUTH), kind="grounding")
    numbers = row(told, "model, made")
    assert numbers["numbers"]["R@1 ANY"] == 1 / 2, "the dog, and not the cat; nobody knows of the lamp"
    assert numbers["counts"] == {"phrases": 2, "phrases without truth": 1, "phrases without answer": 0}
    assert told["where"] is None
    assert "rows have other phrases" in told["protocol"]


def test_grounding_needs_something_to_hold_phrases_against(images: Path, tmp_path: Path) -> None:
    """Also where the set has no phrase yet."""
    truth = coco(images, NAMES, [{"image": "0.png", "caption": "a dog"}])
    for maker in (grounded("model", (0, 5, [DOG])), texts("model", ("a dog", "brief"))):
        made = Judged.of(images, tmp_path / f"out{maker}").round({0: maker})
        with pytest.raises(ConfigError, match="has neither phrases with boxes nor objects"):
            evaluate(made, truth, kind="grounding")


def described(source: str, *said: tuple[str, Box, float | None]) -> Any:
    def make(record: Record) -> Iterable[AnyAnnotation]:
        ids = record.ids(source)
        for text, box, score in said:
            region = Region(id=next(ids), source=source, kind="object", box=box, label="x", scores=Scores(label=score))
            yield region
            yield RegionText(id=next(ids), source=source, region_id=region.id, text=text)

    return make


def test_expressions_name_one_region(images: Path, tmp_path: Path) -> None:
    truth = Judged.of(images, tmp_path / "truth").round(
        {
            0: described(
                "people", ("the left dog", DOG, 1), ("a cat", CAT, 1), ("an animal", DOG, 1), ("animal", CAT, 1)
            ),
            1: described("people", ("a cow", COW, 1)),
        }
    )
    made = Judged.of(images, tmp_path / "out").round(
        {0: described("model", ("The left DOG", DOG, 0.4), ("left dog", CAT, 0.3), ("a cat", moved(CAT, 20), 0.9))}
    )
    told = evaluate(made, str(truth.output.root), kind="referring")
    third = iou(CAT, moved(CAT, 20))
    numbers = row(told, "model, made")["numbers"]
    assert numbers["accuracy@0.5"] == pytest.approx(1 / 3)
    assert numbers["mIoU"] == pytest.approx((1 + third) / 3)
    inter, area = 20 * 50, 40 * 50
    assert numbers["oIoU"] == pytest.approx((900 + inter) / (900 + 2 * area - inter + 25 * 25))
    assert "1 expressions of the truth name several regions" in told["notes"][0]
    assert told["where"]["best"]["length"]["2 words"]["things"] == 2


def test_what_phrases_and_expressions_are_ranked_by_is_told(images: Path, tmp_path: Path) -> None:
    truth = Judged.of(images, tmp_path / "truth").round({0: grounded("people", (0, 5, [DOG]))})
    made = Judged.of(images, tmp_path / "out").round(
        {
            0: several(
                described("mute", ("a dog", DOG, None)),
                described("sure", ("a dog", DOG, 0.5), ("a cat", CAT, None)),
                grounded("phrases", (0, 5, [DOG]), score=0.5),
            )
        }
    )
    told = evaluate(made, str(truth.output.root), kind="referring")
    scores = {name: row(told, f"{name}, made")["score"] for name in ("mute", "sure", "phrases")}
    assert scores == {
        "mute": "none",
        "sure": "the source's own, of regions; 50.0% have none",
        "phrases": "the source's own, of phrases",
    }
    standing = "the sources' own, of phrases and regions, which are not comparable; 50.0% have none"
    assert row(told, "round 0, standing")["score"] == standing
    both = Judged.of(images, tmp_path / "both").round(
        {
            0: several(
                grounded("one", (0, 5, [DOG, CAT]), score=0.5),
                grounded("two", (0, 5, [CAT])),
                grounded("three", (0, 5, [CAT]), score=0.6),
            )
        }
    )
    told = evaluate(both, str(truth.output.root), kind="grounding")
    assert row(told, "one, made")["score"] == "the source's own, of phrases; several regions of a phrase by their own"
    assert row(told, "two, made")["score"] == "none"
    assert row(told, "round 0, standing")["score"].startswith(
        "the sources' own, of phrases, which are not comparable; 33.3% have none"
    )


def lines(source: str, *said: tuple[str, Box]) -> Any:
    def make(record: Record) -> Iterable[AnyAnnotation]:
        ids = record.ids(source)
        for text, box in said:
            yield Region(id=next(ids), source=source, kind="text", box=box, text=text)

    return make


def test_lines_are_found_and_read(images: Path, tmp_path: Path) -> None:
    said = [("0.png", "STOP", DOG), ("0.png", "###", CAT), ("1.png", "Open daily", COW)]
    truth = coco(images, NAMES, [{"image": name, "bbox": box, "utf8_string": text} for name, text, box in said])
    made = Judged.of(images, tmp_path / "out").round(
        {
            0: several(lines("a", ("STOP", DOG), ("blur", CAT)), lines("b", ("ST0P", DOG))),
            1: several(lines("a", ("Open dayly", COW), ("stray", DOG)), lines("b", ("Open daily", COW))),
        }
    )
    told = evaluate(made, truth, kind="ocr")
    a, b = (row(told, f"{name}, made")["numbers"] for name in "ab")
    assert (a["precision"], a["recall"]) == (1 / 3, 1 / 2)
    assert (a["detection precision"], a["detection recall"]) == (2 / 3, 1)
    assert a["F1"] == pytest.approx(2 * 1 / (3 + 2))
    assert a["CER"] == pytest.approx((0 + 1 + len("stray")) / len("STOPOpen daily"))
    assert b["CER"] == pytest.approx(1 / 14)
    assert told["where"]["pairs"] == {"a": {"b": 1}, "b": {"a": 1}}
    assert told["where"]["best"]["length"]["9 to 20 characters"]["best"] == ["b"]
    # Of "STOP" and "stray" one is right; "blur", in a line that nobody can read, is not too much.
    assert told["where"]["best"]["length"]["4 to 8 characters"]["worth"] == {"a": 2 * 1 / (1 + 2), "b": 0}
    assert told["where"]["thresholds"] == {}


# As a person meets it


def test_hostile_names_do_nothing(images: Path, tmp_path: Path) -> None:
    evil = "\x1b[31m[bold]dog\u202e<script>"
    made = Judged.of(images, tmp_path / "out").round({0: regions("model", (evil, DOG, 0.5), ("other\x9b", CAT, 0.4))})
    told = evaluate(made, coco(images, NAMES, [{"image": "0.png", "label": evil, "bbox": DOG}]))
    printed = io.StringIO()
    print_evaluation(told, Console(file=printed, width=160))
    assert "[bold]dog" in printed.getvalue()
    assert not {"\x1b", "\x9b", "\u202e"} & set(printed.getvalue())


def test_the_command(judged: Judged, images: Path, call: Call, tmp_path: Path) -> None:
    out, truth = str(judged.output.root), coco(images, NAMES, TRUTH)
    code, said = call("evaluate", out, "--truth", truth, "--kind", "detection", "--round", "1", "--json")
    assert code == 0, said
    assert json.loads(said)["rows"] == evaluate(judged, truth)["rows"]
    code, said = call("evaluate", out, "--truth", truth, "--round", "1")
    assert code == 0
    for words in ("const.", "sure, made", "protocol: COCO's AP", "best", "is right where these are not"):
        assert words in said, words
    (tmp_path / "map.yaml").write_text("classes: {animal: {synonyms: [dog, cat]}}")
    code, said = call("evaluate", out, "--truth", truth, "--label-map", str(tmp_path / "map.yaml"), "--json")
    assert list(json.loads(said)["rows"][0]["classes"]) == ["animal"]
    for arguments, words in (
        (("--truth", truth, "--kind", "smells"), "no such kind; there are detection, masks"),
        (("--truth", truth, "--source", "nobody"), "those that did: mute, sure"),
        (("--truth", truth, "--round", "7"), "round 7 is not there"),
        (("--truth", truth, "--label-map", "nowhere.yaml"), "no such file"),
        (("--truth", str(tmp_path / "nowhere")), "no such file or folder"),
    ):
        code, said = call("evaluate", out, *arguments)
        assert code == 2, said
        assert words in said
        assert "Traceback" not in said
