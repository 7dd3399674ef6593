"""`engine refine`: the whole loop in small, through the command line, Ray and training. It claims no quality: the
specialists' faults are known (benchmarks/refinement), and a second one sees to it that every rule has something to do.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Call

from benchmarks.refinement.setting import ENGINE, PIPELINE, PLUGIN, ROOT, draw, label
from benchmarks.refinement.worlds import HERE
from engine import open_dataset
from engine.atomic import read_json
from engine.folds import Choice, Folds
from engine.layout import Output
from engine.records import HUMAN, MERGE, Record
from engine.storage import read_records

pytestmark = pytest.mark.usefixtures("one_thread")
COUNT, SHARD = 40, 8
LABELLED = tuple(range(0, 40, 2))
NEVER = ("duplicated", "misdescribed", "small_missed", "occluded_missed", "bias")
FIRST = {"missed": 0.3, "mislabelled": 0.3}
SECOND = {"seed": 5, "missed": 0.05, "mislabelled": 0.05, "shifted": 0.02, "invented": 0.2, **dict.fromkeys(NEVER, 0.0)}
TOY: dict[str, Any] = {
    "base": str(PIPELINE),
    "ingest": {"shard_size": SHARD},
    "train": {"start": "pico", "steps": 4, "checkpoint_steps": 2, "images_per_step": 4, "images_at_once": 4},
    "specialists": {"detector": FIRST},
    "reannotate": {"specialists": {"second": SECOND, "reader": {"seed": 5}}},
    "merge": {"min_matches": 12},
    "gate": {"margin": 0.5},
    "refine": {"rounds": [{"images": 12}, {"images": "all", "train": {"steps": 3}}]},
    "run": {"workers": 1},
}


def engine(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(PLUGIN)])}
    return subprocess.Popen(
        [*ENGINE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def done(*arguments: str) -> str:
    process = engine(*arguments)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that is the same each time: images go by their paths into rounds and folds, and forty are so few that
    another draw may come to another verdict."""
    folder = Path(tempfile.gettempdir()) / "engine-tests-of-refinement"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as file:  # several may be testing on one machine
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder / "drawn"
        shutil.rmtree(folder / "drawn", ignore_errors=True)


@pytest.fixture(scope="module")
def annotated(place: Path) -> Path:
    """Round 0, and labels of half of the images beside it. Not to be written to."""
    folder = place
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    label(folder, draw(folder, HERE, 0, COUNT), LABELLED)
    (folder / "toy.yaml").write_text(yaml.safe_dump(TOY))
    done("run", "--config", str(folder / "toy.yaml"), "--images", str(folder / "images"), "--out", str(folder / "out"))
    return folder / "out"


@pytest.fixture(scope="module")
def settings(annotated: Path) -> tuple[str, ...]:
    folder = annotated.parent
    return ("--set", f"gate.labels=[{folder / 'labels.json'}, {folder / 'label_captions.json'}]")


@pytest.fixture(scope="module")
def refined(annotated: Path, settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds, which nobody disturbed. The second specialist is far better than the first one, and so is round 1;
    round 2 has nothing new to say. Not to be written to."""
    out = Path(shutil.copytree(annotated, tmp_path_factory.mktemp("refined") / "out"))
    said = done("refine", "--out", str(out), *settings)
    assert "round 1: accepted" in said, said
    assert "round 2: refused; round 1 stays the one to use" in said, said
    assert "The round to use: 1" in said
    learned = re.findall(r"train: (\d+) images", said)
    assert 0 < int(learned[0]) <= 12 < int(learned[1]) <= 20, "of those that are not labelled, and show something"
    return out


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The specialists of the benchmark, installed in this process."""
    from engine.components import installed

    monkeypatch.syspath_prepend(str(PLUGIN))
    installed.cache_clear()
    yield
    installed.cache_clear()


def records(out: Path, number: int) -> list[Record]:
    return list(open_dataset(out, number).records())


def test_every_stage_and_kind_of_decision_occurs(refined: Path) -> None:
    output = Output(refined)
    decisions: Counter[tuple[str, str]] = Counter()
    for number in (1, 2):
        for action, reasons in read_json(output.round(number).merge.summary)["decisions"].items():
            decisions.update({(action, reason): count for reason, count in reasons.items()})
    expected = {
        ("add", "fused"),
        ("supersede", "fused"),
        ("add", "carried"),
        ("supersede", "carried"),
        ("add", "precise"),
        ("reject", "imprecise"),
        ("supersede", "corrected"),
        ("keep", "uncalibrated"),
        ("keep", "specialist"),
        ("keep", "read_once"),
        ("reject", "unread_uncalibrated"),
        ("supersede", "other_reading"),
        ("supersede", "same_reading"),
        ("keep", "best_text"),
        ("supersede", "names_less_of_it"),
        ("add", "chosen"),
    }
    assert expected <= decisions.keys()
    assert not decisions.keys().isdisjoint({("reject", "less_precise"), ("reject", "contested_uncalibrated")})
    assert {action for action, _ in decisions} == {"add", "keep", "reject", "supersede"}
    for number in (1, 2):
        assert (output.round(number - 1).model(1, 2) / "model.safetensors").exists()


def test_the_counts_add_up(refined: Path) -> None:
    """Of both rounds: what stands afterwards is what stood, less what fell, and what was added."""
    for number in (1, 2):
        before, after = records(refined, number - 1), records(refined, number)
        manifest = read_json(Output(refined).round(number).manifest)
        for old, new in zip(before, after, strict=True):
            assert old.item == new.item
            assert old.by_id.items() <= new.by_id.items()
            assert new.decisions[: len(old.decisions)] == old.decisions
        standing = sum(len(record.standing.by_id) for record in after)
        counted = manifest["counts"]["annotations"]
        assert standing == sum(kind["standing"] for kinds in counted.values() for kind in kinds.values())
        assert sum(len(r.by_id) for r in after) == sum(k["made"] for kinds in counted.values() for k in kinds.values())
        changed = [_total(manifest["diff"].get(change, {})) for change in ("added", "changed", "dropped")]
        masks = [sum(len(record.standing.masks) for record in some) for some in (before, after)]
        stood = sum(len(record.standing.by_id) for record in before)
        gone = sum(
            len(old.standing.by_id.keys() - new.standing.by_id.keys()) for old, new in zip(before, after, strict=True)
        )
        come = sum(
            len(new.standing.by_id.keys() - old.standing.by_id.keys()) for old, new in zip(before, after, strict=True)
        )
        assert standing == stood - gone + come
        assert changed[0] + changed[1] <= come
        assert changed[2] + changed[1] <= gone
        assert masks[1] > 0


def _total(counts: Any) -> int:
    return sum(map(_total, counts.values())) if isinstance(counts, dict) else int(counts)


def test_a_round_takes_the_images_that_its_plan_says(refined: Path) -> None:
    output = Output(refined)
    touched = {r.item.item_id for r in records(refined, 1) if any(a.id.startswith("1.") for a in r.annotations())}
    assert len(touched) == 12 + len(LABELLED), "those that judge are always looked at"
    everything = {r.item.item_id for r in records(refined, 2) if any(a.id.startswith("2.") for a in r.annotations())}
    assert len(everything) == COUNT
    bound = int(read_json(output.round(1).manifest)["images"]["bound"], 16)
    folds = Folds(1, open_dataset(refined).leaders(), Choice(frozenset(), bound))
    chosen = {item.item_id for item in open_dataset(refined).items() if folds.chosen(item)}
    labelled = {item.item_id for item in open_dataset(refined).items() if int(Path(item.uri).stem) in LABELLED}
    assert touched == chosen | labelled
    assert len(chosen - labelled) == 12


def kill_when(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    for _ in range(4000):
        if happened():
            break
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("when", [(0, 2), (1, 3)], ids=["within", "between"])
def test_killed_and_resumed_it_comes_to_the_same(
    annotated: Path, settings: tuple[str, ...], refined: Path, tmp_path: Path, when: tuple[int, ...]
) -> None:
    """Inside training and merging, and between annotating again, merging and judging; reannotation by itself is killed
    in test_reannotate.py."""
    out = Path(shutil.copytree(annotated, tmp_path / "out"))
    output, command = Output(out), ("refine", "--out", str(out), "--rounds", "1", *settings)
    moments: Sequence[Callable[[], bool]] = (
        lambda: any(output.round(0).training.glob("fold-1/checkpoint*")),
        lambda: all(output.round(1).decisions(shard).exists() for shard in output.shards()),
        lambda: any((output.round(1).merge.folder / "decisions").rglob("shard-*.parquet")),
        lambda: output.round(1).merge.summary.exists(),
    )
    for moment in when:
        assert not moments[moment](), "or nothing is tested"
        kill_when(engine(*command), moments[moment])
    done(*command)
    assert records(out, 1) == records(refined, 1)
    ours, theirs = (read_json(Output(folder).round(1).manifest) for folder in (out, refined))
    assert ours == theirs


def test_what_is_done_is_not_done_again(
    settings: tuple[str, ...], refined: Path, tmp_path: Path, call: Call, plugin: None
) -> None:
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    code, said = call("run", "--stage", "merge", "--round", "1", "--out", str(out), *settings)
    assert (code, "merge: nothing to do" in said) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before


def test_labels_judge_and_are_no_annotations(refined: Path) -> None:
    manifest = read_json(Output(refined).round(1).manifest)
    names = {one["name"]: one for one in manifest["verdict"]["comparisons"]}
    assert {"objects", "boxes", "masks", "lines", "brief texts", "objects, small"} <= names.keys()
    assert manifest["verdict"]["images"] == len(LABELLED)
    told = read_json(Output(refined).round(1).merge.summary)["calibration"]
    assert any("second object" in stratum for stratum in told["calibrated"])
    assert [a for record in records(refined, 1) for a in record.annotations() if a.source == HUMAN] == []


def test_nothing_is_built_on_a_refused_round(refined: Path, tmp_path: Path, call: Call, plugin: None) -> None:
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    for stage in ("train", "reannotate"):
        code, said = call("run", "--stage", stage, "--round", "2", "--out", str(out))
        assert (code, "round 2" in said, "was refused" in said) == (2, True, True), said


def test_another_plan_for_a_round_that_is_there_is_refused(
    settings: tuple[str, ...], refined: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    plan = ("--set", "refine.rounds=[{images: 13}]")
    process = engine("refine", "--out", str(out), "--rounds", "1", *settings, *plan)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 2
    assert "was begun with 12 images (refine.rounds.0), and 13 is asked for" in said


def test_a_report_needs_none_of_what_annotated(refined: Path, tmp_path: Path, call: Call) -> None:
    out = str(shutil.copytree(refined, tmp_path / "out"))
    assert "no specialist is called" in call("run", "--out", out)[1]
    code, said = call("report", out, "--pictures", "2")
    assert code == 0, said


def test_diff_and_report_show_rounds(refined: Path, tmp_path: Path, call: Call, plugin: None) -> None:
    code, said = call("diff", str(refined), "0", "2")
    assert code == 0
    assert "fused" in said
    code, said = call("diff", str(refined), "0", "1", "--json")
    assert json.loads(said)["changed"]["object"][MERGE]
    assert "earlier round to a later one" in call("diff", str(refined), "1", "1")[1]
    assert call("diff", str(refined), "0", "7")[0] != 0
    assert "not merged and judged" not in call("diff", str(refined), "0", "2")[1]
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    assert call("report", str(out), "--round", "2", "--pictures", "2")[0] == 0
    page = (out / "report" / "index.html").read_text()
    assert "Round 1: accepted" in page
    assert "Round 2: refused" in page
    assert MERGE in page
    code, said = call("report", str(out), "--pictures", "2")
    assert code == 0 and "report of round 1: " in said, "the last that was accepted"
    assert "Round 1: 40 images annotated" in call("stats", str(out))[1]
    (out / "round-2" / "round.json").unlink()
    assert "Round 2 is not merged and judged yet" in call("diff", str(out), "1", "2")[1]
    next((out / "round-2" / "decisions").rglob("shard-*.parquet")).unlink()
    shutil.rmtree(out / "round-2" / "partitions")
    assert "has no whole round 2 yet" in call("diff", str(out), "1", "2")[1]


def test_labels_are_looked_for_first(annotated: Path, tmp_path: Path, call: Call, plugin: None) -> None:
    """And what is wrong with them is not kept for the next time."""
    out = Path(shutil.copytree(annotated, tmp_path / "out"))
    kept = (out / "config.yaml").read_text()
    assert call("audit", str(out), "--to", str(tmp_path / "audit"), "--images", "20")[0] == 0
    for path, says in ((tmp_path / "nowhere.json", "gate.labels: "), (tmp_path / "audit/instances.json", "no labels")):
        code, said = call("refine", "--out", str(out), "--set", f"gate.labels=[{path}]")
        assert code != 0
        assert says in said
        assert (out / "config.yaml").read_text() == kept


def test_merge_says_what_it_lacks(annotated: Path, call: Call, plugin: None) -> None:
    code, said = call("run", "--stage", "merge", "--out", str(annotated))
    assert code == 2
    assert "--round" in said
    code, said = call("run", "--stage", "merge", "--round", "1", "--out", str(annotated))
    assert code == 2
    assert "no whole round 1" in said


def test_a_merge_by_hand_is_the_refinements(
    settings: tuple[str, ...], refined: Path, tmp_path: Path, call: Call, plugin: None
) -> None:
    """The merge stage alone, after its results were lost."""
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    output = Output(out)
    shutil.rmtree(output.round(2).folder)
    for name in ("decisions", "partitions"):
        shutil.rmtree(output.round(1).merge.folder / name, ignore_errors=True)
    (shard, *_) = output.shards()
    unmerged = read_records(output, 1, shard)
    assert all(
        record.item == other.item
        for record, other in zip(unmerged, read_records(Output(refined), 1, shard), strict=True)
    )
    assert call("run", "--stage", "merge", "--round", "1", "--out", str(out), *settings)[0] == 0
    assert records(out, 1) == records(refined, 1)


SHORTEST = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Shortest:
    name: str
    least: int = 0

    def setup(self):
        pass

    def choose(self, region, candidates, pixels):
        assert pixels().shape[2] == 3
        return [float(-max(len(candidate.text), self.least)) for candidate in candidates]
"""


def test_a_chooser_of_ones_own_chooses(
    settings: tuple[str, ...], refined: Path, tmp_path: Path, call: Call, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.components import installed

    package = tmp_path / "choosers" / "shortest-1.dist-info"
    package.mkdir(parents=True)
    (package.parent / "shortest.py").write_text(SHORTEST)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: shortest\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[engine.choosers]\nshortest = shortest:Shortest\n")
    monkeypatch.syspath_prepend(str(package.parent))
    installed.cache_clear()
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    shutil.rmtree(out / "round-2")
    merge = ("run", "--stage", "merge", "--round", "1", "--out", str(out), *settings, "--set")
    assert "installed: by_class, contrastive, shortest" in call(*merge, "merge.chooser={use: longest}")[1]
    assert call(*merge, "merge.chooser={use: shortest, least: 3}")[0] == 0
    was, now = ([len(r.standing.region_texts) for r in records(folder, 1)] for folder in (refined, out))
    assert sum(now) < sum(was), "a class is shorter than what is written of it"
    assert read_json(Output(out).round(1).merge.sources)["sources"][MERGE]["parameters"]["chooser"]["use"] == "shortest"


def test_overwrite_does_not_take_everything_along(refined: Path, tmp_path: Path, call: Call, plugin: None) -> None:
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    for stage in ("merge", "train", "reannotate"):
        code, said = call("run", "--stage", stage, "--round", "1", "--overwrite", "--out", str(out))
        assert (code, "--overwrite would remove all rounds" in said) == (2, True)
    assert (out / "round-1" / "merge" / "summary.json").exists()


def test_labels_that_were_learned_do_not_judge(
    settings: tuple[str, ...], refined: Path, tmp_path: Path, call: Call, plugin: None
) -> None:
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    shutil.rmtree(out / "round-2")
    for path in (out / "round-0" / "model").glob("*/made_by.json"):
        made_by = read_json(path)
        withheld = made_by.pop("withheld")
        assert len(withheld) == len(LABELLED)
        path.write_text(json.dumps(made_by | {"withheld": withheld[:4]}))
    code, said = call("run", "--stage", "merge", "--round", "1", "--out", str(out), *settings)
    assert said.replace("\n", " ").count("16 of 20 labelled images were trained on") == 1
    assert "4 labelled images are too few" in said
    assert code == 0


def test_what_a_later_round_stands_on_is_not_merged_anew(
    settings: tuple[str, ...], refined: Path, tmp_path: Path, call: Call, plugin: None
) -> None:
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    other = ("--set", "merge.enter=0.7")
    code, said = call("run", "--stage", "merge", "--round", "1", "--out", str(out), *settings, *other)
    assert (code, "stands on how round 1 is merged" in said) == (2, True)
    assert records(out, 1) == records(refined, 1)


def test_a_round_that_is_merged_in_part_is_no_base(refined: Path, tmp_path: Path, call: Call, plugin: None) -> None:
    out = Path(shutil.copytree(refined, tmp_path / "out"))
    shutil.rmtree(out / "round-2")
    (shard, *_) = Output(out).shards()
    merge = Output(out).round(1).merge
    merge.decisions(shard).unlink()
    shutil.rmtree(merge.closed(0).parent)
    for stage in ("train", "reannotate", "report"):
        code, said = call("run", "--stage", stage, "--round", "1", "--out", str(out))
        assert (code, "merged in part" in said) == (2, True), said


def test_an_audit_is_drawn_labelled_and_read(annotated: Path, tmp_path: Path, call: Call, plugin: None) -> None:
    to = tmp_path / "audit"
    code, said = call("audit", str(annotated), "--images", "5", "--to", str(to))
    assert (code, "5 images" in said) == (0, True)
    document = json.loads((to / "instances.json").read_text())
    assert {category["name"] for category in document["categories"]} >= {"circle", "square"}
    more = tmp_path / "more"
    call("audit", str(annotated), "--images", "9", "--to", str(more))
    names = [{one["file_name"] for one in json.loads((f / "instances.json").read_text())["images"]} for f in (to, more)]
    assert names[0] < names[1], "the larger draw has those of the smaller"
    assert "not empty" in call("audit", str(annotated), "--to", str(to))[1]
    document["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    (to / "instances.json").write_text(json.dumps(document))
    from engine.config import load_config
    from engine.labels import read_labels

    config = load_config(annotated / "config.yaml", [f"gate.labels=[{to / 'instances.json'}]"])
    labels = read_labels(Output(Path(shutil.copytree(annotated, tmp_path / "out"))), config)
    assert (len(labels.records), labels.unknown) == (5, 0)
    assert sum(len(record.regions) for record in labels.records.values()) == 1
