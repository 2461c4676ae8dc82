"""In-context time series: from numbers to tokens, and from token influences back to numbers."""

from tl_jacobian.results.numbers import NumberDistribution, NumberInfluence, RankedNumber
from tl_jacobian.studies.timeseries.claims import (
    Estimate,
    ForgettingSlope,
    PatternMatch,
    compare_groups,
    compare_paired,
    delay_vectors,
    effective_count,
    forgetting_slope,
    mean_effect,
    pattern_match,
)
from tl_jacobian.studies.timeseries.forecast import number_influence, predict_number
from tl_jacobian.studies.timeseries.serialize import NumberCodec, SerializedSeries, serialize
from tl_jacobian.studies.timeseries.systems import (
    brownian_motion,
    geometric_brownian_motion,
    logistic_map,
    lorenz,
    lorenz_states,
    lorenz_with_drift,
)

__all__ = [
    # systems
    "logistic_map",
    "lorenz",
    "lorenz_states",
    "lorenz_with_drift",
    "brownian_motion",
    "geometric_brownian_motion",
    # numbers as tokens
    "serialize",
    "SerializedSeries",
    "NumberCodec",
    # what drove a forecast, and the forecast
    "number_influence",
    "NumberInfluence",
    "RankedNumber",
    "predict_number",
    "NumberDistribution",
    # claims, tested: one number a series
    "pattern_match",
    "PatternMatch",
    "delay_vectors",
    "forgetting_slope",
    "ForgettingSlope",
    "effective_count",
    # … and over series
    "mean_effect",
    "compare_paired",
    "compare_groups",
    "Estimate",
]
