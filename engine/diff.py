"""What one round changed of another: what was added, dropped and changed, by kind, source, class and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from engine.dataset import Dataset
from engine.layout import Output, ShardId
from engine.records import AnyAnnotation, Decision, Mask, Parse, Record, Region, RegionText, Text, Triplet
from engine.storage import read_records
from engine.summary import COLUMNS
from engine.untrusted import printable

READ = tuple(name for name in COLUMNS if name != "masks")  # which are the most of the bytes, and follow their regions
TOP_CLASSES = 5
CHANGES = ("added", "changed", "dropped")
KINDS: dict[type[AnyAnnotation], str] = {
    Text: "text",
    Parse: "parse",
    Region: "region",
    RegionText: "text of a region",
    Mask: "mask",
    Triplet: "triplet",
}


class Change(NamedTuple):
    """`source` and `label` are of what stands afterwards, of what was dropped those that it had. `label` is a region's
    class or a text's granularity."""

    change: str
    kind: str
    source: str
    label: str
    reason: str


def diff(before: Dataset, after: Dataset) -> Counter[Change]:
    """Of two rounds of one output folder, over the shards that both have. Masks, which follow their regions, are left
    out."""
    found: Counter[Change] = Counter()
    there = set(before.shards())
    for shard in after.shards():
        if shard in there:
            found.update(of_shard(before.output, before.round, after.round, shard))
    return found


def of_shard(output: Output, before: int, after: int, shard: ShardId) -> Counter[Change]:
    old = read_records(output, before, shard, columns=READ)
    new = read_records(output, after, shard, columns=READ)
    return Counter(change for one, other in zip(old, new, strict=True) for change in changes(one, other))


def changes(before: Record, after: Record) -> Iterator[Change]:
    """Of one image. `after` is `before` with more; what took the place of something counts as changed, once."""
    was, now = before.standing.by_id, after.standing.by_id
    fell = {d.annotation_id: d for d in after.decisions if d.action in ("reject", "supersede")}
    added = {d.annotation_id: d for d in after.decisions if d.action == "add"}
    heirs: set[str] = set()
    for id_, annotation in was.items():
        if id_ in now:
            continue
        decision = fell[id_]
        heir = _heir(decision, fell)
        if heir in now and heir not in was and type(now[heir]) is type(annotation):
            if heir not in heirs:
                heirs.add(heir)
                relabelled = isinstance(annotation, Region) and annotation.label != getattr(now[heir], "label", None)
                yield _change("changed", now[heir], f"{decision.reason}: relabelled" if relabelled else decision.reason)
        else:
            yield _change("dropped", annotation, f"{decision.by}: {decision.reason}")
    for id_, annotation in now.items():
        if id_ not in was and id_ not in heirs:
            yield _change("added", annotation, added[id_].reason if id_ in added else "new")


def _heir(decision: Decision, fell: dict[str, Decision]) -> str:
    """The one in its place, if with another label, or in that one's; "" if there is none."""
    seen: set[str] = set()
    while decision.against and decision.against not in seen:
        if decision.against not in fell:
            return decision.against
        seen.add(decision.against)
        decision = fell[decision.against]
    return ""


def _change(change: str, annotation: AnyAnnotation, reason: str) -> Change:
    kind, label = KINDS[type(annotation)], ""
    match annotation:
        case Region():
            kind, label = "line" if annotation.kind == "text" else annotation.kind, annotation.label or ""
        case Text():
            label = annotation.detail
    return Change(change, kind, annotation.source, label, reason)


def nested(found: Counter[Change]) -> dict[str, Any]:
    """As JSON: change, kind, source, class and reason inside each other."""
    result: dict[str, Any] = {}
    for change, count in sorted(found.items()):
        inner = result
        for name in change[:-1]:
            inner = inner.setdefault(name, {})
        inner[change.reason] = count
    return result


def print_diff(found: Counter[Change], console: Console) -> None:
    """A row for each kind, source and reason, the most frequent classes behind it."""
    if not found:
        console.print("No difference: the same annotations stand.")
        return
    rows: dict[tuple[str, str, str, str], Counter[str]] = {}
    for (change, kind, source, label, reason), count in found.items():
        rows.setdefault((change, kind, source, reason), Counter())[label] += count
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "kind", "source", "reason"):
        table.add_column(name)
    table.add_column("count", justify="right")
    table.add_column("of which", overflow="fold")
    for (change, kind, source, reason), labels in sorted(rows.items(), key=lambda row: (row[0][0], -row[1].total())):
        top = ", ".join(f"{label} {count}" for label, count in labels.most_common(TOP_CLASSES) if label)
        cells = (
            change,
            kind,
            source,
            reason,
            str(labels.total()),
            top + (", ..." if len(labels) > TOP_CLASSES else ""),
        )
        table.add_row(*(Styled(printable(cell)) for cell in cells))
    console.print(table)
    totals = Counter({change: sum(n for c, n in found.items() if c.change == change) for change in CHANGES})
    console.print(", ".join(f"{totals[change]} {change}" for change in CHANGES), highlight=False)
