"""Bytes to pixels: measures and decodes images that nobody vouches for.

Whatever is wrong with an image comes out as an ImageError, and nothing else does. `probe` and `decode` go by content,
never by name, and agree on an image's size. All of it may be called from several threads.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO

import numpy as np
from PIL import AvifImagePlugin, ExifTags
from PIL import Image as Pillow
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from engine.colours import to_rgb
from engine.errors import ImageError
from engine.protocols import Image

# The decoders that may see untrusted bytes: no PostScript (which starts Ghostscript), PDF, WMF or Photoshop. An MPO is
# a JPEG with more JPEGs behind it, and only the first image of a file is used.
DECODERS: dict[str, Callable[[BytesIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "DIB": DibImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
HEAD_BYTES = 64  # what format_of needs to see
BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # sizes of the header versions
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}

FOREIGN = {  # what is found under image names
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<svg": "an SVG drawing",
    b"<?xml": "XML",
    b"{": "JSON",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"%pdf": "a PDF",
    b"%!ps": "PostScript",
    b"8bps": "a Photoshop document",
    b"pk\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\0\0\0\x0cjp  ": "JPEG 2000; convert it to PNG",
    b"\0\0\0\x0cjxl ": "JPEG XL; convert it to PNG",
    b"\xff\x0a": "JPEG XL; convert it to PNG",
    b"\0" * 16: "a file of zeros, as a copy that broke off leaves",
}

PNG_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}  # types of chunk that may say which way is up
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

UPRIGHT = {  # EXIF orientation -> what undoes it
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}

# What Pillow has to say of a broken file is in the ImageError. A filter around each call would not do: threads would
# take down one another's.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# Opening a GIF or WebP takes memory for its canvas, up to 8 bytes a pixel, and ingest opens many at a time.
_canvas = threading.Lock()
# One native thread a worker, as everywhere; several images are decoded at a time anyway.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def format_of(head: bytes) -> str | None:
    """The image format that a file with these first HEAD_BYTES has; None if it isn't one that `decode` reads."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(PNG_SIGNATURE):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    # HEIC has the same container, so the brand must be among those that the file says it is compatible with.
    if head[4:8] == b"ftyp" and re.search(rb"avi[fs]", head[8 : int.from_bytes(head[:4])]):
        return "AVIF"
    # "BM" alone also begins texts.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if int.from_bytes(head[:4], "little") in BMP_HEADERS - {12} and head[12:14] == b"\1\0":
        return "DIB"
    return None


def probe(data: bytes, *, max_pixels: int) -> tuple[int, int]:
    """The upright (width, height) that `decode` would give, from the header; pixels are not decoded.

    Raises ImageError.
    """
    alone = _canvas if format_of(data[:HEAD_BYTES]) in ("GIF", "WebP") else nullcontext()
    with alone, _faults(data, max_pixels):
        image = _open(data, max_pixels)
        width, height = image.size
        if isinstance(image, TiffImageFile):  # whose size Pillow may have turned already
            width, height = image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]
        return (height, width) if _orientation(image, data) in (5, 6, 7, 8) else (width, height)


def decode(data: bytes, *, max_pixels: int) -> Image:
    """Pixels [height, width, 3], RGB, upright, C-contiguous and read-only. Raises ImageError.

    The first frame or page; transparency over white; colours in sRGB where an embedded profile says what they are;
    grey of more than 8 bits as `grey8` has it.
    """
    with _faults(data, max_pixels):
        image = _open(data, max_pixels)
        # Asked for before the pixels are there, as in `probe`. A TIFF comes out of load() upright.
        orientation = 1 if isinstance(image, TiffImageFile) else _orientation(image, data)
        image.load()
        rgb = to_rgb(image)
        if orientation in UPRIGHT:
            rgb = rgb.transpose(UPRIGHT[orientation])
        pixels = np.ascontiguousarray(rgb)
        pixels.setflags(write=False)
        return pixels


def is_turned(data: bytes, *, max_pixels: int) -> bool:
    """Whether the file has its pixels another way up than `decode` gives them. Raises ImageError."""
    alone = _canvas if format_of(data[:HEAD_BYTES]) in ("GIF", "WebP") else nullcontext()
    with alone, _faults(data, max_pixels):
        return _orientation(_open(data, max_pixels), data) in UPRIGHT


def _open(data: bytes, max_pixels: int) -> ImageFile:
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    format_ = format_of(data[:HEAD_BYTES])
    if format_ is None:
        raise ImageError("not_an_image", foreign(data))
    # Pillow's own guard, which knows one limit for the process, must not be lower than ours. It is not switched off:
    # GIF and WebP take memory for their canvas as they are opened, and it comes before that, at twice the limit.
    Pillow.MAX_IMAGE_PIXELS = max_pixels
    image = DECODERS[format_](BytesIO(_without_metadata(data) if format_ == "PNG" else data))
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(f"is {width} x {height} = {width * height:,} pixels", max_pixels)
    return image


def _too_large(what: str, max_pixels: int) -> ImageError:
    return ImageError(
        "too_large", f"{what}, more than ingest.max_pixels = {max_pixels:,}; raise that if the image can be trusted"
    )


def foreign(data: bytes) -> str:
    """What is there instead of an image, for an error's message."""
    head = data[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"ftyphei" in head or b"ftypmif1" in head:
        what = "HEIC; convert it to JPEG"
    else:
        what = next((what for start, what in FOREIGN.items() if head.startswith(start)), "")
    if not what and re.fullmatch(rb"[\t\r\n\x20-\x7e]+", data[:HEAD_BYTES]):
        what = "text"
    looks = f" and looks like {what}" if what else ""
    return f"begins with {data[:24]!r}{looks}; expected one of {', '.join(DECODERS)}"


@contextmanager
def _faults(data: bytes, max_pixels: int) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Pillow.DecompressionBombError:
        raise _too_large(f"has more than {2 * max_pixels:,} pixels", max_pixels) from None
    except Exception as error:  # decoders raise whatever they stumble over: SyntaxError, struct.error, MemoryError, ...
        format_ = format_of(data[:HEAD_BYTES]) or ""
        kind = "truncated" if _breaks_off(data, format_, error) else "undecodable"
        fault = f"ends too early, after {len(data):,} bytes" if kind == "truncated" else "can't be decoded"
        raise ImageError(kind, f"the {format_} {fault} ({type(error).__name__}: {error})") from error


def _breaks_off(data: bytes, format_: str, error: Exception) -> bool:
    """Whether an image that can't be decoded lacks its end, as after a copy or download that broke off."""
    # Pillow has the errors of reading behind the end as causes of its SyntaxError.
    if "truncated" in str(error).lower() or isinstance(error.__cause__, IndexError | EOFError | struct.error):
        return True
    if format_ == "WebP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if format_ == "TIFF":  # the directory may lie behind the pixels
        return len(data) <= int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big")
    if format_ == "AVIF":  # boxes, one behind the other, which begin with their size
        at = 0
        while at + 8 <= len(data) and (size := int.from_bytes(data[at : at + 4])) >= 8:
            at += size
        return at > len(data)
    return not data.rstrip(b"\0").endswith(ENDINGS.get(format_, b""))


def _orientation(image: ImageFile, data: bytes) -> int:
    try:
        source = _one_pixel(data) if isinstance(image, PngImageFile) else image
        orientation = source.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # metadata that can't be read don't make the pixels worthless
        return 1
    return orientation if isinstance(orientation, int) else 1


def _one_pixel(data: bytes) -> PngImageFile:
    """A PNG of one pixel with the metadata of this one. PNG allows them behind the pixels, and Pillow would decode
    all of those to look there."""
    pixel, end = _blank_png()
    metadata = (data[start:stop] for kind, start, stop in _png_chunks(data) if kind in PNG_METADATA)
    return PngImageFile(BytesIO(b"".join([pixel, *metadata, end])))


def _without_metadata(png: bytes) -> bytes:
    """A PNG without its texts, over which Pillow would give up the pixels if they are broken or large."""
    kept, at = [], 0
    for kind, start, stop in _png_chunks(png):
        if kind in PNG_METADATA:
            kept.append(png[at:start])
            at = stop
    return b"".join([*kept, png[at:]]) if kept else png


@cache
def _blank_png() -> tuple[bytes, bytes]:
    """A PNG of one pixel, cut before its last chunk, IEND, which has 12 bytes."""
    file = BytesIO()
    Pillow.new("L", (1, 1)).save(file, "PNG")
    return file.getvalue()[:-12], file.getvalue()[-12:]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The type and place of each chunk that is there as a whole: length, type, that many bytes, checksum."""
    start = len(PNG_SIGNATURE)
    while (stop := start + 12 + int.from_bytes(data[start : start + 4])) <= len(data):
        yield data[start + 4 : start + 8], start, stop
        start = stop
