"""From whatever colours an image file has to plain RGB: sRGB, 8 bits, nothing transparent."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageCms


def to_rgb(image: Pillow.Image) -> Pillow.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = grey8(values)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return Pillow.fromarray(grey).convert("RGB")
    if image.mode == "CMYK":
        transform = _to_srgb(image.info.get("icc_profile"), "CMYK")
        return transform.apply(image) if transform else image.convert("RGB")
    rgb = _over_white(image) if image.has_transparency_data else image.convert("RGB")
    transform = _to_srgb(image.info.get("icc_profile"), "RGB")
    return transform.apply(rgb) if transform else rgb


def grey8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Grey of more than 8 bits, [height, width], scaled to 0..255; nothing wraps, and no finite value is clipped.

    Integers have the range 0..65535; floats the smallest of 0..1, 0..255 and 0..65535 that holds them. Where a value
    lies outside, the range is from the least to the greatest. NaN is black, infinities are the ends of the range.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    ranges = (65535.0,) if np.issubdtype(values.dtype, np.integer) else (1.0, 255.0, 65535.0)
    if low >= 0 and high <= ranges[-1]:
        low, high = 0.0, next(top for top in ranges if high <= top)
    scaled: npt.NDArray[Any] = values.astype(np.float32 if values.dtype.itemsize == 2 else np.float64)
    scaled -= low
    scaled *= 255 / (high - low or 1.0)
    grey: npt.NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(scaled, copy=False), 0, 255)).astype(np.uint8)
    return grey


def _over_white(image: Pillow.Image) -> Pillow.Image:
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Pillow.new("RGB", image.size, "white")
    white.paste(rgba, mask=rgba)
    return white


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB; None if that is nothing to do, or the profile is broken or not for `mode`."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # the colours are a little off then; the image is not lost
        return None
    assert isinstance(transform, ImageCms.ImageCmsTransform)
    return None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Most profiles are some sRGB, whatever they are called: 6 x 6 x 6 colours tell, and save 33 ms a megapixel."""
    colours = np.indices((6, 6, 6), dtype=np.uint8).transpose(1, 2, 3, 0).reshape(6, 36, 3) * 51
    after = np.asarray(transform.apply(Pillow.fromarray(colours)), dtype=np.int16)
    return bool(np.abs(after - colours).max() <= 1)
