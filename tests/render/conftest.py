"""Attributions to draw: plain ones, and one whose tokens try to break out of everything."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from tl_jacobian.render import page
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.tokens import Word

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


@pytest.fixture
def plt() -> Iterator[Any]:
    """pyplot that draws into memory; its figures are closed in the end."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib weren't installed."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.fixture
def make_map() -> Callable[..., AttributionMap]:
    def build(
        texts: Sequence[str],
        *,
        positions: Sequence[int] | None = None,
        next_texts: Sequence[str | None] | None = None,
        words: Sequence[tuple[str, int]] = (),
        scale: float = 1.0,
    ) -> AttributionMap:
        at = range(len(texts)) if positions is None else positions
        groups = tuple(Word(*word) for word in words)
        rows = [
            Attribution(
                scores=torch.arange(1.0, p + 2) * scale,
                scope="semantic",
                tokens=tuple(range(p + 1)),
                str_tokens=tuple(texts[: p + 1]),
                position=p,
                target=f"target {p}",
                predictions=(Prediction(1, " x", 0.5),),
                word_groups=groups if p == len(texts) - 1 else (),
                metadata={"score": "logits", "value": 2.5},
            )
            for p in at
        ]
        follows = [*texts[1:], None]
        return AttributionMap(
            attributions=tuple(rows),
            next_texts=tuple([follows[p] for p in at] if next_texts is None else next_texts),
            target_words=(*(w for w in groups[1:]), Word("", 1)) if groups else (),
        )

    return build


@pytest.fixture
def nasty_map(make_map: Callable[..., AttributionMap]) -> AttributionMap:
    return make_map(NASTY)


@pytest.fixture
def make_grid() -> Callable[..., Grid]:
    def build(values: Any, columns: Sequence[str] | None = None, **fields: Any) -> Grid:
        values = torch.as_tensor(values)
        defaults: dict[str, Any] = dict(
            rows=tuple(map(str, range(values.shape[0]))),
            title="influence on logit of ' Paris'",
            quantity="logits",
            row_axis="layer",
            column_axis="token",
            signed=True,
        )
        texts = tuple(f" t{i}" for i in range(values.shape[1])) if columns is None else tuple(columns)
        return Grid(values=values, columns=texts, **{**defaults, **fields})

    return build


@pytest.fixture
def nasty_grid(make_grid: Callable[..., Grid]) -> Grid:
    names = dict.fromkeys(("title", "quantity", "row_axis"), INJECTION)
    return make_grid(torch.ones(len(NASTY), len(NASTY)), NASTY, rows=NASTY, metadata={"model": INJECTION}, **names)


@pytest.fixture
def make_parts() -> Callable[..., Contributions]:
    def build(parts: dict[str, float], **fields: Any) -> Contributions:
        values = torch.tensor(list(parts.values()), dtype=torch.float64)
        fields.setdefault("target", "logit of ' Paris'")
        return Contributions(names=tuple(parts), values=values, total=values.sum().item(), **fields)

    return build
