"""Features of an activation: sparse autoencoders, transcoders, plain weights and directions, read alike.

``a = encode(h)`` and ``h' = decode(a)``, where decode is affine: a feature's direction in the output is a column of its
derivative. Objects with these two methods (SAELens's, circuit-tracer's) are called, so their nonlinearity,
normalisation and biases are their own; weights without methods are read as SAELens writes them: ``W_enc`` is (d_in,
features), its *columns* are the encoder's directions, and ``W_dec`` is (features, d_out). One layer of a cross-layer
transcoder has an encoder and a decoder for each of several activations, ``W_dec`` (features, outputs, d_out): what they
write side by side is one activation, of outputs times d_out numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.graph import recording
from tl_jacobian.core.hooks import in_block, layer_of
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import excerpt, is_id

_PLAIN = ("standard", "relu", "transcoder")


class Decoded(NamedTuple):
    """One activation, as its features have it.

    Attributes:
        activations: of each feature, a leaf of the graph.
        reconstruction: made of them, attached.
    """

    activations: Float[Tensor, "n features"]
    reconstruction: Float[Tensor, "n d_out"]

    def pull(self, g: Float[Tensor, "n d_out"]) -> Float[Tensor, "n features"]:
        """What a unit of each feature adds along g."""
        with recording():
            g = g.to(self.reconstruction)
            (found,) = torch.autograd.grad(self.reconstruction, self.activations, g, retain_graph=True)
        return found


@dataclass(frozen=True, eq=False)
class Dictionary:
    """What is asked of an SAE or transcoder.

    Attributes:
        name: what it is called.
        n_features, d_in, d_out: its size; ``d_out`` of one activation that it writes.
        at: hook point that it reads, where it says so; ``into`` those that it writes (default the same).
        n_out: how many it writes.
        encode: from activations to features.
        pre: the same before the nonlinearity; None where nobody can tell.
        decode: from features back, after ``encode`` has seen the same activations.
        like: a tensor of its device.
        page: Neuronpedia's id of it, where it says so: text, nothing is fetched.
        owner: the caller's object, which is left as it was.
    """

    name: str
    n_features: int
    d_in: int
    d_out: int
    at: str | None
    into: tuple[str, ...]
    n_out: int
    encode: Callable[[Float[Tensor, "n d_in"]], Float[Tensor, "n features"]]
    pre: Callable[[Float[Tensor, "n d_in"]], Float[Tensor, "n features"]] | None
    decode: Callable[[Float[Tensor, "n features"]], Float[Tensor, "n d_out"]]
    like: Tensor
    owner: Any
    page: str | None = None

    def check_width(self, hook: str, width: int, of: int, what: str) -> None:
        """Raise ArgumentError unless activations at ``hook`` have the width that is expected."""
        if width != of:
            raise ArgumentError(
                f"{self.name} {what} activations of {of} numbers, but those at {hook} have {width}: it belongs to "
                "another model, or another hook point; pass at= (and into=) where its own name for it is wrong"
            )

    def activations(self, h: Float[Tensor, "n d_in"], *, pre: bool = False) -> Float[Tensor, "n features"]:
        """Of each feature, attached to h."""
        with _untouched(self.owner):
            read = self.pre if pre else self.encode
            assert read is not None  # features.py has asked
            return _dense(read(h.to(self.like.device))).to(h.device)

    def written(self, h: Float[Tensor, "n d_in"], feature: int) -> Float[Tensor, "n d_out"]:
        """What one feature writes: what is made with it, less what is made without."""
        with torch.no_grad(), _untouched(self.owner):
            made = []
            for keep in (1.0, 0.0):  # encoded anew: decoding may use up what encoding has remembered of a norm
                a = _dense(self.encode(h.to(self.like.device))).clone()
                a[:, feature] *= keep
                made.append(self.decode(a).reshape(len(h), -1))
        return (made[0] - made[1]).to(h.device)

    def decoded(self, h: Float[Tensor, "n d_in"]) -> Decoded:
        """Features of h, and what they make."""
        with recording(), _untouched(self.owner):
            found = _dense(self.encode(h.detach().to(self.like.device))).detach().clone().requires_grad_()
            made = self.decode(found)
        return Decoded(found, made.reshape(len(h), -1))


def read_sae(sae: Any, at: str | None = None) -> Dictionary:
    """An SAE, a transcoder, a mapping of weights, or directions (features, d_in), as a :class:`Dictionary`.

    Args:
        at: hook point that is read; of a cross-layer transcoder it says which layer is meant.

    Raises:
        ArgumentError: it is none of these, or its weights don't fit together.

    >>> d = read_sae({"W_enc": torch.eye(2, 3), "W_dec": torch.eye(3, 2), "b_enc": torch.tensor([0.0, -1.0, 0.0])})
    >>> d.activations(torch.tensor([[2.0, 0.5]]))
    tensor([[2., 0., 0.]])
    """
    if isinstance(sae, Tensor):
        return _directions(sae)
    if callable(getattr(sae, "encode_layer", None)):
        return _layer_of(sae, at)
    get: Callable[..., Any] = sae.get if isinstance(sae, Mapping) else partial(_attribute, sae)
    w_enc, w_dec = get("W_enc"), get("W_dec")
    if not all(_is_weight(w, dims) for w, dims in ((w_enc, (2,)), (w_dec, (2, 3)))):
        raise ArgumentError(
            f"sae is {excerpt(sae)}, expected an SAE or transcoder with weights W_enc (d_in, features) and W_dec "
            "(features, d_out) or (features, outputs, d_out), a mapping of these, or directions (features, d_in) as a "
            "tensor"
        )
    cfg = get("cfg")
    metadata = getattr(cfg, "metadata", None)
    reads, into = (getattr(metadata, n, None) or getattr(cfg, n, None) for n in ("hook_name", "hook_name_out"))
    methods = callable(get("encode")) and callable(get("decode"))
    if w_enc.shape[1] != w_dec.shape[0] and not methods:
        hint = " (W_enc looks transposed: pass W_enc.T)" if w_enc.shape[0] == w_dec.shape[0] else ""
        raise ArgumentError(
            f"W_enc has shape {tuple(w_enc.shape)} and W_dec {tuple(w_dec.shape)}, expected (d_in, features), whose "
            f"columns are the encoder's directions, and (features, d_out){hint}"
        )
    d_in = int(w_enc.shape[0] if w_enc.shape[1] == w_dec.shape[0] else w_enc.shape[1])  # circuit-tracer has rows
    name = "the SAE" if isinstance(sae, Mapping) else type(sae).__name__
    if name == "SimpleNamespace":
        name = "the SAE"
    size = len(w_dec), d_in, int(w_dec.shape[-1])
    encode, pre, decode = _methods(sae, cfg, get) if methods else _weights(get, cfg, w_enc, w_dec)
    writes, n_out = (() if into is None else (into,)), w_dec.shape[1] if w_dec.ndim == 3 else 1
    page = getattr(metadata, "neuronpedia_id", None) or getattr(cfg, "neuronpedia_id", None)
    page = page if isinstance(page, str) else None
    return Dictionary(name, *size, reads, writes, n_out, encode, pre, decode, w_dec.detach(), sae, page)


def _is_weight(w: Any, dims: tuple[int, ...]) -> bool:
    return isinstance(w, Tensor) and w.ndim in dims and w.is_floating_point()


def _attribute(sae: Any, name: str, default: Any = None) -> Any:
    return getattr(sae, name, default)


def _directions(v: Tensor) -> Dictionary:
    """Probes or steering vectors: how many times each is in the activation, ``h.d / ||d||^2``."""
    if v.ndim not in (1, 2) or not v.is_floating_point() or not len(v) or not v.isfinite().all():
        raise ArgumentError(
            f"sae has shape {tuple(v.shape)} and dtype {v.dtype}, expected finite directions (d_in,) or (n, d_in)"
        )
    rows = v.detach()[None] if v.ndim == 1 else v.detach()
    if (rows == 0).all(dim=1).any():
        raise ArgumentError("a direction is zero, expected directions with a length")

    def encode(h: Tensor) -> Tensor:
        each = rows.to(torch.promote_types(h.dtype, rows.dtype))
        return h.to(each) @ (each / each.square().sum(1, keepdim=True)).T

    def decode(a: Tensor) -> Tensor:
        return a @ rows.to(a)

    n, d = rows.shape
    return Dictionary(
        "the direction" if n == 1 else "directions", n, d, d, None, (), 1, encode, encode, decode, rows, None
    )


def _layer_of(clt: Any, at: str | None) -> Dictionary:
    """One layer of a cross-layer transcoder, as circuit-tracer has them: ``encode_layer`` and ``W_dec[layer]``."""
    layer, n_layers = None if at is None else layer_of(at), int(clt.n_layers)
    name = type(clt).__name__
    reads, writes = clt.feature_input_hook, clt.feature_output_hook
    if layer is None or not 0 <= layer < n_layers:
        raise ArgumentError(
            f"{name} has features of {n_layers} layers: say of which, at={in_block(n_layers // 2, reads)!r}, say; "
            f"got at={at!r}"
        )
    if clt.W_dec is None:
        raise ArgumentError(f"{name} has left its decoders on disk (W_dec is None): load it with lazy_decoder=False")
    w_dec = clt.W_dec[layer].detach()

    def encode(h: Tensor) -> Tensor:
        return clt.encode_layer(h.to(w_dec.dtype), layer).to(torch.promote_types(h.dtype, w_dec.dtype))

    def pre(h: Tensor) -> Tensor:
        return clt.encode_layer(h.to(w_dec.dtype), layer, apply_activation_function=False)

    bias = clt.b_dec[layer:].detach().flatten()
    into = tuple(in_block(i, writes) for i in range(layer, n_layers))
    size = len(w_dec), int(clt.d_model), int(w_dec.shape[-1])
    decode = _affine(w_dec.flatten(1), bias)
    return Dictionary(name, *size, in_block(layer, reads), into, len(into), encode, pre, decode, w_dec, clt)


def _affine(
    weight: Float[Tensor, "features d_out"], bias: Float[Tensor, " d_out"] | None
) -> Callable[[Tensor], Tensor]:
    def decode(a: Tensor) -> Tensor:
        made = a @ weight.to(a)
        return made if bias is None else made + bias.to(a)

    return decode


def _methods(sae: Any, cfg: Any, get: Callable[..., Any]) -> tuple[Any, Any, Any]:
    """The object's own functions. SAELens's for hook_z take heads apart from each other: all are handed as one."""
    heads = getattr(cfg, "reshape_activations", "none") == "hook_z"

    def encode(h: Tensor) -> Tensor:
        return sae.encode(h[:, None] if heads else h)

    prepare, bias = get("process_sae_in"), get("b_enc")

    def pre(h: Tensor) -> Tensor:
        return prepare(h[:, None] if heads else h) @ sae.W_enc + bias

    decode = sae.decode
    if isinstance(get("W_skip"), Tensor):  # what is skipped is no feature's: it belongs to the error
        decode = _affine(get("W_dec").detach(), None if get("b_dec") is None else get("b_dec").detach())
    return encode, pre if callable(prepare) and isinstance(bias, Tensor) else None, decode


def _weights(get: Callable[..., Any], cfg: Any, w_enc: Tensor, w_dec: Tensor) -> tuple[Any, Any, Any]:
    """The function that plain weights stand for."""
    w_enc, w_dec = w_enc.detach(), w_dec.detach()
    threshold: Any = get("threshold")
    k: Any = get("k", getattr(cfg, "k", None))
    kind = getattr(cfg, "architecture", None) or ("jumprelu" if threshold is not None else "topk" if k else "standard")
    kind = kind() if callable(kind) else kind
    if kind not in (*_PLAIN, "jumprelu", "topk") or getattr(cfg, "normalize_activations", "none") != "none":
        raise ArgumentError(
            f"weights of architecture {kind!r} with normalize_activations="
            f"{getattr(cfg, 'normalize_activations', 'none')!r} alone don't say how to encode, expected 'standard', "
            "'jumprelu' or 'topk' and 'none': pass an object with encode() and decode()"
        )
    if kind == "topk" and not (is_id(k) and 0 < k <= len(w_dec)):
        raise ArgumentError(f"k={k!r}, expected how many of {len(w_dec)} features are active")
    if kind == "jumprelu" and not isinstance(threshold, Tensor):
        raise ArgumentError(f"threshold={threshold!r}, expected a tensor, one for each of {len(w_dec)} features")
    b_enc, b_dec = (None if get(name) is None else get(name).detach() for name in ("b_enc", "b_dec"))
    for name, bias, size in (("b_enc", b_enc, w_dec.shape[:1]), ("b_dec", b_dec, w_dec.shape[1:])):
        if bias is not None and bias.shape != size:
            raise ArgumentError(f"{name} has shape {tuple(bias.shape)}, expected {tuple(size)}")
    shift = bool(getattr(cfg, "apply_b_dec_to_input", get("apply_b_dec_to_input", False))) and b_dec is not None

    def pre(h: Tensor) -> Tensor:
        weight = w_enc.to(torch.promote_types(torch.promote_types(h.dtype, w_enc.dtype), torch.float32))
        h = h.to(weight)
        z = (h - b_dec.to(weight) if shift and b_dec is not None else h) @ weight
        return z if b_enc is None else z + b_enc.to(weight)

    def encode(h: Tensor) -> Tensor:
        z = pre(h)
        if kind == "topk":
            top = z.topk(int(k), dim=-1)
            return torch.zeros_like(z).scatter(-1, top.indices, top.values.relu())
        return z.relu() * (z > threshold.to(z)) if isinstance(threshold, Tensor) else z.relu()

    return encode, pre, _affine(w_dec.flatten(1), None if b_dec is None else b_dec.flatten())


def _dense(tensor: Tensor) -> Tensor:
    """A row each, whatever axes there are."""
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return tensor.reshape(len(tensor), -1)


@contextmanager
def _untouched(owner: Any) -> Iterator[None]:
    """SAELens keeps statistics of a norm, and the width of heads, on the object between encode and decode."""
    if not isinstance(owner, torch.nn.Module):
        yield
        return
    before = dict(vars(owner))
    try:
        yield
    finally:
        vars(owner).clear()
        vars(owner).update(before)
