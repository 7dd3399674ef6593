"""An output folder with all that may be known of an image, hostile words included, and documents to compare it with."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets_made import write_dataset
from PIL import Image

from engine.geometry import encode_mask
from engine.layout import Output
from engine.records import DETAILS, Mask, Record, Region, RegionText, Scores, Text, Triplet

PHRASE = "the 犬\n<b>"
NAMES = ("a.png", "ö 写真.jpg", 'q"uote\\.png', "sub/b.png", "<b>c.webp", "d.e.gif", "turned.jpg")
HOSTILE = (
    "ein Größenwahn 検出 собака",
    "\u202eright to left \u2066 \u05e9\u05dc\u05d5\u05dd \u200f",
    "👩‍👩‍👧 \U0001f415",
    'quote " and \\ and \' and \\u0041, {"a": [1]}',
    " line\nbreak\r\n\ttab, and spaces  at both ends ",
    "\x00\x01\x1b[31m\x7f\x85\u2028\ufffe",
    "</script><img src=x onerror=alert(1)> &amp; | `a`",
    "<image> <loc_1> <|endoftext|>",
    "- yes: &b *c !!python/object:os.system #d",
)


def pictures(folder: Path) -> None:
    """Seven pictures of noise, no two of one size, none square; one is stored on its side."""
    for n, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 255, (48 + 5 * n, 70 + 3 * n, 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(path, **({"exif": exif, "quality": 95} if name == "turned.jpg" else {}))


def known(folder: Path) -> Output:
    """Seven images of three shards, with sets, licences and labels, and what `annotated` makes of each."""
    pictures(folder / "pictures")
    uris = [f"pictures/{name}" for name in NAMES]
    sets = {"dataset": ["flickr|30k", None, "sa1b", "sa1b", "sa1b", "sa1b", "sa1b"], "licence": ["CC BY 4.0"] * 7}
    table = pa.table({"uri": uris, **sets, "labels": [["Dog", "a\nb"], [], *[[str(n)] for n in range(5)]]})
    pq.write_table(table, folder / "list.parquet")
    return write_dataset(folder / "list.parquet", folder / "out", annotated)


def annotated(record: Record) -> Record:
    """Of each kind more than one, from several sources; what fell is there, too. One image has nothing."""
    if not record.item.width or record.item.uri.endswith(NAMES[3]):
        return record
    record = record.append(_annotations(record))
    fell = next(region for region in record.regions if region.label == "fell")
    text = next(text for text in record.texts if text.text == "It fell.")
    record = record.decide([record.reject(one, "test", "wrong") for one in (fell, text)])
    return record


def _annotations(record: Record) -> list[Any]:
    assert record.item.width and record.item.height and record.item.content_id
    width, height = record.item.width, record.item.height
    noise = np.random.default_rng(list(record.item.content_id))
    ids = {source: record.ids(source) for source in ("a", "b.c", "読")}

    def box() -> tuple[float, ...]:
        x, y = noise.uniform(0, width / 2, 2), noise.uniform(0, height / 2, 2)
        return x[0] / 2, y[0] / 2, width / 2 + x[1], height / 2 + y[1]

    def region(source: str = "a", **about: Any) -> Region:
        about = {"kind": "object", "box": box(), "scores": Scores(label=float(noise.random())), **about}
        return Region(id=next(ids[source]), source=source, **about)

    x0, y0, x1, y1 = box()
    things = [region(raw_label=word, label=" ".join(word.casefold().split()) or "x") for word in HOSTILE]
    others = [
        region("b.c", raw_label="sheep", label="sheep", crowd=True, scores=Scores()),
        region("b.c", kind="text", quad=(x0, y0, x1, y0 + 1, x1 - 1, y1, x0, y1 - 2), text=HOSTILE[3]),
        region("b.c", kind="proposal", raw_label="thing", label="thing", scores=Scores(box=0.123456789012345)),
        region("読", raw_label="fell", label="fell"),
        region("読"),
    ]
    dog, cat = things[:2]
    told = [
        Text(id=next(ids["読"]), source="読", text=f"{word} {PHRASE} {number}", detail=DETAILS[number % 3])
        for number, word in enumerate(HOSTILE)
    ]
    composed = Text(id=next(ids["a"]), source="a", text="A dog.", detail="brief", derived_from=(dog.id, cat.id))
    fell = Text(id=next(ids["a"]), source="a", text="It fell.", detail="brief")
    pixels = noise.random((height, width)) > 0.7
    masks = [
        Mask(id=next(ids[source]), source=source, region_id=one.id, size=(height, width), counts=encode_mask(drawn))
        for source, one, drawn in (("a", dog, pixels), ("b.c", dog, ~pixels), ("a", cat, pixels))
    ]
    about = [RegionText(id=next(ids["a"]), source="a", region_id=dog.id, text=word) for word in HOSTILE[:3]]
    triplets = [
        Triplet(
            id=next(ids["b.c"]),
            source="b.c",
            text_id=text.id,
            start=text.text.index(PHRASE),
            stop=text.text.index(PHRASE) + len(PHRASE),
            region_ids=(dog.id, cat.id) if number % 2 else (others[0].id,),
            scores=Scores(phrase=0.1 * number) if number % 3 else Scores(),
        )
        for number, text in enumerate(told[:5])
    ]
    return [*told, composed, fell, *things, *others, *about, *masks, *triplets]


def single(document: dict[str, Any]) -> dict[str, Any]:
    """A document read from JSON, with the coordinates that its shortest numbers stand for."""
    regions = document["regions"]
    exact = [{name: one[name] and np.float32(one[name]).tolist() for name in ("box", "quad")} for one in regions]
    return document | {"regions": [one | corners for one, corners in zip(regions, exact, strict=True)]}


def document_of(record: Record, **about: Any) -> dict[str, Any]:
    """The document that says what stands of a record, made the long way."""
    stands = record.standing
    composed_of = {region.id for region in record.regions}
    return about | {
        "format": "florence-engine/1",
        "item_id": record.item.item_id.hex(),
        "uri": record.item.uri,
        "width": record.item.width,
        "height": record.item.height,
        "dataset": record.item.dataset,
        "licence": record.item.licence,
        "labels": list(record.item.labels),
        "texts": [
            {
                **{name: getattr(text, name) for name in ("id", "source", "detail", "text")},
                "composed": bool(composed_of & set(text.derived_from)),
                "derived_from": list(text.derived_from),
            }
            for text in stands.texts
        ],
        "regions": [
            {
                **{
                    name: getattr(one, name) for name in ("id", "source", "kind", "raw_label", "text", "crowd", "score")
                },
                "label": " ".join(one.raw_label.casefold().split()) if one.raw_label else one.label,
                "box": list(one.box),
                "quad": list(one.quad) if one.quad else None,
            }
            for one in stands.regions
        ],
        "region_texts": [
            {name: getattr(one, name) for name in ("id", "source", "region_id", "text")} for one in stands.region_texts
        ],
        "masks": [
            {
                **{name: getattr(one, name) for name in ("id", "source", "region_id")},
                "size": list(one.size),
                "counts": one.counts.decode(),
            }
            for one in stands.masks
        ],
        "triplets": [
            {
                **{name: getattr(one, name) for name in ("id", "source", "text_id", "start", "stop")},
                "phrase": next(text.text for text in stands.texts if text.id == one.text_id)[one.start : one.stop],
                "region_ids": list(one.region_ids),
                "score": one.scores.phrase,
            }
            for one in stands.triplets
        ],
    }


def documents_in(to: Path) -> list[dict[str, Any]]:
    """Those of an exported WebDataset."""
    found = []
    for path in sorted(to.glob("*/*.tar")):
        with tarfile.open(path) as archive:
            members = [member for member in archive if member.name.endswith(".json")]
            found += [single(json.loads(archive.extractfile(member).read())) for member in members]  # type: ignore[union-attr]
    return found


def but_for_ids(document: dict[str, Any]) -> str:
    """A document with places for ids, and without what says who made it and where it was."""
    tables = ("texts", "regions", "region_texts", "masks", "triplets")
    places = {one["id"]: f"{name} {n}" for name in tables for n, one in enumerate(document[name])}
    kept = {name: value for name, value in document.items() if name not in ("item_id", "uri", "split")}

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(inner) for name, inner in value.items() if name not in ("source", "id")}
        if isinstance(value, list):
            return [moved(inner) for inner in value]
        return places.get(value, value) if isinstance(value, str) else value

    return json.dumps(moved(kept), sort_keys=True)
