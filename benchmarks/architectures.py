"""Every architecture that TransformerLens boots, against plain autograd on the Hugging Face model.

    python -m benchmarks.architectures [--only llama,bloom] [--dtype float64] [--resume rows.json]

prints a Markdown table, and on stderr what it finds meanwhile. benchmarks/results/architectures.md is of both versions.

Tiny random models (benchmarks/zoo.py); no download. What is compared, each a column:

- semantic, temperature, fisher (exact): scores, with autograd at the output of the model's embedding layer, which is
  `inputs_embeds` wherever the model takes any;
- layers: influence at the input of each block; heads: at each head's output, columns of the output projection's input;
- parts: residual contributions: they add up, what is unattributed is rounding, and each block's are what it wrote;
- left out: leave-one-out, an embedding set to zero; patches: what another prompt's input of each block does, predicted
  and measured;
- again: semantic scores with each block computed again in the backward pass.

A cell is the largest relative error ("right" below 1e-5: patches and some models go through float32), what was refused
and why, or a fault of TransformerLens's own: it can't boot the model, or its logits aren't the model's.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tl_jacobian as tj
from benchmarks import zoo
from tests.cases import ARCHITECTURES, HAS_HOOKED, hf_model, make, tokenizer
from tl_jacobian.core.host.hosts import resolve

RIGHT = {torch.float64: 1e-5, torch.float32: 2e-3}
SECONDS = 120  # for one architecture
PROMPT, OTHER = "The capital", "The Kapital"
COLUMNS = ("semantic", "temperature", "fisher", "layers", "heads", "parts", "left out", "patches", "again")


class Broken(Exception):
    """TransformerLens's own fault, or a comparison that this script can't make."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def never_install() -> None:
    """Booting some multimodal models would call pip."""

    def refuse(*args: Any, **_: Any) -> None:
        raise RuntimeError(f"not run: {args}")

    subprocess.check_call = refuse  # type: ignore[assignment]


@dataclass
class Plain:
    """One forward pass of a Hugging Face model, by autograd alone.

    Attributes:
        model: it; ``ids`` of one prompt.
        layers: its blocks.
        given: what takes the place of a block's input at a position, by layer: (position, value).
    """

    model: Any
    ids: list[int]
    given: dict[int, tuple[int, Tensor]] = field(default_factory=dict)
    x_given: Tensor | None = None

    def __post_init__(self) -> None:
        self.blocks: dict[int, Tensor] = {}
        self.outs: dict[int, Tensor] = {}
        self.heads: dict[int, Tensor] = {}
        head, embed = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        hooks = [
            embed.register_forward_hook(self._embed),
            head.register_forward_pre_hook(self._head),
        ]
        for i, layer in enumerate(zoo.layers_of(self.model, zoo.LAYERS)):
            hooks.append(layer.register_forward_pre_hook(self._before(i), with_kwargs=True))
            hooks.append(layer.register_forward_hook(self._after(i)))
            if (out := projection(layer)) is not None:
                hooks.append(out.register_forward_pre_hook(self._z(i)))
        try:
            with torch.enable_grad():
                self.logits = self.model(torch.tensor([self.ids]), use_cache=False).logits[0, -1]
        finally:
            for hook in hooks:
                hook.remove()

    def _embed(self, module: nn.Module, args: Any, out: Tensor) -> Tensor:
        if self.x_given is not None:
            return self.x_given[None]
        self.x = out.detach().requires_grad_()
        return self.x.clone()

    def _head(self, module: nn.Module, args: Any) -> None:
        self.y = args[0]

    def _before(self, i: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            name = next((n for n in ("hidden_states", "x") if n in kwargs), None)
            h = args[0] if name is None else kwargs[name]
            if i in self.given:
                h = h.clone()
                h[:, self.given[i][0]] = self.given[i][1]
            h = h.clone()  # what is read here, not what else the model makes of the same tensor
            self.blocks[i] = h
            return ((h, *args[1:]), kwargs) if name is None else (args, kwargs | {name: h})

        return hook

    def _after(self, i: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            self.outs[i] = out[0] if isinstance(out, (tuple, list)) else out

        return hook

    def _z(self, i: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any) -> None:
            self.heads[i] = args[0]

        return hook

    def grad(self, value: Tensor, of: Tensor) -> Tensor:
        return torch.autograd.grad(value, of, retain_graph=True)[0][0]

    @cached_property
    def target(self) -> int:
        return int(self.logits.argmax())

    def semantic(self) -> Tensor:
        return self.grad(self.logits[self.target], self.x).norm(dim=-1)

    def temperature(self) -> Tensor:
        return self.grad(self.y[0, -1].norm(), self.x).norm(dim=-1)

    def fisher(self) -> Tensor:
        """tr(J^T F J): the logits' Jacobian row by row, through y."""
        p = self.logits.detach().double().softmax(-1)
        n = len(p)
        (tail,) = torch.autograd.grad(
            self.logits, self.y, torch.eye(n).to(self.logits), retain_graph=True, is_grads_batched=True
        )
        tail = tail[:, 0, -1].double()
        rows = []
        for k in range(self.y.shape[-1]):
            rows.append(self.grad(self.y[0, -1, k], self.x).double())
        jac = torch.einsum("vk,ktd->vtd", tail, torch.stack(rows))
        mean = torch.einsum("v,vtd->td", p, jac)
        return torch.einsum("v,vtd->t", p, jac.square()) - mean.square().sum(-1)

    def by_layer(self) -> Tensor:
        return torch.stack([self.grad(self.logits[self.target], h).norm(dim=-1) for h in self.blocks.values()])

    def by_head(self, n_heads: int) -> dict[int, Tensor]:
        found = {}
        for i, z in self.heads.items():
            grad = self.grad(self.logits[self.target], z)
            if grad.shape[-1] % n_heads == 0:
                found[i] = grad.reshape(len(self.ids), n_heads, -1).square().sum((0, 2)).sqrt()
        return found


_OUT = ("o_proj", "out_proj", "c_proj", "dense", "wo", "Wo", "attention.dense", "proj")

_QUERIES = ("q_proj", "qkv", "query", "Wqkv", "c_attn", "q_b")


def projection(layer: nn.Module) -> nn.Module | None:
    """What brings heads back into the residual stream in a Hugging Face block."""
    for name, module in layer.named_modules():
        attention = re.fullmatch(r".*(attn|attention|temporal_block|mixer|dpa).*", name.split(".")[0])
        if not attention or name.rsplit(".", 1)[-1] not in _OUT or not hasattr(module, "weight"):
            continue
        if any(part in other for other, _ in layer.named_modules() for part in _QUERIES):
            return module
    return None


def error(ours: Tensor, right: Tensor) -> float:
    right = right.detach().double()
    return ((ours.double() - right).abs().max() / right.abs().max().clamp_min(1e-30)).item()


@dataclass
class Trial:
    """One architecture on one host."""

    plain: Plain
    model: Any
    ids: list[int]
    other: list[int]
    n_heads: int

    @cached_property
    def lin(self) -> Any:
        return tj.linearize(self.model, self.ids)

    @cached_property
    def recorded(self) -> Any:
        return tj.linearize(self.model, self.ids, record=True)

    def semantic(self) -> float:
        return error(tj.semantic_scope(self.lin, self.plain.target).scores, self.plain.semantic())

    def temperature(self) -> float:
        return error(tj.temperature_scope(self.lin).scores, self.plain.temperature())

    def fisher(self) -> float:
        return error(tj.fisher_scope(self.lin, method="exact").scores, self.plain.fisher())

    def layers(self) -> float:
        grid = tj.layer_influence(self.recorded, target=self.plain.target, at="resid_pre")
        right = self.plain.by_layer()
        if len(grid.values) != len(right):
            raise Broken(f"{len(grid.values)} rows for {len(right)} blocks")
        return error(grid.values, right)

    def heads(self) -> float:
        grid = tj.head_influence(self.recorded, target=self.plain.target)
        right = self.plain.by_head(self.n_heads)
        if len(grid.columns) != self.n_heads:
            raise Broken(f"{len(grid.columns)} heads of {self.n_heads}")
        rows = [int(row) for row in grid.rows]
        if missing := [row for row in rows if row not in right]:
            raise Broken(f"no output projection found in blocks {missing}")
        return error(grid.values, torch.stack([right[row] for row in rows]))

    def parts(self) -> float:
        from tl_jacobian.analyses.contributions import stream_of

        found = tj.residual_contributions(self.recorded, target=self.plain.target)
        values = dict(zip(found.names, found.values.tolist(), strict=True))
        largest = found.values.abs().max().item()
        worst = abs(values.pop("unattributed", 0.0)) / largest
        if abs(found.total - float(self.plain.logits[self.plain.target])) > 1e-5:
            raise Broken(f"total {found.total:.5g}, the logit is {float(self.plain.logits[self.plain.target]):.5g}")
        stream = stream_of(self.recorded)
        u = stream.norm.pull(torch.as_tensor(self.lin.head.direction(self.plain.target, self.lin.logits)).double())
        for i, start in self.plain.blocks.items():
            end = self.plain.outs[i]
            wrote = float((end - start)[0, -1].double() @ u)
            ours = sum(v for name, v in values.items() if name.startswith(f"{i}."))
            worst = max(worst, abs(ours - wrote) / largest)
        return worst

    def left_out(self) -> float:
        found = tj.baselines.leave_one_out(self.lin, self.plain.target)
        x = self.plain.x.detach()[0]
        before = self.plain.logits.detach().log_softmax(-1)[self.plain.target]
        rows = []
        for t in range(len(x)):
            without = x.clone()
            without[t] = 0
            after = Plain(self.plain.model, self.ids, x_given=without).logits.log_softmax(-1)[self.plain.target]
            rows.append((before - after).detach())
        return error(found.scores, torch.stack(rows))

    def patches(self) -> float:
        token = self.plain.target
        # The first-order prediction at each block's input, and TransformerLens's measured patches.
        pair = tj.compare_patching(
            self.model, self.other, self.ids, metric=lambda logits: logits[token], at="resid_pre"
        )
        clean = Plain(self.plain.model, self.other)
        n, at = len(self.plain.blocks), [t for t in range(len(self.ids)) if self.ids[t] != self.other[t]]
        first, measured = [], []
        for i in range(n):
            grad = self.plain.grad(self.plain.logits[token], self.plain.blocks[i])
            first.append(((clean.blocks[i] - self.plain.blocks[i])[0] * grad).sum(-1).detach())
        for i in range(n):
            row = []
            for t in at:
                run = Plain(self.plain.model, self.ids, given={i: (t, clean.blocks[i][0, t].detach())})
                row.append((run.logits[token] - self.plain.logits[token]).detach())
            measured.append(torch.stack(row))
        scale = error(pair.measured.values[:, at], torch.stack(measured))
        return max(error(pair.predicted.values, torch.stack(first)), scale)

    def again(self) -> float:
        host = resolve(self.model)
        least = host.footprint(1, len(self.ids), 1).peak(recompute=True)
        lin = tj.linearize(self.model, self.ids, max_memory=least)
        return error(tj.semantic_scope(lin, self.plain.target).scores, self.plain.semantic())

    def cells(self) -> dict[str, str]:
        right = RIGHT[self.plain.x.dtype]
        return {name: cell(getattr(self, name.replace(" ", "_")), right) for name in COLUMNS}


def cell(compute: Callable[[], float], right: float) -> str:
    try:
        worst = compute()
    except tj.JacobianScopeError as refusal:
        return f"refused: {refusal!s}"
    except Broken as broken:
        return f"WRONG: {broken}"
    except TimeoutError:
        raise
    except Exception as raw:
        where = traceback_end(raw)
        return f"RAW {type(raw).__name__}: {str(raw)[:150]} ({where})"
    return f"right ({worst:.0e})" if worst < right else f"WRONG {worst:.2g}"


def traceback_end(raw: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(raw.__traceback__)[-2:]
    return " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(frames))


@dataclass(frozen=True)
class Subject:
    """What a row of the table is about.

    Attributes:
        name: of the architecture; host: "bridge", "compatible" (its compatibility mode) or "hooked".
    """

    name: str
    host: str


def subjects(names: list[str] | None) -> Iterator[Subject]:
    yield from (Subject(name, "bridge") for name in zoo.listed() if names is None or name in names)
    for name in ARCHITECTURES if HAS_HOOKED else ():
        if names is None or name in names:
            yield Subject(name, "hooked")


def trial_of(subject: Subject, dtype: torch.dtype) -> Trial:
    if subject.host == "hooked":
        hf, build = hf_model(subject.name, dtype), lambda: make(subject.name, "hooked", dtype)
    else:
        hf = zoo.hugging_face(subject.name, zoo.DTYPES.get(subject.name, dtype))
        build = partial(zoo.bridge, hf, tokenizer(), subject.host == "compatible")
    ids, other = (tokenizer().encode(text, add_special_tokens=False) for text in (PROMPT, OTHER))
    try:
        model = build()
        with torch.no_grad():
            theirs = model(torch.tensor([ids]))[0, -1]
    except Exception as fault:
        raise Broken(f"can't boot it: {type(fault).__name__}: {str(fault)[:200]}") from fault
    plain = Plain(hf, ids)
    if (off := error(theirs, plain.logits)) > 1e-5:
        raise Broken(f"its logits are {off:.1g} off the model's")
    return Trial(plain, model, ids, other, int(getattr(hf.config, "num_attention_heads", 0)))


def cells_of(subject: Subject, dtype: torch.dtype) -> dict[str, str]:
    try:
        with within(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trial_of(subject, dtype).cells()
    except Broken as fault:
        return {"semantic": f"TransformerLens: {fault}"}
    except Exception as raw:
        return {"semantic": f"RAW {type(raw).__name__}: {str(raw)[:200]} ({traceback_end(raw)})"}


def table(found: dict[Subject, dict[str, str]]) -> str:
    """Markdown: a row a subject, and below what each number in brackets stands for."""
    notes: dict[str, int] = {}

    def short(text: str) -> str:
        if text.startswith("right"):
            return "right"
        kind, _, why = text.partition(": ")
        if kind not in ("refused", "TransformerLens"):
            return f"**{text}**"
        return f"{kind} [{notes.setdefault(why, len(notes) + 1)}]"

    lines = [f"| architecture | host | {' | '.join(COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 2)]
    for subject, cells in found.items():
        row = [short(cells[name]) if name in cells else "" for name in COLUMNS]
        lines.append(f"| {subject.name} | {subject.host} | {' | '.join(row)} |")
    return "\n".join([*lines, "", *(f"{n}. {why}" for why, n in notes.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="model types, with commas")
    parser.add_argument("--dtype", default="float64")
    parser.add_argument(
        "--resume", type=Path, help="a JSON file of rows: those in it aren't made again, new ones go in"
    )
    options = parser.parse_args()
    never_install()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    found, kept = {}, {}
    if options.resume and options.resume.exists():
        kept = json.loads(options.resume.read_text())
    for subject in subjects(options.only.split(",") if options.only else None):
        row = f"{subject.name} {subject.host}"
        found[subject] = cells = kept.get(row) or cells_of(subject, getattr(torch, options.dtype))
        kept[row] = cells
        if options.resume:
            options.resume.write_text(json.dumps(kept, indent=1))
        wrong = [f"{column}: {text}" for column, text in cells.items() if not text.startswith("right")]
        print(f"{subject.name} ({subject.host}): {'; '.join(wrong) or 'right'}"[:600], file=sys.stderr, flush=True)
    names = ("transformer-lens", "transformers", "torch")
    print(f"## {', '.join(f'{name} {version(name)}' for name in names)}, {options.dtype}\n\n{table(found)}\n")


if __name__ == "__main__":
    sys.exit(main())
