"""Left and right in English texts: which of them are directions, and what such a text says of the mirrored image."""

from __future__ import annotations

import re

LETTER = r"[^\W\d_]"


def whole(words: str) -> re.Pattern[str]:
    """These between what is no letter: "red" is in "red_car", but not in "hundred"."""
    return re.compile(f"(?<!{LETTER})(?:{words})(?!{LETTER})", re.IGNORECASE)


DIRECTION = re.compile(
    rf"(?<!{LETTER})(?:left|right)(?=(?:most|wards?|side|hand|handed|hander)?(?!{LETTER}))", re.IGNORECASE
)
OPPOSITE = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "right": "left", "Right": "Left", "RIGHT": "LEFT"}
REACH = 24  # characters before a word that are looked at

# Left and right are directions where one of the RULES says so: what is before the word, and what is behind it. Both
# words have other meanings ("he left the room", "the right tool", "right behind"), so the rules list what may be
# there. They treat the two alike: what is clear stays clear in the mirror.
GAP = r"[\s_-]+"
SIDE = rf"(?:left|right)(?!{LETTER})"
THE = "the|its|his|their|my|your|our"  # not "her", which may be no possessive: "the man next to her left"
FAR = "far|extreme|upper|lower|near|immediate"  # not "back", as in "the guests at the back left"
ENDS = (
    rf"\W*$|[\s_-]*[^\w\s'\u2019-]|\s+-|{GAP}(?:(?:is|are|was|were)(?!{LETTER})|to\s+(?:the\s+)?{SIDE}"
    r"|of\s+(?:the|this)\s+(?:image|pic|picture|photo|photograph|frame|scene|screen|shot)(?![a-z]))"
)
AND = rf"{GAP}(?:and|or|but|while|has|have|there\s+(?:is|are))(?!{LETTER})"
WHERE = (
    "an?|the|of|in|into|on|onto|at|by|with|from|near|next|beside|behind|above|below|over|under|around|across|along"
    "|through|against|towards?|two|three|several|there|that|who|which|we|you"
)
# What ends in -ing or -ed may belong to a noun: "at the right cooking temperature". A verb goes on otherwise.
VERB = (
    rf"{GAP}(?:(?:holds|wears|carries|shows|stands|sits|lies|sleeps|looks|leans|hangs|eats|smiles|seems|appears"
    rf"|contains|features|wearing|holding|carrying)(?!{LETTER})"
    r"|(?!(?:build|paint|cloth|ceil|sett|light|meet|tim|even|morn|open|wedd|str|spr)ing)[^\W_]{2,}"
    rf"(?:[^\W_]ing|[^\W_e]ed)(?={ENDS}|{AND}|{GAP}(?:{WHERE}|his|her|its|their|to|for|up|down)(?!{LETTER})))"
)
GOES_ON = rf"{ENDS}|{AND}|{GAP}(?:{WHERE})(?!{LETTER})|{VERB}"
PARTS = (
    rf"{GAP}(?:(?:front|hind|rear|upper|lower){GAP})?(?:sides?|hand|(?:fore)?arms?|legs?|foot|feet|eyes?"
    r"|ears?|shoulder|elbow|wrist|knee|thigh|ankle|cheek|hip|heel|finger|thumb|paw|hoof|shoe|boot|sock"
    r"|glove|sleeve|wheel|tires?|tyres?|headlight|corner|edge|lane|bank)"
    rf"(?!{LETTER}|\s+(?:in|by)\s+(?:hand|arm|side)|[\s-](?:print|mark|track)s?)"
    rf"|[\s_]+wings?(?:[\s_]mirror|(?={GOES_ON}))"
)


def before(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!{LETTER})(?:{words}){GAP}$", re.IGNORECASE)


def behind(words: str) -> re.Pattern[str]:
    return re.compile(words, re.IGNORECASE)


ANYTHING = re.compile("")
SENTENCE = re.compile(r"(?:^|[.;:!?(\n])[\W_]*$")
# Behind these "left" is a verb more often: "the boy in the middle left and returned".
CORNER = "top|bottom|middle|mid|cent(?:er|re)|(?<!in )front|back|rear"
PLACE = before(
    rf"{THE}|her|a|{FAR}|on|at|from|to|towards?|(?:fac|look|turn|point|lean|head|mov|walk|tilt)(?:e?s|ed|ing)"
    r"|go(?:es|ing)|(?:left|right)\W+(?:and|or|to)"
)
RULES = (
    (before(rf"(?:on|in|to|at|from|off|towards?){GAP}(?:{THE})(?:{GAP}(?:{FAR}))?"), behind(GOES_ON)),
    (PLACE, behind(f"{ENDS}|{AND}")),
    (before(CORNER), behind(rf"{ENDS}|{GAP}(?:there\s+(?:is|are)|and\s+(?:{CORNER}))(?!{LETTER})")),
    (SENTENCE, behind(ENDS)),  # but "Left and forgotten"
    (PLACE, behind(PARTS)),
    (SENTENCE, behind(PARTS)),
    (before(rf"{CORNER}|[^\W_]+(?:['\u2019]s|s['\u2019])|with|of|in"), behind(PARTS)),
    (ANYTHING, behind(rf"(?:{PARTS})(?={ENDS}|{AND}|{VERB})")),  # but "the dog left paw prints"
    (before(rf"(?:{THE})(?:{GAP}(?:{FAR}))?"), behind(rf"{GAP}(?:half|third|part|section|one)(?={GOES_ON})")),
    (SENTENCE, behind(rf"{GAP}(?:half|third|part|section|one)(?={ENDS})")),
    (before("upper|lower"), ANYTHING),
    (re.compile(r"(?:top|bottom|front|back|rear)[_-]$", re.IGNORECASE), ANYTHING),  # but "centre-right"
    (ANYTHING, behind(rf"(?:[_-]?(?:most|wards?|side|hand)|[\s_-]?hand(?:ed|er)|{GAP}hand{GAP}side)(?!{LETTER})")),
    (ANYTHING, behind(rf"[_-]facing(?!{LETTER})|(?:\s+(?:and|or|to)\s+|-to-|\s?/\s?){SIDE}")),
    (  # "a cup left of the plate", but "what is left of the cake", "the right of the people"
        re.compile(
            rf"(?:^|(?<=\s))(?!(?:{THE}|her|a|what|that|is|are|was|were|be|nothing|anything|little|much|half|slices?"
            r"|pieces?|bits?|bites?|crumbs?|inch(?:es)?)\s)\S+\s+$|^$",
            re.IGNORECASE,
        ),
        behind(rf"\s+of\s+(?:an?|the|this|him|it|them)(?!{LETTER})"),
    ),
)
# What the rules would take for directions.
IDIOMS = whole(
    rf"{SIDE}[\s-]+(?:of[\s-](?:way|passage)|(?:and|or)\s+wrong|side[\s-](?:up|out)|hand\s+(?:(?:wo)?m[ae]n|luggage))"
    rf"|in the {SIDE}(?=\W*$)|(?:of|by|for|against) the (?:far[\s-]{SIDE}|{SIDE}(?:\swing)?(?=\W*$))|mr\.?\s+{SIDE}"
)
NUMBER = r"(?:\d{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
# What turns with the image and has no word for its mirror image: compass, clock, ships, letters' shapes.
TURNED = whole(
    r"o['\u2019]?\s?clock|(?:anti|counter|contra)?-?clockwise|\d:\d\d|half[\s-]past"
    rf"|quarter[\s-](?:(?:to|past|till|after)|of\s+{NUMBER})|minutes?\s+(?:to|past|till|after)"
    rf"|(?:\d{{1,2}}|five|ten|twenty)\s+(?:to|past|till|after)\s+{NUMBER}"
    r"|(?:\w{0,9}clocks?|(?:an?|the|his|her|wrist|pocket)\s?(?:\w{1,12}\s)?watch)(?!\w)[^.]{0,60}(?<!\w)"
    rf"(?:(?:show|tell|read|display|indicat|point)(?:e?s|ing)?|(?:at|to|past|is|says?)\s+{NUMBER}|\d+)"
    r"|(?:north|south)?(?:east|west)(?:ern|erly|wards?|bound)?"
    r"|starboard|port side|[a-z]-shaped|(?:top|bottom|upper|lower|mid|front|back)(?:left|right)\w*"
)
QUOTED = re.compile(
    r"[\"\u201c-\u201e\xab\xbb]|(?<!\w)['\u2018][^'\u2019]+['\u2019](?!\w)|\b(?:says?|saying|reads|written|inscri\w+"
    r"|label+ed|lettering|spell\w*|words?|letters?|numbers?|(?:that|which) read)\b"
    r"|(?:sign|board|banner|poster|plate|plaque|shirt|screen|sticker|tag|flag|cake|text)s?\s+read(?:ing)?\b"
    r"|\bread(?:ing)?:?\s+(?-i:[A-Z\d])",
    re.IGNORECASE,
)


def has_opposite(text: str) -> bool:
    """Whether `opposite` keeps a text true: each left and right is a direction, no verb, nothing correct, no claim."""
    if TURNED.search(text) or IDIOMS.search(text):
        return False
    return all(is_direction(text, word) for word in DIRECTION.finditer(text))


def is_direction(text: str, word: re.Match[str]) -> bool:
    start, end = word.span()
    return word[0] in OPPOSITE and any(  # "lEft" is not
        ahead.search(text, max(0, start - REACH), start) and follows.match(text, end) for ahead, follows in RULES
    )


def opposite(text: str) -> str:
    """With every left and right exchanged, as letters go in the word."""
    return DIRECTION.sub(lambda word: OPPOSITE.get(word[0], word[0]), text)
