"""Panels made by hand: plain ones of every kind, and texts that try to break out of everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from tl_jacobian.results.panels import (
    Bar,
    Bars,
    Cell,
    Curve,
    Curves,
    Frame,
    Guide,
    HeatMap,
    Panel,
    Scale,
    StripRow,
    Table,
    TokenStrip,
    Unit,
    scale_of,
)

NAN = math.nan
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
    "a|b",
    "   ",
    "",
)


def units(texts: Sequence[str]) -> tuple[Unit, ...]:
    return tuple(Unit(text, (i,)) for i, text in enumerate(texts))


def row(values: Sequence[float], hidden: Sequence[int] = (), **fields: Any) -> StripRow:
    kept = [value for i, value in enumerate(values) if i not in hidden]
    return StripRow(values=tuple(values), scale=fields.pop("scale", None) or scale_of(kept), **fields)


def strip(
    texts: Sequence[str],
    *values: Sequence[float],
    hidden: Sequence[int] = (),
    rows: Sequence[StripRow] = (),
    **fields: Any,
) -> TokenStrip:
    """A strip of rows of values, 1, 2, 3 … where none are given."""
    fields = dict(title="Semantic Scope", detail="logit of ' Paris'") | fields
    made = [row(v, hidden) for v in values or ([float(i + 1) for i in range(len(texts))],)]
    return TokenStrip(units=units(texts), rows=tuple(rows) or tuple(made), hidden=tuple(hidden), **fields)


def paris(**fields: Any) -> TokenStrip:
    texts = ["<|bos|>", "The", " capital", " of", " France", " is"]
    return strip(texts, [30.0, 2.0, 9.0, 1.0, 12.0, 4.0], **fields)


def predicted(**fields: Any) -> Bars:
    bars = (Bar(name=" Paris", value=0.75, note="token 1"), Bar(name="<b>\n", value=0.05, note="token 2"))
    return Bars(
        **dict(title="predicted next token", bars=bars, percent=True, aside=True, views=("terminal", "page")) | fields
    )


def nasty_strip(**fields: Any) -> TokenStrip:
    texts = dict.fromkeys(("title", "detail"), INJECTION) | dict(facts=(INJECTION,), legend=(INJECTION,))
    rows = [row([float(i + 1) for i in range(len(NASTY))], label=INJECTION, facts=(INJECTION,), coming=INJECTION)]
    return strip(NASTY, **dict(rows=rows) | texts | fields)


def blocks(*, views: tuple[str, ...] = ("page",), inner: Sequence[str] | None = None, **fields: Any) -> TokenStrip:
    """Three blocks of the tokens of "paris": token 0, the ends, the middle."""
    texts = list(inner) if inner is not None else [unit.text for unit in paris().units]
    places = ((0,), (1, 5), (2, 3, 4))
    tokens = strip(texts, [30.0, 2.0, 9.0, 1.0, 12.0, 4.0], hidden=(0,), title="", detail="", views=views)
    names = [Unit(text, at) for text, at in zip(("<|bos|>", "ends", "middle"), places, strict=True)]
    one = row([30.0, 4.5, 15.0], (0,), errors=(0.1, 0.2, 0.3))
    defaults = dict(units=tuple(names), rows=(one,), hidden=(0,), inside=tokens, title="Semantic Scope")
    return TokenStrip(**defaults | fields)


def nasty_blocks() -> TokenStrip:
    names = tuple(Unit(text, (i, i + len(NASTY))) for i, text in enumerate(NASTY))
    inner = strip((*NASTY, *NASTY), title="", detail="", views=("terminal", "page", "figure"))
    return msgspec.structs.replace(nasty_strip(), units=names, inside=inner)


def heat(values: Sequence[Sequence[float]], columns: Sequence[str] | None = None, **fields: Any) -> HeatMap:
    width = max(map(len, values), default=0)
    hidden = fields.get("hidden", ())
    kept = [v for one in values for i, v in enumerate(one) if i not in hidden]
    defaults: dict[str, Any] = dict(
        title="influence on logit of ' Paris'",
        rows=tuple(map(str, range(len(values)))),
        row_axis="layer",
        column_axis="token",
        scales=(scale_of(kept, signed=True),),
        quantity="logits",
        numbered=True,
    )
    texts = [f" t{i}" for i in range(width)] if columns is None else columns
    return HeatMap(values=tuple(map(tuple, values)), columns=units(texts), **defaults | fields)


VALUES = ((50.0, 1.0, NAN), (40.0, -2.0, 4.0))


def grid(**fields: Any) -> HeatMap:
    return heat(VALUES, **dict(hidden=(0,)) | fields)


def nasty_heat() -> HeatMap:
    names: dict[str, Any] = dict.fromkeys(("title", "detail", "quantity", "row_axis", "column_axis"), INJECTION)
    values = [[1.0] * len(NASTY)] * len(NASTY)
    return heat(values, NASTY, rows=NASTY, facts=(INJECTION,), legend=(INJECTION,), **names)


PARTS = {"embed": 2.0, "0.attn": -1.0, "0.mlp": 0.5, "1.attn": 4.0, "1.mlp": 0.0, "unembedding bias": -0.25}


def contributions(parts: dict[str, float], **fields: Any) -> Bars:
    bars = []
    for name, value in parts.items():
        layer, dot, kind = name.partition(".")
        bars.append(Bar(name=name, value=value, kind=kind if dot else "", line=layer if dot else ""))
    fields = dict(title="logit of ' Paris' = 5.25", facts=("the parts add up to it", "demo"), running=True) | fields
    return Bars(bars=tuple(bars), **fields)


def nasty_bars(**fields: Any) -> Bars:
    texts: dict[str, Any] = dict.fromkeys(("title", "detail", "quantity"), INJECTION)
    bars = tuple(Bar(name=t, value=1.0, kind=t, line=t, note=t, error=0.1) for t in NASTY)
    return Bars(bars=bars, facts=(INJECTION,), legend=(INJECTION,), **texts | fields)


def evaluation(**fields: Any) -> Curves:
    k = (1.0, 5.0, 10.0, 20.0)
    means = {"random": (0.1, 0.7, 1.2, 2.8), "semantic": (4.0, 8.0, 9.1, 9.5), "fisher": (3.8, 7.7, 9.0, 9.8)}
    curves = tuple(
        Curve(name=name, x=k, y=y, low=tuple(v - 0.4 for v in y), high=tuple(v + 0.5 for v in y))
        for name, y in means.items()
    )
    return Curves(
        **dict(
            title="lambada",
            detail="25 prompts, 95% intervals",
            curves=curves,
            x_axis="tokens removed, highest scores first (%)",
            y_axis="fall of the log-probability (nats)",
            guides=(Guide(axis="y", at=0.0),),
        )
        | fields
    )


def decay(**fields: Any) -> Curves:
    y = tuple(10.0 * 0.7**i for i in range(32))
    curve = Curve(name="eigenvalues", x=tuple(map(float, range(32))), y=y, role="positive")
    return Curves(
        **dict(
            title="Fisher spectrum",
            curves=(curve,),
            x_axis="direction (the leading one is 0)",
            y_axis="eigenvalue",
            log_y=True,
            whole_x=True,
            guides=(Guide(axis="x", at=3.3 - 0.5, label="effective rank 3.3"),),
        )
        | fields
    )


def series(
    influence: Sequence[float] = (50.0, 1.0, 4.0, 2.0),
    *,
    errors: Sequence[float] = (),
    log: bool = False,
    hidden: int = 0,
    forecast: bool = True,
    truth: float | None = 4.5,
    **fields: Any,
) -> Curves:
    n = len(influence)
    x = tuple(map(float, range(n)))
    values = tuple((-1.0, 0.5, 2.0, 1.0, 0.0, 3.0)[i % 6] for i in range(n))
    low = tuple(v - e for v, e in zip(influence, errors, strict=False)) if errors else ()
    high = tuple(v + e for v, e in zip(influence, errors, strict=False)) if errors else ()
    below = Curves(
        curves=(Curve(name="influence", x=x, y=tuple(influence), low=low, high=high, marks="bars", role="positive"),),
        x_axis="position of the number",
        y_axis="influence",
        log_y=log,
        whole_x=True,
        hidden=hidden,
    )
    beside = Curves(
        curves=(
            Curve(name="forecast", x=(1.0, 2.0, 3.0, 4.0), y=(0.11, 0.33, 0.44, 0.11), marks="bars", role="negative"),
        ),
        x_axis="value",
        y_axis="probability",
        guides=() if truth is None else (Guide(axis="x", at=truth, label="truth"),),
    )
    return Curves(
        **dict(
            title="Temperature Scope",
            detail="confidence: ||y||",
            curves=(Curve(name="value", x=x, y=values, role="ink"),),
            x_axis="position of the number",
            y_axis="value",
            whole_x=True,
            guides=(Guide(axis="x", at=float(n)),),
            below=below,
            beside=beside if forecast else None,
        )
        | fields
    )


def scatter(**fields: Any) -> Curves:
    curves = (
        Curve(name="signs agree", x=(2.0, 2.5, -4.5, 10.0), y=(1.0, 2.0, -4.0, 5.0), marks="points", role="positive"),
        Curve(name="signs differ", x=(1.0,), y=(-0.5,), marks="points", role="negative"),
    )
    return Curves(
        **dict(
            title="Spearman 1.00, signs agree 80%",
            curves=curves,
            x_axis="measured",
            y_axis="predicted",
            square=True,
            guides=(Guide(axis="diagonal"),),
        )
        | fields
    )


def nasty_curves() -> Curves:
    curve = Curve(name=INJECTION, x=(0.0, 1.0), y=(1.0, 2.0))
    names: dict[str, Any] = dict.fromkeys(("title", "detail", "x_axis", "y_axis"), INJECTION)
    guide = Guide(axis="y", at=1.5, label=INJECTION)
    inner = Curves(curves=(curve,), guides=(guide,), **names)
    return Curves(
        curves=(curve, curve), guides=(guide,), below=inner, beside=inner, facts=(INJECTION,), legend=NASTY, **names
    )


def edits(**fields: Any) -> Table:
    rows = tuple(
        (
            Cell(f"{i} {word}"),
            Cell(f"{score:g}", score / 3),
            Cell("removed"),
            Cell(f"{change:+g}", change),
            Cell(predicted),
        )
        for i, word, score, change, predicted in [
            (3, "d", 3.0, -1.0, "' a' 50% *"),
            (2, "c", 2.0, 0.5, "' a' 50%"),
            (0, "a", 0.0, 0.0, "' a' 50%"),
        ]
    )
    return Table(
        **dict(
            title="Counterfactuals",
            detail="log-probability",
            facts=("scores: semantic",),
            header=("word", "score", "edit", "change", "predicted"),
            rows=rows,
            numbers=(1, 3),
            above="a b\nc d",
            notes=("Spearman 0.50 (p = 0.100, one-sided)",),
        )
        | fields
    )


def nasty_table() -> Table:
    return Table(
        title=INJECTION,
        detail=INJECTION,
        facts=(INJECTION,),
        legend=(INJECTION,),
        header=(INJECTION, "a|b"),
        rows=tuple((Cell(text, 0.5), Cell(INJECTION)) for text in NASTY),
        above=INJECTION,
        notes=(INJECTION,),
    )


def words_of_alignment(**fields: Any) -> TokenStrip:
    """ "X: rot ist = red is.": source words coloured, the target word framed."""
    texts = ("X:", " rot", " ist", " =", " red", " is", ".")
    rows = (
        row([NAN, 4.0, 2.0, NAN], label="red", facts=("nats", "source words hold 38%"), framed=(4,)),
        row([NAN, 1.0, 8.0, NAN, NAN], label="is", facts=("nats",), framed=(5,)),
    )
    return strip(texts, rows=rows, **dict(title="Fisher Scope", detail="word alignment") | fields)


def map_strip(**fields: Any) -> TokenStrip:
    texts = ("The", " capital", " of", " France", " is")
    rows = [
        row(
            [float(v + 1) for v in range(i + 1)],
            (0,),
            label=f"{i} '{texts[i]}' → {to}",
            facts=("logits",),
            coming=coming,
        )
        for i, (to, coming) in enumerate(
            [("' capital'", ""), ("' of'", ""), ("' France'", ""), ("' is'", ""), ("' Paris'", "' Paris' (predicted)")]
        )
    ]
    rows = [r if i == 4 else msgspec_replace(r, framed=(i + 1,)) for i, r in enumerate(rows)]
    return strip(texts, rows=rows, **dict(detail="attribution map", together=False, chosen=4, hidden=(0,)) | fields)


def msgspec_replace(of: Any, **fields: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(of, **fields)


def map_heat(**fields: Any) -> HeatMap:
    values = [[float(v + 1) for v in range(i + 1)] for i in range(5)]
    rows = tuple(f"{i} → x" for i in range(5))
    scales = tuple(scale_of(v[1:]) for v in values)
    texts = ["The", " capital", " of", " France", " is"]
    return heat(values, texts, rows=rows, row_axis="target", scales=scales, hidden=(0,), **fields)


def links() -> HeatMap:
    frames = (Frame(row=0, column=0), Frame(row=1, column=1, dashed=True))
    return heat(
        [[0.67, 0.33], [0.11, 0.89]],
        ["rot", "ist"],
        rows=("red", "is"),
        row_axis="target word",
        column_axis="source word",
        numbered=False,
        frames=frames,
        legend=("framed: gold links (dashed: possible)",),
        scales=(scale_of([0.67, 0.33, 0.11, 0.89]),),
        quantity="share of the row",
    )


def every_kind() -> list[Panel]:
    return [
        paris(hidden=(0,), facts=("prediction after token 5 ' is'", "demo"), legend=("logits",)),
        predicted(),
        words_of_alignment(),
        map_strip(),
        map_heat(),
        grid(),
        links(),
        contributions(PARTS),
        evaluation(),
        decay(),
        series((500.0, 1.0, 4.0, 2.0, 3.0, 1.5) * 3, hidden=1),
        scatter(),
        edits(),
    ]


def every_nasty_kind() -> list[Panel]:
    return [
        nasty_strip(),
        nasty_blocks(),
        nasty_heat(),
        nasty_bars(),
        nasty_bars(aside=True),
        nasty_curves(),
        nasty_table(),
    ]


EMPTY_SCALE = Scale(limit=0.0, low=0.0, high=0.0, signed=False)


def every_empty_kind() -> list[Panel]:
    """Nothing in them: no unit, no row, no bar, no curve, no cell; and one of everything without a number."""
    none = Curve(name="", x=(NAN,), y=(NAN,), low=(NAN,), high=(NAN,))
    return [
        TokenStrip(units=(), rows=(StripRow(values=(), scale=EMPTY_SCALE),)),
        TokenStrip(units=units(["a"]), rows=()),
        TokenStrip(units=units(["a"]), rows=(StripRow(values=(NAN,), scale=EMPTY_SCALE),)),
        TokenStrip(units=units(["a"]), rows=(StripRow(values=(0.0,), scale=EMPTY_SCALE),), hidden=(0,)),
        HeatMap(values=(), rows=(), columns=(), row_axis="r", column_axis="c", scales=()),
        HeatMap(
            values=((NAN,),), rows=("a",), columns=units(["b"]), row_axis="r", column_axis="c", scales=(EMPTY_SCALE,)
        ),
        HeatMap(
            values=((0.0,),), rows=("a",), columns=units(["b"]), row_axis="r", column_axis="c", scales=(EMPTY_SCALE,)
        ),
        Bars(bars=()),
        Bars(bars=(), aside=True),
        Bars(bars=(Bar(name="a", value=0.0), Bar(name="b", value=NAN), Bar(name="c", value=math.inf))),
        Bars(bars=(Bar(name="a", value=NAN),), aside=True, percent=True),
        Curves(curves=(), x_axis="x", y_axis="y"),
        Curves(curves=(none,), x_axis="x", y_axis="y", log_x=True, log_y=True),
        Curves(curves=(Curve(name="", x=(1.0,), y=(0.0,)),), x_axis="x", y_axis="y", log_y=True),
        Curves(curves=(none,), x_axis="x", y_axis="y", square=True, below=Curves(curves=(none,), x_axis="", y_axis="")),
        Table(header=(), rows=()),
        Table(header=("a",), rows=()),
    ]
