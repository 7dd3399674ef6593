"""The features of our Hugging Face datasets, in the two ways in which files declare them: JSON in Parquet's metadata,
YAML in the card. https://huggingface.co/docs/datasets/about_dataset_features
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.records import DETAILS

Feature = dict[str, Any]


def _value(dtype: str) -> Feature:
    return {"dtype": dtype, "_type": "Value"}


def _list(feature: Feature) -> Feature:
    return {"feature": feature, "_type": "List"}


STRING, BOOL, INT32, INT64, FLOAT32, FLOAT64 = map(_value, ("string", "bool", "int32", "int64", "float32", "float64"))
_ANNOTATION = {"id": STRING, "source": STRING}


def features(classes: Sequence[str]) -> dict[str, Feature]:
    """Columns in their order. `classes` are the labels that numbers stand for in the objects' `category`."""
    objects = {
        "bbox": _list(FLOAT32),
        "category": {"names": list(classes), "_type": "ClassLabel"},
        "area": FLOAT32,
        "iscrowd": BOOL,
        "region_id": STRING,
    }
    region = {"kind": STRING, "label": STRING, "raw_label": STRING, "text": STRING, "box": _list(FLOAT32)}
    of_text = {"text_id": STRING, "start": INT32, "stop": INT32, "phrase": STRING}
    return {
        "image_id": INT64,
        "image": {"_type": "Image"},
        "captions": {detail: _list(STRING) for detail in DETAILS},
        "objects": {name: _list(feature) for name, feature in objects.items()},
        **dict.fromkeys(("format", "item_id", "uri"), STRING),
        **dict.fromkeys(("width", "height"), INT32),
        **dict.fromkeys(("dataset", "licence"), STRING),
        "labels": _list(STRING),
        "split": STRING,
        "texts": _list(
            {**_ANNOTATION, "detail": STRING, "text": STRING, "composed": BOOL, "derived_from": _list(STRING)}
        ),
        "regions": _list({**_ANNOTATION, **region, "quad": _list(FLOAT32), "crowd": BOOL, "score": FLOAT64}),
        "region_texts": _list({**_ANNOTATION, "region_id": STRING, "text": STRING}),
        "masks": _list({**_ANNOTATION, "region_id": STRING, "size": _list(INT32), "counts": STRING}),
        "triplets": _list({**_ANNOTATION, **of_text, "region_ids": _list(STRING), "score": FLOAT64}),
    }


def as_yaml(declared: Mapping[str, Feature]) -> list[dict[str, Any]]:
    """Features as a card has them."""
    return [{"name": name, **_named(feature)} for name, feature in declared.items()]


def _named(feature: Feature) -> dict[str, Any]:
    inner = _inner(feature)
    return inner if isinstance(inner, dict) and {"list", "struct"} & set(inner) else {"dtype": inner}


def _inner(feature: Feature) -> Any:
    kind = feature.get("_type")
    if kind == "Value":
        return feature["dtype"]
    if kind == "Image":
        return "image"
    if kind == "ClassLabel":
        return {"class_label": {"names": {str(number): name for number, name in enumerate(feature["names"])}}}
    if kind == "List":
        of = feature["feature"]
        return {"list": _inner(of) if "_type" in of else as_yaml(of)}
    return {"struct": as_yaml(feature)}
