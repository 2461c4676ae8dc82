"""Exceptions: one base class, and one subclass per thing a user can put right.

Every message shows the offending value, what was expected, and what to do.
"""

from __future__ import annotations


class JacobianScopeError(Exception):
    """Base class of every error that tl_jacobian raises on purpose.

    A message is at most 2,000 characters long: what was given may be longer than anybody reads.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_cut(text) if isinstance(text, str) else text for text in args))


_MOST = 2000


def _cut(text: str) -> str:
    """
    >>> len(_cut("a" * 3000)), _cut("a" * 3000)[-25:]
    (2000, ' … (cut: 3000 characters)')
    """
    end = f" … (cut: {len(text)} characters)"
    return text if len(text) <= _MOST else text[: _MOST - len(end)] + end


class PromptError(JacobianScopeError, ValueError):
    """The prompt, its token ids or the explained position can't be used."""


class TargetError(JacobianScopeError, ValueError):
    """The target of a scope isn't exactly one token of the vocabulary."""


class DirectionError(JacobianScopeError, ValueError):
    """A direction ``v`` (or the function that defines it) can't be used."""


class ArgumentError(JacobianScopeError, ValueError):
    """An option has a value it can't take."""


class HookPointError(JacobianScopeError, ValueError):
    """A hook point doesn't exist, or can't be used where it is asked for."""


class MemoryBudgetError(JacobianScopeError, MemoryError):
    """The request is predicted to take more memory than it may."""


class UnsupportedModelError(JacobianScopeError, TypeError):
    """The model isn't one whose gradients mean what the scopes say they mean."""


class ContractError(JacobianScopeError, RuntimeError):
    """The model broke a promise the scopes rest on (logits, finiteness)."""


class DegenerateScopeError(JacobianScopeError, ValueError):
    """The scope is constant for this model, so its gradient is rounding noise."""


class AttributionFileError(JacobianScopeError, ValueError):
    """A file isn't a readable attribution of a version this library knows."""


class DemoModelError(JacobianScopeError, RuntimeError):
    """The demo model can't be found, fetched or verified."""


class Cancelled(JacobianScopeError):
    """The computation was stopped half way, because nobody waits for it any more."""


class CorpusError(JacobianScopeError, RuntimeError):
    """A corpus can't be read, or a run over it can't go on; what was done so far is kept."""
