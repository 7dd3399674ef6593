"""RefCOCO, RefCOCO+ and RefCOCOg as UNC publishes them: a pickle of expressions, and COCO's instances beside it.

A pickle is a program, and this one comes from a download: nothing but plain containers, texts and numbers is built.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from florence2.errors import Florence2Error
from florence2.evaluation.coco import box_of, mask_in, photos_of
from florence2.evaluation.files import Entry, Photo, found, read_json, repr_of
from florence2.evaluation.masks import Rle
from florence2.tasks import Box

REFS = ("refs(unc).p", "refs(umd).p", "refs(google).p")
INSTANCES = "instances.json"


@dataclass(frozen=True)
class Expression:
    """What an image is asked, and the box and mask (None unless asked for) of what it means."""

    id: int  # of the sentence
    image: int
    text: str
    box: Box
    mask: Rle | None = None


@dataclass(frozen=True)
class Referred:
    photos: list[Photo]
    expressions: dict[int, list[Expression]]  # by image, in order of their ids
    folder: Path
    split: str


def read_refcoco(data: Path, split: str | None = None, masks: bool = False) -> Referred:
    """The expressions of a split: val unless said, testA, testB (RefCOCOg: test). Florence2Error if there is none."""
    split = split or "val"
    refs = found(data, REFS, f"RefCOCO's expressions beside {INSTANCES}")
    instances = found(refs.parent, (INSTANCES,), "RefCOCO's instances")
    root = Entry(read_json(instances), str(instances))
    photos = {int(one.id): one for one in photos_of(root)}
    things = {entry.get("id", int): entry for entry in root.entries("annotations")}
    entries = Entry({"refs": unpickled(refs)}, str(refs))
    expressions: dict[int, list[Expression]] = {}
    splits = set()
    for ref in entries.entries("refs"):
        splits.add(ref.get("split", str))
        if ref.values["split"] != split:
            continue
        image, thing = ref.get("image_id", int), things.get(ref.get("ann_id", int))
        if image not in photos or thing is None or thing.get("image_id", int) != image:
            raise Florence2Error(
                f"{ref.where}: expected an image_id and an ann_id of {INSTANCES}; got {repr_of(ref.values)}"
            )
        size = photos[image].size
        assert size is not None
        mask = mask_in(thing, size) if masks else None
        for sentence in ref.entries("sentences"):
            said = Expression(sentence.get("sent_id", int), image, sentence.get("sent", str), box_of(thing), mask)
            expressions.setdefault(image, []).append(said)
    if not expressions:
        raise Florence2Error(f"{refs}: expected a split, one of {', '.join(sorted(splits))}; got {split!r}")
    ordered = {image: sorted(expressions[image], key=lambda one: one.id) for image in sorted(expressions)}
    return Referred([photos[image] for image in ordered], ordered, refs.parent, split)


class Plain(pickle._Unpickler):
    """Python's own unpickler, not C's: that one takes memory for whatever place in its memo a file names."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it wants {module}.{name}, and builds nothing but containers, texts and numbers")

    def get_extension(self, code: int) -> NoReturn:
        raise pickle.UnpicklingError("it wants a registered class")


def unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        return loaded(file, path)


def loaded(file: BinaryIO, path: Path) -> Any:
    try:
        return Plain(file, encoding="utf-8", errors="replace").load()  # it was written by Python 2
    except Exception as error:  # whatever a broken program stumbles over
        raise Florence2Error(f"{path}: expected a pickle of plain lists and dicts: {error}") from None
