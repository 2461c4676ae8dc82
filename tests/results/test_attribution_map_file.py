"""Saved maps: an exact round trip, and a clear refusal of everything else."""

from __future__ import annotations

import json

import pytest
import torch
from test_attribution_map import row, whole

from tl_jacobian.errors import AttributionFileError
from tl_jacobian.results.attribution_map import AttributionMap


def test_the_round_trip_is_exact(tmp_path):
    m = AttributionMap(
        attributions=(row(0, [0.1]), row(1, [3.5e-40, 1 / 3], stderr=torch.tensor([0.0, 0.1]))),
        next_texts=("</script>\ud800", None),
        metadata={"temperature": 0.7, "ended": False},
    )
    m.save(tmp_path / "m.json")
    again = AttributionMap.load(tmp_path / "m.json")
    assert again == m
    assert torch.equal(again.scores, m.scores)
    assert type(again.next_texts) is tuple


@pytest.mark.parametrize("m", [whole(), whole().words()])
def test_tokens_and_words(tmp_path, m):
    m.save(tmp_path / "m.json")
    assert AttributionMap.load(tmp_path / "m.json") == m
    assert AttributionMap.load(tmp_path / "m.json").words() == m.words()


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole().save(tmp_path / "m.json")
    content = (tmp_path / "m.json").read_bytes()
    for end in range(0, len(content) - 2, 97):
        (tmp_path / "cut.json").write_bytes(content[:end])
        with pytest.raises(AttributionFileError, match=r"cut\.json is damaged or truncated, expected JSON"):
            AttributionMap.load(tmp_path / "cut.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(format="tl_jacobian.attribution"), 'not a saved attribution map: .*"tl_jacobian.attribution_map"'),
        (dict(version=2), "version 2 of the attribution map format is unknown, expected 1; upgrade"),
        (dict(next_texts=[1, 2, 3, 4]), "damaged attribution map: TypeError: expected str, got 1"),
        (dict(next_texts=["a"]), "damaged attribution map: ArgumentError: 1 next_texts for 4 targets"),
        (dict(attributions=[]), "damaged attribution map: ArgumentError: a map of no targets"),
        (dict(attributions=[{}]), "damaged attribution map: AttributionFileError: not a saved attribution:"),
        (dict(attributions=None), "damaged attribution map: TypeError: expected list, got None"),
        (dict(target_words=[["a", 2]]), "damaged attribution map: ArgumentError: target_words"),
        (dict(metadata=[]), "damaged attribution map: TypeError: expected dict"),
    ],
)
def test_what_is_damaged_or_foreign_is_named(tmp_path, change, message):
    path = tmp_path / "m.json"
    whole().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(AttributionFileError, match=f"m.json: {message}"):
        AttributionMap.load(path)


@pytest.mark.parametrize("key", ["next_texts", "target_words", "metadata", "attributions"])
def test_a_missing_part_is_named(tmp_path, key):
    path = tmp_path / "m.json"
    whole().save(path)
    data = json.loads(path.read_text())
    del data[key]
    path.write_text(json.dumps(data))
    with pytest.raises(AttributionFileError, match=f"damaged attribution map: KeyError: '{key}'"):
        AttributionMap.load(path)


def test_a_single_attribution_is_not_a_map(tmp_path):
    row(1).save(tmp_path / "a.json")
    with pytest.raises(AttributionFileError, match="not a saved attribution map"):
        AttributionMap.load(tmp_path / "a.json")
