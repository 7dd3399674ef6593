"""Real files of every format and mode, made with Pillow or by hand, whole and broken."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from refusals import refused

from engine.colours import grey8
from engine.errors import ImageError
from engine.images import decode, probe
from engine.reading import read

# pytest puts its own warning filters in front of the one that engine.images sets.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
MAX = 1_000_000
# Red, green over blue, yellow: no two orientations of it look alike. The colours are those that JPEG keeps well.
CORNERS = np.zeros((32, 48, 3), np.uint8)
CORNERS[:16, :24], CORNERS[:16, 24:], CORNERS[16:, :24], CORNERS[16:, 24:] = (
    (220, 40, 40),
    (40, 200, 40),
    (40, 40, 220),
    (230, 230, 60),
)
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "JPEG progressive": {"quality": 95, "subsampling": 0, "progressive": True},
    "MPO": {"quality": 95, "subsampling": 0, "save_all": True, "append_images": [Pillow.new("RGB", (8, 8))]},
    "PNG": {},
    "WEBP": {"lossless": True},
    "WEBP lossy": {"quality": 95},
    "GIF": {},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF jpeg": {"compression": "jpeg", "quality": 95},
    "TIFF big": {"big_tiff": True},
    "BMP": {},
    "DIB": {},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
EXIF_FORMATS = [name for name in FORMATS if name.split()[0] in ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF")]
MODES = {
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16", "I;16B"),
    "BMP": ("1", "L", "P", "RGB"),
    "DIB": ("1", "L", "P", "RGB"),
    "AVIF": ("L", "RGB", "RGBA"),
}


def encode(image: Pillow.Image | npt.NDArray[Any], name: str, **options: Any) -> bytes:
    image = Pillow.fromarray(image) if isinstance(image, np.ndarray) else image
    file = BytesIO()
    image.save(file, name.split()[0], **{**FORMATS[name], **options})
    return file.getvalue()


def exif(orientation: int) -> Pillow.Exif:
    tags = Pillow.Exif()
    tags[0x0112] = orientation
    return tags


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def in_mode(mode: str, width: int, height: int) -> Pillow.Image:
    if mode.startswith("I;16"):
        ramp = np.resize(np.arange(0, 65536, 97), (height, width))
        return Pillow.fromarray(ramp.astype(">u2" if mode == "I;16B" else "<u2"))
    colours = Pillow.fromarray(CORNERS).resize((width, height), Pillow.Resampling.NEAREST)
    return colours.convert("RGBA").convert("PA") if mode == "PA" else colours.convert(mode)


def pixels(data: bytes) -> npt.NDArray[np.int16]:
    """Decoded, with what holds for every image checked."""
    image = decode(data, max_pixels=MAX)
    height, width, channels = image.shape
    assert image.dtype == np.uint8 and channels == 3
    assert image.flags.c_contiguous and not image.flags.writeable
    assert probe(data, max_pixels=MAX) == (width, height)
    return image.astype(np.int16)


# Formats and orientation


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(name: str) -> None:
    off = np.abs(pixels(encode(CORNERS, name)) - CORNERS)
    # The middle of each field; edges ring in lossy formats.
    assert off[4:12, 4:20].max() <= 6 and off[20:28, 28:44].max() <= 6
    if name in ("PNG", "WEBP", "GIF", "TIFF", "TIFF lzw", "TIFF big", "BMP", "DIB"):
        assert off.max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", EXIF_FORMATS)
def test_exif_orientation_is_applied_once(name: str, orientation: int) -> None:
    undone = {  # by the EXIF standard: where row 0 and column 0 of the stored image belong
        1: CORNERS,
        2: CORNERS[:, ::-1],
        3: CORNERS[::-1, ::-1],
        4: CORNERS[::-1],
        5: CORNERS.swapaxes(0, 1),
        6: np.rot90(CORNERS, -1),
        7: CORNERS[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(CORNERS),
    }[orientation]
    found = pixels(encode(CORNERS, name, exif=exif(orientation)))
    assert found.shape == undone.shape
    height, width = undone.shape[:2]
    for y, x in ((8, 8), (8, width - 8), (height - 8, 8), (height - 8, width - 8)):
        assert np.abs(found[y, x] - undone[y, x]).max() <= 6


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    assert pixels(encode(CORNERS, "PNG", exif=exif(orientation))).shape == CORNERS.shape


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_cost_the_image(name: str) -> None:
    assert pixels(encode(CORNERS, name, exif=b"Exif\0\0" + b"MM\0*\xff\xff\xff\xff nonsense")).shape == CORNERS.shape


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", ["eXIf", "raw profile", "xmp"])
def test_png_metadata_on_either_side_of_the_pixels(place: str, kind: str) -> None:
    tiff = exif(6).tobytes().removeprefix(b"Exif\0\0")
    text = b"raw profile type exif".capitalize() + b"\0\nexif\n%8d\n" % len(tiff) + tiff.hex().encode() + b"\n"
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    metadata = {"eXIf": chunk(b"eXIf", tiff), "raw profile": chunk(b"tEXt", text), "xmp": chunk(b"iTXt", xmp)}[kind]
    assert pixels(png(3, 1, 8, 0, b"\0\1\2\3", **{place: metadata}))[:, 0, 0].tolist() == [1, 2, 3]


def test_probe_does_not_decode() -> None:
    turned = chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0"))
    for metadata, size in ((b"", (300, 200)), (turned, (200, 300))):
        broken = png(300, 200, 8, 2, b"far too few rows", after=metadata)
        assert probe(broken, max_pixels=MAX) == size
        with refused("truncated"):
            decode(broken, max_pixels=MAX)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "text",
    [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * 2_000_000)),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * 900_000)) * 100,
        chunk(b"tEXt", b"Comment\0hello")[:-1] + b"!",  # its checksum is wrong
    ],
    ids=["large", "many", "broken"],
)
def test_png_texts_do_not_cost_the_pixels(place: str, text: bytes) -> None:
    turned = chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0"))
    data = png(3, 1, 8, 0, b"\0\1\2\3", **{place: turned + text})
    assert pixels(data)[..., 0].tolist() in ([[1], [2], [3]], [[1, 2, 3]])
    plain = png(3, 1, 8, 0, b"\0\1\2\3", **{place: text})
    assert pixels(plain)[0, :, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("orientation", [1, 6])
def test_xmp_orientation(orientation: int) -> None:
    xmp = f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode()
    tags = ImageFileDirectory_v2()
    tags[700] = xmp
    for data in (
        encode(CORNERS, "JPEG", xmp=xmp),
        encode(CORNERS, "WEBP", xmp=xmp),
        encode(CORNERS, "TIFF", tiffinfo=tags),
    ):
        assert pixels(data).shape[:2] == ((32, 48) if orientation == 1 else (48, 32))


@given(
    st.sampled_from([(f, m) for f in MODES for m in MODES[f]]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 8),
)
def test_probe_agrees_with_decode(case: tuple[str, str], width: int, height: int, orientation: int) -> None:
    name, mode = case
    options = {"exif": exif(orientation)} if name in EXIF_FORMATS else {}
    data = encode(in_mode(mode, width, height), name, **options)
    turned = bool(options) and orientation > 4
    assert pixels(data).shape[:2] == ((width, height) if turned else (height, width))


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_the_first_frame_of_many(name: str) -> None:
    frames = [Pillow.fromarray(np.full_like(CORNERS, shade)) for shade in (50, 120, 200)]
    found = pixels(encode(frames[0], name, save_all=True, append_images=frames[1:]))
    assert found.shape == CORNERS.shape and np.abs(found - 50).max() <= 2


def test_the_name_of_a_format_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(CORNERS, "PNG"))
    assert (pixels(read(str(path), max_bytes=MAX)) == CORNERS).all()


# Modes


def over_white(rgb: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


@pytest.mark.parametrize(
    ("name", "options"), [("PNG", {}), ("WEBP", {"exact": True}), ("TIFF", {}), ("AVIF", {"quality": 100})]
)
def test_transparency_is_over_white(name: str, options: dict[str, Any]) -> None:
    alpha = np.repeat(np.linspace(0, 255, 48).astype(np.uint8)[None], 32, axis=0)
    rgba = np.dstack([np.full_like(CORNERS, (200, 30, 90)), alpha])
    assert np.abs(pixels(encode(rgba, name, **options)) - over_white(rgba[..., :3], alpha)).max() <= 3


def test_grey_with_alpha_is_over_white() -> None:
    shades = np.dstack([np.full((2, 256), 80), np.tile(np.arange(256), (2, 1))]).astype(np.uint8)
    expected = over_white(np.full((2, 256, 3), 80), shades[..., 1])
    for name in ("PNG", "TIFF"):
        assert np.abs(pixels(encode(Pillow.fromarray(shades, "LA"), name)) - expected).max() <= 1


def test_palettes_with_transparency() -> None:
    palette = Pillow.new("P", (4, 1))
    palette.putdata([0, 1, 2, 3])
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    plain = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]
    assert pixels(encode(palette, "PNG"))[0].tolist() == plain
    assert pixels(encode(palette, "TIFF"))[0].tolist() == plain
    for name in ("PNG", "GIF"):
        one = pixels(encode(palette, name, transparency=2))[0].tolist()
        assert one == [plain[0], plain[1], [255, 255, 255], plain[3]]
    several = pixels(encode(palette, "PNG", transparency=bytes([255, 0, 51, 255])))[0]
    assert several.tolist() == [plain[0], [255, 255, 255], [218, 220, 222], plain[3]]


def test_palettes_with_an_alpha_channel() -> None:
    image = Pillow.fromarray(np.dstack([CORNERS, np.full((32, 48), 255, np.uint8)])).convert("PA")
    image.putalpha(Pillow.fromarray(np.tile(np.array([0, 255], np.uint8), (32, 24))))
    found = pixels(encode(image, "TIFF"))
    assert (found[:, ::2] == 255).all() and np.abs(found[:, 1::2] - CORNERS[:, 1::2]).max() <= 20  # of 256 colours


@pytest.mark.parametrize(
    ("bits", "colour", "row", "transparent", "expected"),
    [
        (8, 0, b"\x05\x80", (5,), [[255] * 3, [128] * 3]),
        (8, 2, b"\1\2\3\4\5\6", (1, 2, 3), [[255] * 3, [4, 5, 6]]),
        (16, 0, struct.pack(">2H", 1000, 32896), (1000,), [[255] * 3, [128] * 3]),
        (16, 2, struct.pack(">6H", 65535, 0, 0, 0, 257, 514), (65535, 0, 0), [[255] * 3, [0, 1, 2]]),
    ],
)
def test_png_colour_keys(bits: int, colour: int, row: bytes, transparent: tuple[int, ...], expected: list[Any]) -> None:
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    assert pixels(png(2, 1, bits, colour, b"\0" + row, key))[0].tolist() == expected


def test_bilevel_and_inverted_bilevel() -> None:
    image = Pillow.fromarray(np.eye(16, dtype=bool))
    for name, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"})):
        assert (pixels(encode(image, name, **options))[..., 0] == 255 * np.eye(16)).all()


@pytest.mark.parametrize(("name", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("TIFF", "<i4")])
def test_16_bit_grey_neither_clips_nor_wraps(name: str, dtype: str) -> None:
    ramp = np.arange(65536).reshape(256, 256).astype(dtype)
    found = pixels(encode(ramp, name))
    assert (found[..., 0].ravel() == np.rint(np.arange(65536) / 257)).all()
    assert (found == found[..., :1]).all()


def test_32_bit_integers_beyond_16_bits_are_stretched() -> None:
    found = pixels(encode(np.array([[-70_000, 0, 70_000]], np.int32), "TIFF"))
    assert found[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.25, 0.5], [0, 64, 128]),
        ([0.0, 128.0, 200.0], [0, 128, 200]),
        ([0.0, 32896.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 1e6, 2e6], [0, 128, 255]),
        ([1e6, 1e6 + 1, 1e6 + 2], [0, 128, 255]),
        ([-3.4e38, 0.0, 3.4e38], [0, 128, 255]),
        ([float("nan"), 0.5, float("inf")], [0, 128, 255]),
        ([float("nan"), float("nan"), float("-inf")], [0, 0, 0]),
        ([7e4, 7e4, 7e4], [0, 0, 0]),
    ],
)
def test_float_grey(values: list[float], expected: list[int]) -> None:
    assert pixels(encode(np.array([values], np.float32), "TIFF"))[0, :, 0].tolist() == expected


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_grey_keeps_the_order_of_values(values: list[float]) -> None:
    grey = grey8(np.array(sorted(values), np.float32)[None])[0].astype(int)
    assert (np.diff(grey) >= 0).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_tiff_colour_spaces(mode: str) -> None:
    off = np.abs(pixels(encode(Pillow.fromarray(CORNERS).convert(mode), "TIFF")) - CORNERS)
    assert off.max() <= {"CMYK": 1, "YCbCr": 2, "LAB": 8}[mode]


@pytest.mark.parametrize("transform", [0, 2])
def test_adobe_cmyk_and_ycck_jpeg(transform: int) -> None:
    """Adobe's are stored inverted. YCCK is the same, its first three inks rotated like RGB to YCbCr."""
    inks = Pillow.fromarray(CORNERS).convert("CMYK")
    data = encode(inks, "JPEG")
    if transform == 2:
        cyan, magenta, yellow, black = inks.split()
        rotated = Pillow.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
        # Saving CMYK inverts, which YCC must not be.
        stored = [plane.point(lambda value: 255 - value) for plane in rotated.split()]
        data = encode(Pillow.merge("CMYK", [*stored, black]), "JPEG")
        data = data.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    at = data.index(b"Adobe")
    assert data[at + 11] == transform
    off = np.abs(pixels(data) - CORNERS)
    assert off[4:12, 4:20].max() <= 8 and off[20:28, 28:44].max() <= 8


# Colour profiles

D50 = (0.9642, 1.0, 0.8249)


def profile(primaries: list[list[float]], gamma: float = 2.2) -> bytes:
    """A minimal ICC v2 display profile; `primaries` are the XYZ (D50) of red, green and blue."""

    def xyz(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(8 + 3 + 67)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(D50)}
    tags |= {name: xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">II", offset + len(body), len(value))
        body += value
    size = offset + len(body)
    header = struct.pack(">I", size) + bytes(4) + b"\x02\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    header += b"".join(struct.pack(">i", round(v * 65536)) for v in D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


# Display P3's, adapted to D50 (as in Apple's profile), in columns R, G, B.
P3 = profile([[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]])


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_display_p3_becomes_srgb(name: str) -> None:
    options = {"quality": 100} if name == "AVIF" else {}
    found = pixels(encode(np.full((16, 16, 3), (200, 100, 100), np.uint8), name, icc_profile=P3, **options))[8, 8]
    # Of Display P3 (200, 100, 100) the red is out of what sRGB 200 reaches: brighter, the others darker.
    assert np.abs(found - (214, 93, 96)).max() <= 4
    assert np.abs(pixels(encode(np.full((16, 16, 3), 120, np.uint8), name, icc_profile=P3, **options)) - 120).max() <= 2


def test_srgb_and_useless_profiles_change_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for icc in (srgb, lab, b"not a profile", P3[:200], P3[:128] + bytes(400)):
        assert (pixels(encode(CORNERS, "PNG", icc_profile=icc)) == CORNERS).all()
        assert (
            np.abs(pixels(encode(Pillow.fromarray(CORNERS).convert("CMYK"), "TIFF", icc_profile=icc)) - CORNERS).max()
            <= 1
        )


def test_transparency_and_a_profile_together() -> None:
    rgba = np.full((4, 4, 4), (200, 100, 100, 0), np.uint8)
    rgba[:, 2:, 3] = 255
    found = pixels(encode(rgba, "PNG", icc_profile=P3))
    assert (found[:, :2] == 255).all() and np.abs(found[:, 2:] - (214, 93, 96)).max() <= 4


# What can't be used


def test_empty() -> None:
    for function in (probe, decode):
        with refused("empty", "0 bytes"):
            function(b"", max_pixels=MAX)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"\xef\xbb\xbf\n <HTML>", "HTML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
        (b"just some notes", "text"),
        (b"BMW and other cars", "text"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (bytes(5000), "zeros"),
        (b"\xd7\xcd\xc6\x9a" + bytes(60), "begins with"),
        (b"\xff", "begins with"),
    ],
)
def test_what_is_no_image_says_what_it_is(data: bytes, word: str) -> None:
    for function in (probe, decode):
        with refused("not_an_image", word, repr(data[:8])[2:-1], "JPEG, PNG"):
            function(data, max_pixels=MAX)


def test_decompression_bombs_are_turned_down_by_their_header() -> None:
    bomb = png(100_000, 100_000, 8, 2, bytes(100))
    for function in (probe, decode):
        with refused("too_large", "100000 x 100000", "ingest.max_pixels = 200,000,000"):
            function(bomb, max_pixels=200_000_000)


@pytest.mark.parametrize("name", FORMATS)
def test_the_limit_is_exact(name: str) -> None:
    data = encode(CORNERS, name)
    assert decode(data, max_pixels=48 * 32).shape == (32, 48, 3)
    for limit in (48 * 32 - 1, 48 * 32 // 2, 700, 1):
        for function in (probe, decode):
            with refused("too_large", "ingest.max_pixels"):
                function(data, max_pixels=limit)


def test_gif_and_webp_canvases_are_not_allocated() -> None:
    # The first frame is to be disposed of, for which Pillow fills 65535 x 65535 as it opens the file.
    size = struct.pack("<HH", 65535, 65535)
    gif = b"GIF89a" + size + b"\0\0\0" + b"!\xf9\4\x08\0\0\0\0" + b"," + bytes(4) + size + b"\0\2\2L\1\0;"
    vp8x = b"VP8X" + struct.pack("<II", 10, 2) + b"\xff\xff\xfe\xff\xff\0"
    webp = b"RIFF" + struct.pack("<I", 4 + len(vp8x)) + b"WEBP" + vp8x
    with refused("too_large"):
        probe(gif, max_pixels=MAX)
    with pytest.raises(ImageError):
        probe(webp, max_pixels=MAX)


def test_a_limit_above_pillows_own() -> None:
    wide = png(20_000, 20_000, 1, 0, b"")
    assert probe(wide, max_pixels=500_000_000) == (20_000, 20_000)


WHOLE = {
    name: encode(np.random.default_rng(0).integers(0, 256, (24, 31, 3)).astype(np.uint8), name) for name in FORMATS
}


def survives(data: bytes) -> str:
    """What becomes of `data`: "decoded", or the kind of its ImageError. Nothing else may come out."""
    outcomes = []
    for function in (probe, decode):
        try:
            function(data, max_pixels=MAX)
            outcomes.append("decoded")
        except ImageError as error:
            assert error.message
            error.message.encode()
            outcomes.append(error.kind)
    return outcomes[1]


@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1, exclude_max=True))
def test_any_prefix_decodes_or_is_an_image_error(name: str, share: float) -> None:
    outcome = survives(WHOLE[name][: int(len(WHOLE[name]) * share)])
    assert outcome in ("decoded", "empty", "not_an_image", "truncated", "undecodable")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_file_that_breaks_off_is_truncated(name: str, share: float) -> None:
    whole = WHOLE[name]
    if name == "MPO":
        whole = whole[: whole.index(b"\xff\xd9")]  # where its first image ends
    data = whole[: int(len(whole) * share)]
    with refused("truncated", "ends too early"):
        decode(data, max_pixels=MAX)


@given(st.sampled_from(sorted(WHOLE)), st.binary(max_size=300))
def test_noise_behind_a_valid_beginning(name: str, noise: bytes) -> None:
    survives(WHOLE[name][:16] + noise)


@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_flipped_bytes(name: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(WHOLE[name])
    for place, value in flips:
        data[int(place * len(data))] = value
    survives(bytes(data))


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    survives(data)


def test_nothing_reaches_stderr(tmp_path: Path) -> None:
    apng = png(2, 1, 8, 0, b"\0\1\2", chunk(b"acTL", struct.pack(">II", 0, 1)))  # "Invalid APNG, ..."
    samples = (1 << 16).to_bytes(4, "little")  # "More samples per pixel than can be decoded", through logging
    tags = b"".join(
        struct.pack("<HHI", tag, 4, 1) + v for tag, v in ((256, b"\1\0\0\0"), (257, b"\1\0\0\0"), (277, samples))
    )
    (tmp_path / "apng").write_bytes(apng)
    (tmp_path / "tiff").write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + tags + bytes(4))
    (tmp_path / "large").write_bytes(png(200, 100, 8, 0, b""))  # within twice the limit, where Pillow warns
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.images import decode\nfrom engine.errors import ImageError\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        decode(path.read_bytes(), max_pixels=15000); print(path.name, 'decoded')\n"
        "    except ImageError as error: print(path.name, error.kind)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    assert run.stdout.split("\n")[:3] == ["apng decoded", "large too_large", "tiff undecodable"]


def test_many_threads_at_once() -> None:
    expected = {name: decode(data, max_pixels=MAX) for name, data in WHOLE.items()}
    with ThreadPoolExecutor(8) as pool:
        for name, image in pool.map(lambda name: (name, decode(WHOLE[name], max_pixels=MAX)), sorted(WHOLE) * 10):
            assert (image == expected[name]).all()


# Reading
