"""What is computed for each kind of ask: values of the library, and their panels by place in the view."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from tl_jacobian.analyses.contributions import residual_contributions
from tl_jacobian.analyses.influence import head_influence, layer_influence
from tl_jacobian.analyses.interactions import token_interactions
from tl_jacobian.analyses.interventions import compare_edit, intervene
from tl_jacobian.analyses.maps import attribution_map
from tl_jacobian.analyses.paths import path_scope
from tl_jacobian.analyses.routes import token_route
from tl_jacobian.app.asks import Drill, Edges, Export, Feature, Features, Head, Map, Pairs, Read, Try, View, Write
from tl_jacobian.app.edges import edges
from tl_jacobian.app.features import feature, features
from tl_jacobian.app.methods import METHODS, direction_of, of_the_prompt, options_of
from tl_jacobian.app.python import linearized, python_of
from tl_jacobian.app.seen import Seen, other_text, written
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.hooks import PATTERN, RESID_PRE, Z, in_block
from tl_jacobian.core.linearization import Linearization, Linearized
from tl_jacobian.core.rerun import generate
from tl_jacobian.errors import ArgumentError, HookPointError, JacobianScopeError
from tl_jacobian.results import codec
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.base import Value
from tl_jacobian.results.comparison import compare
from tl_jacobian.results.drawing import renderer
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.panels import (
    Bar,
    Bars,
    Curve,
    Curves,
    HeatMap,
    Panel,
    TokenStrip,
    named_positions,
    scale_of,
)
from tl_jacobian.results.words import quoted
from tl_jacobian.studies.timeseries import number_influence

if TYPE_CHECKING:
    from tl_jacobian.app.bench import Bench

PATTERNS = 512  # tokens up to which attention patterns are recorded: (layers, heads, tokens, tokens) numbers
_MAP = 1024  # tokens of a map
_PAIRS = 512  # tokens of which every two are drawn


def _attribution(bench: Bench, view: View, name: str) -> Attribution:
    method = METHODS[name]
    lin = bench.linearization(view, method.record)
    found = method.compute(lin, **options_of(method, lin, view.target, view.minus))
    return found.prompt if of_the_prompt([n for n in (view.scope, view.beside) if n], lin) else found


def _grouped(bench: Bench, view: View, a: Attribution) -> Attribution:
    if view.by == "tokens":
        return a
    if view.by == "segments":
        if not view.segments:
            raise ArgumentError("no segments: name at least one piece of the text")
        return a.segments({one.name: one.text for one in view.segments})
    return getattr(a, view.by)()


def read(bench: Bench, ask: Read | Export) -> Seen:
    """The text, its tokens' scores, and the prediction."""
    view = ask.view
    tokens, start = bench.text(view)
    texts = bench.host.token_texts(tokens)
    strip = TokenStrip(units=named_positions(texts, [(i,) for i in range(len(texts))]), rows=())
    a = _attribution(bench, view, view.scope)
    shown = _grouped(bench, view, a)
    lin = bench.linearization(view, METHODS[view.scope].record)
    panels: dict[str, Sequence[Panel]] = {"text": [strip], "attribution": shown.panels(skip_first=view.skip_first)}
    value: Value = shown
    if view.beside:
        other = _grouped(bench, view, _attribution(bench, view, view.beside))
        panels["beside"] = other.panels(skip_first=view.skip_first)
        value = compare([shown, other])
    facts: dict[str, Any] = {
        "ids": tokens,
        "position": lin.position,
        "answer_start": start,
        "predicted": [p.token for p in a.predictions],
        "regions": sorted(lin.regions),
        "model": bench.facts,
    }
    if isinstance(lin, Linearization):
        facts["target"] = a.metadata.get("target_token", int(lin.logits.argmax()))
    elif isinstance(lin, AnswerLinearization):
        panels["answer"] = [_answer_bars(lin)]
    if view.series is not None and view.by == "tokens":
        value = number_influence(a, bench.series(view))
        panels["series"] = value.panels(skip_first=view.skip_first)
    return Seen(panels, python_of(view, bench.python, lin), facts, value=value)


def build_map(bench: Bench, ask: Map) -> Seen:
    """A heat map of every position's scores."""
    view = ask.view
    tokens, _ = bench.text(view)
    if len(tokens) > _MAP:
        raise ArgumentError(f"a map of {len(tokens)} tokens has {len(tokens)}² numbers; a view draws {_MAP} at most")
    method = METHODS[view.scope]
    direction = dict(method.direction or {"scope": "semantic"})
    rank = direction.pop("rank", None)
    if direction["scope"] == "fisher":
        direction |= {"method": "low_rank", "rank": rank}
    found = attribution_map(bench.model, tokens, **direction, max_memory=bench.limits.memory, **bench.options)
    grouped = found.words() if view.by == "words" else found
    heat = [p for p in grouped.panels(skip_first=view.skip_first) if isinstance(p, HeatMap)][:1]
    options = ", ".join(f"{name}={value!r}" for name, value in direction.items() if name not in ("scope", "fn"))
    call = f'tj.attribution_map(model, lin.tokens.tolist(), "{direction["scope"]}"{options and ", "}{options}).show()'
    return Seen(
        {"map": heat}, python_of(view, bench.python, found[-1], call), {"target": "each row its own"}, value=grouped
    )


def pairs(bench: Bench, ask: Pairs) -> Seen:
    """Correlations of what every two tokens do, and the strongest pairs."""
    view, method = ask.view, METHODS[ask.view.scope]
    tokens, _ = bench.text(view)
    if len(tokens) > _PAIRS:
        raise ArgumentError(f"{len(tokens)} tokens have {len(tokens)}² pairs; a view draws those of {_PAIRS} at most")
    lin = bench.linearization(view)
    direction = direction_of(method, lin, view.target, view.minus)
    found, grouped = token_interactions(lin, **direction), ""
    if view.by == "words":
        found, grouped = found.words(), ".words()"
    found = found.correlation()
    notes = [] if method.direction else [f"{method.title} has no products of pairs: this is of the logit"]
    shown = [p for p in found.panels(skip_first=view.skip_first) if not isinstance(p, TokenStrip)]
    call = f"tj.token_interactions(lin{written(direction, 'fisher')}){grouped}.correlation().show()"
    return Seen({"pairs": shown}, python_of(view, bench.python, lin, call), {}, notes, value=found)


def drill(bench: Bench, ask: Drill) -> Seen:
    """From a source to layers, positions, heads and what they read."""
    view, method = ask.view, METHODS[ask.view.scope]
    lin = bench.linearization(view, _drilled(bench, view))
    direction = direction_of(method, lin, view.target, view.minus)
    panels: dict[str, Sequence[Panel]] = {}
    notes = [] if method.direction else [f"{method.title} has no direction to follow: this is of the logit"]
    sources = [at for at in ask.positions if at < len(lin.tokens)]
    if not sources:
        raise ArgumentError(f"token {ask.positions[0]} comes after the explained position {lin.position}")

    def tried(name: str, make: Callable[[], Sequence[Panel]]) -> None:
        try:
            panels[name] = make()
        except (HookPointError, ArgumentError, RuntimeError) as error:
            if isinstance(error, JacobianScopeError) and not isinstance(error, (HookPointError, ArgumentError)):
                raise
            notes.append(f"no {name}: {error}")

    def route() -> Sequence[Panel]:
        g = token_route(lin, sources, **direction)
        return [*g.panels(skip_first=False)[:1], _stays(g, sources, lin.position)]

    tried("route", route)
    layers = [in_block(i, RESID_PRE) for i in range(bench.host.anatomy(None).n_layers)]
    at = [name for name in layers if name in lin.taps]
    tried(
        "layers",
        lambda: layer_influence(lin, **direction, at=at, kind="relative").panels(skip_first=view.skip_first)[:1],
    )
    tried("heads", lambda: head_influence(lin, **direction, kind="gradient_x_activation").panels()[:1])
    if isinstance(lin, Linearization) and direction.get("rank") is None:
        tried("reads", lambda: _reads(lin, direction, sources))
    call = "from tl_jacobian.analyses.routes import token_route\n"
    call += f"token_route(lin, {sources}{written(direction)}).show()\n"
    call += f'tj.head_influence(lin, kind="gradient_x_activation"{written(direction)}).show()\n'
    call += f"tj.residual_contributions(lin{written(direction)}).show()"
    return Seen(panels, python_of(view, bench.python, lin, call, "True"), {"positions": sources}, notes)


def _reads(lin: Linearization, direction: Mapping[str, Any], sources: Sequence[int]) -> Sequence[Panel]:
    """What each head wrote at the explained position, and how much of it it read from the source."""
    c = residual_contributions(lin, **direction)
    found: list[Panel] = []
    if c.sources is not None:
        rows = [name[1:].split("H") for name in c.sources.rows]
        n_heads = 1 + max(int(head) for _, head in rows)
        read = c.sources.values[:, list(sources)].sum(1).reshape(-1, n_heads)
        named = quoted(lin.str_tokens[sources[0]]) + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
        grid = Grid(
            values=read,
            rows=tuple(dict.fromkeys(layer for layer, _ in rows)),
            columns=tuple(f"H{h}" for h in range(n_heads)),
            title=f"what each head read from {named} and wrote at the explained position",
            quantity=c.sources.quantity,
            row_axis="layer",
            column_axis="head",
            signed=True,
        )
        found += grid.panels()[:1]
    kind = {name: name.rsplit(".", 1)[-1] if "." in name else "" for name in c.names}
    bars = tuple(Bar(name=part.name, value=part.value, kind=kind[part.name]) for part in c.top(12))
    found.append(Bars(title="largest parts of it", detail=c.target, bars=bars, quantity="each part's share of the sum"))
    return found


def head(bench: Bench, ask: Head) -> Seen:
    """One head's pattern, and its share of every token's influence."""
    view, method = ask.view, METHODS[ask.view.scope]
    lin = bench.linearization(view, _drilled(bench, view))
    z, pattern = in_block(ask.layer, Z), in_block(ask.layer, PATTERN)
    direction = direction_of(method, lin, view.target, view.minus)
    if z not in lin.taps or ask.head >= lin.taps[z].shape[1]:
        raise ArgumentError(f"this model has no head {ask.head} in layer {ask.layer}: click one in the picture")
    panels: dict[str, Sequence[Panel]] = {}
    notes = []
    name = f"head L{ask.layer}H{ask.head}"
    if pattern in lin.taps and lin.taps[pattern].ndim == 3:
        rows = lin.taps[pattern][ask.head].float()
        panels["pattern"] = [
            HeatMap(
                title=f"attention pattern of {name}",
                values=tuple(tuple(row[: i + 1].tolist()) for i, row in enumerate(rows)),
                rows=tuple(f"{i} {text}" for i, text in enumerate(lin.str_tokens)),
                columns=named_positions(lin.str_tokens, [(i,) for i in range(len(lin.str_tokens))]),
                row_axis="reading token",
                column_axis="token",
                scales=(scale_of([1.0]),),
                quantity="attention probability",
                numbered=True,
            )
        ]
    else:
        notes.append(f"no pattern: attention patterns are recorded up to {PATTERNS} tokens")
    split = path_scope(lin, z, **direction, heads=[ask.head])
    panels["share"] = [p for p in split.share.panels(skip_first=view.skip_first) if isinstance(p, TokenStrip)]
    call = f'tj.path_scope(lin, "{z}", heads=[{ask.head}]{written(direction)}).show()'
    facts = {"layer": ask.layer, "head": ask.head}
    return Seen(panels, python_of(view, bench.python, lin, call, "True"), facts, notes, value=split)


def try_out(bench: Bench, ask: Try) -> Seen:
    """An intervention: promised and true effect."""
    view = ask.view
    hook = _hook(bench, ask)
    record = None if hook is None else _drilled(bench, view)
    lin = bench.linearization(view, record)
    tokens = {} if isinstance(lin, AnswerLinearization) else {"target": view.target, "minus": view.minus}
    call = "from tl_jacobian.analyses.interventions import compare_edit, intervene\n"
    options = "".join(f", {name}={token}" for name, token in tokens.items() if token is not None)
    if ask.change == "edit":
        other = other_text(bench, view, ask.positions, ask.text)
        edited = bench.linearization(other)
        found = compare_edit(lin, edited, **tokens)
        call += f"other = {linearized(other, edited)}\ncompare_edit(lin, other{options}).show()"
    else:
        replacement: Any = ask.replacement
        where, how = ("" if hook is None else f', "{hook}"'), f'"{ask.replacement}"'
        if ask.change == "patch":
            other = other_text(bench, view, ask.edited, ask.text)
            edited = bench.linearization(other, record)
            replacement, how = _activation(lin, edited, hook), f'other.taps["{hook}"]'
            call += f"other = {linearized(other, edited, hook)}\n"
        at = None if ask.positions is None else [p for p in ask.positions if p < len(lin.tokens)]
        heads = list(ask.heads) if ask.heads is not None and ask.kind == "head" else None
        found = intervene(lin, hook, positions=at, heads=heads, replacement=replacement, **tokens)
        chosen = "".join(f", {name}={value}" for name, value in (("positions", at), ("heads", heads)) if value)
        call += f"intervene(lin{where}{chosen}, replacement={how}{options}).show()"
    facts = {"promised": found.promised, "effect": found.effect}
    return Seen({"test": found.panels()}, python_of(view, bench.python, lin, call, hook), facts, value=found)


def _hook(bench: Bench, ask: Try) -> str | None:
    if ask.change in ("drop", "edit"):
        return None
    if ask.layer is None or ask.layer >= bench.host.anatomy(None).n_layers:
        raise ArgumentError(f"layer={ask.layer}, expected 0 to {bench.host.anatomy(None).n_layers - 1}")
    return in_block(ask.layer, Z if ask.kind == "head" else f"hook_{ask.kind}")


def _drilled(bench: Bench, view: View) -> str:
    """What is recorded for a drill-down."""
    return "drill" if len(bench.text(view)[0]) <= PATTERNS else "long drill"


def write(bench: Bench, ask: Write) -> Seen:
    """An answer of the model's own."""
    view = msgspec.structs.replace(ask.view, answer=None, span=None, position=None)
    tokens, _ = bench.text(view)
    whole = generate(bench.host, tokens, ask.n_tokens)
    answer = whole[len(tokens) :]
    if len(answer) > 1 and bench.host.is_eos(answer[-1]):
        answer = answer[:-1]
    call = f"lin = tj.linearize(model, {bench.given(view)!r}, answer=tj.GENERATE, max_new_tokens={ask.n_tokens})"
    return Seen(python=call, facts={"answer": answer, "text": bench.host.decode(answer)})


def export(bench: Bench, ask: Export) -> Seen:
    """What is seen as a file."""
    seen = read(bench, ask)
    assert seen.value is not None
    if ask.format == "json":
        return Seen(file=("attribution.json", codec.encode(seen.value, seen.value.format)))
    axes = renderer().figure(seen.value.panels(skip_first=ask.view.skip_first))
    drawn = axes.figure
    with io.BytesIO() as file:
        drawn.savefig(file, format=ask.format, dpi=200)
        _close(drawn)
        return Seen(file=(f"attribution.{ask.format}", file.getvalue()))


def _answer_bars(lin: AnswerLinearization) -> Bars:
    """How probable each explained token of an answer was."""
    texts = [lin.decode(token) for token in lin.answer]
    bars = tuple(
        Bar(name=text, value=p, note=f"token {token}")
        for text, p, token in zip(texts, lin.log_probs.tolist(), lin.answer, strict=True)
    )
    return Bars(title="log-probability of each explained token", bars=bars, quantity="nats", aside=True)


def _stays(g: Grid, sources: Sequence[int], end: int) -> Curves:
    """What share of a route is still at the source, has arrived at the explained position, or is at others."""
    total = g.values.sum(1)
    share = g.values / torch.where(total == 0, 1.0, total)[:, None]
    own = share[:, list(sources)].sum(1)
    last = share[:, end] if end not in sources else torch.zeros_like(own)
    x = tuple(float(name) for name in g.rows)
    parts = {"at the token itself": own, "at the explained position": last, "at other tokens": 1.0 - own - last}
    return Curves(
        title="path share",
        detail="where the influence is, layer by layer",
        curves=tuple(Curve(name=name, x=x, y=tuple(y.tolist())) for name, y in parts.items()),
        x_axis="layer",
        y_axis="share of the score",
        whole_x=True,
    )


def _activation(lin: Linearized, other: Linearized, hook: str | None) -> torch.Tensor:
    if hook is None or lin.taps[hook].shape != other.taps[hook].shape:
        raise ArgumentError(
            f"this prompt has {len(lin.tokens)} tokens and the other one {len(other.tokens)}: activations are "
            "exchanged token by token, so put text of as many tokens in their place"
        )
    return other.taps[hook]


def _close(drawn: Any) -> None:
    """Let matplotlib forget a figure, so that no notebook shows it."""
    import matplotlib.pyplot as plt

    plt.close(drawn)


ANSWERS: Mapping[type, Callable[[Any, Any], Seen]] = MappingProxyType(
    {
        Read: read,
        Map: build_map,
        Pairs: pairs,
        Features: features,
        Feature: feature,
        Edges: edges,
        Drill: drill,
        Head: head,
        Try: try_out,
        Write: write,
        Export: export,
    }
)
