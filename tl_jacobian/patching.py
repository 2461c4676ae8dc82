"""Attribution patching beside activation patching: what one linearization predicts, and what interventions measure.

Patching an activation of a corrupted prompt's run with that of a clean prompt changes a metric. To
first order by the metric's gradient at the corrupted run times the difference of the two activations:
one forward and one backward pass for all places at once, where measuring takes a forward pass each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tl_jacobian.errors import ArgumentError
from tl_jacobian.grid import Grid
from tl_jacobian.model_first import model_first
from tl_jacobian.patch_comparison import PatchComparison, effects
from tl_jacobian.patch_pair import At, Method, Metric, PromptPair, aim_of, checked_kinds
from tl_jacobian.targets import Target


@model_first
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
    prepend_bos: bool | None = None,
) -> dict[str, Grid]:
    """First-order effects of patching clean activations into the corrupted run, for all places at once.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        clean, corrupted: prompts of the same length, text or token ids.
        at: which activations: ``"resid_pre"``, ``"resid_mid"``, ``"attn_out"``, ``"mlp_out"`` (layers x tokens),
            ``"heads"`` (layers x heads, all tokens together); one or several, from the same passes.
        target, minus: the metric is the logit of ``target`` minus that of ``minus``, at the last token;
            default what the clean and what the corrupted prompt predict.
        metric: or any function of the last token's logits.
        method: whose gradient: ``"gradient"`` the corrupted run's; ``"two_point"`` the mean of both runs';
            ``"integrated"`` the mean over ``steps`` runs whose embeddings lie between the two prompts'. That
            finds large effects that a single gradient misses, and ranks small ones worse: they are linear
            at the corrupted run already (benchmarks/results/patching.md). ``metadata["from_embeddings"]`` says
            what it predicts for the embeddings altogether, ``metadata["whole"]`` what it should.
        steps: of ``"integrated"``.
        prepend_bos: as for :func:`linearize`.

    Returns:
        For each of ``at`` a grid in units of the metric.

    Raises:
        PromptError: the prompts have different lengths.
        ArgumentError: no such kind of activation or method; a metric and a target.
        HookPointError: the model has no such activations (parallel blocks have no resid_mid).

    >>> import tl_jacobian as tj
    >>> g = tj.predict_patching(tj.load_demo_model(), "The capital of France is", "The capital of Italy is")
    >>> g["resid_pre"].values.shape, g["resid_pre"].top(1)[0].column_name
    (torch.Size([30, 5]), ' Italy→ France')
    """
    kinds = checked_kinds(at, method, steps)
    pair = PromptPair(model, clean, corrupted, kinds, prepend_bos)
    return pair.predict(aim_of(pair, target, minus, metric), method, steps)


@model_first
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
    prepend_bos: bool | None = None,
) -> PatchComparison:
    """:func:`predict_patching` beside what ``transformer_lens.patching`` measures, place by place.

    Measuring runs the model once for each place: layers x tokens (or layers x heads) forward passes.

    >>> import tl_jacobian as tj
    >>> pair = "In France", "In Italy"
    >>> c = tj.compare_patching(tj.load_demo_model(), *pair, "attn_out", target=" Paris", minus=" Rome")
    >>> c.measured.values.shape, c.spearman > 0.5
    (torch.Size([30, 2]), True)
    """
    if not isinstance(at, str):
        raise ArgumentError(f"at={at!r}, expected one kind of activation: each is measured by runs of its own")
    (kind,) = checked_kinds(at, method, steps)
    pair = PromptPair(model, clean, corrupted, [kind], prepend_bos)
    aim = aim_of(pair, target, minus, metric)
    after, before = (float(aim.fn(logits)) for logits in pair.logits)
    patched = pair.host.patched(pair.ids[0], pair.ids[1], kind, aim.fn)
    return PatchComparison(
        predicted=pair.predict(aim, method, steps)[kind],
        measured=pair.grid(kind, effects(before, patched), aim, "measured"),
        clean=after,
        corrupted=before,
        first=pair.first if kind != "heads" else 0,
    )
