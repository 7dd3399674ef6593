"""The truth about a picture as a scene to learn from."""

from __future__ import annotations

from benchmarks.world.captions import Told, phrase, tell
from benchmarks.world.picture import Picture
from florence2 import scene


def scene_of(picture: Picture) -> scene.Scene:
    """Every label of the world is exhaustive. Things are in depth order, the last on top."""
    width, height = picture.world.size
    return scene.Scene(
        size=(width, height),
        captions=tuple(_caption(told) for told in tell(picture)),
        things=tuple(
            scene.Thing(s.box, s.label, (phrase(s),), scene.Mask((height, width), s.mask)) for s in picture.shapes
        ),
        lines=tuple(scene.Line(word.quad, word.text) for word in picture.words),
        exhaustive=frozenset(picture.world.labels),
    )


def _caption(told: Told) -> scene.Caption:
    phrases = (
        scene.Phrase(s.start, s.stop, s.noun.shapes, s.start, s.expression_stop) for s in told.spans if s.noun.shapes
    )
    return scene.Caption(told.text, told.detail, tuple(phrases))
