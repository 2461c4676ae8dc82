"""A start without PyTorch where nothing is computed, and Ctrl-C at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import tl_jacobian as tj

HEAVY = ("torch", "transformer_lens", "transformers", "numpy", "pandas", "scipy", "matplotlib")


def modules_after(code: str) -> set[str]:
    """The heavy modules that are loaded once this has run, in a process of its own."""
    ask = f"""
import contextlib, sys
with contextlib.suppress(SystemExit):
    {code}
print(*sys.modules, sep="|", file=sys.stderr)"""
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60)
    return set(done.stderr.strip().rsplit("\n", 1)[-1].split("|")) & set(HEAVY)


@pytest.mark.parametrize(
    "code",
    [
        "import tl_jacobian; dir(tl_jacobian)",
        "from tl_jacobian.__main__ import main; sys.argv = ['tl-jacobian', '--help']; main()",
        "from tl_jacobian.__main__ import main; sys.argv = ['tl-jacobian', 'run', '--help']; main()",
        "from tl_jacobian.__main__ import main; sys.argv = ['tl-jacobian', 'attribute', 'a', '--scope', 'all']; main()",
        "from tl_jacobian.__main__ import main; sys.argv = ['tl-jacobian', 'attribute', 'a', '--rank', '2']; main()",
    ],
)
def test_what_computes_nothing_loads_nothing(code):
    assert modules_after(code) == set()


def test_every_public_name_is_where_the_stub_says():
    for name in tj.__all__:
        assert getattr(tj, name) is not None
    assert set(tj.__all__) <= set(dir(tj))
    with pytest.raises(AttributeError, match="no_such_scope"):
        tj.no_such_scope  # noqa: B018
    assert len(tj.__all__) <= 40


def interrupted_after(seconds: float, *arguments: str) -> tuple[int, str]:
    """Exit code and errors of the command line, interrupted that long after it began to run."""
    ready, say = os.pipe()
    # Ctrl-C can't be caught before Python runs any of our code: the wait begins there.
    code = f"import os; os.write({say}, b'.'); from tl_jacobian.__main__ import main; main()"
    run = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[say],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(say)
    os.read(ready, 1)
    os.close(ready)
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    errors = run.communicate(timeout=60)[1]
    return run.returncode, errors


@pytest.mark.parametrize("seconds", [0.2])
def test_an_interrupt_while_it_starts(seconds):
    assert interrupted_after(seconds, "attribute", "Rome is") == (130, "")


@pytest.mark.parametrize("seconds", [0.2])
def test_an_interrupt_while_the_live_view_starts(seconds):
    assert interrupted_after(seconds, "app", "--no-open", "--port", "0") == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.9, 2.5, 5.0])
def test_an_interrupt_of_the_live_view_at_any_moment(seconds):
    assert interrupted_after(seconds, "app", "--no-open", "--port", "0") == (130, "")


@pytest.mark.slow
def test_an_interrupt_while_the_live_view_computes():
    connect = pytest.importorskip("websockets.sync.client", reason="the extra app isn't installed").connect
    command = [sys.executable, "-c", "from tl_jacobian.__main__ import main; main()", "app", "--no-open", "--port", "0"]
    pipes: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen(command, **pipes, **ignored) as run:
        host = run.stdout.readline().split()[-1].split("/")[2]
        with connect(f"ws://{host}/live", origin=f"http://{host}", proxy=None, max_size=None) as tab:
            tab.send(json.dumps({"id": 1, "ask": {"do": "map", "view": {"prompt": "word " * 200}}}))
            while json.loads(tab.recv(timeout=60).partition(b"\n")[0])["type"] != "started":
                pass
            run.send_signal(signal.SIGINT)
            errors = run.communicate(timeout=60)[1]
    assert (run.returncode, errors) == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.4, 0.9, 1.4, 2.0, 2.7, 3.5, 4.5, 6.0, 8.0])
def test_an_interrupt_at_any_moment(seconds, tmp_path):
    """While modules load, while the model does, and while it runs; the estimate goes on for longer than that."""
    page, tokens = tmp_path / "a.html", "word " * 400
    code, errors = interrupted_after(seconds, "attribute", tokens, "--scope", "fisher", "--html", str(page))
    assert code == 130, errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())
