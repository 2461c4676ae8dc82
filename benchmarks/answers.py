"""What explaining a whole answer costs, in plain forward passes of both; and how exact its Fisher estimate is.

    python -m benchmarks.answers [--parts costs peers errors] [--lengths 1 8 30 100] [--kinds bridge hooked]
    python -m benchmarks.answers --parts errors --device cuda

100 tokens of prompt (40 for the errors), and what follows them in the text as the answer. Ratios are medians over
repeats, each beside a forward pass of its own in the same run: other work on the machine shifts both. Peers are timed
on the same weights and text, beside the Hugging Face model's own forward pass, where they are installed. Errors are of
Fisher's estimate against the exact trace (for more than eight tokens against an estimate of 4,096 products), relative,
the mean over tokens and seeds. Writes answers.json and answers.md to benchmarks/results or ``--out``; parts that are
measured again take the place of what is there, and none (``--parts`` alone) writes the report anew.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import tl_jacobian as tj
from benchmarks import peers
from tl_jacobian.core.host.demo import kinds, load_demo_hf

RESULTS = Path(__file__).parent / "results"
TEXT = (
    "The lighthouse stood at the end of the long stone pier, and every evening the keeper climbed its narrow "
    "stairs to light the lamp. He had done so for thirty years, in storms and in calm, and he knew the sound of "
    "every ship that passed. One night in late autumn a fog came in from the sea, thicker than any that he could "
    "remember, and with it came a sound that he did not know. He put down his book, opened the door to the "
    "gallery and listened. Far below, somewhere between the rocks and the pier, somebody was calling his name, "
    "and he knew the voice. He took the lantern from its hook and went down the stairs as fast as his knees "
    "allowed, across the yard and out on the wet stones of the pier, holding the light above his head. The fog "
    "swallowed it after a few steps. He called back, and waited, and heard nothing but the water. Then, quite "
    "near, there was the sound of oars, and out of the grey came a small boat with one man in it, who looked at "
    "him as if he had been expected there all along."
)
Row = dict[str, Any]
SEEDS, REFERENCE = 5, 4096


def seconds(run: Callable[[], Any], device: str = "cpu") -> float:
    began = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def split(tokenizer: Any, n: int, prompt: int = 100) -> tuple[list[int], list[int]]:
    """Tokens of a prompt, and the n that follow."""
    ids = tokenizer.encode(TEXT)
    return ids[100 - prompt : 100], ids[100 : 100 + n]


def ratios(plain: Callable[[], Any], ways: dict[str, Callable[[], Any]], repeats: int, device: str) -> Row:
    """The median of each way's time in plain forward passes, and a pass in seconds."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    bases = []
    for repeat in range(repeats + 1):
        with torch.no_grad():
            base = seconds(plain, device)
        taken = {name: seconds(way, device) for name, way in ways.items()}
        if repeat:  # the first warms up
            bases.append(base)
            for name, one in taken.items():
                found[name].append(one / base)
    return {"forward": statistics.median(bases), "ratios": {name: statistics.median(f) for name, f in found.items()}}


def costs(args: argparse.Namespace) -> Iterator[Row]:
    for kind in args.kinds:
        if kind not in kinds():
            continue
        model: Any = tj.load_demo_model(kind, device=args.device)
        for n in args.lengths:
            prompt, answer = split(model.tokenizer, n)
            if len(answer) < n:
                continue
            both = torch.tensor([prompt + answer[:-1]], device=args.device)

            def explained(scope: Any, model: Any = model, prompt: Any = prompt, answer: Any = answer) -> Any:
                return lambda: scope(tj.linearize(model, prompt, answer=answer))

            ways = {
                "Semantic": explained(tj.semantic_scope),
                "Temperature": explained(tj.temperature_scope),
                "input x gradient": explained(tj.baselines.input_x_gradient),
            }
            plain = lambda model=model, both=both: model(both)  # noqa: E731
            yield {"kind": kind, "n": n, **ratios(plain, ways, args.repeats, args.device)}


def peer_costs(args: argparse.Namespace) -> Iterator[Row]:
    hf, tokenizer = load_demo_hf()
    hf = hf.to(args.device).eval()
    model: Any = tj.load_demo_model("bridge", device=args.device)
    for n in (8, 30):
        prompt, answer = split(tokenizer, n)
        texts = tokenizer.decode(prompt), tokenizer.decode(answer)
        if [tokenizer.encode(text) for text in texts] != [prompt, answer]:
            raise tj.errors.PromptError("the text splits into other tokens")
        both = torch.tensor([prompt + answer[:-1]], device=args.device)
        ways: dict[str, Callable[[], Any]] = {
            "tl_jacobian, Semantic": lambda p=prompt, a=answer: tj.semantic_scope(tj.linearize(model, p, answer=a)),
            "tl_jacobian, input x gradient": lambda p=prompt, a=answer: tj.baselines.input_x_gradient(
                tj.linearize(model, p, answer=a), signed=True
            ),
            **_inseq(hf, tokenizer, *texts),
            **_captum(hf, tokenizer, *texts),
        }
        if flashtrace := peers.of_packages(model, args.device, ("flashtrace",)).get("flashtrace"):
            lin = tj.linearize(model, prompt, answer=answer)  # it reads text; nothing is taken from the linearization
            ways["flashtrace, ifr-span"] = lambda lin=lin, trace=flashtrace: trace(lin)
        yield {"n": n, **ratios(lambda both=both: hf(both), ways, args.repeats, args.device)}


def _inseq(hf: Any, tokenizer: Any, prompt: str, answer: str) -> dict[str, Callable[[], Any]]:
    if importlib.util.find_spec("inseq") is None:
        return {}
    inseq = importlib.import_module("inseq")
    model = inseq.load_model(hf, "input_x_gradient", tokenizer=tokenizer)

    def run() -> Any:
        return model.attribute(prompt, prompt + answer, show_progress=False, pretty_progress=False)

    return {"inseq, input x gradient": run}


def _captum(hf: Any, tokenizer: Any, prompt: str, answer: str) -> dict[str, Callable[[], Any]]:
    if importlib.util.find_spec("captum") is None:
        return {}
    attr = importlib.import_module("captum.attr")
    embedding = hf.get_input_embeddings()
    method = attr.LLMGradientAttribution(attr.LayerGradientXActivation(hf, embedding), tokenizer)
    return {"captum, input x gradient": lambda: method.attribute(attr.TextTokenInput(prompt, tokenizer), target=answer)}


def errors(args: argparse.Namespace) -> Iterator[Row]:
    model: Any = tj.load_demo_model("bridge", device=args.device)
    one_token = None
    for n in args.estimates:
        prompt, answer = split(model.tokenizer, n, prompt=40)
        lin = tj.linearize(model, prompt, answer=answer)
        if n <= 8:
            truth = tj.fisher_scope(lin, method="exact").scores.double()[: len(prompt)]
        else:  # 576 products for each token of the answer would take most of an hour
            many: Any = tj.fisher_scope(lin, method="estimate", n_products=REFERENCE, generator=torch.Generator())
            truth = many.scores.double()[: len(prompt)]
            print(f"reference: {(many.stderr[: len(prompt)] / many.scores[: len(prompt)]).mean():.2%} standard error")

        def error(seed: int, lin: Any = lin, truth: Any = truth, n: int = len(prompt), **how: Any) -> tuple[float, int]:
            a = tj.fisher_scope(lin, method="estimate", generator=torch.Generator().manual_seed(seed), **how)
            found = (a.scores.double()[:n] - truth).abs() / truth
            return found.mean().item(), a.metadata["n_products"]

        asked = [error(seed) for seed in range(SEEDS)]  # for 1%
        products = statistics.mean(k for _, k in asked)
        one_token = one_token or round(products)
        taken = statistics.median(seconds(lambda: tj.fisher_scope(lin, method="estimate"), args.device) for _ in "123")
        yield {
            "n": n,
            "at": one_token,
            "error": statistics.mean(error(seed, n_products=one_token)[0] for seed in range(SEEDS)),
            "products": products,
            "seconds": taken,
            "reached": statistics.mean(e for e, _ in asked),
            "budgets": {
                str(k): statistics.mean(error(seed, n_products=k)[0] for seed in range(SEEDS)) for k in args.products
            },
        }


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "costs": costs,
    "peers": peer_costs,
    "errors": errors,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    options.add_argument("--lengths", nargs="*", type=int, default=[1, 8, 30, 100])
    options.add_argument("--kinds", nargs="*", default=["bridge", "hooked"])
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--estimates", nargs="*", type=int, default=[1, 2, 8, 30], help="lengths of answers")
    options.add_argument("--products", nargs="*", type=int, default=[64, 128, 256])
    options.add_argument("--device", default="cpu")
    options.add_argument("--out", type=Path, default=RESULTS)
    args = options.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    store = args.out / "answers.json"
    found: dict[str, Any] = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    threads = f"{torch.get_num_threads()} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    for part in args.parts:
        found[part] = {"rows": [], "machine": f"{args.device}, {platform.machine()}, {threads}"}
        for row in PARTS[part](args):
            print(part, row, flush=True)
            found[part]["rows"].append(row)
            store.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (args.out / "answers.md").write_text("\n".join(report(found)) + "\n", encoding="utf-8")


def report(found: dict[str, Any]) -> Iterator[str]:
    yield "# Whole answers: cost, and the Fisher estimate's error"
    yield ""
    yield "Made by `python -m benchmarks.answers`: " + str(__doc__).split("\n\n")[2].replace("\n", " ").strip()
    if part := found.get("costs"):
        yield from ("", f"Plain forward passes of prompt and answer, linearize included ({part['machine']}):", "")
        names = list(part["rows"][0]["ratios"])
        yield from _header("host", "tokens", "forward pass", *names)
        for row in part["rows"]:
            yield _row(row["kind"], f"100 + {row['n']}", f"{row['forward']:.3f} s", *_ratios(row, names))
    if part := found.get("peers"):
        yield from ("", f"Beside others, in forward passes of the Hugging Face model ({part['machine']}):", "")
        yield from _header("method", *(f"100 + {row['n']} tokens" for row in part["rows"]))
        for name in part["rows"][0]["ratios"]:
            yield _row(name, *(f"{row['ratios'][name]:.2f}" for row in part["rows"]))
    if part := found.get("errors"):
        yield from ("", f'`fisher_scope(lin, method="estimate")`, {SEEDS} seeds ({part["machine"]}):', "")
        budgets, at = list(part["rows"][0]["budgets"]), part["rows"][0]["at"]
        asked = ("products for 1%", "error then", "seconds")
        yield from _header(
            "tokens of answer", f"error with {at} products", *asked, *(f"error with {k}" for k in budgets)
        )
        for row in part["rows"]:
            reached = f"{row['products']:.0f}", f"{row['reached']:.2%}", f"{row['seconds']:.2f}"
            more = [f"{row['budgets'][k]:.2%}" if k in row["budgets"] else "" for k in budgets]
            yield _row(str(row["n"]), f"{row['error']:.2%}", *reached, *more)


def _header(*names: str) -> tuple[str, str]:
    return _row(*names), "|---" + "|---:" * (len(names) - 1) + "|"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _ratios(row: Row, names: Sequence[str]) -> list[str]:
    return [f"{row['ratios'][name]:.2f}" for name in names]


if __name__ == "__main__":
    main()
