"""The text of single tokens, for byte-level, SentencePiece-like and missing tokenizers."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tl_jacobian.core.host.transformer_lens import token_texts


def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2's kind: a space is part of the token that follows it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["Ġthe", "Ġ.", "Ġn't"]
    vocab = {piece: i for i, piece in enumerate([*alphabet, *words])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    # Cleaning up would turn " ." into ".", and the text would no longer add up. transformers 5 leaves
    # BPE alone unless it is told twice.
    settings = dict.fromkeys(
        ["clean_up_tokenization_spaces", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"],
        True,
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, **settings)


def llama_like() -> PreTrainedTokenizerFast:
    """Llama 2's kind: ▁ marks a space, bytes stand for what is unknown, decoding strips one space."""
    pieces = ["<unk>", "▁the", "cat", "▁", "▁▁", "▁▁▁▁", "▁▁x", *(f"<0x{b:02X}>" for b in range(256))]
    raw = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], byte_fallback=True))
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def gemma_like() -> PreTrainedTokenizerFast:
    """Gemma's kind: the same pieces, and decoding strips nothing."""
    raw = Tokenizer(models.BPE(vocab={"▁the": 0, "cat": 1, "▁▁": 2}, merges=[]))
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=raw)


BYTES = byte_level()


def ids(tokenizer: PreTrainedTokenizerFast, *pieces: str) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(p) for p in pieces]


def test_without_a_tokenizer_ids_stand_in_for_text():
    assert token_texts(None, [5, 0, 49_151]) == ("<5>", "<0>", "<49151>")


def test_no_tokens_have_no_texts():
    assert token_texts(BYTES, []) == ()


def test_byte_level_tokens_keep_their_spaces():
    assert token_texts(BYTES, ids(BYTES, "Ġthe", "Ġ", "a", "Ċ")) == (" the", " ", "a", "\n")


def test_spaces_before_punctuation_are_not_cleaned_up():
    assert BYTES.decode(ids(BYTES, "Ġ.")) == "."
    assert token_texts(BYTES, ids(BYTES, "Ġ.", "Ġn't")) == (" .", " n't")


def test_special_tokens_are_shown():
    assert token_texts(BYTES, ids(BYTES, "<|endoftext|>")) == ("<|endoftext|>",)


def test_a_token_with_part_of_a_character_is_a_replacement_character():
    emoji = BYTES.encode("🦜", add_special_tokens=False)
    assert len(emoji) == 4
    assert token_texts(BYTES, emoji) == ("\ufffd",) * 4


@given(st.text(st.characters(max_codepoint=127), max_size=20))
def test_byte_level_texts_add_up_to_the_prompt(text):
    assert "".join(token_texts(BYTES, BYTES.encode(text, add_special_tokens=False))) == text


def test_ids_that_no_token_owns_are_named():
    assert token_texts(BYTES, [*ids(BYTES, "a"), 5000]) == ("a", "<id 5000>")


def test_sentencepiece_spaces_are_put_back():
    tokenizer = llama_like()
    assert tokenizer.decode(ids(tokenizer, "▁the")) == "the"
    assert token_texts(tokenizer, ids(tokenizer, "▁the", "cat", "▁")) == (" the", "cat", " ")


@pytest.mark.parametrize(("piece", "text"), [("▁▁", "  "), ("▁▁▁▁", "    "), ("▁▁x", "  x")])
def test_sentencepiece_runs_of_spaces_are_put_back_whole(piece, text):
    """Code is indented with such tokens."""
    tokenizer = llama_like()
    assert token_texts(tokenizer, ids(tokenizer, piece)) == (text,)


def test_sentencepiece_spaces_that_decoding_keeps_are_not_doubled():
    tokenizer = gemma_like()
    assert token_texts(tokenizer, ids(tokenizer, "▁the", "cat", "▁▁")) == (" the", "cat", "  ")


def test_byte_fallback_tokens_are_replacement_characters_or_ascii():
    tokenizer = llama_like()
    assert token_texts(tokenizer, ids(tokenizer, "<0xF0>", "<0x41>", "<0x0A>")) == ("\ufffd", "A", "\n")
