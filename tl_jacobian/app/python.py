"""The Python that makes what a view shows."""

from __future__ import annotations

from typing import Any

from tl_jacobian.app.asks import View
from tl_jacobian.app.methods import METHODS, of_the_prompt, options_of

DEMO = "tj.load_demo_model()"


def python_of(view: View, model: str, lin: Any, more: str = "", record: str | None = None) -> str:
    """Lines that end with the picture.

    Args:
        view: what is looked at.
        model: the expression that gives the model, or "" where it is the caller's own.
        lin: its linearization, for the names of tokens.
        more: the last lines, in place of those that show the attribution; they find ``model`` and ``lin``.
        record: what ``linearize`` is to record: a hook point, a name of several, or "True" for all.
    """
    lines = ["import tl_jacobian as tj", ""]
    lines += [f"model = {model}"] if model else ["# model: yours"]
    if view.series is not None:
        bos = "" if view.bos is None else f", prepend_bos={view.bos}"
        lines.append(f"series = tj.timeseries.serialize({list(view.series)}, model{bos})")
    lines.append(f"lin = {linearized(view, lin, record or METHODS[view.scope].record)}")
    if more:
        return "\n".join([*lines, *more.splitlines()]) + "\n"
    names = [view.scope, *([view.beside] if view.beside else [])]
    calls = [_call(name, view, lin) for name in names]
    grouped = (".prompt" if of_the_prompt(names, lin) else "") + _grouped(view)
    if view.series is not None and grouped == "":
        lines += [f"a = {calls[0]}", f"tj.timeseries.number_influence(a, series).show(skip_first={view.skip_first})"]
    elif len(calls) > 1:
        lines += [f"{name} = {call}{grouped}" for name, call in zip("ab", calls, strict=True)]
        lines.append(f"tj.compare([a, b]).show(skip_first={view.skip_first})")
    else:
        lines += [f"a = {calls[0]}{grouped}", f"a.show(skip_first={view.skip_first})"]
    return "\n".join(lines) + "\n"


def linearized(view: View, lin: Any, record: str | None = None) -> str:
    """The call that gives this linearization of what is looked at."""
    options = ""
    if view.position is not None and view.answer is not None:
        given = repr(lin.tokens.tolist())  # a position inside the answer: all of the text before it
    else:
        given = _given(view)
        if view.position is not None:
            options += f", position={view.position}"
        elif view.answer is not None:
            options += f", answer={list(view.answer)}"
            options += "" if view.span is None else f", span=slice({view.span[0]}, {view.span[1]})"
        if view.bos is not None and view.prompt is not None:
            options += f", prepend_bos={view.bos}"
    if record:
        options += ", record=True" if record == "True" else f', record="{record}"'
    return f"tj.linearize(model, {given}{options})"


def _given(view: View) -> str:
    if view.series is not None:
        return "list(series.tokens)"
    if view.messages is not None:
        return repr([{"role": m.role, "content": m.content} for m in view.messages])
    return repr(list(view.ids)) if view.ids is not None else repr(view.prompt or "")


def _call(name: str, view: View, lin: Any) -> str:
    method = METHODS[name]
    options = options_of(method, lin, view.target, view.minus)
    text = "".join(f", {option}={token}" for option, token in options.items())
    comment = ", ".join(repr(lin.decode(token)) for token in options.values())
    return method.python.format(options=text) + (f"  # {comment}" if comment and view.by == "tokens" else "")


def _grouped(view: View) -> str:
    if view.by == "tokens":
        return ""
    if view.by == "segments":
        return f".segments({ {s.name: s.text for s in view.segments}!r})"
    return f".{view.by}()"
