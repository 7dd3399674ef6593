"""Looking for images of evaluation sets in a set, and what a person is told of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from engine.config import Ingest
from engine.contamination import Contamination, contaminated, decontaminate
from engine.layout import Output
from engine.lock import run_lock
from engine.stats import OBEYED
from engine.truth import SHOWN
from engine.untrusted import printable
from pipelines.compatible import config_there


def look(output: Output, paths: tuple[str, ...], distance: int, console: Console, anew: bool = False) -> dict[str, Any]:
    """What was found, as JSON. It is added to what was found before, or with `anew` takes the place of that."""
    there = config_there(output)
    asked = (there.ingest if there else Ingest()).model_copy(
        update={"images": paths, "limit": None, "image_root": None, "class_folders": False}
    )
    with run_lock(output.root):
        before = contaminated(output)
        with console.status("decontaminate") as status:
            told = f"decontaminate: {len(paths)} sets"
            found = decontaminate(output, asked, distance, lambda done: status.update(f"{told}, {done} images"), anew)
        return _told(found, paths, distance, output, len(before - contaminated(output)))


def _told(found: Contamination, paths: tuple[str, ...], distance: int, output: Output, freed: int) -> dict[str, Any]:
    return {
        "against": list(paths),
        "distance": distance,
        "images": found.images,
        "evaluated": found.evaluated,
        "unread": dict(found.unread),
        "first unread": [asdict(one) for one in found.first_unread],
        **found.counts,
        "no longer listed": freed,
        "listed": len(contaminated(output)),
        "file": str(output.contamination),
        "found": [{**asdict(one), "item_id": one.item_id.hex()} for one in found.same],
    }


def print_contamination(told: dict[str, Any], console: Console) -> None:
    line = (
        f"{told['exact'] + told['near']:,} of {told['images']:,} images are in the evaluation sets: {told['exact']:,} "
        f"by their bytes, {told['near']:,} look like one of theirs (up to {told['distance']} bits of 64)"
    )
    console.print(Text(line), soft_wrap=True)
    for one in told["found"][:SHOWN]:
        how = one["how"] if one["how"] == "exact" else f"{one['how']}, {one['distance']} bits"
        console.print(Text(printable(f"  {one['uri']}  {how}  {one['against']}")), soft_wrap=True)
    if len(told["found"]) > SHOWN:
        console.print(Text(f"  and {len(told['found']) - SHOWN:,} more: --json"))
    if told["unread"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in told["unread"].items())
        unread = sum(told["unread"].values())
        line = (
            f"! {unread:,} of {told['evaluated']:,} images of the evaluation sets could not be read ({kinds}): whether "
        )
        console.print(
            Text(f"{line}the set has one that looks like theirs is not known"), style="yellow", soft_wrap=True
        )
        for one in told["first unread"]:
            console.print(Text(printable(f"  {one['uri']}  {one['kind']}")), soft_wrap=True)
        if unread > len(told["first unread"]):
            console.print(Text(f"  and {unread - len(told['first unread']):,} more"))
    if told["no longer listed"]:
        freed = f"! {told['no longer listed']:,} images that were listed before no longer are"
        console.print(Text(freed), style="yellow", soft_wrap=True)
    if told["listed"]:
        line = f"{told['listed']:,} images are listed in {told['file']}: none is exported, no model is trained on it"
        console.print(Text(line), soft_wrap=True)


def to_json(told: dict[str, Any]) -> str:
    """With characters that terminals obey written as JSON's own escapes."""
    document = json.dumps(told, indent=2, ensure_ascii=False)
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
