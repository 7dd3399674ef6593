"""`engine new`: what it writes is installed, passes its own test, is found and run; what is there already it leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.annotate import annotate
from engine.cli import commands, terminal
from engine.components import build, installed
from engine.config import Http, Ingest, load_config
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import ConfigError
from engine.ingest import item_of
from engine.new import write
from engine.records import HUMAN, Record, Text
from engine.vocabulary import Vocabulary
from pipelines.build import EMBEDDED, build_pipeline

NAMES = {"specialist": "shining_spot", "filter": "loud_words"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both skeletons, and `site`, where they are installed."""
    folder = tmp_path_factory.mktemp("skeletons")
    for kind, name in NAMES.items():
        write(kind, name.replace("_", "-"), folder / kind)
        shutil.copytree(folder / kind, folder / f"built-{kind}")  # a build leaves files in the folder
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "site"))
    run(*pip, *offline, *(str(folder / f"built-{kind}") for kind in NAMES))
    return folder


@pytest.fixture
def visible(packages: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The installed skeletons can be imported."""
    monkeypatch.syspath_prepend(packages / "site")
    installed.cache_clear()
    yield
    installed.cache_clear()
    for name in NAMES.values():
        sys.modules.pop(name, None)


def test_their_own_tests_pass_as_they_are_written(packages: Path) -> None:
    folders = [str(packages / kind) for kind in NAMES]
    said = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders)
    assert "5 passed" in said


def test_they_are_clean_code_by_the_rules_of_this_project(packages: Path) -> None:
    rules = ("--config", str(Path(__file__).parents[2] / "pyproject.toml"), "--no-cache")
    folders = [str(packages / kind) for kind in NAMES]
    run(sys.executable, "-m", "ruff", "check", *rules, *folders)
    run(sys.executable, "-m", "ruff", "format", "--check", *rules, *folders)


@pytest.mark.usefixtures("visible")
def test_the_engine_finds_and_runs_both(image_set: Callable[..., Path]) -> None:
    specialist = build("specialists", "spot", {"use": "shining_spot", "min_score": 0.01}, Vocabulary())
    filter_ = build("filters", "loud_words", {}, Vocabulary())
    specialist.setup()
    no_net = Downloader(Path("nowhere"), Http(), max_bytes=0)
    items = [item_of(Entry(str(path)), Ingest(), no_net) for path in sorted(image_set(3).iterdir())]
    shout = Text(id="0.alt.0", source="alt", text="BUY NOW", detail="brief")
    done = annotate([Record(item).append([shout]) for item in items], [specialist], [filter_], Ingest(), {})
    for record in done:
        assert record.error is None
        (region,) = record.regions
        assert (region.kind, region.source, region.id) == ("proposal", "spot", "0.spot.0")
        assert region.score is not None
        assert 0 <= region.box[0] < region.box[2] <= 96
        (decision,) = record.decisions
        assert (decision.by, decision.reason, decision.value) == ("loud_words", "too_many_capitals", 1.0)


@pytest.mark.usefixtures("visible")
def test_the_settings_that_it_tells_make_a_pipeline() -> None:
    settings = [f"{kind}s.{name}={{}}" for kind, name in NAMES.items()]
    pipeline = build_pipeline(load_config(EMBEDDED, settings))
    assert pipeline.specialists[-1].name == "shining_spot"
    assert pipeline.filters[-1].name == "loud_words"
    assert pipeline.sources["shining_spot"]["parameters"] == {"min_score": 0.1}
    assert len(pipeline.sources["shining_spot"]["version"]) == 12
    assert pipeline.annotate_digest != build_pipeline(load_config(EMBEDDED)).annotate_digest
    assert pipeline.filter_digest != build_pipeline(load_config(EMBEDDED)).filter_digest


@pytest.mark.usefixtures("visible")
def test_the_name_is_taken_from_then_on(tmp_path: Path) -> None:
    for kind in NAMES:
        for name in ("shining-spot", "loud_words"):
            with pytest.raises(ConfigError, match="is taken: one of the installed"):
                write(kind, name, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_terminal_says_what_was_written_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal.console, "width", 200)
    result = CliRunner().invoke(commands.app, ["new", "specialist", "shining-spot", "--to", "my spot"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Written:",
        "  my spot/README.md",
        "  my spot/shining_spot.py",
        "  my spot/pyproject.toml",
        "  my spot/test_shining_spot.py",
        "To go on:",
        "  pip install --editable 'my spot' pytest",
        "  python -m pytest 'my spot'",
        "  engine run --limit 3 --out out-shining_spot --set 'specialists.shining_spot={}'",
    ]
    assert sorted(path.name for path in (tmp_path / "my spot").iterdir()) == sorted(
        ["README.md", "shining_spot.py", "pyproject.toml", "test_shining_spot.py"]
    )
    assert not any("$" in path.read_text() for path in (tmp_path / "my spot").iterdir())
    assert "pip install --editable . pytest" in (tmp_path / "my spot" / "README.md").read_text()


def test_without_a_folder_it_is_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths, _ = write("filter", "loud-words")
    assert Path("loud-words/loud_words.py") in paths
    assert all(path.is_file() for path in paths)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "can't be the name"),
        ("Bright", "can't be the name"),
        ("bright spot", "can't be the name"),
        ("../bright", "can't be the name"),
        ("_bright", "can't be the name"),
        ("bright--spot", "can't be the name"),
        ("2d", "can't be the name"),
        ("helligkeit_größe", "can't be the name"),
        ("lambda", "can't be the name"),
        ("x" * 61, "can't be the name"),
        ("nms", "one of the installed filters"),
        ("grabcut", "one of the installed specialists"),
        ("json", "is taken"),
        ("numpy", "is taken"),
        ("engine", "is taken"),
        ("scikit-learn", "is taken"),  # a distribution, whose module has another name
        (HUMAN, "is taken"),
        ("merge", "is taken"),
        ("region", "is taken"),  # its class would hide the one that it imports
    ],
)
@pytest.mark.parametrize("kind", NAMES)
def test_a_name_that_can_not_be_is_refused_and_nothing_written(tmp_path: Path, kind: str, name: str, says: str) -> None:
    if name == "region" and kind == "filter":
        name = "record"
    with pytest.raises(ConfigError, match=says):
        write(kind, name, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for taken in ("full", "file", "dangling"):
        with pytest.raises(ConfigError, match=f"{taken} is there already"):
            write("filter", "loud_words", tmp_path / taken)
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "full").iterdir())) == 1
    assert not (tmp_path / "nowhere").exists()
    paths, _ = write("filter", "loud_words", tmp_path / "empty")
    assert len(paths) == 4


def test_only_what_there_are_skeletons_of(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="engine new chooser: expected specialist or filter"):
        write("chooser", "mine", tmp_path / "new")


def run(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=250)
    assert done.returncode == 0, done.stdout
    return done.stdout
