"""Answers in a file, so that an evaluation that was killed goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

from florence2.codec import Annotation
from florence2.errors import Florence2Error, refused, unwritable
from florence2.evaluation.asking import Asked, Said


class Journal:
    """Answers in a file, a line an image behind a first one that says what was asked of which model."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Florence2Error if the file is of another model or other questions, is no such file, or can't be written."""
        self.path, self.about = path, json.loads(json.dumps(about))
        self.kept: dict[str, dict[str, Any]] = {}
        if path.exists() and not path.is_file():
            raise Florence2Error(f"--answers {path}: expected a file's name, got a folder or a device")
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
            whole = lines[:-1]  # the last is empty, or what a kill left of a line
            if whole:
                self.check(parsed(whole[0], path, 1))
            elif not encoded(self.about).startswith(lines[0]):  # a file of something else, of one line
                self.check(parsed(lines[0], path, 1))
            for number, line in enumerate(whole[1:], 2):
                entry = parsed(line, path, number)
                self.kept[json.dumps(entry.get("image"))] = entry
            self.file: FileIO = path.open("ab", buffering=0)  # what a full disk refuses is not tried again at the end
            self.file.truncate(sum(len(line) + 1 for line in whole))
            if not whole:
                self.start()
        except OSError as error:
            raise refused(f"--answers {path}", error) from None

    def check(self, there: dict[str, Any]) -> None:
        if there != self.about:
            differs = [key for key in self.about.keys() | there.keys() if there.get(key) != self.about.get(key)]
            raise Florence2Error(
                f"--answers {self.path}: expected answers to the same questions by the same model; it differs in "
                f"{', '.join(sorted(differs))}: name another file, or remove this one"
            )

    def start(self) -> None:
        """With the first line; where there is no room for it, no file stays."""
        try:
            self.write(self.about)
        except OSError:
            self.close()
            self.path.unlink()
            raise

    def write(self, entry: Mapping[str, Any]) -> None:
        left = encoded(entry)
        while left:
            left = left[self.file.write(left) :]

    def close(self) -> None:
        self.file.close()

    def keep(self, one: Asked, answers: Sequence[Said]) -> None:
        prompts = [prompt.text for prompt in one.prompts]
        try:
            self.write({"image": one.photo.id, "prompts": prompts, "answers": [asdict(answer) for answer in answers]})
        except OSError as error:
            raise unwritable(f"--answers {self.path}", error, "The answers before are kept in it") from None

    def of(self, one: Asked) -> list[Said] | None:
        """What is kept of an image; None for nothing, or other questions."""
        entry = self.kept.get(json.dumps(one.photo.id))
        if entry is None or entry.get("prompts") != [prompt.text for prompt in one.prompts]:
            return None
        try:
            return [Said(a["text"], tuple(restored(fields) for fields in a["annotations"])) for a in entry["answers"]]
        except (KeyError, TypeError) as error:
            raise Florence2Error(f"--answers {self.path}: image {one.photo.id}: not an answer ({error!r})") from None


def encoded(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


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
