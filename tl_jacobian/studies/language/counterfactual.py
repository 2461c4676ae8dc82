"""Counterfactual edits: words of a prompt removed or replaced, and what really happens to the prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.choose import Scope, choose
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.host.base import Host
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.linearize import Options, linearize_read, model_first
from tl_jacobian.core.norms import FinalNorm
from tl_jacobian.core.progress import progress
from tl_jacobian.core.prompts import Target, name_of, read_prompt, resolve_target
from tl_jacobian.core.rerun import last_logits
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, is_id
from tl_jacobian.results.attribution import COMBINE, Attribution, Prediction
from tl_jacobian.results.attribution_map import cut_words
from tl_jacobian.results.counterfactuals import Counterfactuals, Edit, Kind
from tl_jacobian.results.scopes import Confidence, FisherMethod
from tl_jacobian.studies.language.align import locate
from tl_jacobian.studies.language.words import Segmenter, Span, check_spaces, split_words

if TYPE_CHECKING:
    Replacements = Mapping[str | int, Sequence[str]]
else:
    Replacements = Mapping[Any, Any]  # each word is checked with what is to stand in its place
_BATCH = 16  # prompts in one forward pass


class _Plan(NamedTuple):
    """An edit before the model has seen it: of one word, or of several in a row."""

    at: range
    kind: Kind
    replacement: str
    text: str


@model_first
@checked
def counterfactuals(
    model: Any,
    prompt: str,
    target: Target | None = None,
    *,
    minus: Target | None = None,
    scope: Scope = "semantic",
    replace: Replacements | None = None,
    top: int | None = None,
    segmenter: Segmenter | None = None,
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
) -> Counterfactuals:
    """Remove each word of a prompt in turn, put others in its place, and measure what the prediction does.

    A score is first-order: how much an infinitesimal change of a word's embedding moves the explained quantity.
    Here words really go, so "the word that the scope names first matters most" is a rank statistic:
    :meth:`Counterfactuals.agreement`. One forward pass an edit, in batches; edited text is tokenised again.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        prompt: text. A word is what stands between spaces; in Chinese, Japanese, Thai and other languages without
            spaces it is a character, with a warning.
        target: one token, whose log-probability is measured; default the most probable next token.
        minus: another one: the difference of the two logits is measured instead, which doesn't change when both
            become less likely together.
        scope: what scores the words: a scope's name (``"semantic"`` is of ``target`` and ``minus``), a direction v, or
            a function, ``fn(y, logits) -> scalar tensor`` or ``fn(lin) -> Attribution``.
        replace: for words of the prompt (by text or index) or phrases (by text: ``"the South"``), what is put in
            their place; no empty text, for removals are measured anyway.
        top: remove these many words with the highest scores alone; default all.
        segmenter: a function from a text to the list of its words: ``jieba.lcut``, say.
        prepend_bos, final_norm, max_memory, precision: as for :func:`linearize`.
        confidence: of Temperature Scope.
        method, rank, n_products, rtol, generator: of Fisher Scope.
        fn, v, name: of ``"output"`` and ``"direction"``, and what to call the result.

    Raises:
        ArgumentError: no word to edit, or ``replace`` names one that isn't there or is there twice.
        TargetError, PromptError: as for :func:`linearize` and the scope.

    >>> import tl_jacobian as tj
    >>> model = tj.load_demo_model()
    >>> c = tj.language.counterfactuals(model, "The capital of France is", " Paris", replace={"France": ["Italy"]})
    >>> c.prediction.text, [e.prediction.text for e in c.edits if e.replacement == "Italy"]
    (' Paris', [' Rome'])
    """
    chosen = choose(
        scope,
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
    host = resolve(model, precision)
    check_spaces(segmenter, prompt)
    words = split_words(prompt, segmenter=segmenter)
    if not words:
        raise ArgumentError(f"prompt={prompt!r}, expected text of at least one word")
    if top is not None and top < 0:
        raise ArgumentError(f"top={top!r}, expected a number of words, or None for all")
    read = read_prompt(host, prompt, [-1], prepend_bos)
    (words,), units = locate(host, prompt, read.tokens, words)
    (lin,) = linearize_read(host, [read], Options(final_norm, max_memory))
    token = resolve_target(lin, target)
    other = None if minus is None else resolve_target(lin, minus)
    found = chosen.attribute(lin, target=token, minus=other)
    scores = found.grouped(*cut_words(units.words, found)).scores[list(units.at)].tolist()
    order = sorted(range(len(words)), key=lambda i: -scores[i])
    plans = [*_removals(prompt, words, sorted(order[:top])), *_replacements(prompt, words, replace or {})]
    plans.sort(key=lambda plan: (plan.at.start, plan.at.stop))
    rows = _logits(host, [read_prompt(host, plan.text, [-1], prepend_bos).tokens for plan in plans])
    before = exact(lin.logits)
    value = _value(before, token, other)
    return Counterfactuals(
        prompt=prompt,
        words=tuple(word.text for word in words),
        scores=tuple(scores),
        scope=f"{found.scope}: {found.target}",
        quantity=_quantity(lin, token, other),
        value=value,
        prediction=lin.predictions[0],
        edits=tuple(
            Edit(
                plan.at.start,
                prompt[words[plan.at[0]].start : words[plan.at[-1]].stop],
                _joint(scores, plan.at, found),
                plan.kind,
                plan.replacement,
                _value(after, token, other),
                _value(after, token, other) - value,
                _divergence(before, after),
                _best(lin, after),
                len(plan.at),
            )
            for plan, after in zip(plans, rows, strict=True)
        ),
        metadata={"score": found.metadata.get("score"), **lin.facts},
    )


# -- scores ------------------------------------------------------------------------


def _joint(scores: Sequence[float], at: range, found: Attribution) -> float:
    """The score of words together, as of a word's tokens."""
    return COMBINE[found.combine](torch.tensor([scores[i] for i in at], dtype=torch.float64)).item()


# -- edits -------------------------------------------------------------------------


def _removals(prompt: str, words: Sequence[Span], chosen: Sequence[int]) -> Iterator[_Plan]:
    if len(words) == 1:
        return  # nothing would be left
    for i in chosen:
        before, after = prompt[: words[i].start], prompt[words[i].stop :]
        # One of the two spaces around a word goes with it.
        text = before.rstrip() + after if before.strip() else before + after.lstrip()
        yield _Plan(range(i, i + 1), "removed", "", text)


def _replacements(prompt: str, words: Sequence[Span], replace: Mapping[str | int, Sequence[str]]) -> Iterator[_Plan]:
    for name, alternatives in replace.items():
        at = _found(words, name)
        for text in _texts(name, alternatives):
            yield _Plan(at, "replaced", text, prompt[: words[at[0]].start] + text + prompt[words[at[-1]].stop :])


def _texts(name: str | int, alternatives: Any) -> Sequence[str]:
    """What is to be put in a word's place, checked."""
    given = f"replace={{{name!r}: {alternatives!r}}}"
    known = isinstance(alternatives, Sequence) and not isinstance(alternatives, str)
    if not known or not all(isinstance(text, str) for text in alternatives):
        raise ArgumentError(f"{given}, expected a list of texts for each word")
    if not all(text.strip() for text in alternatives):
        raise ArgumentError(
            f"{given}, expected text: an empty one is no replacement, and each word's removal is measured anyway, as "
            'an edit of kind "removed"'
        )
    return alternatives


def _found(words: Sequence[Span], name: str | int) -> range:
    """The words that are meant: by index, or by the text of one or of several in a row."""
    if is_id(name) and -len(words) <= int(name) < len(words):
        return range(int(name) % len(words), int(name) % len(words) + 1)
    texts, wanted = [word.text for word in words], [word.text for word in split_words(str(name))]
    n = len(wanted)
    found = [range(i, i + n) for i in range(len(words)) if texts[i : i + n] == wanted] if n else []
    if n and not found:  # without spaces the same text may be cut into words in another way
        runs = [range(i, j) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
        found = [at for at in runs if _is_run(words[at.start : at.stop], "".join(wanted))]
    if len(found) != 1:
        names = ", ".join(f"{i} {text!r}" for i, text in enumerate(texts))
        raise ArgumentError(
            f"replace names {name!r}, which is in the prompt {len(found)} times, expected words of {names}; an index "
            "tells equal ones apart"
        )
    return found[0]


def _is_run(words: Sequence[Span], text: str) -> bool:
    """Whether words without anything between them make up a text."""
    return words[-1].stop - words[0].start == len(text) and "".join(word.text for word in words) == text


# -- measurements ------------------------------------------------------------------


def _logits(host: Host, prompts: Sequence[list[int]]) -> Iterator[Float[Tensor, " d_vocab"]]:
    """The logits after each prompt, in batches."""
    with progress(len(prompts), "edited prompts") as bar:
        for start in range(0, len(prompts), _BATCH):
            part = prompts[start : start + _BATCH]
            yield from exact(last_logits(host, part))
            bar.update(len(part))


def _value(logits: Float[Tensor, " d_vocab"], token: int, other: int | None) -> float:
    if other is not None:
        return (logits[token] - logits[other]).item()
    return logits.log_softmax(-1)[token].item()


def _quantity(lin: Linearization, token: int, other: int | None) -> str:
    if other is None:
        return f"log-probability of {name_of(lin, token)}"
    return f"logit of {name_of(lin, token)} minus logit of {name_of(lin, other)}"


def _divergence(before: Float[Tensor, " d_vocab"], after: Float[Tensor, " d_vocab"]) -> float:
    old, new = before.log_softmax(-1), after.log_softmax(-1)
    return max((old.exp() * (old - new)).sum().item(), 0.0)


def _best(lin: Linearization, logits: Float[Tensor, " d_vocab"]) -> Prediction:
    probability, token = logits.softmax(-1).max(-1)
    return Prediction(int(token), lin.decode(int(token)), probability.item())
