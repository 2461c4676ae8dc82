"""A small TopK sparse autoencoder for the demo model, trained in minutes: no model hub has one, and none is needed.

    python -m benchmarks.train_sae [--layer 12] [--features 2048] [--k 32] [--out FOLDER]

Texts are made on the spot: Python's own reference (pydoc_data), and sentences from templates (names, capitals).
``--data`` adds JSON files of texts. A tenth of the texts is held out, and the quality that is printed and saved is
theirs: FVU (variance that the reconstruction leaves unexplained), L0 (active features a token), the share of dead
features, and by how much the loss rises with the reconstruction in place of the stream. First tokens are
left out everywhere: their stream is an attention sink's, forty times as long as any other.

The folder holds ``sae_weights.safetensors`` and ``cfg.json`` in the layout of SAELens 6 (architecture "topk").
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tl_jacobian.core.host.demo import cache_dir, load_demo_hf
from tl_jacobian.core.sae_file import load_sae

NAMES = (
    "John",
    "Mary",
    "Tom",
    "Anna",
    "Mark",
    "Sarah",
    "Emma",
    "David",
    "Paul",
    "Lucy",
    "Peter",
    "Kate",
    "James",
    "Alice",
)
COUNTRIES = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo", "China": "Beijing",
    "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Norway": "Oslo", "Poland": "Warsaw",
}  # fmt: skip
PLACES = ("the store", "the park", "the station", "school", "the office", "the garden", "the river", "church")
THINGS = ("a book", "a drink", "the keys", "a letter", "some bread", "a map", "the ball", "a ring")
QUICK = dict(layer=12, features=256, k=8, tokens=6_000, epochs=2)  # seconds, and good for nothing but tests


def folder() -> Path:
    """Where the trained one is: ``$TLJ_SAE``, else beside the demo model."""
    return Path(os.environ.get("TLJ_SAE") or cache_dir() / "sae-layer12")


def load(path: Path | None = None, device: str = "cpu") -> SimpleNamespace:
    """The trained SAE, its parts as SAELens names them: W_enc (d_in, d_sae), W_dec (d_sae, d_in), biases, cfg."""
    path = folder() if path is None else path
    if not (path / "cfg.json").exists():
        raise FileNotFoundError(f"no SAE at {path}: run python -m benchmarks.train_sae first (minutes)")
    return load_sae(path, device)


# -- texts ---------------------------------------------------------------------------------


def templates(n: int, generator: torch.Generator) -> list[str]:
    """Sentences with names, capitals, things; each text a few of them."""

    def pick(options: Any) -> Any:
        options = list(options)
        return options[int(torch.randint(len(options), (), generator=generator))]

    def sentence() -> str:
        a, b = pick(NAMES), pick(NAMES)
        country, capital = pick(COUNTRIES.items())
        other = pick(COUNTRIES)
        return pick(
            (
                f"When {a} and {b} went to {pick(PLACES)}, {a} gave {pick(THINGS)} to {b}.",
                f"{a} and {b} met at {pick(PLACES)}. {b} smiled at {a}, and {a} thanked {b}.",
                f"The capital of {country} is {capital}.",
                f"{a} lives in {capital}, the capital of {country}, and {b} in {other}.",
                f"In {country} the people like {pick(THINGS)}; in {other} they don't.",
                f"{a} lost {pick(THINGS)} at {pick(PLACES)} and {b} found it.",
            )
        )

    return [" ".join(sentence() for _ in range(4)) for _ in range(n)]


def reference(chars: int = 600) -> list[str]:
    """Python's language reference, cut into pieces."""
    from pydoc_data.topics import topics

    texts = [" ".join(text.split()) for text in topics.values()]
    return [text[i : i + chars] for text in texts for i in range(0, len(text) - chars // 2, chars)]


# -- activations ---------------------------------------------------------------------------


class _Enough(Exception):
    """The layer has been reached."""


@torch.no_grad()
def activations(hf: Any, layer: int, batches: list[Tensor]) -> Iterator[Tensor]:
    """The residual stream behind a layer, of every token but each text's first."""
    seen: list[Tensor] = []

    def stop(module: Any, args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)
        raise _Enough

    handle = hf.model.layers[layer].register_forward_hook(stop)
    try:
        for ids in batches:
            try:
                hf(ids, use_cache=False)
            except _Enough:
                yield seen.pop()[:, 1:].flatten(0, 1)
    finally:
        handle.remove()


# -- the autoencoder -----------------------------------------------------------------------


class TopK(torch.nn.Module):
    """``a = topk(relu((x - b_dec) W_enc + b_enc))``, ``x' = a W_dec + b_dec``; rows of W_dec have unit length."""

    def __init__(self, d_in: int, d_sae: int, k: int, mean: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        directions = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
        self.W_dec = torch.nn.Parameter(directions.clone())
        self.W_enc = torch.nn.Parameter(directions.T.clone())
        self.b_enc, self.b_dec = torch.nn.Parameter(torch.zeros(d_sae)), torch.nn.Parameter(mean.clone())
        self.k = k

    def pre(self, x: Tensor) -> Tensor:
        return ((x - self.b_dec) @ self.W_enc + self.b_enc).relu()

    def chosen(self, pre: Tensor, k: int) -> Tensor:
        top = pre.topk(k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, top.indices, top.values)

    def decode(self, acts: Tensor) -> Tensor:
        return acts @ self.W_dec + self.b_dec


def train(x: Tensor, d_sae: int, k: int, epochs: int, seed: int = 0) -> TopK:
    """Adam on the squared error, and on what dead features could add to it (auxiliary loss of arXiv 2406.04093)."""
    generator = torch.Generator().manual_seed(seed)
    sae = TopK(x.shape[1], d_sae, k, x.mean(0).cpu(), generator).to(x.device)
    steps, size = epochs * (len(x) // 1024), 1024
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-3, betas=(0.9, 0.999))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 50, max(0.02, 3 * (1 - i / steps)))
    )
    silent = torch.zeros(d_sae, device=x.device)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - size + 1, size):
            batch = x[order[start : start + size]]
            pre = sae.pre(batch)
            acts = sae.chosen(pre, k)
            error = batch - sae.decode(acts)
            loss = error.square().sum(-1).mean()
            silent = torch.where((acts > 0).any(0), 0.0, silent + size)
            if (dead := silent > 20_000).sum() > k:
                extra = sae.chosen(pre * dead, min(2 * k, int(dead.sum())))
                loss = loss + (error.detach() - extra @ sae.W_dec).square().sum(-1).mean() / 32
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    return sae


@torch.no_grad()
def quality(sae: TopK, x: Tensor) -> dict[str, float]:
    """On held-out activations."""
    acts = sae.chosen(sae.pre(x), sae.k)
    left = (x - sae.decode(acts)).square().sum() / (x - x.mean(0)).square().sum()
    return {
        "fvu": left.item(),
        "l0": (acts > 0).sum(1).float().mean().item(),
        "dead": (~(acts > 0).any(0)).float().mean().item(),
    }


@torch.no_grad()
def loss_with(hf: Any, layer: int, batches: list[Tensor], edit: Any) -> float:
    """Cross-entropy of the next token, with the stream behind a layer edited, first tokens aside."""

    def hook(module: Any, args: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        h = torch.cat([h[:, :1], edit(h[:, 1:])], dim=1)
        return (h, *output[1:]) if isinstance(output, tuple) else h

    handle = hf.model.layers[layer].register_forward_hook(hook)
    try:
        losses = [
            torch.nn.functional.cross_entropy(
                hf(ids, use_cache=False).logits[:, 1:-1].flatten(0, 1), ids[:, 2:].flatten()
            )
            for ids in batches
        ]
    finally:
        handle.remove()
    return torch.stack(losses).mean().item()


def make(
    out: Path, layer: int = 12, features: int = 2048, k: int = 32, tokens: int = 120_000, epochs: int = 5,
    data: tuple[Path, ...] = (), device: str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """Train, measure, save."""
    started = time.perf_counter()
    hf, tokenizer = load_demo_hf()
    hf.requires_grad_(False).to(device)
    generator = torch.Generator().manual_seed(0)
    texts = reference() + templates(600, generator)
    for path in data:
        texts += [
            item if isinstance(item, str) else item["text"] for item in json.loads(path.read_text(encoding="utf-8"))
        ]
    texts = [texts[i] for i in torch.randperm(len(texts), generator=generator).tolist()]
    length = 64  # texts are cut into pieces of one length, so nothing is padded
    encoded = [
        ids[i : i + length] for ids in tokenizer(texts)["input_ids"] for i in range(0, len(ids) - length + 1, length)
    ]
    batches = list(torch.tensor(encoded[: tokens // length], device=device).split(16))
    held = max(1, len(batches) // 10)
    print(
        f"{len(texts)} texts, {sum(b.numel() for b in batches)} tokens; {time.perf_counter() - started:.0f} s",
        file=sys.stderr,
    )
    x = torch.cat(list(activations(hf, layer, batches[held:])))
    scale = x.norm(dim=1).mean() / x.shape[1] ** 0.5
    print(f"activations of {len(x)} tokens; {time.perf_counter() - started:.0f} s", file=sys.stderr)
    sae = train(x / scale, features, k, epochs)
    print(f"trained; {time.perf_counter() - started:.0f} s", file=sys.stderr)
    test = torch.cat(list(activations(hf, layer, batches[:held]))) / scale
    found = quality(sae, test)
    few = batches[: min(held, 4)]
    reconstruct = lambda h: scale * sae.decode(sae.chosen(sae.pre(h / scale), k))  # noqa: E731
    mean = scale * test.mean(0)
    own, spliced, ablated = (
        loss_with(hf, layer, few, edit) for edit in (lambda h: h, reconstruct, lambda h: mean.expand_as(h))
    )
    found |= {
        "loss": own,
        "loss_reconstructed": spliced,
        "loss_ablated": ablated,
        "seconds": time.perf_counter() - started,
    }
    save(out, sae, float(scale), layer, found)
    return found


def save(out: Path, sae: TopK, scale: float, layer: int, found: dict[str, float]) -> None:
    """With the activations' scale folded into the weights."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {
        "W_enc": sae.W_enc / scale, "b_enc": sae.b_enc, "W_dec": sae.W_dec * scale, "b_dec": sae.b_dec * scale,
    }  # fmt: skip
    save_file(
        {name: w.detach().cpu().contiguous().clone() for name, w in weights.items()}, out / "sae_weights.safetensors"
    )
    d_in, d_sae = sae.W_enc.shape
    cfg = dict(architecture="topk", d_in=d_in, d_sae=d_sae, k=sae.k, dtype="float32", apply_b_dec_to_input=True)
    cfg |= dict(normalize_activations="none", reshape_activations="none", rescale_acts_by_decoder_norm=False)
    metadata = dict(hook_name=f"blocks.{layer}.hook_resid_post", model_name="SmolLM2-135M-Instruct", quality=found)
    (out / "cfg.json").write_text(json.dumps({**cfg, "metadata": metadata}, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layer", type=int, default=12)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=120_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    out = args.out or folder()
    print(make(out, args.layer, args.features, args.k, args.tokens, args.epochs, tuple(args.data), args.device))
    print(f"saved to {out}")


if __name__ == "__main__":
    main()
