"""Attributions to draw: plain ones, and one whose tokens try to break out of everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tl_jacobian.attribution import Attribution, Prediction
from tl_jacobian.render import page

INJECTION = "</script><script>document.title='PWNED'</script>"
NASTY = (
    INJECTION,
    "<!--",
    "<script>",
    "<img src=x onerror=document.title='PWNED'>",
    "\"'`",
    "&amp;&#60;",
    "\n",
    "a\n\nb",
    "שלום",
    " عربي",
    "👩‍👩‍👧",
    "\u2028\u2029",
    "\x00",
    "\x1b[31m",
    "\ufffd",
    "\u202e",
    "[red]markup[/red]",
    "$x$",
    "   ",
    "",
)

Make = Callable[..., Attribution]


@pytest.fixture
def make() -> Make:
    def build(texts: Sequence[str], scores: Sequence[float] | None = None, **fields: Any) -> Attribution:
        count = len(texts)
        values = torch.arange(1.0, count + 1) if scores is None else torch.tensor(scores, dtype=torch.float32)
        fields.setdefault("scope", "semantic")
        fields.setdefault("target", "logit of ' Paris'")
        fields.setdefault("predictions", (Prediction(1, " Paris", 0.75), Prediction(2, "<b>\n", 0.05)))
        return Attribution(
            scores=values, tokens=tuple(range(count)), str_tokens=tuple(texts), position=count - 1, **fields
        )

    return build


@pytest.fixture
def paris(make: Make) -> Attribution:
    return make(["<|bos|>", "The", " capital", " of", " France", " is"], [30.0, 2.0, 9.0, 1.0, 12.0, 4.0])


@pytest.fixture
def nasty(make: Make) -> Attribution:
    return make(NASTY, target=f"logit of {INJECTION}", metadata={"score": INJECTION, "model": INJECTION})


@pytest.fixture(autouse=True)
def fresh_notebook() -> None:
    """Each test starts like a new kernel: no output has carried the scripts yet."""
    page.embed_scripts_again()
