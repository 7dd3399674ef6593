"""One image: every annotation, who made it, what stands, what fell and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from engine.atomic import is_there
from engine.dataset import Dataset
from engine.entry import Fault
from engine.errors import ConfigError
from engine.layout import Output, ShardId
from engine.records import AnyAnnotation, Decision, Item, Mask, Parse, Record, Region, RegionText, Scores, Text, Triplet
from engine.storage import read_faults, read_items, read_records
from engine.untrusted import plain
from engine.uris import uri_of

WIDEST = 100  # columns of a text that is read


@dataclass(frozen=True)
class Shown:
    """A record, and what was wrong with the annotations that came along with its image."""

    record: Record
    faults: Sequence[Fault] = ()


def find_record(dataset: Dataset, image: str) -> Shown:
    """The record of the one image that `image` means: an id or the beginning of one, a path, or the end of one.

    Raises ConfigError if that is none, or several (named). An image that is not annotated yet has an empty record.
    """
    matches = list(_matches(dataset.output, image))
    if len(matches) != 1:
        listed = "".join(f"\n  {item.item_id.hex()[:8]}  {item.uri!r}" for _, item in matches[:10])
        found = f"{len(matches)} images{listed}" if matches else f"none of the images in {dataset.output.root}"
        raise ConfigError(f"{image!r} means {found}. Give an id, or more of the path.")
    shard, item = matches[0]
    faults = [fault for item_id, fault in read_faults(dataset.output, shard) if item_id == item.item_id]
    if not is_there(dataset.output.round(dataset.round).decisions(shard)):
        return Shown(Record(item), faults)
    records = read_records(dataset.output, dataset.round, shard)
    return Shown(next(record for record in records if record.item.item_id == item.item_id), faults)


def print_record(shown: Shown, console: Console) -> None:
    """The item, its texts, and a table of its other annotations: those that stand first."""
    record = shown.record
    console.print(_head(record.item, record), soft_wrap=True)
    for fault in shown.faults:
        console.print(_plain(f"came along: {fault.where}: {fault.kind}: {fault.message}"), soft_wrap=True)
    if not record.by_id:
        return
    fallen = {d.annotation_id: d for d in record.decisions if d.action in ("reject", "supersede")}
    for text in sorted(record.texts, key=lambda text: text.id in fallen):
        decision = fallen.get(text.id)
        console.print(Styled(f"{text.detail}, {text.id}: {_verdict(decision)}", style="dim" if decision else "bold"))
        console.print(_plain(text.text, "dim" if decision else ""), width=min(console.width, WIDEST))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("id", "what", "says", "where", "score", ""):
        table.add_column(name, overflow="fold")
    others = (annotation for annotation in record.annotations() if not isinstance(annotation, Text))
    for annotation in sorted(others, key=lambda a: a.id in fallen):
        decision = fallen.get(annotation.id)
        table.add_row(*_cells(annotation, decision, record), style="dim" if decision else "")
    console.print(table)


def _matches(output: Output, image: str) -> Iterator[tuple[ShardId, Item]]:
    """The one match of a whole id or path, or else all by the beginning of an id or the end of a path."""
    whole, ends = {image, uri_of(image)}, ("/" + image, "/" + quote(os.fsencode(image)))
    partial = []
    for shard in output.shards():
        for item in read_items(output, shard):
            item_id = item.item_id.hex()
            if item.uri in whole or item_id == image:
                yield shard, item
                return
            if item.uri.endswith(ends) or (len(image) >= 4 and item_id.startswith(image)):
                partial.append((shard, item))
    yield from partial


def _head(item: Item, record: Record) -> Styled:
    size = f"{item.width} x {item.height}" if item.width else "size unknown"
    lines = [f"{item.uri!r}"[1:-1], f"{item.item_id.hex()}, {size}"]
    lines += [f"{name}: {value}" for name in ("dataset", "licence") if (value := getattr(item, name))]
    if item.labels:
        lines.append(f"labels: {', '.join(item.labels)}")
    if item.duplicate_of:
        lines.append(f"an exact duplicate of {item.duplicate_of.hex()}, which has the annotations")
    if error := record.error or item.error:
        lines.append(f"quarantined in {error.stage}: {error.kind}: {error.message}")
    if record.by_id:
        lines.append(f"{len(record.standing.by_id)} of {len(record.by_id)} annotations stand")
    return _plain("\n".join(lines))


def _cells(annotation: AnyAnnotation, decision: Decision | None, record: Record) -> list[Styled]:
    """Styled texts, not strings: what an image says must not be read as markup."""
    what, says, where = _about(annotation, record)
    return [_plain(cell) for cell in (annotation.id, what, says, where, _scores(annotation.scores), _verdict(decision))]


def _plain(text: str, style: str = "") -> Styled:
    return Styled(plain(text), style=style)


def _about(annotation: AnyAnnotation, record: Record) -> tuple[str, str, str]:
    match annotation:
        case Region():
            says = annotation.text if annotation.kind == "text" else annotation.label
            return annotation.kind, says or "", " ".join(f"{value:.0f}" for value in annotation.box)
        case Mask():
            return "mask", "", f"of {annotation.region_id}"
        case RegionText():
            return "region_text", annotation.text, f"of {annotation.region_id}"
        case Parse():
            words = f"{annotation.objects} objects, {annotation.attributes} attributes, {annotation.actions} actions"
            return "parse", f"{words}, {len(annotation.phrases)} phrases", f"of {annotation.text_id}"
        case Text():
            return annotation.detail, annotation.text, ""
        case Triplet():
            text = record.by_id[annotation.text_id]
            phrase = text.text[annotation.start : annotation.stop] if isinstance(text, Text) else ""
            return "triplet", phrase, f"of {annotation.text_id}: {', '.join(annotation.region_ids)}"


def _scores(scores: Scores) -> str:
    values = ((name, getattr(scores, name)) for name in scores.__slots__)
    return ", ".join(f"{name} {value:.2f}" for name, value in values if value is not None)


def _verdict(decision: Decision | None) -> str:
    if decision is None:
        return "stands"
    measured = "" if decision.value is None else f" {decision.value:.3g}"
    held = "" if decision.threshold is None else f" against {decision.threshold:g}"
    rival = f", for {decision.against}" if decision.against else ""
    return f"{decision.by}: {decision.reason}{measured}{held}{rival}"
