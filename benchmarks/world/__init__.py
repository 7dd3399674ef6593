"""A procedural world with exact truth, for benchmarks of training and refinement.

    python -m benchmarks.world --to DIR --images 1000 --seed 0 [--preset easy|full|other] [--size 128]
    engine run --images DIR/instances.json --images DIR/captions.json

Scenes of coloured, textured shapes and words: `FULL.picture(seed, index)` draws one, `tell` has its captions, `facts`
and `score` hold another caption against the truth, `floor` says what a model gets that never looks. The truth as a
scene to learn from is in `scenes`, as a record in `records`; `writing` makes image sets and rounds of it. These three
are imported by themselves: they take PyTorch, or the engine, along.
"""

from benchmarks.world.captions import Fact, Told, description, holds, phrase, tell
from benchmarks.world.facts import Tally, facts, score
from benchmarks.world.floor import Floor, character_errors, floor, reading
from benchmarks.world.picture import EASY, FULL, OTHER, PRESETS, Picture, Shape, Word, World

__all__ = [
    "EASY",
    "FULL",
    "OTHER",
    "PRESETS",
    "Fact",
    "Floor",
    "Picture",
    "Shape",
    "Tally",
    "Told",
    "Word",
    "World",
    "character_errors",
    "description",
    "facts",
    "floor",
    "holds",
    "phrase",
    "reading",
    "score",
    "tell",
]
