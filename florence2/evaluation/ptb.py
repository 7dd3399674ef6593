"""Words of captions as COCO's evaluation has them, without its Java: like Stanford's PTBTokenizer of 2014, lower case.

Written from what that tokenizer (CoreNLP 3.4.1, as pycocoevalcap calls it) makes of texts, which tests/golden/ptb.yaml
keeps: of all patterns that match at a place, the one that takes most is the token. Punctuation is left out then, by
pycocoevalcap's list, which has "-LRB-" and no "-lrb-": brackets stay, as they do there.
"""

# ruff: noqa: RUF001 - quotes, dashes and symbols of all kinds are its business

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import category

PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
# What the tokenizer writes in the place of others.
WRITTEN = (
    dict.fromkeys("’›", "'")
    | dict.fromkeys("‘‛‹", "`")
    | dict.fromkeys('"«»“”', "''")
    | dict.fromkeys("–—―", "--")
    | {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "…": "...", "€": "$"}
    | {"¤": "$", "£": "#", "¢": "cents", "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
)
ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " "}

# Their full stop belongs to them: in any case, if capitalised, and before a number.
ABBREVIATIONS = """
    adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt cf
    cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga
    gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs mfg mich minn
    mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn pfc ph plc ppte ppty pres prof profs pte
    ptes pty ptys pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu
    thurs treas tue tues univ va vs vt wed wis wisc wm wyo
"""
CAPITALISED = "ark az del ill la mass miss ore pa tex wash"
BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"
# Before one of these a letter's full stop ends a sentence ("plan B. The").
STARTS = """
    a about according additionally after an as at but earlier he her here however if in it last many more now once one
    other our she since so some such that the their then there these they this we what when while yet you
"""
ASSIMILATED = "can|not gim|me gon|na got|ta lem|me wan|na"
SYMBOLS = (
    "¡¥-©¬®-´¶-¹¿×÷‖‗‚„-‣‰-‸※‾-⁂⁄⁰⁴-⁾₀-₎₤℀℁℃-℆℈℉№-℘℞-℣⅕-⅞←-⯿"
    "、。〒・！-／：-＠［-｀｛-･￠￡￥￦"
)  # fmt: skip


def any_of(words: str) -> str:
    return "|".join(words.split())


def characters(*categories: str) -> str:
    """Of Unicode's first plane, for a regular expression. What is beyond it, as emoji are, is part of no token."""
    return "".join(chr(code) for code in range(0x80, 0xFE00) if category(chr(code)) in categories)


LETTER = f"[^\\W\\d_\U00010000-\U0010ffff{characters('No', 'Nl')}]"
LETTER = f"(?:{LETTER}|[{characters('Mn', 'Mc')}])"
WORD = f"(?:{LETTER}|\\d)+"
NUMBER = r"(?:\d*(?:[.:,]\d+)+|\d+)"
END = f"(?!{LETTER})"
CLITIC = f"(?:'(?:s|m|d|re|ve|ll){END}|’(?:s|m|d|re|ve|ll))"
NAMED = f"(?:[dlo]['’])?{WORD}"  # O'Brien, l'eau
SLASHED = f"{WORD}(?:-{LETTER}+){{0,2}}"
ADDRESS = r"[^\s\"<>|(){}]*[^\s\"<>|(){}.,!?-]"
# The token is group 1, where there is one; what follows it counts in its favour.
PATTERNS = [
    *(f"({head}){tail}{END}" for head, _, tail in (word.partition("|") for word in ASSIMILATED.split())),
    r"('t)(?:is|was)",
    f"({NAMED}(?:[-_]{NAMED})*){CLITIC}",
    f"({LETTER}*(?!n){LETTER})n['’`]t{END}",
    f"n['’`]t{END}",
    CLITIC,
    # Words, with letters behind a full stop, or with hyphens; a slash or two; an apostrophe that is theirs.
    f"{LETTER}(?:{LETTER}|\\d)*(?:[.!?]{LETTER}(?:{LETTER}|\\d)*)*",
    f"{NAMED}(?:[-_‐‑]{NAMED})*",
    f"{SLASHED}(?:/{SLASHED}){{1,2}}",
    f"[a-hj-xz]['’]{LETTER}{{3,}}",
    f"{LETTER}+[aeiouy]['’](?-i:[aeiouA-Z]){LETTER}*",
    f"ol['’]{END}|somethin['’]|dunkin['’]|li['’]l|nat['’]l|cap['’]n|c['’]mon|(?:e|ne|o)['’]er|[ldj]['’]|y['’](?={LETTER})",
    f"['’]n['’]|['’](?:n|em|till?|cause|\\d0s){END}|['’]\\d\\d(?!\\S)",
    # Abbreviations.
    f"(?:{LETTER}\\.){{2,}}(?:-{WORD})*",
    f"{LETTER}\\.(?:-{WORD})+|{LETTER}\\.(?!\\s+(?-i:{any_of(STARTS.title())})\\b|\\s*$)",
    f"(?:ph\\.d|ed\\.d|{any_of(ABBREVIATIONS)})\\.(?:-{WORD})*",
    f"(?-i:{any_of(CAPITALISED.title())}|{any_of(CAPITALISED.upper())})\\.",
    f"((?:{any_of(BEFORE_NUMBERS)})\\.)(?:\\s*\\d|[,;:])",
    r"(?-i:[A-Z]+(?:[&+][A-Z]+)+)|c\+\+|[cf]#",
    # Numbers.
    f"[-+]?{NUMBER}",
    r"(?:\d{1,4}[- ])?\d{1,4}/\d{1,4}",
    r"\(\d{2,3}\)[ -]?\d{3,4}[ -]?\d{3,5}",
    r"(?-i:US|NZ|HK|A|C|NT|S|M)\$",
    # What one finds in the net.
    f"https?://{ADDRESS}|(?:{WORD}\\.)+(?:com|net|org|edu)/{ADDRESS}|[\\w.+-]+@[\\w-]+(?:\\.[\\w-]+)*",
    f"@{LETTER}\\w*|#{LETTER}+",
    r"</?[!?a-z][^<>]*>|<!--[^>]*-->",
    r"([<>]?[:;=][-o*']?(?-i:[()DPdpO\\{@|\[\]]))(?:\s|$)|\^_\^",
    # Punctuation, in runs or one by one.
    r"[?!]+|\.{3,}|-{2,}|\*+|_+|[#@]{2,}|#|``|''|<<|>>",
    f"[-.,;:'`\"<>&$%@/\\\\|~^+={re.escape(''.join(WRITTEN))}{SYMBOLS}]",
]
TOKENS = [re.compile(pattern, re.IGNORECASE) for pattern in PATTERNS]
ENDS = re.compile(f"{CLITIC}|n’t", re.IGNORECASE)
RUN = re.compile(r"(\.\.\.)\.*|(--)-*")


def tokenised(text: str) -> str:
    """The words of a caption, lower case and without punctuation, with a space between: what the scorers take."""
    return " ".join(" ".join(token for token in tokens(text) if token not in PUNCTUATION).split())


def tokens(text: str) -> Iterator[str]:
    """All of them. Characters that are part of none are passed over."""
    text = re.sub("|".join(ENTITIES), lambda entity: ENTITIES[entity[0]], text.replace("\xad", ""))
    at = 0
    while at < len(text):
        match = max((match for token in TOKENS if (match := token.match(text, at))), key=re.Match.end, default=None)
        if match is None:
            at += 1
            continue
        token = match[match.lastindex or 0]
        at += len(token)
        yield written(token)


def written(token: str) -> str:
    if token in WRITTEN:
        return WRITTEN[token]
    if match := RUN.fullmatch(token):
        return match[1] or match[2]
    if ENDS.fullmatch(token):
        token = token.replace("’", "'")
    return token.lower().replace("(", "-lrb-").replace(")", "-rrb-")
