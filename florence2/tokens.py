"""Text as numbers: BART's byte-level BPE, and after it the 1024 tokens that Florence-2 writes structure with.

Three kinds of token:
- of the BPE: pieces of words. Every byte is one, so that any text can be written, and comes back as it was.
- structure: <loc_0> to <loc_999>, <and>, <sep>, <poly> ... (SPECIALS, and what a fine-tuned checkpoint added).
  `encode` reads them out of a text, as transformers does; `encode_plain` never.
- control: <s>, <pad>, </s>, <unk>, <mask>, <image>. They come from code alone; in a text they are characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing
from tokenizers.trainers import BpeTrainer

from florence2.errors import CheckpointError, ConfigError, PromptError
from florence2.locations import BINS


def pairs(*names: str) -> tuple[str, ...]:
    return tuple(token for name in names for token in (f"<{name}>", f"</{name}>"))


BOS, PAD, EOS, UNK, MASK, IMAGE = "<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>"
CONTROL = frozenset((BOS, PAD, EOS, UNK, MASK, IMAGE))
# In the order of their ids, which are 50265 to 51288 in the released models. The misspelling is theirs.
SPECIALS: tuple[str, ...] = (
    *pairs("od", "ocr"),
    *(f"<loc_{k}>" for k in range(BINS)),
    *pairs("cap", "ncap", "dcap", "grounding", "seg"),
    "<sep>",
    *pairs("region_cap", "region_to_desciption", "proposal", "poly"),
    "<and>",
)
BYTES = 256
TOO_FEW = len(SPECIALS) + BYTES + len(CONTROL - {IMAGE})  # ids that any vocabulary has: <image> is transformers' alone


class Tokens:
    """A tokenizer.json's vocabulary, merges and added tokens; all else about it is as in BART's.

    Text goes in without a space in front, and without <s> and </s> (`sentence` has those).
    """

    bos: int
    pad: int
    eos: int
    image: int | None  # transformers' placeholder; Microsoft's files have none
    loc_start: int  # <loc_k> is loc_start + k
    size: int  # ids from here up are rows that pad an embedding, and mean nothing

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        added: Sequence[AddedToken] = (),
        source: str = "tokenizer",
    ) -> None:
        """`added` in the order of the ids; the specials that it lacks come after. CheckpointError, naming `source`."""
        if missing := [c for c in (*ByteLevel.alphabet(), BOS, PAD, EOS) if c not in vocab]:
            raise CheckpointError(
                f"{source}: expected a byte-level BPE with {BOS}, {PAD} and {EOS}; its vocabulary lacks "
                f"{len(missing)} of them: {' '.join(sorted(missing)[:5])}"
            )
        if set(vocab.values()) != set(range(len(vocab))):
            raise CheckpointError(f"{source}: expected the ids 0 to {len(vocab) - 1} in the vocabulary, each once")
        names = {token.content for token in added}
        control = [AddedToken(t, lstrip=t == MASK, special=True) for t in (BOS, PAD, EOS, UNK, MASK) if t in vocab]
        self._added = [
            *(token for token in control if token.content not in names),
            *added,
            *(AddedToken(t, special=True, normalized=False) for t in SPECIALS if t not in names),
        ]
        self._tokenizer, self._plain = built(vocab, merges, self._added, source)
        self._names = {id: token.content for id, token in self._tokenizer.get_added_tokens_decoder().items()}
        self._ids = ids = {name: id for id, name in self._names.items()}
        self.bos, self.pad, self.eos, self.image = ids[BOS], ids[PAD], ids[EOS], ids.get(IMAGE)
        self.loc_start = ids["<loc_0>"]
        if [ids[f"<loc_{k}>"] for k in range(BINS)] != list(range(self.loc_start, self.loc_start + BINS)):
            raise CheckpointError(
                f"{source}: expected <loc_0> to <loc_999> in a row; some are missing or out of order. "
                "Take the file of the checkpoint that this one was made from"
            )
        self.size = self._tokenizer.get_vocab_size()

    @classmethod
    def from_file(cls, path: str | Path) -> Tokens:
        """A tokenizer.json, Microsoft's or transformers'. CheckpointError if it is no byte-level BPE's."""
        return cls.from_json(text_of(Path(path)), str(path))

    @classmethod
    def from_json(cls, text: str, source: str = "tokenizer.json") -> Tokens:
        data = parsed(text, source)
        model = data.get("model")
        vocab, merges = (model.get("vocab"), model.get("merges")) if isinstance(model, dict) else (None, None)
        if not isinstance(vocab, dict) or not isinstance(merges, list):
            raise CheckpointError(f"{source}: expected a byte-level BPE, a model with vocab and merges; it has none")
        try:
            pieces = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
            listed = sorted(data.get("added_tokens") or [], key=lambda entry: int(entry["id"]))
            added = [AddedToken(**{k: v for k, v in entry.items() if k != "id"}) for entry in listed]
            tokens = cls(vocab, [(left, right) for left, right in pieces], added, source)
            wrong = [entry["content"] for entry in listed if tokens.id(entry["content"]) != entry["id"]]
        except CheckpointError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{source}: merges or added_tokens can't be read: {error!r}") from error
        if wrong:
            raise CheckpointError(
                f"{source}: expected added tokens in a row; {wrong[0]} can't have the id that it gives"
            )
        return tokens

    @classmethod
    def from_vocabulary(cls, vocab: str | Path, merges: str | Path) -> Tokens:
        """vocab.json and merges.txt, which older repositories have in the place of a tokenizer.json."""
        lines = [line.split(" ") for line in text_of(Path(merges)).split("\n") if line]
        pieces = [(line[0], line[-1]) for line in lines if not line[0].startswith("#version:")]
        return cls(parsed(text_of(Path(vocab)), str(vocab)), pieces, source=f"{vocab} and {merges}")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokens:
        """For a model from scratch: a BPE learnt from `texts`, laid out as BART's, with the specials after it.

        `vocab_size` counts everything; texts with fewer words give fewer. The same texts give the same tokens.
        ConfigError for what is no list of texts: one text, which is a list of characters to Python, or a file's name.
        """
        if vocab_size < TOO_FEW:
            raise ConfigError(
                f"expected a vocab_size of at least {TOO_FEW} (256 bytes, {len(SPECIALS)} specials, <s>, <pad>, </s>, "
                f"<unk>, <mask>); got {vocab_size}"
            )
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise ConfigError(f"expected a list of texts, as in train([text, text], {vocab_size}); got {texts!r:.80}")
        trainer = BpeTrainer(
            vocab_size=vocab_size - len(SPECIALS) - 1,  # 1: <mask>, which BART has last
            special_tokens=[BOS, PAD, EOS, UNK],
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(map(utf8, texts), trainer)
        model = json.loads(tokenizer.to_str())["model"]
        vocab = {**model["vocab"], MASK: len(model["vocab"])}
        return cls(vocab, [(left, right) for left, right in model["merges"]])

    def __len__(self) -> int:
        return self.size

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokens.from_json, (self.to_json(),)

    def id(self, name: str) -> int:
        """The id of a structural or control token: `tokens.id("<sep>")`. KeyError if there is none."""
        return self._ids[name]

    def special(self, id: int) -> str | None:
        """The name of a structural or control token; None for a piece of text and for an id outside the vocabulary."""
        return self._names.get(id)

    def encode(self, text: str) -> list[int]:
        """Structure in the text is read as such, control tokens as characters. PromptError for a lone surrogate."""
        return ids_of(self._tokenizer, text)

    def encode_plain(self, text: str) -> list[int]:
        """For texts that may hold anything: a literal "<loc_5>" is seven characters there."""
        return ids_of(self._plain, text)

    def encode_with_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """As `encode`, and of each id the characters [start, stop) of the text that it writes, less a space in front.

        Tokens that share a character, as bytes of it, have the same place.
        """
        encoding = encoded(self._tokenizer, text)
        return encoding.ids, encoding.offsets

    def sentence(self, text: str) -> list[int]:
        """<s> text </s>."""
        return [self.bos, *self.encode(text), self.eos]

    def decode(self, ids: Iterable[int]) -> str:
        """The text alone, byte for byte; U+FFFD where the bytes are no UTF-8."""
        return self.raw(id for id in ids if id not in self._names)

    def raw(self, ids: Iterable[int]) -> str:
        """The text with every special as it is written. Ids outside the vocabulary are passed over."""
        text: str = self._tokenizer.decode([id for id in ids if 0 <= id < self.size], skip_special_tokens=False)
        return text

    def to_json(self) -> str:
        """The content of a tokenizer.json."""
        data = json.loads(self._tokenizer.to_str())
        data["added_tokens"] = [
            {
                "id": self._ids[token.content],
                "content": token.content,
                "single_word": token.single_word,
                "lstrip": token.lstrip,
                "rstrip": token.rstrip,
                "normalized": token.normalized,
                "special": token.special,
            }
            for token in self._added
        ]
        return json.dumps(data, ensure_ascii=False)

    def with_image(self) -> Tokens:
        """With <image> as the last token, where there is none yet: transformers' processor can't do without."""
        if self.image is not None:
            return self
        data = json.loads(self.to_json())
        data["added_tokens"].append(dict(data["added_tokens"][-1], id=self.size, content=IMAGE))
        return Tokens.from_json(json.dumps(data))


def built(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], added: Sequence[AddedToken], source: str
) -> tuple[Tokenizer, Tokenizer]:
    """A tokenizer that reads structure out of a text, and one over the same BPE that reads none.

    What is `special` to the library is text to it while `encode_special_tokens` is on: so control tokens alone are.
    """
    try:
        model = BPE(dict(vocab), list(merges), continuing_subword_prefix="", end_of_word_suffix="")
    except Exception as error:  # the library has no narrower one
        raise CheckpointError(f"{source}: not a BPE that can be read: {error}") from error
    tokenizer, plain = Tokenizer(model), Tokenizer(model)
    tokenizer.pre_tokenizer = plain.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_tokens([flagged(token, special=token.content in CONTROL) for token in added])
    tokenizer.encode_special_tokens = True
    tokenizer.post_processor = RobertaProcessing((EOS, vocab[EOS]), (BOS, vocab[BOS]), add_prefix_space=False)
    return tokenizer, plain


def utf8(text: str) -> str:
    """The text itself. ConfigError for a lone surrogate, and for what is no text."""
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise ConfigError(f"expected texts that have a UTF-8 form; got {text!r:.80}") from None
    return text


def flagged(token: AddedToken, special: bool) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=special,
    )


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = encoded(tokenizer, text).ids
    return ids


def encoded(tokenizer: Tokenizer, text: str) -> Encoding:
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except TypeError:
        raise PromptError(f"expected a text that has a UTF-8 form; got {text!r:.80}") from None


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: can't be read: {error}") from error


def parsed(text: str, source: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: not JSON, or cut off ({error}); fetch it again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{source}: expected a JSON object, got {type(data).__name__}")
    return data
