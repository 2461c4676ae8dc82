"""The bench: from what a view asks for to values, and from values to their panels.

Everything that a view shows is computed here, in one thread a model, by the library's own functions; what was computed
before is kept within a memory limit. What is kept belongs to the model's weights and hooks of that moment.
"""

from __future__ import annotations

import base64
import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from tl_jacobian.analyses.features import feature_scope
from tl_jacobian.app.answers import ANSWERS
from tl_jacobian.app.asks import Ask, Export, View, Write
from tl_jacobian.app.cache import Cache
from tl_jacobian.app.features import Sae
from tl_jacobian.app.methods import METHODS
from tl_jacobian.app.seen import Seen
from tl_jacobian.core.host.base import Host
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.linearize import linearize
from tl_jacobian.core.prompts import read_answer, read_prompt
from tl_jacobian.errors import ArgumentError, JacobianScopeError, PromptError
from tl_jacobian.results.panels import (
    to_json,
)
from tl_jacobian.studies.timeseries import SerializedSeries, serialize


@dataclass(frozen=True)
class Limits:
    """What one model's bench may take.

    Attributes:
        answers: bytes of answers that are kept.
        linearizations: bytes of recorded forward passes that are kept.
        tokens: the longest prompt; None: the model's context.
        memory: as ``linearize(max_memory=)``.
    """

    answers: int = 64 << 20
    linearizations: int = 2 << 30
    tokens: int | None = None
    memory: int | str | None = None


_DEFAULTS = Limits()


class Bench:
    """A model, and what was computed with it.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        name: what views call it.
        python: the expression that makes it; "" where only the caller knows.
        options: more of ``linearize``: ``final_norm``, ``precision``.
        sae: whose features may be asked about.

    Raises:
        HookPointError: the model has no activation that the SAE reads or writes.
        ArgumentError: the SAE is of another width.

    Only one thread may compute at a time: :class:`~tl_jacobian.app.worker.Worker`.
    """

    def __init__(
        self,
        model: Any,
        name: str = "model",
        *,
        python: str = "",
        limits: Limits = _DEFAULTS,
        options: Mapping[str, Any] | None = None,
        sae: Sae | None = None,
    ) -> None:
        self.model = model
        self.name = name
        self.python = python
        self.limits = limits
        self.options = dict(options or {})
        self.host: Host = resolve(model, self.options.get("precision"))
        self.answers = Cache[bytes](limits.answers)
        self.linearizations = Cache[Linearized](limits.linearizations)
        self._moment: tuple[Any, Any] | None = None
        self._pace: dict[str, float] = {}
        self._now: dict[Any, Linearized] = {}  # of the ask that is answered now, however large
        self.sae = sae
        if sae is not None:
            feature_scope(linearize(model, [0, 0], record=sae.record, **self.options), sae.given, **sae.options())

    # -- from asks to bytes ------------------------------------------------------------

    def answer(self, ask: Ask, begins: Callable[[], None] = lambda: None) -> bytes:
        """What an ask gives, as JSON: panels, Python, facts and notes.

        Kept from before if it was computed with the weights and hooks that the model has now; otherwise ``begins`` is
        called and it is computed.

        Raises:
            JacobianScopeError: it can't be computed, and what can be done about it.
        """
        self._forget_if_changed()
        if (kept := self.answers.get(key := msgspec.json.encode(ask))) is not None:
            return kept
        begins()
        began = time.monotonic()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            seen = self.see(ask)
        told = [str(w.message) for w in warned if issubclass(w.category, UserWarning)]
        notes = list(dict.fromkeys([*seen.notes, *(text for text in told if "tl_jacobian" in text or ": " in text)]))
        body = _joined(
            {
                "panels": b"{%s}" % b",".join(_json(name) + b":" + to_json(p) for name, p in seen.panels.items()),
                "python": _json(seen.python),
                "facts": _json(seen.facts),
                "notes": _json(notes),
                "file": _json(None if seen.file is None else _file(*seen.file)),
            }
        )
        self._pace[_kind(ask)] = time.monotonic() - began
        if not isinstance(ask, (Export, Write)):
            self.answers.put(key, body, len(body))
        return body

    def warm(self) -> None:
        """Once, before anybody waits: what is tried once a model (is it causal, does gradient get lost) is tried."""
        with suppress(JacobianScopeError):
            linearize(self.model, [0, 0], **self.options)

    def expected(self, ask: Ask) -> float | None:
        """Seconds that it took the last time something like it was asked; None: never."""
        return self._pace.get(_kind(ask))

    def see(self, ask: Ask) -> Seen:
        """What an ask gives, as panels."""
        if ask.view.scope not in METHODS or ask.view.beside not in {"", *METHODS}:
            raise ArgumentError(f"scope={ask.view.scope!r}, beside={ask.view.beside!r}, expected {', '.join(METHODS)}")
        try:
            return ANSWERS[type(ask)](self, ask)
        finally:
            self._now.clear()

    def _forget_if_changed(self) -> None:
        """What was computed with other weights or hooks is forgotten."""
        hooks = self.host.conditions().identity
        if self._moment is not None and self._moment[0] == hooks and self._moment[1].same():
            return
        if self._moment is not None:
            self.answers.clear()
            self.linearizations.clear()
        self._moment = hooks, self.host.weights()

    # -- linearizations ----------------------------------------------------------------

    def given(self, view: View) -> Any:
        """The prompt as ``linearize`` takes it."""
        given = [view.prompt, view.ids, view.messages, view.series]
        if sum(one is not None for one in given) != 1:
            raise PromptError("expected one of a text, token ids, messages or a series; type something and press Run")
        if view.series is not None:
            return list(self.series(view).tokens)
        if view.messages is not None:
            return [{"role": m.role, "content": m.content} for m in view.messages]
        return view.prompt if view.prompt is not None else list(view.ids or ())

    def series(self, view: View) -> SerializedSeries:
        return serialize(list(view.series or ()), self.model, prepend_bos=view.bos)

    def _bos(self, view: View) -> bool | None:
        return view.bos if view.prompt is not None else None

    def text(self, view: View) -> tuple[list[int], int | None]:
        """All tokens of prompt and answer, and where the answer begins."""
        given = self.given(view)
        if view.answer is None:
            tokens, start = read_prompt(self.host, given, [-1], self._bos(view)).tokens, None
        else:
            read = read_answer(self.host, given, list(view.answer), None, self._bos(view))
            tokens, start = [*read.tokens, view.answer[-1]], read.answer_start
        most = self.limits.tokens
        if most is not None and len(tokens) > most:
            raise PromptError(f"the text has {len(tokens)} tokens, but this view takes {most}; shorten it")
        return tokens, start

    @property
    def facts(self) -> dict[str, Any]:
        """About the model, and its SAE where there is one."""
        return {**self.host.facts(), **({} if self.sae is None else {"sae": self.sae.facts})}

    def linearization(self, view: View, record: str | None = None, ends: str | None = None) -> Linearized:
        """Of what is looked at, with these activations; the same one as long as it is kept.

        Args:
            ends: the hook point whose activation is explained, in the place of the prediction.
        """
        tokens, start = self.text(view)
        where = (view.position, view.answer, view.span) if view.position is None else view.position
        base = (tuple(tokens), start, where, view.messages, ends)
        for recorded in (record, *_MORE) if record is None else (record,):
            if (kept := self._now.get((base, recorded)) or self.linearizations.get((base, recorded))) is not None:
                return kept
        made = self._arguments(view, tokens, start)
        if ends is not None:
            made["output_hook"] = ends
        kept = self.sae.record if record == "features" and self.sae is not None else _RECORDS.get(record or "", record)
        lin = linearize(self.model, **made, record=kept)
        taps = tuple(lin.taps) if len(lin.taps) else ()
        self._now[base, record] = lin
        footprint = self.host.footprint(1, len(lin.tokens), len(lin.positions), taps)
        again = "again" in str(lin.facts.get("activations", ""))
        self.linearizations.put((base, record), lin, footprint.kept(again))
        return lin

    def _arguments(self, view: View, tokens: list[int], start: int | None) -> dict[str, Any]:
        """Of :func:`linearize`."""
        common = {"max_memory": self.limits.memory, **self.options}
        if view.position is not None:
            inside = start is None or view.position < start
            prompt = self.given(view) if inside else tokens
            bos = {"prepend_bos": self._bos(view)} if inside and view.prompt is not None else {}
            return {"prompt": prompt, "position": view.position, **bos, **common}
        made = {"prompt": self.given(view), **common}
        if view.prompt is not None:
            made["prepend_bos"] = view.bos
        if view.answer is not None:
            made |= {"answer": list(view.answer), "span": None if view.span is None else slice(*view.span)}
        return made


# What is recorded for a drill-down; patterns of long texts don't fit.
_RECORDS: Mapping[str, Any] = {"drill": True, "long drill": ["resid", "components", "heads"]}
_MORE = ("sources", "drill", "long drill", "features")  # of which any serves where nothing need be recorded


def _kind(ask: Ask) -> str:
    return f"{type(ask).__name__} {ask.view.scope} {ask.view.beside}"


def _json(value: Any) -> bytes:
    # Not msgspec's, which can't write the lone surrogates that texts of tokens may hold.
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str).encode("ascii")


def _joined(parts: Mapping[str, bytes]) -> bytes:
    return b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), part) for name, part in parts.items())


def _file(name: str, data: bytes) -> dict[str, str]:
    return {"name": name, "base64": base64.b64encode(data).decode("ascii")}
