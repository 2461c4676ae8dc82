"""The state machine without any browser: its numbers are the library's, it stops, it lives on, nothing is mixed up."""

from __future__ import annotations

import json
import threading

import pytest
import torch
from cases import cases, make, shared
from readers import Reader, place
from untouched import assert_untouched, snapshot

import tl_jacobian as tj
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.methods import METHODS
from tl_jacobian.results.panels import Panel, to_json

TEXT = "the cat sat on"


@pytest.fixture
def tiny():
    """A place with a model that others use too."""
    found = place(shared("llama", "bridge"))
    yield found
    found.close()


def as_sent(panels: tuple[Panel, ...]) -> list[dict]:
    return json.loads(to_json(panels))


@pytest.mark.parametrize("case", cases("hooked", "bridge"))
def test_what_is_shown_is_what_the_library_says(case):
    model = shared(*case)
    tj.linearize(model, TEXT)
    before, here = snapshot(model), place(model)
    reader = Reader({"tiny": here})
    _, seen = reader.ask({"do": "read", "view": {"prompt": TEXT, "target": 101, "minus": 102}})
    lin = tj.linearize(model, TEXT)
    assert seen["panels"]["attribution"] == as_sent(tj.semantic_scope(lin, 101, minus=102).panels())
    assert seen["facts"]["predicted"] == [p.token for p in lin.predictions]
    assert [u["text"] for u in seen["panels"]["text"][0]["units"]] == list(lin.str_tokens)
    here.close()
    assert_untouched(before, model)


SLOW = [pytest.param(name, marks=pytest.mark.slow) if name == "path_integrated" else name for name in METHODS]


@pytest.mark.parametrize("name", SLOW)
def test_every_method_and_the_python_that_makes_the_same(tiny, name):
    _, seen = Reader({"tiny": tiny}).ask({"do": "read", "view": {"prompt": TEXT, "scope": name}})
    scope: dict = {"model": tiny.bench.model, "torch": torch}
    exec(seen["python"].rsplit("\n", 2)[0], scope)  # all but the line that shows it
    assert seen["panels"]["attribution"] == as_sent(scope["a"].panels())


@pytest.mark.parametrize("name", SLOW)
def test_every_method_explains_an_answer_and_a_position_inside_it(tiny, name):
    reader, view = Reader({"tiny": tiny}), {"prompt": TEXT, "answer": [101, 102], "scope": name}
    for more in ({"beside": "temperature"}, *([{"position": 14}] if name == "semantic" else [])):
        head, seen = reader.ask({"do": "read", "view": {**view, **more}})
        assert head["type"] == "done", head
        scope: dict = {"model": tiny.bench.model, "torch": torch}
        exec(seen["python"].rsplit("\n", 2)[0], scope)
        assert seen["panels"]["attribution"] == as_sent(scope["a"].panels())
        if "beside" in more:
            assert seen["panels"]["beside"] == as_sent(scope["b"].panels())


def test_a_chat_by_roles_a_series_and_side_by_side(tiny):
    reader, model = Reader({"tiny": tiny}), tiny.bench.model
    _, seen = reader.ask({"do": "read", "view": {"prompt": TEXT, "by": "words", "beside": "temperature"}})
    lin = tj.linearize(model, TEXT)
    assert seen["panels"]["attribution"] == as_sent(tj.semantic_scope(lin).words().panels())
    assert seen["panels"]["beside"] == as_sent(tj.temperature_scope(lin).words().panels())
    _, seen = reader.ask({"do": "read", "view": {"series": [0.1, 0.7, 0.4, 0.2, 0.9], "scope": "temperature"}})
    series = tj.timeseries.serialize([0.1, 0.7, 0.4, 0.2, 0.9], model)
    a = tj.temperature_scope(tj.linearize(model, list(series.tokens)))
    assert seen["panels"]["series"] == as_sent(tj.timeseries.number_influence(a, series).panels())
    head, _ = reader.ask({"do": "read", "view": {"messages": [{"role": "user", "content": "hi"}]}})
    assert head["error"] == "PromptError"
    assert "has no chat template" in head["message"]


def test_an_answer_its_span_and_an_earlier_position(tiny):
    reader, model = Reader({"tiny": tiny}), tiny.bench.model
    _, written = reader.ask({"do": "write", "view": {"prompt": TEXT}, "n_tokens": 3})
    answer = written["facts"]["answer"]
    view = {"prompt": TEXT, "answer": answer}
    _, seen = reader.ask({"do": "read", "view": {**view, "span": [1, 3]}})
    lin = tj.linearize(model, TEXT, answer=answer, span=slice(1, 3))
    assert seen["panels"]["attribution"] == as_sent(tj.semantic_scope(lin).panels())
    assert len(seen["panels"]["text"][0]["units"]) == seen["facts"]["answer_start"] + len(answer)
    _, seen = reader.ask({"do": "read", "view": {**view, "position": 4}})
    assert seen["panels"]["attribution"] == as_sent(tj.semantic_scope(tj.linearize(model, TEXT, position=4)).panels())


@pytest.mark.parametrize("scope", ["semantic", "fisher", "leave_one_out"])
def test_pairs_of_tokens(tiny, scope):
    reader, model = Reader({"tiny": tiny}), tiny.bench.model
    _, seen = reader.ask({"do": "pairs", "view": {"prompt": TEXT, "scope": scope}})
    lin = tj.linearize(model, TEXT)
    expected = tj.token_interactions(lin, **(METHODS[scope].direction or {"scope": "semantic"})).correlation()
    assert seen["panels"]["pairs"] == as_sent(expected.panels()[:2])
    assert [panel["kind"] for panel in seen["panels"]["pairs"]] == ["heatmap", "table"]
    assert len(seen["notes"]) == (scope == "leave_one_out")
    made: dict = {"model": model}
    exec(seen["python"].replace(".show()", "").replace("tj.token", "found = tj.token"), made)
    assert made["found"].values.equal(expected.values)
    _, seen = reader.ask({"do": "pairs", "view": {"prompt": TEXT, "by": "words"}})
    grouped = tj.token_interactions(lin, "semantic").words().correlation()
    assert seen["panels"]["pairs"] == as_sent(grouped.panels()[:2])


def test_the_drill_down_and_the_head(tiny):
    reader, model = Reader({"tiny": tiny}), tiny.bench.model
    view = {"prompt": TEXT, "target": 101}
    _, seen = reader.ask({"do": "drill", "view": view, "positions": [3]})
    lin = tj.linearize(model, TEXT, record=True)
    score = tj.semantic_scope(lin, 101).scores[3].item()
    assert [sum(row) for row in seen["panels"]["route"][0]["values"]] == pytest.approx([score] * 3, rel=1e-5)
    heads = tj.head_influence(lin, target=101, kind="gradient_x_activation")
    assert seen["panels"]["heads"] == as_sent(heads.panels())
    sources = tj.residual_contributions(lin, target=101).sources
    read = [value for row in seen["panels"]["reads"][0]["values"] for value in row]
    assert read == pytest.approx(sources.values[:, 3].tolist())
    _, seen = reader.ask({"do": "head", "view": view, "layer": 1, "head": 2})
    pattern = lin.taps["blocks.1.attn.hook_pattern"][2]
    assert seen["panels"]["pattern"][0]["values"][-1] == pytest.approx(pattern[-1].tolist())
    assert sum(seen["panels"]["pattern"][0]["values"][4]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"change": "drop", "positions": [2]},
        {"change": "edit", "positions": [5, 6, 7], "text": "dog"},
        {"change": "silence", "kind": "head", "layer": 1, "heads": [2]},
        {
            "change": "patch",
            "kind": "resid_pre",
            "layer": 1,
            "edited": [5, 6, 7],
            "positions": [5, 6, 7],
            "text": "dog",
        },
        {"change": "patch", "kind": "head", "layer": 1, "heads": [2], "edited": [5, 6, 7], "text": "dog"},
    ],
)
@pytest.mark.parametrize(
    "view", [{"prompt": TEXT}, {"prompt": TEXT, "target": 101}, {"prompt": TEXT, "answer": [101, 102]}]
)
def test_promise_and_truth_stand_side_by_side_and_the_python_gives_the_same(tiny, change, view):
    reader = Reader({"tiny": tiny})
    head, seen = reader.ask({"do": "try", "view": view, **change})
    assert head["type"] == "done", head
    bars = {bar["name"]: bar["value"] for bar in seen["panels"]["test"][0]["bars"]}
    assert bars == {
        "promised (first order)": seen["facts"]["promised"],
        "true effect (run again)": seen["facts"]["effect"],
    }
    lines = seen["python"].strip().splitlines()
    scope: dict = {"model": tiny.bench.model}
    exec("\n".join([*lines[:-1], "found = " + lines[-1].removesuffix(".show()")]), scope)
    assert scope["found"].promised == pytest.approx(seen["facts"]["promised"], rel=1e-6, abs=1e-9)
    assert scope["found"].effect == pytest.approx(seen["facts"]["effect"], rel=1e-6, abs=1e-9)
    if change["change"] == "edit" and view == {"prompt": TEXT}:
        model = tiny.bench.model
        lins = [tj.linearize(model, text) for text in (TEXT, "the dog sat on")]
        top = int(lins[0].logits.argmax())
        true = float(lins[1].logits[top] - lins[0].logits[top])
        assert seen["facts"]["effect"] == pytest.approx(true, rel=1e-6, abs=1e-9)


def test_what_was_computed_is_kept_until_weights_or_hooks_change():
    model = make("llama", "bridge")
    here = place(model)
    reader = Reader({"tiny": here})
    ask = {"do": "read", "view": {"prompt": TEXT}}
    first, again = reader.send(ask), reader.send(ask, lane="other")
    assert reader.wait(first)[1] == reader.wait(again)[1]
    assert "started" not in reader.of(again)
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: 0.5 * x)]):
        hooked = reader.ask(ask)[1]
        assert hooked["panels"] != reader.wait(first)[1]["panels"]
    assert reader.ask(ask)[1]["panels"] == reader.wait(first)[1]["panels"]
    with torch.no_grad():
        model.W_U[:] *= 2
    assert reader.ask(ask)[1]["panels"] != reader.wait(first)[1]["panels"]
    here.close()


def test_a_full_cache_forgets_what_was_used_longest_ago():
    here = place(shared("llama", "bridge"), answers=9000, linearizations=1)
    reader = Reader({"tiny": here})
    for text in ("abcd", "bcda", "cdab", "dabc"):
        reader.ask({"do": "read", "view": {"prompt": text}})
    assert 0 < here.bench.answers.size <= 9000
    assert len(here.bench.linearizations) == 0
    here.close()


def test_a_text_too_large_to_be_kept_is_run_once_an_ask(monkeypatch):
    here, runs = place(shared("llama", "bridge"), linearizations=1), []

    def counted(*args, **options):
        runs.append(options)
        return tj.linearize(*args, **options)

    monkeypatch.setattr("tl_jacobian.app.bench.linearize", counted)
    head, _ = Reader({"tiny": here}).ask({"do": "read", "view": {"prompt": TEXT, "beside": "temperature"}})
    assert head["type"] == "done"
    assert len(runs) == 1
    assert not here.bench._now
    here.close()


class Slow:
    """A hook that waits, so that something can happen in the meantime."""

    def __init__(self) -> None:
        self.inside, self.go = threading.Event(), threading.Event()

    def __call__(self, x, hook):
        self.inside.set()
        self.go.wait(20)
        return x


@pytest.fixture
def held():
    """A place whose model waits in its first block."""
    model, slow = make("llama", "bridge"), Slow()
    here = place(model)
    here.bench.warm()
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", slow)]):
        yield here, slow
        slow.go.set()
        here.close()


def test_cancel_stops_what_runs_before_the_next_block(held):
    here, slow = held
    reader = Reader({"tiny": here})
    running = reader.send({"do": "read", "view": {"prompt": TEXT}})
    assert slow.inside.wait(20)
    reader.send(None, cancel=running)
    slow.go.set()
    assert reader.wait(running)[0]["type"] == "cancelled"
    assert reader.ask({"do": "read", "view": {"prompt": TEXT}})[0]["type"] == "done"


def test_newer_requests_take_the_place_of_older_ones_of_their_lane_alone(held):
    here, slow = held
    one, two = Reader({"tiny": here}), Reader({"tiny": here})
    first = one.send({"do": "read", "view": {"prompt": TEXT}})
    assert slow.inside.wait(20)
    others = two.send({"do": "read", "view": {"prompt": "another"}})
    drill = one.send({"do": "drill", "view": {"prompt": TEXT}, "positions": [1]}, lane="drill")
    second = one.send({"do": "read", "view": {"prompt": "b"}})
    third = one.send({"do": "read", "view": {"prompt": "c"}})
    assert one.wait(second)[0]["type"] == "cancelled"
    slow.go.set()
    assert [one.wait(n)[0]["type"] for n in (first, drill, third)] == ["cancelled", "done", "done"]
    text = "".join(u["text"] for u in two.wait(others)[1]["panels"]["text"][0]["units"])
    assert text.endswith("another")
    assert {head["id"] for head, _ in two.got} == {others}


def test_a_reader_who_leaves_frees_the_work(held):
    here, slow = held
    gone, here_still = Reader({"tiny": here}), Reader({"tiny": here})
    gone.send({"do": "read", "view": {"prompt": TEXT}})
    assert slow.inside.wait(20)
    for n in range(5):
        gone.send({"do": "read", "view": {"prompt": f"text {n}"}}, lane=str(n))
    kept = here_still.send({"do": "read", "view": {"prompt": "mine"}})
    gone.session.close()
    assert here.worker.waiting == 2
    before = len(gone.got)
    slow.go.set()
    assert here_still.wait(kept)[0]["type"] == "done"
    assert len(gone.got) == before


@pytest.mark.parametrize(
    ("ask", "error", "remedy"),
    [
        ({"do": "read", "view": {"prompt": "a" * 70}}, "PromptError", "shorten it by 7 tokens"),
        ({"do": "read", "view": {"prompt": "", "bos": False}}, "PromptError", "expected at least one token"),
        ({"do": "read", "view": {}}, "PromptError", "type something"),
        ({"do": "read", "view": {"prompt": "a", "target": 5000}}, "TargetError", "0 to 299"),
        ({"do": "read", "view": {"prompt": "a", "scope": "mine"}}, "ArgumentError", "expected semantic"),
        ({"do": "read", "view": {"prompt": "a", "model": "../secret"}}, "PromptError", "expected one of 'tiny'"),
        ({"do": "read", "view": {"prompt": "a", "path": "/etc/passwd"}}, "not understood", "unknown field `path`"),
        ({"do": "read", "view": {"prompt": 3}}, "not understood", "Expected `str"),
        ({"do": "load", "view": {}}, "not understood", "Invalid value 'load'"),
        ({"do": "head", "view": {"prompt": "abc"}, "layer": 9, "head": 0}, "ArgumentError", "no head 0 in layer 9"),
        ({"do": "drill", "view": {"prompt": "abc"}, "positions": [50]}, "ArgumentError", "comes after"),
        ({"do": "try", "view": {"prompt": "abc"}, "change": "silence", "layer": 7}, "ArgumentError", "expected 0 to 2"),
    ],
)
def test_what_can_not_be_is_a_message_with_a_remedy_and_the_session_lives_on(tiny, ask, error, remedy):
    reader = Reader({"tiny": tiny})
    head, _ = reader.ask(ask)
    assert (head["type"], head["error"]) == ("failed", error)
    assert remedy in head["message"]
    assert reader.ask({"do": "read", "view": {"prompt": TEXT}})[0]["type"] == "done"


@pytest.mark.parametrize("message", ["{", "[]", "null", '{"id": true}', b"\xff", '{"id": 1e400}', "[" * 100_000, 3])
def test_messages_that_are_no_requests_are_answered(tiny, message):
    reader = Reader({"tiny": tiny})
    reader.session.handle(message)
    assert reader.got[0][0]["type"] == "failed"


def test_a_crash_in_a_hook_is_told_without_any_path():
    model = make("llama", "bridge")
    here = place(model)
    reader = Reader({"tiny": here})

    def broken(x, hook):
        raise OSError("can't read /home/somebody/secrets/key.pem today")

    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", broken)]):
        head, _ = reader.ask({"do": "read", "view": {"prompt": TEXT}})
    assert "OSError in broken()" in head["message"]
    assert "reset_hooks" in head["message"]
    assert "/home" not in head["message"]
    assert reader.ask({"do": "read", "view": {"prompt": TEXT}})[0]["type"] == "done"
    here.close()


def test_warnings_of_the_library_are_notes_in_the_view(tiny):
    model = make("llama", "bridge")
    bench = Bench(model, "tiny")
    from tl_jacobian.app.asks import Read, View

    with model.hooks(fwd_hooks=[("blocks.1.hook_attn_out", lambda x, hook: x.detach())]):
        body = json.loads(bench.answer(Read(view=View(prompt=TEXT))))
    assert "detach" in body["notes"][0]
