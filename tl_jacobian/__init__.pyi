"""The public names, and where each is at home; ``__init__.py`` reads this file."""

from . import errors
from .analyses import baselines
from .analyses.contributions import residual_contributions
from .analyses.features import feature_scope
from .analyses.influence import head_influence, layer_influence
from .analyses.interactions import token_interactions
from .analyses.maps import attribute_generation, attribution_map
from .analyses.patching import compare_patching, predict_patching
from .analyses.paths import path_scope
from .analyses.scopes import (
    direction_scope,
    fisher_scope,
    output_scope,
    semantic_scope,
    temperature_scope,
)
from .analyses.spectra import fisher_spectrum, jacobian_spectrum
from .app.explore import explore
from .core.host.conditions import pointwise
from .core.host.demo import load_demo_model
from .core.linearization import Linearization, LinearizationBatch
from .core.linearize import GENERATE, linearize
from .errors import JacobianScopeError
from .results.attribution import Attribution
from .results.attribution_map import AttributionMap
from .results.comparison import compare
from .results.contributions import Contributions
from .results.grid import Grid
from .studies import corpus, language, timeseries
from .studies.evaluation import (
    Trial,
    evaluate,
    linearity,
    perturbation_curves,
    rank_agreement,
)

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
    "feature_scope",
    # maps of a whole text
    "attribution_map",
    "attribute_generation",
    # pairs of tokens
    "token_interactions",
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
