"""How runs end that something outside ends: what they say, the code, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import disks
import psutil
import pytest
from command import ENGINE, Call, start, wait_for_shards
from judged import Judged, coco, pictures, regions
from s3 import environment, faulty, s3_server

from engine.lock import run_lock

SECONDS = 10.0  # within which nothing of Ray is left


@pytest.fixture
def begin(image_set: Callable[..., Path], tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    """Begins to annotate twelve images, in shards of three."""
    config = tmp_path / "pipeline.yaml"
    config.write_text("{specialists: {nanodet: {use: nanodet}}, run: {workers: 1, memory_mb_per_worker: 500}}")
    return lambda: start(image_set(12), tmp_path / "out", "--config", str(config))


def raylet_of(process: subprocess.Popen[str]) -> psutil.Process:
    for _ in range(600):
        for child in psutil.Process(process.pid).children():
            if child.name() == "raylet":
                return child
        time.sleep(0.05)
    raise AssertionError("no raylet after half a minute")


@pytest.mark.parametrize("when", ["as it starts", "in the middle"])
def test_the_end_of_ray_itself_ends_the_run(
    begin: Callable[[], subprocess.Popen[str]], when: str, tmp_path: Path
) -> None:
    """Ray would wait for it, and the run with it; or end the run with code 1 and without a word."""
    process, out = begin(), tmp_path / "out"
    raylet = raylet_of(process)
    if when == "in the middle":
        wait_for_shards(out, 1)
    everything = psutil.Process(process.pid).children(recursive=True)
    raylet.kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 3, said
    told = "Error: Ray's own process on this machine was killed (out of memory?). What is done is safe; run the same "
    assert f"{told}again to go on: engine run --stage annotate --out {out}" in said
    assert "Traceback" not in said
    beat = json.loads((out / "round-0" / "progress.json").read_text())
    assert beat["ended"].startswith("failed: Ray's own process on this machine was killed")
    _, left = psutil.wait_procs(everything, timeout=SECONDS)
    assert left == []
    with run_lock(out):
        pass


def wait_for_ears(process: subprocess.Popen[str]) -> None:
    """Until the command hears of SIGTERM: Python itself hears of SIGINT alone."""
    for _ in range(6000):
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (signal.SIGTERM - 1) & 1:  # type: ignore[index]
            return
        time.sleep(0.005)
    raise AssertionError("nothing heard after half a minute")


@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.6, 0.9, 1.4, 2.0])
def test_a_stop_of_the_first_seconds_is_heard(seconds: float, tmp_path: Path) -> None:
    """All that is heavy is imported then, and the commands are made."""
    process = subprocess.Popen(
        [ENGINE, "run", "--out", str(tmp_path / "out"), "--limit", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in what a script starts with &
    )
    wait_for_ears(process)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    # Where native code drops what is raised without a trace, which 1 stop of 370 met, it is the alarm that says so.
    assert re.search(r"Stopped(\.|, without what did not end within 8 s\.)", said), said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_does_not_wait_for_a_store_that_hangs(
    number: signal.Signals, image_set: Callable[..., Path], tmp_path: Path
) -> None:
    """Whose images are asked for, and which is to be told of the end."""
    with s3_server() as server, faulty(server) as proxy, environment(proxy.url):
        bucket = server.bucket()
        bucket.upload(image_set(6), "photos")
        proxy.fault = lambda method, path: "hangs" if proxy.done["hangs"] or path.endswith(".png") else None
        out = f"{bucket.uri}/out"
        process = subprocess.Popen(
            [ENGINE, "run", "--stage", "ingest", "--out", out, "--images", f"{bucket.uri}/photos"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not proxy.done["hangs"]:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert time.monotonic() - began < SECONDS
    assert "Stopped" in said
    assert "to go on: engine run --stage ingest" in said
    assert "Traceback" not in said


STOPPED = """
import os, signal, sys, time
from engine import process
process.is_command, process.STOP_SECONDS, process.is_ours = True, 1, sys.argv[1] == "ours"
signal.signal(signal.SIGTERM, process.stop)
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    time.sleep(2)
    os._exit(3)
"""


@pytest.mark.parametrize(("whose", "code"), [("asked for", 130), ("ours", 3)])
def test_a_stop_for_a_reason_of_ours_may_take_its_time(whose: str, code: int) -> None:
    """It is told at the end: Ray died, another run took the output over."""
    done = subprocess.run([sys.executable, "-c", STOPPED, whose], stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == code
    assert ("to go on: engine" in done.stderr) == (code == 130)


SWALLOWED = """
import os, signal, sys, time
from engine import cli, process
process.is_command = True
cli.begin()
if sys.argv[1] == "a stop of Ray's":
    signal.signal(signal.SIGTERM, lambda number, frame: (signal.signal(number, process.stop), sys.exit(number)))

class Closing:
    def __del__(self):
        if sys.argv[1] != "an error":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        raise OSError("lost")

try:
    for _ in range(3):
        Closing()
        time.sleep(1)
except KeyboardInterrupt:
    os._exit(4)
"""


@pytest.mark.parametrize(("what", "code"), [("a stop", 4), ("a stop of Ray's", 4), ("an error", 0)])
def test_a_stop_that_falls_into_a_finalizer_is_heard(what: str, code: int) -> None:
    """Where Python drops what is raised and goes on."""
    done = subprocess.run([sys.executable, "-c", SWALLOWED, what], stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == code
    assert ("OSError: lost" in done.stderr) == (what == "an error")
    assert "KeyboardInterrupt" not in done.stderr


TURNED = """
import os, signal, sys
from engine import cli, process
process.is_command = True
cli.begin()
from engine.cli.run import stoppable
with stoppable():
    try:
        if sys.argv[1] == "a stop":
            os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("of its own")
    except KeyboardInterrupt:
        raise ValueError("a schema can't be built") from None
"""


@pytest.mark.parametrize(("what", "said"), [("a stop", "Stopped. What is done is safe"), ("an error", "of its own")])
def test_a_stop_that_was_made_an_error_is_a_stop(what: str, said: str) -> None:
    """As pydantic's native code does. Other errors are what they are."""
    done = subprocess.run([sys.executable, "-c", TURNED, what], stderr=subprocess.PIPE, text=True, timeout=60)
    assert said in done.stderr
    assert ("a schema" in done.stderr) is False
    assert ("ValueError" in done.stderr) == (what == "an error")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small(tmp_path / "small", "500k") as disk:
        yield disk


@pytest.mark.parametrize(("command", "option"), [("evaluate", "--truth"), ("decontaminate", "--against")])
def test_a_full_disk_is_said_by_what_is_no_run(
    command: str, option: str, call: Call, small_disk: Path, tmp_path: Path
) -> None:
    """With the place, which a write does not know; and what is done is safe, and goes on."""
    images, box = pictures(tmp_path / "images", 2), (10.0, 10.0, 40.0, 40.0)
    truth = coco(images, ["0.png", "1.png"], [{"image": "0.png", "label": "dog", "bbox": box}])
    out = Judged.of(images, small_disk / "out").round({0: regions("model", ("dog", box, 0.5))}).output.root
    with suppress(OSError), open(small_disk / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)
    code, said = call(command, str(out), option, truth)
    assert code == 3, said
    assert re.search(
        rf"Error: no space left in {out}\S*\. What is done is safe; make room and run the same again", said
    )
    (small_disk / "ballast").unlink()
    code, said = call(command, str(out), option, truth)
    assert code == 0, said


def test_a_set_that_can_only_be_read_leaves_and_is_judged(call: Call, tmp_path: Path) -> None:
    """Its disk is read-only: what is written goes elsewhere, or is said to be wanted elsewhere."""
    images, box = pictures(tmp_path / "images", 2), (10.0, 10.0, 40.0, 40.0)
    truth = coco(images, ["0.png", "1.png"], [{"image": "0.png", "label": "dog", "bbox": box}])
    out = str(Judged.of(images, tmp_path / "out").round({0: regions("model", ("dog", box, 0.5))}).output.root)
    with disks.read_only(Path(out)):
        code, said = call("export", out, "--format", "coco", "--to", str(tmp_path / "to"))
        assert code == 0, said
        assert (tmp_path / "to" / "export.json").exists()
        code, said = call("evaluate", out, "--truth", truth)
        assert code == 2, said
        assert f"engine import {truth} --image-root {images} --out TRUTH" in said
        assert call("import", truth, "--out", str(tmp_path / "truth"))[0] == 0
        code, said = call("evaluate", out, "--truth", str(tmp_path / "truth"))
        assert code == 0, said
        code, said = call("decontaminate", out, "--against", truth)
        assert code == 2, said
        assert "Read-only file system" in said and "--out" not in said
