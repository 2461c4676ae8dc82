"""Maps of a whole text: one scope at many positions, from one forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from tl_jacobian.analyses.scopes.choose import Chosen, Scope, choose
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.chat import cut_off, written_on
from tl_jacobian.core.host.backward import Rule
from tl_jacobian.core.host.base import Host
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearization import LinearizationBatch
from tl_jacobian.core.linearize import Messages, Options, linearize_read, model_first
from tl_jacobian.core.norms import FinalNorm
from tl_jacobian.core.prompts import Read, Target, read_prompt
from tl_jacobian.core.rerun import generate
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, excerpt
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.scopes import Confidence, FisherMethod, takers_of
from tl_jacobian.results.tokens import Word, group_words

if TYPE_CHECKING:
    Prompt = str | Sequence[int] | Int[Tensor, " pos"] | Messages | Mapping[str, Any]
    TargetRule = Literal["next", "predicted"]
else:  # what is neither is refused with what may have been meant
    Prompt = TargetRule = Any


@model_first
@checked
def attribution_map(
    model: Any,
    prompt: Prompt,
    scope: Scope = "semantic",
    positions: Sequence[int] | Int[Tensor, " targets"] | None = None,
    *,
    target: TargetRule | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    method: FisherMethod | None = None,
    rank: int | None = None,
    n_products: int | None = None,
    rtol: float | None = None,
    generator: torch.Generator | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
    prepend_bos: bool | None = None,
    final_norm: FinalNorm | Literal["original"] | None = None,
    max_memory: int | str | None = None,
    precision: Precision = None,
    rule: Rule = None,
) -> AttributionMap:
    """Which tokens drove each prediction along a text: a lower-triangular target x source matrix.

    One forward pass, and one vector-Jacobian product for each target (for Fisher Scope as many as it
    takes at a single position), in batches. Each row is what the scope gives at that position alone.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        prompt: one text, its token ids, a tokenizer's output for it, or a list of messages: see :func:`linearize`.
        scope: a scope's name (``"semantic"``, ``"temperature"``, ``"fisher"``, ``"output"`` with ``fn=``), a direction
            v in y, or a function: one of two values, ``fn(y, logits) -> scalar tensor``, or one of a single value,
            ``fn(lin) -> Attribution``, which is called with one :class:`Linearization` at a time.
        positions: tokens whose next-token predictions are explained (negative ones count from
            the end); default: all.
        target: of Semantic Scope. ``"next"`` (default) is the token that really follows in the text,
            likely or not, and at the last token, which nothing follows, the most probable one;
            ``"predicted"`` is the most probable one everywhere.
        prepend_bos, final_norm, max_memory, precision, rule: as for :func:`linearize`.
        minus: of Semantic Scope: a token to contrast the target with.
        confidence: of Temperature Scope.
        method, rank, n_products, rtol, generator: of Fisher Scope.
        fn, v, name: of ``"output"`` and ``"direction"``, and what to call the result.

    Raises:
        ArgumentError: an unknown scope or target, no positions, or one of them twice.
        PromptError: empty or too long prompt, ids or positions out of range.
        DegenerateScopeError: and whatever else the scope raises at a single position.

    >>> import tl_jacobian as tj
    >>> m = tj.attribution_map(tj.load_demo_model(), "The capital of France is Paris")
    >>> m.scores.shape, m.targets[-2]
    (torch.Size([6, 6]), "logit of ' Paris'")
    >>> m[-2].top(1, skip_first=True)[0].text
    ' capital'
    """
    chosen = choose(
        scope,
        minus=minus,
        confidence=confidence,
        method=method,
        rank=rank,
        n_products=n_products,
        rtol=rtol,
        generator=generator,
        fn=fn,
        v=v,
        name=name,
    )
    targets = _rule(chosen, target)
    host = resolve(model, precision, rule)
    read = read_prompt(host, prompt, [-1], prepend_bos)
    tokens = read.tokens
    at = _checked(read, range(len(tokens)) if positions is None else positions)
    facts = {"target_rule": targets, "text_tokens": len(tokens)}
    lins = linearize_read(host, [read.at(at)], Options(final_norm, max_memory))
    return _map(host, read, _along(chosen, targets, tokens, lins), facts)


@model_first
@checked
def attribute_generation(
    model: Any,
    prompt: Prompt,
    n_tokens: int,
    scope: Scope = "semantic",
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    target: TargetRule | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    method: FisherMethod | None = None,
    rank: int | None = None,
    n_products: int | None = None,
    rtol: float | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
    prepend_bos: bool | None = None,
    final_norm: FinalNorm | Literal["original"] | None = None,
    max_memory: int | str | None = None,
    precision: Precision = None,
    rule: Rule = None,
) -> AttributionMap:
    """Let a model continue a prompt, and map what drove each token that it wrote.

    Rows are the generated tokens, columns everything before them; the same as
    :func:`attribution_map` of the finished text at the positions before the generated tokens.
    Generating runs the whole text again for every token.

    Args:
        n_tokens: how many to generate; fewer where the model ends the text. The end-of-text
            token is a target like any other.
        temperature: 0 takes the most probable token each time; above, tokens are drawn.
        generator: source of the draws, needed for them; the global one is never touched.
        model, prompt, scope, target, prepend_bos, final_norm, max_memory, precision, rule: as for
            :func:`attribution_map`, as are the options of the scope. Fisher's random signs are seeded with 0.

    Raises:
        ArgumentError, PromptError: also where ``n_tokens`` isn't positive or doesn't fit into the
            context, or a temperature comes without a generator.

    >>> import tl_jacobian as tj
    >>> m = tj.attribute_generation(tj.load_demo_model(), "The capital of France is", 2)
    >>> m.next_texts, m.scores.shape
    ((' Paris', '.'), torch.Size([2, 6]))
    """
    chosen = choose(
        scope,
        minus=minus,
        confidence=confidence,
        method=method,
        rank=rank,
        n_products=n_products,
        rtol=rtol,
        fn=fn,
        v=v,
        name=name,
    )
    targets = _rule(chosen, target)  # what can't be explained needn't be generated
    host = resolve(model, precision, rule)
    read = read_prompt(host, prompt, [-1], prepend_bos)
    start = read.tokens
    tokens = generate(host, start, n_tokens, temperature=temperature, generator=generator)
    at = list(range(len(start) - 1, len(tokens) - 1))
    facts = {
        "target_rule": targets,
        "text_tokens": len(tokens),
        "generated_from": len(start),
        "temperature": float(temperature),
        "ended": host.is_eos(tokens[-1]),
    }
    whole = Read(tokens, [], written_on(read.regions, len(start), len(tokens)))
    lins = linearize_read(host, [whole.at(at)], Options(final_norm, max_memory))
    return _map(host, whole, _along(chosen, targets, tokens, lins), facts)


def _rule(chosen: Chosen, target: TargetRule | None) -> TargetRule | None:
    """How targets are chosen along the text; None for scopes that have none."""
    if chosen.takes("target"):
        if not (target is None or (isinstance(target, str) and target in ("next", "predicted"))):
            raise ArgumentError(
                f'target={excerpt(target)}, expected "next" or "predicted"; for one token at every position pass '
                f"scope=lambda lin: tj.semantic_scope(lin, {excerpt(target)})"
            )
        return target or "next"
    if target is not None:
        takers = " or ".join(spec.title for spec in takers_of("target"))
        raise ArgumentError(f"target={target!r} is for {takers}, not for {chosen.label!r}")
    return None


def _along(
    chosen: Chosen, rule: TargetRule | None, tokens: Sequence[int], lins: LinearizationBatch
) -> list[Attribution]:
    """A scope at many positions; each target is the token that follows, where one does, or the most probable one."""
    if rule is None:
        return chosen.along(lins)
    follows = dict(enumerate(tokens[1:])) if rule == "next" else {}
    found = chosen.along(lins, target=[follows.get(lin.position) for lin in lins])
    rules = ["next" if a.position in follows else "predicted" for a in found]
    pairs = zip(found, rules, strict=True)
    return [dataclasses.replace(a, metadata={**a.metadata, "target_rule": rule}) for a, rule in pairs]


def _checked(read: Read, positions: Any) -> list[int]:
    """Positions counted from the start, in reading order."""
    if isinstance(positions, str) or not hasattr(positions, "__iter__") or not len(positions):
        raise ArgumentError(f"positions={positions!r}, expected a list of at least one position, or None for all")
    counted = sorted(read.at(list(positions)).positions)
    twice = [p for p, after in pairwise(counted) if p == after]
    if twice:
        raise ArgumentError(f"positions name token {twice[0]} more than once; a map has one row for each target")
    return counted


def _map(host: Host, read: Read, rows: list[Attribution], facts: dict[str, Any]) -> AttributionMap:
    tokens, texts = read.tokens, host.token_texts(read.tokens)
    positions = [a.position for a in rows]
    return AttributionMap(
        attributions=tuple(rows),
        next_texts=tuple(texts[p + 1] if p + 1 < len(texts) else None for p in positions),
        target_words=tuple(_target_words(texts, positions, lambda a, b: host.decode(tokens[a:b]))),
        regions=cut_off(read.regions, positions[-1] + 2),  # what is read, and what follows it
        metadata={k: v for k, v in facts.items() if v is not None},
    )


def _target_words(texts: Sequence[str], positions: Sequence[int], decode: Callable[[int, int], str]) -> Iterator[Word]:
    """Targets grouped by the word that the tokens following them are part of."""
    start = 0
    for word in group_words(texts, decode):
        stop = start + word.size
        members = [p for p in positions if start <= p + 1 < stop]
        if members:
            whole = len(members) == word.size
            yield Word(word.text if whole else "".join(texts[p + 1] for p in members), len(members))
        start = stop
    if positions[-1] == len(texts) - 1:
        yield Word("", 1)  # the text ends here
