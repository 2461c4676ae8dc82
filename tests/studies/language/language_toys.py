"""Tokenizers of each kind, and a model whose tokens are bytes."""

from __future__ import annotations

from functools import cache

from cases import tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tl_jacobian.core.host.transformer_lens import token_texts


@cache
def merging() -> PreTrainedTokenizerFast:
    """GPT-2's kind: bytes, and merges that put a space before its word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "c"), ("a", "t"), ("Ġc", "at"), ("Ġ", "the"), ("Ã", "¼"), ("e", "r")]
    vocab = {piece: i for i, piece in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw)


@cache
def sentencepiece() -> PreTrainedTokenizerFast:
    """Llama 2's kind: ▁ marks a space, one is put before the text, bytes stand for what is unknown."""
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "c"), ("a", "t"), ("▁c", "at")]
    letters = sorted({*"abcdefghijklmnopqrstuvwxyzGEO:,.'!35▁"})
    pieces = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), *letters, *("".join(pair) for pair in merges)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


KINDS = {"bytes": tokenizer, "merging": merging, "sentencepiece": sentencepiece}


def pieces_of(tok, text):
    """Token texts as a host gives them, and its way to decode several."""
    ids = tok.encode(text, add_special_tokens=False)
    return token_texts(tok, ids), lambda a, b: tok.decode(ids[a:b], clean_up_tokenization_spaces=False)
