"""Active dropout is refused, wherever it hides."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from tl_jacobian.core.host.transformer_lens import check_dropout
from tl_jacobian.errors import UnsupportedModelError


class Functional(nn.Module):
    """Dropout as many attention modules have it: a number, handed to a function."""

    def __init__(self, **settings: object):
        super().__init__()
        self.__dict__.update(settings)


def within(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Identity(), nn.Sequential(nn.GELU(), module))


ACTIVE = [
    nn.Dropout(0.1),
    nn.Dropout(1),
    nn.Dropout1d(0.1),
    nn.Dropout2d(0.1),
    nn.AlphaDropout(0.1),
    nn.FeatureAlphaDropout(0.1),
    Functional(attention_dropout=0.1),
    Functional(dropout=0.1),
    Functional(resid_dropout=0.1),
    Functional(hidden_dropout=0.1),
    Functional(attn_dropout=0.1),
    Functional(dropout_p=0.1),
    Functional(attention_dropout=0.0, dropout=0.1),
]


@pytest.mark.parametrize("module", ACTIVE, ids=lambda m: f"{type(m).__name__}{list(m.__dict__)[-1]}")
def test_active_dropout_is_refused_and_named(module):
    with pytest.raises(UnsupportedModelError, match=r"active \(p=(0\.1|1\.0) in 1\.1\).*call model\.eval\(\)"):
        check_dropout(within(module).train())


@pytest.mark.parametrize("module", ACTIVE, ids=lambda m: f"{type(m).__name__}{list(m.__dict__)[-1]}")
def test_dropout_in_eval_mode_is_fine(module):
    check_dropout(within(module).eval())


def test_a_model_that_is_dropout_itself_is_named_by_its_type():
    with pytest.raises(UnsupportedModelError, match=re.escape("(p=0.5 in Dropout)")):
        check_dropout(nn.Dropout(0.5).train())


@pytest.mark.parametrize(
    "module",
    [
        nn.Dropout(0.0),
        Functional(dropout=0.0),
        Functional(dropout=None),
        Functional(dropout=False),
        Functional(dropout="none"),
        Functional(hidden_size=0.5),
        nn.LayerNorm(3),
    ],
    ids=repr,
)
def test_train_mode_without_dropout_is_fine(module):
    check_dropout(within(module).train())


def test_one_module_left_in_train_mode_is_found():
    model = within(nn.Dropout(0.1)).eval()
    model[1][1].train()
    with pytest.raises(UnsupportedModelError, match=r"in 1\.1"):
        check_dropout(model)


def test_a_dropout_child_of_the_same_name_counts_once_it_is_active():
    """GPT-2's attn_dropout is a module, not a number."""
    block = nn.Module()
    block.attn_dropout = nn.Dropout(0.0)
    check_dropout(block.train())
    block.attn_dropout.p = 0.2
    with pytest.raises(UnsupportedModelError, match=r"p=0\.2 in attn_dropout"):
        check_dropout(block)


def test_checking_changes_nothing():
    model = within(nn.Dropout(0.0)).train()
    model[0].eval()
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    check_dropout(model)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
