"""What a language model is told of an image, whatever was found there; and the prompts that it is put into."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import records

from engine.errors import ConfigError
from engine.records import (
    DETAILS,
    AnyAnnotation,
    Box,
    Item,
    Kind,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
)
from specialists.chat.notes import LINES, LONGEST, NOTHING, PHRASES, TEXTS, THINGS, Notes, notes_of, quoted
from specialists.chat.prompts import SHIPPED, Coordinates, Prompts, Reading, Writing, filled, load

SIZE = (200, 100)
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def region(id_: str, label: str | None, box: Box, kind: Kind = "object", **more: Any) -> Region:
    return Region(id=id_, source=id_[:1], kind=kind, box=box, label=label, **more)


def told(*annotations: AnyAnnotation, size: tuple[int, int] = SIZE) -> Notes:
    return notes_of(Record(Item(b"0" * 16, "x", width=size[0], height=size[1])).append(annotations), size)


def test_what_is_told() -> None:
    notes = told(
        Text(id="t0", source="t", text="a dog on  the\ngrass", detail="brief"),
        Text(id="t1", source="t", text="a longer text that nobody is told of", detail="detailed"),
        region("d0", "ball", (150.0, 80.0, 170.0, 95.0)),
        region("d1", "dog", (0.0, 0.0, 100.0, 50.0)),
        region("d2", "person", (100.0, 0.0, 200.0, 40.0), crowd=True),
        region("p0", None, (0.0, 50.0, 60.0, 100.0), "proposal", scores=Scores(box=0.1)),
        region("p1", None, (0.0, 0.0, 200.0, 100.0), "proposal"),
        RegionText(id="r0", source="r", region_id="d1", text="a brown dog"),
        RegionText(id="r1", source="s", region_id="d1", text='a "very" brown dog'),
        RegionText(id="r2", source="r", region_id="p0", text="a patch of grass"),
        region("o0", None, (20.0, 60.0, 90.0, 70.0), "text", text="STOP"),
        region("o1", None, (120.0, 90.0, 124.0, 92.0), "text", text="here & now"),
    )
    assert notes.words.splitlines() == [
        "Said of the whole image:",
        '- "a dog on the grass"',
        "Things in it, the most prominent first:",
        '- "dog", in the upper left, about half of the width and of the height, described as "a brown dog" and '
        'as "a \\"very\\" brown dog"',
        '- "person", several in one place, in the upper right, about half of the width and two fifths of the height',
        "- something, in the lower left, about a third of the width and half of the height, described as "
        '"a patch of grass"',
        '- "ball", in the lower right corner, about a tenth of the width and of the height',
        "Writing that was read in it:",
        '- "STOP", on the left',
        '- "here & now", at the bottom',
    ]
    assert notes.ids == ("t0", "d1", "r0", "r1", "d2", "p0", "r2", "d0", "o0", "o1")


def test_nothing_is_told_of_nothing() -> None:
    assert told() == NOTHING
    assert told(region("p0", None, (0.0, 0.0, 9.0, 9.0), "proposal")) == NOTHING
    assert told(region("d0", "dog", (-9.0, -9.0, 0.0, 0.0)), region("d1", "dog", (5.0, 5.0, 5.0, 9.0))) == NOTHING
    assert told(Text(id="t0", source="t", text=" \n", detail="brief"), region("d0", "\u200b", (0, 0, 9, 9))) == NOTHING
    assert told(Text(id="t0", source="t", text="a dog", detail="more_detailed")) == NOTHING


def test_one_thing_is_told_once_with_what_was_said_of_it() -> None:
    notes = told(
        region("a0", "dog", (0.0, 0.0, 50.0, 50.0)),
        region("b0", "dog", (0.0, 0.0, 52.0, 50.0)),
        RegionText(id="b1", source="b", region_id="b0", text="a brown dog"),
    )
    assert notes.ids == ("b0", "b1")


def test_of_much_the_most_prominent_is_told() -> None:
    things = [region(f"d{n}", f"thing {n}", (0.0, 0.0, float(n + 1), 50.0)) for n in range(THINGS + 7)]
    unsure = region("d99", "kite", (0.0, 0.0, 200.0, 100.0), scores=Scores(label=0.001))
    phrases = [RegionText(id=f"r{n}", source="r", region_id="d20", text=f"phrase {n}") for n in range(PHRASES + 1)]
    lines = [region(f"o{n}", None, (0.0, n, float(n + 1), n + 9), "text", text=f"line {n}") for n in range(LINES + 5)]
    texts = [Text(id=f"t{n}", source="t", text=f"text {n}", detail="brief") for n in range(TEXTS + 2)]
    notes = told(*things, unsure, *phrases, *lines, *texts)
    names = [json.loads(found) for found in STRING.findall(notes.words)]
    assert [name for name in names if name.startswith("thing")] == [f"thing {n}" for n in range(THINGS + 6, 6, -1)]
    assert "- and 8 more, smaller or less sure" in notes.words.splitlines()
    assert [name for name in names if name.startswith("phrase")] == [f"phrase {n}" for n in range(PHRASES)]
    assert [name for name in names if name.startswith("line")] == [f"line {n}" for n in range(5, LINES + 5)]
    assert [name for name in names if name.startswith("text")] == [f"text {n}" for n in range(TEXTS)]
    assert len(notes.ids) == THINGS + PHRASES + LINES + TEXTS


@given(st.text())
def test_words_of_others_stay_in_their_string(words: str) -> None:
    string = quoted(words)
    assert STRING.fullmatch(string)
    assert len(string.splitlines()) == 1
    assert not {"<", ">"} & set(string)
    string.encode()  # without halves of characters
    said = json.loads(string)
    assert len(said) <= LONGEST + 3
    if words.isascii() and words.isprintable() and len(words) <= LONGEST:
        assert said.split() == words.split()


@settings(max_examples=25)
@given(records())
def test_notes_of_any_record(record: Record) -> None:
    size = (record.item.width or 7, record.item.height or 5)
    notes = notes_of(record.standing, size)
    assert bool(notes.words) == bool(notes.ids)
    assert len(notes.words) < 25_000
    assert len(set(notes.ids)) == len(notes.ids)
    assert set(notes.ids) <= set(record.by_id) - record.fallen
    assert "<" not in notes.words
    assert notes == notes_of(record.standing, size)


# Prompts


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: str(path.stem))
def test_what_comes_along(path: Path) -> None:
    kind: type[Prompts] = Reading if path.stem.startswith("read") else Writing
    prompts, reference = load(kind, path.stem, where="here")
    assert path.stem.endswith(f"-{prompts.version}")
    assert load(kind, str(path), where="here") == (prompts, reference), "by its path it is the same"
    assert load(kind, reference, where="here") == (prompts, reference)
    if isinstance(prompts, Writing):
        assert tuple(prompts.details) == DETAILS
    if isinstance(prompts, Reading):
        assert set(prompts.lines) == set(get_args(Coordinates))


def test_slots_are_filled_letter_by_letter() -> None:
    assert filled("{found}\n\nSay {text}", found="", text="it") == "Say it"
    hostile = "{text} {0} {} {{text}} %s $text \\1 \\g<0> {found.__class__}"
    assert filled("{found}, {text}, {not_a slot}", found=hostile, text="it") == f"{hostile}, it, {{not_a slot}}"


def written(folder: Path, change: dict[str, Any]) -> str:
    values = yaml.safe_load((SHIPPED / "describe-1.yaml").read_text()) | change
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return str(path)


def test_a_persons_own_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = written(tmp_path, {"version": 7, "system": "Speak like a pirate."})
    prompts, reference = load(Writing, named, where="here")
    assert prompts.system == "Speak like a pirate."
    assert re.fullmatch(re.escape(named) + "@[0-9a-f]{12}", reference)
    monkeypatch.chdir(tmp_path)
    assert load(Writing, "./mine.yaml", where="here")[1] == reference, "workers run in another folder"
    written(tmp_path, {"system": "Speak plainly."})
    with pytest.raises(ConfigError, match="has other words than"):
        load(Writing, reference, where="here")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 0}, "version: Input should be greater than 0"),
        ({"version": None}, "version: missing"),
        ({"system": "  "}, "system: String should have at least 1 character"),
        ({"details": {"huge": "long"}}, "details.huge"),
        ({"more": "x"}, "more: unknown key"),
        ({"one": "Say {text}."}, r"one must have \{found\}, \{text\} as its slots, each once; it has \{text\}"),
        ({"one": "{found} {text} {text}"}, r"it has \{found\}, \{text\}, \{text\}"),
        ({"system": "Be {kind}."}, r"system must have none as its slots, each once; it has \{kind\}"),
        ({"details": {"brief": "{x}"}}, r"details.brief must have none"),
    ],
)
def test_faults_of_a_prompt_are_told(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(Writing, written(tmp_path, change), where="here")


@pytest.mark.parametrize("content", ["[", "- a list", "", "!!python/object/apply:os.getcwd []", "\x00", "[" * 1500])
def test_files_that_are_no_prompts(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"here: prompt {re.escape(str(path))}"):
        load(Writing, str(path), where="here")


def test_prompts_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no prompt is called 'nothing'; expected describe-1, fuse-1, read-1, or"):
        load(Writing, "nothing", where="here")
    with pytest.raises(ConfigError, match="can't be read"):
        load(Writing, str(tmp_path / "none.yaml"), where="here")
    with pytest.raises(ConfigError, match="can't be read"):
        load(Writing, str(tmp_path), where="here")
    with pytest.raises(ConfigError, match="unknown key"):
        load(Reading, "describe-1", where="here")
