"""What things and whole images look like, measured: the colour of a region in a basic colour term, and an image's tone.

The terms are the eleven that Berlin and Kay (1969) found basic. A pixel's term follows from its hue as HSV has it, and
its lightness L* and chroma C* as CIELAB has them:

- HSV's hue stays the same when all channels are halved, as in the shade; CIELAB's moves by 5 degrees in the worst
  twentieth of colours, and by up to 13;
- whether there is a hue at all is a matter of C*: HSV's saturation is 1 for the near black (10, 0, 0) as for pure red;
- brown is a dark or dull orange, pink a light red, which is a matter of L*: HSV's value is 1 for white and pure blue.

Of the 448 colours of the xkcd survey (2010) whose name has one basic term, as in "dusty pink", 96 % get that term here;
the borders were fitted to them. The nearest in CIELAB of the 11 colours that people call plain "pink", "blue" and so on
gives 64 %: most of the blues become grey or white.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.geometry import clip, decode_mask, mask_area
from engine.protocols import Image
from engine.records import Box, Mask, Region

COLOURS = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
DOMINANT = 0.45  # the share of pixels above which a colour is that of the thing
FEWEST, MOST = 12, 10_000  # pixels that are looked at: fewer say nothing, more say nothing new

# Mean L*: of the sample photos the Hubble field has 7 and the rocket at dusk 24, the others 40 to 70.
DARK, BRIGHT = 25.0, 75.0
UNSATURATED = 6.0  # C* that is hardly seen; the sample photos have at most 0.1 where they are grey, 29 and more if not
WIDESPREAD = 0.25  # the share of an image that a colour must have to be named as one of the image's

Shares = dict[str, float]


@dataclass(frozen=True)
class Tone:
    """An image as a whole: "dark", "bright" or None; whether it is black and white; its colours, the largest first."""

    light: str | None
    black_and_white: bool
    colours: tuple[str, ...]


def colour_of(image: Image, region: Region, mask: Mask | None = None) -> str | None:
    """The region's dominant colour, one of COLOURS: under its mask, or else in the middle half of its box.

    None where no colour has DOMINANT of the pixels, or where there are too few of them. Raises RecordError for a broken
    mask.
    """
    return _dominant(_under(image, mask) if mask is not None else _middle(image, region.box))


def colour_around(image: Image, region: Region) -> str | None:
    """The dominant colour of a frame around the region's box, a quarter of its sides wide; see `colour_of`.

    Where it is that of the region, a box alone can't tell the thing from what it lies on.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (round(value) for value in clip(region.box, width, height))
    dx, dy = max((x1 - x0) // 4, 1), max((y1 - y0) // 4, 1)
    left, right, step = max(x0 - dx, 0), x1 + dx, _step((x1 - x0) * (y1 - y0))
    rows = image[max(y0 - dy, 0) : y0, left:right], image[y1 : y1 + dy, left:right]
    columns = image[y0:y1, left:x0], image[y0:y1, x1:right]
    return _dominant(np.concatenate([part[::step, ::step].reshape(-1, 3) for part in (*rows, *columns)]))


def tone_of(image: Image) -> Tone:
    """How the whole image [height, width, 3] looks."""
    step = _step(image.shape[0] * image.shape[1])
    pixels = image[::step, ::step].reshape(-1, 3)
    _, lightness, chroma = _perceived(pixels)
    mean = float(lightness.mean())
    shares = sorted(_shares(pixels).items(), key=lambda pair: -pair[1])
    return Tone(
        light="dark" if mean < DARK else "bright" if mean > BRIGHT else None,
        black_and_white=bool(np.percentile(chroma, 99) <= UNSATURATED),
        colours=tuple(name for name, share in shares if share >= WIDESPREAD),
    )


def _under(image: Image, mask: Mask) -> Image:
    """Pixels [n, 3] under the mask, evenly taken."""
    step = _step(mask_area(mask))
    inside = decode_mask(mask)[::step, ::step]
    return image[::step, ::step][inside]


def _middle(image: Image, box: Box) -> Image:
    """Pixels [n, 3] of the middle half of the box's part inside the image, evenly taken."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = clip(box, width, height)
    left, right = round(x0 + (x1 - x0) / 4), round(x1 - (x1 - x0) / 4)
    top, bottom = round(y0 + (y1 - y0) / 4), round(y1 - (y1 - y0) / 4)
    step = _step((right - left) * (bottom - top))
    return image[top:bottom:step, left:right:step].reshape(-1, 3)


def _step(pixels: int) -> int:
    """Every how manieth row and column to take, so that MOST pixels remain."""
    return max(math.ceil(math.sqrt(pixels / MOST)), 1)


def _dominant(pixels: Image) -> str | None:
    if len(pixels) < FEWEST:
        return None
    name, share = max(_shares(pixels).items(), key=lambda pair: pair[1])
    return name if share >= DOMINANT else None


def _shares(pixels: Image) -> Shares:
    counts = np.bincount(_named(pixels), minlength=len(COLOURS))
    return dict(zip(COLOURS, (counts / len(pixels)).tolist(), strict=True))


def _named(pixels: Image) -> npt.NDArray[np.intp]:
    """The index in COLOURS of each of `pixels` [n, 3]. The borders are those that fit the survey best, rounded."""
    hue, light, chroma = _perceived(pixels)
    neutral = (chroma < 12) | ((chroma < 16) & (light > 90)) | ((chroma < 30) & (light < 8))
    reddish = (hue < 13) | (hue >= 345)
    dull = ((chroma < 65) & (light < 58)) | (light < 45) | ((chroma < 45) & (light < 80))
    rules = (
        ("black", neutral & (light < 22)),
        ("white", neutral & (light > 84)),
        ("grey", neutral),
        ("pink", reddish & ((light >= 60) | ((light >= 50) & (chroma < 45)))),
        ("brown", reddish & (chroma < 35) & (light < 50)),
        ("red", reddish),
        ("brown", (hue < 45) & dull),
        ("pink", (hue < 30) & (chroma < 35)),
        ("orange", (hue < 45) & (chroma >= 35)),
        ("brown", (hue < 50) & (light < 66)),
        ("green", (hue >= 50) & (hue < 63) & (light < 58)),
        ("yellow", hue < 63),
        ("green", hue < 162),
        ("blue", hue < 258),
        ("pink", (hue >= 298) & (light >= 62)),
        ("purple", (hue < 332) & (light < 45)),
        ("purple", hue < 312),
        ("red", (hue >= 335) & (light < 48)),
    )
    choices = [COLOURS.index(name) for name, _ in rules]
    named: npt.NDArray[np.intp] = np.select([where for _, where in rules], choices, COLOURS.index("pink"))
    return named


def _perceived(pixels: Image) -> tuple[npt.NDArray[np.float32], ...]:
    """HSV's hue in degrees, and CIELAB's lightness (0 to 100) and chroma, of `pixels` [n, 3]."""
    import cv2

    rgb = (pixels.astype(np.float32) / 255)[None]
    hue = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[0, :, 0]
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    return hue, lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
