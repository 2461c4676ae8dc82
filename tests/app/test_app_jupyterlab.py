"""A real JupyterLab in Debian's chromium: every action of the view in a cell, and what outlives its kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from chromium import NEEDED

import tl_jacobian as tj

pytestmark = [pytest.mark.slow, NEEDED]
if "CI" not in os.environ:
    pytest.importorskip("anywidget", reason="the extra app isn't installed")
    pytest.importorskip("jupyterlab", reason="JupyterLab isn't installed")

PROMPT = "The Eiffel Tower stands in Paris. The Colosseum stands in"
LOAD = "import tl_jacobian as tj\nmodel = tj.load_demo_model('bridge')"
VIEW = f"view = tj.explore(model, {PROMPT!r})\nview"


@pytest.fixture(scope="module")
def model():
    return tj.load_demo_model("bridge")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory):
    """A server of JupyterLab on a free port, with settings of its own; gives its address."""
    home = tmp_path_factory.mktemp("jupyter")
    (home / "labconfig").mkdir()
    unwanted = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (home / "labconfig" / "page_config.json").write_text(json.dumps(unwanted))
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ServerApp.port=0", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=t"),
    ]
    with open(home / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield _address(home / "runtime", process, home / "log")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # its own kernels keep it from ending on a busy machine
            process.kill()
            process.wait()


def _address(runtime, process, log):
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        for found in runtime.glob("jpserver-*.json"):
            url = json.loads(found.read_text())["url"].replace("localhost", "127.0.0.1")
            try:
                urllib.request.urlopen(f"{url}api/status?token=t", timeout=5)
            except OSError:
                break
            return url
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


@pytest.fixture
def open_notebook(lab, folder, browser):
    """Opens a notebook in JupyterLab on a page that reaches nothing else, and in the end has asked for nothing else."""
    outside, contexts = [], []

    def open_one(name, cells=None):
        if cells is not None:
            made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
            made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
            nbformat.write(made, folder / name)
        context = browser.new_context(viewport={"width": 1400, "height": 1300})
        context.set_default_timeout(60_000)

        def only_here(route):
            if route.request.url.startswith((lab, "blob:", "data:")):
                route.continue_()
            else:
                outside.append(route.request.url)
                route.abort()

        context.route("**/*", only_here)
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{lab}lab/workspaces/{name[:3]}/tree/{name}?token=t")  # which shows no other one's tabs
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert outside == []


def command(page, name):
    page.evaluate("name => window.jupyterapp.commands.execute(name)", name)


def kernel(page):
    return page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel")


def run(page):
    """Run all cells; gives the view."""
    kernel(page)
    command(page, "notebook:run-all-cells")
    return seen(page)


def seen(page):
    page.wait_for_selector(".tlx .tlx-token")
    settle(page)
    return page.locator(".tlx")


def settle(page):
    page.wait_for_timeout(150)
    page.locator(".tlx-status").wait_for(state="hidden")


def bars(view, section):
    rows = view.locator(f"{section} .tlx-bar")
    return [(r.locator(".tlx-name").inner_text(), r.locator(".tlx-value").inner_text()) for r in rows.all()]


STRONGEST, PREDICTED = ".tlx-side:not(.tlx-predicted)", ".tlx-predicted"


def listed(a, n=12):
    return [(one.text.strip(), f"{float(f'{one.score:.3g}'):g}") for one in a.top(n)]


def test_every_action_answers_in_a_cell_with_the_librarys_numbers(open_notebook, model):
    page = open_notebook("actions.ipynb", [LOAD, VIEW])
    view = run(page)
    lin = tj.linearize(model, PROMPT)
    assert bars(view, STRONGEST) == listed(tj.semantic_scope(lin))

    # another token, a contrast, an earlier position
    second, third = lin.predictions[1].token, lin.predictions[2].token
    view.locator(".tlx-predicted .tlx-bar").nth(1).click()
    settle(page)
    view.locator(".tlx-predicted .tlx-bar").nth(2).click(modifiers=["Shift"])
    settle(page)
    assert bars(view, STRONGEST) == listed(tj.semantic_scope(lin, second, minus=third))
    view.locator(".tlx-place").nth(5).click()
    settle(page)
    assert bars(view, STRONGEST) == listed(tj.semantic_scope(tj.linearize(model, PROMPT, position=5)))

    # scopes side by side, with error bars; words
    view.get_by_role("button", name="Back to the prompt's prediction").click()
    settle(page)
    selects = view.locator(".tlx-how select")
    selects.nth(1).select_option("fisher")
    settle(page)
    assert view.locator(".tlx-whisker").count() > 5
    selects.nth(2).select_option("words")
    settle(page)
    assert view.locator(".tlx-joined").count() > 2
    selects.nth(1).select_option("")
    selects.nth(2).select_option("tokens")
    settle(page)

    # down to a head with the keyboard; its key events are the view's, not the notebook's
    view.locator(".tlx-token").nth(10).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".tlx-panel-curves")
    settle(page)
    canvas = view.locator(".tlx-panel-heatmap canvas").nth(1)
    canvas.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tlx-headbox .tlx-panel-tokenstrip")
    view.locator(".tlx-token").nth(10).focus()
    page.keyboard.press("x")
    page.wait_for_selector(".tlx-result")
    from tl_jacobian.analyses.interventions import intervene

    found = intervene(tj.linearize(model, PROMPT), positions=[10])
    assert dict(bars(view, ".tlx-result .tlx-panel:first-child")) == {
        "promised (first order)": f"{float(f'{found.promised:.3g}'):g}",
        "true effect (run again)": f"{float(f'{found.effect:.3g}'):g}",
    }
    assert page.locator(".jp-Notebook .jp-Cell").count() == 2  # "x" cut no cell

    # an answer of the model's own, and one of its tokens
    view.locator("input[aria-label='Tokens to write at most']").fill("4")
    view.get_by_role("button", name="Write an answer").click()
    page.wait_for_selector(".tlx-answer")
    settle(page)
    answered = tj.linearize(model, PROMPT, answer=tj.GENERATE, max_new_tokens=4)
    assert "".join(view.locator(".tlx-answer .tlx-word").all_inner_texts()) == answered.text
    assert bars(view, STRONGEST) == listed(tj.semantic_scope(answered))

    # a wrong request says what is wrong; cancelling works; the session lives on
    view.locator("textarea[aria-label=Prompt]").fill("word " * 9000)
    view.get_by_role("button", name="Explain", exact=True).click()
    view.locator(".tlx-error-box").wait_for()
    assert "shorten it" in view.locator(".tlx-error-box").inner_text()
    view.locator("textarea[aria-label=Prompt]").fill("The capital of France is")
    view.locator("textarea[aria-label=Prompt]").press("Control+Enter")
    page.wait_for_function("() => document.querySelectorAll('.tlx-word').length === 5")
    settle(page)
    assert bars(view, STRONGEST) == listed(tj.semantic_scope(tj.linearize(model, "The capital of France is")))
    with page.expect_download() as download:
        view.locator(".tlx-menu summary").click()
        view.get_by_role("button", name="JSON").click()
    assert tj.Attribution.load(download.value.path()).scope == "semantic"


def test_a_reload_a_restart_and_a_notebook_that_is_opened_without_a_kernel(open_notebook, folder):
    page = open_notebook("outlives.ipynb", [LOAD, VIEW])
    view = run(page)
    view.locator(".tlx-how select").nth(0).select_option("temperature")
    settle(page)
    before = bars(view, STRONGEST)
    assert page.locator("[id^=tlx-still]").is_hidden()
    command(page, "docmanager:save")

    # A reload: the kernel lives, and the view is as it was.
    page.reload()
    view = seen(page)
    assert bars(view, STRONGEST) == before
    assert view.locator(".tlx-how select").nth(0).input_value() == "temperature"

    # A restart: what is on the screen stays, the next click says what to do, and running again works.
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    view.locator(".tlx-error-box").wait_for()
    assert "run the cell again" in view.locator(".tlx-error-box").inner_text()
    view = run(page)
    page.wait_for_function("() => document.querySelector('.tlx-how select').value === 'semantic'")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    command(page, "docmanager:save")
    page.wait_for_timeout(500)

    # Opened again without a kernel: the first picture, static.
    notebook = nbformat.read(folder / "outlives.ipynb", 4)
    assert "tlj-figure" in json.dumps(notebook.cells[1].outputs)
    again = open_notebook("outlives.ipynb")
    again.wait_for_selector("[id^=tlx-still] .tlj-figure")
    assert again.locator("[id^=tlx-still]").is_visible()
    assert again.locator(".tlx").count() == 0
