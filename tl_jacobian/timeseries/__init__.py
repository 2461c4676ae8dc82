"""In-context time series: from numbers to tokens, and from token influences back to numbers."""

from tl_jacobian.number_distribution import NumberDistribution
from tl_jacobian.number_influence import NumberInfluence, RankedNumber
from tl_jacobian.timeseries.codec import NumberCodec
from tl_jacobian.timeseries.estimates import Estimate, compare_groups, compare_paired, mean_effect
from tl_jacobian.timeseries.forgetting import ForgettingSlope, effective_count, forgetting_slope
from tl_jacobian.timeseries.generators import brownian_motion, geometric_brownian_motion, logistic_map
from tl_jacobian.timeseries.influence import number_influence
from tl_jacobian.timeseries.lorenz import lorenz, lorenz_states, lorenz_with_drift
from tl_jacobian.timeseries.patterns import PatternMatch, delay_vectors, pattern_match
from tl_jacobian.timeseries.predictive import predict_number
from tl_jacobian.timeseries.serialize import SerializedSeries, serialize

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
