"""Location bins: how the model writes coordinates. A coordinate is one of 1000 bins of its axis, the token <loc_k>."""

from collections.abc import Iterable, Sequence
from math import inf

from florence2.errors import Florence2Error

BINS = 1000

Size = tuple[float, float]  # width, height in pixels of the image that the coordinates are in
UNKNOWN: Size = (1, 1)  # in the place of a size that is not known yet, to see whether a question could be asked at all


def quantize(coordinates: Sequence[float], size: Size) -> list[int]:
    """Bins of x, y, x, y, ... in pixels: floor(v * 1000 / side), clamped to 0..999. NaN is the error of the caller.

    As in transformers up to its rounding in float32: of the whole pixels of all sides up to 4000, 0.016 % come out one
    bin lower there, all of them on the edge of a bin. Florence2Error for a size that no image has.
    """
    if len(size) != 2 or not all(0 < side < inf for side in size):
        raise Florence2Error(f"expected the size (width, height) of an image, in pixels above 0; got {size}")
    inside = (min(max(v, 0), size[i % 2]) for i, v in enumerate(coordinates))  # first: 1000 * 1e308 is infinite
    return [min(BINS - 1, int(v * BINS // size[i % 2])) for i, v in enumerate(inside)]


def dequantize(bins: Sequence[int], size: Size) -> tuple[float, ...]:
    """The middles of the bins, x, y, x, y, ... in pixels: (q + 0.5) * side / 1000. Half a bin off at most."""
    return tuple((q + 0.5) * size[i % 2] / BINS for i, q in enumerate(bins))


def written(bins: Iterable[int]) -> str:
    """The tokens as text: <loc_3><loc_14>."""
    return "".join(f"<loc_{q}>" for q in bins)
