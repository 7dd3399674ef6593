"""Sentences about a scene. Those that can be put in several ways take a `Voice`, which decides by the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.records import digest16
from specialists.appearance import Tone
from specialists.nouns import counted
from specialists.phrases import apart, clauses, edges_of, extent, in_line, listed, place_of, preposition, verb, where
from specialists.scene import SMALL, Group, Quote, relation, zone


@dataclass(frozen=True)
class Voice:
    """Chooses words by a digest of the image's id, so that images differ and one image never does."""

    item_id: bytes

    def pick(self, *options: str) -> str:
        """One of `options`. Different choices of one image don't depend on each other."""
        digest = digest16(self.item_id + "\0".join(options).encode(errors="replace"))
        return options[int.from_bytes(digest[:4], "big") % len(options)]


@dataclass(frozen=True)
class Sentence:
    """A sentence and the ids of the regions that it speaks of."""

    text: str
    ids: tuple[str, ...] = ()


def sentence(words: str, *about: Group | Quote) -> Sentence:
    """`words` from a capital to a full stop, said of `about`."""
    ids = (each.ids if isinstance(each, Group) else (each.region.id,) for each in about)
    return Sentence(words[:1].upper() + words[1:] + ".", tuple(id_ for some in ids for id_ in some))


def placement(group: Group, earlier: Sequence[Group], voice: Voice) -> Sentence:
    """Where a group is that has been introduced, also as seen from one of the groups that were placed before it."""
    it, is_, at, pair = group.noun.definite(), verb(group, "is", "are"), where(group), apart(group)
    from_it, other = _seen_from(group, at, earlier)
    if pair:
        words = voice.pick(
            f"of {it}, one is {pair[0]} and the other {pair[1]}{from_it}",
            f"one of {it} is {pair[0]}, the other {pair[1]}{from_it}",
        )
    elif group.fills:
        words = f"{it} {verb(group, 'fills', 'fill')} most of the image"
    elif len(group.things) > 1:
        words = f"{it} {is_}{in_line(group)} {at}{from_it or _each(group)}"
    else:
        words = voice.pick(
            f"{it} {is_} {at}{from_it}",
            f"{it} can be seen {at}{from_it}",
            f"{at}{from_it}{',' if from_it else ''} {is_} {it}",
        )
    return sentence(words, group, *other)


def _seen_from(group: Group, at: str, earlier: Sequence[Group]) -> tuple[str, Sequence[Group]]:
    """ ", to the left of the cup", and the group that this speaks of. What is "on the left" isn't "to the left" too."""
    for other in earlier:
        if (found := relation(group, other)) and not group.fills:
            side, close = found
            if side not in at:
                return f", {preposition(side, close)} {other.noun.definite()}", (other,)
            if close and side in ("left", "right"):
                return f", next to {other.noun.definite()}", (other,)
    return "", ()


def full_placement(group: Group, voice: Voice) -> Sentence:
    """Where the first group is, and, of a single thing, how far it reaches."""
    if len(group.things) > 1:
        return placement(group, (), voice)
    it, at, size, edges = group.noun.definite(), where(group), extent(group.boxes[0]), edges_of(group.boxes[0])
    is_, spans = verb(group, "is", "are"), verb(group, "spans", "span")
    if group.fills:
        reaches = f", and {verb(group, 'reaches', 'reach')} {edges}" if edges else ""
        words = f"{it} {verb(group, 'fills', 'fill')} most of the image, spanning {size}{reaches}"
    elif group.things[0].share <= SMALL:
        words = f"{it} {is_} {at} and {verb(group, 'takes', 'take')} up only a small part of the image"
    else:
        reaching = f", reaching {edges}" if edges else ""
        words = voice.pick(
            f"{it} {is_} {at} and {spans} {size}{reaching}",
            f"{at} {is_} {it}, spanning {size}" + (f", and reaching {edges}" if edges else ""),
            f"{it}, {at}, {spans} {size}{reaching}",
            f"{it} can be seen {at} and {spans} {size}{reaching}",
        )
    return sentence(words, group)


def _each(group: Group) -> str:
    """ ", and each spans ...", if several counted things are much alike in size; else nothing."""
    sides = [(box[2] - box[0], box[3] - box[1]) for box in group.boxes]
    alike = all(max(lengths) <= 1.3 * min(lengths) for lengths in zip(*sides, strict=True))
    if group.crowd or not group.noun.plural or not alike:
        return ""
    return f", and each spans {extent(group.boxes[0])}"


def relations(groups: Sequence[Group]) -> list[Sentence]:
    """What the boxes say of how the groups stand to each other."""
    found = []
    for at, one in enumerate(groups):
        for other in groups[at + 1 :]:
            if side := relation(one, other):
                is_ = verb(one, "is", "are")
                words = f"{one.noun.definite()} {is_} {preposition(*side)} {other.noun.definite()}"
                found.append(sentence(words, one, other))
    return found


def unreached(group: Group) -> Sentence | None:
    """That a single thing is clear of the image's edges, if it is."""
    if len(group.things) > 1 or group.things[0].share <= SMALL or edges_of(group.boxes[0]):
        return None
    return sentence(f"{group.noun.again()} {verb(group, 'does', 'do')} not reach any edge of the image", group)


def quotation(quotes: Sequence[Quote], voice: Voice, counted_before: bool = False) -> Sentence:
    """What the texts say, from top to bottom by thirds of the image; those in the same place together."""
    places: dict[tuple[str, bool], list[Quote]] = {}
    for quote in sorted(quotes, key=lambda q: (zone(q.box)[1], zone(q.box)[0], q.box[1])):
        places.setdefault((place_of(quote.box), quote.cut), []).append(quote)
    if len(quotes) == 1 and not quotes[0].cut:
        at, words = place_of(quotes[0].box), quotes[0].words
        told = voice.pick(
            f'a piece of text {at} reads "{words}"',
            f'the text "{words}" can be read {at}',
            f'text {at} reads "{words}"',
            f'{at}, a piece of text reads "{words}"',
        )
    else:
        told = clauses([_said(at, some, bool(n) or counted_before) for n, ((at, _), some) in enumerate(places.items())])
    return sentence(told, *(quote for some in places.values() for quote in some))


def _said(at: str, quotes: Sequence[Quote], again: bool) -> str:
    """A clause; `again` if pieces of text have been spoken of before it."""
    words, cut = listed([f'"{quote.words}"' for quote in quotes]), quotes[0].cut
    if len(quotes) == 1:
        return f"{'one' if again else 'a piece of text'} {at} {'begins with' if cut else 'reads'} {words}"
    number = counted(len(quotes)) + ("" if again else " pieces of text")
    return f"{number} {at} {'begin with' if cut else 'read'} {words}"


def overall(tone: Tone, voice: Voice) -> Sentence:
    """The light and the colours of the image."""
    light = f"{tone.light} and " if tone.light else ""
    if tone.black_and_white:
        kind = f"{tone.light} black-and-white" if tone.light else "black-and-white"
        return sentence(voice.pick(f"the image is {light}in black and white", f"this is a {kind} image"))
    colours = listed(tone.colours)
    if not tone.colours:
        return sentence(f"the image is {light}of no single main colour" if light else "no colour dominates the image")
    if tone.light:
        return sentence(
            voice.pick(
                f"the image is {tone.light}, and much of it is {colours}",
                f"much of the {tone.light} image is {colours}",
            )
        )
    if len(tone.colours) == 1:
        return sentence(voice.pick(f"much of the image is {colours}", f"{colours} is the main colour of the image"))
    return sentence(voice.pick(f"much of the image is {colours}", f"the main colours of the image are {colours}"))
