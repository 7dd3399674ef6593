"""The pipeline that annotates a round again: the specialists and filters of `reannotate`, with the round's models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.atomic import is_there, read_json
from engine.config import Config
from engine.errors import ConfigError, OutputError
from engine.layout import Layer, Output, Round
from engine.partitions import closed, content_of, decided_by, partitions
from engine.versions import digest_of_json
from pipelines.build import Pipeline, build_pipeline
from pipelines.manifests import in_models
from specialists.florence import Florence, Trained


def again(pipeline: Pipeline, output: Output, number: int) -> Pipeline:
    """The pipeline whose results are round `number` + 1. Raises ConfigError where the round has no models to do it."""
    config, built = pipeline.config, _built(pipeline.config)
    trained = Trained(output, number, config.train.folds)
    if any(_needs_training(specialist) for specialist in built.specialists):
        check_trained(output.round(number), config)
    specialists = tuple(s.of_round(trained) if isinstance(s, Florence) else s for s in built.specialists)
    return replace(built, specialists=specialists)


def _built(config: Config) -> Pipeline:
    chosen = {"specialists": config.reannotate.specialists, "filters": config.reannotate.filters}
    try:
        return build_pipeline(config.model_copy(update=chosen))
    except ConfigError as error:
        raise ConfigError(f"in reannotate: {error}") from error


def needs_training(pipeline: Pipeline) -> bool:
    """Whether a model of the round is asked for."""
    return any(_needs_training(specialist) for specialist in _built(pipeline.config).specialists)


def is_untrained(round_: Round) -> bool:
    """Whether the round has no model at all."""
    return not _models(round_)


def is_unfinished(round_: Round, config: Config) -> bool:
    """Whether some or all models are still to be trained, and those that are there were."""
    return set(_models(round_)) < set(_of_folds(round_, config.train.folds)) and not is_foreign(round_)


def is_foreign(round_: Round) -> bool:
    """Whether the round's models were put there, and not trained there."""
    return not is_untrained(round_) and not in_models(round_, "made_by.json")


def check_trained(round_: Round, config: Config) -> None:
    """Raises ConfigError unless the models of all folds of `config` lie in the round, and no others."""
    folds = config.train.folds
    there, wanted = sorted(_models(round_)), _of_folds(round_, folds)
    if there != wanted:
        raise ConfigError(
            f"{round_.folder} has {', '.join(there) or 'no model'}, and train.folds {folds} means {', '.join(wanted)}: "
            "finish the training with --stage train, or set train.folds to what it was trained with"
        )


def warnings(pipeline: Pipeline) -> list[str]:
    """What may be meant, and makes annotations that are too good to be true."""
    own = any(_needs_training(specialist) for specialist in pipeline.specialists)
    if not own or pipeline.config.train.folds > 1:
        return []
    return ["train.folds is 1: images are annotated by a model that was trained on them. train.folds: 2 avoids that"]


def check_earlier(output: Output, number: int) -> None:
    """Raises OutputError where a round adds to what the rounds before are no longer."""
    for later in range(1, number + 1):
        sources = output.round(later).sources
        if is_there(sources) and read_json(sources).get("earlier") != digest_of_rounds(output, later - 1):
            raise OutputError(
                f"round {later} of {output.root} adds to what round {later - 1} was, and that has changed since "
                "(--stage filter or --update?). Make it as before, or remove "
                f"{output.round(later).folder} and annotate again"
            )


def digest_of_rounds(output: Output, number: int) -> str:
    """What the annotations and decisions of all rounds up to this one were made of and with."""
    markers = closed(output, output.round(0))
    images = [
        markers[partition.number].images if partition.number in markers else content_of(output, partition)
        for partition in partitions(output)
    ]
    return digest_of_json([images, *(labels_of(output, before) for before in range(number + 1))])


def labels_of(output: Output, number: int, *, merged: bool = True) -> list[str]:
    """What made a round's annotations, and what decided on them; with the merge's, if there is one and `merged`. No
    annotation shard is looked at: one that is damaged is told by who reads it."""
    round_ = output.round(number)
    layers = [round_, *([round_.merge] if merged and is_there(round_.merge.sources) else [])]
    return [digest for layer in layers for digest in (*_of_sources(layer), *sorted(decided_by(output, layer)))]


def _of_sources(layer: Layer) -> list[str]:
    """What made a layer's annotations, and by which filters annotations stood for those who built upon them."""
    said = read_json(layer.sources)
    return [str(said["digest"]), str(said.get("filters", ""))]


def _needs_training(specialist: object) -> bool:
    return isinstance(specialist, Florence) and not specialist.model


def _of_folds(round_: Round, folds: int) -> list[str]:
    """Where the models of so many folds are."""
    return sorted(_within(round_, round_.model(fold, folds)) for fold in range(folds))


def _models(round_: Round) -> list[str]:
    """Where the round has models: "model" or "model/fold-0", ..."""
    return [_within(round_, path.parent) for path in in_models(round_, "config.json")]


def _within(round_: Round, model: Path) -> str:
    return model.as_posix().removeprefix(f"{round_.folder.as_posix()}/")
