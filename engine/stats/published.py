"""What the paper gives for its own set, FLD-5B, and for those it is compared with: tables 1 to 3 (arXiv 2311.06242)."""

from __future__ import annotations

from typing import NamedTuple

from engine.records import Detail

FLD = "FLD-5B"
# Table 1: name, images, annotations.
DATASETS = (
    ("JFT300M", 300_000_000, 300_000_000),
    ("WIT", 400_000_000, 400_000_000),
    ("SA-1B", 11_000_000, 1_000_000_000),
    ("GrIT", 91_000_000, 137_000_000),
    ("M3W", 185_000_000, 43_300_000),
    (FLD, 126_000_000, 5_000_000_000),
)


class Figures(NamedTuple):
    """A row of table 2. `regions_each` are of an image, of triplets those of a text."""

    images: int | None = None
    texts: int | None = None
    tokens: float | None = None
    regions: int | None = None
    regions_each: float | None = None
    region_tokens: float | None = None


# Table 2. Of texts the paper counts "image annotations": an image may have several brief ones.
TEXTS: dict[Detail, Figures] = {
    "brief": Figures(texts=235_000_000, tokens=7.95),
    "detailed": Figures(texts=126_000_000, tokens=31.65),
    "more_detailed": Figures(texts=126_000_000, tokens=70.53),
}
PHRASES = Figures(126_000_000, regions=681_000_000, regions_each=5.42, region_tokens=1.19)
BRIEFS = Figures(126_000_000, regions=681_000_000, regions_each=5.42, region_tokens=2.55)
TRIPLETS: dict[Detail, Figures] = {
    "brief": Figures(None, 235_000_000, 7.95, 1_007_000_000, 4.27, 1.93),
    "detailed": Figures(None, 126_000_000, 31.65, 1_289_000_000, 10.25, 1.49),
    "more_detailed": Figures(None, 126_000_000, 70.53, 1_278_000_000, 10.17, 1.35),
}

# Table 3: means of these.
MEASURES = ("objects", "attributes", "actions", "proper_nouns", "object_complexity", "action_complexity")
SEMANTICS: dict[Detail, tuple[float, ...]] = {
    "brief": (3.23, 2.80, 0.58, 1.10, 2.80, 1.14),
    "detailed": (13.31, 7.27, 4.21, 2.40, 4.00, 3.63),
    "more_detailed": (28.06, 16.25, 8.76, 2.41, 4.02, 4.38),
}

# What is counted otherwise than there, or may be.
NOTES = {
    "datasets": "An annotation is what adds up to FLD-5B's 5B: a text; a region with its phrase, and with each text "
    "about it; a phrase of a text with each region that it names.",
    "annotations": "Tokens are words, parted by white space; the paper doesn't name its tokenizer. A phrase is a "
    "region's label, or what is read in it. Images, and texts of triplets, are those that have some; regions each are "
    "of an image, of triplets those of a text. Composed is what was put together from regions, derived are triplets of "
    "such texts: they say how it is put together, not what somebody saw.",
    "semantics": "Means over texts with a parse. The paper's counting can't be reproduced: its 2.80 attributes of a "
    "brief text are only reached if determiners count. Here an object is a noun or proper noun, an action a verb that "
    "is no auxiliary or copula, an attribute an adjective or what modifies a noun; a complexity is the mean degree of "
    "objects (actions) in the dependency tree.",
    "regions": "Of boxes cut to their images: size is the square root of the share of the image, aspect width by "
    "height. Proposals are left out.",
}
