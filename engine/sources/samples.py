"""Sets of questions and answers, a sample each, that name their images: Florence-2's lines and LLaVA's conversations.

What the samples of an image say is put together: a region that several speak of, known by the same coordinates, is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from engine.entry import Entry, Faults, Given, GivenMask, GivenRegion, GivenRegionText, GivenText, GivenTriplet, Key
from engine.files import matching, stamp
from engine.geometry import iou
from engine.places import LOCAL, is_remote_uri
from engine.records import ItemError, digest16
from engine.sources import exports
from engine.sources.index import Id, Index, filling
from engine.sources.places import SAMPLE, Place, find, inner
from engine.untrusted import shown
from engine.uris import is_url, reported, resolved, uri_of
from engine.uris import shown as shown_path

SAME_PROPOSAL = 0.7  # IoU from which a proposal says nothing beside another region
OBJECT, LINE, PLACE = "object", "line", "place"  # what the keys of regions begin with
Sample = tuple[str, object]  # where it is, and what is there
Stamp = tuple[str, int, int]  # path, bytes, time of change


class Unfit(ValueError):
    """Why a sample, or a part of it, is no annotation: a word to group by, and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Kind:
    """A format of samples. `read` gives those of a file, and raises ValueError where it is none; `given` what one says,
    with an Unfit for each part that says nothing."""

    name: str
    read: Callable[[str], Iterator[Sample]]
    given: Callable[[dict[str, Any], str], Iterator[Given | Unfit]]


def entries(paths: Sequence[str], kind: Kind, image_root: str | None, faults: Faults) -> Iterator[Entry]:
    """The images that the files name, in their order. Raises ConfigError for a file that is of another kind."""
    stamps = []
    for path in paths:
        with reported(path, kind.name):
            stamps.append((path, *stamp(path)))
    yield from _index(tuple(stamps), kind, image_root).entries(faults)


@lru_cache(maxsize=1)
def _index(files: tuple[Stamp, ...], kind: Kind, image_root: str | None) -> Index:
    with filling(Index(arrange=united)) as index:
        for scope, (path, _, _) in enumerate(files):
            with reported(path, kind.name):
                first = (sample for _, sample in islice(kind.read(path), SAMPLE))
                names = [inner(sample.get("image")) for sample in first if isinstance(sample, dict)]
                file = _File(index, scope, path, kind, find(path, [name for name in names if name], image_root))
                index.give(file.rows())
                if not file.images:
                    raise ValueError("expected samples that name an image; there is none")
    return index


class _File:
    """One file on its way into the index."""

    def __init__(self, index: Index, scope: int, path: str, kind: Kind, place: Place) -> None:
        self.index, self.scope, self.path, self.kind, self.place = index, scope, path, kind, place
        self.name = shown_path(os.path.basename(path))
        self.images: dict[str, Id] = {}  # name -> number

    def rows(self) -> Iterator[tuple[int, Id, Id | None, Given]]:
        for where, sample in self.kind.read(self.path):
            where = f"{where} of {self.name}"
            name = sample.get("image") if isinstance(sample, dict) else None
            if not isinstance(name, str) or not name.strip() or "\0" in name or not isinstance(sample, dict):
                self.index.faults.add(where, "bad_sample", f"expected an object with an image, not {shown(sample)}")
                continue
            if name not in self.images:
                self._add(name, sample, where)
            for given in self._given(sample, where):
                yield self.scope, self.images[name], None, given

    def _given(self, sample: dict[str, Any], where: str) -> Iterator[Given]:
        try:
            for given in self.kind.given(sample, where):
                if isinstance(given, Unfit):
                    self.index.faults.add(where, given.kind, f"{given}; it was left out")
                else:
                    yield given
        except Unfit as error:
            self.index.faults.add(where, error.kind, f"{error}; it was left out")

    def _add(self, name: str, sample: dict[str, Any], where: str) -> None:
        uri, error = self._uri(name, where)
        dataset, licence = (sample.get(key) for key in ("dataset", "licence"))
        self.images[name] = len(self.images)
        self.index.image(
            self.scope,
            self.images[name],
            uri,
            where,
            name=name,
            dataset=dataset if isinstance(dataset, str) else None,
            licence=licence if isinstance(licence, str) else None,
            error=error,
        )

    def _uri(self, name: str, where: str) -> tuple[str, ItemError | None]:
        if is_url(name) or LOCAL.fullmatch(name) or os.path.isabs(name) or is_remote_uri(name):
            return resolved(name, os.path.dirname(self.path)), None
        if inside := inner(name):
            return uri_of(self.place.path(inside)), None
        message = f"expected an image below the folder of the images, not {shown(name)}; it is not read"
        return f"{uri_of(self.path)}#image={where}", ItemError("ingest", "outside_root", message)


def exported(folder: str, format_: str, pattern: str) -> list[str]:
    """The files of an `engine export` of a format that lies in a folder; none if it holds no such export."""
    return matching(folder, pattern) if exports.named(folder) == format_ else []


def size_of(sample: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the image, if a sample says them."""
    sides = sample.get("height"), sample.get("width")
    height, width = (side if isinstance(side, int) and 0 < side < 2**31 else 0 for side in sides)
    return (height, width) if height and width else None


# What the samples of one image say together


def united(given: Sequence[Given]) -> list[Given]:
    """Texts, regions, and then what is of them, each once. What several samples say of one region is said of one.

    A region's `description` is taken for a text of it unless it is its label. A triplet of no text is an expression:
    it is a text of its region unless a caption has it, whose own triplet says more. A region with a segmentation that
    is given as another one's is that one, and so is a PLACE, of which nobody says whether a line or an object is there.
    """
    given = _known_places(given)
    known = {caption_key(one.text): one.key for one in given if isinstance(one, GivenText) and one.detail}
    texts = {one.key: one for one in given if isinstance(one, GivenText) and (one.detail or one.key not in known)}
    captions = [text.text for text in texts.values()]
    masks = {(one.region, repr(one.segmentation)): one for one in given if isinstance(one, GivenMask)}
    outlined = {outline for _, outline in masks}
    regions: dict[Key | None, GivenRegion] = {}
    for one in given:
        if isinstance(one, GivenRegion) and not (one.segmentation and repr(one.segmentation) in outlined):
            regions[one.key] = _both(regions[one.key], one) if one.key in regions else one
    told: dict[tuple[Key | None, str], GivenRegionText] = {}
    triplets: dict[tuple[Key | None, int, int], GivenTriplet] = {}
    for one in given:
        if isinstance(one, GivenRegionText):
            told[one.region, one.text.strip()] = one
        elif isinstance(one, GivenRegion) and one.description and one.description.strip() != _label(regions, one):
            told.setdefault((one.key, one.description.strip()), GivenRegionText(one.key, one.description, one.where))
        elif isinstance(one, GivenTriplet) and one.text is not None:
            text = known.get(one.text, one.text)
            before = triplets[text, one.start, one.stop].regions if (text, one.start, one.stop) in triplets else ()
            regions_ = tuple(dict.fromkeys((*before, *one.regions)))
            triplets[text, one.start, one.stop] = replace(one, text=text, regions=regions_)
    for one in given:
        expression = one.phrase if isinstance(one, GivenTriplet) and one.text is None else None
        if isinstance(one, GivenTriplet) and expression and not any(expression in caption for caption in captions):
            for key in one.regions:
                told.setdefault((key, expression.strip()), GivenRegionText(key, expression, one.where))
    kept = [replace(one, description=None) for one in _saying_something(list(regions.values()))]
    spoken = [one for one in told.values() if one.region in regions]
    return [*texts.values(), *kept, *spoken, *masks.values(), *triplets.values()]


def caption_key(text: str) -> Key:
    """Of a caption whose granularity isn't said: each phrase in it has this key, and none the caption."""
    return "caption", digest16(text.encode(errors="surrogatepass")).hex()


def _known_places(given: Sequence[Given]) -> list[Given]:
    """With each PLACE under the key of the object or else the line that is there; of an object if nothing is."""
    there = {one.key for one in given if isinstance(one, GivenRegion)}

    def known(key: Key | None) -> Key | None:
        if key is None or key[0] != PLACE:
            return key
        return (LINE, key[1]) if (LINE, key[1]) in there and (OBJECT, key[1]) not in there else (OBJECT, key[1])

    made: list[Given] = []
    for one in given:
        if isinstance(one, GivenRegion) and one.key and one.key[0] == PLACE:
            key = known(one.key)
            made.append(replace(one, key=key, kind="text" if key and key[0] == LINE else "object"))
        elif isinstance(one, GivenRegionText):
            made.append(replace(one, region=known(one.region)))
        else:
            made.append(one)
    return made


def _label(regions: dict[Key | None, GivenRegion], one: GivenRegion) -> str | None:
    label = regions[one.key].label if one.key in regions else None
    return label.strip() if label else None


def _both(one: GivenRegion, other: GivenRegion) -> GivenRegion:
    """What is an object by one sample is no proposal for another one's sake."""
    kind = one.kind if one.kind == other.kind else next(k for k in (one.kind, other.kind) if k != "proposal")
    return replace(
        one,
        kind=kind,
        label=one.label or other.label,
        text=one.text or other.text,
        quad=one.quad or other.quad,
        segmentation=one.segmentation or other.segmentation,
    )


def _saying_something(regions: Sequence[GivenRegion]) -> list[GivenRegion]:
    """Without proposals that lie where an object does: they are of the boxes of all things, and of their masks' boxes.
    And without words whose place is not said, if there are some whose place is."""
    objects = [one.box for one in regions if one.kind == "object"]
    has_lines = any(one.kind == "text" and one.box for one in regions)

    def says(one: GivenRegion) -> bool:
        if one.kind == "proposal":
            return not any(iou(one.box, other) >= SAME_PROPOSAL for other in objects)
        return bool(one.box) or not has_lines

    return [one for one in regions if says(one)]


def unplaced(text: str, where: str) -> GivenRegion:
    """Words in the image of which nobody says where they are."""
    return GivenRegion(None, (), key=("unplaced", text), kind="text", text=text, where=where)  # type: ignore[arg-type]
