"""linearize(): from a model and a prompt to a :class:`~tl_jacobian.core.linearization.Linearization`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal, ParamSpec, TypeVar, overload

from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.build import Request, answers, build, check_fits
from tl_jacobian.core.chat import is_answered
from tl_jacobian.core.graph import recording
from tl_jacobian.core.hooks import EMBED, Record, check_reached, wanted
from tl_jacobian.core.host.backward import Rule
from tl_jacobian.core.host.base import Host, Watch
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision, in_float32
from tl_jacobian.core.linearization import Linearization, LinearizationBatch, Linearized
from tl_jacobian.core.memory import n_bytes
from tl_jacobian.core.norms import FinalNorm, NormAffine, affine_of
from tl_jacobian.core.prompts import Read, Span, as_list, is_batch, members, read_answer, read_prompt
from tl_jacobian.core.rerun import generate
from tl_jacobian.errors import ArgumentError, ContractError, PromptError, UnsupportedModelError
from tl_jacobian.results.arguments import checked, warn, whole


class Generate(Enum):
    """``linearize(..., answer=GENERATE)``: the model writes the answer itself."""

    GENERATE = "what the model writes itself"

    def __repr__(self) -> str:
        return "GENERATE"


GENERATE = Generate.GENERATE

Messages = Sequence[Mapping[str, Any]]
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
        if isinstance(model, (Linearized, LinearizationBatch)):
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
    prompt: str | list[int] | Int[Tensor, " pos"] | Mapping[str, Any] | Messages,
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
    rule: Rule = None,
    answer: None = None,
    span: None = None,
    max_new_tokens: None = None,
) -> Linearization: ...
@overload
def linearize(
    model: Any,
    prompt: str | list[int] | Int[Tensor, " pos"] | Mapping[str, Any] | Messages,
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
    rule: Rule = None,
    answer: None = None,
    span: None = None,
    max_new_tokens: None = None,
) -> LinearizationBatch: ...
@overload
def linearize(
    model: Any,
    prompt: list[str] | list[list[int]] | list[Tensor] | Sequence[Messages],
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
    rule: Rule = None,
    answer: None = None,
    span: None = None,
    max_new_tokens: None = None,
) -> LinearizationBatch: ...
@overload
def linearize(
    model: Any,
    prompt: str | list[int] | Int[Tensor, " pos"] | Messages,
    *,
    prepend_bos: bool | None = None,
    final_norm: FinalNorm | Literal["original"] | None = None,
    max_memory: int | str | None = None,
    record: Record = None,
    input_hook: str = EMBED,
    output_hook: str | None = None,
    input_value: Float[Tensor, "batch pos d_in"] | None = None,
    precision: Precision = None,
    rule: Rule = None,
    answer: str | list[int] | Int[Tensor, " answer"] | Generate,
    span: Span | None = None,
    max_new_tokens: int | None = None,
) -> AnswerLinearization: ...
@overload
def linearize(
    model: Any,
    prompt: list[str] | list[list[int]] | list[Tensor] | Sequence[Messages],
    *,
    prepend_bos: bool | None = None,
    final_norm: FinalNorm | Literal["original"] | None = None,
    max_memory: int | str | None = None,
    record: Record = None,
    input_hook: str = EMBED,
    output_hook: str | None = None,
    input_value: Float[Tensor, "batch pos d_in"] | None = None,
    precision: Precision = None,
    rule: Rule = None,
    answer: Sequence[str] | list[list[int]] | list[Tensor] | Generate,
    span: Span | None = None,
    max_new_tokens: int | None = None,
) -> LinearizationBatch[AnswerLinearization]: ...
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
    rule: Rule = None,
    answer: Any = None,
    span: Span | None = None,
    max_new_tokens: int | None = None,
) -> Linearization | AnswerLinearization | LinearizationBatch[Any]:
    """Run a model once and record how its final hidden state depends on its token embeddings.

    With ``answer=`` the final hidden states that predict its tokens, all of them together.

    The model is left exactly as it was: hooks, ``requires_grad`` flags, ``.grad``, train or
    eval mode, the random number generators and the grad mode. The caller's own hooks run
    as in any forward pass. Later runs that belong to the linearization (leave-one-out, SmoothGrad, curves, ...) run
    under the hooks and modes that the model had here, whatever it has then.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        prompt: text, token ids (re-tokenising decoded text can shift positions), a tokenizer's whole output, whose
            ``attention_mask`` says what is padding (it is left out, and no position counts it; ids that begin or end in
            padding are refused), or a conversation: a list of messages ``{"role": "user", "content": "..."}``, which
            the tokenizer's chat template writes, ready for the assistant's next message; results then know whose each
            token is (:meth:`Attribution.roles`). Where the last message is the assistant's, it is the answer that is
            explained. A list of prompts gives a batch, each prompt with the scores it gets alone: from one forward
            pass, or, with hooks of yours that aren't :func:`pointwise`, from one each.
        position: the token whose *next-token prediction* is explained; later tokens can't
            matter and are cut off. For a batch, one position for all or one each; several positions
            of a single prompt give a batch too, one linearization each.
        prepend_bos: whether to prepend the BOS token to text; default: the model's own setting. Token ids are taken
            as they are: with True they must begin with it.
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
            attention patterns), hook points by name, a list of these, or True for all four. What a group holds
            without one value a token (such as OPT's hook_resid_mid) is left out, as the metadata says
            (``"not_recorded"``); asked for by name it is an error.
        input_hook: whose activation is x, the input side; default the token embeddings.
        output_hook: whose activation (at ``position``) is y, the output to explain, such as
            ``"blocks.5.hook_resid_post"`` for a sparse autoencoder's feature or a probe; default what
            the unembedding consumes. There are no logits elsewhere: use :func:`direction_scope`.
        input_value: takes the place of the activation at ``input_hook``; ``(batch, pos, d_in)``.
        precision: None: the scores of the function that the weights define. A half-precision model is computed in
            float32 then, without a float32 copy of it, your hooks see float32 activations, and an enclosing
            ``torch.autocast`` is switched off. ``"model"``: as the model would, rounding included; gradients of
            half-precision models can be several times wrong.
        rule: what a gradient passes through on its way back. None: the exact Jacobian. ``"frozen_norms"`` holds norms'
            statistics fixed, ``"frozen_attention"`` attention patterns (a list of these two does both), ``"gim"`` is
            Gradient Interaction Modifications (arXiv 2505.17630; :mod:`tl_jacobian.core.host.backward`). The forward
            pass is the same; products are not derivatives of it any more, and metadata and titles say so.
        answer: what the model answered, or is to be asked about: text or token ids, explained as one quantity from one
            forward pass of prompt and answer; ``GENERATE``: what it writes itself, taking the most probable token
            each time. For a batch, one each.
        span: the part of the answer that is explained: a piece of its text, characters ``(start, stop)``, or tokens
            ``slice(start, stop)``; a token belongs to where its first character is that isn't a space. Default all.
        max_new_tokens: how many tokens ``GENERATE`` writes at most; fewer where the model ends the text.

    Returns:
        A :class:`Linearization`, or an :class:`AnswerLinearization`; for a list of prompts a
        :class:`LinearizationBatch` of them.

    Raises:
        MemoryBudgetError: not even recomputing fits into the budget; says what would.
        PromptError: empty or too long prompt, or an empty answer, ids or position out of range; messages without a chat
            template, that it refuses, or that can't be told apart in what it makes of them.
        ArgumentError: ``span`` isn't a part of the answer.
        UnsupportedModelError: not a causal model on a known host, active dropout, unreadable
            unembedding, a ``final_norm`` that doesn't fit, or a part of a half-precision or quantised model that
            can't be computed in float32.
        HookPointError: a hook point doesn't exist (names the nearest), or isn't one activation per position.
        ContractError: y doesn't depend on x (the output comes before the input), unembedding y doesn't
            give the model's logits, activations aren't finite, or the model goes on without gradient somewhere.
            Where it is your hooks that detach, that is a warning and a line in the metadata.

    >>> import tl_jacobian as tj
    >>> model = tj.load_demo_model()
    >>> lin = tj.linearize(model, "The capital of France is")
    >>> lin.str_tokens
    ('The', ' capital', ' of', ' France', ' is')
    >>> lin.vjp(lin.y).shape
    torch.Size([5, 576])
    """
    options = Options(final_norm, max_memory, record, input_hook, output_hook, input_value)
    host = resolve(model, precision, rule)
    several = is_batch(prompt)
    position = as_list(position)
    prompts = members(host, prompt) if several else [prompt]
    own = [is_answered(p) for p in prompts]  # conversations that end with the answer
    if answer is None and not any(own):
        _only_with_answer(span=span, max_new_tokens=max_new_tokens)
        positions = _positions(position, len(prompts), several)
        read = [read_prompt(host, p, at, prepend_bos) for p, at in zip(prompts, positions, strict=True)]
    else:
        if position != -1:
            raise ArgumentError(f"position={position!r} with an answer, whose positions are explained; use span=")
        given = _own_answers(own) if answer is None else _answers(answer, len(prompts), several, max_new_tokens)
        read = [
            read_answer(host, *_written(host, p, one, prepend_bos, max_new_tokens), span, prepend_bos)
            for p, one in zip(prompts, given, strict=True)
        ]
    batch = linearize_read(host, read, options)
    return batch if several or isinstance(position, Sequence) else batch[0]


def _only_with_answer(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(f"{name}={value!r} is for an answer: linearize(model, prompt, answer=..., {name}=...)")


def _own_answers(own: Sequence[bool]) -> list[None]:
    if not all(own):
        raise PromptError(
            f"{sum(own)} of {len(own)} conversations end with the assistant's message, expected all or none"
        )
    return [None] * len(own)


def _answers(answer: Any, n_prompts: int, several: bool, max_new_tokens: int | None) -> Sequence[Any]:
    """The answer to each prompt, as the caller gave it."""
    if answer is GENERATE:
        whole("max_new_tokens", max_new_tokens)
        return [answer] * n_prompts
    _only_generated(max_new_tokens)
    if not several:
        return [answer]
    if isinstance(answer, str) or not is_batch(answer) or len(answer) != n_prompts:
        got = f"{len(answer)} answers" if is_batch(answer) else "one answer"
        raise ArgumentError(f"{got} for {n_prompts} prompts, expected one each")
    return list(answer)


def _only_generated(max_new_tokens: int | None) -> None:
    if max_new_tokens is not None:
        raise ArgumentError(f"max_new_tokens={max_new_tokens!r} is for answer=GENERATE; the answer is given")


def _written(host: Host, prompt: Any, answer: Any, prepend_bos: bool | None, n: int | None) -> tuple[Any, Any]:
    """The prompt and its answer, which the model may be to write."""
    if answer is not GENERATE:
        return prompt, answer
    start = read_prompt(host, prompt, [-1], prepend_bos).tokens
    written = generate(host, start, whole("max_new_tokens", n))[len(start) :]
    if host.is_eos(written[0]):
        warn(
            f"answer=GENERATE: the model ends the text at once, so that the answer is its end token "
            f"{host.decode(written)!r} alone; give a conversation as messages, end the prompt where an answer would "
            "begin, or give the answer as text"
        )
    return prompt, written


def linearize_read(host: Host, prompts: Sequence[Read], options: Options = _DEFAULTS) -> LinearizationBatch[Any]:
    """:func:`linearize` for prompts that are read: a linearization for each of their positions, or their answers."""
    taps, by_name = wanted(options.record, host.hook_points()) if options.record else ((), ())
    watch = Watch(options.input_hook, options.output_hook, tuple(taps), options.input_value, frozenset(by_name))
    budget = None if options.max_memory is None else n_bytes(options.max_memory)
    host.unembedding()  # refused where it can't be read, before anything runs
    affine, passes = _affine(host, options.final_norm), list(_passes(host, prompts, watch))
    whole_budget, budget = budget, None if budget is None else budget // len(passes)
    for reads, seen in passes:
        check_fits(host, reads, seen, budget)
    notes = gradient_notes(host, prompts[0], whole_budget)
    lins: list[Linearization] = []
    weights = None
    for reads, seen in passes:
        with recording():
            lins += build(host, reads, Request(seen, affine, budget, notes), weights)
        weights = lins[0].weights
    check_reached(by_name, lins[0].taps)
    return LinearizationBatch(answers(host, lins, prompts) if prompts[0].answer else tuple(lins))


def gradient_notes(host: Host, prompt: Read, budget: int | None) -> dict[str, str]:
    """What the metadata must say of gradient that gets lost.

    Raises:
        ContractError: it gets lost in the model itself.
    """
    need = host.footprint(1, len(prompt.tokens), 1).peak(recompute=False)
    lost = host.lost_gradient(prompt.tokens, need > (host.available_memory() if budget is None else budget))
    if lost is None:
        return {}
    if not lost.by_hooks:
        raise ContractError(
            f"the model goes on without gradient {lost}, so scores would be those of another function: a quantised or "
            "custom module computes without autograd, or detaches what it makes; load the model without that"
        )
    warn(
        f"linearize: your hooks detach what they see {lost}: scores hold that fixed, and are not those of the whole "
        "model; meant so (frozen attention, frozen norms) that is fine, and the metadata say it"
    )
    return {"gradient": f"stopped by the caller's hooks {lost}"}


def _passes(host: Host, prompts: Sequence[Read], watch: Watch) -> Iterator[tuple[Sequence[Read], Watch]]:
    """Prompts that share a forward pass.

    Hooks of the caller that may mix what they see are shown one prompt at a time, up to the explained position; a
    prompt with its answer whole.
    """
    places = [(row, [at]) for row, read in enumerate(prompts) for at in read.positions]
    if prompts[0].answer:
        places = [(row, read.positions) for row, read in enumerate(prompts)]
    if len(places) == 1 or not host.conditions().mix:
        yield prompts, watch
        return
    fits = watch.value is not None and watch.value.ndim == 3 and len(watch.value) == len(prompts)
    for row, at in places:
        value = watch.value[row, : at[-1] + 1][None] if fits else watch.value  # type: ignore[index]
        yield [prompts[row].at(at)], replace(watch, value=value)


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
