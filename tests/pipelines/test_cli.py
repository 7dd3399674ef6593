"""The command line's own business: help, lists, configuration, and errors that name the thing and the remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from command import ENGINE, Call

from engine.config import load_config
from pipelines.build import EMBEDDED, build_pipeline


def test_help_names_every_command_and_exit_code(call: Call) -> None:
    code, said = call("--help")
    assert code == 0
    for word in (
        "run",
        "refine",
        "specialists",
        "filters",
        "config",
        "show",
        "diff",
        "audit",
        "Exit codes",
        "quarantine",
    ):
        assert word in said
    _, said = call("run", "--help")
    for word in ("--config", "--stage", "--images", "--out", "--limit", "--set", "--overwrite", "reannotate"):
        assert word in said


def test_help_waits_for_nothing_heavy() -> None:
    heavy = {"ray", "torch", "transformers", "cv2", "onnxruntime", "rapidocr", "spacy"}
    code = f"import sys, engine.cli.commands; print(*{heavy} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


def test_components_are_listed_with_parameters_and_licences(call: Call) -> None:
    code, said = call("specialists")
    assert code == 0
    for words in ("nanodet (Apache-2.0)", "rapidocr (Apache-2.0)", "grabcut (Apache-2.0)", "min_score = 0.2"):
        assert words in said
    code, said = call("filters")
    assert code == 0
    for words in ("score", "nms", "size", "aspect", "outside", "labels", "per_label = True"):
        assert words in said


def test_config_prints_a_file_that_gives_the_same_pipeline(call: Call, tmp_path: Path) -> None:
    code, said = call("config", "--set", "specialists.ocr.min_score=0.45")
    assert code == 0
    (tmp_path / "mine.yaml").write_text(said)
    mine = build_pipeline(load_config(tmp_path / "mine.yaml"))
    assert mine == build_pipeline(load_config(EMBEDDED, ["specialists.ocr.min_score=0.45"]))
    assert mine.annotate_digest != build_pipeline(load_config(EMBEDDED)).annotate_digest


def test_the_schema_knows_the_components(call: Call) -> None:
    code, said = call("config", "--schema")
    assert code == 0
    schema = json.loads(said)
    assert {"ingest", "vocabulary", "specialists", "filters", "run"} <= schema["properties"].keys()
    train = schema["$defs"]["Train"]["properties"]
    assert "0.002 from nano" in train["recipe"]["properties"]["learning_rate"]["description"]
    assert "flip" in train["augment"]["properties"]
    assert "Lora" in schema["$defs"]
    titles = {variant.get("title") for variant in schema["properties"]["filters"]["additionalProperties"]["anyOf"]}
    assert {"nms", "score"} <= titles


def test_the_schema_takes_what_the_engine_takes(call: Call) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(call("config", "--schema")[1]))
    validator.validate(yaml.safe_load(call("config")[1]))
    validator.validate(yaml.safe_load(call("config", "--config", "little_data")[1]))
    recipes: list[Any] = [{"learning_rate": 1e-5, "lora": {"rank": 4}}, {"steps": 5}, {"bogus": 1}]
    for train in (*({"recipe": recipe} for recipe in recipes), *({"phases": {"a": {"recipe": r}}} for r in recipes)):
        good = "learning_rate" in str(train)
        assert validator.is_valid({"train": train}) == good, train


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stage", "anotate"], ["no such stage", "annotate"]),
        (["--set", "filters.nms.iuo=0.5"], ["filters.nms"]),
        (["--set", "run.item_seconds=soon"], ["run.item_seconds", "soon"]),
        (["--set", "ingest"], ["key.path=value"]),
        (["--images", "/no/such/folder"], ["no such file or folder", "/no/such/folder"]),
        (["--config", "/no/such.yaml"], ["/no/such.yaml"]),
        (["--limit", "0"], ["--limit"]),
        (["--frobnicate"], ["--frobnicate"]),
    ],
)
def test_wrong_usage_ends_with_2_and_names_it(
    call: Call, tmp_path: Path, arguments: list[str], says: list[str]
) -> None:
    code, said = call("run", "--out", str(tmp_path / "out"), *arguments)
    assert code == 2, said
    assert "Traceback" not in said
    for words in says:
        assert words in said


def test_an_empty_folder_is_named_and_what_was_seen_in_it(call: Call, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.docx").write_text("no image")
    code, said = call("run", "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "out"))
    assert code == 2
    assert str(tmp_path / "photos") in said
    assert ".docx 1" in said


def test_show_says_which_images_a_name_could_mean(call: Call, undisturbed: Path) -> None:
    code, said = call("show", str(undisturbed), "nothing.png")
    assert code == 2
    assert "none of the images" in said
    code, said = call("show", str(undisturbed.parent / "nowhere"), "nothing.png")
    assert code == 2
    assert "engine run --out" in said


def test_show_draws_no_old_boxes_over_a_new_image(call: Call, undisturbed: Path, images: Path, tmp_path: Path) -> None:
    image = images / "00 coffee.png"
    before = image.read_bytes()
    image.write_bytes((images / "01 astronaut.png").read_bytes())
    code, said = call("show", str(undisturbed), str(image), "--save", str(tmp_path / "x.png"))
    image.write_bytes(before)
    assert code == 3
    assert "00 coffee.png is not the file that was ingested" in said
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("name", [os.fsdecode(b"not utf-8 \xff"), "x" * 300, "file"])
def test_what_can_not_be_an_output_folder_is_named(call: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    code, said = call("run", "--out", str(tmp_path / name))
    assert code == 2
    assert "can't be an output folder" in said


def test_markup_in_names_is_no_markup(
    call: Call, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(undisturbed, tmp_path / "o[/x] [bold]y")
    monkeypatch.chdir(tmp_path)
    code, said = call("run", "--out", "o[/x] [bold]y", "--stage", "filter", "--set", "filters={'d[/b]': {use: labels}}")
    assert code == 0, said
    assert "One image: engine show 'o[/x] [bold]y' NAME" in said


@pytest.mark.parametrize("arguments", ["config", "run --help", "bogus", "run --stage bogus", "show /nowhere x"])
def test_nobody_reading_is_no_code_of_the_engine(arguments: str) -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([ENGINE, *arguments.split()], stdout=write, stderr=write)
    os.close(write)
    assert result.returncode == 141


def test_help_that_nobody_reads_says_nothing_else() -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([ENGINE, "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_closed_stderr_changes_no_code() -> None:
    assert subprocess.run(["sh", "-c", f"{ENGINE} bogus 2>&-"]).returncode == 2


def test_an_image_set_that_is_not_there_leaves_no_folder(call: Call, tmp_path: Path) -> None:
    code, _ = call("run", "--images", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"))
    assert code == 2
    assert not (tmp_path / "out").exists()


def test_a_full_device_is_said(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run([ENGINE, "config"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 3
    assert "No space left on device" in result.stderr
    assert result.stderr.count("\n") == 1


def test_show_tells_who_made_what_and_why_it_fell(call: Call, undisturbed: Path) -> None:
    code, said = call("show", str(undisturbed), "00 coffee.png")
    assert code == 0
    for words in ("annotations stand", "stands", "score:", "against"):
        assert words in said
    code, said = call("show", str(undisturbed), "91 broken.jpg")
    assert code == 0
    assert "quarantined in ingest" in said
    code, said = call("show", str(undisturbed), "90 twin.png")
    assert "an exact duplicate of" in said


def test_the_embedded_pipeline_gives_a_reason_for_every_threshold() -> None:
    text = EMBEDDED.read_text()
    filters = text[text.index("\nfilters:") : text.index("\nrun:")]
    for line in filters.splitlines():
        if any(key in line for key in ("iou:", "min_", "max_", "{object", "{text", "blacklist")):
            assert "#" in line, line
    assert yaml.safe_load(text)["filters"]
