"""Word alignment in a translation prompt: which source words drive each word of the translation."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.maps import attribution_map
from tl_jacobian.analyses.scopes.choose import Scope
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.host.base import Host
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearize import model_first
from tl_jacobian.core.norms import FinalNorm
from tl_jacobian.core.prompts import Target, read_prompt
from tl_jacobian.results.alignment import WordAlignment
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.attribution import Attribution, consecutive
from tl_jacobian.results.attribution_map import AttributionMap, cut_words, matrix, merged
from tl_jacobian.results.scopes import Confidence, FisherMethod
from tl_jacobian.studies.language.words import Segmenter, Span, Units, check_spaces, fill, joined, token_spans, units_of

TEMPLATE = "German: {source} English: {target}"
_KEPT = (
    "score",
    "method",
    "confidence",
    "target_rule",
    "model",
    "host",
    "architecture",
    "dtype",
    "final_norm",
    "versions",
)


@model_first
@checked
def word_alignment(
    model: Any,
    source: str,
    target: str,
    *,
    template: str = TEMPLATE,
    scope: Scope = "fisher",
    tokens: Literal["all", "first"] = "all",
    segmenter: Segmenter | None = None,
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
) -> WordAlignment:
    """How strongly each word of a sentence drives the prediction of each word of its translation (Fig. 3 and 13).

    The two are put into ``template``, and the model reads the whole prompt once, as in teacher forcing: a target
    word is explained where the model predicts it, whether or not it would have written it. A target word's
    row takes the predictions of its tokens, those made one token before each; a source word's column its
    tokens. Scores of several tokens make one as in :meth:`AttributionMap.words`: sums for Fisher's traces, roots of
    sums of squares for norms.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        source, target: a sentence and its translation. A word is what stands between spaces, without punctuation
            around it; in Chinese, Japanese, Thai and other languages without spaces it is a character, with a warning.
        template: the prompt, with the fields {source} and {target}.
        scope: as for :func:`attribution_map`. ``"fisher"`` is the paper's trace, some 60 products a row
            (``method="low_rank"`` takes one); ``"semantic"`` explains the logit of the token that follows.
        tokens: which of a target word's tokens are explained: ``"all"``, or the ``"first"`` alone (later ones are
            often driven by the word's own beginning).
        segmenter: a function from a text to the list of its words, for both sentences: ``jieba.lcut``, say.
        minus: of Semantic Scope: a token to contrast the target with.
        confidence: of Temperature Scope.
        method, rank, n_products, rtol, generator: of Fisher Scope.
        fn, v, name: of ``"output"`` and ``"direction"``, and what to call the result.
        prepend_bos, final_norm, max_memory, precision: as for :func:`attribution_map`.

    Raises:
        ArgumentError: a template without the two fields, a sentence without a word, or an unknown option.
        PromptError: the prompt doesn't fit into the model's context, or the tokenizer changes the text
            (normalises it), or joins words.

    >>> import tl_jacobian as tj
    >>> model = tj.load_demo_model()
    >>> a = tj.language.word_alignment(model, "Das Buch ist rot.", "The book is red.", method="low_rank")
    >>> a.row("red").top(1)[0].text
    'rot'
    """
    host = resolve(model, precision)
    check_spaces(segmenter, source, target)
    filled = fill(template, source, target, segmenter)
    ids = read_prompt(host, filled.text, [-1], prepend_bos).tokens
    (sources, targets), units = locate(host, filled.text, ids, filled.source, filled.target)
    n = len(sources)
    explained = [[t - 1 for t in (word if tokens == "all" else word[:1])] for word in units.tokens[n:]]
    m = attribution_map(
        model,
        ids,
        scope,
        [position for word in explained for position in word],
        final_norm=final_norm,
        max_memory=max_memory,
        precision=precision,
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
    return WordAlignment(
        influence=_influence(m, explained, units),
        units=tuple(word.text for word in units.words),
        sources=units.at[:n],
        targets=units.at[n:],
        source_words=tuple(word.text for word in sources),
        target_words=tuple(word.text for word in targets),
        scope=m.scope,
        combine=m.combine,
        positions=consecutive(word.size for word in units.words),
        metadata={"template": template, "tokens": tokens, **_details(m)},
    )


def locate(host: Host, text: str, ids: list[int], *sentences: tuple[Span, ...]) -> tuple[list[tuple[Span, ...]], Units]:
    """The words of sentences in a tokenised text, those that share a token joined, and the units that they are.

    The tokens a tokenizer adds at the text's ends are outside it.
    """
    pieces = host.token_texts(ids)
    outside = {i for i, token in enumerate(ids) if (host.is_bos(token) and i == 0) or host.is_eos(token)}
    spans = token_spans(text, pieces, lambda a, b: host.decode(ids[a:b]), outside)
    words = [joined(text, sentence, spans) for sentence in sentences]
    return words, units_of(text, [word for sentence in words for word in sentence], spans, pieces)


def _influence(m: AttributionMap, explained: list[list[int]], units: Units) -> Float[Tensor, "targets units"]:
    """Rows of a map merged by target word, columns by unit."""
    rows = {a.position: a.grouped(*cut_words(units.words, a)) for a in m}
    words: list[Attribution] = [merged([rows[position] for position in word]) for word in explained]
    found = matrix([word.scores for word in words])
    return torch.nn.functional.pad(found, (0, len(units.words) - found.shape[1]))


def _details(m: AttributionMap) -> dict[str, Any]:
    found = {**m.attributions[0].metadata, **m.metadata}
    return {key: found[key] for key in _KEPT if key in found}
