"""The sample photos: real ones that come inside scikit-image's wheel, so that a first run needs no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from engine.errors import ConfigError

NAMES = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "rocket.jpg",
    "text.png",
)


def sample_photos() -> tuple[str, ...]:
    """Their paths. Raises ConfigError where scikit-image is not installed."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "no --images were given, and the sample photos are not installed: name images with --images PATH, "
            "or install the samples: pip install 'florence-engine[samples]'"
        )
    folder = Path(spec.origin).parent / "data"
    return tuple(str(folder / name) for name in NAMES)
