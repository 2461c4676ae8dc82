"""``explore``: the live view where the user is, in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_jacobian.core.linearization import Linearized
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked

if TYPE_CHECKING:
    from tl_jacobian.app.widget import Explore


@checked
def explore(
    model: Any,
    prompt: Any = None,
    *,
    sae: Any = None,
    sae_at: str | None = None,
    max_memory: int | str | None = None,
) -> Explore:
    """The live view in a notebook cell: click a token, a layer, a head, and see what drove the prediction.

    It computes with this very model, in this process: your hooks run, and what is shown is what the library's own
    functions give (the view copies the Python that makes it). The same view in a browser is ``tl-jacobian app``.

    Args:
        model: a HookedTransformer or a TransformerBridge; or a linearization, whose prompt and position (or answer)
            are then looked at: its model is run again as it is now.
        prompt: what is looked at first: text, token ids, or a list of messages; default: nothing yet.
        sae: whose features the view's *Features* tab shows: an SAE, a transcoder, weights or directions, as
            :func:`feature_scope` takes them.
        sae_at: the hook point that it reads, where it doesn't say so itself.
        max_memory: the most that a computation may take beyond the model, as for :func:`linearize`.

    Raises:
        ImportError: anywidget isn't installed (extra ``app``).
        ArgumentError: a linearization and a prompt, or a prompt of another kind; an SAE of another width.
        UnsupportedModelError: not a causal model on a known host.

    >>> import tl_jacobian as tj
    >>> view = tj.explore(tj.load_demo_model(), "The capital of France is")    # doctest: +SKIP
    """
    try:
        from tl_jacobian.app.widget import Explore
    except ImportError as error:
        raise ImportError(f'the notebook\'s view needs anywidget ({error}): pip install "tl-jacobian[app]"') from error
    from tl_jacobian.app.bench import Bench, Limits
    from tl_jacobian.app.features import sae_of

    if sae is None and sae_at is not None:
        raise ArgumentError(f"sae_at={sae_at!r} without sae=")

    if isinstance(model, Linearized):
        if prompt is not None:
            raise ArgumentError("a linearization has its prompt already: leave out prompt=, or give the model")
        model, view = _of_linearization(model)
    else:
        view = _of_prompt(prompt)
    found = None if sae is None else sae_of(sae, sae_at)
    return Explore(Bench(model, limits=Limits(memory=max_memory), sae=found), view)


def _of_prompt(prompt: Any) -> dict[str, Any]:
    if prompt is None:
        return {}
    if isinstance(prompt, str):
        return {"prompt": prompt}
    listed = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    if isinstance(listed, (list, tuple)) and listed and all(type(token) is int for token in listed):
        return {"ids": list(listed)}
    if isinstance(listed, (list, tuple)) and listed and all(isinstance(one, dict) for one in listed):
        return {"messages": [{"role": str(one.get("role")), "content": str(one.get("content"))} for one in listed]}
    raise ArgumentError(f"prompt is a {type(prompt).__name__}, expected text, token ids, or a list of messages")


def _of_linearization(lin: Linearized) -> tuple[Any, dict[str, Any]]:
    """The model, and a view of the same tokens."""
    host = getattr(lin.rerun, "host", None)
    if host is None:
        raise ArgumentError("this linearization has no model to run again; make it with linearize(model, prompt)")
    answer = getattr(lin, "answer", None)
    tokens = lin.tokens.tolist()
    if answer is None:
        return host.model, {"ids": tokens}
    start = lin.positions[0] + 1
    return host.model, {"ids": tokens[:start], "answer": list(answer)}
