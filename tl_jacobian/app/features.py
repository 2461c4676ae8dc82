"""Features of an SAE in the view: which of them drive a prediction, which tokens drive one, and what it really does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tl_jacobian.analyses.features import feature_scope
from tl_jacobian.analyses.interventions import intervene
from tl_jacobian.app.asks import Feature, Features, View
from tl_jacobian.app.methods import METHODS, direction_of
from tl_jacobian.app.python import linearized, python_of
from tl_jacobian.app.seen import Seen, written
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.sae import Dictionary, read_sae
from tl_jacobian.errors import ArgumentError, DirectionError
from tl_jacobian.results.panels import HeatMap, Panel, TokenStrip
from tl_jacobian.results.words import quoted

if TYPE_CHECKING:
    from tl_jacobian.app.bench import Bench

_TOP = 16  # features that are named


@dataclass(frozen=True, eq=False)
class Sae:
    """An SAE that views may ask about: it is named where the view is opened, never by a page.

    Attributes:
        given: the object, as :func:`tl_jacobian.feature_scope` takes it.
        at: hook point that it reads.
        into: hook points that it writes.
        python: the lines that give ``sae``; "" where only the caller knows.
        of: how it is read.
    """

    given: Any
    at: str
    into: tuple[str, ...]
    python: str
    of: Dictionary

    @property
    def record(self) -> list[str]:
        """What ``linearize`` has to keep for it."""
        return list(dict.fromkeys((self.at, *self.into)))

    @property
    def facts(self) -> dict[str, Any]:
        """For the view."""
        return {"name": self.of.name, "size": self.of.n_features, "at": self.at}

    def options(self) -> dict[str, Any]:
        """Of :func:`tl_jacobian.feature_scope`, where the object doesn't say them itself."""
        found: dict[str, Any] = {} if self.of.at == self.at else {"at": self.at}
        return found if self.into == (self.of.into or (self.at,)) else {**found, "into": list(self.into)}


def sae_of(given: Any, at: str | None = None, into: tuple[str, ...] = (), python: str = "") -> Sae:
    """An SAE with the hook points that it reads and writes.

    Raises:
        ArgumentError: it is none, or nobody says what it reads.
    """
    found = read_sae(given, at)
    if (reads := at or found.at) is None:
        raise ArgumentError(
            f"{found.name} doesn't say which activation it reads: name it, blocks.12.hook_resid_post say (sae_at=, or "
            "--sae-at on the command line)"
        )
    return Sae(given, reads, into or found.into or (reads,), python, found)


def features(bench: Bench, ask: Features) -> Seen:
    """Effects of features by token, their sum, and how active they are."""
    view, method, sae = ask.view, METHODS[ask.view.scope], _sae(bench)
    lin = bench.linearization(view, "features")
    direction = direction_of(method, lin, view.target, view.minus)
    found = feature_scope(lin, sae.given, top=_TOP, **sae.options(), **direction)
    notes = [] if method.direction else [f"{method.title} has no gradient of its own here: this is of the logit"]
    shown = [panel for panel in found.panels(skip_first=view.skip_first) if not isinstance(panel, TokenStrip)]
    heats: list[Panel] = [panel for panel in shown if isinstance(panel, HeatMap)]
    panels = {"effects": heats[:1], "parts": [p for p in shown if p not in heats], "activations": heats[1:]}
    call = f"tj.feature_scope(lin, sae{_options(sae)}{written(direction)}).show()"
    facts = {"features": list(found.features), **sae.facts}
    return Seen(panels, _python(bench, view, lin, sae, call, sae.record), facts, notes, value=found)


def feature(bench: Bench, ask: Feature) -> Seen:
    """Which tokens drive one feature at one token; ``remove``: what taking it out does to what the view explains."""
    view, sae = ask.view, _sae(bench)
    if ask.feature >= sae.of.n_features:
        raise ArgumentError(f"feature={ask.feature}, expected 0 to {sae.of.n_features - 1}")
    if ask.remove:
        return _removed(bench, ask, sae)
    tokens, _ = bench.text(view)
    if ask.position >= len(tokens):
        raise ArgumentError(f"position={ask.position}, expected 0 to {len(tokens) - 1}")
    inside = msgspec.structs.replace(view, position=ask.position)
    lin = bench.linearization(inside, ends=sae.at)
    of, notes = "activation", []
    try:
        a = feature_scope(lin, sae.given, ask.feature, **_at(sae))
    except DirectionError:
        if sae.of.pre is None:
            raise
        of = "pre_activation"
        a = feature_scope(lin, sae.given, ask.feature, of=of, **_at(sae))
        notes.append(f"feature {ask.feature} is off there: this is what moves the sum before its nonlinearity")
    grouped = a.words() if view.by == "words" else a
    asked = "" if of == "activation" else f', of="{of}"'
    call = f"tj.feature_scope(lin, sae, {ask.feature}{asked}{_options(sae, False)})"
    call += f"{'.words()' if view.by == 'words' else ''}.show(skip_first={view.skip_first})"
    facts = {"feature": ask.feature, "position": ask.position, "text": lin.str_tokens[-1]}
    strips = [p for p in grouped.panels(skip_first=view.skip_first) if isinstance(p, TokenStrip)]
    return Seen({"feature": strips}, _python(bench, inside, lin, sae, call, ends=sae.at), facts, notes, value=grouped)


def _removed(bench: Bench, ask: Feature, sae: Sae) -> Seen:
    """The feature's part of the stream taken out at one token: promise and truth."""
    view = ask.view
    if len(sae.into) != 1:
        raise ArgumentError(
            f"{sae.of.name} writes at {len(sae.into)} layers at once; one activation at a time is replaced here"
        )
    (hook,) = sae.into
    lin = bench.linearization(view, "features")
    if ask.position >= len(lin.tokens):
        raise ArgumentError(f"token {ask.position} comes after the explained position {lin.position}")
    h = lin.taps[hook]
    part = sae.of.written(lin.taps[sae.at].reshape(len(h), -1), ask.feature).reshape(h.shape).to(h)
    tokens: dict[str, Any] = {}
    if not isinstance(lin, AnswerLinearization):
        tokens = {"target": view.target, "minus": view.minus}
    found = intervene(lin, hook, positions=[ask.position], replacement=h - part, **tokens)
    here = quoted(lin.str_tokens[ask.position])
    found = dataclasses.replace(found, what=f"feature {ask.feature} out at token {ask.position}, {here}")
    options = "".join(f", {name}={token}" for name, token in tokens.items() if token is not None)
    call = "from tl_jacobian.analyses.interventions import intervene\nfrom tl_jacobian.core.sae import read_sae\n"
    call += f'h, into = lin.taps["{sae.at}"], "{hook}"\n'
    call += f'part = read_sae(sae, "{sae.at}").written(h.flatten(1), {ask.feature}).reshape(lin.taps[into].shape)\n'
    call += f"intervene(lin, into, positions=[{ask.position}], replacement=lin.taps[into] - part{options}).show()"
    facts = {"promised": found.promised, "effect": found.effect}
    return Seen({"test": found.panels()}, _python(bench, view, lin, sae, call, sae.record), facts, value=found)


def _sae(bench: Bench) -> Sae:
    if bench.sae is None:
        raise ArgumentError("no SAE is here: tj.explore(model, prompt, sae=...), or tl-jacobian app --sae FILE")
    return bench.sae


def _at(sae: Sae) -> dict[str, Any]:
    return {name: value for name, value in sae.options().items() if name == "at"}


def _options(sae: Sae, into: bool = True) -> str:
    given = sae.options() if into else _at(sae)
    return "".join(f", {name}={value!r}" for name, value in given.items())


def _python(
    bench: Bench, view: View, lin: Any, sae: Sae, call: str, record: list[str] | None = None, ends: str | None = None
) -> str:
    """Lines with ``sae`` before what is done with it, and ``lin`` as it has to be."""
    text = python_of(view, bench.python, lin, call)
    plain = f"lin = {linearized(view, lin, METHODS[view.scope].record)}\n"
    more = f', output_hook="{ends}"' if ends else f", record={record}"
    made = f"lin = {linearized(view, lin).removesuffix(')')}{more})\n"
    return text.replace(plain, f"{sae.python or '# sae: yours'}\n{made}", 1)
