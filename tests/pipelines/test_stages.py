"""The whole of it through the command line: annotate, go on after every kind of death, decide again, refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from engine import open_dataset
from engine.storage import Output

ENGINE = str(Path(sys.executable).parent / "engine")
COUNT, SHARD = 24, 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Crops of real photos, with a duplicate and a broken file among them."""
    folder = tmp_path_factory.mktemp("photos")
    for n in range(COUNT - 2):
        name = ("coffee.png", "astronaut.png", "page.png", "motorcycle_left.png")[n % 4]
        source = Image.open(photos / name).convert("RGB")
        x, y = (17 * n) % (source.width - 180), (11 * n) % (source.height - 150)
        source.crop((x, y, x + 180, y + 150)).save(folder / f"{n:02d} {name}")
    (folder / "90 twin.png").write_bytes((folder / "00 coffee.png").read_bytes())
    (folder / "91 broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a photo once")
    return folder


def command(out: Path, *more: str, stage: str = "annotate") -> list[str]:
    return [ENGINE, "run", "--stage", stage, "--out", str(out), *more]


def start(images: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    arguments = ("--images", str(images), "--set", f"ingest.shard_size={SHARD}", *more)
    return subprocess.Popen(
        command(out, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)


def wait_for_shards(out: Path, count: int) -> None:
    for _ in range(1200):
        if len(list((out / "round-0" / "decisions").rglob("shard-*.parquet"))) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {count} shards after two minutes")


def files(out: Path) -> dict[str, bytes]:
    """Every file but the summary, whose timings are the run's own, and the lock."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("summary.json", ".lock")
    }


def counts(out: Path) -> dict[str, object]:
    return {k: v for k, v in json.loads((out / "round-0" / "summary.json").read_text()).items() if k != "last_run"}


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    process = start(images, out)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "24 images, 1 quarantined" in output
    return out


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


@pytest.mark.parametrize("how", ["driver killed", "worker killed", "Ctrl-C"])
def test_a_run_that_was_disturbed_gives_the_same_files(
    how: str, images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(images, out)
    wait_for_shards(out, 1)
    if how == "driver killed":
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    elif how == "Ctrl-C":
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "to go on: engine run" in output
    else:
        workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "ray::Worker" in p.name() + "".join(p.cmdline())]
        workers[0].kill()
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    done = set((out / "round-0" / "decisions").rglob("shard-*.parquet"))
    before = {path: path.stat().st_mtime_ns for path in done}
    again = run(*command(out))
    assert again.returncode == 0, again.stdout
    assert {path: path.stat().st_mtime_ns for path in done} == before, "what was done is not done again"
    assert files(out).keys() == files(undisturbed).keys()
    assert files(out) == files(undisturbed)
    assert counts(out) == counts(undisturbed)


def test_a_second_run_is_refused_while_the_first_lives(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(images, out)
    try:
        for _ in range(200):
            if (out / ".lock").exists() and (out / ".lock").read_text():
                break
            time.sleep(0.05)
        second = run(*command(out))
        assert second.returncode == 2
        assert f"in use by another run (process {process.pid}" in second.stdout.replace("\n", "")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGTERM)


@pytest.fixture
def annotated(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the undisturbed run to try things on."""
    import shutil

    return Path(shutil.copytree(undisturbed, tmp_path / "annotated"))


def test_filter_decides_again_without_a_specialist(annotated: Path, undisturbed: Path) -> None:
    result = run(*command(annotated, "--set", "filters.score.thresholds.ocr.text=0.99", stage="filter"))
    assert result.returncode == 0, result.stdout
    before, after = files(undisturbed), files(annotated)
    changed = {name for name in before if before[name] != after[name]}
    assert all(name.startswith("round-0/decisions") for name in changed - {"config.yaml"})
    assert counts(annotated)["fallen"]["score"] != counts(undisturbed)["fallen"]["score"]  # type: ignore[index]
    back = run(*command(annotated, "--set", "filters.score.thresholds.ocr.text=0.6", stage="filter"))
    assert back.returncode == 0, back.stdout
    assert {k: v for k, v in files(annotated).items() if k != "config.yaml"} == {
        k: v for k, v in before.items() if k != "config.yaml"
    }


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("specialists.detector.min_score=0.3", ["annotations of another configuration", "min_score: 0.2 there, 0.3 asked"]),
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
    """A file system of 300 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_said_and_nothing_is_lost(small_disk: Path, images: Path) -> None:
    out = small_disk / "out"
    refused = run(*command(out, "--images", str(images)))
    assert refused.returncode == 3
    assert "0 MB of free space" in refused.stdout
    (small_disk / "ballast").write_bytes(b"x" * 270_000)
    full = run(*command(out, "--images", str(images), "--set", "run.min_free_mb=0", "--set", "ingest.shard_size=1"))
    assert full.returncode == 3
    assert "no space left" in full.stdout
    (small_disk / "ballast").unlink()
    went_on = run(*command(out, "--images", str(images), "--set", "run.min_free_mb=0", "--set", "ingest.shard_size=1", stage="ingest"))
    assert went_on.returncode == 0, went_on.stdout
    assert len(list(Output(out).shards())) == COUNT
