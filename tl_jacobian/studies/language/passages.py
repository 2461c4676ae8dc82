"""Segments taken out: what happens to a prediction, or to an answer, without a passage, a message or a sentence."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import BATCH, checked_rerun_of, explained_tokens, prompt_length
from tl_jacobian.analyses.scopes.apply import apply
from tl_jacobian.analyses.scopes.simple import explain_logit
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.linearization import Linearization, Linearized
from tl_jacobian.core.progress import progress
from tl_jacobian.core.prompts import Target, name_of
from tl_jacobian.core.unembedding import exact, log_prob
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, excerpt, whole
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.counterfactuals import Counterfactuals, Edit


@checked
def segment_counterfactuals(
    lin: Linearized, segments: Any, target: Target | None = None, *, batch_size: int = BATCH
) -> Counterfactuals:
    """Take each segment's tokens out of the prompt, let the rest move up, and ask for the same target or answer again.

    Nothing is tokenised again: the prompt without a passage is its other tokens, a chat template's own included. An
    answer stays as it is.

    Each edit has ``value``, the log-probability without the segment; ``change``, by how much it rises; ``kl``, how far
    the whole distribution of the next token moves (summed along an answer), in nats: it is large too where the target
    is as probable as before and others aren't; ``prediction``, the most probable next token without the segment, or
    the one that would begin another answer.

    Args:
        lin: the prompt, linearized; with an answer or without.
        segments: its attribution in units to take out: ``a.segments({...}, rest=None)``, ``a.messages()``,
            ``a.sentences()``, ``a.words()``; or what :meth:`Attribution.segments` takes, a dict of names to pieces of
            the text, say, beside Semantic Scope's scores. Units of an answer's own tokens are left alone.
        target: whose log-probability is measured; default the attribution's, or the most probable next token. An answer
            is its own.
        batch_size: prompts in one forward pass.

    Raises:
        ArgumentError: neither an attribution nor segments, an attribution of another prompt, a unit with tokens of the
            prompt and of the answer, or one without which nothing would be left of the prompt.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "Ann is in Oslo. Bob is in Rome. Bob is in", answer=" Rome")
    >>> who = {"Ann": "Ann is in Oslo.", "Bob": " Bob is in Rome."}
    >>> ann, bob = tj.language.segment_counterfactuals(lin, who).edits
    >>> bob.change < ann.change
    True
    """
    whole("batch_size", batch_size)
    if isinstance(segments, Linearized):
        raise ArgumentError(
            "segments is a linearization, expected what to take out: an attribution in units, "
            'semantic_scope(lin).segments({...}, rest=None), or the segments, {"name": "a piece of the text"}'
        )
    if not isinstance(segments, Attribution):
        scored = apply(lin, "semantic", lambda one: explain_logit(one, target))
        try:
            segments = scored.prompt.segments(segments, rest=None, split_first=False)
        except ArgumentError as error:
            raise ArgumentError(f"segments: {error}") from None
    if segments.tokens != tuple(lin.tokens.tolist()):
        raise ArgumentError(
            f"the {segments.scope} attribution is of another prompt ({''.join(segments.str_tokens)[:60]!r}), expected "
            "one of the linearization that is given"
        )
    found, tokens, n = segments.prompt, lin.tokens.tolist(), prompt_length(lin)
    if not len(found) or n in found.sizes:
        raise ArgumentError(f"{len(found)} segments of {n} tokens: expected one or more, and none that is all of them")
    if target is None and not isinstance(lin, AnswerLinearization):
        target = segments.metadata.get("target_token")
    asked, first = explained_tokens(lin, target), _first(lin)
    rerun, before = checked_rerun_of(lin), exact(lin.logits).log_softmax(-1)
    value = log_prob(before, asked)
    edits = []
    with progress(len(found), "prompts without a segment") as bar:
        for start in range(0, len(found), batch_size):
            part = range(start, min(start + batch_size, len(found)))
            kept = [[t for at, t in enumerate(tokens) if at not in found.units[i]] for i in part]
            for i, logits in zip(part, rerun.prompts(kept), strict=True):
                after = exact(logits).log_softmax(-1)
                now = log_prob(after, asked)
                kl = (before.exp() * (before - after)).sum(-1).clamp_min(0.0).sum()
                edits.append(
                    Edit(
                        at=i,
                        word=found.str_tokens[i],
                        score=found.scores[i].item(),
                        kind="removed",
                        replacement="",
                        value=now.item(),
                        change=(now - value).item(),
                        kl=kl.item(),
                        prediction=_best(first, after.reshape(len(asked), -1)[0]),
                    )
                )
            bar.update(len(part))
    what = f"the answer {excerpt(lin.text)}" if isinstance(lin, AnswerLinearization) else name_of(first, asked[0])
    return Counterfactuals(
        prompt=(found.inside or found).prompt.text,
        words=found.str_tokens,
        scores=tuple(found.scores.tolist()),
        scope=f"{found.scope}: {found.target}",
        quantity=f"log-probability of {what}",
        value=value.item(),
        prediction=first.predictions[0],
        edits=tuple(edits),
        metadata={
            "score": found.metadata.get("score"),
            "unit": "segment",
            **({"answer_tokens": list(asked)} if isinstance(lin, AnswerLinearization) else {}),
            **lin.facts,
        },
    )


def _first(lin: Linearized) -> Linearization:
    """The position that predicts what is asked for, or its first token."""
    if isinstance(lin, AnswerLinearization):
        return lin[0]
    assert isinstance(lin, Linearization)  # there is no third kind
    return lin


def _best(lin: Linearization, log_probs: Float[Tensor, " d_vocab"]) -> Prediction:
    value, token = log_probs.max(-1)
    return Prediction(int(token), lin.decode(int(token)), value.exp().item())
