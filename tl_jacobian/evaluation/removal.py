"""Taking tokens away from a prompt, and what the model then thinks of one target token."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tl_jacobian.baselines.runs import BATCH, inputs_of, rerun_of
from tl_jacobian.errors import ArgumentError
from tl_jacobian.linearization import Linearization
from tl_jacobian.progress import progress

Perturbation = Literal["zero", "mean", "delete"]


def log_probs_without(
    lin: Linearization,
    removed: Bool[Tensor, "runs pos"],
    target: int,
    perturbation: Perturbation = "zero",
    batch_size: int = BATCH,
) -> Float[Tensor, " runs"]:
    """Log-probability of a token after removing sets of tokens, one run a set; equal sets are run once.

    Args:
        lin: one linearization.
        removed: which tokens each run goes without.
        target: id of the token that is scored.
        perturbation: ``"zero"`` puts zeros in the place of the embedding, ``"mean"`` the mean of the prompt's
            embeddings, ``"delete"`` takes the token out of the prompt, so that later ones move up.
        batch_size: runs in one forward pass.

    Returns:
        Nats, float64.

    Raises:
        ArgumentError: an unknown perturbation, or nothing would be left to delete from.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> france = torch.tensor([[False] * 5, [False, False, False, True, False]])
    >>> before, after = log_probs_without(lin, france, int(lin.logits.argmax())).exp().tolist()
    >>> before > 0.7, after < 0.1
    (True, True)
    """
    check_perturbation(perturbation)
    rerun_of(lin)
    sets, which = torch.unique(removed, dim=0, return_inverse=True)
    found = torch.empty(len(sets), dtype=torch.float64)
    touched = sets.any(1)
    found[~touched] = lin.logits.double().log_softmax(-1)[target].cpu()
    run = _delete if perturbation == "delete" else _replace
    found[touched] = run(lin, sets[touched], target, perturbation, batch_size)
    return found[which]


def check_perturbation(perturbation: str) -> None:
    """Raise ArgumentError unless tokens can be removed so."""
    choices = get_args(Perturbation)
    if perturbation not in choices:
        raise ArgumentError(f"perturbation={perturbation!r}, expected one of {', '.join(map(repr, choices))}")


def _replace(lin: Linearization, sets: Tensor, target: int, perturbation: str, batch_size: int) -> Tensor:
    x = inputs_of(lin)
    left = x.mean(0) if perturbation == "mean" else torch.zeros_like(x[0])

    def runs(part: Tensor) -> Tensor:
        return rerun_of(lin).logits(torch.where(part.to(x.device)[..., None], left, x))

    return _each_batch(runs, sets, target, batch_size)


def _delete(lin: Linearization, sets: Tensor, target: int, _: str, batch_size: int) -> Tensor:
    if sets.all(1).any():
        raise ArgumentError(
            f"deleting all {sets.shape[1]} tokens leaves no prompt; take a smaller k, or perturbation='zero'"
        )

    def runs(part: Tensor) -> Tensor:
        return rerun_of(lin).prompts([lin.tokens[keep].tolist() for keep in ~part])

    return _each_batch(runs, sets, target, batch_size)


def _each_batch(runs, sets: Tensor, target: int, batch_size: int) -> Tensor:
    found = []
    with progress(len(sets), "prompts with tokens removed") as bar:
        for part in sets.split(batch_size):
            found.append(runs(part).double().log_softmax(-1)[:, target].cpu())
            bar.update(len(part))
    return torch.cat(found) if found else sets.new_empty(0, dtype=torch.float64)
