"""What a linearization's numbers belong to: the hooks, the weights and the prompt that it was made with."""

from __future__ import annotations

import pytest
import torch
from cases import WIDTH, cases, make
from untouched import assert_untouched, fresh, snapshot

import tl_jacobian as tj
from tl_jacobian.core.linearization import LinearizationBatch

PROMPT, OTHER = list(b"Paris is in"), list(b"Rome")
Changed = tj.errors.ContractError
a_few = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "gemma3")))


def same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # the bridge's norms are float32


def shift(value, hook):
    return value + torch.arange(value.shape[-1], dtype=value.dtype).sin()


RERUNS = {
    "leave_one_out": lambda lin: tj.baselines.leave_one_out(lin, 65).scores,
    "smoothgrad": lambda lin: tj.baselines.smoothgrad(lin, 65, samples=3).scores,
    "integrated": lambda lin: tj.baselines.path_integrated_scope(lin, 65, steps=4, max_steps=4, tol=0.99).scores,
    "integrand": lambda lin: tj.baselines.path_integrand(lin, 65, alphas=(0.5, 1.0)).values,
    "linearity": lambda lin: tj.linearity(lin, 65, epsilons=(0.3,)).actual,
    "curves": lambda lin: tj.perturbation_curves(lin, tj.semantic_scope(lin, 65))[0].removed,
    "deleted": lambda lin: tj.perturbation_curves(lin, tj.semantic_scope(lin, 65), perturbation="delete")[0].removed,
}


# -- later runs happen under the hooks of linearize() -----------------------------------------


@a_few
@pytest.mark.filterwarnings("ignore:path_integrated_scope")
def test_later_runs_are_under_the_hooks_of_linearize(architecture, state):
    model = fresh(architecture, state)
    hooks = {"fwd_hooks": [("blocks.1.hook_resid_pre", shift)]}
    with model.hooks(**hooks):
        lin = tj.linearize(model, PROMPT)
        inside = {name: run(lin) for name, run in RERUNS.items()}
    plain = tj.linearize(model, PROMPT)
    outside = {name: run(plain) for name, run in RERUNS.items()}
    before = snapshot(model)
    for name, run in RERUNS.items():
        assert not torch.allclose(inside[name], outside[name], rtol=1e-3), name
        same(run(lin), inside[name])
    assert_untouched(before, model)
    with model.hooks(**hooks):  # nor do later hooks count
        before = snapshot(model)
        for name, run in RERUNS.items():
            same(run(plain), outside[name])
        assert_untouched(before, model)


@pytest.mark.slow
@a_few
def test_hooks_that_are_reset_and_modes_that_change(architecture, state):
    model = fresh(architecture, state)
    model.add_hook("blocks.1.hook_resid_pre", shift)
    model.blocks[0].register_forward_pre_hook(lambda module, args: None)
    lin = tj.linearize(model, PROMPT)
    expected = RERUNS["leave_one_out"](lin)
    model.reset_hooks()
    model.train()
    same(RERUNS["leave_one_out"](lin), expected)
    assert all(m.training for m in model.modules())
    assert not model.hook_dict["blocks.1.hook_resid_pre"]._forward_hooks


@a_few
def test_a_hook_that_gives_other_values_later_is_refused(architecture, state):
    model, strength = fresh(architecture, state), [0.1]
    model.add_hook("blocks.1.hook_resid_pre", lambda v, hook: shift(v, hook) * strength[0])
    lin = tj.linearize(model, PROMPT)
    RERUNS["leave_one_out"](lin)
    strength[0] = 0.2
    for run in RERUNS.values():
        with pytest.raises(Changed, match=r"gives other logits than in linearize\(\) \(.*% off\).*a hook depends"):
            run(lin)


# -- the weights --------------------------------------------------------------------------------


def in_place(p):
    with torch.no_grad():
        p.mul_(1.5)


CHANGES = {
    "in place": (in_place, "was changed in place"),
    "past autograd": (lambda p: p.data.mul_(1.5), "has other values"),
    "another storage": (lambda p: setattr(p, "data", p.data.clone()), "was replaced"),
}


@a_few
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_refused_by_all(architecture, state, change):
    model = make(architecture, state)
    lin = tj.linearize(model, PROMPT)
    alter, how = CHANGES[change]
    weight = next(p for n, p in model.named_parameters() if ".1." in n and p.ndim > 1)
    alter(weight)
    products = {
        "vjp": lambda lin: lin.vjp(lin.y),
        "jvp": lambda lin: lin.jvp(torch.zeros(len(PROMPT), WIDTH)),
        "jacobian": lambda lin: lin.jacobian([0]),
        "semantic": lambda lin: tj.semantic_scope(lin, 65),
        "fisher": tj.fisher_scope,
        "batch": lambda lin: tj.semantic_scope(LinearizationBatch((lin, lin)), 65),
    }
    for run in (products | RERUNS).values():
        with pytest.raises(Changed, match=rf"weights were changed after linearize\(\) \(.*\.1\..* {how}\)"):
            run(lin)
    tj.semantic_scope(tj.linearize(model, PROMPT), 65)


def test_an_optimizer_step_another_precision_and_an_exchanged_layer():
    for change in (step, lambda m: m.to(torch.float32), exchange):
        model = make("llama", "bridge")
        lin = tj.linearize(model, PROMPT)
        change(model)
        with pytest.raises(Changed, match="weights were changed after linearize"):
            tj.semantic_scope(lin, 65)


def step(model):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.tensor([PROMPT])).logsumexp(-1).sum().backward()
    optimizer.step()


def exchange(model):
    norm = next(m for m in model.original_model.modules() if hasattr(m, "weight") and m.weight.ndim == 1)
    norm.weight = torch.nn.Parameter(norm.weight.detach().clone())


def test_what_changes_nothing_is_no_change():
    model = make("llama", "bridge")
    lin = tj.linearize(model, PROMPT)
    model.requires_grad_(False)
    model(torch.tensor([list(range(40))]))
    model.zero_grad()
    model.train()
    tj.baselines.leave_one_out(lin, 65)


# -- a batch is its members ---------------------------------------------------------------------


def on_the_last(value, hook):
    value = value.clone()
    value[:, -1] += 3
    return value


def minus_the_mean(value, hook):
    return value - value.mean(dim=(0, 1), keepdim=True)


@a_few
@pytest.mark.parametrize("hook", [on_the_last, minus_the_mean])
def test_with_hooks_a_batch_is_its_members(architecture, state, hook):
    model = fresh(architecture, state)
    scopes = [lambda x: tj.semantic_scope(x, 65), lambda x: tj.fisher_scope(x, method="estimate", n_products=20)]
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", hook)]):
        alone = [tj.linearize(model, p) for p in (PROMPT, OTHER)]
        batch = tj.linearize(model, [PROMPT, OTHER])
        several = tj.linearize(model, PROMPT, position=[3, -1])
        for scope in scopes:
            for found, one in zip(scope(batch), alone, strict=True):
                same(found.scores, scope(one).scores)
            same(scope(several)[0].scores, scope(tj.linearize(model, PROMPT[:4])).scores)
        runs = [tj.baselines.leave_one_out(lin, 65, batch_size=n).scores for lin, n in ((batch[1], 16), (alone[1], 1))]
        same(*runs)
        values = torch.stack([lin.graph.x.detach()[0] for lin in (alone[0], alone[0])]) * torch.tensor(
            [[[1.0]], [[0.5]]]
        )
        given = tj.linearize(model, [PROMPT, PROMPT], input_value=values)
        same(given[0].logits, alone[0].logits)
        same(given[1].logits, tj.linearize(model, PROMPT, input_value=values[1:]).logits)


@a_few
def test_pointwise_hooks_run_together(architecture, state):
    model, rows = fresh(architecture, state), []

    @tj.pointwise
    def hook(value, hook):
        rows.append(len(value))
        return shift(value, hook)

    model.add_hook("blocks.1.hook_resid_post", hook)
    tj.linearize(model, PROMPT)  # looks, once, for gradient that gets lost
    rows.clear()
    batch = tj.linearize(model, [PROMPT, OTHER])
    assert rows == [2]
    same(tj.semantic_scope(batch, 65)[1].scores, tj.semantic_scope(tj.linearize(model, OTHER), 65).scores)
    model.add_hook("blocks.0.hook_resid_post", lambda value, hook: value)
    tj.linearize(model, PROMPT)
    rows.clear()
    tj.linearize(model, [PROMPT, OTHER])
    assert rows == [1, 1]


def test_what_can_be_marked():
    class Steer:
        __slots__ = ()

        def __call__(self, value, hook):
            return value + 1

        def method(self, value, hook):
            return value + 2

    assert tj.pointwise(Steer())(1, None) == 2
    assert tj.pointwise(Steer().method)(1, None) == 3
    with pytest.raises(tj.errors.ArgumentError, match="hook=3 is an int, expected a function"):
        tj.pointwise(3)


@a_few
def test_patching_under_a_hook_that_averages(architecture, state):
    model, names = fresh(architecture, state), dict(target=65, minus=66)
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", minus_the_mean)]):
        lin = tj.linearize(model, PROMPT, record=["blocks.2.hook_resid_pre"])
        for method, steps in (("two_point", 8), ("integrated", 3), ("gradient", 8)):
            g = tj.predict_patching(model, PROMPT[::-1], PROMPT, method=method, steps=steps, **names)
        other = tj.linearize(model, PROMPT[::-1], record=["blocks.2.hook_resid_pre"])
        v = lin.unembedding.direction(65, lin.logits) - lin.unembedding.direction(66, lin.logits)
        name = "blocks.2.hook_resid_pre"
        grad = lin.vjp_at(v, [name])[name]
        same(g.values[2].double(), ((other.taps[name] - lin.taps[name]) * grad).sum(-1))


@a_few
def test_a_batch_of_several_passes(architecture, state):
    model = make(architecture, state)
    a, b = tj.linearize(model, PROMPT), tj.linearize(model, OTHER)
    for scope in (tj.semantic_scope, lambda x: tj.fisher_scope(x, method="estimate", n_products=20)):
        for found, one in zip(scope(LinearizationBatch((a, b))), (a, b), strict=True):
            same(found.scores, scope(one).scores)


@pytest.mark.usefixtures("unchecked")
def test_an_empty_batch_and_one_of_other_things():
    lin = tj.linearize(make("llama", "bridge"), PROMPT)
    empty = LinearizationBatch((lin,))[1:]
    assert tj.temperature_scope(empty) == tj.fisher_scope(empty) == tj.fisher_scope(empty, method="exact") == []
    with pytest.raises(tj.errors.ArgumentError, match="a str in a batch, expected linearizations"):
        LinearizationBatch((lin, "x"))
