"""Tokenizers of every kind that a series may meet, built in memory."""

from __future__ import annotations

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = {"<bos>": 0, "<unk>": 1}
CHARACTERS = [*"0123456789,;| .", "Ġ", "▁"]


def _wrap(raw: Tokenizer) -> PreTrainedTokenizerFast:
    # TransformerLens loads a tokenizer again by its name; "adds BOS already" spares it that.
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<bos>", unk_token="<unk>", name_or_path="numbers", add_bos_token=True
    )


def _words(texts: list[str], cut: str) -> PreTrainedTokenizerFast:
    """Every text a token of its own; pieces are what a regular expression finds."""
    vocab = SPECIAL | {text: i for i, text in enumerate(dict.fromkeys(texts), len(SPECIAL))}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(cut), "isolated")
    return _wrap(raw)


def _bpe(merges: list[tuple[str, str]], pre: pre_tokenizers.PreTokenizer | None = None) -> PreTrainedTokenizerFast:
    texts = [*CHARACTERS, *("".join(pair) for pair in merges)]
    vocab = SPECIAL | {text: i for i, text in enumerate(dict.fromkeys(texts), len(SPECIAL))}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    if pre is not None:
        raw.pre_tokenizer = pre
    raw.decoder = decoders.Fuse()
    return _wrap(raw)


@cache
def digit_per_token() -> PreTrainedTokenizerFast:
    """As SmolLM2 and Llama 2: each digit a token."""
    return _bpe([(",", " ")], pre_tokenizers.Digits(individual_digits=True))


@cache
def up_to_three_digits() -> PreTrainedTokenizerFast:
    r"""As Llama 3: \p{N}{1,3}, every run of up to three digits a token."""
    numbers = [f"{n:0{width}d}" for width in (1, 2, 3) for n in range(10**width)]
    return _words([*numbers, *CHARACTERS], r"\p{N}{1,3}|.")


@cache
def merges_some_digits() -> PreTrainedTokenizerFast:
    """As GPT-2 with numbers it hasn't seen: 12 is one token, 13 is two."""
    return _bpe([("1", "2"), ("3", "4"), ("12", "3")])


@cache
def merges_spaces_with_numbers() -> PreTrainedTokenizerFast:
    """As GPT-2: two digits are one token, and a space goes with the number after it."""
    pairs = [(str(a), str(b)) for a in range(10) for b in range(10)]
    return _bpe([*pairs, *((" ", a + b) for a, b in pairs)])


@cache
def merges_separators_with_digits() -> PreTrainedTokenizerFast:
    """A comma and the 1 after it are one token."""
    return _bpe([(",", "1")])


@cache
def merges_digits_with_separators() -> PreTrainedTokenizerFast:
    """A 7 and the comma after it are one token."""
    return _bpe([("7", ",")])


@cache
def dummy_prefix() -> PreTrainedTokenizerFast:
    """As SentencePiece in Llama 2: a text begins with a space of its own."""
    return _metaspace([])


@cache
def merging_dummy_prefix() -> PreTrainedTokenizerFast:
    """The same, but the space goes with a text's first digit."""
    return _metaspace([("▁", str(d)) for d in range(10)])


def _metaspace(merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    return _bpe(merges, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))


@cache
def two_digits_per_token() -> PreTrainedTokenizerFast:
    """Every number of one or two digits a token, few enough for the suite's models."""
    return _words([*map(str, range(100)), *",;| "], r"\p{N}{1,2}|.")
