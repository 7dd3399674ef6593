"""What the columns of a Hugging Face dataset hold, by the features that it declares, and what came along in a row.

The features are a dictionary, as in dataset_info.json: a column's name and its type. Lists are written in three ways,
by age: `[feature]`, `{"_type": "Sequence", "feature": ...}` and `{"_type": "List", ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.entry import Faults, Given, GivenRegion, GivenText
from engine.files import MOST_BYTES
from engine.sources import documents
from engine.untrusted import numbers, shown

LABELS = ("label", "labels")
CAPTIONS = ("caption", "captions")
TEXTS = (*CAPTIONS, "text", "texts", "sentences")
OBJECTS = "objects"
ABOUT = ("dataset", "licence")
CATEGORIES = ("category", "categories", "label", "labels")
NO_CLASS = -1
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """Columns that came along with images. `classes` are the names that numbers in `labels` stand for, `categories`
    those in the objects' `category`; empty where they are words already. Rows that are documents, as the engine exports
    them, are read as such: `document` are their columns. What is wrong in a row goes to `faults`, if there are any; a
    box that is none is told with its image."""

    image: str | None = None
    labels: str | None = None
    classes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    objects: str | None = None
    category: str | None = None
    categories: tuple[str, ...] = ()
    document: tuple[str, ...] = ()
    about: tuple[str, ...] = ()  # of a document's: which set it is from, and its licence

    @property
    def given(self) -> tuple[str, ...]:
        """The columns that `given_in` reads."""
        return (*self.document, *self.texts, *([self.objects] if self.objects else []))

    def labels_in(self, row: Row, where: str = "", faults: Faults | None = None) -> tuple[str, ...]:
        """What is to be seen in the image; -1, the number of an image without a label, is none."""
        values = row.get(self.labels) if self.labels else None
        words = [_word(value, self.classes, where, faults) for value in _listed(values)]
        return tuple(word for word in words if word)

    def given_in(self, row: Row, where: str, faults: Faults | None = None) -> list[Given]:
        if documents.is_document(row):
            return documents.given_in(row, where)
        texts = [text for name in self.texts for text in _listed(row.get(name))]
        given: list[Given] = [GivenText(text, where=where) for text in texts if text is not None]
        objects = row.get(self.objects) if self.objects else None
        return given + [self._region(one, where, faults) for one in _one_by_one(objects, where, faults)]

    def _region(self, one: Row, where: str, faults: Faults | None) -> GivenRegion:
        box, category = one.get("bbox"), one.get(self.category) if self.category else None
        values = numbers(box) if isinstance(box, list) else None
        if values is None or len(values) != 4:
            as_it_is: Any = tuple(box) if isinstance(box, list) else ()  # which is turned down with its image
            return GivenRegion(None, as_it_is, where=where)
        x, y, width, height = values
        label = _word(category, self.categories, where, faults)
        return GivenRegion(label, (x, y, x + width, y + height), where=where)


def columns_of(features: Mapping[str, Any]) -> Columns:
    """The columns that the features say are an image, its labels, texts and objects."""
    labels = next((name for name in LABELS if _is_class(features.get(name)) or _is_text(features.get(name))), None)
    objects = _inner(features.get(OBJECTS))
    has_boxes = isinstance(objects, dict) and "bbox" in objects
    category = next((name for name in CATEGORIES if name in objects), None) if has_boxes else None
    is_document = _is_text(features.get("format")) and isinstance(_inner(features.get("regions")), dict)
    return Columns(
        image=next((name for name, feature in features.items() if _type(feature) == "Image"), None),
        labels=labels,
        classes=_names(features[labels]) if labels else (),
        texts=tuple(name for name in TEXTS if _is_text(features.get(name))),
        objects=OBJECTS if has_boxes else None,
        category=category,
        categories=_names(objects[category]) if category else (),
        document=tuple(name for name in documents.COLUMNS if name in features) if is_document else (),
        about=tuple(name for name in ABOUT if is_document and _is_text(features.get(name))),
    )


def features_in(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The features that a table's metadata has, under `huggingface`; empty if it has none."""
    told = (metadata or {}).get(b"huggingface", b"")
    if len(told) > MOST_BYTES:
        raise ValueError(f"its metadata has {len(told):,} bytes of features, more than {MOST_BYTES:,}")
    try:
        found = json.loads(told)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _inner(feature: Any) -> Any:
    """A feature without the lists around it."""
    while True:
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature and isinstance(feature.get("_type"), str):
            feature = feature["feature"]
        else:
            return feature


def _type(feature: Any) -> str | None:
    return feature.get("_type") if isinstance(feature, dict) else None


def _is_class(feature: Any) -> bool:
    return _type(_inner(feature)) == "ClassLabel"


def _is_text(feature: Any) -> bool:
    inner = _inner(feature)
    return _type(inner) == "Value" and inner.get("dtype") in ("string", "large_string", "string_view")


def _names(feature: Any) -> tuple[str, ...]:
    names = _inner(feature).get("names") if isinstance(_inner(feature), dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _word(value: Any, names: Sequence[str], where: str, faults: Faults | None) -> str | None:
    if not isinstance(value, int):
        return value if isinstance(value, str) else None
    if 0 <= value < len(names):
        return names[value]
    if value != NO_CLASS and faults:
        message = f"class {shown(value)} isn't among the {len(names)} that have names; it is left without a label"
        faults.add(where, "unknown_category", message)
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _one_by_one(objects: Any, where: str, faults: Faults | None) -> Iterator[Row]:
    """Objects are a list of dictionaries, or a dictionary of lists, of which the longest one counts."""
    if isinstance(objects, list):
        yield from (one for one in objects if isinstance(one, dict))
    elif isinstance(objects, dict):
        lists = {name: values for name, values in objects.items() if isinstance(values, list)}
        lengths = {name: len(values) for name, values in lists.items()}
        if len(set(lengths.values())) > 1 and faults:
            faults.add(where, "bad_objects", f"its objects' lists differ in length: {shown(lengths)}")
        for number in range(max(lengths.values()) if "bbox" in lists else 0):
            yield {name: values[number] for name, values in lists.items() if number < len(values)}
