"""The notebook's home without a notebook: its messages, its saved page, what a notebook without a kernel shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from cases import make, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError

if "CI" not in os.environ:
    pytest.importorskip("anywidget", reason="the extra app isn't installed")


def asked(view, ask):
    """The answer to a message as the front end sends it."""
    got, done = [], threading.Event()

    def send(content, buffers=None):
        got.append((content, json.loads(buffers[0]) if buffers else None))
        if content["type"] in ("done", "failed"):
            done.set()

    view.send = send
    view._handle_custom_msg({"id": 1, "key": json.dumps(ask), "ask": ask}, [])
    assert done.wait(60)
    return got[-1]


def test_it_computes_with_the_users_model_and_hooks():
    model = make("llama", "bridge")
    view = tj.explore(model, "the cat")
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: 0.5 * x)]):
        head, body = asked(view, {"do": "read", "view": {"prompt": "the cat"}})
        here = tj.semantic_scope(tj.linearize(model, "the cat")).scores
    assert head["type"] == "done"
    assert body["panels"]["attribution"][0]["rows"][0]["values"] == pytest.approx(here.tolist())
    view.close()


def test_a_linearization_is_looked_at_as_it_was_made():
    model = shared("llama", "bridge")
    lin = tj.linearize(model, "the cat sat", position=5)
    view = tj.explore(lin)
    first = json.loads(view.hello)["view"]
    _, body = asked(view, {"do": "read", "view": first})
    scores = torch.tensor(body["panels"]["attribution"][0]["rows"][0]["values"])
    torch.testing.assert_close(scores, tj.semantic_scope(lin).scores)
    view.close()
    answered = tj.linearize(model, "the cat", answer=" sat")
    view = tj.explore(answered)
    _, body = asked(view, {"do": "read", "view": json.loads(view.hello)["view"]})
    scores = torch.tensor(body["panels"]["attribution"][0]["rows"][0]["values"])
    torch.testing.assert_close(scores, tj.semantic_scope(answered).scores)
    view.close()


def test_without_a_kernel_there_is_a_static_picture_and_a_page_can_be_saved(tmp_path, monkeypatch):
    view = tj.explore(shared("llama", "bridge"), "a</script>b")
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    view._ipython_display_()
    static, live = shown
    assert static.data.startswith(f'<div id="{view.still}"><style>')
    assert "tlj-figure" in static.data
    assert "application/vnd.jupyter.widget-view+json" in live
    ask = {"do": "read", "view": {"prompt": "a</script>b"}}
    asked(view, ask)
    page = view.to_html(tmp_path / "page.html").read_text()
    assert page.count("</script>") == 2
    assert "script-src 'sha256-" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert view._esm.count("export ") == 1
    assert "import {" not in view._esm
    view.close()


@pytest.mark.parametrize("prompt", [3, [], [True], {"a": 1}])
def test_what_is_no_prompt_is_refused(prompt):
    with pytest.raises(ArgumentError, match="expected text, token ids, or a list of messages"):
        tj.explore(shared("llama", "bridge"), prompt)


@pytest.mark.slow
def test_importing_the_library_loads_neither_of_the_homes():
    code = "import sys, tl_jacobian; print({'anywidget', 'fastapi', 'uvicorn', 'ipywidgets'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_an_sae_of_the_users_is_in_the_view():
    model = shared("llama", "bridge")
    d = model.cfg.d_model
    sae = {"W_enc": torch.eye(d, dtype=torch.float64), "W_dec": torch.eye(d, dtype=torch.float64)}
    view = tj.explore(model, "the cat", sae=sae, sae_at="blocks.1.hook_resid_post")
    (facts,) = json.loads(view.hello)["models"].values()
    assert facts["sae"] == {"name": "the SAE", "size": d, "at": "blocks.1.hook_resid_post"}
    head, body = asked(view, {"do": "features", "view": {"prompt": "the cat"}})
    assert head["type"] == "done"
    assert "# sae: yours" in body["python"]
    view.close()
    with pytest.raises(ArgumentError, match="without sae="):
        tj.explore(model, sae_at="blocks.1.hook_resid_post")
