"""Edges between heads and MLPs in the view: which carry the difference to another prompt, and one of them measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tl_jacobian.analyses.edges import edge_attribution
from tl_jacobian.app.asks import Edges
from tl_jacobian.app.python import linearized, python_of
from tl_jacobian.app.seen import Seen, other_text
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.edges import Edge, EdgeAttribution
from tl_jacobian.results.panels import Bar, Bars, HeatMap, Panel, Table

if TYPE_CHECKING:
    from tl_jacobian.app.bench import Bench

_MOST = 256  # tokens: what every head writes is kept for each of them


def edges(bench: Bench, ask: Edges) -> Seen:
    """The strongest edges, and those of ``check`` by path patching."""
    view = ask.view
    lin = bench.linearization(view)
    if isinstance(lin, AnswerLinearization):
        raise ArgumentError("edges are of one prediction: click the number below a token, or go back to the prompt's")
    if len(lin.tokens) > _MOST:
        raise ArgumentError(f"{len(lin.tokens)} tokens; a view draws the edges of {_MOST} at most")
    other = other_text(bench, view, ask.edited, ask.text)
    clean, corrupted = lin.tokens.tolist(), bench.text(other)[0]
    corrupted = corrupted if other.position is None else corrupted[: other.position + 1]
    if clean == corrupted:
        raise ArgumentError("the other prompt is the same: write other text, of as many tokens, for the picked ones")
    options = {name: value for name, value in bench.options.items() if name == "precision"}
    check = [tuple(pair) for pair in ask.check]
    try:
        found = edge_attribution(
            bench.model,
            clean,
            corrupted,
            target=view.target,
            minus=view.minus,
            check=check or 0,
            progress=False,
            **options,
        )
    except ArgumentError as error:
        if "are the same token" not in str(error):
            raise
        raise ArgumentError(
            "both prompts predict the same token: Shift-click another predicted one to contrast with it, or write "
            "other text"
        ) from error
    target, minus = (found.metadata[name] for name in ("target_token", "minus_token"))
    call = "from tl_jacobian.analyses.edges import edge_attribution\n"
    call += f"other = {linearized(other, lin)}\n"
    call += "edge_attribution(model, lin.tokens.tolist(), other.tokens.tolist(), "
    call += f"target={target}, minus={minus}, check={check or 0}).show()"
    shown = found.panels()
    panels: dict[str, list[Panel]] = {
        "graph": list(shown[:1]),
        "grid": [p for p in shown if isinstance(p, HeatMap)],
        "table": [p for p in shown if isinstance(p, Table)],
    }
    drawn = [[e.sender, e.receiver] for e in found.top(_drawn(shown))]
    facts: dict[str, Any] = {"edges": drawn, "target": target, "minus": minus}
    if check:
        edge = found.checked[0]
        panels = {"test": [_measured(found, edge)]}
        facts = {"promised": edge.predicted, "effect": edge.measured}
    return Seen(panels, python_of(view, bench.python, lin, call), facts, value=found)


def _drawn(shown: tuple[Panel, ...]) -> int:
    """How many edges the pictures have."""
    return next((len(panel.rows) for panel in shown if isinstance(panel, Table)), 0)


def _measured(found: EdgeAttribution, edge: Edge) -> Bars:
    """One edge's prediction beside what path patching measured."""
    quantity = found.effects.quantity
    first = (
        []
        if math.isnan(edge.predicted)
        else [Bar(name="promised (first order)", value=edge.predicted, kind="promised")]
    )
    return Bars(
        title=f"edge {edge.sender} → {edge.receiver}: as in this prompt, in the run of the other one",
        detail=quantity,
        facts=(f"{found.corrupted:.4g} in the other prompt, {found.clean:.4g} in this one",),
        bars=(*first, Bar(name="true effect (path patching)", value=edge.measured, kind="true")),
        quantity=quantity,
    )
