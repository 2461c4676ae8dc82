"""The text of single tokens, for byte-level, SentencePiece-like and missing tokenizers."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tl_jacobian.analyses.patching import Words
from tl_jacobian.core.host.transformer_lens import token_texts, tokens_shown_as
from tl_jacobian.core.prompts import resolve_target
from tl_jacobian.errors import TargetError
from tl_jacobian.results.tokens import PARTIAL


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


def trained() -> PreTrainedTokenizerFast:
    """Llama 2's kind with merges, as SentencePiece learns them: a text gets a space of its own in front."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    text = "the singer is singing, the king is asking, and the thing that they bring is a ring, ingots; Paris, Paris"
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", *bytes_], show_progress=False)
    raw.train_from_iterator([text, text.title(), "é 日本 " * 2], trainer)
    # Trained bytes are special tokens, which decoding gives as they are; the model's own vocabulary has plain ones.
    model = json.loads(raw.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    raw = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_level, llama_like, gemma_like, trained], ids=lambda f: f.__name__)
def test_the_text_shown_for_a_token_is_a_target_that_gives_it_back(make):
    """Each token of whole vocabularies; a part of a character is shown as what many are, and refused."""
    tokenizer = make()
    texts = token_texts(tokenizer, range(len(tokenizer)))
    words = Words(
        torch.zeros(len(tokenizer)),
        lambda text: tokenizer.encode(text, add_special_tokens=False),
        texts.__getitem__,
        lambda text: tokens_shown_as(tokenizer, text, len(tokenizer)),
    )
    given_back = 0
    for token, text in enumerate(texts):
        if PARTIAL in text:
            with pytest.raises(TargetError, match=r"is the text of \d+ tokens: pass the id of one, \d+, \d+"):
                resolve_target(words, text)
        else:
            found = resolve_target(words, text)
            assert texts[found] == text
            # "A" is a token, and the byte 0x41 too, which is never written then.
            assert found == token or tokenizer.convert_ids_to_tokens(token).startswith("<0x")
            given_back += found == token
    assert given_back > len(texts) / 3


def test_a_target_is_not_the_token_that_the_tokenizer_makes_of_it_alone():
    tokenizer = trained()
    ing, comma = ids(tokenizer, "ing", ",")
    assert tokenizer.encode("ing", add_special_tokens=False) != [ing]  # "▁ing", or "▁" and "ing"
    assert tokens_shown_as(tokenizer, "ing", len(tokenizer)) == [ing]
    assert tokens_shown_as(tokenizer, ",", len(tokenizer)) == [comma]
    assert tokens_shown_as(tokenizer, "nowhere", len(tokenizer)) == []


def test_a_vocabulary_that_grew_is_read_again():
    tokenizer = byte_level()
    assert tokens_shown_as(tokenizer, "<new>", len(tokenizer)) == []
    tokenizer.add_tokens(["<new>"])
    assert tokens_shown_as(tokenizer, "<new>", len(tokenizer)) == [len(tokenizer) - 1]


def test_without_a_tokenizer_ids_are_shown_and_read():
    assert tokens_shown_as(None, "<5>", 10) == [5]
    assert tokens_shown_as(None, "<10>", 10) == []
