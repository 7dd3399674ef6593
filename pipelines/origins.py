"""Which annotations an example is made of, found again by its words and places: so that each line of a file can say
whose work it is, and whether a text of it was composed from regions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from engine.records import AnyAnnotation, Mask, Record, Region, RegionText, Text, Triplet
from florence2.codec import unforged
from florence2.examples import Example
from florence2.locations import Size, quantize, written
from florence2.polygons import box_of
from florence2.reading_order import box_around
from florence2.scene import Line
from florence2.scene import Mask as Pixels
from florence2.tasks import Form, Task
from pipelines.scenes import View

BOX = re.compile(r"(?:<loc_\d+>){4}")
QUAD = re.compile(r"(?:<loc_\d+>){8}")
CAPTIONS = (Task.CAPTION, Task.DETAILED_CAPTION, Task.MORE_DETAILED_CAPTION)
LINES = (Task.OCR, Task.OCR_WITH_REGION, Task.REGION_TO_OCR)
# Of what an example of a task may be made; tasks that are not here are made of objects alone.
MADE_OF: dict[Task, tuple[type[AnyAnnotation], ...]] = {
    **dict.fromkeys(CAPTIONS, (Text,)),
    **dict.fromkeys((Task.DENSE_REGION_CAPTION, Task.REGION_TO_DESCRIPTION), (Region, RegionText)),
    **dict.fromkeys((Task.REGION_PROPOSAL, Task.REGION_TO_SEGMENTATION), (Region, Mask)),
    Task.CAPTION_TO_PHRASE_GROUNDING: (Text, Triplet, Region, RegionText),
    Task.REFERRING_EXPRESSION_SEGMENTATION: (Text, Triplet, Region, RegionText, Mask),
}


class Origins:
    """Of one record, seen as its examples were made. `lines` are the targets' lines of its scene."""

    def __init__(self, view: View, size: Size, lines: Sequence[Line]) -> None:
        stands = view.record.standing
        self.standing = {one.id: one for one in stands.annotations() if view.admits(one.id)}
        self.order = {id_: number for number, id_ in enumerate(self.standing)}
        self.masks: dict[str, list[AnyAnnotation]] = defaultdict(list)
        self.words: dict[str, list[AnyAnnotation]] = defaultdict(list)
        self.places: dict[str, list[AnyAnnotation]] = defaultdict(list)
        self.read: list[AnyAnnotation] = []  # lines that are large enough
        for one in self.standing.values():
            if isinstance(one, Text | RegionText):
                self.words[unforged(one.text)].append(one)
            elif isinstance(one, Region) and one.kind != "text":
                self.places[written(quantize(one.box, size))].append(one)
            elif isinstance(one, Mask):
                self.masks[one.region_id].append(one)
                if box := box_of(Pixels(one.size, one.counts), size):
                    self.places[written(quantize(box, size))].append(one)
        self._phrases(view, stands)
        for line in lines:
            words = [self.standing[id_] for id_ in line.parts]
            self.read += words
            for place in {written(quantize(line.quad, size)), written(quantize(box_around(line.quad), size))}:
                self.places[place] += words

    def of(self, example: Example) -> list[AnyAnnotation]:
        """In the order of the record. None for an answer that says that nothing is there."""
        task = example.task
        if task is Task.OCR:
            return sorted(self.read, key=lambda one: self.order[one.id])
        words = {example.answer, *example.prompt.labels, *(unforged(one.label) for one in example.annotations)}
        told = [one for said in words for one in self.words.get(said, ())]
        lie = [one for place in self._of(example) for one in self.places.get(place, ())]
        if task is Task.REFERRING_EXPRESSION_SEGMENTATION:
            lie += [self.standing[id_] for one in told for id_ in _regions_of(one) if id_ in self.standing]
        regions = {one.id for one in lie if isinstance(one, Region) and (one.kind == "text") == (task in LINES)}
        if task is not Task.REGION_PROPOSAL:  # there masks have places of their own
            lie = [one for one in lie if one.id in regions] + [mask for id_ in regions for mask in self.masks[id_]]
        kinds = MADE_OF.get(task, (Region,))
        found = {one.id for one in (*told, *lie) if isinstance(one, kinds)}
        of_others = {id_ for id_ in found if not regions.issuperset(_regions_of(self.standing[id_]))}
        return [self.standing[id_] for id_ in sorted(found - of_others, key=self.order.__getitem__)]

    def _of(self, example: Example) -> Iterator[str]:
        """The places that an example names."""
        if example.prompt.form is Form.LABELLED_QUADS:
            yield from QUAD.findall(example.answer)
        elif example.prompt.form in (Form.TEXT, Form.POLYGONS):
            yield from BOX.findall(example.prompt.text)
        else:
            yield from BOX.findall(example.answer)

    def _phrases(self, view: View, record: Record) -> None:
        """Phrases and their expressions are words of their text, and of the triplets that link them."""
        for text in record.texts:
            if text.id not in self.standing:
                continue
            triplets = [one for one in record.triplets if one.text_id == text.id and one.id in self.standing]
            for phrase in view.phrases(text):
                inside = [
                    one
                    for one in triplets
                    if phrase.expression_start <= one.start and one.stop <= phrase.expression_stop
                ]
                for start, stop in {(phrase.start, phrase.stop), (phrase.expression_start, phrase.expression_stop)}:
                    self.words[unforged(text.text[start:stop])] += [text, *inside]


def _regions_of(annotation: AnyAnnotation) -> tuple[str, ...]:
    if isinstance(annotation, RegionText):
        return (annotation.region_id,)
    return annotation.region_ids if isinstance(annotation, Triplet) else ()
