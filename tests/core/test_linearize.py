"""linearize(): what it accepts, what it gives, and what it refuses."""

from __future__ import annotations

import copy

import hypothesis.strategies as st
import pytest
import torch
from cases import CONTEXT, HAS_HOOKED, VOCAB, hf_model, make, shared, tokenizer
from hypothesis import given, settings

import tl_jacobian as tj
from tl_jacobian.core import linearization
from tl_jacobian.results.tokens import group_words

TEXT = "Paris is in"
hosts = pytest.mark.parametrize("state", ["hooked", "bridge"] if HAS_HOOKED else ["bridge"])


@hosts
def test_text_ids_and_tensors_are_the_same_prompt(state):
    model = shared("gpt2", state)
    ids = tokenizer().encode(TEXT, add_special_tokens=False)
    for prompt in (TEXT, ids, torch.tensor(ids), tuple(ids)):
        lin = tj.linearize(model, prompt, prepend_bos=False)
        assert lin.tokens.tolist() == ids
        assert "".join(lin.str_tokens) == TEXT
        assert lin.y.shape == (32,)
        assert lin.logits.shape == (VOCAB,)
        assert lin.position == len(ids) - 1


@hosts
def test_bos_is_the_models_setting_unless_told(state):
    model = shared("gpt2", state)
    assert model.cfg.default_prepend_bos
    assert tj.linearize(model, TEXT).tokens[0] == tokenizer().bos_token_id
    assert len(tj.linearize(model, TEXT, prepend_bos=True).tokens) == len(TEXT) + 1
    assert len(tj.linearize(model, TEXT, prepend_bos=False).tokens) == len(TEXT)


@hosts
def test_two_bos_tokens_are_pointed_out(state):
    with pytest.warns(UserWarning, match="two BOS tokens.*prepend_bos=False"):
        tj.linearize(shared("gpt2", state), "<bos>" + TEXT, prepend_bos=True)


@hosts
def test_position_counts_from_either_end_and_cuts(state):
    model = shared("llama", state)
    for position in (3, 3 - len(TEXT)):
        lin = tj.linearize(model, TEXT, position=position, prepend_bos=False)
        assert lin.str_tokens == tuple("Pari")
        assert lin.vjp(lin.y).shape == (4, 32)


@hosts
def test_a_batch_is_a_sequence(state):
    model = shared("llama", state)
    batch = tj.linearize(model, [TEXT, "Rome"], position=[-2, -1], prepend_bos=False)
    assert [len(lin.tokens) for lin in batch] == [10, 4]
    assert len(batch[1:]) == 1
    assert tj.semantic_scope(batch[1:])[0] == tj.semantic_scope(batch[1:])[0]
    with pytest.raises(ValueError, match="1 positions for 2 prompts"):
        tj.linearize(model, [TEXT, "Rome"], position=[0])


@hosts
def test_vjp_of_many_directions_equals_one_at_a_time(state, generator):
    lin = tj.linearize(shared("neox", state), TEXT)
    v = torch.randn(40, 32, generator=generator, dtype=torch.float64)  # more than one chunk
    together = lin.vjp(v)
    assert together.shape == (40, len(lin.tokens), 32)
    torch.testing.assert_close(together, torch.stack([lin.vjp(row) for row in v]))


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(st.integers(0, VOCAB - 1).filter(lambda i: i != 258), min_size=1, max_size=CONTEXT), data=st.data())
def test_any_ids_and_any_position(ids, data):
    position = data.draw(st.integers(-len(ids), len(ids) - 1))
    model = shared("llama", "bridge")
    lin = tj.linearize(model, ids, position=position)
    assert lin.tokens.tolist() == ids[: position % len(ids) + 1]
    scores = tj.semantic_scope(lin).scores
    assert scores.shape == lin.tokens.shape
    assert scores.isfinite().all()
    assert (scores >= 0).all()


@settings(max_examples=25, deadline=None)
@given(text=st.text(min_size=1, max_size=CONTEXT // 4))
def test_any_text(text):
    model = shared("gpt2", "bridge")
    lin = tj.linearize(model, text, prepend_bos=False)
    assert "".join(w.text for w in lin.words) == text
    a = tj.temperature_scope(lin)
    assert len(a.words(split_first=False)) == len(lin.words)
    assert len(a.words()) == len(lin.words) + (lin.words[0].size > 1), "token 0 is a unit of its own"


# -- refusals ----------------------------------------------------------------------------


@hosts
@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", dict(prepend_bos=False), "the prompt '' is empty"),
        ([], {}, r"the prompt \[\] is empty"),
        (torch.tensor([], dtype=torch.int64), {}, "is empty"),
        (list(range(CONTEXT + 1)), {}, f"{CONTEXT + 1} tokens.*n_ctx={CONTEXT}; shorten it by 1"),
        ("x" * (CONTEXT + 5), {"prepend_bos": False}, "shorten it by 5"),
        ([5, VOCAB], {}, f"token id {VOCAB} at position 1 is out of range, expected 0 to {VOCAB - 1}"),
        ([-1], {}, "token id -1 at position 0"),
        ([1, 2], {"position": 2}, "position=2 is outside the prompt's 2 tokens, expected -2 to 1"),
        ([1, 2], {"position": -3}, "position=-3"),
        ([1, 2], {"position": 0.5}, "position=0.5 is a float, expected an int"),
        ([1, 2], {"position": True}, "position=True is a bool"),
        (torch.ones(3), {}, r"dtype torch.float32, expected integers"),
        (torch.ones(1, 2, 3, dtype=torch.int64), {}, r"shape \(1, 2, 3\)"),
        (7, {}, "can't read 7 as a prompt"),
        ([None], {}, "can't read None as a prompt"),
    ],
)
def test_bad_prompts(unchecked, state, prompt, options, message):
    with pytest.raises(tj.errors.PromptError, match=message):
        tj.linearize(shared("gpt2", state), prompt, **options)


@hosts
@pytest.mark.parametrize(
    ("v", "message"),
    [
        (torch.ones(3, dtype=torch.float64), r"shape \(3,\), expected \(32,\) or \(k, 32\)"),
        (torch.ones(2, 2, 32, dtype=torch.float64), r"shape \(2, 2, 32\)"),
        (torch.ones(0, 32, dtype=torch.float64), r"shape \(0, 32\)"),
        (torch.full((32,), float("nan"), dtype=torch.float64), "32 non-finite entries"),
        (torch.ones(32, dtype=torch.int64), "dtype torch.int64.*v.float()"),
        (torch.ones(32, device="meta"), r"on meta, where it has no numbers"),
    ],
)
def test_bad_directions(unchecked, state, v, message):
    lin = tj.linearize(shared("gpt2", state), TEXT)
    with pytest.raises(tj.errors.DirectionError, match=message):
        lin.vjp(v)


@hosts
def test_bad_jacobian_positions(state):
    lin = tj.linearize(shared("gpt2", state), [1, 2])
    with pytest.raises(tj.errors.PromptError, match="position=2 is outside the prompt's 2 tokens, expected -2 to 1"):
        lin.jacobian([0, 2])


@hosts
def test_active_dropout_is_refused(state):
    model = make("gpt2", state).train()
    dropout = torch.nn.Dropout(0.1)
    model.add_module("extra", dropout)
    with pytest.raises(tj.errors.UnsupportedModelError, match=r"dropout is active \(p=0.1.*model.eval\(\)"):
        tj.linearize(model, TEXT)
    model.eval()
    tj.linearize(model, TEXT)


def test_functional_dropout_in_attention_is_refused():
    model = make("llama", "bridge").train()
    model.original_model.model.layers[1].self_attn.attention_dropout = 0.2
    with pytest.raises(tj.errors.UnsupportedModelError, match=r"p=0.2"):
        tj.linearize(model, TEXT)


@hosts
def test_non_finite_activations_are_refused(state):
    model = make("gpt2", state)
    model.add_hook("blocks.1.hook_resid_pre", lambda value, hook: value * float("inf"))
    with pytest.raises(tj.errors.ContractError, match="values of the final hidden state are not finite"):
        tj.linearize(model, TEXT)


def test_a_model_that_is_no_host_is_refused():
    with pytest.raises(
        tj.errors.UnsupportedModelError, match="GPT2LMHeadModel; expected a HookedTransformer or a Transformer"
    ):
        tj.linearize(hf_model("gpt2"), TEXT)


@pytest.mark.parametrize(
    ("call", "signature"),
    [
        (tj.linearize, r"linearize\(model, prompt\)"),
        (tj.attribution_map, r"attribution_map\(model, prompt\)"),
        (tj.attribute_generation, r"attribute_generation\(model, prompt, n_tokens\)"),
        (tj.predict_patching, r"predict_patching\(model, clean, corrupted\)"),
        (tj.compare_patching, r"compare_patching\(model, clean, corrupted\)"),
    ],
)
def test_a_linearization_is_no_model(call, signature):
    model = shared("gpt2", "bridge")
    for lin in (tj.linearize(model, TEXT), tj.linearize(model, [TEXT])):
        message = rf"got a {type(lin).__name__}, expected a model: call {signature} with .* itself goes to scopes"
        for arguments, options in (((lin,), {}), ((lin, TEXT), {}), ((), {"model": lin})):
            with pytest.raises(tj.errors.UnsupportedModelError, match=message):
                call(*arguments, **options)
    with pytest.raises(tj.errors.ArgumentError, match=r"linearize\(\) needs prompt; it takes model, prompt, position"):
        tj.linearize(model)


def test_an_encoder_is_refused():
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import BertConfig, BertForMaskedLM

    with torch.random.fork_rng():
        bert = BertForMaskedLM(
            BertConfig(
                vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
            )
        )
    bert.eval()
    bert.config.architectures = ["BertForMaskedLM"]
    bridge = TransformerBridge.boot_transformers("tiny-bert", hf_model=bert, tokenizer=copy.deepcopy(tokenizer()))
    with pytest.raises(tj.errors.UnsupportedModelError, match="not a decoder-only causal language model"):
        tj.linearize(bridge, TEXT)


@pytest.mark.skipif(not HAS_HOOKED, reason="TransformerLens 4 has no HookedTransformer")
def test_a_bidirectional_hooked_transformer_is_refused():
    model = make("gpt2", "hooked")
    model.cfg.attention_dir = "bidirectional"
    with pytest.raises(tj.errors.UnsupportedModelError, match="attention_dir='bidirectional': expected a causal model"):
        tj.linearize(model, TEXT)


def test_an_unembedding_that_cannot_be_read_is_refused():
    model = make("llama", "bridge")
    quantised = torch.nn.Parameter(torch.zeros(VOCAB, 32, dtype=torch.int8), requires_grad=False)
    model.unembed.original_component.weight = quantised
    with pytest.raises(tj.errors.UnsupportedModelError, match=r"W_U has dtype torch\.int8"):
        tj.linearize(model, TEXT)


@hosts
@pytest.mark.parametrize(
    ("final_norm", "error", "message"),
    [
        ("mine", ValueError, "final_norm='mine', expected 'original', or a module"),
        (torch.ones(5), tj.errors.UnsupportedModelError, r"gain of shape \(5,\).*d_model is 32"),
        ("original", tj.errors.UnsupportedModelError, "safetensors of 'tiny-gpt2'.*found none"),
    ],
)
def test_bad_final_norms(unchecked, state, final_norm, error, message):
    with pytest.raises(error, match=message):
        tj.linearize(shared("gpt2", state), TEXT, final_norm=final_norm)


def test_a_model_with_untrained_norms_has_no_temperature_either():
    """A fresh norm has gain one and bias zero: ||y|| is constant without any folding."""
    model = make("llama", "bridge")
    with torch.no_grad():
        model.original_model.model.norm.weight.fill_(1.0)
    with pytest.raises(tj.errors.DegenerateScopeError, match="no gain or bias"):
        tj.temperature_scope(tj.linearize(model, TEXT))


def test_words_are_grouped_when_asked_for_and_once(monkeypatch):
    """For every position of a long prompt that takes longer than the model."""
    asked = []
    monkeypatch.setattr(linearization, "group_words", lambda *given: asked.append(1) or group_words(*given))
    lins = tj.linearize(shared("gpt2", "bridge"), TEXT, position=range(len(TEXT)))
    assert not asked
    assert [w.text for w in lins[2].words] == ["<bos>", "Pa"]
    assert lins[2].words == tj.semantic_scope(lins[2]).word_groups
    assert len(asked) == 1


@hosts
def test_several_positions_of_one_prompt_share_a_forward_pass(state):
    model = shared("gpt2", state)
    together = tj.linearize(model, TEXT, position=[2, -1, 5])
    for lin, position in zip(together, [2, -1, 5], strict=True):
        alone = tj.linearize(model, TEXT, position=position)
        assert lin.graph is together[0].graph
        assert lin.str_tokens == alone.str_tokens
        assert lin.words == alone.words
        torch.testing.assert_close(lin.logits, alone.logits)
        torch.testing.assert_close(lin.vjp(lin.y), alone.vjp(alone.y))
    for mine, scope in [
        (tj.temperature_scope(together), tj.temperature_scope),
        (
            tj.fisher_scope(together, method="low_rank", rank=3),
            lambda one: tj.fisher_scope(one, method="low_rank", rank=3),
        ),
    ]:
        for a, position in zip(mine, [2, -1, 5], strict=True):
            torch.testing.assert_close(a.scores, scope(tj.linearize(model, TEXT, position=position)).scores)


def test_positions_that_explain_nothing_are_refused():
    with pytest.raises(ValueError, match=r"position=\[\] explains nothing"):
        tj.linearize(shared("gpt2", "bridge"), TEXT, position=[])


def test_positions_may_be_a_tensor():
    model = shared("gpt2", "bridge")
    batch = tj.linearize(model, TEXT, position=torch.tensor([1, 3]))
    assert [lin.position for lin in batch] == [1, 3]
    assert tj.linearize(model, TEXT, position=torch.tensor(2)).position == 2


@pytest.mark.parametrize("positions", [[], 3, [1.5], "ab"])
@pytest.mark.usefixtures("unchecked")
def test_positions_of_jacobians_are_checked(positions):
    lin = tj.linearize(shared("gpt2", "bridge"), TEXT)
    with pytest.raises(tj.errors.PromptError, match=r"positions=.*, expected a list of"):
        lin.jacobian(positions)


@hosts
def test_jvp_is_the_first_order_change(state, generator):
    lin = tj.linearize(shared("llama", state), TEXT)
    dx = torch.randn(3, len(lin.tokens), 32, generator=generator, dtype=torch.float64)
    expected = torch.einsum("toi,kti->ko", lin.jacobian(), dx)
    close = {
        "rtol": 1e-5,
        "atol": 1e-5,
    }  # the bridge's norms and rotary tables are float32: 2e-7 of the largest, measured
    torch.testing.assert_close(lin.jvp(dx), expected, **close)
    torch.testing.assert_close(lin.jvp(dx[0]), expected[0], **close)


def test_jvp_refuses_what_is_no_change_of_the_embeddings(unchecked):
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    n = len(lin.tokens)
    message = rf"^dx.* is .*, expected a tensor of .*shape \(({n}, 32|\*k, pos, d_in)\)"
    for bad in (torch.zeros(n), torch.zeros(n, 31), torch.zeros(n + 1, 32), [0.0]):
        with pytest.raises(tj.errors.DirectionError, match=message):
            lin.jvp(bad)
    for bad in (torch.zeros(n, 32, dtype=torch.long), torch.full((n, 32), float("nan"))):
        with pytest.raises(tj.errors.DirectionError, match="isn't finite floating point"):
            lin.jvp(bad)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tokenizers_padded_output_gives_what_each_prompt_gives_alone(side):
    model = shared("llama", "bridge")
    texts = ["The capital of", "Two"]
    output = model.tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
    batch = tj.linearize(model, output)
    for lin, text in zip(batch, texts, strict=True):
        alone = tj.linearize(model, text, prepend_bos=True)
        assert lin.tokens.tolist() == alone.tokens.tolist()
        close = dict(rtol=1e-5, atol=1e-7)  # Hugging Face's RMSNorm computes in float32
        torch.testing.assert_close(tj.temperature_scope(lin).scores, tj.temperature_scope(alone).scores, **close)
    with pytest.raises(tj.errors.PromptError, match="pass the tokenizer's whole output, whose attention_mask says"):
        tj.linearize(model, output["input_ids"])
    with pytest.raises(tj.errors.PromptError, match="which would be explained as text"):
        tj.linearize(model, model.to_tokens(texts))


def test_ids_go_where_the_embedding_is():
    """A bridge around a given model has its weights where they were, whatever device it was told."""
    model = make("gpt2", "bridge")
    expected = tj.semantic_scope(tj.linearize(model, list(b"Paris is"))).scores
    model.cfg.device = "meta"
    assert torch.equal(tj.semantic_scope(tj.linearize(model, list(b"Paris is"))).scores, expected)
