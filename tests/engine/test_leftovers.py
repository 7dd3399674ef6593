"""What killed trainings leave in an output folder is found, and what one that goes on may need is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.atomic import write_json
from engine.config import Ingest
from engine.copies import moved
from engine.layout import Output
from engine.verify.leftovers import leftovers
from engine.verify.repair import carry_out, planned

MODEL, CHECKPOINT = "model/config.json", "training/fold-0/checkpoints/step-5/training.json"
AGAIN = CHECKPOINT.replace("step-5", ".step-5.{}")


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(tmp_path / "out")
    write_json(output.manifest, {"partitions": []})
    return output


def written(output: Output, *names: str) -> None:
    for name in names:
        path = output.root / "round-1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def left(output: Output, writing: bool = False) -> list[str]:
    """And removed."""
    found = list(leftovers(output, [], [], writing))
    plan = planned(output, found, Ingest())
    carry_out(output, plan, Ingest())
    assert plan.remove == tuple(sorted(finding.path for finding in found))
    assert not any((output.root / path).exists() for path in plan.remove)
    return [path.removeprefix("round-1/") for path in plan.remove]


@pytest.mark.parametrize(
    ("folder", "there"),
    [
        (".model.before", [MODEL, ".model.before/config.json"]),
        ("model/.fold-1.before", ["model/fold-1/config.json", "model/.fold-1.before/config.json"]),
        (".model.unpublished", [".model.unpublished/config.json", CHECKPOINT]),
        (".model.unfinished", [".model.unfinished/config.json", MODEL]),
        ("model/.unfinished-abcd", [MODEL, "model/.unfinished-abcd/model.safetensors"]),
        ("training/.start.unfinished", ["training/.start.unfinished/.unfinished-abcd/config.json"]),
        ("training/fold-0/.checkpoint.new", ["training/fold-0/.checkpoint.new/config.json"]),
        (str(Path(AGAIN.format("new")).parent), [AGAIN.format("new"), CHECKPOINT]),
        (str(Path(AGAIN.format("old")).parent), [AGAIN.format("old"), CHECKPOINT]),
    ],
)
def test_what_a_killed_training_left(folder: str, there: list[str], output: Output) -> None:
    written(output, *there)
    kept = [output.root / "round-1" / name for name in there if not name.startswith(folder)]
    assert left(output, writing=True) == []
    assert left(output) == [folder]
    assert left(output) == []
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize(
    "there",
    [
        [".model.before/config.json", ".model.unfinished-of-mine/config.json"],
        [AGAIN.format("new")],
        [AGAIN.format("old"), AGAIN.format("new")],
        ["notes/.mine.new/text", "annotations/.mine.old/text"],
    ],
)
def test_what_may_be_needed_is_kept(there: list[str], output: Output) -> None:
    written(output, *there)
    assert left(output) == []


def test_what_a_move_that_is_killed_leaves(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the names, and before the old one is removed."""
    written(output, MODEL, ".model.unpublished/new.json")
    model, made = output.round(1).model(), output.round(1).folder / ".model.unpublished"
    calls = iter([None, KeyboardInterrupt])

    def killed(*_: object, **__: object) -> None:
        if error := next(calls):
            raise error

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        moved(made, model, "config.json")
    monkeypatch.undo()
    assert left(output) == [".model.before"]
    assert [path.name for path in model.iterdir()] == ["new.json"]
