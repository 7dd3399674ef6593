"""Answers in a file, so that an evaluation that was killed goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from florence2.codec import Annotation
from florence2.errors import Florence2Error
from florence2.evaluation.asking import Asked, Said


class Journal:
    """Answers in a file, a line an image behind a first one that says what was asked of which model."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Florence2Error if the file is of another model or other questions, or is no such file."""
        self.path, self.about = path, json.loads(json.dumps(about))
        self.kept: dict[str, dict[str, Any]] = {}
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
            whole = lines[:-1]  # the last is empty, or what a kill left of a line
            if whole:
                self.check(parsed(whole[0], path, 1))
            for number, line in enumerate(whole[1:], 2):
                entry = parsed(line, path, number)
                self.kept[json.dumps(entry.get("image"))] = entry
            self.file: BinaryIO = path.open("ab")
            self.file.truncate(sum(len(line) + 1 for line in whole))
        except OSError as error:
            raise Florence2Error(f"--answers {path}: can't be read and written ({error.strerror})") from None
        if not whole:
            self.write(self.about)

    def check(self, there: dict[str, Any]) -> None:
        if there != self.about:
            differs = [key for key in self.about.keys() | there.keys() if there.get(key) != self.about.get(key)]
            raise Florence2Error(
                f"--answers {self.path}: expected answers to the same questions by the same model; it differs in "
                f"{', '.join(sorted(differs))}: name another file, or remove this one"
            )

    def write(self, entry: Mapping[str, Any]) -> None:
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def keep(self, one: Asked, answers: Sequence[Said]) -> None:
        prompts = [prompt.text for prompt in one.prompts]
        self.write({"image": one.photo.id, "prompts": prompts, "answers": [asdict(answer) for answer in answers]})

    def of(self, one: Asked) -> list[Said] | None:
        """What is kept of an image; None for nothing, or other questions."""
        entry = self.kept.get(json.dumps(one.photo.id))
        if entry is None or entry.get("prompts") != [prompt.text for prompt in one.prompts]:
            return None
        try:
            return [Said(a["text"], tuple(restored(fields) for fields in a["annotations"])) for a in entry["answers"]]
        except (KeyError, TypeError) as error:
            raise Florence2Error(f"--answers {self.path}: image {one.photo.id}: not an answer ({error!r})") from None


def parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise Florence2Error(f"--answers {path}: line {number}: expected JSON, an object; got {line[:100]!r}")
    return entry


def restored(fields: Mapping[str, Any]) -> Annotation:
    places = {name: fields[name] and tuple(fields[name]) for name in ("box", "quad")}
    rings = fields["polygons"] and tuple(tuple(ring) for ring in fields["polygons"])
    return Annotation(**{**fields, **places, "polygons": rings})
