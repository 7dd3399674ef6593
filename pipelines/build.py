"""From a configuration to what runs: built specialists and filters, and the digests that say what made what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import colours, images
from engine.components import build, describe
from engine.config import Config
from engine.errors import ConfigError
from engine.protocols import Filter, Specialist
from engine.storage import Output
from engine.versions import digest_of, digest_of_json
from engine.worker import Plan

EMBEDDED = Path(__file__).with_name("embedded.yaml")


@dataclass(frozen=True)
class Pipeline:
    """A checked configuration with its components built. Nothing heavy is loaded."""

    config: Config
    specialists: tuple[Specialist, ...]
    filters: tuple[Filter, ...]

    @property
    def sources(self) -> dict[str, Any]:
        """Provenance: for each source key what made its annotations."""
        return {
            specialist.name: {
                "specialist": f"{type(specialist).__module__}:{type(specialist).__qualname__}",
                "version": specialist.version,
                "licence": specialist.licence,
                "parameters": describe(specialist),
            }
            for specialist in self.specialists
        }

    @property
    def ingest_digest(self) -> str:
        return digest_of_json(self.config.ingest.model_dump(mode="json"))

    @property
    def annotate_digest(self) -> str:
        classes = self.config.vocabulary.model_dump(mode="json")["classes"]
        decoder = digest_of(images.__name__, Path(colours.__file__), packages=("pillow", "numpy"))
        return digest_of_json([self.ingest_digest, decoder, self.sources, classes])

    @property
    def filter_digest(self) -> str:
        filters = [[f.name, digest_of(type(f).__module__), describe(f)] for f in self.filters]
        return digest_of_json([filters, list(self.config.vocabulary.ignore)])

    def plan(self, output: Output, round_number: int = 0) -> Plan:
        return Plan(
            output,
            round_number,
            self.specialists,
            self.filters,
            self.annotate_digest,
            self.filter_digest,
            self.config.ingest,
            self.config.run,
        )


def build_pipeline(config: Config) -> Pipeline:
    """Raises ConfigError for an unknown component, or a parameter that it doesn't take."""
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
    return Pipeline(config, specialists, filters)
