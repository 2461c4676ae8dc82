"""What an ask gives, and what several kinds of ask need: the same text with a piece replaced, options in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tl_jacobian.app.asks import View
from tl_jacobian.app.methods import ENTROPY
from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.results.base import Value
from tl_jacobian.results.panels import Panel

if TYPE_CHECKING:
    from tl_jacobian.app.bench import Bench


@dataclass(frozen=True)
class Seen:
    """What an ask gave.

    Attributes:
        panels: by their place in the view.
        python: that makes the same.
        facts: more for the view, JSON values: token ids that a click stands for.
        notes: what couldn't be shown, and why.
        value: what can be saved.
        file: of an export: its name and bytes.
    """

    panels: Mapping[str, Sequence[Panel]] = field(default_factory=dict)
    python: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    value: Value | None = None
    file: tuple[str, bytes] | None = None


def other_text(bench: Bench, view: View, edited: Sequence[int] | None, text: str) -> View:
    """The same view with other text in the place of these tokens; all others stay the tokens that they are."""
    tokens, start = bench.text(view)
    prompt, at = tokens[:start], sorted(edited or ())
    if not at or at != list(range(at[0], at[0] + len(at))) or at[-1] >= len(prompt):
        raise ArgumentError(f"tokens {at}, expected neighbours inside the prompt's {len(prompt)} tokens")
    put = bench.host.encode(text) if text else []
    changed = [*prompt[: at[0]], *put, *prompt[at[-1] + 1 :]]
    if not changed:
        raise PromptError("nothing is left of the prompt; leave at least one token")
    moved = len(changed) - len(prompt)
    position = None if view.position is None else view.position + (moved if view.position > at[-1] else 0)
    plain = {"prompt": None, "messages": None, "series": None, "bos": None}
    return msgspec.structs.replace(view, ids=tuple(changed), position=position, **plain)


def written(direction: Mapping[str, Any], default: str = "semantic") -> str:
    """Scope and options as keyword arguments, but for a function's default scope."""
    given = {name: value for name, value in direction.items() if not (name == "scope" and value == default)}
    given = {name: ENTROPY if name == "fn" else repr(value) for name, value in given.items()}
    return "".join(f", {name}={value}" for name, value in given.items())
