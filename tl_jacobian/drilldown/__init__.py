"""From the token to the layer, the component and the head: one linearization looked at from inside."""

from tl_jacobian.drilldown.contributions import residual_contributions
from tl_jacobian.drilldown.influence import head_influence, layer_influence
from tl_jacobian.drilldown.paths import PathSplit, Place, path_scope

__all__ = ["PathSplit", "Place", "head_influence", "layer_influence", "path_scope", "residual_contributions"]
