"""Lines of questions and answers for a Florence-2, as `engine export --format florence` writes them: a .jsonl file, or
the export's folder with all of them.

    {"image": ..., "task": "OD", "prompt": ..., "target": "dog<loc_52><loc_332><loc_932><loc_774>", "width", "height"}

A coordinate is the middle of one of 1000 bins of the image's side, so it comes back within half a bin. Only what says
where it is, or is a caption, is an annotation: what the OCR task alone says is a fault.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine.entry import Given, GivenMask, GivenRegion, GivenRegionText, GivenText, GivenTriplet, Key
from engine.files import MOST_BYTES, lines, opened
from engine.sources.samples import LINE, OBJECT, Kind, Sample, Unfit, caption_key, exported, size_of, unplaced
from engine.untrusted import LONGEST_NAME, LONGEST_TEXT, shown, too_long

MARK = re.compile(r"(<loc_(?:0|[1-9]\d{0,2})>|</?poly>|<sep>)", re.ASCII)
DETAILS = {"CAPTION": "brief", "DETAILED_CAPTION": "detailed", "MORE_DETAILED_CAPTION": "more_detailed"}
ABOUT_REGION = re.compile(r"((?:<loc_\d{1,3}>){4})", re.ASCII)
GROUNDED, SEGMENTED = "Locate the phrases in the caption: ", ("Locate ", " in the image with mask")
Bins = tuple[int, ...]
Run = tuple[str, list[list[int]]]  # a label, and the locations behind it, in parts


def is_lines(path: str) -> bool:
    """Whether a .jsonl file begins with a line of a prompt and a target."""
    if os.path.splitext(path)[1].lower() != ".jsonl":
        return False
    try:
        with opened(path) as file:
            said = json.loads(file.readline(MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and {"image", "task", "prompt", "target"} <= said.keys()


def files_of(folder: str) -> list[str]:
    """The files of an export that lies in a folder; none if it holds no such export."""
    return exported(folder, "florence", "*/*.jsonl")


def _read(path: str) -> Iterator[Sample]:
    for number, line in lines(path):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError):
                yield f"line {number}", line


def given_in(line: dict[str, Any], where: str) -> Iterator[Given | Unfit]:
    """What a line says. Raises Unfit where it says nothing that can be taken."""
    task, prompt, target = (line.get(name) for name in ("task", "prompt", "target"))
    size = size_of(line)
    if not (isinstance(task, str) and isinstance(prompt, str) and isinstance(target, str)):
        raise Unfit("bad_sample", f"expected a task, prompt and target that are texts, not {shown((task, prompt))}")
    if size is None:
        raise Unfit("bad_sample", "expected the image's width and height, pixels above 0")
    said = _Line(prompt, target.strip().removeprefix("<s>").removesuffix("</s>").strip(), where, size)
    task = task.strip("<>")
    if task in DETAILS:
        detail = DETAILS[task]
        yield GivenText(said.target, where=where, detail=detail, key=(detail, said.target))
    elif task in TASKS:
        yield from TASKS[task](said)
    else:
        raise Unfit("unknown_task", f"expected a task of Florence-2's, not {shown(task)}")


FLORENCE = Kind("list of Florence-2's questions", _read, given_in)


class _Line:
    """A line, and its coordinates in pixels."""

    def __init__(self, prompt: str, target: str, where: str, size: tuple[int, int]) -> None:
        self.prompt, self.target, self.where, self.size = prompt, target, where, size

    def points(self, bins: Sequence[int]) -> tuple[float, ...]:
        height, width = self.size
        return tuple((bin_ + 0.5) * (width, height)[n % 2] / 1000 for n, bin_ in enumerate(bins))

    def region(self, bins: Bins, kind: str = "object", **fields: Any) -> GivenRegion:
        x0, y0, x1, y1 = self.points(_sorted(bins))
        known = {"label": None, "size": self.size, **fields}
        return GivenRegion(box=(x0, y0, x1, y1), key=_key(bins, kind), kind=kind, where=self.where, **known)

    def asked(self) -> Bins:
        """The region in the prompt."""
        found = ABOUT_REGION.search(self.prompt)
        if not found:
            raise Unfit("bad_sample", f"expected four locations in the prompt, not {shown(self.prompt)}")
        return _bins(found[1])

    def runs(self) -> Iterator[Run]:
        """Each label of the target, "" where there is none, with its locations; marks part them."""
        label, parts = "", [list[int]()]
        for odd, piece in enumerate(MARK.split(self.target)):
            if odd % 2 == 0:
                if piece.strip():
                    if any(parts):
                        yield label, [part for part in parts if part]
                    label, parts = piece.strip(), [[]]
            elif piece.startswith("<loc_"):
                parts[-1].append(int(piece[5:-1]))
            else:
                parts.append([])
        if any(parts):
            yield label, [part for part in parts if part]

    def boxes(self) -> Iterator[tuple[str, Bins] | Unfit]:
        for label, parts in self.runs():
            is_one = sum(map(len, parts)) <= 4
            if wrong := too_long(label, LONGEST_TEXT if is_one else LONGEST_NAME):  # or each box would say it
                yield Unfit("too_long", wrong)
                continue
            for part in parts:
                whole = len(part) // 4 * 4
                yield from ((label, tuple(part[start : start + 4])) for start in range(0, whole, 4))
                if whole < len(part):
                    yield Unfit("bad_box", f"{len(part) - whole} locations behind {shown(label)}, which are no box")

    def rings(self) -> list[list[float]]:
        return [list(self.points(part[: len(part) // 2 * 2])) for _, parts in self.runs() for part in parts]


def _objects(line: _Line) -> Iterator[Given | Unfit]:
    for found in line.boxes():
        if isinstance(found, Unfit):
            yield found
        elif found[0]:
            yield line.region(found[1], label=found[0])
        else:
            yield Unfit("bad_box", "a box without a label")


def _open(line: _Line) -> Iterator[Given | Unfit]:
    if "<poly>" in line.target:
        yield Unfit("unsupported", "an open-vocabulary answer with outlines")
    else:
        yield from _objects(line)


def _described(line: _Line) -> Iterator[Given | Unfit]:
    for found in line.boxes():
        yield found if isinstance(found, Unfit) else line.region(found[1], description=found[0])


def _proposals(line: _Line) -> Iterator[Given | Unfit]:
    for found in line.boxes():
        yield found if isinstance(found, Unfit) else line.region(found[1], "proposal")


def _category(line: _Line) -> Iterator[Given]:
    yield line.region(line.asked(), label=line.target)


def _description(line: _Line) -> Iterator[Given]:
    region = line.region(line.asked())
    yield region
    yield GivenRegionText(region.key, line.target, line.where)


def _line(line: _Line) -> Iterator[Given]:
    yield line.region(line.asked(), "text", text=line.target)


def _lines(line: _Line) -> Iterator[Given | Unfit]:
    for label, parts in line.runs():
        if len(parts) != 1 or len(parts[0]) != 8 or not label:
            yield Unfit("bad_quad", f"{sum(map(len, parts))} locations behind {shown(label)}, which are no quad")
            continue
        bins = parts[0]
        around = (min(bins[::2]), min(bins[1::2]), max(bins[::2]), max(bins[1::2]))
        yield line.region(around, "text", text=label, quad=line.points(bins))


def _outline(line: _Line) -> Iterator[Given]:
    region = line.region(line.asked())
    yield region
    yield GivenMask(region.key, line.rings(), line.where)


def _referred(line: _Line) -> Iterator[Given]:
    """Of which region an outline is, nobody says: of the one around it, unless another line has the same outline."""
    before, after = SEGMENTED
    rings = line.rings()
    if not (line.prompt.startswith(before) and line.prompt.endswith(after)) or not rings:
        raise Unfit("bad_sample", f"expected an expression and its outline, not {shown((line.prompt, line.target))}")
    expression = line.prompt[len(before) : -len(after)]
    xs, ys = ([v for ring in rings for v in ring[axis::2]] for axis in (0, 1))
    key = ("outline", repr(rings))
    box = (min(xs), min(ys), max(xs), max(ys))
    about = {"size": line.size, "key": key, "kind": "object", "where": line.where}
    yield GivenRegion(None, box, segmentation=rings, description=expression, **about)  # type: ignore[arg-type]


def _grounded(line: _Line) -> Iterator[Given | Unfit]:
    """The phrases of a caption, in its order; or one expression, which is all of it."""
    if not line.prompt.startswith(GROUNDED):
        raise Unfit("bad_sample", f"expected a caption in the prompt, not {shown(line.prompt)}")
    caption = line.prompt[len(GROUNDED) :]
    text, start, stop = caption_key(caption), 0, 0
    for phrase, parts in line.runs():
        keys = []
        for bins in (tuple(part[n : n + 4]) for part in parts for n in range(0, len(part), 4)):
            if len(bins) == 4:
                yield line.region(bins)
                keys.append(_key(bins, "object"))
            else:
                yield Unfit("bad_box", f"{len(bins)} locations behind {shown(phrase)}, which are no box")
        if not keys:
            continue
        if phrase == caption:
            yield GivenTriplet(None, 0, 0, tuple(keys), phrase, where=line.where)
            continue
        behind = caption.find(phrase, stop)
        found = behind if behind >= 0 else caption.find(phrase, start)
        if found < 0 or not phrase:
            yield Unfit("bad_span", f"{shown(phrase)} is not in the caption {shown(caption)}")
            continue
        if not stop:
            yield GivenText(caption, where=line.where, key=text)
        start, stop = found, found + len(phrase)
        yield GivenTriplet(text, start, stop, tuple(keys), phrase, where=line.where)


def _whole_text(line: _Line) -> Iterator[Given]:
    """Lines that nobody says the place of: a fault, unless another sample says it."""
    yield unplaced(line.target, line.where)


TASKS: dict[str, Callable[[_Line], Iterator[Given | Unfit]]] = {
    "OD": _objects,
    "OPEN_VOCABULARY_DETECTION": _open,
    "DENSE_REGION_CAPTION": _described,
    "REGION_PROPOSAL": _proposals,
    "REGION_TO_CATEGORY": _category,
    "REGION_TO_DESCRIPTION": _description,
    "REGION_TO_OCR": _line,
    "REGION_TO_SEGMENTATION": _outline,
    "OCR": _whole_text,
    "OCR_WITH_REGION": _lines,
    "CAPTION_TO_PHRASE_GROUNDING": _grounded,
    "REFERRING_EXPRESSION_SEGMENTATION": _referred,
}


def _key(bins: Bins, kind: str) -> Key:
    """Of objects and proposals one: what is both is an object."""
    return (LINE if kind == "text" else OBJECT, "".join(f"<loc_{bin_}>" for bin_ in _sorted(bins)))


def _sorted(bins: Bins) -> Bins:
    x0, y0, x1, y1 = bins
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _bins(text: str) -> Bins:
    return tuple(int(value) for value in re.findall(r"\d+", text))
