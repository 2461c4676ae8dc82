"""Temperature Scope: the model's confidence."""

from __future__ import annotations

from typing import Literal, get_args, overload

from torch import Tensor

from tl_jacobian.attribution import Attribution
from tl_jacobian.errors import ArgumentError, DegenerateScopeError
from tl_jacobian.linearization import Linearization
from tl_jacobian.linearization_batch import LinearizationBatch
from tl_jacobian.scopes.apply import Explained, apply
from tl_jacobian.scopes.output import explain_output

Confidence = Literal["hidden_norm", "logit_norm"]


@overload
def temperature_scope(lin: Linearization, *, confidence: Confidence = "hidden_norm") -> Attribution: ...
@overload
def temperature_scope(lin: LinearizationBatch, *, confidence: Confidence = "hidden_norm") -> list[Attribution]: ...
def temperature_scope(
    lin: Linearization | LinearizationBatch, *, confidence: Confidence = "hidden_norm"
) -> Attribution | list[Attribution]:
    """Temperature Scope: which tokens drive the model's confidence (eq. 7).

    Args:
        lin: a linearization, or a batch of them.
        confidence: ``"hidden_norm"`` is the paper's effective inverse temperature ||y||, with
            v = y / ||y||. ``"logit_norm"`` is the norm of the centred logits ||z - mean(z)||,
            which doesn't change when LayerNorm is folded or the unembedding centred.

    Raises:
        DegenerateScopeError: ||y|| is the same for every input, because the final norm's gain
            was folded into the unembedding.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.temperature_scope(lin).target
    'confidence: effective inverse temperature ||y||'
    """
    return apply(lin, "temperature", lambda one: explain_confidence(one, confidence))


def explain_confidence(lin: Linearization, confidence: Confidence) -> Explained:
    """The direction of either confidence."""
    lin.check_unembedded()  # the norm of another activation is no inverse temperature
    if confidence not in get_args(Confidence):
        raise ArgumentError(f'confidence={confidence!r}, expected "hidden_norm" or "logit_norm"')
    if confidence == "logit_norm":
        return explain_output(lin, _logit_norm, "confidence: norm of the centred logits")
    return _hidden_norm(lin)


def _hidden_norm(lin: Linearization) -> Explained:
    if lin.bare_norm:
        raise DegenerateScopeError(
            f"||y|| = {lin.y.norm().item():.4g} for every input: this model's final norm has no gain or bias, so the "
            "gradient of ||y|| is rounding noise. If LayerNorm was folded into the unembedding, pass the original "
            'norm, linearize(model, prompt, final_norm="original") or final_norm=hf_model.model.norm, or load the '
            "model unfolded: HookedTransformer.from_pretrained_no_processing(...), or a TransformerBridge without "
            "compatibility mode. If the norm was never trained (gain 1, bias 0), only another confidence makes "
            'sense: temperature_scope(lin, confidence="logit_norm"), which folding doesn\'t change either'
        )
    norm = lin.y.norm()
    details = {"value": norm.item(), "score": f"change of ||y|| per unit of {lin.per}"}
    return Explained((lin.y / norm)[None], "confidence: effective inverse temperature ||y||", details)


def _logit_norm(y: Tensor, logits: Tensor) -> Tensor:
    return (logits - logits.mean()).norm()
