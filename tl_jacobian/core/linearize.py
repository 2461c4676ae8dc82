"""linearize(): from a model and a prompt to a :class:`~tl_jacobian.core.linearization.Linearization`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar, overload

from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.build import Request, build
from tl_jacobian.core.graph import recording
from tl_jacobian.core.hooks import EMBED, Record, check_reached, wanted
from tl_jacobian.core.host.base import Host, Watch
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision, in_float32
from tl_jacobian.core.linearization import Linearization, LinearizationBatch
from tl_jacobian.core.memory import n_bytes
from tl_jacobian.core.norms import FinalNorm, NormAffine, affine_of
from tl_jacobian.core.prompts import Read, as_list, is_batch, read_prompt
from tl_jacobian.errors import ArgumentError, UnsupportedModelError
from tl_jacobian.results.arguments import checked

P = ParamSpec("P")
R = TypeVar("R")


def model_first(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn(model, ...)``, which says so when it is handed a linearization, before anything else is missed.

    >>> model_first(lambda model, prompt: prompt)("a model", "a prompt")
    'a prompt'
    """
    parameters = inspect.signature(fn).parameters.values()
    needed = ", ".join(p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD)

    @functools.wraps(fn)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        if isinstance(model, (Linearization, LinearizationBatch)):
            raise UnsupportedModelError(
                f"got a {type(model).__name__}, expected a model: call {fn.__name__}({needed}) with the model that was "
                "linearised; the linearization itself goes to scopes, such as semantic_scope(lin)"
            )
        return fn(*args, **kwargs)

    return checked


@dataclass(frozen=True, eq=False)
class Options:
    """The options of :func:`linearize` that say nothing of the prompt, as the caller gave them."""

    final_norm: FinalNorm | str | None = None
    max_memory: int | str | None = None
    record: Record = None
    input_hook: str = EMBED
    output_hook: str | None = None
    input_value: Float[Tensor, "batch pos d_in"] | None = None

    def __post_init__(self) -> None:
        if self.output_hook is not None and self.final_norm is not None:
            raise ArgumentError(
                f"final_norm is for y at the unembedding, not for output_hook={self.output_hook!r}; leave it out"
            )
        if self.input_value is not None and not isinstance(self.input_value, Tensor):
            raise ArgumentError(
                f"input_value is a {type(self.input_value).__name__}, expected a tensor (batch, pos, d_in)"
            )


_DEFAULTS = Options()


@overload
def linearize(
    model: Any,
    prompt: str | list[int] | Int[Tensor, " pos"],
    *,
    position: int = -1,
    prepend_bos: bool | None = None,
    final_norm: FinalNorm | Literal["original"] | None = None,
    max_memory: int | str | None = None,
    record: Record = None,
    input_hook: str = EMBED,
    output_hook: str | None = None,
    input_value: Float[Tensor, "batch pos d_in"] | None = None,
    precision: Precision = None,
) -> Linearization: ...
@overload
def linearize(
    model: Any,
    prompt: str | list[int] | Int[Tensor, " pos"],
    *,
    position: Sequence[int] | Int[Tensor, "*targets"],
    prepend_bos: bool | None = None,
    final_norm: FinalNorm | Literal["original"] | None = None,
    max_memory: int | str | None = None,
    record: Record = None,
    input_hook: str = EMBED,
    output_hook: str | None = None,
    input_value: Float[Tensor, "batch pos d_in"] | None = None,
    precision: Precision = None,
) -> LinearizationBatch: ...
@overload
def linearize(
    model: Any,
    prompt: list[str] | list[list[int]] | list[Tensor],
    *,
    position: int | Sequence[int] | Int[Tensor, "*targets"] = -1,
    prepend_bos: bool | None = None,
    final_norm: FinalNorm | Literal["original"] | None = None,
    max_memory: int | str | None = None,
    record: Record = None,
    input_hook: str = EMBED,
    output_hook: str | None = None,
    input_value: Float[Tensor, "batch pos d_in"] | None = None,
    precision: Precision = None,
) -> LinearizationBatch: ...
@model_first
@checked
def linearize(
    model: Any,
    prompt: Any,
    *,
    position: int | Sequence[int] | Int[Tensor, "*targets"] = -1,
    prepend_bos: bool | None = None,
    final_norm: FinalNorm | Literal["original"] | None = None,
    max_memory: int | str | None = None,
    record: Record = None,
    input_hook: str = EMBED,
    output_hook: str | None = None,
    input_value: Float[Tensor, "batch pos d_in"] | None = None,
    precision: Precision = None,
) -> Linearization | LinearizationBatch:
    """Run a model once and record how its final hidden state depends on its token embeddings.

    The model is left exactly as it was: hooks, ``requires_grad`` flags, ``.grad``, train or
    eval mode, the random number generators and the grad mode. The caller's own hooks run
    as in any forward pass.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        prompt: text, or token ids (re-tokenising decoded text can shift positions). A list
            of prompts gives a batch: one forward pass, each prompt with the scores it gets alone.
        position: the token whose *next-token prediction* is explained; later tokens can't
            matter and are cut off. For a batch, one position for all or one each; several positions
            of a single prompt give a batch too, one linearization each, from one forward pass.
        prepend_bos: whether to prepend the BOS token to text; default: the model's own setting.
        final_norm: for a model with folded LayerNorm, the norm that was folded: the module,
            its weight, ``(weight, bias)``, or ``"original"`` to read it from the model's
            safetensors. Gives the paper's y back; only Temperature Scope needs it.
        max_memory: the most that this call and the scopes of its result may take, beyond the model
            itself: bytes, or text like ``"8GiB"``; default: most of what is available. What each
            pass will take is predicted; where keeping all activations would take more, the backward
            passes compute each block again, under the hooks that it has now. Your hooks run
            again then, and one that gives other values is refused.
        record: activations to keep on the way, for the drill-down: ``"resid"`` (the residual stream),
            ``"components"`` (attention and MLP outputs), ``"heads"`` (hook_z), ``"sources"`` (values and
            attention patterns), hook points by name, a list of these, or True for all four.
        input_hook: whose activation is x, the input side; default the token embeddings.
        output_hook: whose activation (at ``position``) is y, the output to explain, such as
            ``"blocks.5.hook_resid_post"`` for a sparse autoencoder's feature or a probe; default what
            the unembedding consumes. There are no logits elsewhere: use :func:`direction_scope`.
        input_value: takes the place of the activation at ``input_hook``; ``(batch, pos, d_in)``.
        precision: None: the scores of the function that the weights define. A half-precision model is computed in
            float32 then, without a float32 copy of it, your hooks see float32 activations, and an enclosing
            ``torch.autocast`` is switched off. ``"model"``: as the model would, rounding included; gradients of
            half-precision models can be several times wrong.

    Returns:
        A :class:`Linearization`, or a :class:`LinearizationBatch` for a list of prompts.

    Raises:
        MemoryBudgetError: not even recomputing fits into the budget; says what would.
        PromptError: empty or too long prompt, ids or position out of range.
        UnsupportedModelError: not a causal model on a known host, active dropout, unreadable
            unembedding, a ``final_norm`` that doesn't fit, or a part of a half-precision or quantised model that
            can't be computed in float32.
        HookPointError: a hook point doesn't exist (names the nearest), or isn't one activation per position.
        ContractError: y doesn't depend on x (the output comes before the input), unembedding y doesn't
            give the model's logits, or activations aren't finite.

    >>> import tl_jacobian as tj
    >>> model = tj.load_demo_model()
    >>> lin = tj.linearize(model, "The capital of France is")
    >>> lin.str_tokens
    ('The', ' capital', ' of', ' France', ' is')
    >>> lin.vjp(lin.y).shape
    torch.Size([5, 576])
    """
    options = Options(final_norm, max_memory, record, input_hook, output_hook, input_value)
    host = resolve(model, precision)
    several = is_batch(prompt)
    position = as_list(position)
    prompts = list(prompt) if several else [prompt]
    positions = _positions(position, len(prompts), several)
    read = [read_prompt(host, p, at, prepend_bos) for p, at in zip(prompts, positions, strict=True)]
    batch = linearize_read(host, read, options)
    return batch if several or isinstance(position, Sequence) else batch[0]


def linearize_read(host: Host, prompts: Sequence[Read], options: Options = _DEFAULTS) -> LinearizationBatch:
    """:func:`linearize` for prompts that are read already; one linearization for each of their positions."""
    taps, by_name = wanted(options.record, host.hook_points()) if options.record else ((), ())
    watch = Watch(options.input_hook, options.output_hook, tuple(taps), options.input_value)
    budget = None if options.max_memory is None else n_bytes(options.max_memory)
    with recording():
        members = build(host, prompts, Request(watch, _affine(host, options.final_norm), budget))
    check_reached(by_name, members[0].taps)
    return LinearizationBatch(members)


def _positions(position: Any, n_prompts: int, several: bool) -> list[list[Any]]:
    """The explained positions of each prompt, as the caller gave them."""
    if not isinstance(position, Sequence) or isinstance(position, str):
        return [[position]] * n_prompts
    if not len(position):
        raise ArgumentError("position=[] explains nothing, expected at least one position")
    if not several:
        return [list(position)]
    if len(position) != n_prompts:
        raise ArgumentError(f"{len(position)} positions for {n_prompts} prompts; give one for all, or one each")
    return [[at] for at in position]


def _affine(host: Host, final_norm: FinalNorm | str | None) -> NormAffine | None:
    if final_norm is None:
        return None
    if isinstance(final_norm, str):
        final_norm = host.original_norm()
    with in_float32():
        return affine_of(final_norm, host.unembedding().d_model)
