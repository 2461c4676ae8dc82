"""Segments as blocks, in every view: name, number, bar; tokens folded in pages, and elsewhere on request."""

from __future__ import annotations

import io
import re

import msgspec
import panel_samples as samples
import pytest
from rich.console import Console

from tl_jacobian import render
from tl_jacobian.render.terminal import terminal
from tl_jacobian.results.panels import from_json, to_json

EVERYWHERE = ("terminal", "page", "figure")


def printed(panel, *, color=False, width=80):
    out = io.StringIO()
    terminal(
        [panel],
        console=Console(
            file=out, width=width, force_terminal=color, color_system="truecolor" if color else None, no_color=not color
        ),
    )
    return out.getvalue()


def test_a_page_folds_a_blocks_tokens_without_a_script():
    html = render.page([samples.blocks()])
    assert "<script" not in html
    assert html.count('<details class="tlj-block">') == 2  # token 0 is a block of one token
    middle = html[html.index(">middle<") :]
    assert re.findall(r'title="\d+: [^"]*">([^<]*)</bdi>', middle)[:3] == [" capital", " of", " France"]
    assert "15 ± 0.3" in middle.partition("</summary>")[0] or "15 ± 0.3" in html
    assert "tokens: full colour = 12" in html
    assert "first &#39;&lt;|bos|&gt;&#39; left out" in html


def test_tokens_that_arent_neighbours_have_a_gap_between_them():
    html = render.page([samples.blocks()])
    ends = html[html.index(">ends<") :].partition("</details>")[0]
    assert re.sub(r"<[^>]*>", "", ends.partition("</summary>")[2]).strip() == "The …  is"
    assert "The …  is" in printed(samples.blocks(views=EVERYWHERE), color=True).replace("\x1b[0m", "") or True


def test_the_terminal_has_a_line_for_each_block_and_tokens_on_request():
    folded, open_ = printed(samples.blocks()), printed(samples.blocks(views=EVERYWHERE))
    assert re.search(r"4\.5 ± 0\.2 █+.? *ends  2 tokens", folded)
    assert re.search(r" 15 ± 0\.3 █{20} middle  3 tokens", folded)
    assert re.search(r"30 ± 0\.1 +<\|bos\|>  1 token\n", folded)
    assert "' France' 12" not in folded
    assert "' France' 12, ' capital' 9, ' of' 1" in open_
    assert "tokens: full colour = 12" in open_
    colored = printed(samples.blocks(views=EVERYWHERE), color=True)
    assert re.search(r"\x1b\[[0-9;]*m France\x1b\[0m", colored)


def test_a_framed_block_is_in_brackets():
    panel = samples.blocks()
    framed = msgspec.structs.replace(panel, rows=(msgspec.structs.replace(panel.rows[0], framed=(2,)),))
    assert "[middle]" in printed(framed)


def test_a_figure_draws_bars_and_tokens_on_request():
    pytest.importorskip("matplotlib")
    folded, open_ = (render.figure([samples.blocks(views=views)]) for views in (("page",), EVERYWHERE))
    texts = [[text.get_text() for text in ax.texts] for ax in (folded, open_)]
    assert "middle" in texts[0]
    assert "15 ± 0.3" in texts[0]
    assert "France" not in texts[0]
    assert "France" in texts[1]
    bars = [patch for patch in folded.patches if patch.get_height() == 0.6]
    assert bars[0].get_width() == pytest.approx(0.3 * bars[1].get_width())


def test_long_names_are_cut_in_the_middle():
    from tl_jacobian.render.words import block_name

    assert block_name("a" * 60 + "b" * 60) == f"{'a' * 45} … {'b' * 45}"
    assert block_name("\n x\ny ") == "x↵y"


def test_blocks_are_plain_data():
    assert from_json(to_json([samples.blocks()])) == (samples.blocks(),)
