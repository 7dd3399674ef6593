"""Conversations about images, as LLaVA's training reads them: a .json file with a list of them, or the folder of an
`engine export --format llava`.

Questions that `engine.conversations` has, and LLaVA's own of the same words, are understood; other turns are chat, no
annotations, and counted. Boxes are fractions of the image as it is, to three decimals. A phrase that is found in one
place is a text of the region there; of one with several places nobody knows the text that it is of: it is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from engine.conversations import CAPTIONS, CATEGORY, DESCRIBE, FIND, IMAGE, READ, READ_REGION, boxes_in, input_of
from engine.entry import Given, GivenRegion, GivenRegionText, GivenText
from engine.files import piece
from engine.records import Box
from engine.sources.samples import LINE, OBJECT, PLACE, Kind, Sample, Unfit, exported, unplaced
from engine.sources.sections import list_of
from engine.untrusted import shown

FIRST = 2**16  # bytes of a file, in which a conversation begins
DETAILS = {question: detail for detail, question in CAPTIONS.items()}


def is_conversations(path: str) -> bool:
    """Whether a .json file begins with a list, which COCO's never do, and a conversation."""
    if os.path.splitext(path)[1].lower() != ".json":
        return False
    try:
        begins = piece(path, 0, FIRST).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    return begins.startswith(b"[") and b'"conversations"' in begins


def files_of(folder: str) -> list[str]:
    """The files of an export that lies in a folder; none if it holds no such export."""
    return exported(folder, "llava", "llava_*.json")


def _read(path: str) -> Iterator[Sample]:
    for number, sample in enumerate(list_of(path).items()):
        yield f"[{number}]", sample


def given_in(sample: dict[str, Any], where: str) -> Iterator[Given | Unfit]:
    """What a conversation says, question by question."""
    talk = sample.get("conversations")
    turns = talk if isinstance(talk, list) else []
    said = [turn.get("value") if isinstance(turn, dict) else None for turn in turns]
    texts = [value if isinstance(value, str) else "" for value in said]
    if len(texts) < 2:
        raise Unfit("bad_sample", f"expected conversations, questions and answers in turn, not {shown(talk)}")
    for question, answer in zip(texts[::2], texts[1::2], strict=False):
        yield from _turn(question.replace(IMAGE, "").strip(), answer.strip(), where)


def _turn(question: str, answer: str, where: str) -> Iterator[Given | Unfit]:
    if detail := DETAILS.get(question):
        yield GivenText(answer, where=where, detail=detail, key=(detail, answer))
    elif question == READ:
        yield unplaced(answer, where)
    elif (box := _asked(question, CATEGORY)) is not None:
        yield _region(box, where, label=answer)
    elif (box := _asked(question, READ_REGION)) is not None:
        yield _region(box, where, LINE, text=answer)
    elif (box := _asked(question, DESCRIBE)) is not None:
        yield (region := _region(box, where))
        yield GivenRegionText(region.key, answer, where)
    elif (phrase := input_of(question, FIND)) is not None:
        yield from _found(phrase.strip(), answer, where)
    else:
        yield Unfit("unknown_question", f"a turn that is no annotation: {shown(question)}")


def _found(phrase: str, answer: str, where: str) -> Iterator[Given | Unfit]:
    boxes = boxes_in(answer)
    if boxes is None:
        yield Unfit("bad_box", f"expected boxes of fractions, not {shown(answer)}")
    elif len(boxes) > 1:
        yield Unfit("several_places", f"{shown(phrase)} is of {len(boxes)} regions of a text that isn't named")
        yield from (_region(box, where, PLACE) for box in boxes)
    else:
        yield (region := _region(boxes[0], where, PLACE))
        yield GivenRegionText(region.key, phrase, where)


def _asked(question: str, template: str) -> Box | None:
    """The box that a question of this template is about."""
    boxes = boxes_in(said) if (said := input_of(question, template)) else None
    return boxes[0] if boxes and len(boxes) == 1 else None


def _region(box: Box, where: str, of: str = OBJECT, **fields: Any) -> GivenRegion:
    known = {"label": None, **fields}
    kind = "text" if of == LINE else "object"
    return GivenRegion(box=box, relative=True, key=(of, repr(box)), kind=kind, where=where, **known)


LLAVA = Kind("list of LLaVA's conversations", _read, given_in)
