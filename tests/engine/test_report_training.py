"""The report's section on training: logs and samples as trainings leave them, cut off, damaged and hostile ones too."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from browsing import dumped, needs_chromium
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from test_report import ATTACK, HOSTILE, URLS, Page, write

from engine import open_dataset
from engine.config import Ingest
from engine.records import Item, ItemError, Record
from engine.report import write_report
from engine.report.curves import APART, MOST_DOTS, MOST_POINTS, RECENT, Curve, Series, curve
from engine.report.journals import MOST_PHASES, read_log
from engine.report.samples import LONGEST_ANSWER, WIDEST
from engine.report.training import MOST_FAULTS, MOST_TASKS

ERROR = ItemError("ingest", "empty", "no byte")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with one record, whose image can't be read."""
    write(tmp_path / "out", [Record(Item(Item.id_of("a.jpg"), "a.jpg", error=ERROR), error=ERROR)])
    return tmp_path / "out"


def step(number: int, loss: object = 1.0, **more: Any) -> dict[str, Any]:
    line = {"event": "step", "step": number, "phase": "all", "loss": loss, "losses": {}, "images_per_second": 40.0}
    return line | {"at": 1e9 + number} | more


def judged(number: int, loss: object = 1.0, **more: Any) -> dict[str, Any]:
    return {"event": "judged", "step": number, "phase": "all", "loss": loss, "losses": {}, "at": 1e9 + number} | more


def log(out: Path, lines: Iterable[dict[str, Any] | str], fold: int = 0, round: int = 0) -> Path:
    """The folder of a training with this log; a string is a line as it is."""
    folder = out / f"round-{round}" / "training" / f"fold-{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text)
    return folder


def shown(out: Path, round: int = 0) -> Page:
    to = write_report(open_dataset(out, round), Ingest(), out.parent / "report")
    return Page(to.read_text())


def section(found: Page) -> str:
    """The text of the section, its white space as it is seen."""
    return " ".join(" ".join(element.text for element in found.all("section", id="training")).split())


def tiles(found: Page) -> dict[str, str]:
    """What the section's tiles say."""
    names = [" ".join(e.text.split()) for e in found.all("dt") if "section" in e.within and "figure" not in e.within]
    values = [e.text for e in found.all("dd") if "section" in e.within and "figure" not in e.within]
    return dict(zip(names, values, strict=True))


def test_without_training_there_is_no_section(out: Path) -> None:
    (out / "round-0" / "training" / "start").mkdir(parents=True)
    (out / "round-0" / "training" / "fold-0" / "checkpoints").mkdir(parents=True)
    log(out, [step(1)], round=1)
    found = shown(out)
    assert not found.all("section", id="training")
    assert not found.all("a", href="#training")


def test_the_round_that_is_shown_is_the_datasets(out: Path) -> None:
    log(out, [step(1, 1.5)])
    log(out, [step(1, 2.5)], round=1)
    assert "2.500" in section(shown(out, round=1))
    assert "2.500" not in section(shown(out))


def test_the_numbers_are_those_of_the_log(out: Path) -> None:
    lines: list[dict[str, Any]] = []
    learned = [5 - number / 50 for number in range(1, 121)]
    speeds = [30 + number % 7 for number in range(1, 121)]
    for number, (loss, speed) in enumerate(zip(learned, speeds, strict=True), 1):
        phase = "wide" if number <= 60 else "fine"
        both = {"OD": loss + 1} | ({"CAPTION": loss - 1} if phase == "wide" else {})
        lines.append(step(number, loss, phase=phase, losses=both, images_per_second=speed))
        if number % 30 == 0:
            told = {30: 4.25, 60: 3.125, 90: 3.5, 120: 3.75}[number]
            both = {"OD": told + 1} | ({"CAPTION": told - 1} if phase == "wide" else {})
            lines.append(judged(number, told, phase=phase, losses=both))
    log(out, [*lines, {"event": "end", "step": 120}])
    found = shown(out)
    assert tiles(found) == {
        "step": "120",
        "held-out loss, first at step 30": "4.250",
        "held-out loss, best at step 90": "3.500",
        "held-out loss, last at step 120": "3.750",
        "images a second": "33",
        "time": "2 min",
        "images not learned": "0",
    }
    rows, late = found.rows(), learned[-RECENT:]
    mean = math.fsum(late) / len(late)
    first = math.fsum(learned[10:60]) / 50
    assert ["wide", "0", f"{first:.3f}", "4.250 at 30", "3.125 at 60", "3.125 at 60"] in rows
    assert ["fine", "61", f"{mean:.3f}", "3.500 at 90", "3.500 at 90", "3.750 at 120"] in rows
    assert ["task", "training, lately", "held out, first", "at step 90", "last"] in rows
    assert ["OD", f"{mean + 1:.3f}", "5.250 at 30", "4.500", "4.750 at 120"] in rows
    assert ["CAPTION", f"{first - 1:.3f}", "3.250 at 30", "-", "2.125 at 60"] in rows
    assert [row for row in rows if len(row) == 3 and row[1] in ("wide", "fine")] == [
        ["30", "wide", "4.250"],
        ["60", "wide", "3.125"],
        ["90", "fine", "3.500"],
        ["120", "fine", "3.750"],
    ]
    circles = [title.text for title in found.all("title") if "circle" in title.within]
    assert circles[:4] == [
        "step 30: 4.250",
        "step 60: 3.125",
        "step 90: 3.500, the model that is kept",
        "step 120: 3.750",
    ]
    assert len(circles) == 4 + 4 + 2


def test_plots_can_be_known_without_seeing_them(out: Path) -> None:
    log(out, [step(1, 3.0, losses={"OD": 2.0}), step(2, 1.0), judged(2, 2.5)])
    found = shown(out)
    ids = {e.attributes["id"]: e for e in found.elements if "id" in e.attributes}
    assert len(ids) == sum("id" in e.attributes for e in found.elements)
    plots = [e for e in found.all("svg", role="img") if "curve" in e.attributes.get("class", "")]
    assert [ids[plot.attributes["aria-labelledby"]].text.split()[0] for plot in plots] == ["Loss", "OD"]
    said = ids[plots[0].attributes["aria-describedby"]].text
    assert said == "In training 2.000 at the end. On held-out images 2.500 at step 2, 2.500 at step 2."


def made_by(steps: int, **settings: Any) -> dict[str, Any]:
    return {"digest": "d", "settings": {"start": "nano", "steps": steps, **settings}, "folds": 1, "round": 0}


def test_how_far_it_has_come(out: Path) -> None:
    folder = log(out, [step(1), step(2), judged(2, 0.9)])
    phases = {"wide": {"steps": 250}, "off": None, "fine": {}}
    (folder / "begun.json").write_text(json.dumps(made_by(1000, phases=phases)))
    found = shown(out)
    assert tiles(found)["step, of 1,250"] == "2"
    assert "Not finished. It started from nano." in section(found)
    (folder / "failure.json").write_text('{"kind": "RunError", "message": "no space left"}')
    assert "Stopped: no space left" in section(shown(out))
    (out / "round-0" / "model").mkdir()
    made = made_by(2) | {"step": 2, "held_out_loss": 0.9}
    (out / "round-0" / "model" / "made_by.json").write_text(json.dumps(made))
    told = section(shown(out))
    assert "Finished. It started from nano. The model is that of step 2, with a loss of 0.900 on held-out" in told
    assert "Stopped" not in told
    assert "held-out loss, of the model at step 2" in told


def test_a_model_whose_log_is_gone_is_told(out: Path) -> None:
    folder = out / "round-0" / "model" / "fold-1"
    folder.mkdir(parents=True)
    (folder / "made_by.json").write_text(json.dumps(made_by(70) | {"step": 60, "held_out_loss": None, "folds": 2}))
    found = shown(out)
    assert [e.text for e in found.all("h3", id="fold-1")] == ["Fold 1"]
    assert "The model is that of step 60." in section(found)
    assert tiles(found) == {"step, of 70": "60"}


def test_the_models_step_is_marked_not_only_the_least_loss(out: Path) -> None:
    folder = log(out, [judged(10, 2.0), judged(20, 1.0), judged(30, 3.0)])
    (folder / "begun.json").write_text(json.dumps(made_by(30)))
    (out / "round-0" / "model").mkdir()
    (out / "round-0" / "model" / "made_by.json").write_text(json.dumps(made_by(30) | {"step": 10}))
    found = shown(out)
    assert tiles(found)["held-out loss, of the model at step 10"] == "2.000"
    assert len(found.all("circle", **{"class": "chosen"})) == 1


def test_the_legend_names_what_is_drawn(out: Path) -> None:
    def legend() -> str:
        return next(e.text for e in shown(out).all("figcaption") if e.text.startswith("Loss over steps"))

    log(out, [step(1), step(2)])
    assert "training" in legend() and "held out" not in legend()
    log(out, [step(1), judged(1), step(2)])
    assert "held out" in legend()


def test_folds_come_in_order(out: Path) -> None:
    for fold in (10, 2, 0):
        log(out, [step(1)], fold)
    (out / "round-0" / "training" / "fold-07").mkdir()
    (out / "round-0" / "training" / "fold-07" / "log.jsonl").write_text("")
    assert [e.text for e in shown(out).all("h3") if e.attributes.get("id", "").startswith("fold")] == [
        "The model",
        "Fold 2",
        "Fold 10",
    ]


def test_time_leaves_out_rests(out: Path) -> None:
    seconds = [*range(0, 300, 2), *range(90_000, 90_302, 2)]
    log(out, [step(n, at=1e9 + at) for n, at in enumerate(seconds, 1)])
    found = shown(out)
    assert tiles(found)["time"] == "10 min"
    assert "It rested for 24.9 h in between" in section(found)


def test_a_long_judgement_is_no_rest(out: Path) -> None:
    lines = [step(n, at=1e9 + n) for n in range(1, 11)]
    log(out, [*lines, judged(10, at=1e9 + 1000), step(11, at=1e9 + 1001)])
    assert tiles(shown(out))["time"] == "17 min"


def test_shards_that_could_not_be_read_have_no_item(out: Path) -> None:
    log(out, [step(1), *({"event": "fault", "step": 1, "item": "", "message": f"shard {n} is gone"} for n in (1, 2))])
    found = shown(out)
    assert tiles(found)["images not learned"] == "2"
    assert [e.text.strip() for e in found.all("li") if e.text.endswith("gone")] == [
        "shard 1 is gone",
        "shard 2 is gone",
    ]


def test_images_that_could_not_be_learned(out: Path) -> None:
    faults = [
        {"event": "fault", "step": n, "item": f"{n % 8:032x}"[::-1], "message": f"{n % 8}.jpg is gone"}
        for n in range(1, 20)
    ]
    log(out, [step(1), *faults])
    found = shown(out)
    assert tiles(found)["images not learned"] == "8"
    told = [e.text for e in found.all("li") if e.text.endswith(("gone", "more"))]
    assert told == [f"{n}0000000 {n}.jpg is gone" for n in range(1, MOST_FAULTS + 1)] + ["and 3 more"]


BAD_LOGS: dict[str, tuple[Sequence[dict[str, Any] | str], str]] = {
    "empty": ([], "Begun; no step is done yet."),
    "cut off": ([step(1, 2.5), '{"event": "step", "step": 2, "lo'], "2.500"),
    "cut off and written on": ([step(1, 2.5), '{"event": "step", "st{"event"\n', step(2, 1.5)], "1 line of the log"),
    "not a number": ([step(1, math.nan), step(2, 2.5), judged(2, math.nan)], "2 lines of it tell no finite loss"),
    "infinite": ([step(1, math.inf, losses={"OD": -math.inf}), step(2, 2.5)], "1 line of it tells no finite loss"),
    "no loss": ([{"event": "step", "step": 1}, {"event": "judged", "step": 1}], "2 lines of it tell no finite loss"),
    "nothing finite": ([step(1, None, losses=None, images_per_second="x", at="y")], "1 line of it tells no finite"),
    "no lines of ours": (["[1]\n", "null\n", "\n", '"step"\n', "{}\n", b"\x80".decode("latin1") + "\n"], "5 lines of"),
    "steps that are none": (
        [step(1) | {"step": bad} for bad in (True, -1, 10**400, "7", None, 1.5, [])],
        "7 lines of the log can't be read",
    ),
    "too large": ([step(1, 10**400, losses={"OD": 10**400}), step(2, 1e300)], "2 lines of it tell no finite loss"),
    "too deep": (["[" * 100_000 + "\n", '{"event":' * 5000 + "\n", "1" * 9000 + "\n"], "3 lines of the log can't"),
    "other types": (
        [step(1, True, phase=["x"], losses=[1, 2]), {"event": "fault", "step": 1, "item": [1], "message": {"a": 1}}],
        "1 image could not be learned",
    ),
    "one value": ([step(1, 0.0), judged(1, 0.0)], "0.000"),
    "in no order": (
        [step(3, 1.0), step(1, 9.0), step(2, 5.0), judged(3, 2.5), judged(1, 7.5)],
        "On held-out images 7.500 at step 1, 2.500 at step 3.",
    ),
    "negative": ([step(1, -2.0), step(2, -1e11), judged(2, -4.5)], "-4.500"),
}


@pytest.mark.parametrize("name", BAD_LOGS)
def test_a_damaged_log_shows_what_can_be_read(out: Path, name: str) -> None:
    lines, told = BAD_LOGS[name]
    log(out, lines)
    found = shown(out)
    assert told in section(found)
    drawn = [
        e.attributes[key] for e in found.elements for key in ("d", "cx", "cy", "x1", "y1", "y") if key in e.attributes
    ]
    assert not any(word in value for value in drawn for word in ("nan", "inf"))


def test_a_cut_off_last_line_is_no_fault(out: Path) -> None:
    log(out, [step(1), '{"event": "step", "st'])
    assert "can't be read" not in section(shown(out))


def test_damaged_files_beside_the_log_are_as_none(out: Path) -> None:
    folder = log(out, [step(1, 2.5)])
    (folder / "samples").mkdir()
    (out / "round-0" / "model").mkdir()
    for text in (
        "",
        "[",
        "[[[1]]]",
        "{}",
        "3",
        '{"settings": 5, "steps": {}, "folds": "x", "step": 1e999}',
        "[" * 99_999,
    ):
        for name in ("begun.json", "failure.json", "samples/samples.json", "../../model/made_by.json"):
            (folder / name).write_text(text)
        found = shown(out)
        assert "2.500" in section(found)
        assert not found.all("figure", **{"class": "sample"})


finite = st.floats(-1e11, 1e11)
series = st.lists(st.tuples(st.integers(1, 3000), finite), max_size=400)


def filled(points: Iterable[tuple[int, float]]) -> Series:
    made = Series()
    for number, loss in points:
        made.add(number, loss)
    return made


def points_of(path: str) -> list[tuple[float, float]]:
    pairs = (point.split() for point in path.removeprefix("M").split("L"))
    return [(float(x), float(y)) for x, y in pairs]


@given(series, series, st.lists(st.integers(1, 2999), unique=True, max_size=4))
@example([(1, 0.0), (2, 1e-323)], [], [])
@example([(1, 1e-300), (2, 3e-300)], [(2, 0.0)], [])
def test_curves_stay_in_their_plot(learned: Any, told: Any, later: list[int]) -> None:
    starts = [0, *sorted(later)]
    drawn = curve(filled(learned), filled(told), starts, 3000, None, 5)
    points = [point for path in drawn.lines for point in points_of(path)]
    assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in [*points, *((dot.x, dot.y) for dot in drawn.dots)])
    assert len(points) <= MOST_POINTS + 2 * len(starts)
    assert len(drawn.dots) == len(told) if len(told) < MOST_DOTS else MOST_DOTS / 2 <= len(drawn.dots) <= MOST_DOTS + 2
    assert 1 <= len(drawn.rows) <= 7
    assert 2 <= len(drawn.columns) <= 6
    line, dots = drawn.ends
    assert (line is None, dots is None) == (not learned, not told)
    if line and dots:
        assert abs(line.at - dots.at) >= APART - 1e-6
        assert 0 <= min(line.at, dots.at) <= max(line.at, dots.at) <= 100


def back(drawn: Curve, path: str) -> list[tuple[float, float]]:
    """Steps and losses that a line shows, by the numbers beside its grid."""
    (low, *_, high), (left, *_, right) = drawn.rows, drawn.columns
    return [
        (
            left.value + (x - left.at) / (right.at - left.at) * (right.value - left.value),
            low.value + (y - low.at) / (high.at - low.at) * (high.value - low.value),
        )
        for x, y in points_of(path)
    ]


def test_curves_are_the_losses() -> None:
    losses = [9 / number + number % 3 for number in range(1, 101)]
    drawn = curve(filled(enumerate(losses, 1)), filled([(50, 2.5)]), [0, 41], 100, None, 7)
    found = [point for path in drawn.lines for point in back(drawn, path)]
    assert [len(points_of(path)) for path in drawn.lines] == [40, 60]
    for number, (at, loss) in enumerate(found, 1):
        assert at == pytest.approx(number, abs=0.02)
        assert loss == pytest.approx(losses[number - 1], abs=0.002)


def test_a_long_line_is_of_means_and_none_of_a_few() -> None:
    losses = [float(number % 2) for number in range(1, 3_001)]
    drawn = curve(filled(enumerate(losses, 1)), Series(), [0], 3_000, None, 5)
    found = back(drawn, drawn.lines[0])
    assert len(found) == MOST_POINTS
    assert all(loss == pytest.approx(0.5, abs=0.001) for _, loss in found)


def test_a_log_without_end_makes_a_section_with_one(out: Path) -> None:
    tasks = {f"TASK_{n}": 1.0 for n in range(MOST_TASKS + 3)}
    lines = [step(n, 1 / n, phase=f"phase {n}", losses=tasks) for n in range(1, 2001)]
    folder = log(out, [*lines, *(judged(n, 1 / n, losses=tasks) for n in range(1, 2001))])
    found = shown(out)
    assert "3 more tasks are not shown." in section(found)
    assert len(read_log(folder / "log.jsonl").phases) == MOST_PHASES
    assert (out.parent / "report").stat().st_size < 900_000


def sampled(folder: Path, *listed: dict[str, Any]) -> Path:
    samples = folder / "samples"
    samples.mkdir(exist_ok=True)
    (samples / "samples.json").write_text(json.dumps(listed))
    return samples


def test_samples_are_pictures_with_their_answers(out: Path, photos: Path) -> None:
    said = {"OD": "cup<loc_1><loc_20><loc_300><loc_999>spoon<loc_4>", "CAPTION": "a <b>cup</b>", "OCR": ""}
    listed = {"picture": "0.jpg", "item": "0123456789abcdef", "step": 1200, "said": said}
    samples = sampled(log(out, [step(1)]), listed, listed | {"picture": "1.jpg", "said": {"OCR": "x" * 999}})
    photo = Image.open(photos / "coffee.png").convert("RGB").resize((1200, 800))
    photo.save(samples / "0.jpg", comment=b"no part of the picture")
    photo.resize((60, 40)).save(samples / "1.jpg")
    found = shown(out)
    sizes = []
    for img in found.all("img"):
        data = base64.b64decode(img.attributes["src"].removeprefix("data:image/jpeg;base64,"))
        assert b"no part" not in data
        sizes.append(Image.open(io.BytesIO(data)).size)
        assert img.attributes["width"] == str(sizes[-1][0])
    assert sizes == [(WIDEST, round(WIDEST * 2 / 3)), (60, 40)]
    answers = [e.text for e in found.all("dd") if "figure" in e.within]
    assert answers[:3] == [said["OD"], said["CAPTION"], "nothing"]
    assert answers[3] == "x" * LONGEST_ANSWER + "… 999 characters in all"
    assert [e.text for e in found.all("span", **{"class": "loc"})] == ["<loc_1><loc_20><loc_300><loc_999>", "<loc_4>"]
    assert "Step 1,200 · image 01234567" in section(found)


def test_pictures_that_are_none_are_left_out(out: Path, photos: Path) -> None:
    names = ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "../secret.jpg", "secret.jpg", "/etc/passwd", "", None, {}]
    folder = log(out, [step(1)])
    samples = sampled(folder, *({"picture": name, "item": 5, "step": "x", "said": {"OD": 7}} for name in names))
    photo = Image.open(photos / "coffee.png")
    for path in (folder / "secret.jpg", samples / "secret.jpg"):
        photo.convert("RGB").save(path)
    photo.save(samples / "0.jpg", "PNG")
    (samples / "1.jpg").write_bytes((samples / "secret.jpg").read_bytes()[:2000])
    os.mkfifo(samples / "2.jpg")
    found = shown(out)
    assert not found.all("img")
    notices = [" ".join(e.text.split()) for e in found.all("p", **{"class": "notice"})]
    assert len(notices) == len(names)
    assert notices[0] == "This picture can't be shown: it is no JPEG."
    assert "cut off" in notices[1] or "truncated" in notices[1] or "end" in notices[1]
    assert notices[2:4] == ["This picture can't be shown: it is gone."] * 2


def infested(out: Path, photos: Path) -> Path:
    """A page whose training has a hostile string wherever there can be one."""
    lines: list[dict[str, Any]] = []
    losses = {text: 1.5 for text in HOSTILE}
    for n, text in enumerate(HOSTILE, 1):
        lines += [step(n, phase=text, losses=losses), judged(n, phase=text, losses=losses)]
        lines.append({"event": "fault", "step": n, "item": text, "message": HOSTILE[-n]})
        lines.append({"event": text, "step": n, "at": text})
    folder = log(out, lines)
    about = {"settings": {"start": HOSTILE[0], "phases": {text: text for text in HOSTILE}}, "folds": 2}
    (folder / "begun.json").write_text(json.dumps(about))
    (folder / "failure.json").write_text(json.dumps({"kind": HOSTILE[1], "message": HOSTILE[2]}))
    listed = [
        {"picture": "0.jpg", "item": text, "step": text, "said": {t: t + "lone \ud800" for t in HOSTILE}}
        for text in HOSTILE
    ]
    samples = sampled(folder, *listed, *({"picture": text, "said": text} for text in HOSTILE))
    Image.open(photos / "coffee.png").convert("RGB").resize((60, 40)).save(samples / "0.jpg")
    return write_report(open_dataset(out), Ingest(), out.parent / "report")


def test_hostile_trainings_are_data_alone(out: Path, photos: Path) -> None:
    found = Page(infested(out, photos).read_text())
    assert len(found.all("script")) == len(found.all("style")) == 1
    for element in found.elements:
        assert re.fullmatch("[a-z][a-z0-9]*", element.tag)
        for name, value in element.attributes.items():
            assert re.fullmatch("[a-z][a-z0-9-]*", name), name
            assert not name.startswith("on")
            assert name not in URLS - {"d"} or value.startswith(("data:image/jpeg;base64,", "#")) or value == "data:,"
            assert name != "style" or re.fullmatch("[a-z:;%0-9.-]+", value)
            assert name != "id" or re.fullmatch("[a-z0-9-]+", value)
    text = "".join(element.text for element in found.all("section", id="training"))
    for string in HOSTILE[:8]:
        assert string in text
    isolating = [e for e in found.elements if e.tag == "bdi"]
    assert sum(e.text.count("\u202e") for e in isolating) == text.count("\u202e") > 10


@needs_chromium
def test_hostile_trainings_do_nothing_in_a_browser(out: Path, photos: Path) -> None:
    source = infested(out, photos).read_text()
    open_page = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)  # escaping alone must do
    (out.parent / "open.html").write_text(open_page)
    document = dumped(out.parent / "open.html")
    assert 'data-ready=""' in document
    assert "<title>Report on out</title>" in document
    (out.parent / "taken.html").write_text(open_page.replace("</main>", f"<script>{ATTACK}</script></main>"))
    assert "<title>taken</title>" in dumped(out.parent / "taken.html")
