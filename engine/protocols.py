"""What a specialist is; a filter is in `engine.decide`. Both are plain Python: callable in a notebook without Ray.

A component is a dataclass whose fields are its parameters (annotated with Pydantic constraints, so that the YAML is
checked against them); the pipeline builds it on the driver and pickles it to the workers. A field called
`vocabulary` receives the pipeline's vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from engine.decide import Filter, decide
from engine.errors import ConfigError
from engine.records import AnyAnnotation, Decision, Record

Image: TypeAlias = npt.NDArray[np.uint8]
Reads = Literal["image", "record"]


@dataclass(frozen=True)
class Sample:
    """A decoded image, [height, width, 3] RGB, upright and read-only, and its record so far.

    `standing` is what stands of the record by the pipeline's filters as things are: for specialists that build upon
    others' annotations, such as one that writes about what was found. It is decided again when all have annotated.
    `before` is the record as a later round found it: on that the filters have no say.
    """

    image: Image
    record: Record
    filters: Sequence[Filter] = ()
    before: Record | None = None

    @cached_property
    def standing(self) -> Record:
        return decide(self.record, self.filters, self.before).standing


class Specialist(Protocol):
    """Annotates images. `name` is the source key that its annotations carry."""

    name: str

    @property
    def licence(self) -> str:
        """The licence of code and weights; a class whose weights are always the same says it as a class variable."""

    @property
    def version(self) -> str:
        """A word that changes when the answers may: the digest of code and weights (`engine.versions.digest_of`)."""

    def setup(self) -> None:
        """Loads the weights; called once, in the worker. `engine.native` says how many native threads it may use."""

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation | Decision]]:
        """The new annotations of each sample, in the batch's order. Ids come from `sample.record.ids(self.name)`.

        Decisions to keep what is in the record already, signed with its own name, are a specialist's opinions of it:
        they carry a measured value, and change nothing of what stands.
        """


def reads_of(specialist: Specialist) -> Reads:
    """What a specialist goes by, as it says in `reads`: the image alone, or also the record before it ("record", the
    default). One that reads the image alone gives the same answers whatever the record holds, and stays as it is when
    a specialist before it, or a filter, is another one."""
    said: Reads = getattr(specialist, "reads", "record")
    if said not in get_args(Reads):
        raise ConfigError(
            f"specialist {specialist.name}: `reads` must be one of {', '.join(get_args(Reads))}, not {said!r}"
        )
    return said
