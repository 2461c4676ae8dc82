"""word_alignment(): equal to single-position scopes summed by hand, on both hosts; the model left alone."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases import CONTEXT, cases, make, shared

import tl_jacobian as tj
from tl_jacobian.studies.language import word_alignment

SOURCE, TARGET, TEMPLATE = "wo ist er", "he is out.", "A: {source}? B: {target}"
TEXT = "A: wo ist er? B: he is out."
one = shared("llama", "bridge")
HOSTS = cases("hooked", "bridge", of=("gpt2", "llama"))
hosts = pytest.mark.parametrize(("architecture", "state"), HOSTS)

SCOPES = {
    "semantic": ({}, lambda lin, follows: tj.semantic_scope(lin, follows)),
    "temperature": (dict(confidence="logit_norm"), lambda lin, _: tj.temperature_scope(lin, confidence="logit_norm")),
    "fisher": (dict(method="low_rank"), lambda lin, _: tj.fisher_scope(lin, method="low_rank")),
}


def naive(model, scope, bos, tokens):
    """A position at a time; with a token a byte, words are where the text has them."""
    ids = [256] * bos + list(model.tokenizer.encode(TEXT, add_special_tokens=False))
    where = [(TEXT.index(w) + bos, len(w)) for w in ("wo", "ist", "er", " he ", " is ", "out")]
    where[3:5] = [(start + 1, size - 2) for start, size in where[3:5]]
    run = SCOPES[scope][1]
    rows = []
    for start, size in where[3:]:
        explained = range(start, start + (size if tokens == "all" else 1))
        found = [run(tj.linearize(model, ids[:t]), ids[t]).scores.double() for t in explained]
        cells = [torch.cat([scores[s : s + n] for scores in found]) for s, n in where[:3]]
        rows.append(torch.stack([c.sum() if scope == "fisher" else c.square().sum().sqrt() for c in cells]))
    return torch.stack(rows).float()


@hosts
@pytest.mark.parametrize("scope", SCOPES)
def test_cells_are_single_positions_combined_by_hand(architecture, state, scope):
    model = shared(architecture, state)
    a = word_alignment(model, SOURCE, TARGET, template=TEMPLATE, scope=scope, prepend_bos=False, **SCOPES[scope][0])
    torch.testing.assert_close(a.matrix, naive(model, scope, 0, "all"), rtol=1e-5, atol=1e-7)
    assert (a.source_words, a.target_words) == (("wo", "ist", "er"), ("he", "is", "out"))
    assert (a.scope, a.metadata["template"]) == (scope, TEMPLATE)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("tokens", ["all", "first"])
def test_the_first_token_alone_and_a_bos_token(bos, tokens):
    a = word_alignment(one, SOURCE, TARGET, template=TEMPLATE, scope="semantic", prepend_bos=bos, tokens=tokens)
    torch.testing.assert_close(a.matrix, naive(one, "semantic", int(bos), tokens), rtol=1e-5, atol=1e-7)
    assert "".join(a.units) == "<bos>" * bos + TEXT
    assert [a.units[i].strip() for i in (*a.sources, *a.targets)] == ["wo", "ist", "er", "he", "is", "out"]


def test_nothing_after_a_prediction_has_influence():
    a = word_alignment(one, SOURCE, TARGET, template=TEMPLATE, method="exact", prepend_bos=False)
    for row, framed in enumerate(a.targets):
        assert (a.influence[row, :framed] > 0).all()
        # Its own unit as far as its later letters are predicted from earlier ones.
        assert not a.influence[row, framed + 1 :].any()
    first = word_alignment(one, SOURCE, TARGET, template=TEMPLATE, method="exact", prepend_bos=False, tokens="first")
    assert all(not first.influence[row, framed:].any() for row, framed in enumerate(first.targets))


def test_a_word_of_letters_and_marks_of_several_bytes():
    a = word_alignment(one, "schön – süß", "née à", template="{source}/{target}", scope="semantic", prepend_bos=False)
    assert a.source_words == ("schön", "süß")
    assert a.target_words == ("née", "à")
    assert "".join(a.units) == "schön – süß/née à"
    assert a.matrix.min() > 0


def test_scripts_without_spaces_are_split_into_characters_and_said_to_be():
    with pytest.warns(UserWarning, match="'我喝茶' is in a script that writes no spaces .* pass segmenter="):
        a = word_alignment(one, "我喝茶", "I drink", template="{source}/{target}", scope="semantic", prepend_bos=False)
    assert a.source_words == ("我", "喝", "茶")
    assert a.matrix.shape == (2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        b = word_alignment(
            one,
            "我喝茶",
            "I drink",
            template="{source}/{target}",
            scope="semantic",
            prepend_bos=False,
            segmenter=lambda text: ["我", "喝茶"] if "茶" in text else text.split(),
        )
    assert b.source_words == ("我", "喝茶")
    torch.testing.assert_close(b.matrix[:, 1], a.matrix[:, 1:].norm(dim=1))


def test_one_forward_pass_for_all_words():
    model, seen = make("llama", "bridge"), []
    model.add_hook("hook_embed", tj.pointwise(lambda value, hook: seen.append(value.shape)))
    tj.linearize(model, SOURCE)  # a model's first runs search it for lost gradients
    seen.clear()
    word_alignment(model, SOURCE, TARGET, template=TEMPLATE, method="low_rank")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("", "b"), {}, tj.errors.ArgumentError, "source='', expected a sentence of at least one word"),
        (("a", "?"), {}, tj.errors.ArgumentError, "target='\\?', expected a sentence"),
        (("a", "b"), dict(template="{source}"), tj.errors.ArgumentError, "expected the fields"),
        (("a", "b"), dict(scope="magic"), tj.errors.ArgumentError, "scope='magic', expected one of"),
        (("a", "b " * CONTEXT), {}, tj.errors.PromptError, f"the model's context is n_ctx={CONTEXT}; shorten it by"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cant_be_aligned_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        word_alignment(one, *arguments, **options)


@pytest.mark.usefixtures("unchecked")
def test_the_choice_of_tokens_is_checked():
    with pytest.raises(tj.errors.ArgumentError, match="tokens='last', expected one of 'all', 'first'"):
        word_alignment(one, "a", "b", tokens="last")
    with pytest.raises(
        tj.errors.UnsupportedModelError, match=r"call word_alignment\(model, source, target\) with the model"
    ):
        word_alignment(tj.linearize(one, "a b"), "a", "b")
