"""From the caller's model to its host."""

from __future__ import annotations

from typing import Any

from tl_jacobian.errors import UnsupportedModelError
from tl_jacobian.host.base import Host
from tl_jacobian.host.bridge import TransformerBridgeHost
from tl_jacobian.host.hooked import HookedTransformerHost, hooked_class


def hosts() -> dict[type, type]:
    """The host for each model class that the installed TransformerLens has."""
    from transformer_lens.model_bridge import TransformerBridge

    found: dict[type, type] = {TransformerBridge: TransformerBridgeHost}
    if (hooked := hooked_class()) is not None:
        found[hooked] = HookedTransformerHost
    return found


def resolve(model: Any) -> Host:
    """The host for a model.

    Raises:
        UnsupportedModelError: not a HookedTransformer or TransformerBridge, or not a causal model.
    """
    for cls, host in hosts().items():
        if isinstance(model, cls):
            return host(model)
    raise UnsupportedModelError(
        f"can't linearise a {type(model).__module__}.{type(model).__name__}; expected a HookedTransformer or a "
        "TransformerBridge with a causal language model. For a Hugging Face model use "
        "TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)"
    )
