"""Whether what an output folder holds was made by the configuration that is asked for, and if not, what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine import partitions
from engine.atomic import is_there, read_json
from engine.config import Config, load_config
from engine.errors import ConfigError, OutputError
from engine.layout import Output
from engine.partitions import annotated_by, decided_by
from engine.untrusted import some
from pipelines.build import Pipeline
from pipelines.outdated import outdated

GOING_ON = ("filter", "train", "reannotate", "merge", "refine", "all")  # stages that go on from what is annotated
AFRESH = "Name another folder with --out, or start afresh with --overwrite."
ADD_OR_AFRESH = (
    "To take in the images that came along, run with --update; or name another folder with --out, or start afresh with "
    "--overwrite."
)
FINISH_FIRST = (
    "Not every image is annotated yet. Finish that with the filters it began with (--stage annotate, and nothing else "
    "set), then decide again with --stage filter."
)
DECIDE_AGAIN = (
    "Decide again on all of them with --stage filter (no specialist runs), with --update also annotate again what was "
    "made of what stood; or name another --out."
)


def check_compatible(output: Output, pipeline: Pipeline, stage: str, *, update: bool = False) -> None:
    """Raises OutputError where `stage` would mix what two configurations make. An update mixes nothing, but reads no
    image anew.

    To decide again, who annotated may have changed since, code and weights: no specialist runs for it.
    """
    round_ = output.round(0)
    if update:
        _check_same_reading(output, pipeline)
        return
    sources = read_json(round_.sources) if is_there(round_.sources) else None
    if sources and sources.get("updating"):
        raise OutputError(
            f"{output.root} holds annotations of two versions: an --update was stopped. To go on with it: engine run "
            f"--update --out {output.root}"
        )
    if stage in ("export", "report") and is_decided(output):
        return
    if is_there(output.manifest):
        there = read_json(output.manifest)["digest"]
        _refuse_unless(output, pipeline, "images", there, pipeline.ingest_digest, ("ingest.",), ADD_OR_AFRESH)
    keys = ("specialists.", "vocabulary.classes")
    if sources and is_begun(output):
        there, asked = sources["settings"], pipeline.annotate_settings
        by_others = sources["digest"] != pipeline.annotate_digest and (
            stage not in GOING_ON or not is_annotated(output)
        )
        if there != asked or by_others:
            remedy = update_or_afresh(output, pipeline)
            _refuse_unless(output, pipeline, "annotations", there, asked, keys, remedy)
            _refuse_other_code(output, pipeline, sources, remedy)
    elif is_there(output.manifest):  # it was lost; what it said of code and weights is in every shard
        for digest in annotated_by(output, round_):
            _refuse_unless(output, pipeline, "annotations", digest, pipeline.annotate_digest, keys)
    # Some specialists go by what stands: all of a round's annotations are made under the same filters.
    if is_there(output.manifest) and (stage in ("annotate", "refine", "all") or not is_annotated(output)):
        keys = ("filters.", "vocabulary.ignore")
        remedy = DECIDE_AGAIN if is_annotated(output) else FINISH_FIRST
        for digest in decided_by(output, round_) - {""}:
            _refuse_unless(output, pipeline, "decisions", digest, pipeline.filter_digest, keys, remedy)


def _check_same_reading(output: Output, pipeline: Pipeline) -> None:
    there, asked = config_there(output), pipeline.config
    keys = ("ingest.max_pixels", "ingest.max_bytes", "ingest.source")
    if there is None or not is_there(output.manifest):
        return
    if lines := list(_differences(there, asked, keys)):
        told = "\n".join(lines)
        raise OutputError(
            f"{output.root} holds images that were read in another way, and --update reads no image anew:\n{told}\n"
            + AFRESH
        )


def update_or_afresh(output: Output, pipeline: Pipeline) -> str:
    """What an update would do, and the way without it."""
    return f"{outdated(output, pipeline).told()}\n{AFRESH}"


def check_same_round(output: Output, pipeline: Pipeline, number: int) -> None:
    """Raises OutputError where a later round, `pipeline`'s, was begun with something else."""
    round_ = output.round(number)
    remedy = f"To annotate again with what there is now, remove {round_.folder}; or name another --out."
    if is_there(round_.sources) and is_begun(output, number):
        sources = read_json(round_.sources)
        keys = ("reannotate.specialists.", "vocabulary.classes")
        there, asked = sources["settings"], pipeline.annotate_settings
        _refuse_unless(output, pipeline, "annotations", there, asked, keys, remedy)
        if sources["earlier"] != pipeline.earlier:
            raise OutputError(
                f"{round_.folder} adds to what round {number - 1} was, and that has changed since. {remedy}"
            )
        _refuse_other_code(output, pipeline, sources, remedy)
    for digest in annotated_by(output, round_):
        _refuse_unless(output, pipeline, "annotations", digest, pipeline.annotate_digest, (), remedy)
    for digest in decided_by(output, round_) - {""}:
        keys = ("reannotate.filters.", "vocabulary.ignore")
        _refuse_unless(output, pipeline, "decisions", digest, pipeline.filter_digest, keys, remedy)


def check_decided_once(output: Output, number: int = 0, *, merged: bool = True) -> None:
    """Raises OutputError where one part of a round was decided on by other filters than another, or, if `merged`, is
    merged otherwise or not yet."""
    layer = output.round(number).merge
    if merged and is_there(layer.sources) and len(decided_by(output, layer)) > 1:
        raise OutputError(
            f"round {number} of {output.root} is merged in part: go on with --stage merge --round {number}"
        )
    digests = decided_by(output, output.round(number))
    if "" in digests:
        raise OutputError(f"round {number} of {output.root} is not whole yet: go on with the stage that makes it")
    if len(digests) > 1:
        raise OutputError(
            f"{output.root} holds decisions of {len(digests)} sets of filters: a --stage filter was "
            "stopped. Run it again."
        )


def check_nothing_stands_on(output: Output, number: int) -> None:
    """Raises OutputError where something was made of what a round is, and would not fit any more."""
    round_, later = output.round(number), output.round(number + 1)
    if is_there(later.sources):
        raise OutputError(
            f"{later.folder} adds to what round {number} is. An image in quarantine has its chance in each round: "
            f"retry those of the last one, or remove {later.folder} first"
        )
    if is_there(round_.merge.sources):
        raise OutputError(
            f"{round_.merge.folder} merges what round {number} is. Remove that and {round_.manifest} first; then "
            f"retry, and merge again with --stage merge --round {number}"
        )


def last_round(output: Output) -> int:
    """The last round that was begun."""
    number = 0
    while is_there(output.round(number + 1).sources):
        number += 1
    return number


def is_begun(output: Output, number: int = 0) -> bool:
    """Whether a shard of a round has its annotations: before that nothing was made by what its sources say."""
    return is_there(output.manifest) and partitions.is_begun(output, output.round(number))


def is_annotated(output: Output) -> bool:
    """Whether ingest has ended and every shard has its annotations."""
    return is_there(output.manifest) and partitions.is_annotated(output, output.round(0))


def is_decided(output: Output, number: int = 0) -> bool:
    """Whether ingest has ended and every shard has the decisions of a round: there is nothing left to annotate."""
    return is_there(output.manifest) and partitions.is_decided(output, output.round(number))


def is_decided_in_part(output: Output) -> bool:
    """Whether a shard has the decisions of round 0."""
    return is_there(output.manifest) and next(partitions.done(output, output.round(0)), None) is not None


def config_there(output: Output) -> Config | None:
    """The configuration in the folder; None if there is none that can be read."""
    try:
        return load_config(output.config) if is_there(output.config) else None
    except ConfigError:
        return None


def _refuse_unless(
    output: Output,
    pipeline: Pipeline,
    what: str,
    there: str,
    asked: str,
    keys: tuple[str, ...],
    remedy: str = AFRESH,
) -> None:
    if there == asked:
        return
    lines = list(_differences(config_there(output), pipeline.config, keys))
    if not lines:
        lines = ["  The settings are equal: the code behind them changed, or an earlier --stage filter was stopped."]
    raise OutputError(
        f"{output.root} holds {what} of another configuration: {there} is there, {asked} was asked for.\n"
        + "\n".join([*lines, remedy])
    )


def _refuse_other_code(output: Output, pipeline: Pipeline, sources: dict[str, Any], remedy: str = AFRESH) -> None:
    there, asked = sources["digest"], pipeline.annotate_digest
    if there == asked:
        return
    changed = [name for name, made_by in pipeline.sources.items() if sources["sources"][name] != made_by]
    raise OutputError(
        f"{output.root} holds annotations of another version: {there} is there, {asked} is installed. The settings "
        f"are equal; the code or the weights of {', '.join(changed) or 'the decoder of images'} changed.\n{remedy}"
    )


def _differences(there: Config | None, asked: Config, keys: tuple[str, ...]) -> Iterator[str]:
    """A line for each key under `keys` in which two configurations differ."""
    if there is None:
        return
    old, new = (_flat(config.model_dump(mode="json")) for config in (there, asked))
    for key in {**old, **new}:
        if key.startswith(keys) and old.get(key) != new.get(key):
            was, is_ = old.get(key, "not set"), new.get(key, "not set")
            yield f"  {key}: {_besides(was, is_)} there, {_besides(is_, was)} asked for"


def _besides(value: Any, other: Any) -> str:
    """A value; of a list what the other one has not."""
    if not isinstance(value, list) or not isinstance(other, list):
        return some(value) or "none" if isinstance(value, list) else str(value)
    mine = [one for one in value if one not in other]
    return some(mine) or ("nothing more" if len(value) < len(other) else "another order")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:  # a component without parameters is there, too
        return {path: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}" if path else key).items()}
