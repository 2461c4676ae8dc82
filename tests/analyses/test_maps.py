"""attribution_map(): equal to the naive twin, one position at a time, on both hosts."""

from __future__ import annotations

import functools
from functools import cache

import pytest
import torch
from cases import CONTEXT, cases, final_norm_of, hf_model, shared, slow, tokenizer
from untouched import assert_untouched, fresh, one_a_host, snapshot

import tl_jacobian as tj

PROMPT = list(b"Paris is in")
CLOSE = dict(rtol=1e-5, atol=1e-7)  # scores are float32
hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))
one = shared("llama", "bridge")


def entropy(y, logits):
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum()


def assert_same(m, rows):
    assert len(m) == len(rows)
    for a, b in zip(m, rows, strict=True):
        torch.testing.assert_close(a.scores, b.scores, **CLOSE)
        assert (a.target, a.position, a.tokens, a.combine) == (b.target, b.position, b.tokens, b.combine)
        assert (a.str_tokens, a.word_groups) == (b.str_tokens, b.word_groups)
        assert [p.token for p in a.predictions] == [p.token for p in b.predictions]


@cache
def each_position(architecture, state):
    """Linearizations of the prompt, one of each position alone."""
    return [tj.linearize(shared(architecture, state), PROMPT, position=p) for p in range(len(PROMPT))]


@hosts
@pytest.mark.parametrize("scope", ["semantic", "predicted", "temperature", "fisher", "output"])
def test_each_row_is_what_its_position_gives_alone(architecture, state, scope):
    model, lins = shared(architecture, state), each_position(architecture, state)
    follows = [*PROMPT[1:], None]
    m, rows = {
        "semantic": lambda: (
            tj.attribution_map(model, PROMPT),
            [tj.semantic_scope(lin, t) for lin, t in zip(lins, follows, strict=True)],
        ),
        "predicted": lambda: (
            tj.attribution_map(model, PROMPT, target="predicted"),
            [tj.semantic_scope(lin) for lin in lins],
        ),
        "temperature": lambda: (
            tj.attribution_map(model, PROMPT, "temperature", confidence="logit_norm"),
            [tj.temperature_scope(lin, confidence="logit_norm") for lin in lins],
        ),
        "fisher": lambda: (
            tj.attribution_map(model, PROMPT, "fisher", method="exact"),
            [tj.fisher_scope(lin, method="exact") for lin in lins],
        ),
        "output": lambda: (
            tj.attribution_map(model, PROMPT, tj.output_scope, fn=entropy),
            [tj.output_scope(lin, entropy) for lin in lins],
        ),
    }[scope]()
    assert_same(m, rows)
    assert torch.equal(m.scores, m.scores.tril())
    assert (m.scores.diagonal() != 0).all()


def test_the_target_is_the_token_that_follows_and_says_so():
    m = tj.attribution_map(one, "Paris")
    assert [a.metadata["target_token"] for a in m][:-1] == list(m.tokens[1:])
    assert [a.metadata["target_rule"] for a in m] == ["next"] * (len(m) - 1) + ["predicted"]
    assert m[-1].metadata["target_token"] == m[-1].predictions[0].token
    assert m.metadata["target_rule"] == "next"
    assert m.next_texts == (*m.str_tokens[1:], None)
    assert "target_rule" not in tj.attribution_map(one, "Paris", "fisher", method="exact").metadata


@pytest.mark.parametrize("positions", [[0, 4, 9], [9, 0, 4], (-11, -7, -2), range(0, 11, 5), torch.tensor([4, 7])])
def test_positions_in_any_form_give_rows_in_reading_order(positions):
    m = tj.attribution_map(one, PROMPT, positions=positions)
    wanted = sorted(int(p) % len(PROMPT) for p in positions)
    assert list(m.positions) == wanted
    full = tj.attribution_map(one, PROMPT)
    torch.testing.assert_close(m.scores, full.scores[wanted, : m.scores.shape[1]], **CLOSE)
    assert m.next_texts == tuple(full.next_texts[p] for p in wanted)
    assert len(m.str_tokens) == max(wanted) + 1


def test_one_forward_pass_for_all_targets():
    model, seen = fresh("llama", "bridge"), []
    model.add_hook("hook_embed", tj.pointwise(lambda value, hook: seen.append(value.shape)))
    tj.linearize(model, PROMPT)  # a model's first runs search it for lost gradients
    seen.clear()
    tj.attribution_map(model, PROMPT, "temperature")
    assert len(seen) == 1


def test_targets_in_several_parts_are_the_same(monkeypatch):
    from tl_jacobian.core import graph

    whole = tj.attribution_map(one, PROMPT, "fisher", method="exact")
    monkeypatch.setattr(graph, "MAX_CHUNK", 3)
    assert_same(tj.attribution_map(one, PROMPT, "fisher", method="exact"), list(whole))


@pytest.mark.parametrize(
    "scope",
    [
        lambda lin: tj.semantic_scope(lin, 65),
        functools.partial(tj.semantic_scope, target=65),
        lambda lin: tj.direction_scope(lin, lin.unembedding.direction(65, lin.logits)),
    ],
)
def test_a_scope_of_ones_own_gets_one_linearization_at_a_time(scope):
    m = tj.attribution_map(one, PROMPT, scope, positions=[2, 5])
    rows = [scope(tj.linearize(one, PROMPT, position=p)) for p in (2, 5)]
    assert_same(m, rows)


def test_options_reach_the_scope():
    m = tj.attribution_map(one, PROMPT, minus=66, positions=[3])
    assert_same(m, [tj.semantic_scope(tj.linearize(one, PROMPT, position=3), PROMPT[4], minus=66)])
    m = tj.attribution_map(one, PROMPT, tj.fisher_scope, method="low_rank", rank=2, positions=[3])
    assert m[0].metadata["n_products"] == 2


def test_text_bos_and_final_norm():
    with_bos = tj.attribution_map(one, "Paris", prepend_bos=True)
    ids = tuple(tokenizer().encode("Paris", add_special_tokens=False))
    assert with_bos.tokens == (256, *ids)
    assert tj.attribution_map(one, "Paris", prepend_bos=False).tokens == ids
    folded = shared("llama", "bridge-compat")
    with pytest.raises(tj.errors.DegenerateScopeError, match="rounding noise"):
        tj.attribution_map(folded, PROMPT, "temperature")
    m = tj.attribution_map(folded, PROMPT, "temperature", final_norm=final_norm_of(hf_model("llama")))
    assert_same(m, list(tj.attribution_map(one, PROMPT, "temperature")))


def test_targets_are_grouped_by_the_word_that_they_predict():
    m = tj.attribution_map(one, "It is so", prepend_bos=False)  # a token a byte
    assert [(w.text, w.size) for w in m.target_words] == [("t", 1), (" is", 3), (" so", 3), ("", 1)]
    words = m.words()
    assert words.str_tokens == ("I", "t", " is", " so"), "token 0 is a unit of its own"
    assert words.next_texts == ("t", " is", " so", None)
    blocks = m.scores[1:4, :2].double().square().sum(0).sqrt()
    assert words.scores[1, :2].tolist() == pytest.approx(blocks.tolist(), rel=1e-6)
    part = tj.attribution_map(one, "It is so", prepend_bos=False, positions=[2, 3, 5])
    assert [(w.text, w.size) for w in part.target_words] == [("is", 2), ("s", 1)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: tj.attribution_map(one, PROMPT, "magic"),
            tj.errors.ArgumentError,
            r"scope='magic', expected one of 'semant",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, 3),
            tj.errors.ArgumentError,
            r"scope=3, expected one of .* or a function",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, positions=[]),
            tj.errors.ArgumentError,
            r"positions=\[\], expected a list",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, positions=3),
            tj.errors.PromptError,
            r"positions=3 is an int, expected a list of ints",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, positions=[1, -10]),
            tj.errors.ArgumentError,
            r"name token 1 more than once",
        ),
        (lambda: tj.attribution_map(one, PROMPT, positions=[99]), tj.errors.PromptError, r"position=99 is outside"),
        (
            lambda: tj.attribution_map(one, PROMPT, positions=["a"]),
            tj.errors.PromptError,
            r"positions=\['a'\] is a list, expected a list of ints",
        ),
        (lambda: tj.attribution_map(one, ["a", "b"]), tj.errors.PromptError, r"can't read \['a', 'b'\] as a prompt"),
        (lambda: tj.attribution_map(one, ["a", "b"]), tj.errors.PromptError, r"pass one prompt at a time here"),
        (
            lambda: tj.attribution_map(one, torch.ones(1, 4).long()),
            tj.errors.PromptError,
            r"a batch of one: pass tokens\[0\]",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, method="exact"),
            tj.errors.ArgumentError,
            r"scope 'semantic' takes no method=; its options are 'minus'",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, "temperature", minus=3),
            tj.errors.ArgumentError,
            r"scope 'temperature' takes no minus=; its options are 'confidence'",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, max_memory="1KiB"),
            tj.errors.MemoryBudgetError,
            r"more than max_memory",
        ),
        (lambda: tj.attribution_map(one, "", prepend_bos=False), tj.errors.PromptError, r"is empty"),
        (
            lambda: tj.attribution_map(one, PROMPT, target=" Paris"),
            tj.errors.ArgumentError,
            r"target=' Paris', expected \"next\" or \"predicted\"; for one token at every position pass scope=lambda",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, "fisher", target="next"),
            tj.errors.ArgumentError,
            r"target='next' is for Semantic Scope, not for 'fisher'",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, lambda lin: 3),
            tj.errors.ArgumentError,
            r"the scope gave 3 for Linearization\(1 tokens .*expected an Attribution of its 1 tokens",
        ),
        (
            lambda: tj.attribution_map(one, PROMPT, lambda lin: tj.semantic_scope(tj.linearize(one, PROMPT))),
            tj.errors.ArgumentError,
            r"the scope gave an attribution of 11 tokens",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- what the model writes ---------------------------------------------------------------


@one_a_host
def test_generation_is_the_map_of_the_generated_text(architecture, state):
    model = shared(architecture, state)
    m = tj.attribute_generation(model, PROMPT, 4)
    text = [*m.tokens, m[-1].metadata["target_token"]]
    assert text[: len(PROMPT)] == PROMPT
    assert m.positions == tuple(range(len(PROMPT) - 1, len(text) - 1))
    after = tj.attribution_map(model, text, positions=m.positions)
    assert after.attributions == m.attributions
    assert (after.next_texts, after.target_words) == (m.next_texts, m.target_words)
    assert all(a.metadata["target_token"] == a.predictions[0].token for a in m), "greedy"
    assert (m.metadata["generated_from"], m.metadata["temperature"], m.metadata["ended"]) == (11, 0.0, False)


@one_a_host
def test_greedy_tokens_are_the_models_own(architecture, state):
    model = shared(architecture, state)
    text = list(PROMPT)
    with torch.no_grad():
        for _ in range(3):
            text.append(model(torch.tensor([text]))[0, -1].argmax().item())
    m = tj.attribute_generation(model, PROMPT, 3, "fisher", method="low_rank")
    assert [*m.tokens[len(PROMPT) :]] == text[len(PROMPT) : -1]
    assert len(m) == 3


def test_drawn_tokens_follow_the_generator_and_the_temperature():
    def drawn(seed, temperature=1.0):
        generator = torch.Generator().manual_seed(seed)
        m = tj.attribute_generation(one, PROMPT, 5, temperature=temperature, generator=generator)
        return [a.metadata["target_token"] for a in m]

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1
    greedy = [a.metadata["target_token"] for a in tj.attribute_generation(one, PROMPT, 5)]
    assert drawn(3, temperature=1e-4) == greedy


def end_at_once(model):
    """A hook on the last block that makes EOS (257) the most probable token."""
    column = model.W_U[:, 257].detach()
    return lambda value, hook: value * 0 + 100 * column


def test_it_stops_where_the_model_ends_the_text():
    model = fresh("llama", "bridge")
    model.add_hook("blocks.2.hook_out", end_at_once(model))
    m = tj.attribute_generation(model, PROMPT, 5, lambda lin: tj.direction_scope(lin, lin.y))
    assert (len(m), m.next_texts, m.metadata["ended"]) == (1, ("<eos>",), True)


@one_a_host
@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, *slow(torch.no_grad, torch.enable_grad)],
)
def test_the_model_is_left_as_it_was(architecture, state, mode):
    model = fresh(architecture, state)
    model.train()
    with mode():
        before = snapshot(model)
        made = tj.attribute_generation(model, PROMPT, 3, temperature=1.0, generator=torch.Generator().manual_seed(1))
        tj.attribution_map(model, PROMPT)
        assert_untouched(before, model)
    again = tj.attribute_generation(
        shared(architecture, state), PROMPT, 3, temperature=1.0, generator=torch.Generator().manual_seed(1)
    )
    assert made.tokens == again.tokens


@one_a_host
def test_generating_records_no_graph(architecture, state):
    model, seen = fresh(architecture, state), []
    model.add_hook(
        "blocks.1.hook_resid_pre",
        tj.pointwise(lambda value, hook: seen.append((value.requires_grad, value.is_inference()))),
    )
    tj.linearize(model, PROMPT)  # a model's first runs search it for lost gradients
    seen.clear()
    with torch.inference_mode():
        tj.attribute_generation(model, PROMPT, 2)
    assert seen == [(False, False), (False, False), (True, False)], "two tokens generated, one pass explained"


@one_a_host
def test_the_model_is_left_as_it_was_after_an_exception(architecture, state):
    model = fresh(architecture, state)
    runs = []

    def fail(value, hook):
        runs.append(1)
        if len(runs) == 2:
            raise ZeroDivisionError("in the middle")

    model.add_hook("blocks.1.hook_resid_pre", fail)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        tj.attribute_generation(model, PROMPT, 3)
    assert_untouched(before, model)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((0,), {}, tj.errors.ArgumentError, "n_tokens=0, expected a positive integer"),
        ((1.5,), {}, tj.errors.ArgumentError, "n_tokens=1.5 is a float, expected an int"),
        ((True,), {}, tj.errors.ArgumentError, "n_tokens=True is a bool, expected an int"),
        ((2,), dict(temperature=-1.0), tj.errors.ArgumentError, "temperature=-1.0, expected 0"),
        ((2,), dict(temperature=float("nan")), tj.errors.ArgumentError, "temperature=nan, expected 0"),
        ((2,), dict(temperature=0.7), tj.errors.ArgumentError, r"pass generator=torch.Generator\(\).manual_seed\(0\)"),
        ((2,), dict(generator=torch.Generator()), tj.errors.ArgumentError, "temperature=0 draws nothing"),
        (
            (2,),
            dict(generator=3, temperature=1.0),
            tj.errors.ArgumentError,
            "generator=3 is an int, expected a torch.Generator",
        ),
        ((2, "magic"), {}, tj.errors.ArgumentError, "scope='magic'"),
        (
            (CONTEXT,),
            {},
            tj.errors.PromptError,
            f"11 tokens of prompt and n_tokens={CONTEXT} generated ones .* shorten either by 10",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_generation_options_are_named(args, options, error, message):
    with pytest.raises(error, match=message):
        tj.attribute_generation(one, PROMPT, *args, **options)


def test_the_context_may_be_filled_to_the_last_token():
    m = tj.attribute_generation(one, [1] * (CONTEXT - 1), 2)
    assert m.positions == (CONTEXT - 2, CONTEXT - 1)
