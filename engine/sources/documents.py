"""Documents: all that is known of one image in one object, as `engine export` writes them, and what comes along in one.

They are the .json of a WebDataset and the rows of a Hugging Face dataset; `engine.export.documents` makes them.
Nothing in one is trusted: what is not as it should be goes on as it is, and is turned down with its image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.entry import Given, GivenMask, GivenRegion, GivenRegionText, GivenText, GivenTriplet, Key
from engine.untrusted import LONGEST_NAME

FORMAT = "florence-engine/1"  # under `format`, by which readers know a document
ANNOTATIONS = ("texts", "regions", "region_texts", "masks", "triplets")
COLUMNS = ("format", "width", "height", *ANNOTATIONS)  # what `given_in` reads


def is_document(value: Mapping[str, Any]) -> bool:
    return value.get("format") == FORMAT


def given_in(document: Mapping[str, Any], where: str) -> list[Given]:
    """What came along in a document. `where` is unique to it: its ids hold within it. What others refer to comes before
    them."""
    given: list[Given] = []
    size = (document.get("height"), document.get("width"))
    for one, place in _each(document, "regions", where):
        given.append(_region(one, place, where, None if size == (None, None) else size))
    for one, place in _each(document, "texts", where):
        given.append(_text(one, place, where))
    for one, place in _each(document, "region_texts", where):
        given.append(GivenRegionText(_key(one.get("region_id"), where), one.get("text", ""), place))
    for one, place in _each(document, "masks", where):
        runs = {name: one.get(name) for name in ("size", "counts")}
        given.append(GivenMask(_key(one.get("region_id"), where), runs, place))
    for one, place in _each(document, "triplets", where):
        given.append(_triplet(one, place, where))
    return given


def _region(one: Mapping[str, Any], place: str, where: str, size: Any) -> GivenRegion:
    box, line = one.get("box"), one.get("text")
    return GivenRegion(
        label=one.get("raw_label") or one.get("label"),
        box=tuple(box) if isinstance(box, list | tuple) else (),
        size=size,
        crowd=one.get("crowd") is True,
        where=place,
        text=line,
        key=_key(one.get("id"), where),
        kind=one.get("kind"),
        quad=one.get("quad"),
        score=one.get("score"),
    )


def _text(one: Mapping[str, Any], place: str, where: str) -> GivenText:
    return GivenText(
        text=one.get("text", ""),
        where=place,
        detail=one.get("detail"),
        key=_key(one.get("id"), where),
        composed=one.get("composed") is True,
        derived_from=tuple(key for id_ in _listed(one.get("derived_from")) if (key := _key(id_, where))),
    )


def _triplet(one: Mapping[str, Any], place: str, where: str) -> GivenTriplet:
    phrase, start, stop = one.get("phrase"), one.get("start"), one.get("stop")
    return GivenTriplet(
        text=_key(one.get("text_id"), where),
        start=start,  # type: ignore[arg-type]
        stop=stop,  # type: ignore[arg-type]
        regions=tuple(_key(id_, where) for id_ in _listed(one.get("region_ids"))),
        phrase=phrase if isinstance(phrase, str) else None,
        score=one.get("score"),
        where=place,
    )


def _each(document: Mapping[str, Any], name: str, where: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The annotations of a list, each with its place. What is no list, or no object in it, is one without anything."""
    for number, one in enumerate(_listed(document.get(name))):
        yield one if isinstance(one, dict) else {}, f"{name}[{number}] of {where[:LONGEST_NAME]}"


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _key(id_: object, where: str) -> Key | None:
    return (where, id_) if isinstance(id_, str) else None
