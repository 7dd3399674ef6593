"""Rules for the answer about one sample: who signs it, what it refers to, and whether it can be meant."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import get_args

from engine.errors import RecordError
from engine.geometry import decode_mask, inside_fraction, quad_box
from engine.protocols import Sample
from engine.records import AnyAnnotation, Box, Decision, Mask, Record, Region, Text, Triplet
from engine.rounds import added
from engine.schema import annotations_to_table, decisions_to_table, items_to_table, records_from_tables
from engine.testing.refusal import refuse, require
from engine.testing.same import Answer

JOINERS = "\u200d\ufe0e\ufe0f"  # they belong to the character before them, as marks do


def check_answer(name: str, sample: Sample, answer: Answer) -> None:
    """Raises AssertionError with the first rule that the answer of the specialist called `name` breaks."""
    new = [entry for entry in answer if not isinstance(entry, Decision)]
    opinions = [entry for entry in answer if isinstance(entry, Decision)]
    for annotation in new:
        _check_signed(name, sample.record, annotation)
    for annotation in new:
        _check_words(annotation)
        _check_place(sample, annotation)
    record = _appended(sample.record, new)
    for opinion in opinions:
        _check_opinion(name, record, opinion)
    for annotation in new:
        if isinstance(annotation, Mask):
            _check_mask(annotation)
        if isinstance(annotation, Triplet):
            _check_span(annotation, record)
    check_storable(added(record.decide(opinions), sample.record))


def check_storable(record: Record) -> None:
    """`record`, what was added to one, comes back from its tables as it is."""
    remedy = "Use plain Python values of the types that engine.records declares: str, float, int, and tuples"
    try:
        tables = items_to_table([record.item]), annotations_to_table([record]), decisions_to_table([record])
        (back,) = records_from_tables(*tables, round=record.round)
    except Exception as error:
        refuse("storable", "values that the columns of engine.schema hold", error, remedy, error)
    pairs = zip([*record.annotations(), *record.decisions], [*back.annotations(), *back.decisions], strict=True)
    for one, other in pairs:
        require(
            one == other,
            "storable",
            "what comes back from the columns to be what was given",
            f"{one!r}, and back {other!r}",
            remedy,
        )


def _check_signed(name: str, record: Record, annotation: AnyAnnotation) -> None:
    require(
        isinstance(annotation, get_args(AnyAnnotation)),
        "annotations",
        "annotations of engine.records, and decisions",
        annotation,
        "Yield Text, Region, RegionText, Mask, Triplet or Parse",
    )
    require(
        annotation.source == name,
        "signed",
        f"source {name!r}, the specialist's name",
        repr(annotation.source),
        "Give source=self.name; a pipeline may call it otherwise than the class does",
    )
    fresh = next(record.ids(name))
    prefix, _, first = fresh.rpartition(".")
    begun, _, number = annotation.id.rpartition(".")
    require(
        begun == prefix and number.isdecimal() and int(number) >= int(first),
        "fresh ids",
        f"ids from sample.record.ids(self.name), {', '.join(islice(record.ids(name), 2))} and so on",
        repr(annotation.id),
        "Take `ids = sample.record.ids(self.name)` once a sample, and next(ids) for each annotation",
    )


def _appended(record: Record, new: list[AnyAnnotation]) -> Record:
    try:
        return record.append(new)
    except RecordError as error:
        refuse(
            "references",
            "annotations that refer to what is in the record or in the same answer",
            error,
            "Refer to regions and texts by the ids that the sample's record has, and take a new id for each annotation",
            error,
        )


def _check_opinion(name: str, record: Record, opinion: Decision) -> None:
    require(
        opinion.action == "keep" and opinion.by == name and opinion.annotation_id in record.by_id and opinion.reason,
        "opinions",
        f"decisions to keep an annotation of the record, by {name!r}, with a word as their reason",
        opinion,
        "A specialist appends and may say what it thinks of what is there; what falls is for filters to say",
    )


def _check_words(annotation: AnyAnnotation) -> None:
    words = {
        field: getattr(annotation, field)
        for field in ("text", "label", "raw_label")
        if getattr(annotation, field, None) is not None
    }
    for field, value in words.items():
        require(
            isinstance(value, str)
            and value.strip()
            and not any("\ud800" <= character <= "\udfff" for character in value),
            "texts",
            f"a {field} that says something, without halves of surrogate pairs",
            f"{value!r} in {annotation.id}",
            "Leave out what is empty, and decode bytes with errors='replace'",
        )


def _check_place(sample: Sample, annotation: AnyAnnotation) -> None:
    if not isinstance(annotation, Region):
        return
    height, width = sample.image.shape[:2]
    for box in _boxes(annotation):
        require(
            inside_fraction(box, width, height) > 0,
            "boxes",
            f"boxes in the image of {width} x {height} pixels, as (x0, y0, x1, y1)",
            f"{box} in {annotation.id}, wholly outside",
            "Scale from the model's input to the image, and look whether x and y are swapped",
        )


def _boxes(region: Region) -> Iterator[Box]:
    yield region.box
    if region.quad:
        yield quad_box(region.quad)


def _check_mask(mask: Mask) -> None:
    try:
        decode_mask(mask)
    except RecordError as error:
        refuse("masks", "COCO's compressed run lengths", error, "Make counts with engine.geometry.encode_mask", error)


def _check_span(triplet: Triplet, record: Record) -> None:
    text = record.by_id[triplet.text_id]
    assert isinstance(text, Text)
    phrase = text.text[triplet.start : triplet.stop]
    require(
        phrase == phrase.strip() != "" and not any(_cuts(text.text, at) for at in (triplet.start, triplet.stop)),
        "spans",
        "[start, stop) to be words of the text, without the spaces around them",
        f"{phrase!r} of {text.text!r} in {triplet.id}",
        "Count characters, not bytes or tokens; stop is the place behind the last one",
    )


def _cuts(text: str, at: int) -> bool:
    """Whether `at` parts what belongs together: a letter from its marks, or a word of a script that has spaces."""
    if not 0 < at < len(text):
        return False
    before, behind = text[at - 1], text[at]
    if unicodedata.category(behind)[0] == "M" or behind in JOINERS or before == JOINERS[0]:
        return True
    return all(character.lower() != character.upper() for character in (before, behind))
