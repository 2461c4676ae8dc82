"""Distributions over numbers: against full enumeration with the raw model, and their own statistics."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import number_tokenizers as kinds
import numpy as np
import pytest
import torch
from cases import cases, make, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.studies.timeseries import NumberDistribution, predict_number, serialize


def enumerated(model, series, digits, at_once=1) -> dict[int, float]:
    """Every number's probability, whole sequences at a time, from the raw model's logits."""
    found, at = {}, len(series.tokens) - 1
    numbers = range(10 ** (digits - 1), 10**digits)
    for start in range(0, len(numbers), at_once):
        some = {number: series.codec.numbers[number - series.codec.low] for number in numbers[start : start + at_once]}
        with torch.no_grad():
            logits = model(torch.tensor([[*series.tokens, *ids] for ids in some.values()])).double()
        for (number, ids), logs in zip(some.items(), logits.log_softmax(-1), strict=True):
            found[number] = math.exp(sum(logs[at + i, token].item() for i, token in enumerate(ids)))
    return found


@pytest.mark.parametrize(
    ("architecture", "state"), cases("hooked", "bridge", "bridge-compat", of=("gpt2", "neox", "llama"))
)
def test_it_is_full_enumeration(architecture, state):
    model = shared(architecture, state)
    series = serialize([1.0, 3.0, 2.0, 5.0, 4.0], model)
    d = predict_number(model, series, batch_size=4)
    expected = enumerated(model, series, 2)
    assert d.numbers.tolist() == list(expected)
    np.testing.assert_allclose(d.probabilities, list(expected.values()), rtol=1e-6)
    assert d.mass == pytest.approx(sum(expected.values()), rel=1e-6)
    assert d.exact
    assert d.metadata["forward_passes"] == 10
    assert d.metadata["after"] == 5


def test_three_digits_and_batches_of_any_size():
    model = shared("llama", "bridge")
    series = serialize([1.0, 3.0, 2.0], model, digits=3)
    d = predict_number(model, series, batch_size=7)
    expected = enumerated(model, series, 3, at_once=90)
    # Llama's norm computes in float32 whatever the model's precision, so batches differ by up to 4e-6 (measured).
    np.testing.assert_allclose(d.probabilities, list(expected.values()), rtol=2e-5)
    assert d.metadata["forward_passes"] == 100


def test_one_token_numbers_take_one_forward_pass():
    model = make("llama", "bridge")
    model.tokenizer = kinds.two_digits_per_token()
    series = serialize([1.0, 3.0, 2.0], model)
    assert series.codec.width == 1
    d = predict_number(model, series)
    with torch.no_grad():
        p = model(torch.tensor([list(series.tokens)]))[0, -1].double().softmax(-1)
    ids = [model.tokenizer.convert_tokens_to_ids(str(n)) for n in range(10, 100)]
    np.testing.assert_allclose(d.probabilities, p[ids], rtol=1e-6)
    assert d.metadata["forward_passes"] == 1


def test_a_beam_states_what_it_covers():
    model = shared("llama", "bridge")
    series = serialize([1.0, 3.0, 2.0], model, digits=3)
    whole, some = predict_number(model, series), predict_number(model, series, beam=3)
    assert not some.exact
    assert len(some) == 30
    places = np.searchsorted(whole.numbers, some.numbers)
    np.testing.assert_allclose(some.probabilities, whole.probabilities[places], rtol=1e-9)
    assert some.mass < whole.mass
    assert some.metadata["forward_passes"] == 1 + 3 + 3
    all_of_them = predict_number(model, series, beam=1000)
    assert all_of_them.exact
    np.testing.assert_array_equal(all_of_them.probabilities, whole.probabilities)


def test_a_model_that_knows_the_number():
    """The next digits' logits raised at the unembedding: the mode is that number, and its value is in data units."""
    model = make("llama", "bridge")
    series = serialize([0.0, 100.0], model, data_range=(0.0, 100.0))
    first, second = series.codec.numbers[73 - 10]
    want = {len(series.tokens) - 1: first, len(series.tokens): second}

    def steer(logits, hook):
        logits = logits.clone()
        for at, token in want.items():
            if at < logits.shape[1]:
                logits[:, at, token] += 50.0
        return logits

    model.hook_dict["unembed.hook_out"].add_hook(steer)
    d = predict_number(model, series, truth=71.0)
    assert d.mode == pytest.approx(100 * 63 / 89)
    assert d.mass == pytest.approx(1, abs=1e-9)
    assert d.mean == pytest.approx(d.mode, abs=1e-6)
    assert d.std < 1e-6
    assert d.log_score == pytest.approx(0, abs=1e-9), "71 is written as 73"


@pytest.mark.parametrize(("truth", "written"), [(200.0, 188), (-60.0, -43), (101.0, 100)])
def test_a_truth_that_cant_be_written_is_warned_of(truth, written):
    """10 is written for 0 and 99 for 100; from 100.6 on it would be 100."""
    model = shared("llama", "bridge")
    series = serialize([0.0, 50.0], model, data_range=(0.0, 100.0))
    with pytest.warns(UserWarning, match=rf"truth={truth:g} would be written {written}, .* data_range=.*margin="):
        d = predict_number(model, series, truth=truth)
    assert d.log_score == -math.inf
    assert math.isfinite(d.crps)


@pytest.mark.parametrize("truth", [None, 0.0, 100.0, 100.5, -0.5])
def test_a_truth_that_can_be_written_isnt(truth, recwarn):
    model = shared("llama", "bridge")
    d = predict_number(model, serialize([0.0, 50.0], model, data_range=(0.0, 100.0)), truth=truth)
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    assert truth is None or math.isfinite(d.log_score)


def test_the_model_stays_as_it_was():
    model = make("llama", "bridge")
    series = serialize([1.0, 2.0], model)
    before = torch.get_rng_state()
    flags = [p.requires_grad for p in model.original_model.parameters()]
    with torch.inference_mode():
        d = predict_number(model, series)
    np.testing.assert_array_equal(d.probabilities, predict_number(model, series).probabilities)
    assert torch.equal(before, torch.get_rng_state())
    assert flags == [p.requires_grad for p in model.original_model.parameters()]
    assert torch.is_grad_enabled()


def test_another_models_series_is_refused():
    model = shared("llama", "bridge")
    theirs = serialize([1.0, 2.0], kinds.digit_per_token(), prepend_bos=False)
    with pytest.raises(PromptError, match="serialised with another tokenizer than this model's"):
        predict_number(model, theirs)
    bytes_alone = serialize(np.arange(21.0), model.tokenizer, prepend_bos=True)
    with pytest.raises(PromptError, match="64 tokens, and 1 of the next number's, are more than the model's context"):
        predict_number(model, bytes_alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "beam=0, expected an integer, at least 1"),
        ({"batch_size": 0}, "batch_size=0, expected"),
        ({"truth": float("nan")}, "truth=nan, expected a finite number"),
    ],
)
def test_bad_options(options, message):
    model = shared("llama", "bridge")
    with pytest.raises(ArgumentError, match=message):
        predict_number(model, serialize([1.0, 2.0], model), **options)


# -- the value ---------------------------------------------------------------------------


@st.composite
def distributions(draw):
    numbers = sorted(draw(st.sets(st.integers(10, 99), min_size=1, max_size=12)))
    p = np.array(draw(st.lists(st.floats(0.001, 1), min_size=len(numbers), max_size=len(numbers))))
    return NumberDistribution(
        numbers=np.array(numbers),
        probabilities=p / p.sum() * draw(st.floats(0.01, 1)),
        offset=draw(st.floats(-50, 50)),
        scale=draw(st.floats(0.01, 10)),
        truth=draw(st.floats(-100, 900)),
    )


def simple(**fields):
    options = dict(numbers=np.array([10, 11, 13]), probabilities=np.array([0.1, 0.3, 0.2]), offset=1.0, scale=2.0)
    return NumberDistribution(**{**options, **fields})


def test_tj_has_the_names():
    assert tj.timeseries.predict_number is predict_number
