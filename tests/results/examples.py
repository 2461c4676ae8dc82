"""Examples of every value: NaN, what is nearly empty, odd text, infinities where they may be, and plain ones."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tl_jacobian.results.alignment import AlignedWord, WordAlignment
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.base import Value
from tl_jacobian.results.claims import Estimate, ForgettingSlope, PatternMatch
from tl_jacobian.results.comparison import Comparison
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.counterfactuals import Counterfactuals, Edit
from tl_jacobian.results.curves import PerturbationCurves
from tl_jacobian.results.edges import Edge, EdgeAttribution
from tl_jacobian.results.evaluation import Evaluation
from tl_jacobian.results.features import Features
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.interactions import TokenInteractions
from tl_jacobian.results.intervention import Intervention
from tl_jacobian.results.linearity import Linearity
from tl_jacobian.results.numbers import NumberDistribution, NumberInfluence
from tl_jacobian.results.patching import PatchComparison
from tl_jacobian.results.paths import PathSplit
from tl_jacobian.results.run_report import RunReport
from tl_jacobian.results.spectra import FisherSpectrum, JacobianSpectrum, Move, Moves, Neighbour, Toward
from tl_jacobian.results.tokens import Region, Word

NAN, INF = math.nan, math.inf
ODD = ("</script>", "שלום 🦜", "a\n\nb\u2028", "\ud800\x00", "")
DETAILS = {
    "model": "m",
    "dtype": "float32",
    "score": "nats",
    "value": 0.1,
    "nested": {"a": [1, 2.0, None, True, {"$float": "inf"}], "$map": {}},
    "nan": NAN,
    "inf": -INF,
    "big": 2**70,
    ODD[3]: ODD[2],
}


def attribution(scores: Any = (3.0, 4.0, 0.1), **fields: Any) -> Attribution:
    n = len(scores)
    defaults: dict[str, Any] = dict(
        scope="fisher",
        tokens=tuple(range(5, 5 + n)),
        str_tokens=ODD[:n],
        position=max(n - 1, 0),
        target="distribution",
        word_groups=tuple(Word(text, 1) for text in ODD[:n]),
        metadata=DETAILS,
    )
    return Attribution(scores=torch.tensor(scores, dtype=torch.float32), **{**defaults, **fields})


def grid(values: Any = ((9.0, -1.0, NAN), (1 / 3, -0.0, 3.5e-40)), **fields: Any) -> Grid:
    defaults: dict[str, Any] = dict(
        rows=("0.attn", ODD[0]),
        columns=ODD[1:4],
        title=ODD[0],
        quantity="logits",
        row_axis="layer",
        column_axis="token",
        signed=True,
        metadata=DETAILS,
    )
    return Grid(values=torch.tensor(values), **{**defaults, **fields})


def interactions(**fields: Any) -> TokenInteractions:
    defaults: dict[str, Any] = dict(
        values=torch.tensor([[9.0, -1.0, 0.0], [-1.0, 1 / 3, 3.5e-40], [0.0, 3.5e-40, 0.0]]),
        scope="fisher",
        target=ODD[1],
        tokens=(5, 6, 7),
        str_tokens=ODD[:3],
        position=2,
        word_groups=tuple(Word(text, 1) for text in ODD[:3]),
        metadata=DETAILS,
    )
    return TokenInteractions(**{**defaults, **fields})


def alignment(**fields: Any) -> WordAlignment:
    defaults: dict[str, Any] = dict(
        influence=torch.tensor([[1.0, 4.0, 2.0, 9.0, 0.0, 0.0], [1.0, 1.0, 8.0, 0.0, 6.0, 0.0]]),
        units=("X:", " rot", ODD[3], " =", " red", ODD[2]),
        sources=(1, 2),
        targets=(4, 5),
        source_words=("rot", ODD[3]),
        target_words=("red", ODD[2]),
        scope="fisher",
        combine="sum",
        metadata=DETAILS,
    )
    return WordAlignment(**{**defaults, **fields})


def attribution_map() -> AttributionMap:
    return AttributionMap(
        attributions=(
            attribution((2.0,), predictions=(Prediction(1, ODD[1], 0.5),)),
            attribution((0.1, 1 / 3), stderr=torch.tensor([0.0, 0.1])),
            attribution((3.5e-40, 1.0, -2.0), predictions=(Prediction(1, ODD[0], 0.5),)),
        ),
        next_texts=(ODD[1], ODD[2], None),
        target_words=(Word(ODD[1], 2), Word("", 1)),
        metadata=DETAILS,
    )


def evaluation() -> Evaluation:
    def record(i: int) -> dict[str, Any]:
        one = {"removed": [-2.0 - i, -3.0], "kept": [-2.0, -1.5], "kendall_kl": 0.1 * i if i else None}
        return {
            "prompt": i,
            "log_prob": -1.0,
            "methods": {"semantic": one, "random": {**one, "completeness_gap": 0.25, "removed": [-1.5, -2.0 * i]}},
        }

    records = (*(record(i) for i in range(4)), {"id": ODD[0], "error": ODD[3]})
    return Evaluation(name=ODD[0], records=records, metadata={**DETAILS, "k": [10.0, 20.0]})


def counterfactuals() -> Counterfactuals:
    return Counterfactuals(
        prompt=ODD[2],
        words=ODD[:4],
        scores=(3.0, -1.0, 2.0, 0.0),
        scope=ODD[0],
        quantity="log-probability",
        value=-0.5,
        prediction=Prediction(0, ODD[3], 0.5),
        edits=tuple(
            Edit(
                i, word, 3.0 - i, "replaced" if i else "removed", ODD[0], -1.0, -0.5 * i, INF, Prediction(i, word, 0.5)
            )
            for i, word in enumerate(ODD[:4])
        ),
        metadata=DETAILS,
    )


def moved(k: int) -> dict[str, tuple[Moves, ...]]:
    found = Moves((Move(1, ODD[1], 0.5, 2.0), Move(2, ODD[3], 0.25, 1.0)), (Move(3, ODD[0], 0.25, -1.0),))
    return {"probability": (found,) * k, "log_probability": (found,) * k}


def split() -> PathSplit:
    full = attribution()
    return PathSplit(full=full, through=attribution((1.0, 2.0, 3.0)), around=full, share=attribution((1.0, -2.0, 0.0)))


def examples() -> dict[str, Value]:
    """Every value, some of them twice or more."""
    return {
        "attribution": attribution(stderr=torch.tensor([0.0, 1e-3, 1.0]), combine="sum"),
        "attribution of words": attribution().grouped_by([(2, 0), (1,)], ["ends", ODD[3]]),
        "attribution of a conversation": attribution(regions={"roles": (Region("user", (0, 2)), Region(ODD[3], (1,)))}),
        "attribution of segments": attribution(stderr=torch.ones(3), combine="sum").segments({ODD[2]: {1}}, mean=True),
        "attribution of nothing": attribution(()),
        "attribution with predictions": attribution(predictions=(Prediction(1, "é", 0.25), Prediction(2, ODD[3], 0.0))),
        "attribution that isn't finite": attribution((NAN, INF, -INF)),
        "map": attribution_map(),
        "map of words": attribution_map().words(),
        "map of a conversation": dataclasses.replace(attribution_map(), regions={"roles": (Region(ODD[3], (0, 2)),)}),
        "map of segments": attribution_map().segments({ODD[0]: {0, 2}}),
        "comparison of segments": Comparison(attributions=(attribution().segments({ODD[3]: {1, 2}}),) * 2),
        "comparison": Comparison(attributions=(attribution(), attribution((1.0, -2.0, 3.0), scope="semantic"))),
        "comparison of one": Comparison(attributions=(attribution(),)),
        "grid": grid(),
        "grid of one gap": grid(((NAN,),), rows=("",), columns=("",), column_axis="head", metadata={}),
        "grid of words": grid(column_axis="word", units=((0, 2), (1,), (3,)), tokens=(1, 2, 3, 4)),
        "contributions": Contributions(
            names=("embed", "0.attn", "0.mlp", ODD[3]),
            values=torch.tensor([1 / 3, -2.5, 5e-324, 0.1], dtype=torch.float64),
            total=-2.1,
            target=ODD[0],
            heads=grid(column_axis="head"),
            sources=grid(row_axis="head"),
            rtol=0.1,
            metadata=DETAILS,
        ),
        "contributions of one": Contributions(names=("all",), values=torch.zeros(1), total=0.0, target="t"),
        "alignment": alignment(),
        "alignment with positions": alignment(positions=((1,), (0,), (2, 4), (3,), (5,), (6,))),
        "alignment of a matrix": WordAlignment.of_matrix(torch.zeros(1, 2), [ODD[3], "b"], ["c"]),
        "aligned word": AlignedWord(alignment=alignment(), index=1),
        "counterfactuals": counterfactuals(),
        "evaluation": evaluation(),
        "linearity": Linearity(
            epsilons=(0.01, 0.1, 1.0),
            positions=(0, 2),
            str_tokens=ODD[2:4],
            predicted=torch.tensor([[0.3, 0.4], [0.0, 0.0], [1.0, 2.0]]),
            actual=torch.tensor([[0.3, 0.4], [0.1, 0.0], [NAN, 1.0]]),
            metadata={**DETAILS, "target": ODD[0], "way": "steepest"},
        ),
        "number distribution": NumberDistribution(
            numbers=np.array([10, 11, 13]),
            probabilities=np.array([0.1, 0.3, 0.2]),
            offset=1.0,
            scale=2.0,
            exact=False,
            truth=23.5,
            metadata=DETAILS,
        ),
        "number influence": NumberInfluence(
            values=np.array([0.5, NAN, -1.0]),
            influence=np.array([100.0, 0.1, 1 / 3]),
            stderr=np.array([0.0, 0.1, 5e-324]),
            positions=((0, 1), (3,), (5,)),
            scope="temperature",
            target=ODD[0],
            metadata=DETAILS,
        ),
        "number influence of one": NumberInfluence(values=np.ones(1), influence=np.ones(1), scope="s", target="t"),
        "features": Features(
            effects=grid(row_axis="feature"),
            activations=grid(((1.0, 0.0, NAN), (0.5, 2.0, 0.0)), row_axis="feature", signed=False),
            features=(7, 2**40),
            remainder=grid(((1.0, 2.0, 3.0),), rows=("reconstruction error",), row_axis="part"),
            parts=Contributions(
                names=("feature 7", ODD[3]), values=torch.tensor([1.5, -0.5]), total=1.0, target=ODD[0]
            ),
        ),
        "edges": EdgeAttribution(
            effects=grid(
                ((0.5, -1.0, NAN), (NAN, 2.0, 3.0)),
                rows=("L0H1", "L0MLP"),
                columns=("L0MLP", "L1H0", "logits"),
                row_axis="sender",
                column_axis="receiver",
            ),
            checked=(Edge("L0MLP", "logits", 3.0, 2.5), Edge("L0H1", "L1H0", -1.0, NAN)),
            clean=1.0,
            corrupted=0.0,
            metadata=DETAILS,
        ),
        "features of a distribution": Features(effects=grid(), activations=grid(), features=(0, 1)),
        "patching": PatchComparison(
            predicted=grid(((0.0, 1.0, 2.0), (0.0, -4.0, 5.0))),
            measured=grid(((0.0, 2.0, NAN), (0.0, 4.0, 10.0))),
            clean=3.0,
            corrupted=-1.0,
            first=1,
        ),
        "path split": split(),
        "interactions": interactions(stderr=torch.full((3, 3), 0.1)),
        "interactions, normalised": interactions(metadata={**DETAILS, "rule": "gim"}).correlation(),
        "interactions of segments": interactions().segments({ODD[3]: {0, 2}}),
        "interactions of one": interactions(
            values=torch.ones(1, 1), tokens=(1,), str_tokens=("a",), position=0, word_groups=(Word("a", 1),)
        ),
        "jacobian spectrum": JacobianSpectrum(
            position=2,
            text=ODD[3],
            singular_values=torch.tensor([3.0, 0.1], dtype=torch.float64),
            left=torch.eye(2, 3),
            right=torch.full((2, 4), 1 / 3),
            bound=torch.tensor([0.0, 1e-9]),
            squared_norm=10.0,
            squared_norm_stderr=0.1,
            effective_rank=1.5,
            effective_rank_stderr=0.01,
            moved=moved(2),
            metadata=DETAILS,
        ),
        "fisher spectrum": FisherSpectrum(
            eigenvalues=torch.zeros(1, dtype=torch.float64),
            directions=torch.ones(1, 3, dtype=torch.float64) / 3,
            bound=torch.zeros(1),
            trace=0.0,
            effective_rank=0.0,
            effective_rank_stderr=0.0,
            moved=moved(1),
        ),
        "pulled-back spectrum": FisherSpectrum(
            eigenvalues=torch.tensor([2.0, 0.5]),
            directions=torch.eye(2, 3),
            bound=torch.tensor([0.0, 1e-9]),
            trace=3.0,
            trace_stderr=0.1,
            effective_rank=1.5,
            effective_rank_stderr=0.1,
            moved=moved(2),
            positions=(1, 2),
            texts=ODD[2:4],
            embeddings=torch.ones(2, 2, 4) / 8**0.5,
            toward=((Toward((Neighbour(1, ODD[3], 0.5, 1.0),), ()),) * 2, ()),
            metadata={**DETAILS, "rule": "gim"},
        ),
        "curves": PerturbationCurves(
            k=(10.0, 20.0),
            n=(1, 2),
            clean=-0.1,
            removed=torch.tensor([-1.1, -INF]),
            kept=torch.tensor([-3.0, NAN]),
            scope="semantic",
            metadata={**DETAILS, "target": ODD[0], "perturbation": "zero"},
        ),
        "curves of one side": PerturbationCurves(
            k=(5.0,), n=(1,), clean=0.0, removed=torch.zeros(1), scope="attention_rollout"
        ),
        "pattern match": PatternMatch(
            estimate=0.5, p_value=0.01, lift=NAN, positions=np.arange(3), distances=np.array([0.1, INF, 1 / 3])
        ),
        "forgetting slope": ForgettingSlope(estimate=0.1, total=-INF, n=7, log=True),
        "estimate": Estimate(estimate=0.1, low=0.0, high=1.0, p_value=0.5, n=6, confidence=0.95, test=ODD[0]),
        "intervention": Intervention(
            what=ODD[0],
            quantity="logit of 'a'",
            unit="logits",
            before=2.0,
            after=0.5,
            promised=-1.25,
            divergence=0.25,
            predictions_before=(Prediction(3, ODD[1], 0.75), Prediction(4, "b", 0.25)),
            predictions_after=(Prediction(3, ODD[1], 0.5), Prediction(4, "b", 0.5)),
            metadata=DETAILS,
        ),
        "intervention without a promise": Intervention(
            what="edited", quantity="q", unit="nats", before=-1.0, after=-1.0, promised=None, divergence=0.0
        ),
        "run report": RunReport(out=Path("/tmp/out ü"), n_prompts=3, n_resumed=0, n_errors=1, seconds=0.25),
    }
