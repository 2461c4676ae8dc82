"""Every number that the library gives, recorded with one version of the code and held against another.

    python -m tests.numbers write before.npz                 # with the code as it is
    python -m tests.numbers compare before.npz               # with other code: exit status 1 if anything isn't the same
    python -m tests.numbers compare before.npz llama/bridge  # what begins so alone; "sections" lists what there is

Both in the folder whose ``tl_jacobian`` is meant, on one machine, with the same packages: then results are the same bit
for bit. Single calls that fail otherwise than by a refusal are printed with their tracebacks, and the rest goes on.

It is a folder with a ``__main__.py`` because a ``tests/numbers.py`` would hide Python's own ``numbers`` from the tests.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub
os.environ.setdefault("TQDM_DISABLE", "1")  # TransformerLens's patching draws bars

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import tl_jacobian as tj
from tests import cases  # the one line that knows where the tiny models are

# -- the library's names ---------------------------------------------------------------

# Where a public name may be besides tl_jacobian itself, the first place first.
PLACES = (
    "analyses.baselines",
    "errors",
    "studies.corpus",
    "studies.language",
    "studies.timeseries",
    "studies.evaluation",
    "analyses.scopes",
    "results.statistics",
)


@cache
def public(name: str) -> Any:
    """A public name wherever it is now; in the last resort whatever module of the library defines it.

    Raises:
        LookupError: it is gone.
    """
    modules = [tj, *(getattr(tj, place, None) or _module(f"tl_jacobian.{place}") for place in PLACES)]
    inner = [module for key, module in sorted(sys.modules.items()) if key.startswith("tl_jacobian.")]
    for module in (*modules, *inner):
        found = getattr(module, name, None)
        if found is not None and not isinstance(found, ModuleType):  # a function may have its module's name
            return found
    raise LookupError(f"tl_jacobian has no {name} in any of its modules")


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


class Names:
    """``the.smoothgrad`` is ``tj.baselines.smoothgrad``, or ``tj.baselines.smoothgrad``, or ..."""

    def __getattr__(self, name: str) -> Any:
        return public(name)


the = Names()

# -- results as numbers and texts ------------------------------------------------------

Leaf = np.ndarray | str  # numbers, or JSON of anything else

# Public attributes of results, whatever their class; what a class has no such attribute of is left out. Not the
# classes' own list of fields, which may change.
ATTRIBUTES = (
    # attributions, and maps of them
    *("scores", "stderr", "scope", "tokens", "str_tokens", "position", "positions", "target", "targets", "combine"),
    *("word_groups", "sizes", "predictions", "mask", "next_texts", "target_words", "metadata"),
    # linearizations
    *("y", "logits", "probs", "words", "bare_norm", "input_hook", "output_hook", "resid", "taps", "facts", "per"),
    *("d_model", "prompt_row"),
    # grids and contributions, routes, patching
    *("values", "rows", "columns", "title", "quantity", "row_axis", "column_axis", "signed", "names", "total", "heads"),
    *("sources", "full", "through", "around", "share", "grid", "predicted", "measured", "clean", "corrupted", "first"),
    *("n_passes", "spearman", "pearson", "sign_agreement", "relative_error", "hook"),
    # entries of rankings
    *("unit", "text", "score", "row", "column", "row_name", "column_name", "value", "place", "name", "influence"),
    *("token", "probability", "size"),
    # spectra
    *("singular_values", "eigenvalues", "left", "right", "directions", "bound", "effective_rank", "trace", "explained"),
    *("effective_rank_stderr", "squared_norm", "squared_norm_stderr", "shares", "value_name", "rises", "falls"),
    *("log_change", "change"),
    # evaluation
    *("k", "n", "removed", "kept", "drops", "aopc", "comprehensiveness", "sufficiency", "kendall", "overlap"),
    *("expected", "epsilons", "actual", "methods", "metrics", "records", "errors", "mean", "low", "high", "method"),
    *("other", "interval", "p", "adjusted", "perturbation", "skip_first", "agreement", "seed", "integration_steps"),
    # corpora
    *("index", "id", "error", "n_prompts", "n_resumed", "n_errors"),
    # language
    *("units", "source_words", "matrix", "word", "source_share", "aer", "precision", "recall", "f1", "source"),
    *("reciprocal_rank", "average_precision", "language", "sure", "possible", "template", "prompt", "prediction"),
    *("edits", "at", "kind", "replacement", "kl", "n_words", "rank_of_first"),
    # time series
    *("integers", "offset", "scale", "groups", "quantized", "codec", "width", "stride", "numbers", "separator", "lead"),
    *("cut_off", "probabilities", "exact", "truth", "mass", "conditional", "std", "mode", "estimate", "p_value"),
    *("lift", "distances", "log", "confidence", "test"),
)
UNSTABLE = ("versions", "seconds", "out")  # other from run to run, or from machine to machine
_EXACT = 1 << 53  # beyond it float64 has no longer every integer


def flat(value: Any) -> dict[str, Leaf]:
    """A result as leaves with names, ``""`` for a value that is one leaf.

    Raises:
        TypeError: nobody knows how: nothing is left out by accident.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return flat(value.double().numpy() if value.is_floating_point() else value.numpy())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return {"": value} if value.dtype.kind in "biuf" else flat(value.tolist())
    if isinstance(value, (bool, int, float)) and (isinstance(value, float) or abs(value) < _EXACT):
        return {"": np.array(value)}
    if value is None or isinstance(value, (str, int)):
        return {"": json.dumps(value)}
    if isinstance(value, pd.DataFrame):
        value = value.to_dict("list")
    if isinstance(value, Mapping):
        parts = {str(key): flat(one) for key, one in value.items() if key not in UNSTABLE}
        return _joined(parts) or {"": "{}"}
    if type(value).__module__.startswith("tl_jacobian") and (parts := _attributes(value)):
        return _joined(parts)
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if isinstance(value, (Sequence, range, Iterator)):
        return _sequence([flat(one) for one in value])
    raise TypeError(f"no attribute of a {type(value).__name__} is known: add its public ones to ATTRIBUTES")


def _attributes(value: Any) -> dict[str, dict[str, Leaf]]:
    found = {name: getattr(value, name) for name in ATTRIBUTES if hasattr(value, name)}
    # A part of a value that is a value of its kind (an attribution's prompt alone) has nothing that isn't in the whole.
    return {name: flat(one) for name, one in found.items() if not callable(one) and type(one) is not type(value)}


def _sequence(parts: list[dict[str, Leaf]]) -> dict[str, Leaf]:
    """Items of one kind as columns, which is shorter; others one by one."""
    if not parts:
        return {"": "[]"}
    shapes = [{key: None if isinstance(leaf, str) else leaf.shape for key, leaf in part.items()} for part in parts]
    if all(shape == shapes[0] for shape in shapes):
        return {key: _column([part[key] for part in parts]) for key in parts[0]}
    return _joined({str(i): part for i, part in enumerate(parts)})


def _column(leaves: list[Any]) -> Leaf:
    return f"[{', '.join(leaves)}]" if isinstance(leaves[0], str) else np.stack(leaves)


def _joined(parts: Mapping[str, Mapping[str, Leaf]]) -> dict[str, Leaf]:
    return {f"{name}.{key}" if key else name: leaf for name, part in parts.items() for key, leaf in part.items()}


class Record:
    """What calls gave, by name.

    Attributes:
        leaves: of all results.
        faults: names of calls that failed otherwise than by a refusal.
        prefix: of the names.
    """

    def __init__(self, prefix: str = "", whole: Record | None = None) -> None:
        self.prefix = prefix
        self.leaves: dict[str, Leaf] = {} if whole is None else whole.leaves
        self.faults: list[str] = [] if whole is None else whole.faults

    def part(self, name: str, fill: Callable[..., None], *args: Any) -> None:
        """Results under a name of their own; if something fails between two calls, without those after it."""
        try:
            fill(Record(f"{self.prefix}{name}/", self), *args)
        except Exception:
            self._fault(name)

    def _fault(self, name: str) -> None:
        self.faults.append(f"{self.prefix}{name}")
        print(f"{self.faults[-1]}: {traceback.format_exc()}", file=sys.stderr)

    def add(self, name: str, make: Callable[[], Any]) -> Any:
        """Record what a call gives, or the class of what it raises; returns the result, or None."""
        try:
            value = make()
            leaves = flat(value)
        except Exception as error:
            if not isinstance(error, public("JacobianScopeError")):  # refusals are results; anything else is a fault
                self._fault(name)
            value, leaves = None, {"refused": json.dumps(type(error).__name__)}
        for key, leaf in leaves.items():
            full = f"{self.prefix}{name}" + (f": {key}" if key else "")
            assert full not in self.leaves, f"{full} is recorded twice"
            self.leaves[full] = leaf
        return value


# -- what is asked ---------------------------------------------------------------------

PROMPT, OTHERS = list(b"Paris is in"), [list(b"Rome"), list(b"Paris is in"), list(b"It")]
TARGET, OTHER = 101, 32  # "e", " "
N = len(PROMPT)
GROUPS = ("resid", "components", "heads", "sources", "resid_pre", ["blocks.1.hook_attn_out", "2.mlp_out"])
KINDS = ("norm", "relative", "gradient_x_activation")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def entropy(y: Tensor, logits: Tensor) -> Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum()


def first_half(y: Tensor, logits: Tensor | None) -> Tensor:
    """Of y alone, for outputs that aren't unembedded."""
    return y[: len(y) // 2].sum()


def difference(logits: Tensor) -> Tensor:
    return logits[7] - logits[9]


V = torch.linspace(-1, 2, cases.WIDTH, dtype=torch.float64)


def attributed(record: Record, name: str, make: Callable[[], Any]) -> Any:
    """An attribution, or one for each member of a batch, and what its methods make of it."""
    found = record.add(name, make)
    for i, a in enumerate([] if found is None else found if isinstance(found, list) else [found]):
        record.add(f"{name} [{i}] methods", partial(_methods, a))
    return found


def _methods(a: Any) -> dict[str, Any]:
    half = [size for size in (len(a) // 2, len(a) - len(a) // 2) if size]
    by = {"words": a.words(), "grouped": a.grouped(half), "named": a.grouped([len(a)], ["all"])}
    merged = {name: (one.scores, one.stderr, one.str_tokens, one.sizes) for name, one in by.items()}
    return {**merged, "top": a.top(3), "top after the first": a.top(2, skip_first=True)}


def one_model(record: Record, architecture: str, state: str) -> None:
    """Everything that works on one prompt, on one model of the suite."""
    model = cases.shared(architecture, state)
    lin = record.add("linearize", lambda: the.linearize(model, PROMPT, record=True))
    batch = record.add("batch", lambda: the.linearize(model, OTHERS))
    record.part("linearized", linearized, model, lin)
    record.part("scopes", scopes, lin)
    record.part("scopes of a batch", scopes, batch)
    record.part("final norm", norms, architecture, model)
    record.part("spectra", spectra, lin)
    record.part("baselines", baselines, lin)
    record.part("inside", inside, model, lin)
    record.part("patching", patching, model)
    record.part("judged", judged, lin)
    record.part("maps", maps, model)


def linearized(record: Record, model: Any, lin: Any) -> None:
    """Products with the Jacobian; prompts in every form; other ends; a tight budget."""
    many, dx = randn(3, cases.WIDTH), randn(2, N, cases.WIDTH, seed=1)
    record.add("vjp", lambda: lin.vjp(V))
    record.add("vjp of several", lambda: lin.vjp(many))
    record.add("vjp_at", lambda: lin.vjp_at(V, ["blocks.1.hook_resid_post", "blocks.1.attn.hook_z", "0.mlp_out"]))
    record.add("jvp", lambda: lin.jvp(dx[0]))
    record.add("jvp of several", lambda: lin.jvp(dx))
    record.add("jacobian", lambda: lin.jacobian())
    record.add("jacobian of some", lambda: lin.jacobian([0, -1]))
    record.add("text", lambda: the.linearize(model, "Paris is in"))
    record.add("text without BOS", lambda: the.linearize(model, "Paris is in", prepend_bos=False))
    record.add("a position", lambda: the.linearize(model, PROMPT, position=4))
    record.add("positions", lambda: the.linearize(model, torch.tensor(PROMPT), position=[2, -1, 5]))
    record.add("a position each", lambda: the.linearize(model, OTHERS, position=[0, 3, -1]))
    x = randn(1, N, cases.WIDTH, seed=2)
    record.add("input value", lambda: the.linearize(model, PROMPT, input_value=x))
    ends = dict(input_hook="blocks.0.hook_resid_post", output_hook="blocks.1.hook_mlp_out")
    other = record.add("other ends", lambda: the.linearize(model, PROMPT, **ends))
    record.add("other ends: vjp", lambda: other.vjp(V))
    attributed(record, "other ends: direction", lambda: the.direction_scope(other, V))
    attributed(record, "other ends: output", lambda: the.output_scope(other, first_half))
    record.add("other ends: semantic", lambda: the.semantic_scope(other))
    tight = record.add("tight", lambda: _tight(model))
    record.add("tight: vjp", lambda: tight["lin"].vjp(V))
    record.add("tight: vjp of several", lambda: tight["lin"].vjp(many))
    record.add("tight: semantic", lambda: the.semantic_scope(tight["lin"], TARGET))
    record.add("tight: estimate", lambda: the.fisher_scope(tight["lin"], method="estimate", n_products=20))


def _tight(model: Any) -> dict[str, Any]:
    """Under budgets that rise by tenths: the last one under which blocks are still computed again, and the first."""
    budget, found = 1 << 14, []
    while True:
        try:
            lin = the.linearize(model, PROMPT, max_memory=budget)
        except public("MemoryBudgetError"):
            budget = budget * 11 // 10
            continue
        if not lin.facts["activations"].startswith("computed again"):
            return {"first": found[0][0], "last": found[-1][0], "lin": found[-1][1]}
        found.append((budget, lin))
        budget = budget * 11 // 10


def scopes(record: Record, lins: Any) -> None:
    """Every scope of one linearization, or of a batch."""
    n = len(lins) if isinstance(lins, public("LinearizationBatch")) else None
    one_each = seeded(3) if n is None else [seeded(3 + i) for i in range(n)]
    calls: dict[str, Callable[[], Any]] = {
        "semantic": lambda: the.semantic_scope(lins),
        "semantic of an id": lambda: the.semantic_scope(lins, TARGET),
        "semantic contrast": lambda: the.semantic_scope(lins, "e", minus=" "),
        "temperature": lambda: the.temperature_scope(lins),
        "temperature of logits": lambda: the.temperature_scope(lins, confidence="logit_norm"),
        "fisher": lambda: the.fisher_scope(lins),
        "fisher exact": lambda: the.fisher_scope(lins, method="exact"),
        "fisher low rank": lambda: the.fisher_scope(lins, method="low_rank"),
        "fisher rank 3": lambda: the.fisher_scope(lins, method="low_rank", rank=3),
        "fisher estimate": lambda: the.fisher_scope(lins, method="estimate", n_products=20, generator=one_each),
        "fisher small estimate": lambda: the.fisher_scope(lins, method="estimate", n_products=11, generator=seeded(5)),
        "fisher default estimate": lambda: the.fisher_scope(lins, method="estimate"),
        "fisher rtol": lambda: the.fisher_scope(lins, method="estimate", rtol=0.2, generator=seeded(4)),
        "direction": lambda: the.direction_scope(lins, V),
        "output": lambda: the.output_scope(lins, entropy),
        "output named": lambda: the.output_scope(lins, lambda y, z: z.log_softmax(-1)[TARGET], name="log p"),
    }
    for name, make in calls.items():
        attributed(record, name, make)


def norms(record: Record, architecture: str, model: Any) -> None:
    """The norm that was folded, given in each form; models that fold nothing refuse it."""
    norm = cases.final_norm_of(cases.hf_model(architecture))
    forms = {"module": norm, "weight": norm.weight, "pair": (norm.weight, getattr(norm, "bias", None))}
    for name, form in forms.items():
        given = record.add(name, partial(lambda form: the.linearize(model, PROMPT, final_norm=form), form))
        if given is not None:
            record.add(f"{name}: vjp", partial(lambda lin: lin.vjp(V), given))
            attributed(record, f"{name}: temperature", partial(the.temperature_scope, given))
            attributed(record, f"{name}: semantic", partial(the.semantic_scope, given))
            attributed(record, f"{name}: low rank", partial(the.fisher_scope, given, method="low_rank"))
    record.add("original, which isn't there", lambda: the.linearize(model, PROMPT, final_norm="original"))


def original_norm(record: Record) -> None:
    """The norm that was folded, read from a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ("gpt2", "gemma2"):
            checkpoint = Path(folder) / architecture
            cases.hf_model(architecture).save_pretrained(checkpoint)
            for state in ("hooked-folded", "bridge-compat"):
                if cases.exists(architecture, state):
                    model = cases.make(architecture, state)
                    model.cfg.model_name = str(checkpoint)
                    lin = record.add(
                        f"{architecture}/{state}",
                        partial(lambda model: the.linearize(model, PROMPT, final_norm="original"), model),
                    )
                    attributed(record, f"{architecture}/{state}: temperature", partial(the.temperature_scope, lin))


def spectra(record: Record, lin: Any) -> None:
    found = {
        "jacobian": record.add("jacobian", lambda: the.jacobian_spectrum(lin, 3, k=4)),
        "jacobian last": record.add("jacobian last", lambda: the.jacobian_spectrum(lin, -1, k=2, generator=seeded(1))),
        "fisher": record.add("fisher", lambda: the.fisher_spectrum(lin, k=5)),
    }
    for name, spectrum in found.items():
        if spectrum is not None:
            for by in ("probability", "log_probability"):
                record.add(f"{name} moves by {by}", partial(spectrum.moves, 0, 20, by=by))
            record.add(f"{name} table", spectrum.to_dataframe)


def baselines(record: Record, lin: Any) -> None:
    x = randn(N, cases.WIDTH, seed=6) / 10
    few = dict(steps=4, max_steps=16)
    calls: dict[str, Callable[[], Any]] = {
        "input_x_gradient": lambda: the.input_x_gradient(lin),
        "input_x_gradient contrast": lambda: the.input_x_gradient(lin, TARGET, minus=OTHER),
        "path": lambda: the.path_integrated_scope(lin, TARGET, steps=8, tol=0.05, max_steps=128),
        "path contrast": lambda: the.path_integrated_scope(lin, TARGET, minus=OTHER, baseline=x, **few),
        "path gauss": lambda: the.path_integrated_scope(lin, TARGET, nodes="gauss_legendre", batch_size=3, **few),
        "path trapezoid": lambda: the.path_integrated_scope(lin, nodes="trapezoid", **few),
        "smoothgrad": lambda: the.smoothgrad(lin, TARGET),
        "smoothgrad contrast": lambda: the.smoothgrad(
            lin, TARGET, minus=OTHER, noise=0.3, samples=5, generator=seeded(7), batch_size=2
        ),
        "leave_one_out": lambda: the.leave_one_out(lin, TARGET),
        "leave_one_out mean": lambda: the.leave_one_out(lin, replacement="mean", batch_size=4),
        "leave_one_out kl": lambda: the.leave_one_out(lin, measure="kl", replacement=x[0]),
        "attention_rollout": lambda: the.attention_rollout(lin),
        "random": lambda: the.random_attribution(lin, generator=seeded(8)),
    }
    for name, make in calls.items():
        attributed(record, name, make)
    record.add("path_integrand", lambda: the.path_integrand(lin, TARGET))
    record.add("path_integrand contrast", lambda: the.path_integrand(lin, minus=OTHER, baseline=x, alphas=(0.1, 0.9)))


SCOPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "semantic": ("semantic", dict(target=TARGET, minus=OTHER)),
    "temperature": ("temperature", dict(confidence="logit_norm")),
    "fisher": ("fisher", {}),
    "fisher rank 2": ("fisher", dict(rank=2)),
    "output": ("output", dict(fn=entropy, name="the entropy")),
    "direction": (V, {}),
}


def inside(record: Record, model: Any, lin: Any) -> None:
    """From the token to the layer and the head."""
    for at in GROUPS:
        for kind in KINDS:
            record.add(
                f"layer_influence {at} {kind}",
                partial(lambda at, kind: the.layer_influence(lin, target=TARGET, at=at, kind=kind), at, kind),
            )
    for name, (scope, options) in SCOPES.items():
        of = partial(
            lambda run, scope, options, **more: run(lin, scope, **options, **more), scope=scope, options=options
        )
        for kind in KINDS:
            record.add(f"layer_influence of {name} {kind}", partial(of, the.layer_influence, kind=kind))
            record.add(f"head_influence of {name} {kind}", partial(of, the.head_influence, kind=kind))
        record.add(f"contributions of {name}", partial(of, the.residual_contributions))
        path = partial(lambda lin, *args, **kwargs: the.path_scope(lin, "blocks.1.hook_attn_out", *args, **kwargs))
        record.add(f"path of {name}", partial(of, path))
    grid = record.add("grid", lambda: the.layer_influence(lin, target=TARGET))
    record.add("grid methods", lambda: _grid_methods(grid))
    parts = record.add("contributions", lambda: the.residual_contributions(lin))
    record.add("contributions methods", lambda: {"top": parts.top(3), "list": list(parts), "one": parts["1.mlp"]})
    z, mlp = "blocks.1.attn.hook_z", "2.mlp_out"
    routes: dict[str, Callable[[], Any]] = {
        "head": lambda: the.path_scope(lin, z, heads=[0], target=TARGET),
        "head at tokens": lambda: the.path_scope(lin, z, heads=[1, -1], positions=[2, -1], target=TARGET),
        "tokens": lambda: the.path_scope(lin, the.Place("0.resid_post", positions=3), target=TARGET),
        "route": lambda: the.path_scope(lin, [the.Place(z, heads=2), mlp], minus=OTHER),
        "pattern": lambda: the.path_scope(lin, "blocks.2.attn.hook_pattern", heads=[0], target=TARGET),
    }
    for name, make in routes.items():
        record.add(f"path through {name}", make)
    middle = record.add(
        "middle", lambda: the.linearize(model, PROMPT, record=True, output_hook="blocks.1.hook_resid_post")
    )
    record.add("middle: contributions", lambda: the.residual_contributions(middle, V))
    record.add("middle: layer_influence", lambda: the.layer_influence(middle, V, kind="relative"))


def _grid_methods(grid: Any) -> dict[str, Any]:
    chosen = {"picked": grid.pick("1.resid_post", "0"), "strongest": grid.strongest(2)}
    return {
        **chosen,
        "top": grid.top(4),
        "top after the first": grid.top(4, skip_first=True),
        "table": grid.to_dataframe(),
    }


def patching(record: Record, model: Any) -> None:
    pair = "Rome is it", "Nome as it"
    kinds = ["resid_pre", "attn_out", "mlp_out", "heads"]
    options = dict(target=7, minus=9)
    record.add("predicted", lambda: the.predict_patching(model, *pair, kinds, **options))
    record.add("predicted two_point", lambda: the.predict_patching(model, *pair, kinds, method="two_point", **options))
    record.add(
        "predicted integrated",
        lambda: the.predict_patching(model, *pair, "mlp_out", method="integrated", steps=3, metric=difference),
    )
    record.add("predicted middle", lambda: the.predict_patching(model, *pair, "resid_mid", **options))
    record.add("predicted by default", lambda: the.predict_patching(model, *pair, prepend_bos=False))
    for kind in ("heads", "attn_out"):
        compared = partial(
            lambda kind: the.compare_patching(model, "Rome", "Nome", kind, prepend_bos=False, **options), kind
        )
        found = record.add(f"compared {kind}", compared)
        record.add(f"compared {kind} worst", partial(lambda found: found.worst(3), found))


def judged(record: Record, lin: Any) -> None:
    """Perturbation curves, agreement of rankings, linearity."""
    whole = [
        the.semantic_scope(lin, TARGET),
        the.fisher_scope(lin, method="low_rank"),
        the.input_x_gradient(lin, TARGET),
    ]
    words = [a.words() for a in whole]
    for how in ("zero", "mean", "delete"):
        record.add(
            f"curves {how}",
            partial(lambda how: the.perturbation_curves(lin, whole, k=[10, 30, 50], perturbation=how), how),
        )
    some = dict(skip_first=True, sufficiency=False, batch_size=3)
    record.add("curves of words", lambda: the.perturbation_curves(lin, words, k=(40,), target=TARGET, **some))
    truth = the.leave_one_out(lin, measure="kl")
    record.add("agreement", lambda: [the.rank_agreement(a, truth) for a in whole])
    record.add("agreement skip_first", lambda: the.rank_agreement(whole[0], whole[1], k=50, skip_first=True))
    record.add("agreement of words", lambda: the.rank_agreement(words[0], truth.words(), k=30))
    record.add("linearity", lambda: the.linearity(lin, TARGET))
    away = dict(way="away", positions=[0, 3, -1], epsilons=[0.01, 1.0], batch_size=4)
    record.add("linearity away", lambda: the.linearity(lin, TARGET, minus=OTHER, **away))


def maps(record: Record, model: Any) -> None:
    low = dict(method="low_rank")
    calls: dict[str, Callable[[], Any]] = {
        "semantic": lambda: the.attribution_map(model, PROMPT),
        "semantic predicted": lambda: the.attribution_map(model, PROMPT, target="predicted", minus=OTHER),
        "text": lambda: the.attribution_map(model, "Paris is", positions=[3, -1]),
        "temperature": lambda: the.attribution_map(model, PROMPT, "temperature", confidence="logit_norm"),
        "fisher low rank": lambda: the.attribution_map(model, PROMPT, "fisher", **low),
        "fisher exact": lambda: the.attribution_map(model, PROMPT, "fisher", [1, 5, 10], method="exact"),
        "fisher estimate": lambda: the.attribution_map(
            model, PROMPT, "fisher", [4, 10], method="estimate", n_products=20
        ),
        "output": lambda: the.attribution_map(model, PROMPT, the.output_scope, fn=entropy),
        "own": lambda: the.attribution_map(model, PROMPT, lambda lin: the.smoothgrad(lin, TARGET, samples=2), [2, 6]),
        "generation": lambda: the.attribute_generation(model, "Rome is", 4),
        "drawn": lambda: the.attribute_generation(
            model, PROMPT, 3, "fisher", temperature=0.8, generator=seeded(9), **low
        ),
    }
    for name, make in calls.items():
        found = record.add(name, make)
        if found is not None:
            record.add(f"{name} row", partial(lambda m: m[-1], found))
            record.add(f"{name} by word", found.words)
            record.add(f"{name} table", found.to_dataframe)


# -- over corpora ----------------------------------------------------------------------

TEXTS = ["Rome is it", "Paris", "one two three", "a cat sat", "no one"]


def corpora(record: Record, model: Any) -> None:
    """Scopes over a corpus, in both formats, with prompts of every kind and some that can't be used."""
    given = [*TEXTS, "", list(b"ids"), {"text": "own", "id": "mine", "target": "q"}, "x" * 100]
    runs = {
        "semantic": dict(scope="semantic", target="s", minus="t"),
        "temperature": dict(scope="temperature", format="parquet"),
        "fisher": dict(scope="fisher", method="estimate", seed=3),
        "fisher rank": dict(scope="fisher", rank=2),
    }
    few = dict(batch_size=3, shard_size=4, progress=False)
    for name, options in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            run = partial(the.attribute_corpus, model, given, out=Path(folder) / "run", **few, **options)
            record.add(f"{name}: report", run)
            record.add(f"{name}: report again", run)
            record.add(f"{name}: attributions", partial(_all, the.read_attributions, Path(folder) / "run"))
            record.add(f"{name}: records", partial(the.read_records, Path(folder) / "run"))
            record.add(f"{name}: each record", partial(_all, the.each_record, Path(folder) / "run"))
            record.add(f"{name}: settings", partial(the.read_settings, Path(folder) / "run"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.jsonl"
        path.write_text("\n".join(map(json.dumps, ["plain", {"text": "a", "id": 7}, {"tokens": [65, 66]}, {"no": 1}])))
        prompts = record.add("read", lambda: the.read_corpus(path))
        record.add("read some", lambda: the.read_corpus(path, limit=2))
        tokenize = the.tokenizer_of(model, prepend_bos=True)
        record.add("tokens", lambda: [tokenize(p) for p in prompts if not p.error])
        options = dict(tokenize=tokenize, **few)
        record.add("own job", lambda: the.run_corpus(_Lengths(), prompts, Path(folder) / "out", **options))
        record.add("own job records", lambda: the.read_records(Path(folder) / "out"))
        job = record.add("job settings", lambda: dict(the.ScopeJob(model, "fisher", rank=2).settings))
        assert job is not None
        scope_job = the.ScopeJob(model, "semantic")
        ready = [the.CorpusPrompt(4, "x", tokens=(65, 66)), the.CorpusPrompt(5, "y", tokens=(67,), target=3)]
        record.add("job", lambda: scope_job(ready))
    record.add("generator", lambda: [torch.rand(2, generator=the.prompt_generator(3, i)) for i in (0, 5)])


def _all(read: Callable[[Any], Iterator[Any]], path: Path) -> list[Any]:
    return list(read(path))


class _Lengths:
    """A job of one's own."""

    settings: Mapping[str, Any] = {"job": "lengths"}

    def __call__(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"n": len(p.tokens), "half": len(p.tokens) / 2} for p in prompts]


METHODS = (
    *("random", "integrated_gradients", "input_x_gradient", "semantic", "temperature", "fisher", "fisher_trace"),
    *("smoothgrad", "attention_rollout", "leave_one_out"),
)


def evaluations(record: Record, model: Any, *, tables: bool) -> None:
    """Trials; tables are bootstrapped, which takes longer than all else."""
    trials = {
        "all": the.Trial(
            methods=METHODS, k=(20, 50), agreement=True, settings=the.Settings(seed=2, integration_steps=4)
        ),
        "delete": the.Trial(methods=("random", "semantic", "fisher"), k=(40,), perturbation="delete", skip_first=True),
        "mean": the.Trial(methods=("input_x_gradient",), perturbation="mean", sufficiency=False, batch_size=5),
    }
    for name, trial in trials.items():
        record.add(f"{name}: trial", partial(lambda trial: (trial, trial.facts()), trial))
        found = record.add(name, partial(the.evaluate, model, TEXTS, trial, batch_size=2, progress=False))
        if found is not None:
            record.add(f"{name}: values", partial(_values, found))
            if tables and name != "mean":
                record.add(f"{name}: table", found.to_json)
                record.add(f"{name}: markdown", found.to_markdown)
    with tempfile.TemporaryDirectory() as folder:
        given = ["abcd", {"text": "wxyz", "target": "q"}, "x" * 100, "two words"]
        options = dict(out=Path(folder) / "run", explained="next", name="three", prepend_bos=False, progress=False)
        record.add("next", lambda: the.evaluate(model, given, trials["delete"], **options))
        record.add("next loaded", lambda: the.load_evaluation(Path(folder) / "run"))


def _values(found: Any) -> dict[str, Any]:
    columns = [(heading, metric, k) for heading, metric, k in found.columns()]
    return {heading: {m: found.values(metric, m, k) for m in found.methods} for heading, metric, k in columns}


# -- language --------------------------------------------------------------------------


def language_models(record: Record, model: Any) -> None:
    """Word alignments and counterfactual edits of a model that reads bytes."""
    sentences = "Wer ist da", "who is it"
    short = "{source} = {target}"
    alignments: dict[str, dict[str, Any]] = {
        "fisher": dict(),
        "low rank": dict(method="low_rank", tokens="first"),
        "estimate": dict(method="estimate", n_products=20),
        "semantic": dict(scope="semantic", prepend_bos=False),
        "temperature": dict(scope="temperature", confidence="logit_norm"),
    }
    for name, options in alignments.items():
        found = record.add(f"aligned {name}", partial(the.word_alignment, model, *sentences, template=short, **options))
        record.add(f"aligned {name} methods", partial(_alignment_methods, found))
    edits: dict[str, dict[str, Any]] = {
        "semantic": dict(target=65, replace={"da": ["dort", "je nun"], "Wer ist": ["Was war"], 0: ["Wo"]}),
        "contrast": dict(target=65, minus=66, top=2, prepend_bos=True),
        "temperature": dict(scope="temperature", confidence="logit_norm"),
        "fisher": dict(scope="fisher", method="low_rank", prepend_bos=False),
        "own": dict(target=65, scope=lambda lin: the.semantic_scope(lin, 7)),
    }
    for name, options in edits.items():
        found = record.add(f"edited {name}", partial(the.counterfactuals, model, "Wer ist, der da?", **options))
        record.add(f"edited {name} methods", partial(_edit_methods, found))


def _alignment_methods(a: Any) -> dict[str, Any]:
    links = {str(rule): a.links(rule) for rule in ("argmax", "intersection", 0.3)}
    word = a.row("is")
    grids = {"grid": a.to_grid(), "raw grid": a.to_grid(per_row=False)}
    scored = the.score_alignment(a, "0-0 1-1 2-2", "0-1")
    return {"links": links, "word": word, "top": word.top(2), "relative": a.relative(), **grids, "score": scored}


def _edit_methods(c: Any) -> dict[str, Any]:
    found = {"top": c.top(2), "top kl": c.top(2, "kl"), "table": c.to_dataframe()}
    if len({e.at for e in c.edits if e.kind == "removed"}) < 3:  # too few for a ranking
        return found
    return {**found, "agreement": c.agreement(), "kl": c.agreement(effect="kl", skip_last=True)}


def language_pairs(record: Record) -> None:
    """What needs no model: the pairs that come with the package, links, and scores to beat."""
    pairs = record.add("pairs", lambda: the.aligned_pairs())
    record.add("pairs of two", lambda: the.aligned_pairs("German", "French"))
    words = [(pair.source_words, pair.target_words) for pair in pairs]
    made = {"diagonal": the.diagonal_alignment, "chance": the.chance_alignment}
    for name, make in made.items():
        record.add(name, partial(lambda make: [make(*both) for both in words], make))
        record.add(
            f"{name} scores",
            partial(
                lambda make: [
                    the.score_alignment(make(*both), p.sure, p.possible) for both, p in zip(words, pairs, strict=True)
                ],
                make,
            ),
        )
    record.add("links", lambda: the.parse_links("0-0 1-2 3-1"))
    record.add("link score", lambda: the.link_score("0-0 1-1 2-0", [(0, 0), (1, 2)], "1-1"))
    record.add("link score of none", lambda: the.link_score((), "0-0"))
    own = the.WordAlignment.of_matrix(randn(3, 4, seed=11).abs(), ["s0", "s1", "s2", "s3"], ["who", "is", "it"])
    record.add("own", lambda: own)
    record.add("own methods", lambda: _alignment_methods(own))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.json"
        pair = dict(language="German", source="Wer ist da?", target="Who is there?", sure="0-0 1-1", possible="2-2")
        counted = dict(source_words=["Wer", "ist", "da"], target_words=["Who", "is", "there"])
        path.write_text(json.dumps({"format": "tl_jacobian.aligned_pairs", "version": 1, "pairs": [pair | counted]}))
        record.add("read", lambda: the.read_pairs(path))


# -- time series -----------------------------------------------------------------------


def systems(record: Record) -> None:
    """The generators, and statistics of series; no model."""
    calls: dict[str, Callable[[], Any]] = {
        "logistic_map": lambda: the.logistic_map(20),
        "logistic_map r": lambda: the.logistic_map(5, r=3.2, x0=0.1),
        "lorenz": lambda: the.lorenz(40),
        "lorenz sparse": lambda: the.lorenz(12, dt=0.2, start=(2.0, 1.0, 1.0), burn_in=3.0, rho=30.0),
        "lorenz_states": lambda: the.lorenz_states(10),
        "lorenz_with_drift": lambda: the.lorenz_with_drift(10, drift=3.0),
        "brownian_motion": lambda: the.brownian_motion(20, seed=0),
        "brownian_motion drift": lambda: the.brownian_motion(9, seed=1, mu=0.3, sigma=2.0, dt=0.1, x0=5.0),
        "geometric": lambda: the.geometric_brownian_motion(20, seed=2),
        "geometric drift": lambda: the.geometric_brownian_motion(9, seed=np.random.default_rng(3), mu=0.1, s0=2.0),
    }
    for name, make in calls.items():
        record.add(name, make)
    series, influence = the.lorenz(60), np.exp(np.sin(np.arange(60.0)) + np.arange(60) / 30)
    record.add("delay_vectors", lambda: the.delay_vectors(series, dimension=4, lag=2))
    record.add("pattern_match", lambda: the.pattern_match(series, influence))
    options = dict(dimension=2, lag=3, centre=True, shift=0, exclude=9, skip_first=3, trend=1)
    record.add("pattern_match options", lambda: the.pattern_match(series, influence, **options))
    record.add("forgetting_slope", lambda: the.forgetting_slope(influence))
    record.add("forgetting_slope plain", lambda: the.forgetting_slope(influence, skip_first=4, skip_last=3, log=False))
    record.add(
        "effective_count", lambda: [the.effective_count(influence), the.effective_count(influence, skip_first=9)]
    )
    a, b = np.sin(np.arange(12.0)) + 0.4, np.cos(np.arange(12.0) * 1.7)
    record.add("mean_effect", lambda: the.mean_effect(a))
    record.add("mean_effect greater", lambda: the.mean_effect(a, alternative="greater", confidence=0.8, seed=5))
    record.add("mean_effect of zeros", lambda: the.mean_effect([0.0, 0.0, 0.0]))
    record.add("compare_paired", lambda: the.compare_paired(a, b, seed=1))
    record.add("compare_groups", lambda: the.compare_groups(a, b[:7], confidence=0.9, seed=2))
    record.add("bootstrap_mean", lambda: the.bootstrap_mean(a, confidence=0.9, seed=3))
    record.add("group_difference", lambda: the.group_difference(a, b[:5], seed=4))
    record.add("paired_differences", lambda: the.paired_differences({"a": a, "b": b, "c": a + b}, seed=6))
    tokenizer = cases.tokenizer()
    for digits in (1, 2, 3):
        written = dict(digits=digits, prepend_bos=False)
        record.add(f"serialize {digits}", partial(the.serialize, series, tokenizer, separator=" ;", **written))


def forecasts(record: Record, model: Any) -> None:
    """A series as a prompt: what drove the forecast, and the forecast."""
    values = the.lorenz(17, dt=0.1)
    series = record.add("series", lambda: the.serialize(values[:-1], model))
    record.add("series in a range", lambda: the.serialize(values[:5], model, data_range=(-30.0, 30.0), separator=" "))
    record.add(
        "codec", lambda: (series.codec.encode([10, 55]), series.codec.decode(series.tokens[series.groups[0][0] :]))
    )
    record.add("units", lambda: (series.to_data(np.array([10, 99])), series.to_numbers(values)))
    lin = the.linearize(model, list(series.tokens))
    kinds: dict[str, Callable[[Any], Any]] = {
        "temperature": partial(the.temperature_scope, confidence="logit_norm"),
        "fisher": partial(the.fisher_scope, method="exact"),
        "estimate": partial(the.fisher_scope, method="estimate", n_products=20),
    }
    for name, scope in kinds.items():
        drivers = record.add(f"drivers {name}", partial(lambda scope: the.number_influence(scope(lin), series), scope))
        record.add(f"drivers {name} methods", partial(_driver_methods, drivers))
    record.add(
        "drivers of an earlier one",
        lambda: the.number_influence(
            the.semantic_scope(the.linearize(model, list(series.tokens), position=20)), series
        ),
    )
    forecast = record.add("forecast", lambda: the.predict_number(model, series, truth=float(values[-1])))
    record.add("forecast scores", lambda: _forecast_scores(forecast))
    short = the.serialize([1.0, 3.0, 2.0], model, digits=3)
    record.add("forecast of three digits", lambda: the.predict_number(model, short, beam=3, batch_size=4))


def _driver_methods(drivers: Any) -> dict[str, Any]:
    matched = the.pattern_match(drivers.values, drivers.influence)
    slope = the.forgetting_slope(drivers.influence), the.effective_count(drivers.influence)
    return {"top": drivers.top(3, skip_first=1), "table": drivers.to_dataframe(), "matched": matched, "slope": slope}


def _forecast_scores(forecast: Any) -> dict[str, Any]:
    quantiles = [forecast.quantile(q) for q in (0.0, 0.1, 0.5, 0.9, 1.0)]
    return {"log": forecast.log_score, "crps": forecast.crps, "quantiles": quantiles, "table": forecast.to_dataframe()}


# -- values, files, refusals -----------------------------------------------------------


def files(record: Record) -> None:
    """Values that are saved: what is written, and whether what is read back is equal."""
    model = cases.shared("gpt2", cases.STATES[0] if cases.HAS_HOOKED else "bridge")
    lin = the.linearize(model, PROMPT, record=True)
    values = {
        "attribution": the.semantic_scope(lin, TARGET),
        "estimate": the.fisher_scope(lin, method="estimate", n_products=20),
        "words": the.semantic_scope(lin, TARGET).words(),
        "map": the.attribution_map(model, PROMPT),
        "grid": the.layer_influence(lin, target=TARGET),
        "contributions": the.residual_contributions(lin, target=TARGET),
        "alignment": the.word_alignment(model, "Wer ist da", "who is it", template="{source} = {target}"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, value in values.items():
            path = Path(folder) / f"{name}.json"
            record.add(f"{name} written", partial(_saved, value, path))
            record.add(f"{name} equal", partial(lambda value, path: type(value).load(path) == value, value, path))
            record.add(f"{name} table", value.to_dataframe)
            record.add(f"{name} repr", partial(repr, value))
    others = {
        "linearity": the.linearity(lin, TARGET),
        "patching": the.compare_patching(model, "Rome", "Nome", "heads", target=7, minus=9),
        "edits": the.counterfactuals(model, "Wer ist, der da?", 65),
    }
    for name, value in others.items():
        record.add(f"{name} table", value.to_dataframe)
        record.add(f"{name} repr", partial(repr, value))
    whole = [the.semantic_scope(lin), the.temperature_scope(lin)]
    record.add("compared", lambda: (repr(the.compare(whole)), the.compare(whole).attributions))


def _saved(value: Any, path: Path) -> Any:
    value.save(path)
    return json.loads(path.read_text())


def refusals(record: Record, state: str) -> None:
    """What must be refused; the class of the error is what is recorded."""
    model = cases.shared("llama", state)
    lin, bare = the.linearize(model, PROMPT, record=True), the.linearize(model, PROMPT)
    batch, other = the.linearize(model, OTHERS), the.linearize(model, list(b"Rome"))
    mid = the.linearize(model, PROMPT, output_hook="blocks.1.hook_resid_post")
    semantic = the.semantic_scope(lin, TARGET)
    series = the.serialize([1.0, 3.0, 2.0], model)
    calls: dict[str, Callable[[], Any]] = {
        "no model": lambda: the.linearize("llama", PROMPT),
        "swapped": lambda: the.linearize(PROMPT, model),
        "empty": lambda: the.linearize(model, ""),
        "no ids": lambda: the.linearize(model, []),
        "id out of range": lambda: the.linearize(model, [1, cases.VOCAB]),
        "not ids": lambda: the.linearize(model, [1.5]),
        "a batch of one": lambda: the.semantic_scope(the.linearize(model, torch.tensor([PROMPT])), TARGET)[1],
        "too long": lambda: the.linearize(model, [65] * (cases.CONTEXT + 1)),
        "position out of range": lambda: the.linearize(model, PROMPT, position=N),
        "no position": lambda: the.linearize(model, PROMPT, position=[]),
        "positions of another number": lambda: the.linearize(model, OTHERS, position=[0, 1]),
        "budget": lambda: the.linearize(model, PROMPT, max_memory=1000),
        "budget unreadable": lambda: the.linearize(model, PROMPT, max_memory="much"),
        "norm on an unfolded model": lambda: the.linearize(model, PROMPT, final_norm=torch.ones(cases.WIDTH)),
        "norm of another width": lambda: the.linearize(model, PROMPT, final_norm=torch.ones(7)),
        "norm of another kind": lambda: the.linearize(model, PROMPT, final_norm="mine"),
        "hook that isn't": lambda: the.linearize(model, PROMPT, input_hook="blocks.9.hook_resid_pre"),
        "record that isn't": lambda: the.linearize(model, PROMPT, record="everything"),
        "output before input": lambda: the.linearize(
            model, PROMPT, input_hook="blocks.2.hook_resid_pre", output_hook="blocks.0.hook_resid_post"
        ),
        "input value of another shape": lambda: the.linearize(model, PROMPT, input_value=torch.ones(1, 2, 3)),
        "target of two tokens": lambda: the.semantic_scope(lin, "two"),
        "target out of range": lambda: the.semantic_scope(lin, cases.VOCAB),
        "target of another kind": lambda: the.semantic_scope(lin, 1.5),
        "contrast with itself": lambda: the.semantic_scope(lin, TARGET, minus=TARGET),
        "confidence": lambda: the.temperature_scope(lin, confidence="much"),
        "method": lambda: the.fisher_scope(lin, method="best"),
        "rank": lambda: the.fisher_scope(lin, method="low_rank", rank=0),
        "rank without low_rank": lambda: the.fisher_scope(lin, rank=2),
        "budget and accuracy": lambda: the.fisher_scope(lin, n_products=20, rtol=0.1),
        "too few products": lambda: the.fisher_scope(lin, method="estimate", n_products=3),
        "rtol": lambda: the.fisher_scope(lin, rtol=2.0),
        "generators": lambda: the.fisher_scope(batch, method="estimate", generator=[seeded()]),
        "generator of another kind": lambda: the.fisher_scope(lin, method="estimate", generator=3),
        "direction of another shape": lambda: the.direction_scope(lin, V[:5]),
        "direction not finite": lambda: the.direction_scope(lin, V / 0),
        "direction of integers": lambda: the.direction_scope(lin, torch.ones(cases.WIDTH, dtype=torch.int64)),
        "no direction": lambda: the.direction_scope(lin, torch.zeros_like(V)),
        "output no tensor": lambda: the.output_scope(lin, lambda y, z: 1.0),
        "output without gradient": lambda: the.output_scope(lin, lambda y, z: z.sum().detach()),
        "output no function": lambda: the.output_scope(lin, 3),
        "not unembedded": lambda: the.semantic_scope(mid),
        "logits that aren't": lambda: the.output_scope(mid, entropy),
        "no linearization": lambda: the.semantic_scope(model, TARGET),
        "vjp": lambda: lin.vjp(V[:3]),
        "jvp": lambda: lin.jvp(V),
        "jacobian": lambda: lin.jacobian([N]),
        "vjp_at not recorded": lambda: bare.vjp_at(V, ["blocks.1.hook_resid_post"]),
        "a batch where one is meant": lambda: the.jacobian_spectrum(batch, 0),
        "spectrum position": lambda: the.jacobian_spectrum(lin, N),
        "spectrum k": lambda: the.fisher_spectrum(lin, k=0),
        "spectrum moves": lambda: the.fisher_spectrum(lin, k=2).moves(2),
        "rollout without patterns": lambda: the.attention_rollout(bare),
        "random without generator": lambda: the.random_attribution(lin, generator=None),
        "leave_one_out": lambda: the.leave_one_out(lin, measure="l2"),
        "leave_one_out replacement": lambda: the.leave_one_out(lin, replacement="noise"),
        "smoothgrad": lambda: the.smoothgrad(lin, noise=0.0),
        "path": lambda: the.path_integrated_scope(lin, nodes="even"),
        "path baseline": lambda: the.path_integrated_scope(lin, baseline=torch.ones(2, 2)),
        "influence not recorded": lambda: the.layer_influence(bare),
        "influence kind": lambda: the.layer_influence(lin, kind="size"),
        "influence scope": lambda: the.layer_influence(lin, " Paris"),
        "influence option": lambda: the.layer_influence(lin, "temperature", target=TARGET),
        "influence signed of several": lambda: the.layer_influence(lin, "fisher", rank=2, kind="gradient_x_activation"),
        "contributions not recorded": lambda: the.residual_contributions(bare),
        "contributions of several": lambda: the.residual_contributions(lin, "fisher", rank=2),
        "path head": lambda: the.path_scope(lin, "blocks.1.attn.hook_z", heads=[9]),
        "path order": lambda: the.path_scope(lin, ["2.mlp_out", "0.mlp_out"]),
        "place": lambda: the.Place("0.mlp_out", positions=[]),
        "grid row": lambda: the.layer_influence(lin).pick("no such row"),
        "part": lambda: the.residual_contributions(lin)["9.attn"],
        "patching lengths": lambda: the.predict_patching(model, "Rome", "Paris"),
        "patching kind": lambda: the.predict_patching(model, "Rome", "Nome", "resid"),
        "patching metric and target": lambda: the.predict_patching(model, "Rome", "Nome", target=1, metric=difference),
        "patching the same token": lambda: the.predict_patching(model, "Rome", "Nome", target=1, minus=1),
        "curves of another prompt": lambda: the.perturbation_curves(other, [semantic]),
        "curves of another target": lambda: the.perturbation_curves(lin, [semantic], target=OTHER),
        "curves k": lambda: the.perturbation_curves(lin, [semantic], k=[20, 10]),
        "curves of nothing": lambda: the.perturbation_curves(lin, []),
        "agreement of other prompts": lambda: the.rank_agreement(semantic, the.semantic_scope(other)),
        "linearity": lambda: the.linearity(lin, way="up"),
        "trial method": lambda: the.Trial(methods=("best",)),
        "trial k": lambda: the.Trial(k=(0.1, 0.2)),
        "one prompt": lambda: the.evaluate(model, ["Rome is"], the.Trial(methods=("random",)), progress=False),
        "groups": lambda: semantic.grouped([1, 2]),
        "map scope": lambda: the.attribution_map(model, PROMPT, "semantics"),
        "map option": lambda: the.attribution_map(model, PROMPT, "temperature", rank=2),
        "map target": lambda: the.attribution_map(model, PROMPT, target=" Paris"),
        "map twice": lambda: the.attribution_map(model, PROMPT, positions=[1, 1]),
        "generation": lambda: the.attribute_generation(model, PROMPT, 0),
        "generation drawn": lambda: the.attribute_generation(model, PROMPT, 1, temperature=1.0),
        "corpus scope": lambda: the.ScopeJob(model, "direction"),
        "corpus option": lambda: the.ScopeJob(model, "temperature", rank=1),
        "corpus that isn't": lambda: the.read_corpus("no/such/file.txt"),
        "records that aren't": lambda: the.read_records("no/such/folder"),
        "evaluation that isn't": lambda: the.load_evaluation("no/such/folder"),
        "file that isn't": lambda: the.Attribution.load("no/such/file.json"),
        "file of another kind": lambda: _load("Attribution", '{"format": "tl_jacobian.grid", "version": 1}'),
        "file damaged": lambda: _load("AttributionMap", '{"format": "tl_jacobian.attribution_map", "version": 1}'),
        "file truncated": lambda: _load("Grid", '{"format": "tl_jac'),
        "file of a later version": lambda: _load(
            "Contributions", '{"format": "tl_jacobian.contributions", "version": 9}'
        ),
        "file of nothing": lambda: _load("WordAlignment", "[]"),
        "demo model": lambda: the.load_demo_model("none"),
        "template": lambda: the.word_alignment(model, "a", "b", template="{source}"),
        "sentence": lambda: the.word_alignment(model, "...", "b"),
        "edit of no word": lambda: the.counterfactuals(model, "Wer ist da", replace={"who": ["x"]}),
        "edit of nothing": lambda: the.counterfactuals(model, "..."),
        "links": lambda: the.parse_links("0:0"),
        "link outside": lambda: the.score_alignment(the.chance_alignment(["a"], ["b"]), "1-0"),
        "language": lambda: the.aligned_pairs("Elvish"),
        "series of equal values": lambda: the.serialize([1.0, 1.0], model),
        "series too long": lambda: the.serialize(list(range(40)), model),
        "series with NaN": lambda: the.serialize([1.0, math.nan], model),
        "series of other tokens": lambda: the.number_influence(semantic, series),
        "truth": lambda: the.predict_number(model, series).log_score,
        "seed": lambda: the.brownian_motion(4, seed=None),
        "logistic map": lambda: the.logistic_map(4, r=5.0),
        "few candidates": lambda: the.pattern_match([1.0, 2.0, 4.0], [1.0, 2.0, 3.0]),
        "few numbers": lambda: the.forgetting_slope([1.0, 2.0]),
        "too few values": lambda: the.bootstrap_mean([1.0]),
    }
    for name, make in calls.items():
        record.add(name, partial(_raised, make))


def _load(kind: str, text: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        path.write_text(text)
        return public(kind).load(path)


def _raised(make: Callable[[], Any]) -> str:
    try:
        make()
    except Exception as error:  # which one is the result
        return type(error).__name__
    return "nothing"


# -- the demo model --------------------------------------------------------------------


def demo(record: Record, kind: str) -> None:
    """The main calls on a real model, in float32."""
    model = the.load_demo_model(kind)
    text, budget = "The capital of France is", dict(max_memory="4GiB")  # what is free at the time must not matter
    lin = record.add("linearize", lambda: the.linearize(model, text, record=["components", "heads"], **budget))
    batch = record.add("batch", lambda: the.linearize(model, [text, "Two plus two is"], **budget))
    half = torch.linspace(-1, 2, 576)
    record.add("vjp", lambda: lin.vjp(half))
    calls: dict[str, Callable[[], Any]] = {
        "semantic": lambda: the.semantic_scope(lin, " Paris", minus=" London"),
        "temperature": lambda: the.temperature_scope(lin),
        "temperature of a batch": lambda: the.temperature_scope(batch),
        "fisher low rank": lambda: the.fisher_scope(lin, method="low_rank", rank=2),
        "fisher estimate": lambda: the.fisher_scope(lin),
        "fisher budget": lambda: the.fisher_scope(batch, n_products=30, generator=seeded(1)),
        "output": lambda: the.output_scope(lin, entropy),
        "input_x_gradient": lambda: the.input_x_gradient(lin, " Paris"),
        "leave_one_out": lambda: the.leave_one_out(lin, " Paris"),
        "smoothgrad": lambda: the.smoothgrad(lin, " Paris", samples=2),
    }
    for name, make in calls.items():
        attributed(record, name, make)
    record.add("jacobian_spectrum", lambda: _leading(the.jacobian_spectrum(lin, 3, k=2), "left", "right"))
    record.add("fisher_spectrum", lambda: _leading(the.fisher_spectrum(lin, k=3), "directions"))
    record.add("map", lambda: the.attribution_map(model, f"{text} Paris", **budget))
    record.add("generation", lambda: the.attribute_generation(model, text, 2, "temperature", **budget))
    record.add("layer_influence", lambda: the.layer_influence(lin, at="components", target=" Paris", kind="relative"))
    record.add("head_influence", lambda: the.head_influence(lin, target=" Paris", kind="gradient_x_activation"))
    record.add("contributions", lambda: the.residual_contributions(lin, target=" Paris"))
    record.add("path", lambda: the.path_scope(lin, "blocks.20.hook_attn_out", target=" Paris"))
    pair = text, "The capital of Italy is"
    record.add("patching", lambda: the.predict_patching(model, *pair, ["resid_pre", "heads"]))
    found = [the.semantic_scope(lin, " Paris"), the.fisher_scope(lin, method="low_rank")]
    record.add("curves", lambda: the.perturbation_curves(lin, found, k=[20, 40]))
    record.add("linearity", lambda: the.linearity(lin, " Paris", positions=[1, 3], epsilons=[0.1, 1.0]))
    german = "Das Buch ist rot.", "The book is red."
    record.add("alignment", lambda: the.word_alignment(model, *german, method="low_rank", **budget))
    record.add("edits", lambda: the.counterfactuals(model, text, " Paris", replace={"France": ["Italy"]}, **budget))
    series = record.add("series", lambda: the.serialize(the.lorenz(10), model))
    record.add("forecast", lambda: the.predict_number(model, series, truth=0.0))


def wide(record: Record) -> None:
    """In float64 what only wide models take: Fisher's estimate to an accuracy, and Lanczos' leading directions."""
    model = the.load_demo_model("hooked", dtype=torch.float64)
    lin = record.add("linearize", lambda: the.linearize(model, "The capital of France is", max_memory="6GiB"))
    attributed(record, "fisher", lambda: the.fisher_scope(lin, generator=seeded(2)))
    record.add("jacobian_spectrum", lambda: _leading(the.jacobian_spectrum(lin, 3, k=2), "left", "right"))
    record.add("fisher_spectrum", lambda: _leading(the.fisher_spectrum(lin, k=3), "directions"))


def _leading(spectrum: Any, *vectors: str) -> dict[str, Any]:
    """Of a spectrum in float32 what isn't rounding: no bounds."""
    names = ("values", *vectors, "effective_rank", "explained")
    return {**{name: getattr(spectrum, name) for name in names}, "moves": spectrum.moves(0, 3)}


# -- all of it -------------------------------------------------------------------------

SHARED = [c for c in (("gpt2", "hooked"), ("llama", "bridge"), ("gemma2", "bridge-compat")) if cases.exists(*c)]


def sections() -> dict[str, Callable[[Record], None]]:
    """Everything that is recorded, by name."""
    found: dict[str, Callable[[Record], None]] = {
        f"{a}/{s}": partial(one_model, architecture=a, state=s) for a, s in cases.cases()
    }
    found["original norm"] = original_norm
    for i, (a, s) in enumerate(SHARED):
        model = partial(cases.shared, a, s)
        found[f"corpora/{a}/{s}"] = partial(lambda record, model: corpora(record, model()), model=model)
        if s != "bridge-compat":  # which has no temperature to be evaluated
            found[f"evaluations/{a}/{s}"] = partial(
                lambda record, model, tables: evaluations(record, model(), tables=tables), model=model, tables=not i
            )
        found[f"language/{a}/{s}"] = partial(lambda record, model: language_models(record, model()), model=model)
        found[f"forecasts/{a}/{s}"] = partial(lambda record, model: forecasts(record, model()), model=model)
    found |= {"language": language_pairs, "systems": systems, "files": files}
    for state in ("hooked", "bridge"):
        if cases.exists("llama", state):
            found[f"refusals/{state}"] = partial(refusals, state=state)
            found[f"demo/{state}"] = partial(demo, kind=state)
    if cases.HAS_HOOKED:
        found["wide"] = wide
    return found


def collect(prefixes: Sequence[str]) -> Record:
    """Run the sections that are asked for."""
    here = Path.cwd().resolve()
    assert Path(tj.__file__).resolve().is_relative_to(here), f"this is {tj.__file__}, not the code in {here}"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of integrals that were stopped early, on purpose
    record = Record()
    for name, section in sections().items():
        if not prefixes or any(name.startswith(one) or one.startswith(f"{name}/") for one in prefixes):
            before = len(record.leaves)
            record.part(name, section)
            print(f"{name}: {len(record.leaves) - before} entries", file=sys.stderr, flush=True)
    return record


def chosen(leaves: Mapping[str, Leaf], prefixes: Sequence[str]) -> dict[str, Leaf]:
    return {key: leaf for key, leaf in leaves.items() if not prefixes or key.startswith(tuple(prefixes))}


def made_with() -> dict[str, str]:
    """What else decides the last digits."""
    packages = ("torch", "transformer-lens", "transformers", "numpy", "scipy")
    return {**{name: version(name) for name in packages}, "processor": torch.backends.cpu.get_cpu_capability()}


def write(path: Path, leaves: Mapping[str, Leaf]) -> None:
    """Numbers in one array, and a JSON index of names, shapes and texts."""
    arrays = {key: leaf for key, leaf in leaves.items() if not isinstance(leaf, str)}
    index = {
        "made_with": made_with(),
        "texts": {key: leaf for key, leaf in leaves.items() if isinstance(leaf, str)},
        "shapes": {key: array.shape for key, array in arrays.items()},
    }
    numbers = np.concatenate([array.astype(np.float64).ravel() for array in arrays.values()])
    np.savez_compressed(path, numbers=numbers, index=np.frombuffer(json.dumps(index).encode(), np.uint8))


def read(path: Path) -> tuple[dict[str, Leaf], dict[str, str]]:
    """What :func:`write` wrote, and what it was made with."""
    with np.load(path) as file:
        numbers, index = file["numbers"], json.loads(file["index"].tobytes())
    ends = np.cumsum([math.prod(shape) for shape in index["shapes"].values()])
    arrays = dict(zip(index["shapes"], np.split(numbers, ends[:-1]), strict=True))
    shaped = {key: array.reshape(index["shapes"][key]) for key, array in arrays.items()}
    return {**index["texts"], **shaped}, index["made_with"]


def change(key: str, old: Leaf, new: Leaf) -> tuple[str | None, float]:
    """What is wrong with an entry, if anything; and the largest difference, relative to its largest number."""
    if isinstance(old, str) or isinstance(new, str):
        same = isinstance(old, str) and isinstance(new, str) and old == new
        return None if same else f"was {_shown(old)} and is {_shown(new)}", 0.0
    if old.shape != new.shape:
        return f"was of shape {old.shape} and is of shape {new.shape}", math.inf
    new = new.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((old == new) | (np.isnan(old) & np.isnan(new)), 0.0, np.abs(old - new))
    gap = np.nan_to_num(gap, nan=math.inf)
    finite = np.abs(old[np.isfinite(old)])
    largest = float(finite.max()) if finite.size else 0.0
    worst = float(gap.max()) if gap.size else 0.0
    # float32 models are held to their entries' largest number, others number by number.
    size = np.full(old.shape, largest) if key.startswith("demo/") else np.abs(np.nan_to_num(old))
    allowed = 1e-5 * size if key.startswith("demo/") else 1e-10 * (1 + size)
    relative = worst / largest if largest else worst
    if (gap <= allowed).all():
        return None, relative
    return f"max abs difference {worst:.3g}, {relative:.2g} of the largest", relative


def _shown(leaf: Leaf) -> str:
    text = leaf if isinstance(leaf, str) else f"{leaf.size} numbers"
    return text if len(text) <= 100 else f"{text[:100]}…"


def compare(old: Mapping[str, Leaf], new: Mapping[str, Leaf]) -> bool:
    """Print what differs; whether nothing does."""
    both = [key for key in old if key in new]
    missing, added = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    found = {key: change(key, old[key], new[key]) for key in both}
    wrong = {key: text for key, (text, _) in found.items() if text is not None}
    close = {key: relative for key, (text, relative) in found.items() if text is None and relative > 0}
    for text, keys in _grouped(wrong, wrong.get):  # one text of the metadata is in a thousand results
        print(f"DIFFERS {keys[0]}: {text}{_more(keys)}")
    work = {_call(key) for key in new if _attribute(key) != "refused"}
    for _, keys in _grouped(missing, lambda key: _attribute(key) if _call(key) in work else _call(key)):
        print(f"MISSING {keys[0]}{_more(keys)}")
    for _, keys in _grouped(added, _attribute):
        print(f"new     {keys[0]}{_more(keys)}")
    texts = sum(isinstance(old[key], str) for key in wrong)
    print(
        f"{len(both)} entries compared: {len(wrong)} differ ({len(wrong) - texts} of numbers, {texts} of texts), "
        f"{len(close)} differ within the tolerance; {len(missing)} missing, {len(added)} new"
    )
    if close:
        worst = max(close, key=lambda key: close[key])
        print(f"the largest within the tolerance: {close[worst]:.2g} of the largest number, {worst}")
    return not wrong and not missing


def _call(key: str) -> str:
    """Of a name like "llama/bridge/scopes/semantic: metadata.score" the first part."""
    return key.rpartition(": ")[0] or key


def _attribute(key: str) -> str:
    """The last part."""
    return key.rpartition(": ")[2]


def _grouped(keys: Iterable[str], by: Callable[[str], Any]) -> list[tuple[Any, list[str]]]:
    found: dict[Any, list[str]] = {}
    for key in keys:
        found.setdefault(by(key), []).append(key)
    return list(found.items())


def _more(keys: Sequence[str]) -> str:
    return f" (and {len(keys) - 1} more like it)" if len(keys) > 1 else ""


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["sections"]:
            print("\n".join(sections()))
            return 0
        case ["write", path]:
            record, same = collect([]), True
            write(Path(path), record.leaves)
            print(f"{len(record.leaves)} entries in {path}")
        case ["compare", path, *prefixes]:
            leaves, versions = read(Path(path))
            for name, was in versions.items():
                if (now := made_with().get(name)) != was:
                    print(f"WARNING: {name} was {was} and is {now}: numbers may differ for that alone")
            record = collect(prefixes)
            same = compare(chosen(leaves, prefixes), chosen(record.leaves, prefixes))
        case _:
            print(__doc__)
            return 2
    if record.faults:
        print(f"{len(record.faults)} calls failed otherwise than by a refusal: {', '.join(record.faults)}")
    return 0 if same and record.leaves and not record.faults else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
