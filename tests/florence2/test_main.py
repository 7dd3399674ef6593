"""`python -m florence2` as a person meets it: what is printed and drawn, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import disks
import pytest
import torch
from florence import small_tokens
from PIL import Image

from florence2 import Florence2, Florence2Config, Form, Processor, Prompt, Task, annotate
from florence2.__main__ import escaped, main
from florence2.codec import Annotation

SHORT = ("--max-new-tokens", "24")
Result = tuple[int, list[dict[str, Any]], str]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one that answers at random: with larger weights than a new one has, or it repeats a token."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    config = Florence2Config.preset("nano", small_tokens().size)
    Florence2(replace(config, text=replace(config.text, init_std=0.1))).save_pretrained(folder)
    Processor.for_model(config, small_tokens(), (96, 96)).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, in which the command runs."""
    Image.open(photos / "chelsea.png").resize((110, 80)).save(tmp_path / "cat.png")
    Image.open(photos / "coffee.png").resize((90, 120)).save(tmp_path / "coffee.jpg")
    (tmp_path / "broken.png").write_bytes((tmp_path / "cat.png").read_bytes()[:900])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(words: str, *more: str) -> Result:
        code = main([*shlex.split(words), "--model", str(model), *SHORT, *more])
        printed = capsys.readouterr()
        return code, [json.loads(line) for line in printed.out.splitlines()], printed.err

    return run


def command(*words: str) -> subprocess.CompletedProcess[bytes]:
    root = str(Path(__file__).parents[2])
    own = {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": ""}
    environment = os.environ | own
    return subprocess.run([sys.executable, *words], capture_output=True, env=environment, timeout=120)


def test_a_line_an_image_as_its_own_process(model: Path, here: Path) -> None:
    shutil.copy("cat.png", "猫.png")
    words = shlex.split("猫.png broken.png coffee.jpg --task OD --task CAPTION --constrained --draw seen")
    done = command("-m", "florence2", *words, "--model", str(model), *SHORT)
    assert (done.returncode, done.stderr) == (1, b"")
    cat, broken, coffee = map(json.loads, done.stdout.decode().splitlines())
    assert (cat["image"], cat["size"]) == ("猫.png", [110, 80])
    assert (coffee["image"], coffee["size"]) == ("coffee.jpg", [90, 120])
    assert broken.keys() == {"image", "error"} and "image 1 (broken.png): can't be read" in broken["error"]
    od, caption = cat["answers"]
    assert (od["task"], od["prompt"]) == ("OD", "Locate the objects with category name in the image.")
    assert caption.keys() == {"task", "prompt", "text", "score", "complete"}
    assert od.keys() == caption.keys() | {"annotations"}
    assert sorted(path.name for path in (here / "seen").iterdir()) == ["coffee.png", "猫.png"]
    with Image.open("seen/猫.png") as picture:
        assert picture.width == 1024 and picture.height > 745  # a caption is below


def test_wrong_usage_as_its_own_process() -> None:
    done = command("-m", "florence2", "cat.png", "--task", "OD", "--model", "nowhere")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"florence2: nowhere: no such folder")
    assert done.stderr.count(b"\n") == 1


def test_nobody_reads(model: Path) -> None:
    """What comes after the first line meets a closed pipe."""
    code = (
        "import os, subprocess, sys; out, into = os.pipe(); os.close(out); "
        "done = subprocess.run(sys.argv[1:], stdout=into, stderr=subprocess.PIPE); "
        "print(done.returncode, done.stderr)"
    )
    words = ["-m", "florence2", "cat.png", "--task", "CAPTION", "--model", str(model), *SHORT]
    done = command("-c", code, sys.executable, *words)
    assert done.stdout.decode().strip() == "141 b''"


def test_nobody_has_room(model: Path) -> None:
    words = ["cat.png", "--task", "CAPTION", "--model", str(model), *SHORT]
    done = command("-c", FULL, sys.executable, "-m", "florence2", *words)
    says = "florence2: what it prints: no space left on its disk. What stands there is right; make room and run the "
    assert done.stdout.decode() == f"3 {says}same again\n\n"


FULL = """
import subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=open("/dev/full", "wb"), stderr=subprocess.PIPE, text=True)
print(done.returncode, done.stderr)
"""


@pytest.mark.parametrize("name", ["seen.png", "seen.jpg"])
def test_a_picture_without_room(name: str, run: Run, here: Path) -> None:
    with disks.small(here / "disk", "4k") as disk:
        (disk / "ballast").write_bytes(b"x" * 4096)
        code, lines, errors = run(f"cat.png --task OD --draw disk/{name}")
        left = [path.name for path in disk.iterdir()]
    disk.rmdir()
    assert (code, len(lines), left) == (3, 1, ["ballast"])
    assert errors.startswith(f"florence2: --draw disk/{name}: no space left on its disk. What is printed is right; ")


def test_says_what_annotate_says(run: Run, model: Path, here: Path) -> None:
    code, (line,), errors = run("cat.png --task OCR_WITH_REGION --task od --task '<CAPTION>'", "--constrained")
    assert (code, errors) == (0, "")
    loaded = Florence2.from_pretrained(model), Processor.from_pretrained(model)
    [expected] = annotate(*loaded, ["cat.png"], ["OCR_WITH_REGION", "OD", "CAPTION"], 3, 24, constrained=True)
    for said, answer in zip(line["answers"], expected, strict=True):
        assert (said["task"], said["text"], said["complete"]) == (answer.task, answer.text, answer.complete)
        assert said["score"] == pytest.approx(answer.score, rel=1e-3)
        found = said.get("annotations", [])
        assert len(found) == len(answer.annotations)
        for fields, annotation in zip(found, answer.annotations, strict=True):
            assert_same(fields, annotation)
    assert sum(len(said.get("annotations", [])) for said in line["answers"]) > 3


def assert_same(fields: dict[str, Any], annotation: Annotation) -> None:
    there = {name: value for name, value in vars(annotation).items() if value not in ("", None)}
    assert fields.keys() == there.keys()
    for name, value in there.items():
        if name in ("box", "quad"):
            assert fields[name] == pytest.approx(value, abs=0.0051)
        elif name != "label":
            assert fields[name] == pytest.approx(value, rel=1e-3)


def test_several_tasks_and_their_inputs(run: Run) -> None:
    _, (line,), _ = run("cat.png --task all --task REGION_TO_OCR --task OD --region 10,20,60.5,70 --max-new-tokens 3")
    tasks = [answer["task"] for answer in line["answers"]]
    assert tasks == [*(task for task in Task if not task.takes_input), "REGION_TO_OCR"]
    assert line["answers"][-1]["prompt"] == "What text is in the region <loc_90><loc_250><loc_550><loc_875>?"

    words = "cat.png --task OPEN_VOCABULARY_DETECTION --label chat --label 'un garçon' --input 'a cat on a mat'"
    _, (line,), _ = run(words, "--task", "CAPTION_TO_PHRASE_GROUNDING", "--max-new-tokens", "3")
    prompts = [answer["prompt"] for answer in line["answers"]]
    assert prompts == ["Locate chat<and>un garçon in the image.", "Locate the phrases in the caption: a cat on a mat"]
    _, (line,), _ = run("cat.png --task OPEN_VOCABULARY_DETECTION --input chat --max-new-tokens 3")
    assert line["answers"][0]["prompt"] == "Locate chat in the image."


def test_free_words(run: Run, model: Path) -> None:
    words = "cat.png --prompt 'find them' --form labelled-boxes --label dog --constrained --eos-penalty 9 --beams 1"
    _, (line,), _ = run(words)
    (said,) = line["answers"]
    assert "task" not in said and said["prompt"] == "find them"
    assert said["annotations"] and {found["label"] for found in said["annotations"]} == {"dog"}
    loaded = Florence2.from_pretrained(model), Processor.from_pretrained(model)
    prompt = Prompt("find them", Form.LABELLED_BOXES, labels=("dog",))
    [[expected]] = annotate(*loaded, ["cat.png"], [prompt], 1, 24, constrained=True, eos_penalty=9)
    assert said["text"] == expected.text
    _, (line,), _ = run("cat.png --prompt 'how many?'", "--dtype", "bfloat16", "--device", "cpu")
    assert line["answers"][0].keys() == {"prompt", "text", "score", "complete"}


def test_free_words_several_times(run: Run) -> None:
    _, (line,), _ = run("cat.png --prompt 'find them' --prompt 'and these' --prompt 'find them' --form boxes")
    assert [said["prompt"] for said in line["answers"]] == ["find them", "and these"]
    assert all("annotations" in said for said in line["answers"])


@pytest.mark.parametrize("region", ["--region -10,-5,30,40", "--region=-10,-5,30,40"])
def test_a_region_that_begins_outside(region: str, run: Run) -> None:
    code, (line,), _ = run(f"cat.png --task REGION_TO_OCR {region}")
    assert code == 0
    assert line["answers"][0]["prompt"] == "What text is in the region <loc_0><loc_0><loc_272><loc_500>?"


def test_a_large_photo_makes_no_noise(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, (line,), errors = run("cat.png --task CAPTION")
    assert (code, errors) == (0, "") and "answers" in line


def test_a_photo_is_seen_upright(run: Run, here: Path) -> None:
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by 90 degrees
    photo = Image.open("cat.png").convert("RGB")
    photo.transpose(Image.Transpose.ROTATE_90).save("turned.png", exif=orientation)
    code, lines, _ = run("cat.png turned.png --task OD")
    assert code == 0
    assert lines[0] == lines[1] | {"image": "cat.png"}


def test_every_broken_image_has_its_line(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "text.jpg").write_text("no image")
    Image.new("F", (8, 8)).save("float.tiff")
    names = ["broken.png", "cat.png", "text.jpg", "float.tiff", "coffee.jpg", "broken.png"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # of which coffee.jpg has more than twice as many
    code, lines, errors = run(f"{' '.join(names)} --task CAPTION")
    assert (code, errors) == (1, "")
    assert [line["image"] for line in lines] == names
    assert ["answers" in line for line in lines] == [False, True, False, False, False, False]
    assert "DecompressionBombError" in lines[4]["error"]
    assert run("broken.png --task CAPTION")[0] == 1


@pytest.mark.parametrize("batch_size", ["1", "2", "64"])
def test_lines_come_when_their_batch_is_done(
    run: Run, monkeypatch: pytest.MonkeyPatch, batch_size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[str] = []
    printed: list[int] = []
    monkeypatch.setattr("florence2.__main__.upright", noting(read))
    monkeypatch.setattr("florence2.__main__.line", lambda seen: printed.append(len(read)) or {"image": seen.path})
    run(f"cat.png coffee.jpg cat.png --task CAPTION --batch-size {batch_size}")
    assert printed == {"1": [1, 2, 3], "2": [2, 2, 3], "64": [3, 3, 3]}[batch_size]


def noting(read: list[str]) -> Callable[[str, int], Image.Image]:
    from florence2.__main__ import upright

    def noted(path: str, number: int) -> Image.Image:
        read.append(path)
        return upright(path, number)

    return noted


def test_pictures(run: Run, here: Path) -> None:
    assert run("cat.png --task OD --draw seen.jpg")[0] == 0
    assert Image.open("seen.jpg").format == "JPEG"
    (here / "album").mkdir()
    shutil.copy("cat.png", "album/cat.png")
    before = (here / "album/cat.png").read_bytes()
    assert run("cat.png album/cat.png coffee.jpg broken.png --task OD --draw album")[0] == 1
    assert sorted(path.name for path in (here / "album").iterdir()) == [
        "cat-2.png",
        "cat-3.png",
        "cat.png",
        "coffee.png",
    ]
    assert (here / "album/cat.png").read_bytes() == before, "an image is never written over"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("cat.png", "expected --task (one of CAPTION, "),
        ("cat.png --task DETECT", "expected a task, one of CAPTION, "),
        ("cat.png --task OD --input dog", "nothing that is asked takes --input"),
        ("cat.png --task OD --label dog", "nothing that is asked takes --label"),
        ("cat.png --task OD --region 1,2,3,4", "nothing that is asked takes --region"),
        ("cat.png --task REGION_TO_OCR", "REGION_TO_OCR needs --region"),
        ("cat.png --task OPEN_VOCABULARY_DETECTION", "OPEN_VOCABULARY_DETECTION needs --label or --input"),
        ("cat.png --task OPEN_VOCABULARY_DETECTION --label ''", "needs a text that is not empty"),
        ("cat.png --task REGION_TO_OCR --region 1,2,3", "--region: expected X0,Y0,X1,Y1, four numbers; got '1,2,3'"),
        ("cat.png --task REGION_TO_OCR --region 1,2,3,inf", "needs a box x0 <= x1, y0 <= y1"),
        ("cat.png --task OD --form boxes", "--form says how to read the answer to a --prompt"),
        ("cat.png --prompt x --form circles", "--form: invalid choice: 'circles'"),
        ("cat.png --task OD --beams 0", "--beams: expected a whole number from 1 up; got '0'"),
        ("cat.png --task OD --max-new-tokens 1", "--max-new-tokens: expected a whole number from 2 up; got '1'"),
        ("cat.png --task OD --eos-penalty nan", "--eos-penalty: expected a number; got 'nan'"),
        ("cat.png --task OD --device tpu", "--device: expected cpu"),
        ("cat.png --task OD --device cuda:99", "--device: expected cpu"),
        ("cat.png --task OD --dtype int8", "--dtype: invalid choice: 'int8'"),
        ("--task OD", "the following arguments are required: IMAGE"),
        ("cat.png nothing.png --task OD", "nothing.png: no such file"),
        (". --task OD", ".: expected an image, got a folder"),
        ("cat.png --task OD --draw cat.png", "--draw cat.png: is an image itself"),
        ("cat.png --task OD --draw seen.txt", "--draw seen.txt: expected a picture's name"),
        ("cat.png --task OD --draw no/seen.png", "--draw no/seen.png: no such folder"),
        ("cat.png coffee.jpg --task OD --draw broken.png", "--draw broken.png: expected a folder for pictures"),
        ("cat.png --task OD --draw ''", "--draw '': expected a picture's name or a folder's"),
        ("cat.png --task OD --draw a\0.png", r"--draw 'a\x00.png': expected a picture's name or a folder's"),
        *(
            (f"cat.png --task OD --draw seen.{kind}", f"--draw seen.{kind}: expected a picture's name")
            for kind in ("blp", "xbm", "msp", "palm", "hdf", "bufr", "grib", "wmf", "psd")
        ),
        ("cat.png --task REGION_TO_OCR --region", "--region: expected X0,Y0,X1,Y1, four numbers; got ''"),
        ("cat.png --task REGION_TO_OCR --region 500,0,600,9", "REGION_TO_OCR needs a box in its image of 110 x 80"),
        (f"cat.png --prompt '{'word ' * 999}'", "tokens, and 987 fit"),
    ],
)
def test_wrong_usage_is_a_line_on_stderr(
    words: str, says: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: int | str | None = main(["--model", str(model), *shlex.split(words)])
    except SystemExit as stop:  # argparse's own
        code = stop.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert printed.err.startswith("florence2: ") and says in printed.err
    assert printed.err.count("\n") == 1


def test_interrupted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("florence2.__main__.upright", stop)
    assert main(["cat.png", "--task", "OD", "--model", str(model)]) == 130


def test_help_names_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"    {task}\n" in shown for task in Task)
    assert "python -m florence2 cat.jpg --task OD" in shown


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "\x9b31m", "\u202eabc", "\u2028", "\U000e0001", "\udcff", "\x7f", "a\u00a0b"]
)
def test_json_stays_the_same_and_moves_no_cursor(text: str) -> None:
    printed = escaped(json.dumps({"label": text + "窓 é 🐕"}, ensure_ascii=False))
    assert json.loads(printed) == {"label": text + "窓 é 🐕"}
    assert printed.isprintable() and "窓 é 🐕" in printed
