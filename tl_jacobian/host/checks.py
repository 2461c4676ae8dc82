"""Models on which a gradient wouldn't mean what a scope says it means."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from tl_jacobian.errors import UnsupportedModelError

# Probabilities that attention modules hand to functional dropout.
_FUNCTIONAL = ("attention_dropout", "dropout", "resid_dropout", "hidden_dropout", "attn_dropout", "dropout_p")


def check_dropout(model: nn.Module) -> None:
    """Raise UnsupportedModelError if a forward pass would drop activations at random."""
    for name, module in model.named_modules():
        if module.training and (p := _probability(module)) > 0:
            raise UnsupportedModelError(
                f"dropout is active (p={p} in {name or type(module).__name__}), so two runs would give two "
                "attributions; call model.eval() first"
            )


def check_weights(parameters: Iterable[Tensor]) -> None:
    """Raise UnsupportedModelError if autograd can't record with these weights."""
    if any(p.is_inference() for p in parameters):
        raise UnsupportedModelError(
            "the model's weights were made under torch.inference_mode(), where no gradient can pass; load the model "
            "outside of it (using the scopes inside is fine)"
        )


def _probability(module: nn.Module) -> float:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return float(module.p)
    settings = (module.__dict__.get(name) for name in _FUNCTIONAL)
    return max((p for p in settings if isinstance(p, float)), default=0.0)
