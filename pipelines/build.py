"""From a configuration to what runs: built specialists and filters, and the digests that say what made what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from engine import colours, geometry, images
from engine.components import build, describe
from engine.config import Config
from engine.dataset import Dataset
from engine.decide import Filter
from engine.errors import ConfigError
from engine.folds import EVERYTHING, Choice, Folds
from engine.layout import Output
from engine.pools import pools_of
from engine.protocols import Specialist, reads_of
from engine.recompute import DECODE
from engine.records import ALT, HUMAN
from engine.versions import digest_of, digest_of_json
from engine.worker import Plan
from specialists.chat.specialist import ChatSpecialist

# The parameters of filters that name sources, by themselves or by their keys.
BY_SOURCE = ("thresholds", "min_phrase", "min_box", "by", "sources", "sure", "families")
EMBEDDED = Path(__file__).with_name("embedded.yaml")


def shipped(config: Path) -> Path:
    """`config`, or the pipeline of that name that comes along: "little_data". ConfigError if there is neither."""
    if config.suffix or config.exists() or len(config.parts) > 1:
        return config
    there = {path.stem: path for path in sorted(EMBEDDED.parent.glob("*.yaml"))}
    if config.name not in there:
        raise ConfigError(f"--config {config}: no such file, and the pipelines that come along are {', '.join(there)}")
    return there[config.name]


@dataclass(frozen=True)
class Pipeline:
    """A checked configuration with its components built. Nothing heavy is loaded."""

    config: Config
    specialists: tuple[Specialist, ...]
    filters: tuple[Filter, ...]
    earlier: str = ""  # digest of the rounds that a later one adds to
    choice: Choice = EVERYTHING  # of the images

    @cached_property
    def sources(self) -> dict[str, Any]:
        """Provenance: for each source key what made its annotations."""
        return {
            specialist.name: {
                "specialist": f"{type(specialist).__module__}:{type(specialist).__qualname__}",
                "version": specialist.version,
                "licence": specialist.licence,
                "parameters": describe(specialist),
                **({"folds": folds} if (folds := getattr(specialist, "folds", 1)) > 1 else {}),
            }
            for specialist in self.specialists
        }

    @property
    def ingest_digest(self) -> str:
        """Digest of which images are read and how; how the net is asked for them changes no image."""
        return digest_of_json(self.config.ingest.model_dump(mode="json", exclude={"http"}))

    @property
    def annotate_settings(self) -> str:
        """Digest of what the configuration says about annotating. Which images there are is no part of it: what is
        annotated stays when some are added."""
        classes = self.config.vocabulary.model_dump(mode="json")["classes"]
        specialists = [[s.name, type(s).__module__, type(s).__qualname__, describe(s)] for s in self.specialists]
        return digest_of_json([self._limits, specialists, classes])

    @cached_property
    def annotate_digest(self) -> str:
        """Digest of the settings, and of the code and weights that they mean."""
        return digest_of_json(
            [self.annotate_settings, _decoder(), self.sources, *filter(None, [self.earlier, self.choice.digest])]
        )

    @cached_property
    def source_digests(self) -> dict[str, str]:
        """Of the decoder, and of each source in order, the digest of all that its annotations depend on: see
        `engine.recompute`."""
        vocabulary = self.config.vocabulary.model_dump(mode="json")
        digests = {DECODE: digest_of_json([_decoder(), self._limits, self.earlier, self.choice.digest])}
        record: list[Any] = [vocabulary["classes"], self.filter_digest]  # by the first, what came along has its labels
        for specialist in self.specialists:
            parts: list[Any] = [digests[DECODE], self.sources[specialist.name]]
            if hasattr(specialist, "vocabulary"):
                parts.append(vocabulary)
            if reads_of(specialist) == "record":
                parts.append(record)
            digests[specialist.name] = digest_of_json(parts)
            record = [*record, specialist.name, digests[specialist.name]]
        return digests

    @property
    def _limits(self) -> dict[str, Any]:
        """What an image is turned down by when it is opened."""
        return self.config.ingest.model_dump(mode="json", include={"max_pixels", "max_bytes"})

    @cached_property
    def filter_digest(self) -> str:
        filters = [[f.name, _code_of(f), describe(f)] for f in self.filters]
        return digest_of_json([filters, list(self.config.vocabulary.ignore)])

    @property
    def warnings(self) -> list[str]:
        """What may be meant and is more likely misspelt: a source that the configuration hasn't."""
        known = [*self.config.specialists, *self.config.reannotate.specialists, HUMAN, ALT, self.config.ingest.source]
        there = ", ".join(known)
        spoken = [
            (f"filters.{filter_.name}.{name}", source)
            for filter_ in self.filters
            for name in BY_SOURCE
            for source in _named(getattr(filter_, name, ()))
        ]
        spoken += [("merge.families", source) for source in self.config.merge.families]
        return [
            f"{where} speaks of {source!r}, and no source is called that; there are {there}"
            for where, source in spoken
            if source not in known
        ]

    def plan(self, output: Output, round_number: int = 0, *, replay: bool = False) -> Plan:
        """With `replay` what the shards that are there say is gone by where its digest is the same."""
        return Plan(
            output,
            round_number,
            tuple(_spending_on(specialist, output) for specialist in self.specialists),
            self.filters,
            self.annotate_digest,
            self.filter_digest,
            self.config.vocabulary,
            self.config.ingest,
            self.config.run,
            None if self.choice == EVERYTHING else Folds(1, Dataset(output).leaders(), self.choice),
            sources=self.source_digests,
            replay=replay,
        )


def _decoder() -> str:
    return digest_of(images.__name__, Path(colours.__file__), packages=("pillow", "numpy"))


def _spending_on(specialist: Specialist, output: Output) -> Specialist:
    """With a budget of its own for this output, if it has one."""
    return specialist.spending_on(str(output.root)) if isinstance(specialist, ChatSpecialist) else specialist


def _named(sources: str | Iterable[str]) -> Iterable[str]:
    return [sources] if isinstance(sources, str) else sources


def _code_of(component: Filter) -> str:
    """Digest of a filter's code: its package, whose modules share theirs, and the geometry that they measure by."""
    module = import_module(type(component).__module__)
    assert module.__file__ is not None
    package = sorted(Path(module.__file__).parent.glob("*.py")) if module.__package__ else []
    return digest_of(module.__name__, *package, Path(geometry.__file__), packages=("torchvision", "py3langid"))


def build_pipeline(config: Config) -> Pipeline:
    """Raises ConfigError for an unknown component, a parameter that it doesn't take, and pools that don't fit."""
    both = sorted(config.specialists.keys() & config.filters.keys())
    if both:
        raise ConfigError(
            f"{', '.join(both)}: a specialist and a filter can't share a name; decisions name their filter"
        )
    specialists, filters = (
        tuple(
            build(group, name, parameters, config.vocabulary)
            for name, parameters in getattr(config, group).items()
            if parameters is not None
        )
        for group in ("specialists", "filters")
    )
    pools_of(config.run, [specialist.name for specialist in specialists])
    return Pipeline(config, specialists, filters)
