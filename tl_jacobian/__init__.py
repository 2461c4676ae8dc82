"""Jacobian Scopes for TransformerLens: which input tokens drove this prediction.

Method: "Jacobian Scopes: token-level causal attributions in LLMs", arXiv 2601.16407.

The names below are the public ones; types of what functions take and give besides are in the modules that make them.
"""

import importlib

from tl_jacobian import errors
from tl_jacobian.analyses import baselines
from tl_jacobian.analyses.contributions import residual_contributions
from tl_jacobian.analyses.influence import head_influence, layer_influence
from tl_jacobian.analyses.maps import attribute_generation, attribution_map
from tl_jacobian.analyses.patching import compare_patching, predict_patching
from tl_jacobian.analyses.paths import path_scope
from tl_jacobian.analyses.scopes import direction_scope, fisher_scope, output_scope, semantic_scope, temperature_scope
from tl_jacobian.analyses.spectra import fisher_spectrum, jacobian_spectrum
from tl_jacobian.app.explore import explore
from tl_jacobian.core.host.conditions import pointwise
from tl_jacobian.core.host.demo import load_demo_model
from tl_jacobian.core.linearization import Linearization, LinearizationBatch
from tl_jacobian.core.linearize import GENERATE, linearize
from tl_jacobian.errors import JacobianScopeError
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.base import draw_with
from tl_jacobian.results.comparison import compare
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.grid import Grid
from tl_jacobian.studies import corpus, language, timeseries
from tl_jacobian.studies.evaluation import Trial, evaluate, linearity, perturbation_curves, rank_agreement

# Values say what there is to see; what draws it is loaded when something is first drawn.
draw_with(lambda: importlib.import_module("tl_jacobian.render"))

__all__ = [
    # a model, a prompt, its linearization
    "load_demo_model",
    "linearize",
    "Linearization",
    "LinearizationBatch",
    "GENERATE",
    "pointwise",
    # scopes
    "semantic_scope",
    "temperature_scope",
    "fisher_scope",
    "direction_scope",
    "output_scope",
    # maps of a whole text
    "attribution_map",
    "attribute_generation",
    # from the token to the layer, the component and the head
    "layer_influence",
    "head_influence",
    "residual_contributions",
    "path_scope",
    # beside activation patching
    "predict_patching",
    "compare_patching",
    # spectra of J and of Fisher
    "jacobian_spectrum",
    "fisher_spectrum",
    # results
    "Attribution",
    "AttributionMap",
    "Grid",
    "Contributions",
    "compare",
    # whether attributions are right
    "evaluate",
    "Trial",
    "perturbation_curves",
    "rank_agreement",
    "linearity",
    # the live view
    "explore",
    # rooms of their own: what scopes are compared with, runs over a corpus, time series, words; what can go wrong
    "baselines",
    "corpus",
    "timeseries",
    "language",
    "errors",
    "JacobianScopeError",
]
