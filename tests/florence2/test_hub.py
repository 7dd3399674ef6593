"""Where a model's folder comes from: this machine, a hub (a small one on loopback, with the real client), its cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from florence import small_processor

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
def test_paths_are_never_looked_up_at_the_hub(source: str | Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such folder; expected one with \*\.json"):
        resolve(source, ["*.json"])


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """As much of the hub's protocol as a download needs, with one repository in three states."""

    daemon_threads = True
    files = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", "model.onnx": b"never asked for"}  # noqa: RUF012
    asked: list[str]


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if "secret" in path:
            self.say(403, b"", X_Error_Code="GatedRepo", X_Error_Message="Access to model is restricted")
        elif "someone/tiny" not in path:
            self.say(401, b"", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif "/resolve/" in path:
            body = self.server.files[path.rsplit("/", 1)[1]]
            self.say(200, body, ETag=f'"{len(body)}"', X_Repo_Commit=COMMIT)
        elif "/tree/" in path:
            entries = [{"type": "file", "path": k, "size": len(v), "oid": k} for k, v in self.server.files.items()]
            self.say(200, json.dumps(entries).encode(), Content_Type="application/json")
        else:
            info = {
                "id": "someone/tiny",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in self.server.files],
            }
            self.say(200, json.dumps(info).encode(), Content_Type="application/json")

    do_HEAD = do_GET

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def hub() -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), Answers) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


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
