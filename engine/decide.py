"""What a filter is, and deciding: what each says of a record, one after the other, and what falls along with that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from engine.records import HUMAN, Decision, Record, cascade
from engine.rounds import added


class Filter(Protocol):
    """Decides which annotations stand. A frozen dataclass of thresholds; `name` is what its decisions carry."""

    name: str

    def decide(self, record: Record) -> Iterable[Decision]:
        """Decisions about `record.standing`: what an earlier filter turned down is settled."""


class FilterFault(Exception):
    """What a filter raised, and whose fault it is."""

    def __init__(self, filter_name: str, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.filter_name = filter_name


def decide(record: Record, filters: Sequence[Filter], before: Record | None = None) -> Record:
    """`record` with every filter's decisions, each filter seeing what stands after those before it.

    Human annotations always stand: where a filter would turn one down, its decision is kept as one to keep it, with
    the reason and the value. Raises FilterFault.

    `before` is what the record had when a later round began. That is settled: filters see what was added since, and
    nothing else.
    """
    part = new = record if before is None else added(record, before)
    for filter_ in filters:
        try:
            part = part.decide(_sparing(part, filter_.decide(part)))
        except Exception as error:
            raise FilterFault(filter_.name, error) from error
    part = part.decide(cascade(part))
    return record.decide(part.decisions[len(new.decisions) :])


def _sparing(record: Record, decisions: Iterable[Decision]) -> Iterator[Decision]:
    for decision in decisions:
        annotation = record.by_id.get(decision.annotation_id)
        is_human = annotation is not None and annotation.source == HUMAN
        fells = decision.action in ("reject", "supersede")
        yield replace(decision, action="keep") if is_human and fells else decision
