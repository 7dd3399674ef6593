"""RapidOCR on real photos, and on what photos are not."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from engine.geometry import quad_box
from engine.images import decode
from engine.protocols import Image, Sample
from engine.records import Item, Record, Region
from specialists.ocr import RapidOcr, widened


@pytest.fixture(scope="module")
def ocr() -> RapidOcr:
    ocr = RapidOcr()
    ocr.setup()
    return ocr


def lines(ocr: RapidOcr, image: Image) -> list[Region]:
    height, width = image.shape[:2]
    (regions,) = ocr.annotate([Sample(image, Record(Item(b"0" * 16, "x", width=width, height=height)))])
    for region in regions:
        assert region.kind == "text"
        assert region.quad is not None
        assert region.box == quad_box(region.quad)
        assert 0 <= region.box[0] <= region.box[2] <= width
        assert 0 <= region.box[1] <= region.box[3] <= height
        assert _turns_clockwise(region.quad)
    return regions


def _turns_clockwise(quad: tuple[float, ...]) -> bool:
    """By the shoelace formula, y down."""
    corners = list(zip(quad[0::2], quad[1::2], strict=True))
    following = [*corners[1:], corners[0]]
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, following, strict=True)) > 0


def written(size: tuple[int, int], words: dict[str, tuple[int, int]], height: int = 60) -> Image:
    """A white picture (width, height) with words at places, in letters of `height` px."""
    picture = Pillow.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for word, place in words.items():
        pen.text(place, word, fill="black", font=ImageFont.load_default(size=height))
    return np.asarray(picture)


def test_it_reads_the_page(ocr: RapidOcr, photos: Path) -> None:
    page = decode((photos / "page.png").read_bytes(), max_pixels=10**7)
    regions = lines(ocr, page)
    said = [region.text for region in regions]
    assert said[:2] == ["Region-based segmentation", "Let us first determine markers of the coins and the"]
    assert all((region.scores.label or 0) > 0.9 for region in regions[:4])
    assert regions[0].box[3] < regions[1].box[1] + 8, "reading order"


def test_words_are_where_they_are_written(ocr: RapidOcr) -> None:
    places = {"Exit": (40, 30), "Bakery": (300, 200), "42nd Street": (60, 380)}
    regions = {region.text: region for region in lines(ocr, written((640, 480), places))}
    assert regions.keys() == places.keys()
    for word, (x, y) in places.items():
        assert regions[word].box[:2] == pytest.approx((x, y + 12), abs=14)


def test_tilted_text_has_a_tilted_quad(ocr: RapidOcr) -> None:
    picture = Pillow.fromarray(written((600, 400), {"Harbour View": (100, 160)}))
    tilted = np.asarray(picture.rotate(15, fillcolor="white"))
    (region,) = lines(ocr, tilted)
    assert region.text == "Harbour View"
    assert region.quad is not None
    rise = (region.quad[1] - region.quad[3]) / (region.quad[2] - region.quad[0])
    assert rise == pytest.approx(np.tan(np.radians(15)), abs=0.06)


@pytest.mark.parametrize(("width", "height"), [(20_000, 200), (200, 20_000)])
def test_every_word_of_a_banner_is_read_once(ocr: RapidOcr, width: int, height: int) -> None:
    if width > height:
        places = {f"W{n:03d}": (40 + 520 * n, 50) for n in range(38)}
    else:
        places = {f"W{n:03d}": (12, 40 + 200 * n) for n in range(99)}
    regions = lines(ocr, written((width, height), places))
    assert Counter(region.text for region in regions) == Counter(places.keys())
    for region in regions:
        x, y = places[str(region.text)]
        assert region.box[:2] == pytest.approx((x, y + 12), abs=20)


def test_a_line_along_a_banner_loses_no_word(ocr: RapidOcr) -> None:
    """It comes in pieces, which overlap: at the seams words are cut, and each is whole in the other piece."""
    sentence = (
        "every morning before sunrise three fishermen carried their heavy nets across the wooden bridge while children "
        "watched from narrow windows above the harbour and counted seagulls until somebody rang the little copper bell"
    )
    line = written((4800, 90), {sentence: (20, 10)}, height=44)
    said = " ".join(str(region.text) for region in lines(ocr, line))
    assert [word for word in sentence.split() if word not in said.replace(" ", "")] == []


def test_a_word_on_the_seam_is_read_once(ocr: RapidOcr) -> None:
    """Both rows see it, and each put its middle on the other's side of the border."""
    places = {"alpha": (1113, 7), "bravo": (1112, 54), "delta": (1117, 103), "omega": (1104, 150)}
    regions = lines(ocr, written((2300, 200), places, height=30))
    assert Counter(region.text for region in regions) == Counter(places.keys())


def test_a_tilted_line_in_a_banner_hides_no_word_beside_it(ocr: RapidOcr) -> None:
    """Their boxes overlap, but they are of one row, and nothing in a row is read twice."""
    tilted = Pillow.fromarray(written((1000, 1000), {"Grand opening today": (200, 470)}, height=50))
    banner = Pillow.new("RGB", (4000, 500), "white")
    banner.paste(tilted.rotate(25, fillcolor="white").crop((100, 250, 900, 750)), (200, 0))
    ImageDraw.Draw(banner).text((700, 350), "Florist", fill="black", font=ImageFont.load_default(size=40))
    assert {region.text for region in lines(ocr, np.asarray(banner))} == {"Grand opening today", "Florist"}


def test_narrow_pages_are_widened() -> None:
    """RapidOCR would make 60 x 1990 px 736 x 24,410: 18 megapixels."""
    page = np.zeros((1990, 60, 3), dtype=np.uint8)
    wide = widened(page)
    assert wide.shape == (1990, 332, 3)
    assert (wide[:, :60] == page).all()
    assert widened(page.transpose(1, 0, 2)).shape == (332, 1990, 3)
    assert (widened(wide) == wide).all()


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (8, 3000), (5000, 5), (640, 480), (7, 7)])
def test_nothing_to_read(ocr: RapidOcr, size: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    assert lines(ocr, np.full((*size, 3), 200, dtype=np.uint8)) == []
    assert capfd.readouterr() == ("", "")


def test_lines_below_the_least_score_are_not_reported(photos: Path) -> None:
    coins = decode((photos / "coins.png").read_bytes(), max_pixels=10**7)
    scores = []
    for least in (0.0, 0.5):
        ocr = RapidOcr(min_score=least)
        ocr.setup()
        scores.append([region.scores.label or 0 for region in lines(ocr, coins)])
    assert scores[1] == [score for score in scores[0] if score >= 0.5]
    assert len(scores[1]) < len(scores[0])


def test_answers_do_not_depend_on_the_process(ocr: RapidOcr, photos: Path) -> None:
    image = decode((photos / "motorcycle_left.png").read_bytes(), max_pixels=10**7)
    copy = pickle.loads(pickle.dumps(RapidOcr()))
    copy.setup()
    assert lines(copy, image) == lines(ocr, image) == lines(ocr, image)
    assert copy.version == ocr.version
