"""Attribution patching beside activation patching: what one linearization predicts, and what interventions measure.

Patching an activation of a corrupted prompt's run with that of a clean prompt changes a metric. To
first order by the metric's gradient at the corrupted run times the difference of the two activations:
one forward and one backward pass for all places at once, where measuring takes a forward pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, overload

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.simple import gradient
from tl_jacobian.core.graph import recording
from tl_jacobian.core.hooks import check_reached, full_name, in_block, is_square, layer_of
from tl_jacobian.core.host.backward import Rule
from tl_jacobian.core.host.base import Watch
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.patching import KINDS
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearization import Linearization, without_rule
from tl_jacobian.core.linearize import Options, linearize_read, model_first
from tl_jacobian.core.products import by_pass
from tl_jacobian.core.progress import is_watched
from tl_jacobian.core.progress import progress as bar_of
from tl_jacobian.core.prompts import Answer, Read, Target, name_of, read_answer, read_prompt, resolve_target
from tl_jacobian.core.rerun import run
from tl_jacobian.core.unembedding import exact, log_prob, precise
from tl_jacobian.errors import ArgumentError, HookPointError, PromptError
from tl_jacobian.results.arguments import checked, excerpt, is_id, whole
from tl_jacobian.results.grid import Cell, Grid, nearest
from tl_jacobian.results.patching import PatchComparison

_NONE: Mapping[str, Any] = MappingProxyType({})
At = Literal[
    "resid_pre",
    "resid_mid",
    "attn_out",
    "mlp_out",
    "mlp_post",
    "heads",
    "q",
    "k",
    "v",
    "z",
    "pattern",
    "neurons",
]
Method = Literal["gradient", "two_point", "integrated"]
Metric = Callable[[Tensor], Tensor]


class Aim(NamedTuple):
    """The metric.

    Attributes:
        fn: a function of the logits that the pair holds, ``(1, pos, d_vocab)``.
        name: what it is called.
        positions: whose logits it depends on: all that the pair holds, or -1 alone.
        tokens: whose logits it is the difference of, as metadata has them; none of another metric.
    """

    fn: Metric
    name: str
    positions: tuple[int, ...] = (-1,)
    tokens: Mapping[str, int] = _NONE


@dataclass(frozen=True)
class Words:
    """A :class:`~tl_jacobian.core.prompts.Vocabulary`."""

    logits: Float[Tensor, " d_vocab"]
    encode: Callable[[str], list[int]] | None
    decode: Callable[[int], str]
    shown_as: Callable[[str], list[int]] | None


def n_passes(method: Method, steps: int) -> int:
    """Cost in forward passes: both prompts' activations, and a backward pass (two) for each gradient.

    Runs between the prompts are forward passes of their own.
    """
    return {"gradient": 4, "two_point": 6, "integrated": 2 + 3 * steps}[method]


def checked_kinds(at: At | Sequence[At], steps: int) -> list[At]:
    """The kinds of activation, as a list.

    Raises:
        ArgumentError: no such kind or method, or no steps.
    """
    kinds: list[Any] = [at] if isinstance(at, str) else list(at)
    if not kinds:
        raise ArgumentError("at=[], expected one kind of activation or more")
    whole("steps", steps, what="a number of runs between the prompts")
    return kinds


class _Seen(NamedTuple):
    """What one prompt's run showed."""

    x: Float[Tensor, "pos d_in"]
    logits: Float[Tensor, "positions d_vocab"]
    taps: dict[str, Tensor]


class PromptPair:
    """Two prompts of one length, run once each.

    Attributes:
        host: the model.
        ids: token ids of the clean and of the corrupted prompt; with an answer all but its last token.
        answer: its tokens, the same after both prompts; none where there is no answer.
        positions: whose logits are held: the last, all, or those that predict the answer.
        logits: of both, ``(1, positions, d_vocab)``.
        texts: the corrupted prompt's tokens; where the clean one differs, both.

    Args:
        names: hook points whose activations are kept.
        everywhere: whether the metric may read the logits of every token.
        caches: activations of either prompt that are there already.
        answer: text or ids that follow both prompts.
        rule: of the backward pass.
        linearized: numbers of the runs that gradients will be asked of, 0 the clean one and 1 the corrupted one: each
            is the run that gives its activations too.

    Raises:
        PromptError: the prompts' lengths, or the answer's tokens after either, differ, or a cache is another prompt's.
        HookPointError: the model has no such activations, or a cache hasn't.
    """

    def __init__(
        self,
        model: Any,
        clean: Any,
        corrupted: Any,
        names: Callable[[int], Iterable[str]],
        prepend_bos: bool | None,
        precision: Precision,
        *,
        everywhere: bool = False,
        caches: tuple[Any, Any] = (None, None),
        answer: Any = None,
        rule: Rule = None,
        linearized: Sequence[int] = (1,),
    ) -> None:
        self.host = resolve(model, precision, rule)
        for option, prompt in (("clean", clean), ("corrupted", corrupted)):
            if hasattr(prompt, "cache_dict"):
                raise PromptError(
                    f"{option} is an ActivationCache, which doesn't know its token ids: pass the prompt, and the cache "
                    f"as {option}_cache="
                )
        reads = [
            read_prompt(self.host, prompt, [-1], prepend_bos)
            if answer is None
            else read_answer(self.host, prompt, answer, None, prepend_bos)
            for prompt in (clean, corrupted)
        ]
        self.ids = [read.tokens for read in reads]
        self._check_lengths(*reads)
        self.answer = tuple(reads[0].answer)
        self.positions = reads[0].positions if self.answer or not everywhere else list(range(len(self.ids[0])))
        self.texts = self._labels()
        self.names = tuple(dict.fromkeys(n for i in range(self.host.anatomy(None).n_layers) for n in names(i)))
        self._linearized = {i: self._linearize(i, self.positions) for i in self._shared(linearized)}
        seen = [self._seen(i) for i in range(2)]
        self.logits = torch.stack([one.logits[None] for one in seen])
        self.x = torch.stack([one.x for one in seen])
        self.taps = {name: torch.stack([one.taps[name] for one in seen]) for name in self.names}
        for i, (option, cache) in enumerate(zip(("clean_cache", "corrupted_cache"), caches, strict=True)):
            if cache is not None:
                self._take(i, option, cache)

    # -- runs ------------------------------------------------------------------------

    def _linearize(self, i: int, positions: list[int]) -> Sequence[Linearization]:
        """A member for each position of one prompt."""
        return linearize_read(self.host, [Read(self.ids[i], positions)], Options(record=self.names)).members

    def _shared(self, linearized: Sequence[int]) -> Sequence[int]:
        """The runs that are linearized at once: none where each position takes a pass of its own."""
        return () if len(self.positions) > 1 and self.host.conditions().mix else linearized

    def _seen(self, i: int) -> _Seen:
        """What one prompt's run showed."""
        if found := self._linearized.get(i):
            last = found[-1]
            taps = {name: last.taps.tensor(name).detach()[0] for name in self.names}
            return _Seen(last.graph.x.detach()[0], torch.stack([one.logits for one in found]), taps)
        trace = run(self.host, [self.ids[i]], Watch(taps=self.names), self.positions)
        check_reached(self.names, trace.taps)
        return _Seen(trace.x.detach()[0], precise(trace.logits), {name: trace.taps[name][0] for name in self.names})

    def _check_lengths(self, first: Read, second: Read) -> None:
        clean, corrupted = self.ids
        if len(clean) != len(corrupted):
            pieces = [" | ".join(self.host.token_texts(ids)) for ids in self.ids]
            raise PromptError(
                f"the clean prompt has {len(clean)} tokens and the corrupted one {len(corrupted)}, but activations can "
                f"only be exchanged token by token; choose words of as many tokens: {pieces[0]} / {pieces[1]}"
            )
        if (list(first.answer), first.positions) != (list(second.answer), second.positions):
            raise PromptError(
                f"the answer has the tokens {list(first.answer)} after the clean prompt and {list(second.answer)} "
                "after the corrupted one, expected the same: give it as token ids"
            )

    def asked(self, logits: Float[Tensor, "1 pos d_vocab"]) -> Float[Tensor, "1 positions d_vocab"]:
        """Those that the metric is of, of every token's."""
        return logits[:, self.positions]

    def values(self, aim: Aim) -> tuple[float, float]:
        """The metric of the clean run, and of the corrupted one."""
        with torch.no_grad():
            clean, corrupted = (float(aim.fn(logits)) for logits in self.logits)
        return clean, corrupted

    def _labels(self) -> tuple[str, ...]:
        """Each token; where the prompts differ, what patching makes of it: " Italy→ France"."""
        clean, corrupted = (self.host.token_texts(ids) for ids in self.ids)
        return tuple(a if a == b else f"{b}→{a}" for a, b in zip(clean, corrupted, strict=True))

    # -- caches ----------------------------------------------------------------------

    def _take(self, i: int, option: str, cache: Any) -> None:
        """Activations of one prompt from the caller's cache, once it is known to be that prompt's."""
        found = getattr(cache, "cache_dict", cache)
        if not isinstance(found, Mapping):
            raise ArgumentError(f"{option}={excerpt(cache)}, expected an ActivationCache or a mapping of activations")
        of_tokens = full_name(list(found), "hook_embed") in found
        first = "hook_embed" if of_tokens else self.names[0]
        own = self.x[i] if of_tokens else self.taps[first][i]
        seen = self._cached(found, first, own, option)
        off = ((exact(seen) - exact(own)).norm() / exact(own).norm().clamp_min(1e-300)).item()
        if not off < _SAME:
            hint = "" if of_tokens else ", or made under hooks: keep hook_embed in it, which tells whose it is"
            raise PromptError(
                f"{option} isn't of the prompt {excerpt(''.join(self.host.token_texts(self.ids[i])))}: {first} is "
                f"{off:.0%} away from that prompt's; it is another prompt's{hint}"
            )
        for name, taps in self.taps.items():
            taps[i] = self._cached(found, name, taps[i], option)

    def _cached(self, found: Mapping[str, Tensor], name: str, own: Tensor, option: str) -> Tensor:
        name = full_name(list(found), name)
        if name not in found:
            raise HookPointError(
                f"{option} has no {name}, of {len(found)} activations: make it with run_with_cache(prompt), all of "
                "them, or with a names_filter that keeps it"
            )
        value = found[name]
        value = value[0] if value.ndim == own.ndim + 1 and len(value) == 1 else value
        if value.shape != own.shape:
            raise PromptError(
                f"{option} has {name} of shape {tuple(found[name].shape)}, expected {tuple(own.shape)} (or with a "
                f"batch of one): it is of another prompt than that of {len(self.ids[0])} tokens, or of another model"
            )
        return value.detach().to(own)

    # -- gradients -------------------------------------------------------------------

    def _runs(self, aim: Aim, method: Method, steps: int) -> list[Linearization]:
        """The runs whose gradients are averaged: of each run a member for each position that the metric is of."""
        n, found = len(aim.positions), self._linearized
        at = self.positions[-n:]
        if method == "integrated":
            a, b = self.x
            along = torch.stack([b + (i + 0.5) / steps * (a - b) for i in range(steps)])
            options = Options(record=self.names, input_value=along)
            return list(linearize_read(self.host, [Read(self.ids[1], at)] * steps, options))
        which = [1] if method == "gradient" else [0, 1]
        # Popped: a graph isn't kept for as long as measuring takes.
        return [one for i in which for one in (found.pop(i)[-n:] if i in found else self._linearize(i, at))]

    def gradients(self, aim: Aim, method: Method, steps: int) -> tuple[dict[str, Tensor], Tensor, Linearization]:
        """The metric's mean gradient at each activation, and at the embeddings; and one of the runs.

        One backward pass for all runs of a forward pass.
        """
        runs, n = self._runs(aim, method, steps), len(aim.positions)
        grads = {name: torch.zeros_like(taps[0]) for name, taps in self.taps.items()}  # where it doesn't depend on it
        of_x = torch.zeros_like(self.x[0])
        bases = self.logits if method == "two_point" else self.logits[1:].expand(len(runs) // n, -1, -1, -1)
        v = [row for i, base in enumerate(bases) for row in _directions(runs[i * n : (i + 1) * n], base, aim)]
        for group in by_pass(runs):
            first = runs[group[0]]
            together = torch.zeros_like(first.graph.y)
            for i in group:
                together[runs[i].row] = v[i]
            (found,) = first.graph.stream_to(together[None], [first.graph.x, *map(first.taps.tensor, self.names)])
            for total, grad in zip((of_x, *grads.values()), found, strict=True):
                if grad is not None:
                    part = reduce(grad, "1 runs ... -> ...", "sum") / (len(runs) // n)
                    total[tuple(slice(0, size) for size in part.shape)] += part  # a run may end at a position
        return grads, of_x, runs[0]

    @property
    def first(self) -> int:
        """The first token that differs: before it both runs are the same."""
        clean, corrupted = self.ids
        return next((i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b), 0)


# An activation of the same prompt may have been rounded to bfloat16 (0.4%), or made by another attention kernel;
# another token's embedding is as far away as it is long.
_SAME = 0.02


def _directions(members: Sequence[Linearization], base: Tensor, aim: Aim) -> Tensor:
    """The metric's gradient in y, for each position of one run."""
    with recording():
        y = torch.stack([one.y for one in members]).clone().requires_grad_()
        found = members[0].unembedding.logits(y)
        held = base[:, : base.shape[1] - len(members)]  # of tokens that the metric doesn't depend on
        logits = torch.cat([held.to(found), found[None]], dim=1)
        v = gradient(aim.fn(logits), y, "metric(logits)")
    for one, row in zip(members, v, strict=True):
        one.check_direction(row)
    return v


# -- places ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Places:
    """The places of one kind of activation, as a grid has them."""

    pair: PromptPair
    at: At

    @property
    def names(self) -> list[str]:
        hook = KINDS[self.at].hook
        return [name for name in self.pair.names if name == in_block(layer_of(name) or 0, hook)]

    @property
    def axes(self) -> str:
        return KINDS[self.at].axes

    def n_heads(self, name: str) -> int:
        return self.pair.taps[name].shape[1 if is_square(name) else 2]

    @property
    def rows(self) -> tuple[str, ...]:
        if self.axes == "head at token":
            return tuple(f"L{layer_of(name)}H{head}" for name in self.names for head in range(self.n_heads(name)))
        return tuple(str(layer_of(name)) for name in self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        letter = {"head": "H", "neuron": "N"}.get(self.axes)
        if letter is None:
            return self.pair.texts
        return tuple(f"{letter}{i}" for i in range(self.pair.taps[self.names[0]].shape[2]))

    def where(self, row: int, column: int) -> tuple[str, tuple[Any, ...]]:
        """The hook point of a place, and its index there, in a batch."""
        every = slice(None)
        if self.axes == "token":
            return self.names[row], (every, column)
        if self.axes != "head at token":
            return self.names[row], (every, every, column)
        for name in self.names:
            if row < (n := self.n_heads(name)):
                return name, (every, row, column) if is_square(name) else (every, column, row)
            row -= n
        raise IndexError(row)

    def predicted(self, grads: Mapping[str, Tensor]) -> Float[Tensor, "rows columns"]:
        """Gradient times difference, summed over everything but the places."""
        pattern = {"token": "pos ... -> 1 pos", "head": "pos head d -> 1 head", "neuron": "pos neuron -> 1 neuron"}
        rows = []
        for name in self.names:
            clean, corrupted = self.pair.taps[name]
            product = exact(precise(clean - corrupted) * precise(grads[name]))
            heads = "head to source -> head to" if is_square(name) else "pos head d -> head pos"
            rows.append(reduce(product, pattern.get(self.axes, heads), "sum"))
        return torch.cat(rows)

    def grid(
        self, values: Float[Tensor, "rows columns"], aim: Aim, what: str, facts: Mapping[str, Any] = _NONE
    ) -> Grid:
        """Effects of every place under names; a backward rule has to do with those that are predicted."""
        host = self.pair.host.facts()
        tokens = self.axes in ("token", "head at token")
        return Grid(
            values=values.float(),
            rows=self.rows,
            columns=self.columns,
            title=f"{what} effect of patching {KINDS[self.at].hook} on {aim.name}",
            quantity=f"change of {aim.name}",
            row_axis="head" if self.axes == "head at token" else "layer",
            column_axis="token" if tokens else self.axes,
            signed=True,
            tokens=tuple(self.pair.ids[1]) if tokens else (),
            metadata={
                "at": self.at,
                "clean": self.pair.ids[0],
                "corrupted": self.pair.ids[1],
                **facts,
                **(host if what == "predicted" else without_rule(host)),
            },
        )

    def chosen(self, places: Sequence[Any]) -> list[tuple[int, int]]:
        """Rows and columns by name or number.

        Raises:
            ArgumentError: there is none of that name; names the nearest.
        """
        return list(dict.fromkeys(self._place(place) for place in places))

    def _place(self, place: Any) -> tuple[int, int]:
        if isinstance(place, Cell):
            inside = place.row < len(self.rows) and place.column < len(self.columns)
            if not inside or (self.rows[place.row], self.columns[place.column]) != (place.row_name, place.column_name):
                raise ArgumentError(
                    f"places has {place.row_name!r}, {place.column_name!r} of another grid, expected cells of "
                    f"predict_patching(..., at={self.at!r}).top()"
                )
            return place.row, place.column
        if isinstance(place, str) or not isinstance(place, Sequence) or len(place) != 2:
            raise ArgumentError(
                f"places has {excerpt(place)}, expected pairs of a row and a column, by name or number: "
                f"({self.rows[0]!r}, {self.columns[-1]!r}), or cells as top() hands them out"
            )
        row, column = _index(place[0], self.rows, "row"), _index(place[1], self.columns, "column")
        return row, column

    def measured(
        self, places: Sequence[tuple[int, int]], aim: Aim, before: float, hidden: bool
    ) -> Float[Tensor, "rows columns"]:
        """The metric with one place at a time taken from the clean run, minus the corrupted run's; NaN elsewhere."""
        out = torch.full((len(self.rows), len(self.columns)), torch.nan, dtype=torch.float64)
        with bar_of(len(places), "patched runs", hidden=hidden) as bar:
            for row, column in places:
                name, index = self.where(row, column)
                logits = self.pair.host.edited(self.pair.ids[1], {name: self._patch(name, index)})
                with torch.no_grad():
                    out[row, column] = float(aim.fn(self.pair.asked(logits))) - before
                bar.update()
        return out

    def _patch(self, name: str, index: tuple[Any, ...]) -> Callable[[Tensor], Tensor]:
        clean = self.pair.taps[name][0]

        def patch(activation: Tensor) -> Tensor:
            if activation.shape[1:] != clean.shape:
                raise HookPointError(
                    f"TransformerLens shows {name} as {tuple(activation.shape[1:])}, but the model has "
                    f"{self.n_heads(name)} heads, so patching them one by one would patch other things: compare "
                    'at="attn_out" or "resid_pre"'
                )
            patched = activation.clone()
            patched[index] = clean[None][index].to(activation)
            return patched

        return patch


def _index(value: Any, names: Sequence[str], axis: str) -> int:
    """The number of a row or column that is named, or numbered."""
    if is_id(value):
        if -len(names) <= int(value) < len(names):
            return int(value) % len(names)
        raise ArgumentError(f"places has {axis} {value}, expected {-len(names)} to {len(names) - 1}")
    return named(value, names, axis, "places")


def named(value: Any, names: Sequence[str], what: str, argument: str) -> int:
    """Which of the names it is, the only one of its kind.

    Raises:
        ArgumentError: none, and says the nearest; or the name of several.
    """
    if isinstance(value, str) and names.count(value) == 1:
        return names.index(value)
    if isinstance(value, str) and value in names:
        raise ArgumentError(
            f"{argument} has {what} {value!r}, the name of {names.count(value)} of them: give its number"
        )
    raise ArgumentError(
        f"{argument} has no such {what}: {excerpt(value)}; the nearest is {nearest(str(value), names)!r}"
    )


# -- the metric --------------------------------------------------------------------------


def aim_of(pair: PromptPair, target: Target | None, minus: Target | None, metric: Metric | None) -> Aim:
    """The metric that is meant.

    Raises:
        ArgumentError: a metric and a target, or either and an answer; or both prompts predict the same token and no
            target is given.
        TargetError: a target isn't one token.
    """
    if pair.answer:
        if (target, minus, metric) != (None, None, None):
            raise ArgumentError(
                f"answer= and target={target!r}, minus={minus!r}, metric={excerpt(metric)}: the metric is the answer's "
                "log-probability; give one or the other"
            )
        words = f"log-probability of the answer {excerpt(pair.host.decode(list(pair.answer)))}"
        return Aim(lambda logits: log_prob(logits[0], pair.answer), words, tuple(pair.positions))
    if metric is not None:
        if (target, minus) != (None, None):
            raise ArgumentError(f"metric= and target={target!r}, minus={minus!r}: give one or the other")
        if not callable(metric):
            raise ArgumentError(f"metric={metric!r}, expected a function of the logits")
        fn = _of_all_logits(metric, pair.logits[0])
        return Aim(fn, getattr(metric, "__name__", "metric"), _positions(fn, pair.logits))
    host = pair.host
    last = pair.logits[:, 0, -1]
    vocabulary = Words(last[0], host.encode, lambda token: host.token_texts([token])[0], host.tokens_shown_as)
    clean, corrupted = (int(logits.argmax()) for logits in last)
    token = clean if target is None else resolve_target(vocabulary, target)
    other = corrupted if minus is None else resolve_target(vocabulary, minus)
    if token == other:
        raise ArgumentError(
            f"target and minus are the same token, {name_of(vocabulary, token)}: the prompts predict the same, so say "
            "what to compare, target=... and minus=..., or give a metric"
        )
    name = f"logit of {name_of(vocabulary, token)} minus logit of {name_of(vocabulary, other)}"
    tokens = {"target_token": token, "minus_token": other}
    return Aim(lambda logits: logits[0, -1, token] - logits[0, -1, other], name, tokens=tokens)


def _of_all_logits(metric: Metric, logits: Float[Tensor, "1 pos d_vocab"]) -> Metric:
    """A metric as TransformerLens has them, of ``(batch, pos, d_vocab)``, also of one of the last token's logits.

    >>> _of_all_logits(lambda logits: logits[2], torch.arange(3.0)[None, None])(torch.arange(3.0)[None, None])
    tensor(2.)
    """

    def of_last(all_logits: Tensor) -> Tensor:
        return metric(all_logits[0, -1])

    failure = None
    for fn in (metric, of_last):
        try:
            value = fn(logits)
        except Exception as error:
            failure = failure or error
        else:
            if not isinstance(value, Tensor) or value.numel() == 1:
                return fn
            failure = failure or ValueError(f"it gave a tensor of shape {tuple(value.shape)}, not one number")
    raise ArgumentError(
        f"metric(logits) failed: {type(failure).__name__}: {failure}; logits are those of every token, of shape "
        f"{tuple(logits.shape)} as TransformerLens has them: logits[0, -1, token]; or the last token's, "
        f"({logits.shape[-1]},)"
    ) from failure


def _positions(fn: Metric, logits: Float[Tensor, "2 1 pos d_vocab"]) -> tuple[int, ...]:
    """Whose logits a metric depends on, in either run: the last token's alone, or every token's."""
    n = logits.shape[2]
    for one in logits:
        with recording():
            z = one.detach().clone().requires_grad_()
            v = gradient(fn(z), z, "metric(logits)")
        if v[0, :-1].any():
            return tuple(range(n))
    return (-1,)


# -- what is asked for -------------------------------------------------------------------


def predict(pair: PromptPair, kinds: Sequence[At], aim: Aim, method: Method, steps: int) -> dict[At, Grid]:
    """First-order effects of patching every place."""
    grads, of_x, _ = pair.gradients(aim, method, steps)
    clean, corrupted = pair.values(aim)
    from_embeddings = exact(precise(pair.x[0] - pair.x[1]) * precise(of_x)).sum().item()
    facts = {"method": method, "n_passes": n_passes(method, steps)}
    facts |= {"from_embeddings": from_embeddings, "whole": clean - corrupted}
    places = [Places(pair, kind) for kind in kinds]
    return {one.at: one.grid(one.predicted(grads), aim, "predicted", facts) for one in places}


@overload
def predict_patching(
    model: Any,
    clean: Any,
    corrupted: Any,
    at: At = "resid_pre",
    *,
    target: Target | None = None,
    minus: Target | None = None,
    metric: Metric | None = None,
    method: Method = "gradient",
    steps: int = 8,
    clean_cache: Any = None,
    corrupted_cache: Any = None,
    prepend_bos: bool | None = None,
    precision: Precision = None,
    rule: Rule = None,
    answer: Answer | None = None,
) -> Grid: ...
@overload
def predict_patching(
    model: Any,
    clean: Any,
    corrupted: Any,
    at: Sequence[At],
    *,
    target: Target | None = None,
    minus: Target | None = None,
    metric: Metric | None = None,
    method: Method = "gradient",
    steps: int = 8,
    clean_cache: Any = None,
    corrupted_cache: Any = None,
    prepend_bos: bool | None = None,
    precision: Precision = None,
    rule: Rule = None,
    answer: Answer | None = None,
) -> dict[At, Grid]: ...
@model_first
@checked
def predict_patching(
    model: Any,
    clean: Any,
    corrupted: Any,
    at: At | Sequence[At] = "resid_pre",
    *,
    target: Target | None = None,
    minus: Target | None = None,
    metric: Metric | None = None,
    method: Method = "gradient",
    steps: int = 8,
    clean_cache: Any = None,
    corrupted_cache: Any = None,
    prepend_bos: bool | None = None,
    precision: Precision = None,
    rule: Rule = None,
    answer: Answer | None = None,
) -> Grid | dict[At, Grid]:
    """First-order effects of patching clean activations into the corrupted run, for all places at once.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        clean, corrupted: prompts of the same length, text or token ids.
        at: which activations: ``"resid_pre"``, ``"resid_mid"``, ``"attn_out"``, ``"mlp_out"``, ``"mlp_post"`` (layers x
            tokens), ``"heads"`` (hook_z; layers x heads, all tokens together), ``"q"``, ``"k"``, ``"v"``, ``"z"``,
            ``"pattern"`` (every head x tokens; of a pattern the token that attends), ``"neurons"`` (mlp.hook_post;
            layers x neurons, all tokens together). Several come from the same passes.
        target, minus: the metric is the logit of ``target`` minus that of ``minus``, at the last token;
            default what the clean and what the corrupted prompt predict.
        metric: or any function of the logits as TransformerLens's patching has them, ``(batch, pos, d_vocab)``, of any
            tokens; one that can't take these is given the last token's, ``(d_vocab,)``.
        method: whose gradient: ``"gradient"`` the corrupted run's; ``"two_point"`` the mean of both runs';
            ``"integrated"`` the mean over ``steps`` runs whose embeddings lie between the two prompts'. That
            finds large effects that a single gradient misses, and ranks small ones worse: they are linear
            at the corrupted run already (benchmarks/results/patching.md). ``metadata["from_embeddings"]`` says
            what it predicts for the embeddings altogether, ``metadata["whole"]`` what it should.
        steps: of ``"integrated"``.
        clean_cache, corrupted_cache: activations of either prompt that are there already, an ``ActivationCache`` of
            ``run_with_cache``: what is patched in, and what it takes the place of. They may have been made under hooks;
            the gradient is the corrupted prompt's.
        prepend_bos, precision, rule: as for :func:`linearize`. Under a rule it isn't the metric's derivative that is
            predicted with; titles and metadata say so.
        answer: text or token ids that follow both prompts: the metric is its log-probability then, and its own tokens
            are places too (all but the last, which nothing reads).

    Returns:
        A grid in units of the metric; for several ``at`` a dict of them.

    Raises:
        PromptError: the prompts have different lengths, or a cache is another prompt's.
        ArgumentError: no such kind of activation or method; a metric and a target.
        HookPointError: the model has no such activations (parallel blocks have no resid_mid), or a cache hasn't.

    >>> import tl_jacobian as tj
    >>> g = tj.predict_patching(tj.load_demo_model(), "The capital of France is", "The capital of Italy is")
    >>> g.values.shape, g.top(1)[0].column_name
    (torch.Size([30, 5]), ' Italy→ France')
    """
    kinds = checked_kinds(at, steps)
    options = _options(metric, method, (clean_cache, corrupted_cache), answer, rule)
    pair = _pair(model, clean, corrupted, kinds, prepend_bos, precision, options)
    found = predict(pair, kinds, aim_of(pair, target, minus, metric), method, steps)
    return found[kinds[0]] if isinstance(at, str) else found


def _options(metric: Metric | None, method: Method, caches: tuple[Any, Any], answer: Any, rule: Rule) -> dict[str, Any]:
    """Those of a pair of prompts that have to do with what is predicted."""
    linearized = {"gradient": (1,), "two_point": (0, 1), "integrated": ()}[method]
    return dict(everywhere=callable(metric), caches=caches, answer=answer, rule=rule, linearized=linearized)


def _pair(
    model: Any,
    clean: Any,
    corrupted: Any,
    kinds: Sequence[At],
    prepend_bos: bool | None,
    precision: Precision,
    options: dict[str, Any],
) -> PromptPair:
    def names(layer: int) -> list[str]:
        return [in_block(layer, KINDS[kind].hook) for kind in kinds]

    return PromptPair(model, clean, corrupted, names, prepend_bos, precision, **options)


@model_first
@checked
def compare_patching(
    model: Any,
    clean: Any,
    corrupted: Any,
    at: At = "resid_pre",
    *,
    target: Target | None = None,
    minus: Target | None = None,
    metric: Metric | None = None,
    method: Method = "gradient",
    steps: int = 8,
    places: Sequence[Any] | None = None,
    top: int | None = None,
    progress: bool = True,
    clean_cache: Any = None,
    corrupted_cache: Any = None,
    prepend_bos: bool | None = None,
    precision: Precision = None,
    rule: Rule = None,
    answer: Answer | None = None,
) -> PatchComparison:
    """:func:`predict_patching` beside what patching measures, place by place, as ``transformer_lens.patching`` does it.

    Measuring runs the model once for each place: layers x tokens (or layers x heads) forward passes. ``top=10``
    measures what was predicted to matter most, alone.

    Args:
        places: which to measure: pairs of a row and a column of the grid, by name or number, such as ``("20", "H3")``
            for ``"heads"``, ``("L20H3", -1)`` for ``"z"``, or cells as the prediction's ``top()`` hands them out;
            default all. The others have no measured effect (NaN).
        top: or so many of those with the largest predicted effect.
        progress: whether a bar on stderr shows how far measuring is, where a terminal is there and it takes long.
        model, clean, corrupted, at, target, minus, metric, method, steps: as for :func:`predict_patching`.
        clean_cache, corrupted_cache, prepend_bos, precision, rule, answer: as there. No rule changes what is measured.

    Raises:
        ArgumentError: ``places`` has a row or column that isn't there; names the nearest.
        HookPointError: patching there would patch something else.

    >>> import tl_jacobian as tj
    >>> pair = "In France", "In Italy"
    >>> c = tj.compare_patching(tj.load_demo_model(), *pair, "attn_out", target=" Paris", minus=" Rome", top=6)
    >>> int((~c.measured.values.isnan()).sum()), c.spearman > 0.5
    (6, True)
    """
    (kind,) = checked_kinds(at, steps)
    if places is not None and top is not None:
        raise ArgumentError(f"places= and top={top}: give one or the other")
    options = _options(metric, method, (clean_cache, corrupted_cache), answer, rule)
    pair = _pair(model, clean, corrupted, [kind], prepend_bos, precision, options)
    aim, here = aim_of(pair, target, minus, metric), Places(pair, kind)
    if any(map(pair.host.beside, here.names)):
        raise HookPointError(
            f"on {pair.host.name} hook_resid_mid is the input of the MLP's norm, so patching it there leaves the "
            'residual stream as it was: compare at="resid_pre" or "attn_out", or use a HookedTransformer'
        )
    size = len(here.rows), len(here.columns)
    chosen = [(r, c) for r in range(size[0]) for c in range(size[1])] if places is None else here.chosen(places)
    if top is not None:
        whole("top", top)
    predicted = predict(pair, [kind], aim, method, steps)[kind]
    if top is not None:
        chosen = [(cell.row, cell.column) for cell in predicted.top(top, skip_first=False)]
    after, before = pair.values(aim)
    measured = here.measured(chosen, aim, before, hidden=not (progress and is_watched()))
    return PatchComparison(
        predicted=predicted,
        measured=here.grid(measured, aim, "measured", {"n_measured": len(chosen)}),
        clean=after,
        corrupted=before,
        first=pair.first if here.columns == pair.texts else 0,
    )
