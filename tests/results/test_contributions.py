"""Contributions: named parts that add up; no model."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import pytest
import torch
from test_grid import grid

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.contributions import Contributions, Part

NAMES = ("embed", "0.attn", "0.mlp", "unembedding bias")


def parts(values: Any = (1.0, -2.5, 3.0, 0.25), total: float = 1.75, **fields: Any) -> Contributions:
    defaults: dict[str, Any] = dict(names=NAMES[: len(values)], target="logit of ' Paris'")
    return Contributions(values=torch.as_tensor(values, dtype=torch.float64), total=total, **{**defaults, **fields})


def test_values_become_a_cpu_float64_copy_without_a_graph():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    c = parts(values, 3.0)
    assert (c.values.dtype, c.values.requires_grad) == (torch.float64, False)
    doubles = torch.tensor([1.0, 2.0], dtype=torch.float64)
    c = parts(doubles, 3.0)
    doubles[0] = 9
    assert c["embed"] == 1


def test_parts_that_do_not_add_up_are_refused():
    message = r"add up to 1.75, not to the total 1.5: the difference -0.25 is more than 0.00675 \(rtol=0.001"
    with pytest.raises(ArgumentError, match=message):
        parts(total=1.5)


def test_the_tolerance_is_a_share_of_absolute_values():
    size = 1.0 + 2.5 + 3.0 + 0.25
    assert parts(total=1.75 + 0.99e-3 * size).difference == pytest.approx(0.99e-3 * size)
    with pytest.raises(ArgumentError, match="look for a part that is missing, or pass a larger rtol"):
        parts(total=1.75 + 1.01e-3 * size)
    assert parts(total=1.75 + 1.01e-3 * size, rtol=2e-3).total > 1.75
    with pytest.raises(ArgumentError, match="rtol=0 "):
        parts(total=1.75001, rtol=0.0)
    assert parts((1e6, -1e6), 1.0).difference == 1.0, "what cancels leaves the rounding of large numbers"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(names=("a", "b")), r"values of shape \(4,\) for 2 names, expected one each"),
        (dict(names=("a", "b", "a", "c")), "several parts are called 'a', expected names that are all different"),
        (dict(values=(1.0, math.nan, 3.0, 0.25)), "'0.attn' is nan, expected finite numbers"),
        (dict(total=math.inf), "'total' is inf, expected finite numbers"),
        (dict(values=(), names=(), total=0.0), "for 0 names, expected one each, and at least one"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        parts(**change)


def test_fields_and_metadata_are_read_only():
    c = parts(metadata={"model": "m"})
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'total'"):
        c.total = 2.0
    with pytest.raises(TypeError, match="metadata can't be changed"):
        c.metadata["model"] = "x"


def test_a_part_is_found_by_its_name():
    assert parts()["0.attn"] == -2.5
    with pytest.raises(
        ArgumentError, match=r"'0\.atn'; the nearest is '0\.attn' of 4 parts from 'embed' to 'unembedding bias'"
    ):
        parts()["0.atn"]


def test_top_ranks_by_size():
    assert parts().top(2) == [Part(2, "0.mlp", 3.0), Part(1, "0.attn", -2.5)]
    assert len(parts().top(9)) == len(parts()) == 4
    assert parts().top(-1) == []


def test_iteration_gives_the_parts_in_order():
    assert [tuple(part) for part in parts()][:2] == [(0, "embed", 1.0), (1, "0.attn", -2.5)]


def test_the_dataframe_has_the_running_total():
    table = parts().to_dataframe()
    assert table.name.tolist() == list(NAMES)
    assert table.value.tolist() == [1, -2.5, 3, 0.25]
    assert table.running_total.tolist() == [1, -1.5, 1.5, 1.75]


def test_equality_and_copies():
    c = parts(heads=grid(column_axis="head"), metadata={"a": 1})
    assert c == parts(heads=grid(column_axis="head"), metadata={"a": 1})
    assert c != parts(metadata={"a": 1})
    assert parts() != parts((1.0, -2.5, 3.0, 0.25 + 1e-15))
    assert parts() != 1
    for again in (copy.deepcopy(c), pickle.loads(pickle.dumps(c))):
        assert again == c
    with pytest.raises(TypeError, match="unhashable"):
        hash(c)


def test_replace_keeps_the_tolerance():
    assert dataclasses.replace(parts(), target="other").target == "other"
    assert dataclasses.replace(parts(total=1.9, rtol=0.1), target="other").rtol == 0.1
    with pytest.raises(ArgumentError, match=r"rtol=0\.001"):
        dataclasses.replace(parts(), total=9.0)


def test_repr_names_the_largest_parts():
    assert repr(parts()) == (
        "Contributions(logit of ' Paris' = 1.75; 4 parts; top: '0.mlp' 3, '0.attn' -2.5, 'embed' 1)"
    )


def test_the_round_trip_is_exact(tmp_path):
    values = torch.tensor([1 / 3, -0.0, 5e-324, 0.1], dtype=torch.float64)
    c = parts(
        values,
        values.sum().item() + 1e-12,
        names=("</script>", "שלום", "a\nb", "\ud800"),
        heads=grid(column_axis="head"),
        sources=grid(row_axis="head"),
        metadata={"model": "m"},
    )
    c.save(tmp_path / "c.json")
    assert Contributions.load(tmp_path / "c.json") == c
    parts().save(tmp_path / "c.json")
    assert Contributions.load(tmp_path / "c.json").heads is None


def test_what_was_accepted_once_is_read_again(tmp_path):
    rough = parts(total=1.9, rtol=0.1)
    rough.save(tmp_path / "c.json")
    assert Contributions.load(tmp_path / "c.json") == rough
