"""A procedural world with exact truth, for benchmarks of training and refinement.

    python -m benchmarks.world --to DIR --images 1000 --seed 0 [--preset easy|full|other] [--size 128]
    engine run --images DIR/instances.json --images DIR/captions.json

Scenes of coloured, textured shapes and words: `World.picture(seed, index)` draws one, `scene_of` and `record_of` have
the truth about it, `facts` and `score` hold a caption against it, `floor` says what a model gets that never looks.
"""

from benchmarks.world.captions import Fact, Told, description, holds, phrase, tell
from benchmarks.world.facts import Tally, facts, score
from benchmarks.world.floor import Floor, character_errors, floor, reading
from benchmarks.world.picture import EASY, FULL, OTHER, PRESETS, Picture, Shape, Word, World
from benchmarks.world.truth import record_of, scene_of
from benchmarks.world.writing import write_images, write_round

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
    "record_of",
    "scene_of",
    "score",
    "tell",
    "write_images",
    "write_round",
]
