"""Bytes to pixels: reads, measures and decodes images that nobody vouches for.

Whatever is wrong with an image comes out as an ImageError, and nothing else does. `probe` and `decode` go by content,
never by name, and agree on an image's size. All of it may be called from several threads.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import struct
import threading
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import AvifImagePlugin, ExifTags, ImageCms
from PIL import Image as Pillow
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

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

# PNG allows metadata behind the pixels, so Pillow decodes them all to look for it.
PNG_METADATA = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")

UPRIGHT = {  # EXIF orientation -> what undoes it
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}

ROW = re.compile(r"(.+\.parquet)#([0-9]+)", re.DOTALL | re.IGNORECASE)
FILE = re.compile(r"file:(?://(?:localhost)?)?(/.*)", re.DOTALL | re.IGNORECASE)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

# A row is read with its row group, and threads at the seam of two row groups need both.
ROW_GROUP_BYTES = 1 << 30
_parquet_lock = threading.Lock()

# What Pillow has to say of a broken file is in the ImageError. A filter around each call would not do: threads would
# take down one another's.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# One native thread a worker, as everywhere; several images are decoded at a time anyway.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def format_of(head: bytes) -> str | None:
    """The image format that a file with these first HEAD_BYTES has; None if it isn't one that `decode` reads."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
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

    Only a PNG that carries XMP, or EXIF behind its pixels, has to be decoded for its orientation. Raises ImageError.
    """
    with _faults(data, max_pixels):
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
        rgb = _rgb(image)
        if orientation in UPRIGHT:
            rgb = rgb.transpose(UPRIGHT[orientation])
        pixels = np.ascontiguousarray(rgb)
        pixels.setflags(write=False)
        return pixels


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


def read(uri: str, *, max_bytes: int) -> bytes:
    """The bytes of one image. Raises ImageError of kind "missing", "unreadable" or "too_large".

    `uri` is an absolute path, a file:// URI, or `<path or file:// URI of a .parquet>#<row>`: the bytes in that row.
    """
    row = ROW.fullmatch(uri)
    place = row[1] if row else uri
    with _file_faults(place):
        path = path_of(place)
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # found out before opening it, as a pipe would wait for a writer
            raise ImageError("unreadable", f"{place} is {_kind(status.st_mode)}, not a file")
        if row:
            data = _read_row(path, status.st_mtime_ns, int(row[2]), place)
            _check_bytes(len(data), max_bytes)
            return data
        _check_bytes(status.st_size, max_bytes)
        with open(path, "rb") as file:
            return file.read()


def path_of(place: str) -> str:
    """The local path of a path or file:// URI; bytes that aren't UTF-8 are escaped as Python does in paths."""
    if file := FILE.fullmatch(place):
        return os.fsdecode(unquote_to_bytes(file[1]))
    if scheme := SCHEME.match(place):
        raise ImageError("unreadable", f"{place}: images are read from local files, not from {scheme[0]}; download it")
    return place


def bytes_column(schema: pa.Schema) -> str | None:
    """The column that holds images: `bytes`, or the field `bytes` in Hugging Face's struct `image`."""
    if "bytes" in schema.names:
        return "bytes"
    image = schema.field("image").type if "image" in schema.names else None
    return "image.bytes" if image is not None and pa.types.is_struct(image) and "bytes" in image.names else None


def _open(data: bytes, max_pixels: int) -> ImageFile:
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    format_ = format_of(data[:HEAD_BYTES])
    if format_ is None:
        raise ImageError("not_an_image", _foreign(data))
    # Pillow's own guard, which knows one limit for the process, must not be lower than ours. It is not switched off:
    # GIF and WebP take memory for their canvas as they are opened, and it comes before that, at twice the limit.
    Pillow.MAX_IMAGE_PIXELS = max_pixels
    image = DECODERS[format_](BytesIO(data))
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(f"is {width} x {height} = {width * height:,} pixels", max_pixels)
    return image


def _too_large(what: str, max_pixels: int) -> ImageError:
    return ImageError(
        "too_large", f"{what}, more than ingest.max_pixels = {max_pixels:,}; raise that if the image can be trusted"
    )


def _foreign(data: bytes) -> str:
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
    if isinstance(image, PngImageFile) and not any(name in data for name in PNG_METADATA):
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # metadata that can't be read don't make the pixels worthless
        return 1
    return orientation if isinstance(orientation, int) else 1


def _rgb(image: Pillow.Image) -> Pillow.Image:
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


@contextmanager
def _file_faults(place: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("missing", f"no such file: {place}") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageError("missing", f"no such file: {place} is a link in a circle") from None
        raise ImageError("unreadable", f"{place} can't be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise ImageError("unreadable", f"{place} can't be read as Parquet: {error}") from error
    except ValueError as error:  # a zero byte in a path
        raise ImageError("missing", f"no such file: {place!r} ({error})") from None


def _kind(mode: int) -> str:
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def _check_bytes(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageError("too_large", f"has {size:,} bytes, more than ingest.max_bytes = {max_bytes:,}")


def _read_row(path: str, modified: int, row: int, place: str) -> bytes:
    with _parquet_lock:  # or every thread would read the row group that all of them wait for
        _, column, starts = _parquet(path, modified)
        if column is None or row >= starts[-1]:
            lacks = "column of images" if column is None else f"row {row}"
            raise ImageError("missing", f"{place} has no {lacks}; it has {starts[-1]} rows")
        group = bisect_right(starts, row) - 1
        value = _row_group(path, modified, group)[row - starts[group]].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ImageError("missing", f"row {row} of {place} has neither bytes nor a uri")
    return data


@lru_cache(maxsize=2)
def _parquet(path: str, modified: int) -> tuple[pq.ParquetFile, str | None, list[int]]:
    """The open file, its column of images, and the rows at which its row groups begin, and the last one ends."""
    file = pq.ParquetFile(pa.OSFile(os.fsencode(path)))
    sizes = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
    return file, bytes_column(file.schema_arrow), list(accumulate(sizes, initial=0))


@lru_cache(maxsize=2)
def _row_group(path: str, modified: int, group: int) -> pa.ChunkedArray:
    file, column, _ = _parquet(path, modified)
    return file.read_row_group(group, columns=[column]).column(0)
