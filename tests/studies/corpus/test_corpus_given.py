"""Prompts that a caller hands over in a list, in all their forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from cases import shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.corpus import CorpusPrompt, attribute_corpus, read_attributions, read_records
from tl_jacobian.studies.corpus.read import as_prompts

IDS = [5, 4, 3]


@pytest.fixture(autouse=True)
def _messages_of_the_library(unchecked):
    """The library's own messages, not beartype's."""


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        ("text", dict(text="text")),
        ("", dict(text="")),
        (IDS, dict(tokens=(5, 4, 3))),
        ((5, 4, 3), dict(tokens=(5, 4, 3))),
        (range(3), dict(tokens=(0, 1, 2))),
        ([], dict(tokens=())),
        (torch.tensor(IDS), dict(tokens=(5, 4, 3))),
        (list(torch.tensor(IDS)), dict(tokens=(5, 4, 3))),
        (torch.tensor([], dtype=torch.long), dict(tokens=())),
        (np.array(IDS), dict(tokens=(5, 4, 3))),
        ({"text": "a", "id": 7, "target": " Paris", "more": [1]}, dict(id="7", text="a", target=" Paris")),
        ({"tokens": torch.tensor(IDS), "target": 9}, dict(tokens=(5, 4, 3), target=9)),
        ({"tokens": (5, 4, 3), "text": "a"}, dict(tokens=(5, 4, 3), text="a")),
        (CorpusPrompt(6, "six", "a"), dict(index=6, id="six", text="a")),
    ],
)
def test_forms_of_a_prompt(one, expected):
    assert as_prompts(["first", one]) == [
        CorpusPrompt(0, "0", "first"),
        CorpusPrompt(**{"index": 1, "id": "1", **expected}),
    ]
    assert all(type(t) is int for t in as_prompts([one])[0].tokens or ())


def test_a_batch_of_ids_in_a_tensor_is_a_list_of_prompts():
    assert [p.tokens for p in as_prompts(torch.tensor([IDS, IDS]))] == [(5, 4, 3)] * 2


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (7, r"7 \(int\), expected text, token ids \(a list, tuple or tensor\), messages, an object with"),
        (None, r"None \(NoneType\), expected text, token ids"),
        ([1.5], r"\[1\.5\] \(list\), expected text, token ids"),
        ([True], r"\[True\] \(list\), expected"),
        (["a"], r"\['a'\] \(list\), expected"),
        (b"text", r"b'text' \(bytes\), expected"),
        (torch.tensor([1.5]), r"tensor\(\[1\.5000\]\) \(Tensor\), expected text, token ids"),
        (torch.tensor([IDS]), r"tensor\(\[\[5, 4, 3\]\]\) \(Tensor\), expected"),
        (np.array([1.5]), r"array\(\[1\.5\]\) \(ndarray\), expected"),
        ({"words": "a"}, r"there is no column 'text', expected one with text \(it has \['words'\]\)"),
        ({"text": 5}, r"column 'text' is 5 \(int\), expected text"),
        ({"tokens": [1.5]}, r"tokens \[1\.5\] \(list\), expected a list of token ids"),
        ({"text": "a", "target": [1]}, r"target \[1\] \(list\), expected text or a token id"),
    ],
)
def test_what_is_no_prompt_is_refused_by_its_number(one, why):
    with pytest.raises(ArgumentError, match=f"prompt 1: {why}"):
        as_prompts(["first", one])


@pytest.mark.parametrize(
    ("prompts", "why"),
    [
        ("a.jsonl", r"prompts='a\.jsonl' \(str\), expected a list of prompts: read_corpus\(path\) reads a file"),
        ({"text": "a"}, r"prompts=\{'text': 'a'\} \(dict\), expected a list of prompts"),
        (None, r"prompts=None \(NoneType\), expected a list of prompts"),
        (IDS, r"prompt 0: 5 \(int\), expected .*; a single prompt goes into a list of its own: \[\[\.\.\.\]\]"),
        (torch.tensor(IDS), r"prompt 0: .*expected .*; a single prompt goes into a list of its own"),
    ],
)
def test_what_is_no_list_of_prompts(prompts, why):
    with pytest.raises(ArgumentError, match=why):
        as_prompts(prompts)


def test_a_table_is_no_list_of_its_column_names():
    table = pd.DataFrame({"text": ["Rome is", "Paris is"]})
    with pytest.raises(ArgumentError, match="got a DataFrame, expected a list of prompts"):
        as_prompts(table)
    assert [one.text for one in as_prompts(table.to_dict("records"))] == ["Rome is", "Paris is"]


def test_ids_and_objects_in_a_run_of_attributions(tmp_path):
    prompts = [IDS, torch.tensor([7, 8]), {"text": "Rome", "id": "r", "target": 9}, "Rome", [999]]
    model = shared("gpt2", "bridge")
    assert attribute_corpus(model, prompts, "semantic", tmp_path, prepend_bos=False, progress=False).n_errors == 1
    found = {a.metadata["id"]: a for a in read_attributions(tmp_path)}
    assert found["0"].tokens == tuple(IDS)
    assert found["1"].tokens == (7, 8)
    assert found["r"].metadata["target_token"] == 9
    assert torch.allclose(found["0"].scores, tj.semantic_scope(tj.linearize(model, IDS)).scores, rtol=1e-4)
    assert "id 999" in read_records(tmp_path)[4]["error"]


def test_ids_and_objects_in_an_evaluation():
    trial = tj.Trial(methods=("random", "semantic"), k=(50,))
    prompts = [IDS, (7, 8), {"text": "Rome", "target": 9}]
    e = tj.evaluate(shared("gpt2", "bridge"), prompts, trial, explained="argmax", prepend_bos=False, progress=False)
    assert [r["n_tokens"] for r in e.usable] == [3, 2, 4]
    assert e.records[2]["target"] == 9
    with pytest.raises(ArgumentError, match="prompt 0: there is no column 'text'"):
        tj.evaluate(shared("gpt2", "bridge"), [{"words": "a"}], trial, progress=False)
