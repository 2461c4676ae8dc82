"""What Jacobian Scopes are compared with: the field's other attributions, with the same result type."""

from tl_jacobian.analyses.baselines.leave_one_out import leave_one_out
from tl_jacobian.analyses.baselines.path_integrated import path_integrand, path_integrated_scope
from tl_jacobian.analyses.baselines.simple import attention_rollout, input_x_gradient, random_attribution, smoothgrad
from tl_jacobian.analyses.baselines.trivial import embedding_norm, recency, token_frequency

__all__ = [
    "attention_rollout",
    "embedding_norm",
    "input_x_gradient",
    "leave_one_out",
    "path_integrand",
    "path_integrated_scope",
    "random_attribution",
    "recency",
    "smoothgrad",
    "token_frequency",
]
