"""In-context time series: from numbers to tokens, and from token influences back to numbers."""

from tl_jacobian.number_distribution import NumberDistribution
from tl_jacobian.number_influence import NumberInfluence
from tl_jacobian.timeseries.codec import NumberCodec
from tl_jacobian.timeseries.generators import brownian_motion, geometric_brownian_motion, logistic_map
from tl_jacobian.timeseries.influence import number_influence
from tl_jacobian.timeseries.lorenz import lorenz, lorenz_states, lorenz_with_drift
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
    "predict_number",
    "NumberDistribution",
]
