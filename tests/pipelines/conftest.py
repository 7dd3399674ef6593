"""One image set, annotated once, for all tests that look at what a run leaves; and the command line in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command import COUNT, Call, start
from PIL import Image

from engine.cli import commands, terminal


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that nothing happened to. Not to be written to."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    (out.parent / "filters.py").write_text("raise SystemExit('the current folder is nobody to import from')")
    process = start(images, out, cwd=out.parent)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert "24 images, 1 quarantined" in output
    return out


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls `engine` with arguments; gives the exit code and all it said, unwrapped."""

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["engine", *arguments])
        monkeypatch.setattr(terminal.console, "width", 200)
        with pytest.raises(SystemExit) as ended:
            commands.run()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return call
