"""The Jacobian Scopes: each only chooses a direction v at the output; one VJP does the rest.

    influence_t = || v^T J_t ||_2                                  (paper, eq. 1 and 2)

Every scope takes a :class:`~tl_jacobian.core.linearization.Linearization` and gives an
:class:`~tl_jacobian.results.attribution.Attribution`, or takes a batch and gives a list of them
from one backward pass.
"""

from tl_jacobian.analyses.scopes.fisher import fisher_scope
from tl_jacobian.analyses.scopes.simple import direction_scope, output_scope, semantic_scope, temperature_scope

__all__ = ["direction_scope", "fisher_scope", "output_scope", "semantic_scope", "temperature_scope"]
