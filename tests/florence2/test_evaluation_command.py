"""`python -m florence2.evaluate` on small benchmarks, with a model that knows its answers by heart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import disks
import pytest
from memorised import memorised, saved
from PIL import Image
from published import put, ref, refcoco

from florence2 import Annotation, Form, Task, ask
from florence2.codec import encode
from florence2.evaluate import main
from florence2.evaluation.asking import Said
from florence2.evaluation.benchmarks import grounded_in, meant, objects_of
from florence2.evaluation.classes import ClassMap
from florence2.evaluation.flickr30k import Phrase, Sentence
from florence2.evaluation.photos import seen
from florence2.evaluation.published import CAPTIONS
from florence2.evaluation.refcoco import Expression

SENTENCE = "a small dog and a car"
WIDTH, HEIGHT = 100, 80
DOG, CAR = (10.0, 8.0, 50.0, 40.0), (60.0, 40.0, 90.0, 72.0)
RING = (20.0, 16.0, 60.0, 18.0, 62.0, 48.0, 21.0, 50.0)
ANSWERS = {
    ask(Task.CAPTION): "A small dog sits on green grass.",
    ask(Task.DETAILED_CAPTION): "a wooden table",
    ask(Task.OD): encode(
        Form.LABELLED_BOXES,
        [Annotation("Dogs", DOG), Annotation("red car", (5.0, 4.0, 15.0, 12.0)), Annotation("car", CAR)],
        (WIDTH, HEIGHT),
    ),
    ask(Task.CAPTION_TO_PHRASE_GROUNDING, SENTENCE): encode(
        Form.LABELLED_BOXES, [Annotation("a small dog", DOG), Annotation("a car", CAR)], (WIDTH, HEIGHT)
    ),
    ask(Task.CAPTION_TO_PHRASE_GROUNDING, "the river"): "",
    ask(Task.REFERRING_EXPRESSION_SEGMENTATION, "red car"): encode(
        Form.POLYGONS, [Annotation(polygons=(RING,))], (WIDTH, HEIGHT)
    ),
    ask(Task.REFERRING_EXPRESSION_SEGMENTATION, "the river"): "",
}
Run = Callable[..., tuple[int, dict[str, Any], str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), memorised(ANSWERS, steps=180))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two photos, of the size that the benchmarks say; COCO's files about them."""
    folder = tmp_path / "coco"
    for id in (1, 2):
        (folder / "val2017").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), "grey").save(folder / f"val2017/{id:012}.jpg")
    images = [{"id": id, "file_name": f"{id:012}.jpg", "width": WIDTH, "height": HEIGHT} for id in (1, 2)]
    captions = [
        {"image_id": 1, "id": 1, "caption": "A small dog sits on green grass"},
        {"image_id": 2, "id": 2, "caption": "Two people ride bicycles along the river"},
    ]
    put(folder, "annotations/captions_val2017.json", {"images": images, "annotations": captions})
    things = [thing(1, 1, 18, DOG), thing(2, 1, 3, CAR), thing(3, 2, 18, CAR)]
    categories = [{"id": 3, "name": "car"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]
    put(
        folder,
        "annotations/instances_val2017.json",
        {"images": images, "annotations": things, "categories": categories},
    )
    return folder


def thing(id: int, image: int, category: int, box: tuple[float, ...]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    place = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
    return {"id": id, "image_id": image, "category_id": category, **place}


@pytest.fixture
def run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(benchmark: str, data: Path, *more: str) -> tuple[int, dict[str, Any], str, str]:
        out = tmp_path / "out.json"
        words = ["--model", str(model), "--benchmark", benchmark, "--data", str(data), "--out", str(out)]
        code = main([*words, "--beams", "1", "--max-new-tokens", "60", *more])
        printed = capsys.readouterr()
        outcome = json.loads(out.read_text()) if out.exists() and out.stat().st_size else {}
        return code, outcome, printed.out, printed.err

    return run


def test_captions(run: Run, data: Path, model: Path) -> None:
    code, outcome, printed, errors = run("coco-caption", data)
    assert (code, errors) == (0, "")
    numbers = outcome["result"]["numbers"]
    # One caption is its reference word for word; the other shares nothing with its own.
    assert numbers["CIDEr-D"] == pytest.approx((10 + 0) / 2)
    assert numbers["BLEU-1"] == pytest.approx(7 / 14, rel=1e-6)
    assert outcome["published"]["figures"] == CAPTIONS.figures
    assert "published for COCO's Karpathy test split" in printed and "not measured here" in printed
    row = next(line.split() for line in printed.splitlines() if line.startswith("CIDEr-D"))
    assert row == ["CIDEr-D", "500.0", "133.0", "135.6", "140.0", "143.3"]
    assert outcome["result"]["protocol"] in printed and "METEOR" in printed
    assert outcome["model"]["path"] == str(model) and len(outcome["model"]["digest"]) == 64
    assert (outcome["asked"], outcome["missing"], outcome["decoding"]["beams"]) == (2, {}, 1)
    assert outcome["seconds"] > 0 and outcome["images_per_second"] == pytest.approx(2 / outcome["seconds"])
    assert outcome["about"]["split"] == "val2017"


def test_captions_of_another_task_and_split(run: Run, data: Path) -> None:
    sentences = [{"raw": "a wooden table"}]
    image = {"cocoid": 1, "filepath": "val2017", "filename": f"{1:012}.jpg", "split": "val", "sentences": sentences}
    file = put(data, "dataset_coco.json", {"images": [image, image | {"cocoid": 2, "split": "test"}]})
    code, outcome, _, _ = run("coco-caption", file, "--split", "val", "--task", "detailed_caption")
    about = {"data": str(file), "split": "Karpathy val", "task": "DETAILED_CAPTION"}
    assert code == 0 and outcome["about"] == about | {"images": 1, "limit": None}
    assert outcome["result"]["numbers"]["BLEU-1"] == pytest.approx(1)
    assert outcome["result"]["numbers"]["CIDEr-D"] is None


def test_detection(run: Run, data: Path) -> None:
    code, outcome, printed, _ = run("coco-detection", data)
    result = outcome["result"]
    assert code == 0
    # Both images have a dog and a car in the answer. dog: one of two found, with a false one of the same score; in
    # order of image id the right one is first. car: one, and a false one behind it.
    assert result["classes"]["car"]["AP"] == pytest.approx(1)
    assert result["classes"]["dog"]["AP"] == pytest.approx(51 / 101)
    assert result["classes"]["toothbrush"]["AP"] is None
    assert result["numbers"]["AP"] == pytest.approx((1 + 51 / 101) / 2)
    assert result["numbers"]["labels unmapped"] == pytest.approx(1 / 3) and result["counts"]["labels unmapped"] == 2
    assert "'red car' 2" in result["protocol"] and "times the label's likelihood" in result["protocol"]
    assert result["counts"]["found without score"] == 0 and result["numbers"]["threshold"] < 1
    assert "34.7" in printed


def test_boxes_are_in_the_benchmarks_pixels(run: Run, data: Path) -> None:
    """A smaller copy of the photo, and one that lies on its side but for its EXIF."""
    small = Image.new("RGB", (WIDTH // 2, HEIGHT // 4), "grey")
    small.save(data / f"val2017/{1:012}.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH), "grey").save(data / f"val2017/{2:012}.jpg", exif=exif)
    _, outcome, _, _ = run("coco-detection", data)
    assert outcome["result"]["classes"]["car"]["AP"] == pytest.approx(1)
    assert outcome["result"]["numbers"]["AP"] == pytest.approx((1 + 51 / 101) / 2)


def test_an_image_is_seen_as_its_boxes_were_drawn(tmp_path: Path) -> None:
    stored = Image.new("RGB", (30, 20), "white")
    stored.paste("red", (0, 0, 15, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    stored.save(tmp_path / "a.png", exif=exif)
    for size in (None, (20, 30), (40, 60)):
        upright = seen(tmp_path / "a.png", size)
        assert upright.size == (20, 30) and upright.getpixel((10, 5)) == (255, 0, 0)
    assert seen(tmp_path / "a.png", (30, 20)).size == (30, 20)


def test_a_score_is_of_the_box_and_its_label() -> None:
    found = [
        Annotation("Dogs", DOG, score=0.5, label_score=0.6),
        Annotation("dog", CAR, score=0.5),
        Annotation("tree", CAR, score=1.0, label_score=1.0),
        Annotation("dog"),
    ]
    objects = objects_of(found, ClassMap({7: "dog"}))
    assert (objects.labels, objects.boxes, objects.scores) == ((7, 7), (DOG, CAR), (0.3, None))


def test_what_an_expression_means() -> None:
    said = [
        Annotation("the man", DOG, score=0.2),
        Annotation("a hat", CAR, score=0.9),
        Annotation("the man", CAR, score=0.3),
        Annotation("nobody"),
    ]
    one = Expression(1, 1, "man with a hat", DOG)
    assert meant(one, Said("", tuple(said))) == CAR, "the surest of the first phrase"
    assert meant(one, Said("", (*said, Annotation("Man  with hat", DOG, score=0.1)))) == DOG, "the whole expression"
    assert meant(one, Said("", (said[0], said[1]))) == DOG
    assert meant(one, Said("", (Annotation("man"),))) is None


def test_boxes_of_a_phrase() -> None:
    phrases = (Phrase("The small dog", ("animals",), (DOG,)), Phrase("dog", (), ()))
    said = [Annotation("a small  Dog", DOG, score=0.2), Annotation("small dog", CAR, score=0.3), Annotation("cat", CAR)]
    first, second = grounded_in(Sentence("...", phrases), Said("", tuple(said)), "image 7")
    assert first.found == [CAR, DOG] and first.truth == (DOG,) and first.kinds == ("animals",)
    assert first.name == "image 7, 'The small dog'" and second.found == []


def expressions(data: Path) -> Path:
    ring = [list(RING)]
    things = {
        "images": [{"id": 1, "file_name": f"{1:012}.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [thing(1, 1, 18, DOG) | {"segmentation": ring}, thing(2, 1, 3, CAR) | {"segmentation": ring}],
    }
    said = [ref(1, 1, "val", (1, SENTENCE), (2, "the river")), ref(1, 2, "testA", (3, SENTENCE))]
    said.append(ref(1, 2, "testB", (4, "red car"), (5, "the river")))
    return refcoco(data / "refcoco", said, things)


def test_refcoco(run: Run, data: Path) -> None:
    folder = expressions(data)
    images = ("--images", str(data))  # with refcoco/ below it
    code, outcome, printed, _ = run("refcoco", folder, *images)
    # The answer has no box of the whole expression: its first phrase, a small dog, is taken.
    assert code == 0 and outcome["result"]["numbers"]["accuracy@0.5"] == 1 / 2
    assert outcome["result"]["numbers"]["mIoU"] == pytest.approx(1 / 2, abs=0.01)
    assert outcome["result"]["counts"] == {"expressions": 2, "expressions without answer": 1}
    assert "53.9" in printed and outcome["about"]["task"] == "CAPTION_TO_PHRASE_GROUNDING"
    (data / f"val2017/{1:012}.jpg").write_text("no image")
    _, gone, _, _ = run("refcoco", folder, *images)
    assert gone["result"]["numbers"]["accuracy@0.5"] == 0 and gone["result"]["counts"]["expressions"] == 2
    _, skipped, _, _ = run("refcoco", folder, *images, "--skip-missing")
    assert skipped["result"]["counts"]["expressions"] == 0
    Image.new("RGB", (WIDTH, HEIGHT), "grey").save(data / f"val2017/{1:012}.jpg")
    assert run("refcoco", folder, *images, "--split", "testA")[1]["result"]["numbers"]["accuracy@0.5"] == 0


def test_refcoco_masks(run: Run, data: Path) -> None:
    code, outcome, printed, _ = run("refcoco", expressions(data), "--images", str(data), "--masks", "--split", "testB")
    numbers = outcome["result"]["numbers"]
    assert code == 0 and numbers["accuracy@0.5"] == 1 / 2
    assert numbers["mIoU"] == pytest.approx(1 / 2, abs=0.02) and numbers["oIoU"] == pytest.approx(1 / 2, abs=0.02)
    assert "34.6" in printed and outcome["about"]["task"] == "REFERRING_EXPRESSION_SEGMENTATION"


def test_flickr30k(run: Run, data: Path) -> None:
    box = (
        "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    )
    things = box.format(5, *map(int, DOG)) + box.format(6, 0, 0, 5, 5) + box.format(7, 0, 0, 9, 9)
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    put(data, "Annotations/77.xml", f"<annotation>{size}{things}</annotation>")
    lines = "[/EN#5/animals A small dog] and [/EN#6/vehicles a car]\n[/EN#7/scene the river]\n"
    put(data, "Sentences/77.txt", lines.replace("A small", "a small"))
    put(data, "test.txt", "77\n")
    Image.new("RGB", (WIDTH, HEIGHT), "grey").save(data / "val2017/77.jpg")
    code, outcome, printed, _ = run("flickr30k", data)
    assert code == 0 and outcome["result"]["numbers"]["R@1 ANY"] == pytest.approx(1 / 3)
    assert outcome["result"]["classes"]["animals"]["R@1 MERGED"] == 1
    assert outcome["result"]["counts"] == {
        "phrases": 3,
        "phrases without truth": 0,
        "phrases without answer": 1,
    }
    assert "83.6" in printed
    put(data, "Annotations/78.xml", f"<annotation>{size}{things}</annotation>")
    put(data, "Sentences/78.txt", lines)
    put(data, "test.txt", "77 78")
    assert run("flickr30k", data)[1]["result"]["counts"]["phrases"] == 6
    assert run("flickr30k", data, "--skip-missing")[1]["result"]["counts"]["phrases"] == 3


# What is not there


def test_missing_images_are_wrong_or_left_out(run: Run, data: Path) -> None:
    (data / f"val2017/{2:012}.jpg").unlink()
    code, outcome, printed, errors = run("coco-caption", data)
    assert code == 1 and outcome["missing"] == {"2": "no file 000000000002.jpg"}
    assert outcome["result"]["numbers"]["CIDEr-D"] == pytest.approx(5)
    assert outcome["result"]["counts"]["images without caption"] == 1
    assert (
        errors == "image 2: no file 000000000002.jpg\n"
        "missing or unreadable: 1 of 2 images, counted as wrong (--skip-missing leaves them out)\n"
    )
    assert "\nmissing or unreadable: 1 of 2 images, counted as wrong\n" in printed
    code, outcome, printed, errors = run("coco-caption", data, "--skip-missing")
    assert code == 1 and outcome["result"]["counts"]["images"] == 1 and outcome["skipped"] is True
    assert outcome["result"]["numbers"]["BLEU-4"] == pytest.approx(1) and "left out" in errors


def test_unreadable_images_are_as_missing(run: Run, data: Path) -> None:
    (data / f"val2017/{1:012}.jpg").write_text("no image \x1b[31m")
    code, outcome, _, errors = run("coco-detection", data)
    place = data / f"val2017/{1:012}.jpg"
    assert code == 1 and outcome["missing"]["1"].startswith(f"{place}: can't be read (UnidentifiedImageError: ")
    assert errors.startswith(f"image 1: {place}: can't be read"), "with one number, the benchmark's own"
    assert outcome["result"]["classes"]["car"]["AP"] == 0 and outcome["result"]["counts"]["images"] == 2
    assert "\x1b" not in errors


def test_another_images_folder(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, printed, errors = run("coco-caption", data, "--images", str(tmp_path / "empty"))
    assert (code, printed) == (2, "")
    assert "expected 2 images such as 000000000001.jpg" in errors and "--images" in errors
    assert "no such folder" in run("coco-caption", data, "--images", str(tmp_path / "nowhere"))[3]


def test_the_first_images_alone(run: Run, data: Path) -> None:
    _, outcome, printed, _ = run("coco-detection", data, "--limit", "1")
    assert outcome["result"]["counts"]["images"] == 1 and outcome["result"]["numbers"]["AP"] == pytest.approx(1)
    assert (outcome["about"]["limit"], outcome["about"]["images"]) == (1, 2)
    assert printed.startswith("coco-detection: val2017, the first 1 of 2 images, task OD\n")
    _, outcome, printed, _ = run("coco-detection", data)
    assert (outcome["about"]["limit"], outcome["about"]["images"]) == (None, 2)
    assert printed.startswith("coco-detection: val2017, all 2 images, task OD\n")
    assert "val2017, all 2 images" in run("coco-detection", data, "--limit", "3")[2]


@pytest.mark.parametrize("benchmark", ["coco-caption", "coco-detection"])
def test_a_table_of_80_columns(benchmark: str, run: Run, data: Path) -> None:
    _, outcome, printed, _ = run(benchmark, data)
    first, second, *rows = printed.split("\n\n")[1].splitlines()
    assert first.split() == ["zero-shot", "zero-shot", "fine-tuned", "fine-tuned"]
    assert second.split() == ["here", "base", "large", "base", "large"]
    assert len(rows) == len(outcome["result"]["numbers"])
    assert {len(line) for line in (first, second, *rows)} == {len(first)} and len(first) <= 80
    assert ("times 100, but for threshold;" in printed) == (benchmark == "coco-detection")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--benchmark coco-detection --task CAPTION", "--task is for coco-caption"),
        ("--benchmark coco-caption --task OD", "--task: expected CAPTION, DETAILED_CAPTION or"),
        ("--benchmark coco-caption --task NONE", "expected a task, one of CAPTION"),
        ("--benchmark coco-caption --masks", "--masks is for refcoco"),
        ("--benchmark nocaps", "--benchmark: invalid choice: 'nocaps'"),
        ("--benchmark coco-caption --limit 0", "--limit: expected a whole number from 1 up"),
        ("--benchmark coco-caption --split val2014", "captions_val2014.json"),
        ("--benchmark coco-caption --out nowhere/out.json", "nowhere/out.json"),
        ("--benchmark coco-caption --out val2017", "--out val2017: expected a file's name, got a folder"),
        ("--benchmark coco-caption --out a --answers ./a", "--out a: expected another file than that of --answers"),
        ("--benchmark coco-caption --answers val2017", "--answers val2017: expected a file's name, got a folder"),
        (
            "--benchmark coco-caption --answers /dev/null",
            "--answers /dev/null: expected a file's name, got a folder or",
        ),
        ("--benchmark coco-caption --answers nowhere/a", "--answers nowhere/a: can't be written (No such file"),
        ("--benchmark coco-caption --model nowhere", "nowhere: no such folder"),
        ("--benchmark flickr30k", "expected Flickr30k Entities' folder"),
        ("", "the following arguments are required: --benchmark"),
    ],
)
def test_wrong_usage_is_a_line_on_stderr(
    words: str, says: str, model: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    try:
        code: int | str | None = main(["--model", str(model), "--data", str(data), *words.split()])
    except SystemExit as stop:  # argparse's own
        code = stop.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert printed.err.startswith("florence2: ") and says in printed.err and printed.err.count("\n") == 1


# Going on


TIMES = ("seconds", "images_per_second", "asked", "kept")


def without_time(outcome: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in outcome.items() if name not in TIMES}


def test_answers_are_kept(run: Run, data: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    kept = ("--answers", str(answers), "--batch", "1")  # in other company the last digits of a score are others
    _, first, _, _ = run("coco-detection", data, *kept, "--limit", "1")
    _, both, _, _ = run("coco-detection", data, *kept)
    _, again, printed, _ = run("coco-detection", data, *kept)
    assert "\nimages asked now 0; asked before 2 (--answers)\n" in printed
    _, fresh, _, _ = run("coco-detection", data, "--batch", "1")
    assert [(outcome["asked"], outcome["kept"]) for outcome in (first, both, again, fresh)] == [
        (1, 0),
        (1, 1),
        (0, 2),
        (2, 0),
    ]
    assert without_time(both) == without_time(again) == without_time(fresh)
    lines = answers.read_bytes().split(b"\n")
    assert len(lines) == 4 and json.loads(lines[0])["model"] == fresh["model"]
    answers.write_bytes(b"\n".join(lines[:2]) + b"\n" + lines[2][:50])  # as a kill leaves it
    _, mended, _, _ = run("coco-detection", data, *kept)
    assert mended["asked"] == 1 and without_time(mended) == without_time(fresh)
    assert answers.read_bytes().split(b"\n") == lines
    (data / f"val2017/{2:012}.jpg").unlink()
    code, gone, _, _ = run("coco-detection", data, *kept)
    assert (code, gone["missing"]) == (0, {}), "it was answered while it was there"


def test_answers_of_another_model_or_to_other_questions(run: Run, data: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    kept = ("--answers", str(answers))
    run("coco-detection", data, *kept)
    before = answers.read_bytes()
    code, _, _, errors = run("coco-caption", data, *kept)
    assert code == 2 and "it differs in about, benchmark: name another file" in errors
    code, _, _, errors = run("coco-detection", data, *kept, "--dtype", "bfloat16")
    assert code == 2 and "it differs in decoding, model" in errors
    assert answers.read_bytes() == before
    for notes in ("some notes\nof mine\n", "a note of mine"):
        answers.write_text(notes)
        code, _, _, errors = run("coco-detection", data, *kept)
        assert code == 2 and "line 1: expected JSON, an object" in errors
        assert answers.read_text() == notes
    answers.write_bytes(before[:50])  # as a kill leaves it
    assert run("coco-detection", data, *kept)[0] == 0
    assert answers.read_bytes().startswith(before.splitlines()[0])


def many(data: Path) -> Path:
    """Captions of 150 images."""
    images = [
        {"id": id, "file_name": f"{id % 2 + 1:012}.jpg"} | {"width": WIDTH, "height": HEIGHT} for id in range(150)
    ]
    captions = [{"image_id": id, "id": id, "caption": f"a dog {id}"} for id in range(150)]
    return put(data, "annotations/captions_many.json", {"images": images, "annotations": captions})


def test_a_killed_evaluation_goes_on(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    """Killed with SIGKILL when the first answers stand in the file."""
    file = many(data)
    answers = tmp_path / "answers.jsonl"
    words = ["--model", str(model), "--benchmark", "coco-caption", "--data", str(file), "--answers", str(answers)]
    words += ["--beams", "1", "--max-new-tokens", "60", "--batch", "2"]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "florence2.evaluate", *words], env=environment)
    while process.poll() is None and (not answers.exists() or answers.read_bytes().count(b"\n") < 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
    there = answers.read_bytes().count(b"\n") - 1
    code, outcome, _, _ = run("coco-caption", file, "--answers", str(answers))
    assert code == 0 and outcome["asked"] == 150 - there < 150 and outcome["result"]["counts"]["images"] == 150


# No room


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small(tmp_path / "disk", "32k") as disk:
        yield disk


def fill(disk: Path, but: int = 0) -> Path:
    """With one file, but for so many bytes."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    os.truncate(ballast, ballast.stat().st_size - but)
    return ballast


@pytest.mark.parametrize("option", ["--out", "--answers"])
def test_a_full_disk_is_said_before_anything_is_asked(option: str, run: Run, data: Path, disk: Path) -> None:
    ballast, file = fill(disk), disk / "file"
    code, _, printed, errors = run("coco-caption", data, option, str(file))
    assert (code, printed) == (3, "")
    says = "no space left on its disk. Nothing is asked yet; make room and run the same again"
    assert errors == f"florence2: {option} {file}: {says}\n"
    assert list(disk.iterdir()) == [ballast]
    ballast.unlink()
    assert run("coco-caption", data, option, str(file))[0] == 0 and file.stat().st_size
    assert list(disk.iterdir()) == [file]


def test_what_was_answered_before_the_disk_was_full_is_kept(run: Run, data: Path, disk: Path) -> None:
    file, ballast, answers = many(data), fill(disk, but=4096), disk / "answers.jsonl"
    code, _, printed, errors = run("coco-caption", file, "--answers", str(answers))
    assert (code, printed) == (3, "")
    says = "no space left on its disk. The answers before are kept in it; make room and run the same again"
    assert errors == f"florence2: --answers {answers}: {says}\n"
    kept = answers.read_bytes().count(b"\n") - 1
    ballast.unlink()
    code, outcome, _, _ = run("coco-caption", file, "--answers", str(answers), "--limit", str(kept + 1))
    assert (code, outcome["asked"], outcome["kept"]) == (0, 1, kept) and kept > 3


@pytest.mark.parametrize("answers", [None, "answers.jsonl"])
def test_an_outcome_is_whole_or_not_there(
    answers: str | None, run: Run, data: Path, disk: Path, tmp_path: Path
) -> None:
    """There is room for the few bytes that are tried at the start, and none for 148 images that are missing."""
    file, out = many(data), disk / "out.json"
    (data / f"val2017/{2:012}.jpg").unlink()
    out.write_text("of yesterday")
    fill(disk, but=4096)
    more = [] if answers is None else ["--answers", str(tmp_path / answers)]
    code, _, printed, errors = run("coco-caption", file, "--out", str(out), *more)
    assert code == 3 and "CIDEr-D" in printed
    kept = f"the answers are kept in {tmp_path / answers}" if answers else "no answer is kept without --answers"
    says = f"no space left on its disk. The table is printed, and {kept}; make room and run the same again"
    assert errors.endswith(f"\nflorence2: --out {out}: {says}\n")
    assert out.read_text() == "of yesterday" and len(list(disk.iterdir())) == 2


def test_an_outcome_for_another_program(run: Run, data: Path, tmp_path: Path) -> None:
    """What is no file is written to, and not replaced."""
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert run("coco-caption", data, "--out", str(pipe))[0] == 0
    assert pipe.is_fifo()
    reader.join(timeout=60)
    assert json.loads(read[0])["asked"] == 2


def test_an_outcome_of_which_the_table_has_no_room(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ["--model", str(model), "--benchmark", "coco-caption", "--data", str(data), "--out", str(out)]
    command = [sys.executable, "-m", "florence2.evaluate", *words, "--beams", "1"]
    own = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""}
    environment = os.environ | own
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("florence2: what it prints: no space left on its disk")
    assert json.loads(out.read_text())["asked"] == 2


def test_help_says_what_data_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("refs(unc).p", "captions_val2017.json", "dataset_coco.json", "test.txt"))
