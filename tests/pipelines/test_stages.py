"""The whole of it through the command line: annotate, go on after every kind of death, decide again, refuse."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import disks
import psutil
import pytest
from command import COUNT, ENGINE, SHARD, SHARDS, command, counts, files, run, start, wait_for_shards
from PIL import Image
from rich.console import Console
from toys import Broken

from engine import open_dataset
from engine.config import Run, load_config
from engine.errors import RunError
from engine.layout import Output
from pipelines.build import EMBEDDED, build_pipeline
from pipelines.stages import Stages


def test_items_in_are_rows_out(undisturbed: Path) -> None:
    dataset = open_dataset(undisturbed)
    items = list(dataset.items())
    records = list(dataset.records())
    assert [record.item for record in records] == items
    assert len(items) == COUNT
    twin = next(item for item in items if "twin" in item.uri)
    assert twin.duplicate_of == items[0].item_id
    broken = next(record for record in records if "broken" in record.item.uri)
    assert broken.error is not None
    assert broken.error.stage == "ingest"
    assert any(region.kind == "text" and region.text for _, region in dataset.regions())
    standing = {(item.item_id, region.id) for item, region in dataset.regions()}
    everything = {(item.item_id, region.id) for item, region in dataset.regions(standing=False)}
    assert standing < everything


@pytest.mark.parametrize(
    "how",
    [("Ctrl-C", "driver killed"), pytest.param(("terminal closed", "worker killed"), marks=pytest.mark.slow)],
    ids=" then ".join,
)
def test_a_run_that_was_disturbed_gives_the_same_files(
    how: tuple[str, str], images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for number, what in enumerate(how):
        before = done_shards(out)
        process = start(images, out)
        wait_for_shards(out, min(len(before) + 1, SHARDS))
        disturb(process, what)
        after = done_shards(out)
        assert before.items() <= after.items(), "what was done is not done again"
        assert after or number == 0
    again = run(*command(out))
    assert again.returncode == 0, again.stdout
    assert after.items() <= done_shards(out).items()
    assert files(out).keys() == files(undisturbed).keys()
    assert files(out) == files(undisturbed)
    assert counts(out) == counts(undisturbed)


def done_shards(out: Path) -> dict[Path, int]:
    """With the times at which they were written."""
    return {path: path.stat().st_mtime_ns for path in (out / "round-0" / "decisions").rglob("shard-*.parquet")}


def disturb(process: subprocess.Popen[str], how: str) -> None:
    """And waits for its end."""
    if how == "driver killed":
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    elif how == "worker killed":
        children = psutil.Process(process.pid).children(recursive=True)
        for child in [child for child in children if "ray::Worker" in "".join(child.cmdline())][:1]:
            child.kill()
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    else:
        stop = signal.SIGINT if how == "Ctrl-C" else signal.SIGHUP
        for _ in range(10 if how == "Ctrl-C" else 1):  # people press it more than once
            os.kill(process.pid, stop)
            time.sleep(0.05)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 130, output
        assert "to go on: engine run" in output


def test_nobody_reading_ends_the_run_and_says_how_to_go_on(images: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path / "out", "--images", str(images)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("ingest: 24 images")
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == 141
    assert "to go on: engine run" in said
    assert "Traceback" not in said


def test_a_second_run_is_refused_while_the_first_lives(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(images, out)
    try:
        for _ in range(200):
            if (out / ".engine-lock").exists() and (out / ".engine-lock").read_text():
                break
            time.sleep(0.05)
        second = run(*command(out))
        assert second.returncode == 2
        assert f"in use by another run (process {process.pid}" in second.stdout.replace("\n", "")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGTERM)


@pytest.fixture
def annotated(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the undisturbed run to try things on."""
    return Path(shutil.copytree(undisturbed, tmp_path / "annotated"))


def test_filter_decides_again_without_a_specialist(annotated: Path, undisturbed: Path) -> None:
    result = run(*command(annotated, "--set", "filters.score.thresholds.ocr.text=0.99", stage="filter"))
    assert result.returncode == 0, result.stdout
    before, after = files(undisturbed), files(annotated)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert all(name.startswith(("round-0/decisions", "round-0/partitions")) for name in changed - {"config.yaml"})
    assert counts(annotated)["fallen"]["score"] != counts(undisturbed)["fallen"]["score"]  # type: ignore[index]
    back = run(*command(annotated, "--set", "filters.score.thresholds.ocr.text=0.6", stage="filter"))
    assert back.returncode == 0, back.stdout
    assert {k: v for k, v in files(annotated).items() if k != "config.yaml"} == {
        k: v for k, v in before.items() if k != "config.yaml"
    }


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "specialists.detector.min_score=0.3",
            ["annotations of another configuration", "min_score: 0.2 there, 0.3 asked"],
        ),
        ("ingest.max_pixels=5", ["images of another configuration", "ingest.max_pixels"]),
        ("filters.nms_none.use=nms", ["decisions of another configuration", "--stage filter"]),
    ],
)
def test_another_configuration_is_refused(annotated: Path, setting: str, says: list[str]) -> None:
    before = files(annotated)
    result = run(*command(annotated, "--set", setting))
    assert result.returncode == 2
    for words in says:
        assert words in result.stdout
    assert files(annotated) == before


def test_run_settings_are_no_other_configuration(annotated: Path) -> None:
    result = run(*command(annotated, "--set", "run.workers=1"))
    assert result.returncode == 0, result.stdout
    assert "nothing to do" in result.stdout


def test_settings_that_a_run_failed_with_do_not_stick(annotated: Path) -> None:
    shutil.rmtree(annotated / "round-0")
    failed = run(*command(annotated, "--set", "run.address=127.0.0.1:1"))
    assert failed.returncode == 3
    assert "'127.0.0.1:1' (run.address) does not answer" in failed.stdout
    assert load_config(Output(annotated).config).run.address == "local"


def test_deciding_again_does_not_ask_who_annotated(annotated: Path) -> None:
    sources = annotated / "round-0" / "sources.json"
    sources.write_text(json.dumps({**json.loads(sources.read_text()), "digest": "0123456789ab"}))
    refused = run(*command(annotated))
    assert refused.returncode == 2
    assert "0123456789ab is there" in refused.stdout
    assert "the decoder of images changed" in refused.stdout
    result = run(*command(annotated, "--set", "filters.score.thresholds.ocr.text=0.99", stage="filter"))
    assert result.returncode == 0, result.stdout
    assert counts(annotated)["digests"]["annotate"] == "0123456789ab"  # type: ignore[index]
    refused = run(*command(annotated, "--set", "specialists.ocr.min_score=0.9", stage="filter"))
    assert refused.returncode == 2
    assert "specialists.ocr.min_score: 0.3 there, 0.9 asked for" in refused.stdout
    assert "filters." not in refused.stdout


def test_a_stopped_filter_stage_is_explained(annotated: Path, undisturbed: Path) -> None:
    """Some decisions are of the new filters, and the configuration in the folder is still the old one."""
    result = run(*command(annotated, "--set", "filters.score.thresholds.ocr.text=0.99", stage="filter"))
    assert result.returncode == 0, result.stdout
    output, before = Output(annotated), Output(undisturbed)
    shutil.copy(before.config, output.config)
    for shard in list(output.shards())[2:]:
        shutil.copy(before.round(0).decisions(shard), output.round(0).decisions(shard))
    refused = run(*command(annotated))
    assert refused.returncode == 2
    assert "an earlier --stage filter was stopped" in refused.stdout
    assert run(*command(annotated, stage="filter")).returncode == 0
    assert run(*command(annotated)).returncode == 0
    assert files(annotated) == files(undisturbed)


def test_ingest_keeps_the_filters_that_decided(annotated: Path) -> None:
    before = files(annotated)
    result = run(*command(annotated, "--set", "filters.score.thresholds.ocr.text=0.99", stage="ingest"))
    assert result.returncode == 0, result.stdout
    assert files(annotated) == before


@pytest.mark.parametrize("there", ["a: [", "specialists: 7", ""])
def test_a_broken_configuration_in_the_folder_blocks_no_other(annotated: Path, images: Path, there: str) -> None:
    (annotated / "config.yaml").write_text(there)
    if there:
        refused = run(*command(annotated))
        assert refused.returncode == 2
        assert str(annotated / "config.yaml") in refused.stdout
    shown = run(ENGINE, "show", str(annotated), "00 coffee.png", "--save", str(annotated / "x.png"))
    assert shown.returncode == 0, shown.stdout
    mine = ("--config", str(EMBEDDED), "--images", str(images), "--set", f"ingest.shard_size={SHARD}")
    assert run(*command(annotated, *mine)).returncode == 0
    (annotated / "config.yaml").write_text(there)
    assert run(*command(annotated, *mine, "--overwrite", stage="ingest")).returncode == 0


def test_overwrite_starts_afresh(annotated: Path, images: Path) -> None:
    result = run(*command(annotated, "--overwrite", "--images", str(images), "--limit", "2", stage="ingest"))
    assert result.returncode == 0, result.stdout
    assert len(list(open_dataset(annotated).items())) == 2
    assert not (annotated / "round-0").exists()


def test_a_changed_image_set_is_said(annotated: Path, images: Path) -> None:
    extra = images / "99 new.png"
    Image.new("RGB", (20, 20)).save(extra)
    try:
        result = run(*command(annotated))
    finally:
        extra.unlink()
    assert result.returncode == 0
    assert "image set has changed" in result.stdout


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    result = run(*command(tmp_path, "--overwrite"))
    assert result.returncode == 2
    assert "thesis.tex" in result.stdout
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("foreign_config", [False, True])
def test_an_images_folder_of_the_user_is_not_ours(tmp_path: Path, images: Path, foreign_config: bool) -> None:
    (tmp_path / "images").mkdir()
    precious = tmp_path / "images" / "precious.png"
    precious.write_bytes((images / "00 coffee.png").read_bytes())
    if foreign_config:
        (tmp_path / "config.yaml").write_text("theirs: true")
    arguments = ("--images", str(images), "--config", str(EMBEDDED), "--overwrite")
    result = run(*command(tmp_path, *arguments, stage="ingest"))
    assert result.returncode == 2
    assert "no run's output" in result.stdout
    assert precious.exists()


def test_what_is_the_users_in_our_folder_outlives_overwrite(annotated: Path, images: Path) -> None:
    (annotated / "images" / "mine.png").write_bytes(b"mine")
    (annotated / "notes.txt").write_text("mine")
    result = run(*command(annotated, "--overwrite", "--images", str(images), stage="ingest"))
    assert result.returncode == 0, result.stdout
    assert (annotated / "images" / "mine.png").read_bytes() == b"mine"
    assert (annotated / "notes.txt").exists()


@pytest.mark.parametrize("fault", [["--images", "/no/such/folder"], ["--set", "run.min_free_mb=999999999"]])
def test_overwrite_removes_nothing_before_it_knows_that_it_can_start(annotated: Path, fault: list[str]) -> None:
    before = files(annotated)
    assert run(*command(annotated, "--overwrite", *fault)).returncode in (2, 3)
    assert files(annotated) == before


def test_a_filter_that_fails_changes_no_decision(annotated: Path) -> None:
    before = files(annotated)
    pipeline = build_pipeline(load_config(Output(annotated).config))
    config = pipeline.config.model_copy(update={"run": Run(workers=7)})
    config = config.model_copy(update={"filters": {**config.filters, "broken": {}}})
    broken = replace(pipeline, config=config, filters=(*pipeline.filters, Broken()))
    with pytest.raises(RunError, match=r"filter broken failed on .*00 coffee\.png: ZeroDivisionError"):
        Stages(broken, Output(annotated), Console(quiet=True)).run("filter")
    marker = "round-0/partitions/part-00000.json"  # until it is sure that all of it is decided by the same filters
    assert files(annotated) == {name: data for name, data in before.items() if name != marker}
    assert run(*command(annotated)).returncode == 0
    assert files(annotated) == before


def test_images_as_a_shell_gives_them(images: Path, tmp_path: Path) -> None:
    several = [str(path) for path in sorted(images.glob("0[1-3]*"))]
    result = run(*command(tmp_path / "out", "--images", *several, stage="ingest"))
    assert result.returncode == 0, result.stdout
    assert [item.uri for item in open_dataset(tmp_path / "out").items()] == several


def test_too_many_in_quarantine_end_with_1(tmp_path: Path, images: Path) -> None:
    broken = str(images / "91 broken.jpg")
    arguments = ("--images", broken, "--images", str(images / "00 coffee.png"))
    result = run(*command(tmp_path / "out", *arguments, stage="ingest"))
    assert result.returncode == 1
    assert "50.0% of the images are quarantined" in result.stdout
    lenient = run(*command(tmp_path / "out", *arguments, "--set", "run.max_quarantined=0.5", stage="ingest"))
    assert lenient.returncode == 0, lenient.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small(tmp_path / "small", "300k") as disk:
        yield disk


def test_a_full_disk_is_said_and_nothing_is_lost(small_disk: Path, images: Path) -> None:
    out = small_disk / "out"
    refused = run(*command(out, "--images", str(images)))
    assert refused.returncode == 3
    assert "0 MB of free space" in refused.stdout
    (small_disk / "ballast").write_bytes(b"x" * 270_000)
    arguments = ("--images", str(images), "--set", "run.min_free_mb=0", "--set", "ingest.shard_size=1")
    full = run(*command(out, *arguments))
    assert full.returncode == 3
    assert "no space left" in full.stdout
    (small_disk / "ballast").unlink()
    went_on = run(*command(out, *arguments, stage="ingest"))
    assert went_on.returncode == 0, went_on.stdout
    assert len(list(Output(out).shards())) == COUNT
