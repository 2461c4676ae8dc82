"""Pictures of word alignments and tables of counterfactual edits."""

from __future__ import annotations

import dataclasses
import io
import re
from html import unescape

import pytest
import torch
from rich.console import Console

from conftest import INJECTION, NASTY
from tl_jacobian.errors import ArgumentError
from tl_jacobian.render import render_aligned_word_terminal, render_counterfactuals_terminal
from tl_jacobian.render.colors import NEGATIVE
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.results.tokens import visible
from tl_jacobian.studies.language import Counterfactuals, Edit, WordAlignment


@pytest.fixture
def alignment():
    """ "X: rot ist = red is." with influence of the text between."""
    return WordAlignment(
        influence=torch.tensor([[1.0, 4.0, 2.0, 9.0, 0.0, 0.0, 0.0], [1.0, 1.0, 8.0, 0.0, 6.0, 0.0, 0.0]]),
        units=("X:", " rot", " ist", " =", " red", " is", "."),
        sources=(1, 2),
        targets=(4, 5),
        source_words=("rot", "ist"),
        target_words=("red", "is"),
        scope="fisher",
        combine="sum",
        metadata={"score": "nats", "model": "m"},
    )


@pytest.fixture
def nasty_alignment():
    n = len(NASTY)
    return WordAlignment.of_matrix(torch.ones(n, n), NASTY, NASTY, scope=INJECTION)


def edits(words, predicted=" a"):
    pairs = enumerate(words)
    return tuple(
        Edit(i, w, float(i), "removed", "", -1.0, 0.5 * i - 1, 0.1, Prediction(i, predicted, 0.5)) for i, w in pairs
    )


@pytest.fixture
def table():
    words = ("a", "b", "c", "d")
    return Counterfactuals(
        prompt="a b c d",
        words=words,
        scores=(0.0, 1.0, 2.0, 3.0),
        scope="semantic: v",
        quantity="log-probability",
        value=-0.5,
        prediction=Prediction(0, " a", 0.5),
        edits=edits(words),
    )


@pytest.fixture
def nasty_table():
    return Counterfactuals(
        prompt=INJECTION,
        words=NASTY,
        scores=tuple(map(float, range(len(NASTY)))),
        scope=INJECTION,
        quantity=INJECTION,
        value=0.0,
        prediction=Prediction(0, INJECTION, 0.5),
        edits=edits(NASTY, INJECTION),
    )


def shades(html, row):
    """Text and background of every shaded word of a target word's picture."""
    picture = html.split('class="tlj-tokens"')[row + 1].split("</div>")[0]
    return re.findall(r'<bdi style="background-color:(#d55e00..)"[^>]*>(\w+)</bdi>', picture), picture


def test_source_words_are_shaded_on_each_rows_own_scale_and_the_target_word_is_framed(alignment):
    html = alignment._repr_html_()
    for row, (full, weak, framed) in enumerate([("rot", "ist", "red"), ("ist", "rot", "is")]):
        found, picture = shades(html, row)
        strength = {word: int(color[-2:], 16) for color, word in found}
        assert strength[full] == round(0.7 * 255)
        assert strength[weak] == round(0.7 * 255 * (0.5 if row == 0 else 1 / 8))
        border = "#" + "".join(f"{c:02x}" for c in NEGATIVE) + "ff"
        assert re.search(rf'<bdi style="border:2px solid {border}[^>]*>{framed}</bdi>', picture)
        assert "border:2px" not in picture.replace(border, "", 1) or picture.count("border:2px") == 1


def test_other_text_isnt_shaded_and_what_comes_after_is_pale(alignment):
    _, picture = shades(alignment._repr_html_(), 0)
    assert '<bdi style="background-color:#80808000">X:</bdi>' in picture
    assert '<bdi style="background-color:#80808000;opacity:0.45"> is</bdi>' in picture


def test_how_much_the_source_words_hold_is_said(alignment):
    html = alignment._repr_html_()
    assert "source words hold 38% of all influence on it" in html
    assert "full shade = 4" in html
    plain = WordAlignment.of_matrix(torch.eye(2), ["a", "b"], ["c", "d"])
    assert "source words hold" not in plain._repr_html_()


def test_one_word_alone(alignment, tmp_path):
    html = alignment.row("is").to_html(tmp_path / "is.html").read_text()
    assert html.count('class="tlj-tokens"') == 1
    assert "tlj-grid" not in html.split("</head>")[1]
    whole = alignment.to_html(tmp_path / "all.html").read_text().split("</head>")[1]
    assert whole.count('class="tlj-tokens"') == 2
    assert "tlj-grid" in whole
    assert "Fisher Scope" in whole
    assert alignment.row("is")._repr_html_().count('class="tlj-tokens"') == 1


def test_nothing_from_a_text_becomes_markup(nasty_alignment, nasty_table, tmp_path):
    for value in (nasty_alignment, nasty_table):
        html = value.to_html(tmp_path / "x.html").read_text()
        assert INJECTION not in html
        assert "<img src=x" not in html


def printed(render, value, **options):
    out = io.StringIO()
    render(value, console=Console(file=out, width=100, **options))
    return out.getvalue()


def test_the_terminal_brackets_the_target_word_and_names_the_strongest(alignment):
    text = printed(render_aligned_word_terminal, alignment.row("red"))
    assert "X: rot ist = [red] is." in text
    assert "red: rot 4, ist 2; source words hold 38% of all influence on it" in text
    colored = printed(render_aligned_word_terminal, alignment.row("red"), force_terminal=True, color_system="truecolor")
    assert "48;2" in colored


def test_the_terminal_shows_hidden_characters(nasty_alignment, nasty_table):
    text = printed(render_aligned_word_terminal, nasty_alignment.row(3)) + printed(
        render_counterfactuals_terminal, nasty_table
    )
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_show_prints(alignment, table, capsys):
    alignment.show()
    alignment.row(0).show()
    table.show()
    printed = capsys.readouterr().out
    assert printed.count("[red]") == 2
    assert "target word" in printed


@pytest.mark.usefixtures("plt")
def test_the_plot_frames_gold_links(alignment):
    ax = alignment.plot(sure=[(0, 0)], possible=[(0, 0), (1, 1)])
    frames = [(p.get_xy(), p.get_linestyle()) for p in ax.patches if p.get_width() == 0.88]
    assert sorted(frames) == [((-0.44, -0.44), "solid"), ((0.56, 0.56), "dashed")]
    assert "dashed: possible" in ax.get_xlabel()
    torch.testing.assert_close(torch.tensor(ax.images[0].get_array().filled(0)), alignment.shares)
    assert alignment.plot().get_xlabel() == "source word"


@pytest.mark.usefixtures("plt", "unchecked")
def test_the_plot_takes_links_as_text_and_refuses_what_isnt_there(alignment):
    ax = alignment.plot(sure="0-0", possible="1-1")
    assert sum(p.get_width() == 0.88 for p in ax.patches) == 2
    with pytest.raises(ArgumentError, match=r"gold link 9-9 \(source-target\) is outside 2 source words and 2"):
        alignment.plot(sure=[(9, 9)])
    with pytest.raises(ArgumentError, match=r"possible=.*expected pairs of word indices \(source, target\)"):
        alignment.plot(possible=[("rot", "red")])


def test_the_plot_of_a_word(alignment, plt):
    ax = alignment.row("red").plot()
    assert "".join(t.get_text() for t in ax.texts) == "X:rotist=redis."
    columns = {t.get_text(): t.get_position()[0] for t in ax.texts}
    assert columns["rot"] == 3 + 3 / 2
    facecolors = [p.get_facecolor()[3] for p in ax.patches]
    assert facecolors[:2] == pytest.approx([0.7, 0.35])
    assert sum(not p.get_fill() for p in ax.patches) == 1
    mine = plt.subplots()[1]
    assert alignment.row("red").plot(mine) is mine


def test_a_long_text_is_wrapped(plt):
    a = WordAlignment.of_matrix(torch.ones(1, 30), [f" word{i}" for i in range(30)], [" end"])
    ax = a.row(0).plot()
    lines = {t.get_position()[1] for t in ax.texts}
    assert lines == {0, 1, 2}
    assert max(t.get_position()[0] + len(t.get_text()) / 2 for t in ax.texts) <= 80


def test_nasty_texts_can_be_plotted(nasty_alignment, plt):
    ax = nasty_alignment.row(0).plot()
    ax.figure.savefig(io.BytesIO())
    assert visible("\x1b[31m") in {t.get_text() for t in ax.texts}
    nasty_alignment.plot().figure.savefig(io.BytesIO())


def test_edits_are_listed_by_score_and_changes_are_coloured(table):
    text = printed(render_counterfactuals_terminal, table)
    order = [line.split()[0] for line in text.splitlines() if re.match(r"\s*\d ", line)]
    assert order == ["3", "2", "1", "0"]
    assert "Spearman" in text
    assert "log-probability = -0.5" in text
    assert text.count("*") == 1 + 3, "another prediction than before is marked, three times of four"
    html = table._repr_html_()
    assert html.index(">3 d<") < html.index(">0 a<")
    assert "#0072b2" in html
    assert "#d55e00" in html


def test_a_small_p_isnt_printed_as_zero_and_is_said_to_be_one_sided(table):
    n = 9
    pairs = [(i, f"w{i}", float(i), "removed", "", 0.0, float(i), 0.1, Prediction(0, " a", 0.5)) for i in range(n)]
    c = dataclasses.replace(
        table,
        words=tuple(f"w{i}" for i in range(n)),
        scores=tuple(map(float, range(n))),
        edits=tuple(Edit(*pair) for pair in pairs),
    )
    assert c.agreement().p < 0.001
    for text in (printed(render_counterfactuals_terminal, c), unescape(c._repr_html_())):
        assert "p < 0.001, one-sided" in " ".join(text.split())
        assert "0.000" not in text
    assert re.search(r"p = 0\.\d{3}, one-sided", printed(render_counterfactuals_terminal, table))


def test_a_table_of_too_few_words_has_no_ranks(table):
    few = dataclasses.replace(table, edits=table.edits[:2])
    assert "Spearman" not in printed(render_counterfactuals_terminal, few)
    none = dataclasses.replace(table, edits=())
    assert "a b c d" in none._repr_html_()
