"""Three texts about a scene: which sentences make a brief one, a detailed one, and a more detailed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from engine.records import Detail
from specialists.nouns import counted
from specialists.phrases import (
    SCATTERED,
    SPREAD,
    apart,
    extent,
    in_line,
    listed,
    phrase,
    place_of,
    placed,
    preposition,
    verb,
    where,
)
from specialists.scene import Group, Quote, Scene, relation
from specialists.sentences import (
    Sentence,
    Voice,
    full_placement,
    overall,
    placement,
    quotation,
    relations,
    sentence,
    unreached,
)

# Words: fewer are no text of the granularity, as the filter `length` has it; from the second number on nothing is
# added, and nothing that would make it more than the third. FLD-5B's texts have 8, 32 and 71 tokens on average.
WORDS: dict[Detail, tuple[int, int, int]] = {
    "brief": (3, 3, 30),
    "detailed": (8, 28, 44),
    "more_detailed": (15, 62, 90),
}
LONG = 14  # words before which a brief text leaves the places out
OF = " of the image"

# A sentence, and its rank where there is no room for all. They are told in the order in which they come.
Plan = Iterator[tuple[int, Sentence]]


def tell(scene: Scene, detail: Detail, voice: Voice) -> Sentence | None:
    """The text of a granularity with the ids of all that it speaks of; None if there isn't enough to say."""
    if not scene.groups and not scene.quotes:
        return None
    fewest, enough, most = WORDS[detail]
    plan = list((OF_THINGS if scene.groups else OF_TEXT)[detail](scene, voice))
    told: dict[int, Sentence] = {}
    words = 0
    for at, (_, each) in sorted(enumerate(plan), key=lambda pair: pair[1][0]):
        more = len(each.text.split())
        if not told or (words < enough and words + more <= most):
            told[at] = each
            words += more
    if words < fewest:
        return None
    chosen = [told[at] for at in sorted(told)]
    return Sentence(
        " ".join(each.text for each in chosen), tuple(dict.fromkeys(id_ for each in chosen for id_ in each.ids))
    )


def _brief(scene: Scene, voice: Voice) -> Plan:
    groups = scene.groups[:3]
    if len(groups) == 1:
        yield 0, _brief_of_one(groups[0], voice)
    elif len(groups) == 2:
        side = relation(*groups)
        if side is None:
            names = placed(groups)
            if len(names.split()) > LONG:
                names = listed([phrase(group) for group in groups])
            yield 0, _shown(names, "", groups, voice)
        else:
            beside = side[1] and side[0] in ("left", "right")
            between = voice.pick("next to", "beside") if beside else preposition(*side)
            yield 0, _shown(phrase(groups[0]), f" {between} {phrase(groups[1])}", groups, voice)
    else:
        names = listed([group.noun.indefinite() for group in groups])
        kind = "black-and-white" if scene.tone.black_and_white else scene.tone.light
        if len(scene.groups) > 3 or not kind:
            yield 0, _shown(names, ", among other things" if len(scene.groups) > 3 else "", groups, voice)
        else:
            words = f"a {kind} image of {names}", f"{names} in a {kind} image", f"the {kind} image shows {names}"
            yield 0, sentence(voice.pick(*words), *groups)


def _brief_of_one(group: Group, voice: Voice) -> Sentence:
    it, pair = phrase(group), apart(group)
    if not group.fills:
        at = f", one {pair[0]} and one {pair[1]}" if pair else f"{in_line(group)} {where(group, OF)}"
        return _shown(it, at, [group], voice)
    words = voice.pick(
        f"{it} {verb(group, 'fills', 'fill')} most{OF}",
        f"{it} {verb(group, 'takes', 'take')} up most{OF}",
        f"most{OF} is taken up by {it}",
        f"the image is largely filled by {it}",
    )
    return sentence(words, group)


def _shown(names: str, behind: str, groups: Sequence[Group], voice: Voice) -> Sentence:
    whole = f"{names}{behind}"
    needed = whole.endswith((f"most{OF}", f"parts{OF}"))
    inside = (whole if needed else whole.removesuffix(OF)).replace("the image", "it")
    words = voice.pick(
        whole,
        f"there {verb(groups[0], 'is', 'are')} {whole}",
        f"the image shows {inside}",
        f"{names} can be seen{behind}",
    )
    return sentence(words, *groups)


def _detailed(scene: Scene, voice: Voice) -> Plan:
    main, further = scene.groups[:2], scene.groups[2:5]
    yield 0, _lead(main, voice)
    if further:
        yield 2, _further(further, len(scene.groups) > 5, voice)
    if len(main) == 1 and len(main[0].things) == 1:
        words = f"{main[0].noun.again()} {verb(main[0], 'spans', 'span')} {extent(main[0].boxes[0])}"
        yield 2, sentence(words, main[0])
    for each in relations(main):
        yield 3, each
    if scene.quotes:
        yield 1, quotation(scene.sayings[:1], voice)
    yield 4, overall(scene.tone, voice)


def _lead(groups: Sequence[Group], voice: Voice) -> Sentence:
    """The one or two most prominent groups and their places."""
    is_, inside = verb(groups[0], "is", "are"), placed(groups).replace("the image", "it")
    ways = [f"there {is_} {placed(groups, OF)}", f"the image shows {inside}", f"the image contains {inside}"]
    first, *others = groups
    places = {where(group).replace(SPREAD, SCATTERED) for group in groups}
    if len(places) == len(groups) and not any(group.fills or " and " in where(group) for group in groups):
        rest = "".join(f", and {where(g)} {verb(g, 'is', 'are')} {phrase(g)}" for g in others)
        ways.append(f"{where(first, OF)} {is_} {phrase(first)}{rest}")
        rest = "".join(f", while {phrase(g)} {verb(g, 'is', 'are')} {where(g)}" for g in others)
        ways.append(f"{phrase(first)} {is_} {where(first, OF)}{rest}")
    return sentence(voice.pick(*ways), *groups)


def _further(groups: Sequence[Group], more: bool, voice: Voice) -> Sentence:
    names = listed([phrase(group) for group in groups]) + (", among other things" if more else "")
    is_ = "are" if len(groups) > 1 else verb(groups[0], "is", "are")
    words = voice.pick(
        f"also visible {is_} {names}",
        f"there {verb(groups[0], 'is', 'are')} also {names}",
        f"the image also shows {names}",
        f"{names.removesuffix(', among other things')} can be seen as well" + (", among other things" if more else ""),
    )
    return sentence(words, *groups)


def _more_detailed(scene: Scene, voice: Voice) -> Plan:
    groups = scene.groups[:6]
    yield 0, _inventory(groups, len(scene.groups) > 6, voice)
    yield 1, full_placement(groups[0], voice)
    if clear := unreached(groups[0]):
        yield 9, clear
    placed_before = [groups[0]]
    for rank, group in zip((3, 4, 6, 7, 8), groups[1:], strict=False):
        if where(group) not in (SPREAD, SCATTERED):
            yield rank, placement(group, placed_before, voice)
            placed_before.append(group)
    if scene.quotes:
        yield 2, quotation(scene.sayings[:3], voice)
    yield 5, overall(scene.tone, voice)


def _inventory(groups: Sequence[Group], more: bool, voice: Voice) -> Sentence:
    names, is_ = listed([phrase(group) for group in groups]), verb(groups[0], "is", "are")
    other = ", among other things" if more else ""
    words = voice.pick(
        f"the image shows {names}{other}",
        f"in the image there {is_} {names}{other}",
        f"{names} can be seen in the image{other}",
        f"there {is_} {names} in the image{other}",
    )
    return sentence(words, *groups)


def _brief_text(scene: Scene, voice: Voice) -> Plan:
    quote = scene.quotes[0]
    at, what = place_of(quote.box), f'text "{quote.words}"'
    words = voice.pick(
        f"the {what} {at}{OF}",
        f"the {what} can be read {at}{OF}",
        f"the image shows the {what} {at}",
        f"the image contains the {what}",
    )
    if quote.cut:
        words = f'text that begins with "{quote.words}" {at}{OF}'
    yield 0, sentence(words, quote)


def _detailed_text(scene: Scene, voice: Voice) -> Plan:
    several = len(scene.quotes) > 1
    if several:
        yield 0, _pieces(scene.quotes, voice)
    yield 1, quotation(scene.sayings[:2], voice, several)
    yield 2, overall(scene.tone, voice)


def _more_detailed_text(scene: Scene, voice: Voice) -> Plan:
    first, *others = scene.quotes
    says, size = f'{"begins with" if first.cut else "reads"} "{first.words}"', extent(first.box)
    if others:
        yield 0, _pieces(scene.quotes, voice)
        yield 1, quotation(scene.sayings[:4], voice, True)
        yield 3, sentence(f"the one that {says} spans {size}", first)
    else:
        yield 0, sentence(f"one piece of text can be read in the image, {place_of(first.box)}", first)
        yield 1, sentence(f"it {says} and spans {size}", first)
    yield 2, overall(scene.tone, voice)


def _pieces(quotes: Sequence[Quote], voice: Voice) -> Sentence:
    pieces = f"{counted(len(quotes))} pieces of text"
    words = voice.pick(
        f"{pieces} can be read in the image",
        f"in the image, {pieces} can be read",
        f"the image has {pieces} that can be read",
        f"{pieces} are legible in the image",
    )
    return sentence(words, *quotes)


Telling = Callable[[Scene, Voice], Plan]
OF_THINGS: dict[Detail, Telling] = {"brief": _brief, "detailed": _detailed, "more_detailed": _more_detailed}
OF_TEXT: dict[Detail, Telling] = {
    "brief": _brief_text,
    "detailed": _detailed_text,
    "more_detailed": _more_detailed_text,
}
