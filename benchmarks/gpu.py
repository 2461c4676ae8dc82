"""Everything that is to be checked and measured where there is a GPU, in under ten minutes.

    python -m benchmarks.gpu [--device cuda] [--parts ...] [--model FOLDER] [--out FILE]
    python -m benchmarks.gpu --device cpu --tiny          # the same code on any machine, in a minute

everything   what tests/numbers records (scopes, baselines, maps, spectra, patching, corpora, ...) in float64, on the
             device and on the CPU, number by number
zoo          every scope on a tiny model of every architecture that TransformerLens lists: the device's float64 and
             float32 against the CPU's float64
untouched    random number generators, flags and hooks after a scope; scores under the caller's autocast
quantised    weights of 4 and 8 bits (bitsandbytes, torchao, where they are installed) against what they stand for
half         bfloat16 and float16 weights: the default (computed in float32), precision="model", and a float32 copy
memory       the peak of each scope beside what was predicted
cost         linearize and a scope beside the same host's plain forward pass, by length
throughput   prompts a second of each scope at batches of 1 to 64
rows         one product with the Jacobian by how many travel together: what core/graph.py bounds them by

Scores come to the CPU, so a scope's time is over when it returns; plain forward passes are waited for. The tables are
printed and written to FILE (default benchmarks/results/gpu.md).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub

import torch
from torch import Tensor

import tl_jacobian as tj
from benchmarks import zoo
from benchmarks.memory import TEXT, forget_peak, resident
from benchmarks.ratios import medians
from tests import cases
from tl_jacobian.core.host.demo import kinds
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.memory import text_of

OUT = Path(__file__).parent / "results" / "gpu.md"
PROMPT = list(b"Paris is in")


class Machine:
    """The device that is asked, and its clock and gauge."""

    def __init__(self, name: str, tiny: bool, folder: Path | None = None) -> None:
        self.device, self.tiny, self.folder = torch.device(name), tiny, folder
        self.is_cuda = self.device.type == "cuda"

    def __str__(self) -> str:
        if not self.is_cuda:
            return f"{self.device.type}, {torch.get_num_threads()} threads"
        return f"{torch.cuda.get_device_name(self.device)}, CUDA {torch.version.cuda}"

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def peak(self, run: Callable[[], Any]) -> int:
        """Bytes that a call takes at most beyond what was there before; once before, for what is set up once."""
        run()
        if not self.is_cuda:
            before = resident("VmRSS")
            forget_peak()
            run()
            return max(0, resident("VmHWM") - before)
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        run()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before

    def demo(self, kind: Any, dtype: torch.dtype = torch.float32) -> Any:
        if self.tiny:
            return moved(cases.make("llama", kind, dtype), self.device)
        if self.folder:
            from transformer_lens.model_bridge import TransformerBridge

            return TransformerBridge.boot_transformers(str(self.folder), dtype=dtype, device=str(self.device))
        return tj.load_demo_model(kind, device=self.device, dtype=dtype)

    def kinds(self) -> list[Any]:
        return ["bridge"] if self.folder else kinds()

    def ids(self, model: Any, n: int) -> list[int]:
        return [1 + i % 200 for i in range(n)] if self.tiny else model.tokenizer(TEXT * 200)["input_ids"][:n]


def moved(model: Any, device: torch.device) -> Any:
    """On another device; TransformerLens says so with prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return model.to(device)


class Report:
    """Lines that are printed and kept."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, []

    def __call__(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join(self.lines) + "\n")

    def table(self, *columns: str) -> None:
        self(f"| {' | '.join(columns)} |")
        self("|---" * len(columns) + "|")

    def row(self, *cells: Any) -> None:
        self(f"| {' | '.join(map(str, cells))} |")


# -- what is asked -------------------------------------------------------------------------


def entropy(y: Tensor, logits: Tensor) -> Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum()


SCOPES: dict[str, Callable[[Any], Any]] = {
    "semantic": tj.semantic_scope,
    "temperature": tj.temperature_scope,
    "fisher, rank 1": lambda lin: tj.fisher_scope(lin, method="low_rank"),
    "fisher, estimate of 52 products": lambda lin: tj.fisher_scope(lin, method="estimate", n_products=52),
}
MORE: dict[str, Callable[[Any], Any]] = {
    "fisher, exact": lambda lin: tj.fisher_scope(lin, method="exact"),
    "fisher, estimate of 20 products": lambda lin: tj.fisher_scope(lin, method="estimate", n_products=20),
    "output": lambda lin: tj.output_scope(lin, entropy),
    "direction": lambda lin: tj.direction_scope(lin, torch.linspace(-1, 2, lin.d_model, dtype=torch.float64)),
}


def scores(lin: Any, scopes: dict[str, Callable[[Any], Any]]) -> dict[str, Tensor]:
    """Of every scope that the linearization has."""
    found = {}
    for name, scope in scopes.items():
        with contextlib.suppress(tj.errors.DegenerateScopeError):
            found[name] = scope(lin).scores.double()
    return found


def error(found: dict[str, Tensor], true: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference of a scope's scores, and which scope's."""
    gaps = {name: float((found[name] - true[name]).norm() / true[name].norm()) for name in true}
    worst = max(gaps, key=lambda name: gaps[name])
    return gaps[worst], worst


# -- is it right? ---------------------------------------------------------------------------


@contextlib.contextmanager
def models_on(device: torch.device) -> Iterator[None]:
    """The suite's models, made there."""
    make, shared = cases.make, cases.shared
    made: dict[Any, Any] = {}

    def there(*args: Any) -> Any:
        return moved(make(*args), device)

    def once(*args: Any) -> Any:
        if args not in made:
            made[args] = there(*args)
        return made[args]

    cases.make, cases.shared = there, once  # type: ignore[assignment]
    try:
        yield
    finally:
        cases.make, cases.shared = make, shared


def everything(machine: Machine, say: Report) -> None:
    """tests/numbers on both, in float64."""
    from tests.numbers import __main__ as numbers

    names = ["llama/bridge", "gpt2/hooked", "corpora/llama/bridge", "language/llama/bridge", "forecasts/llama/bridge"]
    names = [n for n in (names[1:2] if machine.tiny else names) if n in numbers.sections()]
    names = names or ["llama/bridge"]
    say("Numbers that tests/numbers records, in float64, on the device and on the CPU; one differs where it is off by")
    say("more than 1e-9 of its entry's largest number.")
    say()
    say.table("section", "numbers' entries", "equal to 1e-9", "calls that fail", "worst", "seconds")
    for name in names:
        began, records, out = time.perf_counter(), {}, io.StringIO()
        for where in (torch.device("cpu"), machine.device):
            with models_on(where), contextlib.redirect_stderr(out):
                records[where.type] = numbers.collect([name])
        here, there = records["cpu"], records[machine.device.type]
        entries = [k for k, leaf in here.leaves.items() if not isinstance(leaf, str)]
        gaps = {k: numbers.change(k, here.leaves[k], there.leaves[k])[1] for k in entries if k in there.leaves}
        off = sorted((k for k in gaps if gaps[k] > 1e-9), key=lambda k: -gaps[k])
        worst = max(gaps, key=lambda k: gaps[k])
        faults = sorted(set(there.faults) - set(here.faults))
        seconds = f"{time.perf_counter() - began:.0f}"
        say.row(name, len(entries), len(gaps) - len(off), len(faults), f"{gaps[worst]:.1e} ({worst})", seconds)
        for key in off[:12]:
            print(f"    off by {gaps[key]:.2e}: {key}")
        texts = [k for k, v in here.leaves.items() if isinstance(v, str) and there.leaves.get(k) != v]
        for key in texts[:12]:
            print(f"    {key}: {here.leaves[key]!s:.80} / {there.leaves.get(key)!s:.80}")
        if faults:
            print(f"    faults: {faults}\n{out.getvalue()[-6000:]}")
    say()


def architectures(machine: Machine, say: Report) -> None:
    """Every scope on every architecture, in float64 and float32, against float64 on the CPU."""
    names = ["gpt2", "llama", "mamba"] if machine.tiny else zoo.listed()
    say(
        "Every scope on a tiny model of each architecture (bridge): largest relative difference from the CPU's float64."
    )
    say()
    say.table("architecture", "float64", "float32", "the worst of float32")
    gaps: dict[str, list[float]] = {"float64": [], "float32": []}
    began = time.perf_counter()
    for name in names:
        cells, worst = [], ""
        try:
            dtype = zoo.DTYPES.get(name, torch.float64)
            source = zoo.hugging_face(name, dtype)
            lin = tj.linearize(zoo.bridge(source, cases.tokenizer()), PROMPT)
            true = scores(lin, {**SCOPES, **MORE})
            for kind in ("float64", "float32"):
                model = moved(zoo.bridge(source.to(getattr(torch, kind)), cases.tokenizer()), machine.device)
                gap, worst = error(scores(tj.linearize(model, PROMPT), {**SCOPES, **MORE}), true)
                gaps[kind].append(gap)
                cells.append(f"{gap:.1e}")
        except Exception as trouble:
            text = f"{type(trouble).__name__}: {trouble}".splitlines()[0]
            cells = [f"{text[:150]}", ""]
            print("".join(traceback.format_exception(trouble)[-3:]))
        say.row(name, *cells, worst)
    say()
    done = {kind: f"{max(found):.1e}" for kind, found in gaps.items() if found}
    say(f"{len(gaps['float32'])} of {len(names)} architectures, largest differences {done}, in")
    say(f"{time.perf_counter() - began:.0f} s.")
    say()


def untouched(machine: Machine, say: Report) -> None:
    """The caller's generators, flags and hooks; and autocast, which is to change nothing."""
    say.table(
        "host", "generators as they were", "flags and hooks as they were", "scores under autocast, largest change"
    )
    for kind in machine.kinds():
        model = machine.demo(kind)
        ids = machine.ids(model, 25)
        plain = scores(tj.linearize(model, ids), SCOPES)
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        flags = [p.requires_grad for p in model.parameters()]
        states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if machine.is_cuda else [])]
        with torch.autocast(machine.device.type, dtype=torch.bfloat16):
            cast = scores(tj.linearize(model, ids), SCOPES)
        after = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if machine.is_cuda else [])]
        same = all(torch.equal(a, b) for a, b in zip(states, after, strict=True))
        left = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        kept = left == hooks and flags == [p.requires_grad for p in model.parameters()]
        say.row(kind, same, kept, f"{error(cast, plain)[0]:.1e}")
    say()


# -- what does it cost? --------------------------------------------------------------------


def quantised(machine: Machine, say: Report) -> None:
    """Weights of few bits against a float32 model of the numbers that they stand for."""
    say("A tiny llama whose projections are quantised, against a float32 model of the numbers that they stand for: the")
    say("largest error of Semantic Scope and rank-1 Fisher Scope, or what is said instead.")
    say()
    say.table("weights", "dtype of the rest", "computed", "largest error")
    scopes = {name: SCOPES[name] for name in ("semantic", "fisher, rank 1")}
    for name, quantise in _quantisers().items():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for options in ({}, {"precision": "model"}):
                computed = "as the model" if options else "in float32"
                source = zoo.hugging_face("llama", dtype).to(machine.device)
                stands_for = copy.deepcopy(source).float()
                try:
                    for layer, numbers in quantise(source):
                        stands_for.get_submodule(layer).weight.data.copy_(numbers)
                    true = scores(
                        tj.linearize(moved(zoo.bridge(stands_for, cases.tokenizer()), machine.device), PROMPT), scopes
                    )
                    found = scores(tj.linearize(zoo.bridge(source, cases.tokenizer()), PROMPT, **options), scopes)
                    gap, which = error(found, true)
                    cell = f"{gap:.1e} ({which})"
                except Exception as trouble:
                    cell = f"{type(trouble).__name__}: {trouble}".splitlines()[0][:160]
                say.row(name, str(dtype).removeprefix("torch."), computed, cell)
    say()


Quantise = Callable[[Any], Iterator[tuple[str, Tensor]]]


def _quantisers() -> dict[str, Quantise]:
    """What is installed: each exchanges a model's projections, and says what numbers they stand for then."""
    found: dict[str, Quantise] = {}
    with contextlib.suppress(ImportError):
        import bitsandbytes as bnb

        def four_bits(kind: str, model: Any) -> Iterator[tuple[str, Tensor]]:
            for name, layer in _projections(model):
                new = bnb.nn.Linear4bit(
                    layer.in_features, layer.out_features, bias=False, compute_dtype=layer.weight.dtype, quant_type=kind
                )
                new.weight = bnb.nn.Params4bit(layer.weight.data.cpu(), requires_grad=False, quant_type=kind)
                new = new.to(layer.weight.device)
                model.get_submodule(name.rpartition(".")[0]).__setattr__(name.rpartition(".")[2], new)
                state = copy.copy(new.weight.quant_state)
                state.dtype = torch.float32  # what its kernels multiply a float32 activation by
                yield name, bnb.functional.dequantize_4bit(new.weight.data, state)

        found |= {f"bitsandbytes {kind}": partial(four_bits, kind) for kind in ("nf4", "fp4")}
    with contextlib.suppress(ImportError):
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        def eight_bits(model: Any) -> Iterator[tuple[str, Tensor]]:
            names = {name for name, _ in _projections(model)}
            quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda _, name: name in names)
            for name in sorted(names):
                yield name, model.get_submodule(name).weight.dequantize()

        found["torchao int8, weights alone"] = eight_bits
    return found


def _projections(model: Any) -> list[tuple[str, Any]]:
    linear = ((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear))
    return [(n, m) for n, m in linear if "lm_head" not in n]


def half(machine: Machine, say: Report) -> None:
    """Half-precision weights, computed in three ways, and how far each is from a float32 copy of them."""
    say(
        "Errors against a float32 copy of the weights, the worst of the scopes named above but the estimate; seconds of"
    )
    say("linearize and Semantic Scope, 100 tokens; peak beyond the model.")
    say()
    say.table("host", "weights", "computed", "largest error", "seconds", "of the copy's", "plain forward, s", "peak")
    three = {name: scope for name, scope in SCOPES.items() if "estimate" not in name}
    for kind in machine.kinds():
        for dtype in (torch.bfloat16, torch.float16):
            model, copy = machine.demo(kind, dtype), machine.demo(kind)
            given = {n: p.detach() for n, p in model.named_parameters()}
            for name, p in copy.named_parameters():
                p.data.copy_(given[name])
            ids = machine.ids(model, 20 if machine.tiny else 100)
            true = scores(tj.linearize(copy, ids), three)
            ways = {
                "float32 copy": (copy, {}),
                "in float32": (model, {}),
                "as the model": (model, {"precision": "model"}),
            }
            run = {
                way: lambda m=m, options=options: tj.semantic_scope(tj.linearize(m, ids, **options))
                for way, (m, options) in ways.items()
            }
            passes = {f"plain {way}": lambda m=m: plain(machine, m, [ids]) for way, (m, _) in ways.items()}
            t = medians({**run, **passes}, 3 if machine.tiny else 7)
            for way, (m, options) in ways.items():
                gap, which = error(scores(tj.linearize(m, ids, **options), three), true)
                say.row(
                    *(kind, str(dtype).removeprefix("torch."), way, f"{gap:.1e} ({which})", f"{t[way]:.4f}"),
                    *(f"{t[way] / t['float32 copy']:.2f}", f"{t[f'plain {way}']:.4f}", text_of(machine.peak(run[way]))),
                )
    say()


def plain(machine: Machine, model: Any, prompts: Sequence[Sequence[int]]) -> None:
    with torch.no_grad():
        model(torch.tensor(prompts, device=machine.device))
    machine.wait()


def memory(machine: Machine, say: Report) -> None:
    """Peaks beyond the model, predicted and measured."""
    say("Peak beyond the model, measured by the allocator; `least`: under the smallest budget that is accepted.")
    say()
    say.table("host", "tokens", "prompts", "scope", "budget", "predicted", "measured", "predicted / measured")
    sizes = [(12, 1), (40, 4)] if machine.tiny else [(100, 1), (100, 16), (400, 1), (400, 16), (1024, 1), (2000, 1)]
    for kind in machine.kinds():
        model = machine.demo(kind)
        for n, batch in sizes:
            prompts = [machine.ids(model, n)] * batch
            footprint = resolve(model).footprint(batch, n, batch)
            for scope in ("temperature", "fisher, estimate of 24 products"):
                for budget in (None, "least"):
                    if budget and (batch > 1 or scope != "temperature"):
                        continue
                    least = footprint.peak(recompute=True) if budget else None
                    recompute, directions = False, 1

                    def run(scope: str = scope, least: Any = least, prompts: Any = prompts) -> None:
                        nonlocal recompute, directions
                        lin = tj.linearize(model, prompts, max_memory=least)
                        recompute = "again" in lin[0].facts["activations"]
                        if scope == "temperature":
                            tj.temperature_scope(lin)
                        else:
                            tj.fisher_scope(lin, method="estimate", n_products=24)
                            directions = min(lin[0].graph.chunk, 24)

                    taken = machine.peak(run)
                    said = footprint.peak(recompute, directions=directions, push=scope != "temperature")
                    ratio = f"{said / max(1, taken):.2f}"
                    say.row(kind, n, batch, scope, budget or "none", text_of(said), text_of(max(1, taken)), ratio)
    say()


def cost(machine: Machine, say: Report) -> None:
    """One scope beside a plain forward pass."""
    say("Seconds of one prompt, medians of runs in turn; in brackets how many of the same host's plain forward passes.")
    say()
    say.table("host", "tokens", "plain forward", *SCOPES)
    for kind in machine.kinds():
        model = machine.demo(kind)
        for n in [10, 40] if machine.tiny else [25, 100, 400, 1600]:
            ids = machine.ids(model, n)
            runs: dict[str, Callable[[], Any]] = {"plain": lambda ids=ids: plain(machine, model, [ids])}
            runs |= {name: lambda ids=ids, s=scope: s(tj.linearize(model, ids)) for name, scope in SCOPES.items()}
            t = medians(runs, 3 if n > 400 or machine.tiny else 5)
            say.row(kind, n, f"{t['plain']:.4f}", *(f"{t[s]:.4f} ({t[s] / t['plain']:.1f})" for s in SCOPES))
    say()


def throughput(machine: Machine, say: Report) -> None:
    """Prompts a second."""
    n = 20 if machine.tiny else 100
    sizes = [1, 4] if machine.tiny else [1, 4, 16, 64]
    say(f"Prompts of {n} tokens a second, linearize and the scope, by how many are in a batch.")
    say()
    say.table("host", "scope", *map(str, sizes))
    for kind in machine.kinds():
        model = machine.demo(kind)
        ids = machine.ids(model, n)
        passes = {b: medians({"it": lambda b=b: plain(machine, model, [ids] * b)}, 3)["it"] for b in sizes}
        say.row(kind, "plain forward pass", *(f"{b / t:.0f}" for b, t in passes.items()))
        for name, scope in SCOPES.items():
            rounds = 1 if "estimate" in name else 3
            rates = []
            for b in sizes:
                t = medians({"it": lambda b=b, s=scope: s(tj.linearize(model, [ids] * b))}, rounds)["it"]
                rates.append(f"{b / t:.1f}")
            say.row(kind, name, *rates)
    say()


def rows(machine: Machine, say: Report) -> None:
    """Milliseconds of one product with the Jacobian, of a prompt's token, by how many travel together."""
    sizes = [1, 8] if machine.tiny else [1, 4, 8, 16, 32, 64, 128, 256]
    say("Microseconds for each direction, prompt and token, by how many directions travel together (products from the")
    say("output's side; in brackets those from the input's side).")
    say()
    say.table("host", "tokens", "prompts", *map(str, sizes))
    for kind in machine.kinds():
        model = machine.demo(kind)
        for n, batch in [(10, 1)] if machine.tiny else [(25, 1), (100, 1), (400, 1), (25, 16), (100, 16)]:
            graph = tj.linearize(model, [machine.ids(model, n)] * batch)[0].graph
            cells = []
            for k in sizes:
                if k * graph.bytes_per_direction > graph.room and k > 1 and not machine.tiny:
                    cells.append("")
                    continue
                v = torch.randn(k, *graph.y.shape, generator=torch.Generator().manual_seed(0)).to(graph.y)
                x = torch.randn(k, *graph.x.shape, generator=torch.Generator().manual_seed(0)).to(graph.x)

                def back(v: Tensor = v, graph: Any = graph) -> None:
                    torch.autograd.grad(graph.y, graph.x, v, retain_graph=True, is_grads_batched=True)
                    machine.wait()

                def there(x: Tensor = x, graph: Any = graph) -> None:
                    for start, end in zip(graph.chain, graph.chain[1:], strict=False):
                        u = torch.ones_like(end, requires_grad=True)
                        (g,) = torch.autograd.grad(end, start, u, create_graph=True)
                        (x,) = torch.autograd.grad(g, u, x, retain_graph=True, is_grads_batched=True)
                    machine.wait()

                t = medians({"back": back, "there": there}, 2)
                per = 1e6 / (k * batch * n)
                cells.append(f"{t['back'] * per:.1f} ({t['there'] * per:.1f})")
            say.row(kind, n, batch, *cells)
    say()


PARTS: dict[str, Callable[[Machine, Report], None]] = {
    "untouched": untouched,
    "zoo": architectures,
    "everything": everything,
    "quantised": quantised,
    "half": half,
    "memory": memory,
    "cost": cost,
    "throughput": throughput,
    "rows": rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models and few sizes: does the script work?")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--model", type=Path, help="a local folder instead of the demo model, on the bridge")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    machine = Machine(args.device, args.tiny, args.model)
    say = Report(args.out or (OUT.with_name("gpu_tiny.md") if args.tiny else OUT))
    say("# On a GPU")
    say()
    say(f"`python -m benchmarks.gpu --parts {' '.join(args.parts)}`, {args.model or 'demo model'}: {machine};")
    say(f"torch {torch.__version__}, float32 products `{torch.get_float32_matmul_precision()}`.")
    say()
    for part in args.parts:
        began = time.perf_counter()
        say(f"## {part}")
        say()
        try:
            PARTS[part](machine, say)
        except Exception:  # the other parts are still worth having
            say(f"failed: `{traceback.format_exc().splitlines()[-1]}`")
            traceback.print_exc()
        say(f"({time.perf_counter() - began:.0f} s)")
        say()


if __name__ == "__main__":
    main()
