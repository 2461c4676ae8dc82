"""Comparisons, and the choice between notebook and terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tl_jacobian import render
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.tokens import Word

Make = Callable[..., Attribution]


def test_a_comparison_has_a_row_and_a_label_each(make: Make, tmp_path: Path) -> None:
    one = make(["a", "b"], [1.0, 2.0])
    two = make(["a", "b"], [1e-4, 3e-5], scope="fisher", target="predicted distribution")
    html = render.compare([one, two]).to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count('class="tlj-tokens"') == 2
    assert html.count('class="tlj-label"') == 2
    assert html.count('class="tlj-next"') == 1
    assert re.findall(r"full colour = ([\d.e-]+)", html) == ["2", "0.0001"]


def test_a_comparison_scales_each_column_to_its_own_full_colour(make: Make) -> None:
    html = render.compare([make(["a", "b"], [1.0, 4.0]), make(["a", "b"], [-2e-4, 1e-4])])._repr_html_()
    assert '"columns":[[0.25,1.0],[-1.0,0.5]]' in html
    assert '"limit":1.0' in html
    assert "−full" in html


def test_comparing_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got an empty list"):
        render.compare([])


def test_comparing_other_prompts_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match=r"0 and 2 aren't of the same tokens \(1 units, 'a' and 2 units, 'ab'\)"):
        render.compare([make(["a"]), make(["a"]), make(["a", "b"])])


def test_comparing_tokens_with_words_is_refused(make: Make) -> None:
    tokens = make(["un", "do"], word_groups=(Word("undo", 2),))
    with pytest.raises(ValueError, match="all per token or all per word"):
        render.compare([tokens, tokens.words()])
    assert "undo" in render.compare([tokens.words(), tokens.words()])._repr_html_()


def test_a_comparison_of_one_is_an_ordinary_figure(paris: Attribution) -> None:
    assert 'tlj-label"' not in render.compare([paris])._repr_html_()


def test_repr_names_what_is_compared(paris: Attribution) -> None:
    assert repr(render.compare([paris])) == "Comparison(semantic: logit of ' Paris')"


def test_show_prints_in_a_terminal(paris: Attribution, capsys: pytest.CaptureFixture[str]) -> None:
    paris.show()
    render.show([paris, paris], skip_first=True)
    render.compare([paris, paris]).show()
    assert capsys.readouterr().out.count("Semantic Scope") == 5


def test_show_refuses_an_empty_list() -> None:
    with pytest.raises(ValueError, match="nothing to show"):
        render.show([])


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A fake Jupyter kernel; collects what is displayed."""
    shown: list[Any] = []
    html = SimpleNamespace(HTML=lambda data: data, display=shown.append)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=html))
    monkeypatch.setitem(sys.modules, "IPython.display", html)
    return shown


def test_show_displays_html_in_a_kernel(
    paris: Attribution, kernel: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    paris.show(skip_first=True)
    render.compare([paris, paris]).show()
    assert [str(html).startswith("<style>") for html in kernel] == [True, True]
    assert "left out of the colour range" in kernel[0]
    assert capsys.readouterr().out == ""


def test_ipython_without_a_kernel_is_a_terminal(
    paris: Attribution, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    paris.show()
    assert "Semantic Scope" in capsys.readouterr().out


@pytest.mark.usefixtures("unchecked")
def test_comparing_what_is_no_list_of_attributions_is_refused(make: Make) -> None:
    for wrong in (make(["a"], [1.0]), ["a"], [None]):
        with pytest.raises(ValueError, match=r"compare\(\) got .*, expected a list of attributions of one prompt"):
            render.compare(wrong)
