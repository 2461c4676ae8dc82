"""The words around a picture: what was explained, for which prediction, by which model."""

from __future__ import annotations

from tl_jacobian.results.alignment import WordAlignment
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.linearity import Linearity
from tl_jacobian.results.scopes import scope_title
from tl_jacobian.results.tokens import visible

Described = Attribution | Grid | Contributions | Linearity
_MODEL_FACTS = ("model", "host", "dtype")


def scope_name(value: Attribution | WordAlignment) -> str:
    """``"Semantic Scope"``; a baseline's own name, and anything else as it is called."""
    return visible(scope_title(value.scope))


def target(attribution: Attribution) -> str:
    """What was explained, safe to print."""
    return visible(attribution.target)


def explained(attribution: Attribution) -> str:
    """The target and, where the metadata hold it, its value: ``"logit of ' Paris' = 14.2"``."""
    value = attribution.metadata.get("value")
    return target(attribution) + (f" = {number(value)}" if isinstance(value, (int, float)) else "")


def explained_position(attribution: Attribution) -> str:
    """``"prediction after token 12 ' is'"``; for another output ``"blocks.5.hook_resid_post at token 12 ' is'"``."""
    last = f" {quoted(attribution.str_tokens[-1])}" if attribution.str_tokens else ""
    hook = attribution.metadata.get("output_hook")
    where = "prediction after" if hook is None else visible(f"{hook} at")
    return f"{where} token {attribution.position}{last}"


def model_facts(value: Described) -> list[str]:
    """Model, host and precision, as far as the metadata say."""
    found = (value.metadata.get(key) for key in _MODEL_FACTS)
    return [visible(str(fact)) for fact in found if fact]


def score_unit(attribution: Attribution) -> str:
    """What a score measures, or an empty string where the metadata don't say."""
    return visible(str(attribution.metadata.get("score") or ""))


def quoted(text: str) -> str:
    """``text`` made visible, in quotes that show where its spaces are."""
    return f"'{visible(text)}'"


def number(value: float) -> str:
    """Three significant digits.

    >>> number(12.3456), number(0.0)
    ('12.3', '0')
    """
    return f"{value:.3g}"
