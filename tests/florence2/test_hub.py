"""Where a model's folder comes from: this machine, a hub (a small one on loopback, with the real client), its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from florence import small_processor
from hub import COMMIT, hub

from florence2.errors import CheckpointError
from florence2.hub import resolve
from florence2.processor import Processor

ROOT = Path(__file__).parents[2]


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("models/mine", "./models/mine", "~/models/mine", tmp_path / "models/mine"):
        assert resolve(source, ["*.json"]).resolve() == tmp_path / "models/mine"
    with pytest.raises(CheckpointError, match=r"expected one of a.bin, b.bin in .*mine; none"):
        resolve("models/mine", ["a.bin", "b.bin"])
    with pytest.raises(CheckpointError, match="got a file"):
        resolve("models/mine/config.json", ["*.json"])


@pytest.mark.parametrize(
    "source", ["", ".x", "./x/y", "../x", "/x/y", "~/x", "~nobody/x", "x", "a/b/c", "a/", "\0", "x" * 9999, Path("a/b")]
)
def test_paths_are_never_looked_up_at_the_hub(
    source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CheckpointError, match=r"no such folder; expected one with \*\.json"):
        resolve(source, ["*.json"])


ASK = """
import sys
from florence2.errors import CheckpointError
from florence2.hub import resolve
for source in sys.argv[1:]:
    try:
        print(sorted(path.name for path in resolve(source, ["*.json", "*.safetensors"]).iterdir()))
    except CheckpointError as error:
        print(error)
"""


def resolved(cache: Path, *sources: str, **environment: str) -> list[str]:
    """In a process of its own, as the hub's client reads its environment once."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    path = {"PYTHONPATH": str(ROOT), "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *sources], env=kept | path | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_from_a_hub_and_then_from_the_cache(tmp_path: Path) -> None:
    with hub() as server:
        at = f"http://127.0.0.1:{server.server_port}"
        got, unknown, gated, bad = resolved(
            tmp_path, "someone/tiny", "nobody/none", "some/secret", "a b/c", HF_ENDPOINT=at
        )
        assert not any("model.onnx" in path for path in server.asked)
    assert got == "['config.json', 'tokenizer.json']"
    looked = "looked for *.json, *.safetensors at the hub, as there is no folder of this name; "
    assert unknown.startswith(f"nobody/none: {looked}the hub knows no such id, or it is private")
    assert gated.startswith(f"some/secret: {looked}access has to be asked for")
    assert bad.startswith(f"a b/c: {looked}it can't be an id")
    assert resolved(tmp_path, "someone/tiny", HF_HUB_OFFLINE="1") == [got]
    [away] = resolved(tmp_path, "some/other", HF_HUB_OFFLINE="1")
    assert f"some/other: {looked}HF_HUB_OFFLINE is set, and the cache has no whole copy" in away
    [away] = resolved(tmp_path, "some/other", HF_ENDPOINT=at)
    assert f"some/other: {looked}the hub is not reached" in away


def test_a_whole_processor_from_a_hub(tmp_path: Path) -> None:
    made = small_processor()
    made.save_pretrained(tmp_path / "made")
    with hub() as server:
        server.files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
        at = f"http://127.0.0.1:{server.server_port}"
        resolved(tmp_path / "cache", "someone/tiny", HF_ENDPOINT=at)
    [snapshot] = (tmp_path / "cache").rglob(f"snapshots/{COMMIT}")
    again = Processor.from_pretrained(snapshot)
    assert torch.equal(again.prompts(["a dog"])[0], made.prompts(["a dog"])[0])
