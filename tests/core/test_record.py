"""record=: which hook points that is, in which order."""

from __future__ import annotations

import pytest
import torch

from tl_jacobian.core.hooks import (
    GROUPS,
    check_reached,
    full_name,
    in_block,
    is_square,
    label_of,
    layer_of,
    parsed,
    place,
    wanted,
)
from tl_jacobian.errors import ArgumentError, HookPointError

POINTS = [  # as a model lists them: in no useful order
    "hook_embed",
    "hook_pos_embed",
    *(
        f"blocks.{i}.{name}"
        for i in (0, 10, 2)
        for name in (
            "hook_resid_post",
            "hook_mlp_out",
            "hook_resid_mid",
            "attn.hook_z",
            "attn.hook_pattern",
            "attn.hook_q",
            "attn.hook_v",
            "hook_attn_out",
            "hook_resid_pre",
            "ln1.hook_scale",
        )
    ),
    "ln_final.hook_normalized",
]


@pytest.mark.parametrize("nothing", [None, False, [], ()])
def test_nothing(nothing):
    assert wanted(nothing, POINTS) == ([], set())


def test_everything_is_the_four_groups_in_the_models_order():
    names, by_name = wanted(True, POINTS)
    assert names == [
        "hook_pos_embed",
        *(
            f"blocks.{i}.{name}"
            for i in (0, 2, 10)
            for name in (
                "hook_resid_pre",
                "attn.hook_v",
                "attn.hook_pattern",
                "attn.hook_z",
                "hook_attn_out",
                "hook_resid_mid",
                "hook_mlp_out",
                "hook_resid_post",
            )
        ),
    ]
    assert by_name == set()
    assert wanted(list(GROUPS), POINTS)[0] == names


@pytest.mark.parametrize(
    ("group", "shorts"),
    [
        ("resid", ["hook_resid_pre", "hook_resid_mid", "hook_resid_post"]),
        ("components", ["hook_attn_out", "hook_mlp_out"]),
        ("heads", ["attn.hook_z"]),
        ("sources", ["attn.hook_v", "attn.hook_pattern"]),
    ],
)
def test_groups(group, shorts):
    expected = [f"blocks.{i}.{short}" for i in (0, 2, 10) for short in shorts]
    if group == "components":
        expected.insert(0, "hook_pos_embed")
    assert wanted(group, POINTS) == (expected, set())
    assert wanted((group,), tuple(POINTS))[0] == expected


def test_names_and_groups_together():
    names, by_name = wanted(["blocks.2.attn.hook_q", "heads", "blocks.0.attn.hook_z", "no.such"], POINTS)
    z = [f"blocks.{i}.attn.hook_z" for i in (0, 2, 10)]
    assert names == ["no.such", z[0], "blocks.2.attn.hook_q", z[1], z[2]]
    assert by_name == {"blocks.2.attn.hook_q", "blocks.0.attn.hook_z", "no.such"}


def test_labels_stand_for_names():
    assert wanted(["2.attn.q", "0.resid_mid"], POINTS) == (
        ["blocks.0.hook_resid_mid", "blocks.2.attn.hook_q"],
        {"blocks.0.hook_resid_mid", "blocks.2.attn.hook_q"},
    )
    for point in POINTS:
        assert full_name(POINTS, point) == full_name(POINTS, label_of(point)) == point
    assert full_name(POINTS, "no.such") == "no.such"
    assert full_name(["blocks.0.hook_a", "0.a"], "0.a") == "0.a"  # a name before a label


@pytest.mark.parametrize("bad", [3, [3], ["resid", None], 1.5])
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_name_is_refused(bad):
    with pytest.raises(ArgumentError, match="expected True, or a list of 'resid', 'components', 'heads', 'sources' or"):
        wanted(bad, POINTS)


def test_place_orders_layers_as_numbers():
    names = ["blocks.10.hook_resid_pre", "blocks.9.ln1.hook_scale", "blocks.9.hook_resid_mid", "hook_embed"]
    assert sorted(names, key=place) == ["hook_embed", "blocks.9.hook_resid_mid", "blocks.9.ln1.hook_scale", names[0]]


def test_attentions_matrices_are_square():
    assert [name for name in (*POINTS, "blocks.0.attn.hook_attn_scores") if is_square(name)] == [
        *(f"blocks.{i}.attn.hook_pattern" for i in (0, 10, 2)),
        "blocks.0.attn.hook_attn_scores",
    ]


def test_what_was_asked_for_by_name_must_have_been_reached():
    check_reached({"a"}, {"a": torch.ones(1)})
    with pytest.raises(HookPointError, match=r"b exists but wasn't reached .* \(use_attn_result, .*\); switch it on"):
        check_reached(["a", "b"], {"a": torch.ones(1)})


@pytest.mark.parametrize("point", POINTS)
def test_names_come_apart_and_together(point):
    layer, path = parsed(point)
    assert layer_of(point) == layer
    assert point == (path if layer is None else in_block(layer, path))
    assert parsed(point).kind == label_of(point).rsplit(".", 1)[-1]
