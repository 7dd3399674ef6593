"""The language that a text is in: its script first, then a model that counts what bytes follow one another.

The model is py3langid's (BSD, 139 languages, 4.6 MB inside its wheel). It is sure of sentences and not of titles, which
are short and full of names: tests/golden/languages.yaml has both, and the limits below are chosen on it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from engine.errors import ConfigError
from engine.records import Decision, Record
from filters.text import Fraction

Code = Annotated[str, Field(pattern="^[a-z]{2,3}$")]

# Scripts, by the word with which Unicode begins their letters' names, and the languages of the model that use them.
# A language in none of them is written in Latin letters; those in TWO_SCRIPTS in these, too.
SCRIPTS = {
    "ARABIC": "ar ary arz fa ku ps sdh ug ur",
    "ARMENIAN": "hy",
    "BENGALI": "as bn",
    "CJK": "ja ko wuu yue zh",
    "CYRILLIC": "ba be bg kk ky mk mn ru sr tg tt uk uz",
    "DEVANAGARI": "gom hi mr ne sa",
    "ETHIOPIC": "am",
    "GEORGIAN": "ka",
    "GREEK": "el grc",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "HANGUL": "ko",
    "HEBREW": "hbo he",
    "HIRAGANA": "ja",
    "KANNADA": "kn",
    "KATAKANA": "ja",
    "KHMER": "km",
    "LAO": "lo",
    "MALAYALAM": "ml",
    "MYANMAR": "my",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
    "TIBETAN": "dz",
}
LONGEST = 160  # characters that the model looks at: it is as sure of them as of ten thousand
TWO_SCRIPTS = {"kk", "ku", "sr", "tt", "uz"}


@dataclass(frozen=True)
class Language:
    """Rejects texts in none of the wanted languages.

    A text falls for its script, however short; for its words only if the model finds it foreign twice: as it is, and
    without the words that have a capital. Names say nothing of the language that they stand in ("Café de Flore in
    Paris"): a text of little else stands, and so does one in capitals throughout, where names can't be told.
    """

    name: str = "language"
    languages: Annotated[tuple[Code, ...], Field(min_length=1, description="wanted languages, ISO 639 codes")] = ("en",)
    min_script: Annotated[Fraction, Field(description="smallest share of letters in their scripts that stands")] = 0.5
    # Of the 3532 English captions in Multi30k's test sets none is below 0.1, of the golden file's texts none below
    # 0.0016 ("croissant and café au lait"); 93 % of the German, 94 % of the French and 98 % of the Czech captions fall.
    min_probability: Annotated[Fraction, Field(description="lowest probability of the languages that stands")] = 0.001
    min_letters: Annotated[NonNegativeInt, Field(description="letters below which the words decide nothing")] = 20
    min_plain_letters: Annotated[NonNegativeInt, Field(description="the same, in words without a capital")] = 8

    def decide(self, record: Record) -> Iterator[Decision]:
        wanted = frozenset(self.languages)
        for text in record.standing.texts:
            letters = _letters(text.text)
            share = script_share(letters, wanted)
            if share < self.min_script:
                yield record.reject(text, self.name, "foreign_script", share, self.min_script)
                continue
            if len(letters) < self.min_letters or (chance := probability(text.text, wanted)) >= self.min_probability:
                continue
            plain = " ".join(word for word in text.text.split() if not any(map(str.isupper, word)))
            if len(_letters(plain)) < self.min_plain_letters:
                continue
            chance = max(chance, probability(plain, wanted))
            if chance < self.min_probability:
                yield record.reject(text, self.name, "foreign_language", chance, self.min_probability)


def script_share(letters: str, languages: frozenset[str]) -> float:
    """The share of `letters` in a script that one of the languages is written in; 1 without letters."""
    if not letters:
        return 1.0
    scripts = _scripts(languages)
    known = sum(count for letter, count in Counter(letters).items() if _script(letter) in scripts)
    return known / len(letters)


def probability(text: str, languages: frozenset[str]) -> float:
    """The model's probability that `text`, by its beginning, is in one of the languages.

    Raises ConfigError for a language that the model doesn't know.
    """
    ranked: Mapping[str, float] = dict(_identifier().rank(text[:LONGEST]))
    if unknown := languages - ranked.keys():
        raise ConfigError(f"no language {', '.join(sorted(unknown))}; py3langid knows {' '.join(sorted(ranked))}")
    return min(sum(ranked[language] for language in languages), 1.0)


_NOT_LATIN = frozenset(" ".join(SCRIPTS.values()).split())


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text if text.isascii() else unicodedata.normalize("NFKC", text)))


@cache
def _scripts(languages: frozenset[str]) -> frozenset[str]:
    scripts = {script for script, users in SCRIPTS.items() if languages.intersection(users.split())}
    if any(language in TWO_SCRIPTS or language not in _NOT_LATIN for language in languages):
        scripts.add("LATIN")
    return frozenset(scripts)


@cache
def _script(letter: str) -> str:
    return re.split("[ -]", unicodedata.name(letter, ""))[0]


@cache
def _identifier() -> Any:
    """The model, loaded once a process (0.5 s): filters have no setup."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
