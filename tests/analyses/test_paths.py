"""path_scope(): what flows through a place, against a model in which a hook blocks that place."""

from __future__ import annotations

import pytest
import torch
from cases import HEADS, cases, shared
from recorded import OTHER, PARALLEL, POST_NORM, PROMPT, TARGET, N, one_a_host, recorded, v32

import tl_jacobian as tj
from tl_jacobian.analyses.paths import Place
from tl_jacobian.errors import ArgumentError, HookPointError, PromptError

# Folding changes weights, not hooks or graphs.
every_case = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", "bridge-compat"))
MLP, Z, V, PATTERN = (
    "blocks.0.hook_mlp_out",
    "blocks.1.attn.hook_z",
    "blocks.1.attn.hook_v",
    "blocks.1.attn.hook_pattern",
)
V2 = "blocks.2.attn.hook_v"


def block(place, n_pos=N):
    """A user's hook: nothing flows back through the chosen heads and positions; values stay."""

    def detach(value, hook):
        square = place.hook.endswith("pattern")  # (batch, head, to, from), else (batch, pos, head, d_head)
        mask = torch.ones(value.shape, dtype=torch.bool)
        for chosen, axis in ((place.positions, 2 if square else 1), (place.heads, 1 if square else 2)):
            if chosen is not None:
                some = torch.zeros(value.shape, dtype=torch.bool)
                n = n_pos if axis != (1 if square else 2) else value.shape[axis]
                some.index_fill_(axis, torch.tensor([i % n for i in chosen], dtype=torch.int64), True)
                mask &= some
        return torch.where(mask, value.detach(), value)

    return place.hook, detach


def around(model, v, *places, prompt=PROMPT, **options):
    """v^T J of the model in which these places are blocked."""
    with model.hooks(fwd_hooks=[block(place, len(prompt)) for place in places]):
        return tj.linearize(model, prompt, **options).vjp(v)


def check(split, full, through):
    """The four scores of vectors that add up."""
    close = dict(rtol=1e-5, atol=1e-5 * full.norm(dim=-1).max().item())
    torch.testing.assert_close(split.full.scores, full.norm(dim=-1).float(), **close)
    torch.testing.assert_close(split.through.scores, through.norm(dim=-1).float(), **close)
    torch.testing.assert_close(split.around.scores, (full - through).norm(dim=-1).float(), **close)
    torch.testing.assert_close(split.share.scores, ((full * through).sum(-1) / full.norm(dim=-1)).float(), **close)


# -- the identity -----------------------------------------------------------------------------------


PLACES = [
    Place("blocks.1.hook_attn_out"),
    Place(Z, heads=(2,), positions=(4, 5, N - 1)),
    Place(PATTERN, heads=(1,), positions=(-1,)),
    Place(MLP, positions=(3, -1)),
    Place(Z, heads=(0, -1)),
    Place(V, positions=(0, 1)),
    Place("blocks.1.hook_resid_pre", positions=(4,)),
    Place("blocks.0.hook_resid_post"),
]


@every_case
def test_through_and_around_add_up_to_the_whole(architecture, state):
    """Around is measured: the Jacobian of the model under a hook that detaches the place."""
    model, lin = shared(architecture, state), recorded(architecture, state)
    full = lin.vjp(v32)
    for place in PLACES if state != "bridge-compat" else PLACES[:3]:
        rest = around(model, v32, place)
        check(tj.path_scope(lin, place, v32), full, full - rest)
        assert (full - rest).norm() > 1e-3 * full.norm(), f"{place} doesn't matter"


@every_case
def test_the_residual_stream_lets_nothing_around_it(architecture, state):
    lin = recorded(architecture, state)
    for where in ("pre", "post") if architecture in PARALLEL else ("pre", "mid", "post"):
        split = tj.path_scope(lin, f"blocks.1.hook_resid_{where}", target=TARGET)
        torch.testing.assert_close(split.through.scores, split.full.scores)
        assert split.around.scores.max() < 1e-6 * split.full.scores.max()
        assert torch.equal(split.full.scores, tj.semantic_scope(lin, TARGET).scores)


@every_case
def test_a_route_of_two_places(architecture, state):
    """Paths through both: inclusion and exclusion over models in which one, the other, or both are blocked."""
    model, lin = shared(architecture, state), recorded(architecture, state)
    a, b = Place(MLP), Place("blocks.2.attn.hook_z", heads=[1, 3])
    full = lin.vjp(v32)
    both = full - around(model, v32, a) - around(model, v32, b) + around(model, v32, a, b)
    check(tj.path_scope(lin, [a, b], v32), full, both)
    assert both.norm() > 1e-4 * full.norm()


@pytest.mark.slow
@one_a_host
def test_a_route_of_three_places(architecture, state):
    model, lin = shared(architecture, state), recorded(architecture, state)
    places = [
        Place("blocks.0.attn.hook_z", positions=[2]),
        Place(Z, heads=[0]),
        Place("blocks.2.hook_mlp_out"),
    ]
    full = total = lin.vjp(v32)
    total = torch.zeros_like(full)
    for chosen in range(8):
        some = [place for i, place in enumerate(places) if chosen >> i & 1]
        total += (-1) ** len(some) * around(model, v32, *some)
    check(tj.path_scope(lin, tuple(places), v32), full, total)


# -- shares of a partition add up ---------------------------------------------------------------------


@every_case
def test_shares_over_positions_and_heads_add_up(architecture, state):
    lin = recorded(architecture, state)

    def share(through, **options):
        return tj.path_scope(lin, through, target=TARGET, minus=OTHER, **options).share.scores

    full = tj.semantic_scope(lin, TARGET, minus=OTHER).scores
    close = dict(rtol=1e-5, atol=1e-5 * full.max().item())
    some = [share("blocks.2.hook_resid_pre", positions=p) for p in ([0], [1], (2, 3), range(4, N - 1), [-1])]
    torch.testing.assert_close(sum(some), full, **close)
    whole = share(Z)
    torch.testing.assert_close(sum(share(Z, heads=[h]) for h in range(HEADS)), whole, **close)
    if architecture not in POST_NORM:
        torch.testing.assert_close(whole, share("blocks.1.hook_attn_out"), **close)
    out = share("blocks.1.hook_attn_out")
    if architecture not in PARALLEL:
        stream = share("blocks.1.hook_resid_pre")
        torch.testing.assert_close(stream, full, **close)
        assert not torch.allclose(out, full, rtol=0.1)


@one_a_host
def test_what_attention_writes_flows_through_values_and_patterns(architecture, state):
    """z = pattern . v is linear in either: through v, and through the pattern, are all the paths there are."""
    lin = recorded(architecture, state)
    shares = [tj.path_scope(lin, through, v32).share.scores for through in (V, PATTERN, Z)]
    torch.testing.assert_close(shares[0] + shares[1], shares[2], rtol=1e-4, atol=1e-5 * shares[2].abs().max().item())


# -- what else may be given ---------------------------------------------------------------------------


@one_a_host
def test_a_name_with_heads_is_a_place(architecture, state):
    lin = recorded(architecture, state)
    by_name = tj.path_scope(lin, Z, "temperature", heads=[1], positions=[3], confidence="logit_norm")
    place = Place(Z, positions=[3], heads=[1])
    for other in (place, [place], (place,)):
        split = tj.path_scope(lin, other, "temperature", confidence="logit_norm")
        assert torch.equal(split.share.scores, by_name.share.scores)
    for other in (Place(Z, (3 - N,), (1 - HEADS,)), Place(Z, 3, 1), Place(Z, [3, 3], -3)):
        again = tj.path_scope(lin, other, "temperature", confidence="logit_norm")
        assert torch.equal(again.share.scores, by_name.share.scores)
    assert str(place) == "1.attn.z heads 1 at tokens 3"
    assert by_name.through.target == "through 1.attn.z heads 1 at tokens 3"
    assert by_name.through.metadata["explained"] == by_name.full.target
    assert (by_name.full.scope, by_name.share.combine, by_name.full.combine) == (
        "temperature",
        "sum",
        "root_sum_squares",
    )
    assert by_name.share.metadata["route"] == str(place)
    assert by_name.share.metadata["path"] == "share through"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (Place("1.attn.pattern", (1, 3)), Place(PATTERN, (1, 3))),
        (Place("1.attn.pattern", -1, 1), Place(PATTERN, -1, 1)),
        (Place("1.attn.z", [3], [1]), Place(Z, [3], [1])),
        (["0.mlp_out", "1.attn.pattern"], [MLP, PATTERN]),
        (["hook_embed", "0.resid_pre", MLP, "2.attn.v"], ["hook_embed", "blocks.0.hook_resid_pre", MLP, V2]),
        (
            [Place("0.attn.z", heads=0), Place("1.attn.pattern", -1)],
            [Place("blocks.0.attn.hook_z", heads=0), Place(PATTERN, -1)],
        ),
    ],
    ids=str,
)
def test_labels_stand_for_hook_points(labels, names):
    """Rows of grids are called so."""
    lin = recorded("llama", "bridge", record=["hook_embed", "resid", "components", "heads", "sources"])
    ours, theirs = (tj.path_scope(lin, through, v32) for through in (labels, names))
    for kind in ("full", "through", "around", "share"):
        assert torch.equal(getattr(ours, kind).scores, getattr(theirs, kind).scores)
        assert getattr(ours, kind).target == getattr(theirs, kind).target
    assert ours.through.scores.any()


def test_a_label_with_positions_and_heads():
    lin = recorded("llama", "bridge")
    ours, theirs = (tj.path_scope(lin, name, v32, positions=[-1], heads=2) for name in ("1.attn.pattern", PATTERN))
    assert torch.equal(ours.share.scores, theirs.share.scores)


@one_a_host
def test_one_prompt_of_a_batch(architecture, state):
    """Positions count from the end of that prompt, not of the padding."""
    model = shared(architecture, state)
    batch = tj.linearize(model, [PROMPT, PROMPT[:6]], record=True)
    for i, prompt in enumerate((PROMPT, PROMPT[:6])):
        alone = tj.linearize(model, prompt, record=True)
        place = Place(Z, positions=(-1, -3))
        ours, theirs = (tj.path_scope(lin, place, v32) for lin in (batch[i], alone))
        for kind in ("full", "through", "around", "share"):
            torch.testing.assert_close(getattr(ours, kind).scores, getattr(theirs, kind).scores)
        full = alone.vjp(v32)
        check(ours, full, full - around(model, v32, place, prompt=prompt))


@one_a_host
def test_ends_inside_the_model(architecture, state):
    model = shared(architecture, state)
    ends = dict(input_hook="blocks.0.hook_resid_post", output_hook="blocks.2.hook_resid_pre")
    lin, place = tj.linearize(model, PROMPT, record=True, **ends), Place(Z, heads=[1])
    full = lin.vjp(v32)
    check(tj.path_scope(lin, place, v32), full, full - around(model, v32, place, **ends))
    with pytest.raises(HookPointError, match=r"no path leads through blocks.2.hook_attn_out there: it comes after"):
        tj.path_scope(lin, "blocks.2.hook_attn_out", v32)
    with pytest.raises(HookPointError, match=r"no path .* blocks.0.hook_mlp_out .* or before blocks.0.hook_resid_p"):
        tj.path_scope(lin, "blocks.0.hook_mlp_out", v32)


def test_a_split_is_drawn():
    split = tj.path_scope(recorded("llama", "bridge"), Z, target=TARGET)
    page = split._repr_html_()
    assert "through 1.attn.z" in page
    assert split.grid.rows == ("full", "through", "around", "share")
    assert torch.equal(split.grid.values[3], split.share.scores)


def test_heads_and_positions_may_be_tensors():
    lin = recorded("gpt2", "bridge")
    listed = tj.path_scope(lin, Z, heads=[0, 1], positions=[2, -1])
    given = tj.path_scope(lin, Z, heads=torch.tensor([0, 1]), positions=torch.tensor([2, -1]))
    assert torch.equal(given.through.scores, listed.through.scores)


# -- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("through", "options", "error", "message"),
    [
        (Z, dict(heads=[4]), ArgumentError, "head 4 of blocks.1.attn.hook_z is out of range, expected -4 to 3"),
        (Z, dict(heads=[-5]), ArgumentError, "head -5 of"),
        (Z, dict(heads=[True]), ArgumentError, r"heads=\[True\] is a list, expected an int, a list of ints or None"),
        (Z, dict(heads=4), ArgumentError, "head 4 of"),
        (Z, dict(heads=True), ArgumentError, "heads=True is a bool, expected an int, a list of ints or None"),
        (Z, dict(positions="1"), PromptError, "positions='1' is a str, expected an int, a list of ints or None"),
        (Z, dict(positions=[N]), ArgumentError, f"position {N} of {Z} is out of range, expected -{N} to {N - 1}"),
        (Z, dict(positions=[0.5]), PromptError, r"positions=\[0.5\] is a list, expected an int, a list of ints"),
        (MLP, dict(heads=[0]), ArgumentError, "whose activations have no heads: use attn.hook_z"),
        (Place(Z), dict(heads=[0]), ArgumentError, "a Place has its own"),
        ([], {}, ArgumentError, r"through=\[\], expected a hook point, a Place or a list of places"),
        ([3], {}, ArgumentError, r"through=\[3\] is a list, expected text, a Place"),
        (Z, dict(heads=[]), ArgumentError, r"heads=\[\] is no place at all"),
        (3, {}, ArgumentError, "through=3 is an int, expected text, a Place or a list"),
        ([Place(Z), Place(MLP)], {}, ArgumentError, f"{Z}, {MLP} aren't in the model's order"),
        (["1.attn.z", "0.mlp_out"], {}, ArgumentError, f"{Z}, {MLP} aren't in the model's order"),
        ("blocks.1.hook_atn_out", {}, HookPointError, "nearest that was: 'blocks.1.hook_attn_out'"),
        ([Place(V), Place(PATTERN)], {}, HookPointError, f"no path leads through {V} there: it comes after"),
        (
            "hook_pos_embed",
            {},
            HookPointError,
            "no path leads through hook_pos_embed there: .* or before hook_embed",
        ),
        (Z, dict(scope="fisher", rank=2), ArgumentError, "paths need one direction, .* has 2: take rank=1"),
        (Z, dict(scope="logit"), ArgumentError, "scope='logit'"),
        (Z, dict(rank=1), ArgumentError, "takes no rank="),
    ],
    ids=str,
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(through, options, error, message):
    with pytest.raises(error, match=message):
        tj.path_scope(recorded("gpt2", "bridge"), through, **options)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_split_is_refused():
    model = shared("gpt2", "bridge")
    with pytest.raises(HookPointError, match=rf"{Z!r} wasn't recorded; ask for it: linearize\(model, prompt, record"):
        tj.path_scope(tj.linearize(model, PROMPT), Z)
    with pytest.raises(ArgumentError, match=r"got a LinearizationBatch, expected one linearization.*batch\[i\]"):
        tj.path_scope(tj.linearize(model, [PROMPT], record=True), Z)


def test_a_split_shows_and_writes(tmp_path, capsys):
    lin = tj.linearize(shared("llama", "bridge"), "Rome is it", record=True)
    split = tj.path_scope(lin, Z, heads=1)
    split.show()
    assert "through 1.attn.z heads 1" in capsys.readouterr().out
    page = split.to_html(tmp_path / "split.html").read_text(encoding="utf-8")
    assert "through 1.attn.z heads 1" in page
    assert split.plot().get_title(loc="left")
    assert "largest share" in repr(split)
    assert "through 1.attn.z" in split._repr_html_()
