"""Whether what an output folder holds was made by the configuration that is asked for, and if not, what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.config import Config, load_config
from engine.errors import ConfigError, OutputError
from engine.storage import Output, Round, read_json, shard_digest
from pipelines.build import Pipeline

GOING_ON = ("filter", "train", "reannotate", "merge", "refine", "all")  # stages that go on from what is annotated
AFRESH = "Name another folder with --out, or start afresh with --overwrite."
FINISH_FIRST = (
    "Not every image is annotated yet. Finish that with the filters it began with (--stage annotate, and nothing else "
    "set), then decide again with --stage filter."
)
DECIDE_AGAIN = "Decide again on all of them with --stage filter (no specialist runs), or name another --out."


def check_compatible(output: Output, pipeline: Pipeline, stage: str) -> None:
    """Raises OutputError where `stage` would mix what two configurations make.

    To decide again, who annotated may have changed since, code and weights: no specialist runs for it.
    """
    round_ = output.round(0)
    if stage == "report" and is_decided(output):
        return
    if output.manifest.exists():
        there = read_json(output.manifest)["digest"]
        _refuse_unless(output, pipeline, "images", there, pipeline.ingest_digest, ("ingest.",))
    keys = ("specialists.", "vocabulary.classes")
    if round_.sources.exists() and is_begun(round_):
        sources = read_json(round_.sources)
        there, asked = sources["settings"], pipeline.annotate_settings
        _refuse_unless(output, pipeline, "annotations", there, asked, keys)
        if stage not in GOING_ON or not is_annotated(output):
            _refuse_other_code(output, pipeline, sources)
    elif output.manifest.exists():  # it was lost; what it said of code and weights is in every shard
        for digest in {shard_digest(round_.annotations(shard)) for shard in output.shards()} - {None}:
            _refuse_unless(output, pipeline, "annotations", str(digest), pipeline.annotate_digest, keys)
    # Some specialists go by what stands: all of a round's annotations are made under the same filters.
    if output.manifest.exists() and (stage in ("annotate", "refine", "all") or not is_annotated(output)):
        keys = ("filters.", "vocabulary.ignore")
        remedy = DECIDE_AGAIN if is_annotated(output) else FINISH_FIRST
        for digest in {shard_digest(round_.decisions(shard)) for shard in output.shards()} - {None}:
            _refuse_unless(output, pipeline, "decisions", str(digest), pipeline.filter_digest, keys, remedy)


def check_same_round(output: Output, pipeline: Pipeline, number: int) -> None:
    """Raises OutputError where a later round, `pipeline`'s, was begun with something else."""
    round_ = output.round(number)
    remedy = f"To annotate again with what there is now, remove {round_.folder}; or name another --out."
    if round_.sources.exists() and is_begun(round_):
        sources = read_json(round_.sources)
        keys = ("reannotate.specialists.", "vocabulary.classes")
        there, asked = sources["settings"], pipeline.annotate_settings
        _refuse_unless(output, pipeline, "annotations", there, asked, keys, remedy)
        if sources["earlier"] != pipeline.earlier:
            raise OutputError(
                f"{round_.folder} adds to what round {number - 1} was, and that has changed since. {remedy}"
            )
        _refuse_other_code(output, pipeline, sources, remedy)
    for digest in {shard_digest(round_.annotations(shard)) for shard in output.shards()} - {None}:
        _refuse_unless(output, pipeline, "annotations", str(digest), pipeline.annotate_digest, (), remedy)
    for digest in {shard_digest(round_.decisions(shard)) for shard in output.shards()} - {None}:
        keys = ("reannotate.filters.", "vocabulary.ignore")
        _refuse_unless(output, pipeline, "decisions", str(digest), pipeline.filter_digest, keys, remedy)


def check_decided_once(output: Output, number: int = 0, *, merged: bool = True) -> None:
    """Raises OutputError where one part of a round was decided on by other filters than another, or, if `merged`, is
    merged otherwise or not yet."""
    layer = output.round(number).merge
    if merged and layer.sources.exists() and len(layer.digests(output.shards())) > 1:
        raise OutputError(
            f"round {number} of {output.root} is merged in part: go on with --stage merge --round {number}"
        )
    digests = {shard_digest(output.round(number).decisions(shard)) for shard in output.shards()}
    if None in digests:
        raise OutputError(f"round {number} of {output.root} is not whole yet: go on with the stage that makes it")
    if len(digests) > 1:
        raise OutputError(
            f"{output.root} holds decisions of {len(digests)} sets of filters: a --stage filter was "
            "stopped. Run it again."
        )


def is_begun(round_: Round) -> bool:
    """Whether a shard of a round has its annotations: before that nothing was made by what its sources say."""
    return any(round_.folder.glob("annotations/*/*.parquet"))


def is_annotated(output: Output) -> bool:
    """Whether ingest has ended and every shard has its annotations."""
    round_ = output.round(0)
    return output.manifest.exists() and all(round_.annotations(shard).exists() for shard in output.shards())


def is_decided(output: Output, number: int = 0) -> bool:
    """Whether ingest has ended and every shard has the decisions of a round: there is nothing left to annotate."""
    round_ = output.round(number)
    return output.manifest.exists() and all(round_.decisions(shard).exists() for shard in output.shards())


def config_there(output: Output) -> Config | None:
    """The configuration in the folder; None if there is none that can be read."""
    try:
        return load_config(output.config) if output.config.exists() else None
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
            yield f"  {key}: {old.get(key, 'not set')} there, {new.get(key, 'not set')} asked for"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:  # a component without parameters is there, too
        return {path: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}" if path else key).items()}
