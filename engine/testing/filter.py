"""What a filter keeps to."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from itertools import zip_longest

from engine.decide import Filter
from engine.records import Decision, Record
from engine.testing import annotated
from engine.testing.answers import check_storable
from engine.testing.component import check_built, renamed, unpickled
from engine.testing.refusal import refuse, require
from engine.testing.same import seeded

ACTIONS = ("reject", "supersede", "keep")


def check_filter(filter_: Filter, records: Sequence[Record] | None = None) -> None:
    """Raises AssertionError with the first rule that `filter_` breaks over the records.

    Without `records`, over the kit's own (`engine.testing.records()`), to which one's own can be added.
    """
    check_built(filter_)
    _check_frozen(filter_)
    worker, other = unpickled(filter_), renamed(filter_)
    shown = annotated.records() if records is None else records
    decided = 0
    for record in shown:
        decisions = decisions_of(filter_, record)
        decided += len(decisions)
        for decision in decisions:
            _check_decision(filter_.name, record, decision)
        check_storable(replace(Record(record.item, round=record.round), decisions=tuple(decisions)))
        for again, seed, rule, remedy in (
            (filter_, 0, "pure", "Keep nothing of one record for the next, and sort what comes from a set"),
            (filter_, 1, "global random state", "Use a generator of your own with a fixed seed, or none"),
            (worker, 0, "picklable", "Keep all that decides in the fields"),
        ):
            now = decisions_of(again, record, seed)
            pairs = zip_longest(decisions, now)
            what = next((f"once {one!r}, once {other!r}" for one, other in pairs if one != other), "")
            require(not what, rule, "the same decisions about the same record", what, remedy)
        for decision in decisions_of(other, record):
            _check_decision(other.name, record, decision)
    _check_something(decided, shown)


def decisions_of(filter_: Filter, record: Record, seed: int = 0) -> list[Decision]:
    """What the filter says of a record, which it has to leave as it is."""
    where = f"(over {record.item.uri}, {len(record.by_id)} annotations)"
    handed = copy.deepcopy(record)
    with seeded(seed):
        try:
            decisions = list(filter_.decide(handed))
        except FrozenInstanceError as error:
            remedy = "Keep in fields what decides; make the rest anew, or in a functools.cached_property"
            refuse("pure", "record and filter to be left as they are", f"{error} {where}", remedy, error)
        except Exception as error:
            remedy = "Let stand what you can't judge: a filter that raises sends the image to quarantine"
            refuse("no exception", "decisions, or none", f"{type(error).__name__}: {error} {where}", remedy, error)
    require(handed == record, "pure", "the record as it was", f"another one {where}", "Yield decisions, change nothing")
    return decisions


def _check_something(decided: int, records: Sequence[Record]) -> None:
    """It had something to say: what never decides breaks no rule."""
    require(
        decided,
        "something to check",
        "a decision about one record at least",
        f"none over {len(records)} records",
        "Give parameters with which it turns something down, or add records of which it does: "
        "check_filter(..., [*engine.testing.records(), mine])",
    )


def _check_frozen(filter_: Filter) -> None:
    require(
        type(filter_).__dataclass_params__.frozen,  # type: ignore[attr-defined]
        "frozen",
        "a frozen dataclass",
        type(filter_),
        "Decorate the class with @dataclass(frozen=True)",
    )


def _check_decision(name: str, record: Record, decision: Decision) -> None:
    require(
        isinstance(decision, Decision),
        "decisions",
        "decisions of engine.records",
        decision,
        "Yield record.reject(annotation, self.name, reason, value, threshold)",
    )
    require(
        decision.annotation_id in record.standing.by_id,
        "standing",
        "decisions about annotations that stand",
        f"one about {decision.annotation_id}",
        "Go through record.standing; what an earlier filter turned down is settled",
    )
    require(
        decision.by == name,
        "signed",
        f"decisions by {name!r}, the filter's name",
        repr(decision.by),
        "Give self.name; a pipeline may call it otherwise than the class does",
    )
    require(
        decision.action in ACTIONS,
        "actions",
        f"one of {', '.join(ACTIONS)}",
        repr(decision.action),
        "Filters turn down, and may say why they keep; adding is for specialists and merging",
    )
    require(
        isinstance(decision.reason, str)
        and len(decision.reason.split()) == 1
        and decision.reason.strip() == decision.reason,
        "reasons",
        "a reason to group by: one word, such as too_small",
        repr(decision.reason),
        "Put numbers into value and threshold",
    )
    require(
        decision.round == record.round,
        "rounds",
        f"decisions of the record's round, {record.round}",
        decision.round,
        "Make them with record.reject(...)",
    )
    require(
        decision.against is None or decision.against in record.by_id,
        "against",
        "the id of an annotation of the record, or None",
        repr(decision.against),
        "Name the annotation that was preferred",
    )
