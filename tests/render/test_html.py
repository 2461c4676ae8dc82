"""The HTML that goes out: token text is text, and the scripts are there once."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tl_jacobian import render
from tl_jacobian.render import static
from tl_jacobian.render.colors import scale_of
from tl_jacobian.render.interactive import runtime_scripts, script_json
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.tokens import visible

Make = Callable[..., Attribution]

BUNDLE_MARK = "var CircuitsVis="

# Inline CSS that JupyterLab's sanitiser lets through in an untrusted notebook (packages/apputils/src/sanitizer.ts).
SAFE_CSS = {
    *("background-color", "background-image", "background-size", "border", "border-collapse", "display"),
    *("font-size", "height", "margin", "margin-left", "margin-top", "opacity", "padding", "text-align"),
    *("white-space", "width", "word-wrap"),
}


class Reader(HTMLParser):
    """Collects tokens (text, style, title), scripts, attributes and all visible text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tokens: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._open.append(tag)
        found = dict(attrs)
        if tag == "bdi" and "title" in found:
            self.tokens.append(("", found.get("style") or "", found["title"] or ""))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "bdi" and self.tokens:
            text, style, title = self.tokens[-1]
            self.tokens[-1] = (text + data, style, title)
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data


def draw(texts: list[str], scores: list[float] | None = None, *, skip_first: bool = False) -> str:
    count = len(texts)
    values = torch.tensor(scores or [1.0] * count)
    attribution = Attribution(
        scores=values, scope="s", target="t", tokens=tuple(range(count)), str_tokens=tuple(texts), position=count - 1
    )
    return static.tokens_html(attribution, scale_of(values, skip_first=skip_first))


def opacities(reader: Reader) -> list[int]:
    found = (re.search(r"background-color:#[0-9a-f]{6}([0-9a-f]{2})", style) for _, style, _ in reader.tokens)
    return [int(match[1], 16) for match in found if match]


# -- text stays text -------------------------------------------------------------


@given(st.lists(st.text(st.characters()), min_size=1, max_size=8))
def test_parsing_the_static_view_gives_back_exactly_the_visible_texts(texts: list[str]) -> None:
    reader = Reader(draw(texts))
    assert [text for text, _, _ in reader.tokens] == [visible(text) for text in texts]
    assert set(reader.tags) <= {"div", "bdi", "br"}


@given(st.text(st.characters()))
def test_script_json_holds_nothing_that_ends_or_hides_a_script(text: str) -> None:
    encoded = script_json({"tokens": [text]})
    assert encoded.isascii()
    assert not set("<>&") & set(encoded)
    assert "\n" not in encoded


def test_script_json_refuses_numbers_that_are_not_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json([float("nan")])


def test_nasty_texts_add_no_element_and_no_script(nasty: Attribution, make: Make, tmp_path: Path) -> None:
    plain = make(["x\n" if "\n" in t else "x" for t in nasty.str_tokens], metadata={"score": "s", "model": "m"})
    ours = Reader(render.write_html([nasty], tmp_path / "nasty.html").read_text(encoding="utf-8"))
    expected = Reader(render.write_html([plain], tmp_path / "plain.html").read_text(encoding="utf-8"))
    assert ours.tags == expected.tags
    assert not [name for name, _ in ours.attributes if name.startswith("on")]
    assert ours.scripts[:2] == expected.scripts[:2] == list(runtime_scripts())


def test_title_and_header_are_escaped(nasty: Attribution, tmp_path: Path) -> None:
    html = render.write_html([nasty], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>document.title" not in html
    assert "<title>Semantic Scope: logit of &lt;/script&gt;" in html


def test_a_newline_token_breaks_the_line_once() -> None:
    assert draw(["a", "\n\n\n", "b"]).count("<br>") == 1
    assert draw(["a", "b"]).count("<br>") == 0


def test_each_token_is_isolated_from_its_neighbours_direction() -> None:
    reader = Reader(draw(["abc", "שלום", " def"]))
    assert reader.tags.count("bdi") == 3


# -- colour ------------------------------------------------------------------------


def test_background_follows_the_score() -> None:
    scores = [0.0, 3.0, 1.0, 2.0, 4.0]
    drawn = opacities(Reader(draw(list("abcde"), scores)))
    assert sorted(range(5), key=drawn.__getitem__) == sorted(range(5), key=scores.__getitem__)
    assert drawn[0] == 0


def test_signed_scores_have_two_hues() -> None:
    html = draw(["a", "b"], [-1.0, 1.0])
    assert "#0072b2b2" in html
    assert "#d55e00b2" in html


def test_skip_first_hatches_the_first_token_and_says_so() -> None:
    reader = Reader(draw(["<bos>", "a", "b"], [90.0, 1.0, 2.0], skip_first=True))
    (_, style, title), (_, _, second), _ = reader.tokens
    assert "background-color" not in style
    assert "linear-gradient" in style
    assert title == "0: 90 (left out of the colour range)"
    assert second == "1: 1"
    assert opacities(reader) == [89, 178]


def test_tooltips_give_score_and_standard_error(make: Make) -> None:
    attribution = make(["a"], [3.14159], stderr=torch.tensor([0.25]))
    reader = Reader(static.tokens_html(attribution, scale_of(attribution.scores)))
    assert reader.tokens == [("a", "background-color:#d55e00b2", "0: 3.14 ± 0.25")]


def test_inline_css_survives_a_notebook_sanitiser(nasty: Attribution, paris: Attribution) -> None:
    for html in (render.notebook_html([paris], skip_first=True), render.compare([nasty, nasty])._repr_html_()):
        styles = [value for name, value in Reader(html).attributes if name == "style"]
        used = {rule.split(":")[0].strip() for style in styles for rule in style.split(";") if rule}
        assert used <= SAFE_CSS


def test_markup_stays_compact(make: Make) -> None:
    texts = [" token"] * 2000
    attribution = make(texts)
    assert len(static.tokens_html(attribution, scale_of(attribution.scores))) < 80 * len(texts)


# -- words around --------------------------------------------------------------------


def test_the_figure_says_what_was_explained_and_by_what(make: Make) -> None:
    facts = {"score": "change of logit", "model": "tiny", "host": "TransformerBridge", "dtype": "bfloat16"}
    html = render.notebook_html([make([" a", " is"], [1.0, 2.5], metadata={**facts, "value": 14.23})])
    body = html[: html.index("<script>")]
    for text in (
        "Semantic Scope",
        "logit of &#x27; Paris&#x27; = 14.2",
        "after token 1 &#x27; is&#x27;",
        *facts.values(),
    ):
        assert text in body
    for text in ("range 1 to 2.5", " Paris", "75.0%", "&lt;b&gt;↵", "5.0%"):
        assert text in body


def test_without_predictions_there_is_no_distribution(make: Make) -> None:
    assert 'tlj-next"' not in render.notebook_html([make(["a"], predictions=())])


# -- scripts: once, and offline --------------------------------------------------------


def test_a_page_with_three_figures_holds_the_bundle_once(paris: Attribution, tmp_path: Path) -> None:
    html = render.write_html([paris, paris, paris], tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count(BUNDLE_MARK) == 1
    assert html.count("<style>") == 2
    assert len(re.findall(r'id="tlj-\d"', html)) == 3
    assert len(Reader(html).scripts) == 2 + 3


def test_a_notebook_holds_the_bundle_once(paris: Attribution) -> None:
    outputs = [render.notebook_html([paris]), paris._repr_html_(), render.compare([paris, paris])._repr_html_()]
    assert [output.count(BUNDLE_MARK) for output in outputs] == [1, 0, 0]
    assert all(len(output) < 20_000 for output in outputs[1:])
    ids = re.findall(r'id="(tlj-\w+)"', "".join(outputs))
    assert len(set(ids)) == 3
    render.embed_scripts_again()
    assert BUNDLE_MARK in render.notebook_html([paris])


def test_the_bundle_can_be_embedded_in_a_script() -> None:
    bundle, mount = runtime_scripts()
    for script in (bundle, mount):
        assert not re.search(r"</script|<!--", script, re.IGNORECASE)
        assert "sourceMappingURL" not in script
        assert "\r" not in script
    assert len(bundle) > 1_000_000


def test_no_reference_to_a_resource(nasty: Attribution, paris: Attribution, tmp_path: Path) -> None:
    html = render.write_html([paris, nasty], tmp_path / "page.html").read_text(encoding="utf-8")
    reader = Reader(html)
    assert not [name for name, _ in reader.attributes if name in {"src", "href", "srcset", "action", "data"}]
    outside = html.replace(runtime_scripts()[0], "")
    assert not re.search(r"https?://|@import|url\(|import\(", outside)


def test_the_page_forbids_requests_and_foreign_scripts(paris: Attribution, tmp_path: Path) -> None:
    html = render.write_html([paris], tmp_path / "page.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "unsafe-inline" not in policy[1].split("script-src")[1]


# -- files -------------------------------------------------------------------------------


def test_write_html_returns_the_path_and_overwrites(paris: Attribution, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")
    assert paris.to_html(str(target)) == target
    assert target.read_bytes().decode("utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o400


def test_the_same_attribution_gives_the_same_page(paris: Attribution, tmp_path: Path) -> None:
    one, two = (paris.to_html(tmp_path / name).read_bytes() for name in ("one.html", "two.html"))
    assert one == two


def test_a_missing_folder_is_an_os_error(paris: Attribution, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        paris.to_html(tmp_path / "missing" / "page.html")


def test_a_failed_write_leaves_nothing_behind(paris: Attribution, tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="folder"):
        paris.to_html(target)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# -- refusals --------------------------------------------------------------------------------


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        render.write_html([], tmp_path / "page.html")
    with pytest.raises(ValueError, match="nothing to draw"):
        render.notebook_html([])


def test_scores_that_are_not_finite_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="only finite scores can be drawn"):
        render.notebook_html([make(["a"], [float("nan")])])
