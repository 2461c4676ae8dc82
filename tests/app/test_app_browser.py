"""The real app on the demo model, in Debian's chromium: every action, with nothing but the app on the network."""

from __future__ import annotations

import pytest
import torch
from chromium import NEEDED
from served import serving

import tl_jacobian as tj
from tl_jacobian.analyses.edges import edge_attribution
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.features import sae_of
from tl_jacobian.app.session import Place

pytestmark = [pytest.mark.slow, NEEDED]

HOOK = "blocks.12.hook_resid_post"
DRAW = torch.Generator().manual_seed(0)
SAE = {"W_enc": torch.randn(576, 50, generator=DRAW) / 24, "W_dec": torch.randn(50, 576, generator=DRAW) / 24}
PROMPT = "The Eiffel Tower stands in Paris. The Colosseum stands in"


@pytest.fixture(scope="module")
def model():
    return tj.load_demo_model("bridge")


@pytest.fixture(scope="module")
def server(model):
    here = Place(Bench(model, "demo", sae=sae_of(SAE, HOOK)))
    here.bench.warm()
    with serving({"demo": here}) as found:
        yield found


@pytest.fixture
def open_page(server, browser):
    """Opens a page on which nothing but the app answers; at the end nothing may have gone wrong on it."""
    opened, wrong, outside = [], [], []

    def open_one(path="", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(60_000)

        def only_here(route):
            if route.request.url.startswith((server.url, "blob:", "data:", "file:")):
                route.continue_()
            else:
                outside.append(route.request.url)
                route.abort()

        context.route("**/*", only_here)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(path if path.startswith("file:") else server.url + path)
        page.wait_for_selector(".tlx-header")
        opened.append(context)
        return page

    yield open_one
    for context in opened:
        context.close()
    assert (wrong, outside) == ([], [])


def settle(page):
    page.wait_for_timeout(100)
    page.locator(".tlx-status").wait_for(state="hidden")


def explain(page, prompt=PROMPT):
    page.fill("textarea[aria-label=Prompt]", prompt)
    page.locator("textarea[aria-label=Prompt]").press("Control+Enter")
    page.wait_for_selector(".tlx-token")
    settle(page)


def bars(page, section):
    """Names and numbers of a list of bars."""
    rows = page.locator(f"{section} .tlx-bar")
    return [(r.locator(".tlx-name").inner_text(), r.locator(".tlx-value").inner_text()) for r in rows.all()]


def short(value):
    return f"{float(f'{value:.3g}'):g}".replace("e-0", "e-")


def test_a_prompt_its_prediction_and_what_drove_it_are_the_librarys_numbers(open_page, model):
    page = open_page()
    explain(page)
    lin = tj.linearize(model, PROMPT)
    a = tj.semantic_scope(lin)
    assert page.locator(".tlx-word").all_inner_texts() == list(lin.str_tokens)
    first = bars(page, ".tlx-side:not(.tlx-predicted)")
    assert first == [(one.text.strip(), short(one.score)) for one in a.top(12)]
    shown = bars(page, ".tlx-predicted")
    assert shown == [(p.text.strip(), f"{p.probability:.1%}") for p in lin.predictions]


def test_explaining_another_token_contrasting_and_an_earlier_position(open_page, model):
    page = open_page()
    explain(page)
    lin = tj.linearize(model, PROMPT)
    second, third = lin.predictions[1], lin.predictions[2]
    page.locator(".tlx-predicted .tlx-bar").nth(1).click()
    settle(page)
    page.locator(".tlx-predicted .tlx-bar").nth(2).click(modifiers=["Shift"])
    settle(page)
    a = tj.semantic_scope(lin, second.token, minus=third.token)
    assert bars(page, ".tlx-side:not(.tlx-predicted)")[0] == (a.top(1)[0].text.strip(), short(a.top(1)[0].score))
    assert page.locator(".tlx-mark").all_inner_texts() == ["explained", "contrast"]
    page.locator(".tlx-place").nth(5).click()
    settle(page)
    earlier = tj.linearize(model, PROMPT, position=5).predictions[0]
    assert bars(page, ".tlx-predicted")[0] == (earlier.text.strip(), f"{earlier.probability:.1%}")
    assert page.locator(".tlx-later").count() == len(lin.tokens) - 6


def test_with_the_keyboard_alone(open_page, model):
    page = open_page()
    explain(page)
    page.locator(".tlx-token").first.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.at") == "10"
    page.keyboard.press("Enter")
    page.wait_for_selector(".tlx-panel-curves")
    settle(page)
    assert page.locator(".tlx-panel-heatmap").count() >= 3
    canvas = page.locator(".tlx-panel-heatmap canvas").nth(1)
    canvas.focus()
    page.keyboard.press("ArrowDown")
    assert "layer 1, head H0" in page.locator("[aria-live=polite]").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector(".tlx-headbox .tlx-panel-tokenstrip")
    page.locator(".tlx-token").nth(10).focus()
    page.keyboard.press("x")
    page.wait_for_selector(".tlx-result")
    from tl_jacobian.analyses.interventions import intervene

    found = intervene(tj.linearize(model, PROMPT), positions=[10])
    shown = dict(bars(page, ".tlx-result .tlx-panel:first-child"))
    assert shown == {
        "promised (first order)": short(found.promised),
        "true effect (run again)": short(found.effect),
    }
    page.locator(".tlx-token").nth(4).focus()
    page.keyboard.press("p")
    settle(page)
    assert page.locator(".tlx-here .tlx-place").inner_text() == "4"


def test_an_answer_a_token_of_it_and_a_span(open_page, model):
    page = open_page()
    explain(page)
    page.fill("input[aria-label='Tokens to write at most']", "5")
    page.get_by_role("button", name="Write an answer").click()
    page.wait_for_selector(".tlx-answer")
    settle(page)
    lin = tj.linearize(model, PROMPT, answer=tj.GENERATE, max_new_tokens=5)
    assert "".join(page.locator(".tlx-answer .tlx-word").all_inner_texts()) == lin.text
    page.locator(".tlx-answer .tlx-word").nth(2).click()
    settle(page)
    assert page.locator(".tlx-explained").count() == 1
    one, three = (page.locator(".tlx-answer .tlx-word").nth(n).bounding_box() for n in (1, 3))
    page.mouse.move(one["x"] + 5, one["y"] + 8)
    page.mouse.down()
    page.mouse.move(three["x"] + 5, three["y"] + 8, steps=6)
    page.mouse.up()
    settle(page)
    assert page.locator(".tlx-explained").count() == 3
    span = tj.linearize(model, PROMPT, answer=list(lin.answer), span=slice(1, 4))
    best = tj.semantic_scope(span).top(1)[0]
    assert bars(page, ".tlx-side:not(.tlx-predicted)")[0] == (best.text.strip(), short(best.score))


def test_scopes_side_by_side_words_segments_and_error_bars(open_page):
    page = open_page()
    explain(page)
    selects = page.locator(".tlx-how select")
    selects.nth(1).select_option("fisher")
    settle(page)
    assert page.locator(".tlx-reading").count() == 2
    assert page.locator(".tlx-whisker").count() > 5
    selects.nth(2).select_option("words")
    settle(page)
    assert page.locator(".tlx-joined").count() > 2
    selects.nth(2).select_option("segments")
    page.fill("textarea[aria-label=Segments]", "tower: The Eiffel Tower stands in Paris.\narena: The Colosseum")
    page.locator("textarea[aria-label=Segments]").blur()
    settle(page)
    assert {name for name, _ in bars(page, ".tlx-side:not(.tlx-predicted)")} >= {"tower", "arena"}


def test_a_link_a_reload_and_a_saved_page(open_page, tmp_path):
    page = open_page()
    explain(page)
    page.locator(".tlx-how select").nth(0).select_option("temperature")
    settle(page)
    before = bars(page, ".tlx-side:not(.tlx-predicted)")
    page.reload()
    page.wait_for_selector(".tlx-token")
    settle(page)
    assert bars(page, ".tlx-side:not(.tlx-predicted)") == before
    page.locator(".tlx-how select").nth(0).select_option("semantic")
    settle(page)
    page.locator(".tlx-menu summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Page").click()
    path = tmp_path / "saved.html"
    download.value.save_as(path)
    for format in ("JSON", "SVG"):
        with page.expect_download() as download:
            page.get_by_role("button", name=format).click()
        download.value.save_as(tmp_path / format)
    assert tj.Attribution.load(tmp_path / "JSON").scope == "semantic"
    assert (tmp_path / "SVG").read_text().startswith("<?xml")
    saved = open_page(path.as_uri())
    saved.wait_for_selector(".tlx-token")
    saved.locator(".tlx-how select").nth(0).select_option("temperature")
    saved.wait_for_function("() => document.querySelector('.tlx-head b').textContent.startsWith('Temperature')")
    assert bars(saved, ".tlx-side:not(.tlx-predicted)") == before
    saved.locator(".tlx-word").nth(3).hover()
    assert "3: ' stands'" in saved.locator(".tlx-tip").inner_text() or saved.locator(".tlx-tip").is_visible()


def test_hostile_texts_run_nothing_and_are_seen(open_page):
    page = open_page()
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202eabc {{7*7}} javascript:alert(1)"
    explain(page, nasty)
    assert "⟨U+202E⟩" in "".join(page.locator(".tlx-word").all_inner_texts()) or page.locator("script").count() == 1
    assert page.locator("img").count() == 0
    link = page.url.split("#")[0] + "#s=" + "A" * 50
    page.goto(link)
    page.reload()
    page.wait_for_selector(".tlx-header")


def test_an_error_is_shown_with_its_remedy_and_the_view_lives_on(open_page):
    page = open_page()
    explain(page)
    page.fill("textarea[aria-label=Prompt]", "word " * 9000)
    page.get_by_role("button", name="Explain", exact=True).click()
    page.locator(".tlx-error-box").wait_for()
    assert "shorten it by" in page.locator(".tlx-error-box").inner_text()
    explain(page)
    assert page.locator(".tlx-error-box").is_hidden()


def test_a_pair_opens_the_drill_down_of_both(open_page):
    page = open_page()
    explain(page)
    page.locator("[data-tab=pairs]").click()
    page.get_by_text("Compare every pair").click()
    page.wait_for_selector(".tlx-panel-table")
    page.locator(".tlx-panel-heatmap canvas").first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector(".tlx-panel-curves")
    settle(page)
    assert page.locator("[data-tab=drill]").get_attribute("aria-selected") == "true"
    assert page.locator(".tlx-panel-heatmap").count() >= 3
    assert not page.locator(".tlx-error-box").is_visible()


def tab(page, name):
    """Go to a tab with the keyboard."""
    page.locator("[data-tab=drill]").focus()
    while page.evaluate("document.activeElement.dataset.tab") != name:
        page.keyboard.press("ArrowRight")
        settle(page)


def saved(page, open_page, path):
    page.locator(".tlx-menu summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Page").click()
    download.value.save_as(path)
    return open_page(path.as_uri())


def test_features_of_the_prediction_tokens_of_a_feature_and_the_feature_out(open_page, model, tmp_path):
    page = open_page()
    explain(page)
    tab(page, "features")
    lin = tj.linearize(model, PROMPT, record=[HOOK])
    f = tj.feature_scope(lin, SAE, at=HOOK)
    assert bars(page, ".tlx-detail .tlx-panel-bars") == [
        (name, short(value)) for name, value in zip(f.parts.names, f.parts.values.tolist(), strict=True)
    ]
    page.locator(".tlx-panel-heatmap canvas").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector(".tlx-headbox .tlx-panel-tokenstrip")
    settle(page)
    feature = f.features[0]
    assert f"feature {feature} of the stream" in page.locator(".tlx-headbox figcaption").inner_text()
    page.get_by_role("button", name="take it out and see").press("Enter")
    page.wait_for_selector(".tlx-result")
    promised = dict(bars(page, ".tlx-result .tlx-panel:first-child"))["promised (first order)"]
    assert promised == short(-f.effects.values[0, 3].item())
    page.locator("[data-tab=python]").click()
    assert f"written(h.flatten(1), {feature})" in page.locator(".tlx-python").inner_text()
    page.locator("[data-tab=features]").click()
    again = saved(page, open_page, tmp_path / "saved.html")
    again.wait_for_selector(".tlx-token")
    again.locator("[data-tab=features]").click()
    again.locator(".tlx-panel-heatmap canvas").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        again.keyboard.press(key)
    again.wait_for_selector(".tlx-headbox .tlx-panel-tokenstrip")


def test_edges_both_ends_and_one_of_them_measured(open_page, model, tmp_path):
    page = open_page()
    explain(page)
    page.locator(".tlx-predicted .tlx-bar").nth(1).press("Shift+Enter")
    settle(page)
    page.locator(".tlx-token").nth(9).focus()
    page.keyboard.press("Enter")
    settle(page)
    tab(page, "edges")
    page.fill("input[aria-label='Text of the other prompt']", " Par")
    page.locator("input[aria-label='Text of the other prompt']").press("Enter")
    page.wait_for_selector("tr.tlx-pick")
    settle(page)
    lin = tj.linearize(model, PROMPT)
    tokens, (first, second) = lin.tokens.tolist(), [p.token for p in lin.predictions[:2]]
    other = [*tokens[:9], *model.tokenizer.encode(" Par", add_special_tokens=False), *tokens[10:]]
    e = edge_attribution(model, tokens, other, target=first, minus=second, check=1)
    rows = [row.split("\t") for row in page.locator("tr.tlx-pick").all_inner_texts()]
    assert rows == [[one.sender, one.receiver, f"{one.predicted:.3g}"] for one in e.top(24)]
    head = next(i for i, one in enumerate(e.top(24)) if "H" in one.sender)
    page.locator("tr.tlx-pick").nth(head).press("Enter")
    page.wait_for_selector(".tlx-headbox .tlx-panel-tokenstrip")
    page.locator("tr.tlx-pick").first.press("Enter")
    page.get_by_role("button", name="measure it").press("Enter")
    page.wait_for_selector(".tlx-result")
    shown = dict(bars(page, ".tlx-result .tlx-panel:first-child"))
    assert shown["true effect (path patching)"] == short(e.checked[0].measured)
    page.get_by_role("button", name="patch L").first.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.tlx-result').length === 2")
    settle(page)
    again = saved(page, open_page, tmp_path / "saved.html")
    again.wait_for_selector(".tlx-token")
    again.locator("[data-tab=edges]").click()
    again.wait_for_selector("tr.tlx-pick")
    assert [row.split("\t") for row in again.locator("tr.tlx-pick").all_inner_texts()] == rows


def test_cancel_stops_and_a_map_of_200_tokens_opens_in_a_second(open_page):
    page = open_page()
    explain(page)
    page.locator(".tlx-how select").nth(0).select_option("leave_one_out")
    page.keyboard.press("Escape")
    settle(page)
    size, values = 200, [[abs(i - j) / 200 for j in range(i + 1)] for i in range(200)]
    panel = {
        "kind": "heatmap", "title": "map", "detail": "", "facts": [], "legend": [], "values": values,
        "rows": [str(i) for i in range(size)], "columns": [{"text": " t", "positions": [i]} for i in range(size)],
        "row_axis": "target", "column_axis": "token", "scales": [{"limit": 1, "low": 0, "high": 1, "signed": False}],
        "quantity": "q", "numbered": True, "hidden": [], "frames": [],
    }  # fmt: skip
    spent = page.evaluate(
        """async (panel) => {
          const { drawPanel } = await import("/explore/panels.js");
          const began = performance.now();
          document.querySelector(".tlx-card").append(drawPanel(panel));
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          return performance.now() - began;
        }""",
        panel,
    )
    assert spent < 1000


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (2560, "light")])
def test_no_width_scrolls_sideways_and_text_can_be_read(open_page, width, scheme):
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
    explain(page, "שלום לך, this is a test of both")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    names = page.evaluate(
        """() => [...document.querySelectorAll("button,select,textarea,input,canvas")]
          .filter((e) => e.getClientRects().length && !(e.ariaLabel || e.textContent.trim() || e.labels?.length))
          .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert names == []
    back, ink = page.evaluate(
        "() => { const s = getComputedStyle(document.querySelector('.tlx')); return [s.backgroundColor, s.color]; }"
    )
    assert _contrast(back, ink) > 7


def _contrast(one, other):
    from tl_jacobian.render.colors import contrast

    numbers = [tuple(int(x) for x in color[4:-1].split(",")) for color in (one, other)]
    return contrast(*numbers)


def test_two_tabs_do_not_mix(open_page):
    one, two = open_page(), open_page()
    one.fill("textarea[aria-label=Prompt]", "The capital of France is")
    two.fill("textarea[aria-label=Prompt]", "Two and two is")
    one.locator("textarea[aria-label=Prompt]").press("Control+Enter")
    two.locator("textarea[aria-label=Prompt]").press("Control+Enter")
    for page, text in ((one, "The capital of France is"), (two, "Two and two is")):
        page.wait_for_selector(".tlx-token")
        settle(page)
        assert "".join(page.locator(".tlx-word").all_inner_texts()) == text
