"""Jacobian Scopes for TransformerLens: which input tokens drove this prediction.

Method: "Jacobian Scopes: token-level causal attributions in LLMs", arXiv 2601.16407.
"""

import importlib

from tl_jacobian.analyses import baselines as baselines
from tl_jacobian.analyses import scopes as scopes
from tl_jacobian.analyses.baselines import (
    attention_rollout,
    input_x_gradient,
    leave_one_out,
    path_integrand,
    path_integrated_scope,
    random_attribution,
    smoothgrad,
)
from tl_jacobian.analyses.contributions import residual_contributions
from tl_jacobian.analyses.influence import head_influence, layer_influence
from tl_jacobian.analyses.maps import attribute_generation, attribution_map
from tl_jacobian.analyses.patching import compare_patching, predict_patching
from tl_jacobian.analyses.paths import PathSplit, Place, path_scope
from tl_jacobian.analyses.scopes import direction_scope, fisher_scope, output_scope, semantic_scope, temperature_scope
from tl_jacobian.analyses.spectra import fisher_spectrum, jacobian_spectrum
from tl_jacobian.core.host.demo import load_demo_model
from tl_jacobian.core.linearization import Linearization, LinearizationBatch
from tl_jacobian.core.linearize import linearize
from tl_jacobian.errors import (
    ArgumentError,
    AttributionFileError,
    ContractError,
    CorpusError,
    DegenerateScopeError,
    DemoModelError,
    DirectionError,
    HookPointError,
    JacobianScopeError,
    MemoryBudgetError,
    PromptError,
    TargetError,
    UnsupportedModelError,
)
from tl_jacobian.results.attribution import Attribution, Prediction, Ranked
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.base import draw_with
from tl_jacobian.results.comparison import compare
from tl_jacobian.results.contributions import Contributions, Part
from tl_jacobian.results.evaluation import Evaluation
from tl_jacobian.results.grid import Cell, Grid
from tl_jacobian.results.patching import PatchComparison
from tl_jacobian.results.spectra import FisherSpectrum, JacobianSpectrum
from tl_jacobian.results.tokens import Word
from tl_jacobian.studies import corpus, language, timeseries
from tl_jacobian.studies import evaluation as evaluation
from tl_jacobian.studies.evaluation import (
    Agreement,
    Linearity,
    PerturbationCurves,
    Settings,
    Trial,
    evaluate,
    linearity,
    load_evaluation,
    perturbation_curves,
    rank_agreement,
)

# Values say what there is to see; what draws it is loaded when something is first drawn.
draw_with(lambda: importlib.import_module("tl_jacobian.render"))

__all__ = [
    # a model, a prompt, its linearization
    "load_demo_model",
    "linearize",
    "Linearization",
    "LinearizationBatch",
    # scopes
    "semantic_scope",
    "temperature_scope",
    "fisher_scope",
    "direction_scope",
    "output_scope",
    # what scopes are compared with
    "input_x_gradient",
    "path_integrated_scope",
    "path_integrand",
    "smoothgrad",
    "leave_one_out",
    "attention_rollout",
    "random_attribution",
    # whether attributions are right
    "perturbation_curves",
    "PerturbationCurves",
    "rank_agreement",
    "Agreement",
    "linearity",
    "Linearity",
    # over a corpus: also corpus.attribute_corpus, corpus.run_corpus, …
    "corpus",
    "evaluate",
    "load_evaluation",
    "Trial",
    "Settings",
    "Evaluation",
    # maps of a whole text
    "attribution_map",
    "attribute_generation",
    # from the token to the layer, the component and the head
    "layer_influence",
    "head_influence",
    "residual_contributions",
    "path_scope",
    "PathSplit",
    "Place",
    # beside activation patching
    "predict_patching",
    "compare_patching",
    "PatchComparison",
    # words of translations aligned, words of prompts edited
    "language",
    # spectra of J and of Fisher
    "jacobian_spectrum",
    "fisher_spectrum",
    "JacobianSpectrum",
    "FisherSpectrum",
    # in-context time series: timeseries.lorenz, timeseries.serialize, …
    "timeseries",
    # results
    "Attribution",
    "AttributionMap",
    "Grid",
    "Contributions",
    "Prediction",
    "Ranked",
    "Cell",
    "Part",
    "Word",
    "compare",
    # errors
    "JacobianScopeError",
    "PromptError",
    "TargetError",
    "DirectionError",
    "HookPointError",
    "ArgumentError",
    "MemoryBudgetError",
    "UnsupportedModelError",
    "ContractError",
    "DegenerateScopeError",
    "AttributionFileError",
    "CorpusError",
    "DemoModelError",
]
