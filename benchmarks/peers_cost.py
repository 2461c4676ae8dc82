"""What one explanation costs beside other packages: same weights, same prompts, one run.

    PYTHONPATH=.:DIR python -m benchmarks.peers_cost [--device cpu] [--lengths 25 100 400 1600] [--rounds 5]

DIR: where inseq, captum, gim-explain and flashtrace are (``pip install --no-deps --target DIR ...``); those that can't
be imported are named and left out. All contenders take turns in one process, and are told in plain forward passes of
the Hugging Face model (its default, fused attention); inseq, captum and FlashTrace run on it, GIM on a
HookedTransformer with the same weights (on Hugging Face's it fails with transformers 5). Peaks are of a process of its
own for each contender, beyond what it had after a first explanation of five tokens.

one prediction   Semantic Scope; inseq's saliency; captum's gradient x activation; GIM; FlashTrace's ifr-span
one answer       the same for eight tokens together
three scopes     Semantic, Temperature and rank-1 Fisher Scope of one prediction, one after the other or from shared
                 backward passes; no peer has the other two
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch

import tl_jacobian as tj
from benchmarks.memory import TEXT, forget_peak, resident
from benchmarks.ratios import medians
from tl_jacobian.analyses.scopes.choose import attributed, choose
from tl_jacobian.core.host.demo import kinds, load_demo_hf
from tl_jacobian.core.host.heap import give_back
from tl_jacobian.core.memory import text_of

OUT = Path(__file__).parent / "results" / "peers.md"
ANSWER = 8  # tokens
PEERS = ("inseq", "captum", "gim", "flashtrace")
THREE = [choose("semantic"), choose("temperature"), choose("fisher", rank=1)]
# What FlashTrace imports for its pictures and its command line; none of it takes part in a trace.
_DRAWING = ("networkx", "seaborn", "spacy", "spacy.language", "spacy.tokens", "wordfreq")
Ask = Callable[[list[int], list[int]], Any]  # ids of a prompt, and of what follows


def ours(kind: Any, device: str) -> dict[str, Ask]:
    model: Any = tj.load_demo_model(kind, device=device)

    def each(prompt: list[int], answer: list[int]) -> Any:
        lin = tj.linearize(model, prompt)
        return [scope.attribute(lin) for scope in THREE]

    return {
        "one prediction": lambda p, a: tj.semantic_scope(tj.linearize(model, p), a[0]),
        "one answer": lambda p, a: tj.semantic_scope(tj.linearize(model, p, answer=a)),
        "three scopes, one by one": each,
        "three scopes together": lambda p, a: attributed(tj.linearize(model, p), THREE),
    }


def _plain_model(device: str) -> tuple[Any, Any]:
    hf, tokenizer = load_demo_hf()
    hf.set_attn_implementation("sdpa")  # Hugging Face's default
    return hf.to(device).eval().requires_grad_(False), tokenizer


def plain(device: str) -> dict[str, Ask]:
    hf, _ = _plain_model(device)

    def run(prompt: list[int], answer: list[int]) -> Any:
        with torch.no_grad():
            hf(torch.tensor([prompt], device=device), use_cache=False)
        return wait(device)

    return {"forward pass": run}


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def inseq(device: str) -> dict[str, Ask]:
    package: Any = importlib.import_module("inseq")
    hf, tokenizer = _plain_model(device)
    model = package.load_model(hf.requires_grad_(True), "saliency", tokenizer=tokenizer, device=device)

    def run(prompt: list[int], answer: list[int]) -> Any:
        texts = tokenizer.decode(prompt), tokenizer.decode(prompt + answer)
        return model.attribute(*texts, show_progress=False, pretty_progress=False)

    return {"one prediction": lambda p, a: run(p, a[:1]), "one answer": run}


def captum(device: str) -> dict[str, Ask]:
    package: Any = importlib.import_module("captum.attr")
    hf, tokenizer = _plain_model(device)
    hf.requires_grad_(True)
    layer = package.LayerGradientXActivation(hf, hf.get_input_embeddings())
    method = package.LLMGradientAttribution(layer, tokenizer)

    def run(prompt: list[int], answer: list[int]) -> Any:
        return method.attribute(
            package.TextTokenInput(tokenizer.decode(prompt), tokenizer), target=tokenizer.decode(answer)
        )

    return {"one prediction": lambda p, a: run(p, a[:1]), "one answer": run}


def gim(device: str) -> dict[str, Ask]:
    package: Any = importlib.import_module("gim")
    model: Any = tj.load_demo_model("hooked", device=device)
    model.requires_grad_(False)

    def run(prompt: list[int], answer: list[int]) -> Any:
        ids = torch.tensor([prompt + answer[:-1]], device=device)
        for i, token in enumerate(answer):  # one logit at a time is all that it has
            at = len(prompt) - 1 + i
            package.explain(model, ids, target_token_id=token, target_position=at, tokenizer=model.tokenizer)

    return {"one prediction": lambda p, a: run(p, a[:1]), "one answer": run}


def flashtrace(device: str) -> dict[str, Ask]:
    for name in _DRAWING:
        if name not in sys.modules:
            sys.modules[name] = MagicMock()
    hf, tokenizer = load_demo_hf()  # eager: it reads attention patterns
    tracer = importlib.import_module("flashtrace").FlashTrace(hf.to(device).eval(), tokenizer)

    def run(prompt: list[int], answer: list[int]) -> Any:
        texts = {"prompt": tokenizer.decode(prompt), "target": tokenizer.decode(answer)}
        return tracer.trace(**texts, output_span=(0, len(answer) - 1), method="ifr-span")

    return {"one prediction": lambda p, a: run(p, a[:1]), "one answer": run}


def contender(name: str, device: str) -> dict[str, Ask]:
    if name.startswith("tl_jacobian"):
        return ours(name.rpartition(" ")[2], device)
    makers = {"Hugging Face": plain, "inseq": inseq, "captum": captum, "gim": gim, "flashtrace": flashtrace}
    return makers[name](device)


def split(ids: list[int], n: int) -> tuple[list[int], list[int]]:
    return ids[:n], ids[n : n + ANSWER]


def peaks(name: str, device: str, lengths: list[int], ids: list[int]) -> dict[str, int]:
    """Of each question and length, beyond what was there before."""
    asks, found = contender(name, device), {}
    for question, ask in asks.items():
        ask(*split(ids, 5))
        for n in lengths:
            if device == "cpu":
                gc.collect()
                give_back()  # freed memory that is kept would be used again, and not be seen
                before = resident("VmRSS")
                forget_peak()
                ask(*split(ids, n))
                taken = resident("VmHWM") - before
            else:
                wait(device)
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                ask(*split(ids, n))
                wait(device)
                taken = torch.cuda.max_memory_allocated() - before
            found[f"{question} {n}"] = max(0, taken)
    return found


def in_a_process(name: str, args: argparse.Namespace) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.peers_cost", "--peaks", name, "--device", args.device]
    command += ["--lengths", *map(str, args.lengths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 100, 400, 1600])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--peaks", help="one contender's peaks, as JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    ids = load_demo_hf()[1](TEXT * 200)["input_ids"]
    if args.peaks:
        print(json.dumps(peaks(args.peaks, args.device, args.lengths, ids)))
        return
    names = ["Hugging Face", *(f"tl_jacobian {kind}" for kind in kinds()), *args.peers]
    contenders: dict[str, dict[str, Ask]] = {}
    for name in names:
        try:
            made = contender(name, args.device)
            for ask in made.values():
                ask(*split(ids, 12))
            contenders[name] = made
        except Exception as error:  # a package that isn't there, or that other versions of what it builds on broke
            print(f"{name} is left out: {type(error).__name__}: {error}"[:300], flush=True)
    place = torch.cuda.get_device_name() if args.device != "cpu" else f"cpu, {torch.get_num_threads()} threads"
    found: dict[tuple[str, str, int], list[str]] = {}  # of a question, a contender and a length: time, then peak
    missing = [name for name in names if name not in contenders]

    def write() -> None:
        rows = dict.fromkeys((question, name) for question, name, _ in found)
        lines = [
            "# What an explanation costs beside other packages",
            "",
            f"`python -m benchmarks.peers_cost --device {args.device} --rounds {args.rounds}`: {place}; demo model,",
            f"float32, torch {torch.__version__}. Seconds, medians of runs in turn; in brackets plain passes of",
            "Hugging Face's model; then the peak beyond the model.",
            "",
            f"| what | with | {' | '.join(f'{n} tokens' for n in args.lengths)} |",
            "|---" * (2 + len(args.lengths)) + "|",
        ]
        for question, name in sorted(rows):
            cells = [", ".join(found.get((question, name, n), [])) for n in args.lengths]
            lines.append(f"| {question} | {name} | {' | '.join(cells)} |")
        lines += ["", f"Left out, not installed or not running with these versions: {', '.join(missing) or 'none'}."]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n".join(lines) + "\n")

    for n in args.lengths:
        runs: dict[str, Callable[[], Any]] = {}
        for name, asks in contenders.items():
            for question, ask in asks.items():
                runs[f"{question}|{name}"] = lambda ask=ask, n=n: ask(*split(ids, n))
        t = medians(runs, args.rounds if n <= 400 else 1, warm=n <= 400)
        for run, seconds in t.items():
            question, name = run.split("|")
            ratio = seconds / t["forward pass|Hugging Face"]
            found[question, name, n] = [f"{seconds:.3f} ({ratio:.2f})"]
            print(n, run, *found[question, name, n], flush=True)
        write()
    for name in contenders:
        for key, size in in_a_process(name, args).items():
            question, _, n = key.rpartition(" ")
            found[question, name, int(n)].append(text_of(max(1, size)))
            print(n, name, question, text_of(max(1, size)), flush=True)
        write()


if __name__ == "__main__":
    main()
