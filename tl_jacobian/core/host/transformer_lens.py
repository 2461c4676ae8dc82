"""What HookedTransformer and TransformerBridge have in common, which is nearly everything.

How they run, and what is read of them without setting off the caller's hooks: weights and norms, a fingerprint of
the weights, the text of single tokens, and whether a gradient would mean what a scope says it means.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from einops import rearrange
from jaxtyping import Float, Int
from jinja2 import TemplateError
from torch import Tensor, nn

from tl_jacobian.core.graph import forgetting, recording
from tl_jacobian.core.hooks import ATTN_OUT, RESID_MID, WRITERS, in_block, is_square, place
from tl_jacobian.core.host.backward import Backward, rule_facts
from tl_jacobian.core.host.base import END_TO_END, Anatomy, Lost, OutputProjection, Trace, Watch
from tl_jacobian.core.host.blocked import Blocked, block_bytes
from tl_jacobian.core.host.conditions import Conditions
from tl_jacobian.core.host.heap import Heap
from tl_jacobian.core.host.loan import Hook, Loan, When, callers, lock_of, modules_in, modules_of
from tl_jacobian.core.host.lost import Found, Look, known, looking, search
from tl_jacobian.core.host.memory import Habits, Sizes, available, footprint, left_free
from tl_jacobian.core.host.operations import Rules
from tl_jacobian.core.host.original_norm import read_original_norm
from tl_jacobian.core.host.past import PAST_FAILS, Past
from tl_jacobian.core.host.precision import Precision, computing, described, in_float32, rules_for
from tl_jacobian.core.host.recompute import fire
from tl_jacobian.core.host.recompute import recompute as recomputed
from tl_jacobian.core.host.recorder import Cut, Places, Recorder, hook_point
from tl_jacobian.core.host.weights import Weights, weights_of
from tl_jacobian.core.memory import Footprint
from tl_jacobian.core.norms import NormAffine, affine_of
from tl_jacobian.core.unembedding import Unembedding, precise
from tl_jacobian.errors import HookPointError, PromptError, UnsupportedModelError
from tl_jacobian.results.arguments import excerpt
from tl_jacobian.results.tokens import PARTIAL

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class TransformerLensAnatomy:
    """An :class:`~tl_jacobian.core.host.base.Anatomy` of either host's model.

    Args:
        model: the caller's.
        affine: gain and bias of the final norm before it was folded, if the caller gave them.
    """

    def __init__(self, model: Any, affine: NormAffine | None) -> None:
        self.model = model
        self.affine = affine

    @property
    def n_layers(self) -> int:
        return len(self.model.blocks)

    @cached_property  # TransformerBridge collects them anew each time
    def _points(self) -> Mapping[str, nn.Module]:
        return self.model.hook_dict

    def writers(self, layer: int) -> tuple[str, ...]:
        points = self._points
        names = [name for path in WRITERS if (name := in_block(layer, path)) in points]
        once = {id(points[name]): name for name in reversed(names)}  # a hook point may have two names
        return tuple(sorted(once.values(), key=place))

    def output_projection(self, layer: int) -> OutputProjection | None:
        attention = self.model.blocks[layer].attn
        try:
            weight, bias = attention.W_O, attention.b_O
        except (AttributeError, NotImplementedError, ValueError, RuntimeError):
            # Latent attention, and layers whose geometry isn't the config's: TransformerLens can't cut the weight.
            linear = getattr(getattr(attention, "o", None), "original_component", None)
            if not isinstance(linear, nn.Linear):
                return None
            heads = int(self.model.cfg.n_heads)
            if linear.in_features % heads:
                return None
            weight = rearrange(linear.weight, "d_model (heads d_head) -> heads d_head d_model", heads=heads)
            bias = linear.bias
        return OutputProjection(weight.detach(), None if bias is None else bias.detach())

    def attention_post_norm(self, layer: int) -> NormAffine | None:
        norm = getattr(self.model.blocks[layer], "ln1_post", None)
        return None if norm is None else self._measured(norm)

    def embedding(self) -> Float[Tensor, "d_vocab d_embed"] | None:
        try:
            weight = self.model.W_E
        except (AttributeError, NotImplementedError):
            return None
        return weight.detach() if isinstance(weight, Tensor) and weight.ndim == 2 else None

    def final_norm(self) -> NormAffine | None:
        if self.affine is not None:
            return self.affine
        norm = getattr(self.model, "ln_final", None)
        return None if norm is None else self._measured(norm)

    def _measured(self, norm: nn.Module) -> NormAffine:
        without = [(m, {name: OrderedDict() for name in _HOOKS}) for m in nn.Module.modules(norm)]
        with lock_of(self.model), Loan() as loan, loan, in_float32():
            loan.enter(without)
            return affine_of(norm, int(self.model.cfg.d_model), self.model.W_U)


# Probabilities that attention modules hand to functional dropout.
_FUNCTIONAL = ("attention_dropout", "dropout", "resid_dropout", "hidden_dropout", "attn_dropout", "dropout_p")


def check_dropout(model: nn.Module) -> None:
    """Raise UnsupportedModelError if a forward pass would drop activations at random."""
    dropping = {module: p for module in modules_in(model) if module.training and (p := _probability(module)) > 0}
    if dropping:
        name, module = next((name, module) for name, module in modules_of(model) if module in dropping)
        raise UnsupportedModelError(
            f"dropout is active (p={dropping[module]} in {name or type(module).__name__}), so two runs would give two "
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


_SENTENCEPIECE_SPACE = "▁"


def token_texts(tokenizer: Any | None, tokens: Sequence[int]) -> tuple[str, ...]:
    """One text a token; ids as text where there is no tokenizer.

    A SentencePiece token shows its spaces in the raw piece, and decoding it alone drops one.
    A token that holds part of a character decodes to U+FFFD.
    """
    if tokenizer is None:
        return tuple(f"<{token}>" for token in tokens)
    pieces = tokenizer.convert_ids_to_tokens(list(tokens))
    return tuple(_text(tokenizer, token, piece) for token, piece in zip(tokens, pieces, strict=True))


def _text(tokenizer: Any, token: int, piece: str | None) -> str:
    if piece is None:  # a padded vocabulary has ids that no token owns
        return f"<id {token}>"
    if _SENTENCEPIECE_SPACE in piece:  # decoding would drop the first of its spaces
        return piece.replace(_SENTENCEPIECE_SPACE, " ")
    return tokenizer.decode([token], clean_up_tokenization_spaces=False)


_ENOUGH = 16  # tokens that show whether a model loses gradient
# From a tokenizer to the size of its vocabulary and the tokens of each text, made when first asked for: decoding a
# vocabulary takes 0.3 s for 50,000 tokens.
_SHOWN: WeakKeyDictionary[Any, tuple[int, dict[str, list[int]]]] = WeakKeyDictionary()
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def tokens_shown_as(tokenizer: Any | None, text: str, d_vocab: int) -> list[int]:
    """The tokens that :func:`token_texts` gives a text for.

    SentencePiece has a token for each byte, and writes it where no other token will do: so where there is another, that
    is meant.
    """
    if tokenizer is None:
        return [t for t in range(d_vocab) if text == f"<{t}>"]
    size, shown = _SHOWN.get(tokenizer, (0, {}))
    if size != d_vocab:
        shown = {}
        for token, one in enumerate(token_texts(tokenizer, range(d_vocab))):
            shown.setdefault(one, []).append(token)
        _SHOWN[tokenizer] = d_vocab, shown
    found = shown.get(text, [])
    if len(found) > 1 and PARTIAL not in text:
        pieces = tokenizer.convert_ids_to_tokens(found)
        whole = [t for t, piece in zip(found, pieces, strict=True) if not _BYTE.fullmatch(str(piece))]
        return whole or found
    return list(found)


_SAMPLE = 64


def weights_digest(parameters: Iterable[Tensor]) -> str:
    """Differs between checkpoints, is the same on every device; reads 64 numbers of each parameter.

    >>> a, b = torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])
    >>> weights_digest([a]) == weights_digest([a.clone()]), weights_digest([a]) == weights_digest([b])
    (True, False)
    """
    total = hashlib.sha256()
    for p in parameters:
        flat = p.detach().flatten()
        places = torch.linspace(0, max(len(flat) - 1, 0), min(_SAMPLE, len(flat)), dtype=torch.float64).long()
        sample = flat[places.to(flat.device)].to("cpu", torch.float32)
        total.update(str(tuple(p.shape)).encode() + sample.numpy().tobytes())
    return total.hexdigest()[:16]


# From so many tokens on attention is computed in blocks, which takes no longer there (benchmarks/long.py) ...
LONG = 1024
# ... but for models whose attention needs its scores or patterns as a whole, as was seen.
_WHOLE: WeakSet[nn.Module] = WeakSet()

# Models that were found to be causal, and how many tokens that is tried on.
_CAUSAL: WeakSet[nn.Module] = WeakSet()
_TRIED = 5


def _as_it_is(activation: Tensor) -> Tensor:
    return activation


class TransformerLensHost:
    """A :class:`tl_jacobian.core.host.base.Host` over a TransformerLens model."""

    name = "TransformerLens"
    # The first module that may be given the explained position alone.
    earliest_cut: Cut = "unembed"

    def __init__(self, model: Any, precision: Precision = None, rule: str | None = None) -> None:
        self.model = model
        self.cfg = model.cfg
        self.precision: Precision = precision
        self.rule = rule
        self._seen_points: tuple[Any, Mapping[str, nn.Module]] | None = None

    # -- text ----------------------------------------------------------------------

    @property
    def n_ctx(self) -> int | None:
        n_ctx = getattr(self.cfg, "n_ctx", None)
        return n_ctx if n_ctx and n_ctx > 0 else None

    @property
    def d_vocab(self) -> int:
        return int(self._unembedding_weight.shape[1])

    @property
    def _unembedding_weight(self) -> Tensor:
        """W_U, shape ``(d_model, d_vocab)``; refused where there is no tensor to read."""
        try:
            weight = self.model.W_U
        except (AssertionError, AttributeError) as error:  # a quantised module has a method or packed numbers there
            raise UnsupportedModelError(
                f"the unembedding's weights can't be read ({error}); load the model with an unquantised lm_head"
            ) from error
        return weight

    @property
    def prepends_bos(self) -> bool:
        return bool(self.cfg.default_prepend_bos)

    def tokenize(self, text: str, prepend_bos: bool | None) -> list[int]:
        self._need_tokenizer(text)
        options = {} if prepend_bos is None else {"prepend_bos": prepend_bos}
        # Never truncated: a prompt that is too long is the caller's to shorten.
        return self.model.to_tokens(text, truncate=False, **options)[0].tolist()

    def encode(self, text: str) -> list[int]:
        self._need_tokenizer(text)
        return self.model.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens: list[int]) -> str:
        if self.model.tokenizer is None:
            return " ".join(map(str, tokens))
        return self.model.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)

    def token_texts(self, tokens: list[int]) -> tuple[str, ...]:
        return token_texts(self.model.tokenizer, tokens)

    def chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        return self._chat(messages, add_generation_prompt, tokenize=False)

    def chat_ids(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> list[int]:
        return list(self._chat(messages, add_generation_prompt, tokenize=True, return_dict=False))

    def _chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool, **how: bool) -> Any:
        self._need_tokenizer(messages)
        tokenizer = self.model.tokenizer
        if getattr(tokenizer, "chat_template", None) is None:
            raise PromptError(
                "this model's tokenizer has no chat template, so messages can't be written as its prompt: set "
                "model.tokenizer.chat_template to that of the model's chat version, or pass text"
            )
        try:
            return tokenizer.apply_chat_template(list(messages), add_generation_prompt=add_generation_prompt, **how)
        except (TemplateError, TypeError, ValueError) as error:
            raise PromptError(f"the chat template refuses these messages: {error}") from error

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        self._need_tokenizer(text)
        if not self.model.tokenizer.is_fast:
            raise PromptError(
                f"a {type(self.model.tokenizer).__name__} doesn't tell which characters a token stands for, so its "
                "messages can't be told apart: give the model a fast tokenizer, or pass text"
            )
        found = self.model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(found["input_ids"]), [(start, stop) for start, stop in found["offset_mapping"]]

    def is_bos(self, token: int) -> bool:
        return self.model.tokenizer is not None and token == self.model.tokenizer.bos_token_id

    def is_eos(self, token: int) -> bool:
        return token in self._end_tokens() or (
            self.model.tokenizer is not None and token == self.model.tokenizer.eos_token_id
        )

    @property
    def padding(self) -> int | None:
        return getattr(self.model.tokenizer, "pad_token_id", None)

    def tokens_shown_as(self, text: str) -> list[int]:
        return tokens_shown_as(self.model.tokenizer, text, self.d_vocab)

    def _need_tokenizer(self, text: Any) -> None:
        if self.model.tokenizer is None:
            raise PromptError(f"{excerpt(text)} can't be tokenised: this model has no tokenizer; pass token ids")

    # -- numbers -------------------------------------------------------------------

    def unembedding(self) -> Unembedding:
        weight, bias = self._unembedding_weight, self.model.b_U
        if weight.is_meta:
            raise UnsupportedModelError(
                "the unembedding's weights can't be read: W_U is on the meta device, offloaded by accelerate; keep the "
                "embedding and the unembedding on a device (what is offloaded inside the blocks is fine)"
            )
        if not weight.is_floating_point() or weight.ndim != 2:
            raise UnsupportedModelError(
                f"the unembedding's weights can't be read: W_U has dtype {weight.dtype} and shape "
                f"{tuple(weight.shape)}, expected floating point (d_model, d_vocab); "
                "load the model with an unquantised lm_head"
            )
        bias = None if bias is None else bias.detach()
        return Unembedding(weight.detach(), bias, self._soft_cap(), scale=self._logit_scale())

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        rows: Int[Tensor, " outputs"],
        positions: Int[Tensor, " outputs"],
        watch: Watch = END_TO_END,
        recompute: bool = False,
        under: Conditions | None = None,
        past: Past | None = None,
    ) -> Trace:
        recorded = self.rule is not None and torch.is_grad_enabled()  # values are the same without
        backward = Backward(self.rule) if recorded and self.rule else None
        places = Places(tokens.shape[1], rows, positions)
        cache = None if past is None else self._cache(past, len(tokens))
        return self._traced(tokens, places, watch, recompute, under, None, backward, cache)

    def past(self, tokens: Sequence[int], watch: Watch, under: Conditions | None = None) -> Past | None:
        places = Places(len(tokens), torch.tensor([0]), torch.tensor([len(tokens) - 1]))
        try:
            with forgetting():
                cache = self._cache(None, 1)
                self._traced(torch.tensor([list(tokens)]), places, watch, under=under, cache=cache)
                found = self._kept(cache, len(tokens))
        except PAST_FAILS:  # runs start at the beginning then
            return None
        return found if found.whole(len(self.model.blocks)) else None

    def _traced(
        self,
        tokens: Int[Tensor, "batch pos"],
        places: Places,
        watch: Watch,
        recompute: bool = False,
        under: Conditions | None = None,
        look: Look | None = None,
        backward: Backward | None = None,
        cache: Any = None,
    ) -> Trace:
        """:meth:`forward`, under a backward rule or none; every module is shown to ``look``."""
        with lock_of(self.model), Loan() as loan, loan:
            if under is not None:
                under.enter(loan)
            modules = modules_in(*self._roots())  # once: a bridge has thousands
            parameters = _parameters_of(modules)
            if any(module.training for module in modules):
                check_dropout(self.model)
            check_weights(parameters)
            rules, n_heads = self._rules(parameters), int(getattr(self.cfg, "n_heads", 0) or 0)
            recorder = Recorder(places, watch, self._where_to_cut(), n_heads, precise if rules else _as_it_is)
            watched = self._watched(recorder)
            hooks = self._recording(recorder, watched)
            if look is not None:
                for name, module in modules_of(*self._roots()):
                    hooks.append((module, partial(looking, look, name), "after, with keywords"))
            loan.freeze(parameters)
            for module in modules:
                # A block that runs again in the backward pass would miss the hooks of this one.
                if module.__dict__.get("gradient_checkpointing"):
                    loan.put(module, "gradient_checkpointing", False)
            for module, hook, when in hooks:
                loan.hook(module, hook, when)
            long = LONG if look is not None else 0 if cache is not None else tokens.shape[1]
            blocked = None
            if self._attends_in_blocks(long, watch.taps):
                here = None if backward is None else backward.here
                blocked = Blocked(tokens.shape[1], here, block_bytes(self._on_cpu))
                rules = (*rules, blocked)
            if backward is not None:
                backward.mark(loan, self._roots())
                rules = (*rules, backward)
            fire(loan, (point for point, _ in watched))
            if recompute:
                sizes = self._sizes(len(tokens), tokens.shape[1], 1)
                heap = Heap(left_free(self.cfg, sizes)) if self._on_cpu else None
                recomputed(loan, self.model, self.model.blocks, rules, heap)
            else:
                loan.forget(modules)
            with computing(self.model, rules, self.precision, modules):
                logits = self._run(tokens.to(self._device), cache)
        trace = recorder.trace(logits)
        del logits  # what leads to them may hold a copy of the unembedding
        if backward is not None:
            backward.check(self.model, self.hook_points())
        if blocked is not None and (blocked.made_whole or not blocked.attended):
            _WHOLE.add(self.model)
        self._check_causal(tokens)
        return trace._replace(in_blocks=blocked is not None and bool(blocked.attended))

    def _attends_in_blocks(self, n_pos: int, taps: Sequence[str]) -> bool:
        """Whether attention of such a prompt is computed in blocks of queries: nobody reads its scores or patterns."""
        if n_pos < LONG or self.model in _WHOLE or any(map(is_square, taps)):
            return False
        return not any(_has_hooks(point) for name, point in self._points().items() if is_square(name))

    def _recording(
        self, recorder: Recorder, watched: Iterable[tuple[nn.Module, Hook]]
    ) -> list[tuple[nn.Module, Hook, When]]:
        """The hooks of a recorded forward pass."""
        before: list[tuple[nn.Module, Hook, When]] = [(self.model.unembed, recorder.unembed, "before")]
        if (norm := getattr(self.model, "ln_final", None)) is not None:
            before.append((norm, recorder.final_norm, "before"))
        after: list[tuple[nn.Module, Hook, When]] = [(point, hook, "after") for point, hook in watched]
        return [*before, *after, *((block, recorder.block, "before, with keywords") for block in self.model.blocks)]

    def _check_causal(self, tokens: Int[Tensor, "batch pos"]) -> None:
        """Whether a later token leaves earlier predictions alone, tried once a model: flags lie in both directions.

        After a first forward pass, in which TransformerBridge may have wired up hooks of its own; with no hooks at all.
        """
        if self.model in _CAUSAL:
            return
        some = tokens[:1, :_TRIED].to(self._device)
        some = some if some.shape[1] > 1 else some.repeat(1, 2)
        other = some.clone()
        other[0, -1] = (other[0, -1] + self.d_vocab // 2) % self.d_vocab
        bare = [(module, {name: OrderedDict() for name in _HOOKS}) for _, module in modules_of(*self._roots())]
        with torch.no_grad(), Loan() as loan, loan, self.computing():
            loan.enter(bare)
            before, after = (precise(self._run(ids)[0, :-1]) for ids in (some, other))
        change, largest = float((before - after).abs().max()), float(before.abs().max())
        # The same products on the same numbers: what differs is how a kernel orders its sums.
        if change > 4 * torch.finfo(self._unembedding_weight.dtype).eps * largest:
            raise UnsupportedModelError(
                f"{self._architecture()} isn't causal: another token at position {some.shape[1] - 1} changes logits "
                f"at earlier positions by {change:.2g} (they reach {largest:.2g}); expected a model in which later "
                "tokens can't change an earlier prediction. Around a Hugging Face model with fused attention some of "
                'TransformerBridge\'s attention modules lack a causal mask: load that with attn_implementation="eager"'
            )
        _CAUSAL.add(self.model)

    def computing(self) -> AbstractContextManager[None]:
        return computing(self.model, self._rules(), self.precision)

    def _rules(self, parameters: Sequence[Tensor] | None = None) -> Rules:
        own = self._parameters() if parameters is None else parameters
        return rules_for((*own, torch.empty(0, dtype=self.cfg.dtype)), self.precision)

    def _watched(self, recorder: Recorder) -> list[tuple[nn.Module, Hook]]:
        """The hooks that record activations, each at its hook point."""
        watch = recorder.watch
        source = self._point(watch.source)
        if self._passes(watch.source):
            raise HookPointError(
                f"on {self.name} an activation put in at {watch.source} reaches the MLP alone, and the residual stream "
                f"goes on without it; use {watch.source.replace(RESID_MID, ATTN_OUT)}, whose Jacobian is the same"
            )
        tap = {True: recorder.passing, False: recorder.tap}
        taps = [(self._point(name), partial(tap[self._passes(name)], name)) for name in watch.taps]
        after = [(self._point(watch.output), recorder.output)] if watch.output else []
        return [(source, recorder.source), *taps, *after]

    def hook_points(self) -> tuple[str, ...]:
        return tuple(self._points())

    def footprint(self, n_prompts: int, n_pos: int, n_outputs: int, taps: Sequence[str] = ()) -> Footprint:
        # Hooks on the unembedding are shown every position, so every position has logits.
        outputs = n_prompts * n_pos if self._where_to_cut() == "never" else n_outputs
        sizes, in_blocks = self._sizes(n_prompts, n_pos, outputs), self._attends_in_blocks(n_pos, taps)
        return footprint(self.cfg, sizes, self._habits(), taps, in_blocks, self._on_cpu)

    def _sizes(self, n_prompts: int, n_pos: int, n_outputs: int) -> Sizes:
        itemsize = self._unembedding_weight.element_size()
        if itemsize < 4 and self._rules():
            itemsize = 4
        return Sizes(n_prompts, n_pos, n_outputs, self.d_vocab, itemsize)

    def available_memory(self) -> int:
        return available(self._devices)

    def anatomy(self, affine: NormAffine | None) -> Anatomy:
        return TransformerLensAnatomy(self.model, affine)

    def edited(
        self, tokens: list[int], edits: Mapping[str, Callable[[Tensor], Tensor]]
    ) -> Float[Tensor, "1 pos d_vocab"]:
        hooks = [(name, partial(_edit, fn)) for name, fn in edits.items()]
        with lock_of(self.model), self.computing(), forgetting():
            return self.model.run_with_hooks(torch.tensor([tokens], device=self._device), fwd_hooks=hooks)

    def beside(self, name: str) -> bool:
        return self._passes(name)

    def facts(self) -> Mapping[str, Any]:
        return {
            "host": self.name,
            "model": Path(str(getattr(self.cfg, "model_name", "unknown"))).name,
            "architecture": str(self._architecture()),
            "dtype": str(self._unembedding_weight.dtype).removeprefix("torch."),
            "precision": described(self._parameters(), self.precision),
            **rule_facts(self.rule),
        }

    def conditions(self) -> Conditions:
        with lock_of(self.model):  # without our own hooks
            return Conditions(*self._roots())

    def weights(self) -> Weights:
        return weights_of(self.model, *self._roots())

    def lost_gradient(self, tokens: Sequence[int], recompute: bool = False) -> Lost | None:
        now, weights = self.conditions(), self.weights()
        found = known(self.model, weights, now.identity, lambda: self._search(tokens, now, recompute))
        if not found.is_loss:
            return None
        bare = found
        if now.hooks:
            without = now.without_callers()
            bare = known(self.model, weights, (), lambda: self._search(tokens, without, recompute))
        return Lost(found.places, found.gap, by_hooks=not bare.is_loss)

    def _search(self, tokens: Sequence[int], under: Conditions, recompute: bool) -> Found:
        # Where nobody's hooks care for the length of the text, its beginning tells.
        ids = torch.tensor([list(tokens if under.hooks else tokens[:_ENOUGH])])
        last = ids.shape[1] - 1

        def record(look: Look) -> Trace:
            places = Places(last + 1, torch.tensor([0]), torch.tensor([last]))
            return self._traced(ids, places, END_TO_END, recompute, under, look)

        def run(values: Tensor, look: Look | None) -> Tensor:
            parts = values.split(1) if under.mix else [values]
            with forgetting():
                return torch.cat([one(part, look) for part in parts])

        def one(values: Tensor, look: Look | None) -> Tensor:
            n = len(values)
            places = Places(last + 1, torch.arange(n), torch.full((n,), last))
            return self._traced(ids.expand(n, -1), places, Watch(value=values), False, under, look).y

        with recording(), torch.random.fork_rng([d for d in self._devices if d.type == "cuda"]):
            return search(record, run)

    def weights_digest(self) -> str:
        return weights_digest(self._parameters())

    def original_norm(self) -> tuple[Tensor, Tensor | None]:
        return read_original_norm(str(getattr(self.cfg, "model_name", "")), str(self._architecture()))

    # -- where the two hosts differ ------------------------------------------------

    def _end_tokens(self) -> list[int]:
        """Tokens at which the model's own configuration says that generated text ends."""
        return []

    def _points(self) -> Mapping[str, nn.Module]:
        """The model's hook points, as they were when they were last seen to change.

        TransformerBridge collects them anew each time, which takes a sixth of a short forward pass. Its first run and
        its compatibility mode are when it gets other ones.
        """
        registry = getattr(self.model, "_hook_registry", ())
        now = len(registry), getattr(self.model, "compatibility_mode", None), self.model in _CAUSAL
        if self._seen_points is None or self._seen_points[0] != now:
            self._seen_points = now, self.model.hook_dict
        return self._seen_points[1]

    def _point(self, name: str) -> nn.Module:
        """The module whose output is the activation of that name."""
        return hook_point(self._points(), name)

    def _passes(self, name: str) -> bool:
        """Whether the residual stream is seen at that hook point and doesn't go through it."""
        return False

    def _run(self, tokens: Tensor, cache: Any = None) -> Tensor:
        raise NotImplementedError

    def _cache(self, past: Past | None, n: int) -> Any:
        """The library's own cache of keys and values: empty, or with the past of each of n rows."""
        raise NotImplementedError

    def _kept(self, cache: Any, length: int) -> Past:
        """What such a cache was given."""
        raise NotImplementedError

    def _parameters(self) -> list[nn.Parameter]:
        return _parameters_of(modules_in(*self._roots()))

    @property
    def _device(self) -> torch.device:
        """Where token ids belong: with the embedding (the config of a bridge around a given model may name another)."""
        weight = next(self.model.embed.parameters(), None)
        return torch.device(self.cfg.device) if weight is None or weight.is_meta else weight.device

    @cached_property  # of a host, which is made anew for each linearization
    def _devices(self) -> set[torch.device]:
        return {p.device for p in self._parameters()}

    @property
    def _on_cpu(self) -> bool:
        return any(device.type == "cpu" for device in self._devices)

    def _roots(self) -> tuple[nn.Module, ...]:
        """The model, and what belongs to it without being a submodule."""
        return (self.model,)

    def _architecture(self) -> str | None:
        raise NotImplementedError

    def _habits(self) -> Habits:
        raise NotImplementedError

    def _logit_scale(self) -> float:
        """What the model multiplies its logits by, before a soft-cap."""
        return 1.0

    # -- helpers -------------------------------------------------------------------

    def _soft_cap(self) -> float | None:
        cap = getattr(self.cfg, "output_logits_soft_cap", None)
        return float(cap) if cap and cap > 0 else None  # TransformerLens writes "none" as -1 or None

    def _where_to_cut(self) -> Cut:
        """As early as possible, but never before the caller's hooks: they see every position."""
        if _has_hooks(self.model.unembed):
            return "never"
        watched = _has_hooks(getattr(self.model, "ln_final", None))
        return "unembed" if watched else self.earliest_cut


def _parameters_of(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    own = (p for module in modules for p in module._parameters.values())
    return list({id(p): p for p in own if p is not None}.values())


def _edit(fn: Callable[[Tensor], Tensor], activation: Tensor, hook: Any) -> Tensor:
    return fn(activation)


def _has_hooks(module: nn.Module | None) -> bool:
    """Whether the caller put hooks on a module or on any hook point inside it."""
    if module is None:
        return False
    hooks = (h for m in module.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values()))
    return any(callers(hook) is not None for hook in hooks)
