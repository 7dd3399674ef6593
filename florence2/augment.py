"""Augmentation that leaves what is said of an image true: boxes, masks, quads, spans, and the words left and right.

A change that would make a text false takes the text along, or is not made: an image whose words can't be mirrored is
not mirrored, a caption that may speak of what a crop has cut away goes. What the texts say is read in English alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from math import ceil, exp, floor, inf, log, sqrt
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional

from florence2.codec import upright
from florence2.config import fits
from florence2.directions import DIRECTION, LETTER, OPPOSITE, QUOTED, has_opposite, opposite, whole
from florence2.errors import ConfigError, ImageError
from florence2.processor import to_rgb
from florence2.scene import Caption, Line, Mask, Placement, Scene, Thing
from florence2.tasks import Box

Pixels = TypeVar("Pixels", Image.Image, npt.NDArray[np.uint8])
Window = tuple[int, int, int, int]  # x0, y0, x1, y1: whole pixels

LUMA = np.array((0.299, 0.587, 0.114))  # ITU-R 601, as in Pillow's mode L
NEARLY_ALL = 0.9  # of the image, and of each thing: what a crop keeps where no text need go
SLIVER = 8 / 768  # of a side: what the released models would see as under 8 pixels makes no target, and so no miss


class Draws(Protocol):
    """What random.Random and numpy's Generator have in common."""

    def random(self) -> float: ...
    def uniform(self, low: float, high: float, /) -> float: ...


@dataclass(frozen=True)
class Augment:
    """What is drawn anew for an image each time that it is seen. ConfigError for what is out of range.

    Brightness, contrast and saturation are one affine map of RGB, which keeps each hue but where it clips: by default a
    pure orange (39 degrees) gets no further than 47, and so stays nearer to itself than to yellow (60). Greyscale and a
    change of hue take the texts that name colours, and are not made where a label does.
    """

    flip: float = 0.5  # probability, for images that may be mirrored
    crop: float = 0.5  # probability
    min_area: float = 0.5  # of the image, that a crop keeps; the share is drawn evenly from there to 1
    max_stretch: float = 4 / 3  # of a crop's aspect over the image's, or the other way round
    min_kept: float = 0.4  # of a thing's box inside; a thing of which a crop leaves less goes
    brightness: float = 0.1  # a factor from 1 - 0.1 to 1 + 0.1; the same for the next two
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.0  # of the colour circle, either way
    greyscale: float = 0.0  # probability
    blur: float = 0.0  # largest sigma of a Gaussian in pixels, drawn evenly from 0
    mirror_text: bool = False  # mirror also what has lines of text, or texts that quote words

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (least, most) = getattr(self, field.name), RANGES[field.name]
            kind = bool if field.name == "mirror_text" else float
            if not fits(value, kind, least, most):
                expected = "true or false" if kind is bool else f"a number from {least:g} to {most:g}"
                raise ConfigError(f"augment: expected {field.name} to be {expected}; got {value!r}")

    def __call__(self, image: Pixels, scene: Scene, rng: Draws) -> tuple[Pixels, Scene]:
        """Another image of the kind given (PIL, or uint8 [H, W, 3]) and its scene; nothing given is changed.

        All that is drawn comes from `rng`. The image may have another size afterwards; a PIL image whose colours change
        is RGB. What a crop leaves of a mask's pixels outside the scene is for whoever reads the mask to cut.
        ImageError for what is no image, or not of the scene's size.
        """
        picture = source = pictured(image)
        if picture.size != tuple(scene.size):
            raise ImageError(f"expected an image of the scene's size (width, height) {scene.size}; got {picture.size}")
        window = self._window(scene, rng) if rng.random() < self.crop else None
        if window is not None:
            x0, y0, x1, y1 = window
            picture = functional.crop(picture, y0, x0, y1 - y0, x1 - x0)
            scene = cropped(scene, window, self.min_kept)
        if rng.random() < self.flip and may_be_mirrored(scene, self.mirror_text):
            picture, scene = functional.horizontal_flip(picture), mirrored(scene)
        picture, scene = self._colours(picture, scene, rng)
        if picture is source:
            return image, scene
        return (picture if isinstance(image, Image.Image) else np.array(picture)), scene

    def _window(self, scene: Scene, rng: Draws) -> Window | None:
        """What a crop keeps, grown until it cuts no line of text; None: all."""
        share, stretch = rng.uniform(self.min_area, 1), log(self.max_stretch)
        across = max(share, min(1, sqrt(share * exp(rng.uniform(-stretch, stretch)))))
        sides = [max(1, ceil(side * part)) for side, part in zip(scene.size, (across, share / across), strict=True)]
        spare = [max(0, int(side) - kept) for side, kept in zip(scene.size, sides, strict=True)]
        x, y = (min(room, int(rng.uniform(0, room + 1))) for room in spare)
        window = grown((x, y, x + sides[0], y + sides[1]), scene)
        return None if window == (0, 0, *scene.size) else window

    def _colours(self, picture: Image.Image, scene: Scene, rng: Draws) -> tuple[Image.Image, Scene]:
        brightness, contrast, saturation, hue = (
            rng.uniform(middle - most, middle + most) if most else middle
            for middle, most in ((1, self.brightness), (1, self.contrast), (1, self.saturation), (0, self.hue))
        )
        grey = rng.random() < self.greyscale
        sigma = rng.uniform(0, self.blur)
        if (grey or hue) and any(COLOURS.search(label) for label in labels(scene)):
            grey, hue = False, 0
        if grey or (brightness, contrast, saturation) != (1, 1, 1):
            picture = coloured(picture, brightness, contrast, 0 if grey else saturation)
        if hue and not grey:
            picture = functional.adjust_hue(to_rgb(picture), hue)
        if sigma:
            picture = to_rgb(picture).filter(ImageFilter.GaussianBlur(sigma))
        return picture, without(COLOURS, scene) if grey or hue else scene


PROBABILITY = (0, 1)
RANGES: dict[str, tuple[float, float]] = {
    "flip": PROBABILITY,
    "crop": PROBABILITY,
    "min_area": (0.01, 1),
    "max_stretch": (1, 4),
    "min_kept": PROBABILITY,
    "brightness": (0, 0.4),  # of these three together; more makes white grey
    "contrast": (0, 0.4),
    "saturation": (0, 0.4),
    "hue": (0, 0.5),
    "greyscale": PROBABILITY,
    "blur": (0, 10),
    "mirror_text": (-inf, inf),
}


# Pixels


def pictured(image: Any) -> Image.Image:
    if isinstance(image, Image.Image) and image.mode not in ("I", "F"):
        return image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else repr(image)
        raise ImageError(
            f"expected an array uint8 [height, width, 3] or a PIL image, not of mode I or F; got {got:.80}"
        )
    return Image.fromarray(image)


def coloured(picture: Image.Image, brightness: float, contrast: float, saturation: float) -> Image.Image:
    """torchvision's adjust_brightness, then adjust_contrast, then adjust_saturation, in one pass.

    Each is affine in RGB, and so is their product; it differs from theirs by the rounding and clipping in between.
    """
    picture = to_rgb(picture)
    gain = brightness * contrast
    matrix = gain * (saturation * np.eye(3) + (1 - saturation) * LUMA)
    shift = (1 - contrast) * brightness * np.asarray(picture.convert("L")).mean() if contrast != 1 else 0.0
    return picture.convert("RGB", tuple(np.column_stack((matrix, np.full(3, shift))).ravel().tolist()))


# Mirrored


def may_be_mirrored(scene: Scene, text_too: bool = False) -> bool:
    """Whether all that is said of a scene has a mirror image. Text in the image has none, unless `text_too`."""
    if scene.lines and not text_too:
        return False
    texts = {*said(scene), *labels(scene)}
    if not all(has_opposite(text) and (text_too or not QUOTED.search(text)) for text in texts):
        return False
    return not any(  # a span from within such a word would have no place in the other
        word.start() < end < word.end()
        for caption in scene.captions
        for word in DIRECTION.finditer(caption.text)
        for phrase in caption.phrases
        for end in (phrase.start, phrase.stop, phrase.expression_start, phrase.expression_stop)
    )


def mirrored(scene: Scene) -> Scene:
    """The scene of the mirrored image, if `may_be_mirrored`. Done twice it gives the scene back."""
    way = Placement(scale_x=-1, shift_x=scene.size[0])
    things = tuple(
        replace(
            moved(thing, way),
            label=None if thing.label is None else opposite(thing.label),
            texts=tuple(map(opposite, thing.texts)),
        )
        for thing in scene.things
    )
    return replace(
        scene,
        captions=tuple(map(mirrored_caption, scene.captions)),
        things=things,
        lines=tuple(mirrored_line(line, way) for line in scene.lines),
        exhaustive=frozenset(map(opposite, scene.exhaustive)),
    )


def mirrored_caption(caption: Caption) -> Caption:
    words = list(DIRECTION.finditer(caption.text))

    def now(place: int) -> int:
        return place + sum(len(OPPOSITE[word[0]]) - len(word[0]) for word in words if word.end() <= place)

    phrases = tuple(
        replace(
            phrase,
            start=now(phrase.start),
            stop=now(phrase.stop),
            expression_start=now(phrase.expression_start),
            expression_stop=now(phrase.expression_stop),
        )
        for phrase in caption.phrases
    )
    return replace(caption, text=opposite(caption.text), phrases=phrases)


def mirrored_line(line: Line, way: Placement) -> Line:
    """From its top left to its top right it goes from right to left now; clockwise is the other way round."""
    x0, y0, x1, y1, x2, y2, x3, y3 = moved_line(line, way).quad
    return replace(line, quad=(x1, y1, x0, y0, x3, y3, x2, y2))


def moved_line(line: Line, way: Placement) -> Line:
    x0, y0, x1, y1, x2, y2, x3, y3 = way.points(line.quad)
    return replace(line, quad=(x0, y0, x1, y1, x2, y2, x3, y3))


def moved(thing: Thing, way: Placement) -> Thing:
    mask: Mask | None = thing.mask and replace(thing.mask, placement=thing.mask.placement.then(way))
    x0, y0, x1, y1 = way.points(thing.box)
    return replace(thing, box=upright(x0, y0, x1, y1), mask=mask)


# Cropped

# Where something is in the picture, or how much of it there is to see.
POSITION = whole(
    r"(?:left|right)(?:most|wards?)?|middle|cent(?:er|re)(?:e?d)?|central|top|bottom|upper|lower|corners?|edges?"
    r"|sides?|front|back|foreground|background|distan(?:ce|t)|far(?:ther|thest)?|near(?:er|est)?|close(?:r|st)?|first"
    r"|second|last|full|whole|entire(?:ly)?|panoram\w+"
)


def cropped(scene: Scene, window: Window, min_kept: float) -> Scene:
    """The scene of what is inside `window`, which cuts no line (see `grown`).

    Boxes are cut at its border. A thing of which less than `min_kept` of the box is inside goes, and its label is
    exhaustive no longer if more than a sliver is still to be seen. A caption stays if it has phrases, all with things
    that are still there, and names no position and quotes no words; a text of a thing if it brings in no other thing,
    either. If nearly all of the image and of each thing is in, they all stay. Lines outside go: what is left is
    complete.
    """
    x0, y0, x1, y1 = window
    image = (0, 0, *scene.size)
    shares = [share_inside(clipped(thing.box, image), window) for thing in scene.things]
    parts = [clipped(thing.box, window) for thing in scene.things]
    places = {n: place for place, n in enumerate(n for n, s in enumerate(shares) if s > 0 and s >= min_kept)}
    lines = [line for line in scene.lines if share_inside(clipped(extent(line), image), window) > 0]
    way = Placement(shift_x=-x0, shift_y=-y0)
    lost = (thing.label for n, thing in enumerate(scene.things) if n not in places and shows(parts[n], window))
    inside = Scene(
        (x1 - x0, y1 - y0),
        scene.captions,
        tuple(moved(replace(scene.things[n], box=parts[n]), way) for n in places),
        tuple(moved_line(line, way) for line in lines),
        scene.exhaustive - set(lost),
    )
    area = (x1 - x0) * (y1 - y0) / (scene.size[0] * scene.size[1])
    all_there = (len(places), len(lines)) == (len(scene.things), len(scene.lines))
    if all_there and min((area, *shares)) >= NEARLY_ALL:
        return inside
    captions = tuple(reindexed(caption, places) for caption in scene.captions if names_only(caption, places))
    left = without(QUOTED, without(POSITION, replace(inside, captions=captions)))
    things = (replace(t, texts=tuple(text for text in t.texts if not RELATION.search(text))) for t in left.things)
    return replace(left, things=tuple(things))


# Words that bring another thing in, which may have been cut away, had it a box or not. Captions tell by their phrases.
RELATION = whole(
    r"and|with|without|next|beside|by|behind|before|under|over|above|below|on|onto|in|inside|into|of|off|between|among"
    r"|at|against|around|from|to|towards?|through|across|along|past"
    rf"|{LETTER}+ing (?:an?|the|his|her|its|their|some|two|three)"
)


def names_only(caption: Caption, places: Mapping[int, int]) -> bool:
    """Whether a caption names the things of `places` and, as far as is known, no others."""
    named = caption.phrases and all(phrase.things for phrase in caption.phrases)
    return bool(named) and all(thing in places for phrase in caption.phrases for thing in phrase.things)


def reindexed(caption: Caption, places: Mapping[int, int]) -> Caption:
    phrases = (replace(phrase, things=tuple(places[thing] for thing in phrase.things)) for phrase in caption.phrases)
    return replace(caption, phrases=tuple(phrases))


def clipped(box: Box, to: Box) -> Box:
    """The part of a box that is inside another; of one that is outside, nothing, at the border."""
    (x0, y0, x1, y1), (left, top, right, bottom) = box, to
    within_x, within_y = [min(max(x, left), right) for x in (x0, x1)], [min(max(y, top), bottom) for y in (y0, y1)]
    return within_x[0], within_y[0], within_x[1], within_y[1]


def share_inside(box: Box, window: Box) -> float:
    """Of a box's area; of one without area, of its length, or whether it is there."""
    part, share = clipped(box, window), 1.0
    for low, high in ((0, 2), (1, 3)):
        side = box[high] - box[low]
        share *= (part[high] - part[low]) / side if side > 0 else float(window[low] <= box[low] <= window[high])
    return share


def shows(part: Box, window: Box) -> bool:
    """Whether what is left of a thing is more than a sliver."""
    return all(part[high] - part[low] > SLIVER * (window[high] - window[low]) for low, high in ((0, 2), (1, 3)))


def grown(window: Window, scene: Scene) -> Window:
    """With all of each line that it cuts, as far as that is in the image."""
    extents = [clipped(extent(line), (0, 0, *scene.size)) for line in scene.lines]
    while cut := [each for each in extents if 0 < share_inside(each, window) < 1]:  # what was added may cut others
        left, top, right, bottom = zip(*cut, strict=True)
        x0, y0, x1, y1 = window
        window = (
            min(x0, floor(min(left))),
            min(y0, floor(min(top))),
            max(x1, ceil(max(right))),
            max(y1, ceil(max(bottom))),
        )
    return window


def extent(line: Line) -> Box:
    xs, ys = line.quad[0::2], line.quad[1::2]
    return min(xs), min(ys), max(xs), max(ys)


# Texts


def said(scene: Scene) -> Iterator[str]:
    """Captions, and what is said of things besides their labels."""
    yield from (caption.text for caption in scene.captions)
    yield from (text for thing in scene.things for text in thing.texts)


def labels(scene: Scene) -> set[str]:
    return {thing.label for thing in scene.things if thing.label is not None} | scene.exhaustive


# Achromatic ones are none.
COLOURS = whole(
    r"red(?:dish|heads?|headed)?|orange|yellow(?:ish)?|green(?:ish)?|blu(?:e|ish)|purple|violet|indigo|pink(?:ish)?"
    r"|brown(?:ish)?|beige|tan|turquoise|teal|cyan|aqua|magenta|maroon|crimson|scarlet|burgundy|navy|khaki|olive"
    r"|lime|lavender|lilac|mauve|gold(?:en)?|bronze|copper|amber|blonde?|auburn|rainbow|(?:multi)?colou?r(?:s|ed|ful)?"
)


def without(pattern: re.Pattern[str], scene: Scene) -> Scene:
    """Without the captions, and without the texts of things, in which the pattern occurs."""
    things = (
        replace(thing, texts=tuple(text for text in thing.texts if not pattern.search(text))) for thing in scene.things
    )
    captions = (caption for caption in scene.captions if not pattern.search(caption.text))
    return replace(scene, captions=tuple(captions), things=tuple(things))
