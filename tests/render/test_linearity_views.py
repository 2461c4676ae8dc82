"""First-order predictions as a table and as a picture."""

from __future__ import annotations

import io
import re

import pytest
import torch
from rich.console import Console

from conftest import INJECTION, NASTY
from tl_jacobian.render.linearity import render_linearity_terminal
from tl_jacobian.results.linearity import Linearity


@pytest.fixture
def found():
    return made((" of", " France"), [[0.3, 0.4], [3.0, 4.0]], [[0.3, 0.4], [0.0, 0.0]])


def made(texts, predicted, actual, **metadata):
    return Linearity(
        epsilons=(0.01, 0.1),
        positions=tuple(range(2, 2 + len(texts))),
        str_tokens=tuple(texts),
        predicted=torch.tensor(predicted),
        actual=torch.tensor(actual),
        metadata={"target": "logit of ' Paris'", "way": "steepest", "model": "m", **metadata},
    )


def printed(value, **options):
    out = io.StringIO()
    render_linearity_terminal(value, console=Console(file=out, width=120, **options))
    return out.getvalue()


def test_the_error_is_relative_to_what_was_promised(found):
    """Exact at the small step; at the large one nothing happens, so that all of the promise is missing."""
    assert found.relative_error.tolist() == pytest.approx([0.0, 1.0])


def test_a_row_for_each_step_and_token(found):
    table = found.to_dataframe()
    assert list(table.columns) == ["epsilon", "position", "text", "predicted", "actual"]
    assert table["epsilon"].tolist() == [0.01, 0.01, 0.1, 0.1]
    assert table["position"].tolist() == [2, 3, 2, 3]
    assert table["text"].tolist() == [" of", " France"] * 2
    assert table["predicted"].tolist() == found.predicted.flatten().tolist()
    assert table["actual"].tolist() == found.actual.flatten().tolist()


def test_the_table(found, capsys):
    found.show()
    text = capsys.readouterr().out
    assert "Linearity of logit of ' Paris'" in text
    rows = [re.findall(r"[+.\d]+", line) for line in text.splitlines() if line.strip().startswith("0.")]
    assert rows == [["0.01", "0", "+0.3", "+0.3", "+0.4", "+0.4"], ["0.1", "1", "+3", "+0", "+4", "+0"]]
    html = found._repr_html_()
    for cell in ("+3 → +0", "+0.4 → +0.4", "2 &#x27; of&#x27;", "relative error"):
        assert cell in html


def test_many_tokens_are_not_all_listed():
    n = 12
    many = made([f" t{i}" for i in range(n)], torch.ones(2, n).tolist(), torch.ones(2, n).tolist())
    assert "' t2'" in printed(many)
    assert "' t3'" not in printed(many)
    assert "3 of 12 tokens shown" in printed(many)


def test_nothing_from_a_text_becomes_markup():
    value = made(NASTY[:5], torch.ones(2, 5).tolist(), torch.ones(2, 5).tolist(), target=INJECTION, model=INJECTION)
    html = value._repr_html_()
    assert INJECTION not in html
    assert "<img src=x" not in html
    hidden = made(NASTY[12:17], torch.ones(2, 5).tolist(), torch.ones(2, 5).tolist(), target="\x1b[31m")
    assert "\x1b" not in printed(hidden)
    assert "\u202e" not in printed(hidden)


@pytest.mark.usefixtures("plt")
def test_the_picture(found):
    ax = found.plot()
    whole = ax.lines[0]
    assert whole.get_xdata().tolist() == [0.01, 0.1]
    assert whole.get_ydata().tolist() == pytest.approx([0.0, 1.0])
    assert ax.get_xscale() == "log"
    assert "Linearity of logit of ' Paris'" in ax.get_title(loc="left").replace("\n", " ")
    assert "error" in ax.get_ylabel()
    ax.figure.canvas.draw()


def test_the_picture_takes_axes_and_dollar_signs(plt):
    mine = plt.subplots()[1]
    value = made(["$x_{"], [[1.0], [2.0]], [[1.1], [2.5]], target="$x_{")
    assert value.plot(mine) is mine
    mine.figure.canvas.draw()
