"""What scores are called in titles: scopes by their names, and baselines, which aren't scopes, by theirs."""

from __future__ import annotations

_SCOPES = ("semantic", "temperature", "fisher", "direction", "output")
_OTHERS = {
    "leave_one_out": "Leave-one-out",
    "input_x_gradient": "Input x gradient",
    "path_integrated": "Integrated gradients",
    "smoothgrad": "SmoothGrad",
    "attention_rollout": "Attention rollout",
    "random": "Random scores",
}


def scope_title(scope: str) -> str:
    """``"Semantic Scope"``, ``"Leave-one-out"``; anything else as it is called, what stands after a comma too.

    >>> scope_title("fisher, relative"), scope_title("attention_rollout"), scope_title("my_scores")
    ('Fisher Scope, relative', 'Attention rollout', 'My scores')
    """
    name, comma, rest = scope.partition(",")
    if name in _SCOPES:
        return f"{name.capitalize()} Scope{comma}{rest}"
    return _OTHERS.get(name, name[:1].upper() + name[1:].replace("_", " ")) + comma + rest
