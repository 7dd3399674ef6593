"""Flickr30k Entities: sentences whose phrases are marked, boxes of what they name, and lists of the splits' images."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from florence2.errors import Florence2Error
from florence2.evaluation.files import Photo, found, photo
from florence2.tasks import Box

MARKED = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)+)\s+([^\]]*)\]")  # [/EN#283585/people Two young guys]


@dataclass(frozen=True)
class Phrase:
    text: str
    kinds: tuple[str, ...]
    boxes: tuple[Box, ...]  # none for what has no box, or is nothing to be seen


@dataclass(frozen=True)
class Sentence:
    text: str
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True)
class Entities:
    photos: list[Photo]
    sentences: dict[str, list[Sentence]]  # by image
    folder: Path
    split: str


def read_flickr30k(data: Path, split: str | None = None) -> Entities:
    """The images that `split`.txt lists (test unless said), of a folder with Annotations, Sentences and that file."""
    split = split or "test"
    if not (data / "Annotations").is_dir() or not (data / "Sentences").is_dir() or "/" in split:
        raise Florence2Error(
            f"{data}: expected Flickr30k Entities' folder, with Annotations/*.xml, Sentences/*.txt and {split}.txt"
        )
    listed = found(data, (f"{split}.txt",), "the split's image ids").read_text(encoding="utf-8").split()
    photos, sentences = [], {}
    for id in sorted(set(listed)):
        if not id.isalnum():
            raise Florence2Error(f"{data / split}.txt: expected image ids, got {id!r:.200}")
        path = found(data, (f"Annotations/{id}.xml",), f"the boxes of image {id}")
        size, boxes = annotated(path)
        text = found(data, (f"Sentences/{id}.txt",), f"the sentences of image {id}").read_text(encoding="utf-8")
        photos.append(photo(id, f"{id}.jpg", size, path))
        sentences[id] = [sentence_of(line, boxes) for line in text.splitlines() if line.strip()]
    return Entities(photos, sentences, data, split)


def sentence_of(line: str, boxes: dict[str, list[Box]]) -> Sentence:
    phrases = [
        Phrase(" ".join(text.split()), tuple(kinds.strip("/").split("/")), tuple(boxes.get(chain, ())))
        for chain, kinds, text in MARKED.findall(line)
        if text.strip()
    ]
    return Sentence(" ".join(MARKED.sub(r"\3", line).split()), tuple(phrases))


def annotated(path: Path) -> tuple[tuple[int, int], dict[str, list[Box]]]:
    """The image's (width, height), and the boxes of each chain of phrases. Florence2Error for what is no such file."""
    root = parsed(path)
    try:
        width, height = (int(text_of(root, f"size/{side}")) for side in ("width", "height"))
        boxes: dict[str, list[Box]] = defaultdict(list)
        for thing in root.iterfind("object"):
            if thing.find("bndbox") is None:
                continue  # a scene, or hidden
            x0, y0, x1, y1 = (int(text_of(thing, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
            if x0 > x1 or y0 > y1:
                raise ValueError(f"a box {x0}, {y0}, {x1}, {y1}")
            for name in thing.iterfind("name"):
                boxes[(name.text or "").strip()].append((x0, y0, x1, y1))
    except ValueError as error:
        raise Florence2Error(f"{path}: expected size and boxes in whole pixels; got {error}") from None
    return (width, height), dict(boxes)


def text_of(element: Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    return text


def parsed(path: Path) -> Element:
    """Without a document type: its entities may stand for gigabytes, or for other files."""
    parser = XMLParser(target=Builder())
    try:
        for part in re.split(b"(?<=>)", path.read_bytes()):  # an error counts when a part ends: before a type is used
            parser.feed(part)
        root = parser.close()
    except ParseError as error:
        raise Florence2Error(f"{path}: expected XML ({error})") from None
    assert isinstance(root, Element)
    return root


class Builder(TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ParseError(f"a document type, {name}, which Flickr30k Entities has none of")
