"""Are the attributions right? Interventions, agreement with leave-one-out, and how far first order reaches."""

from tl_jacobian.evaluation.agreement import Agreement, rank_agreement
from tl_jacobian.evaluation.curves import PerturbationCurves, perturbation_curves
from tl_jacobian.evaluation.evaluate import EvaluationJob, evaluate, load_evaluation
from tl_jacobian.evaluation.judge import Trial, judge
from tl_jacobian.evaluation.linearity import Linearity, linearity
from tl_jacobian.evaluation.methods import METHODS, PAPER, Settings

__all__ = [
    "METHODS",
    "PAPER",
    "Agreement",
    "EvaluationJob",
    "Linearity",
    "PerturbationCurves",
    "Settings",
    "Trial",
    "evaluate",
    "judge",
    "linearity",
    "load_evaluation",
    "perturbation_curves",
    "rank_agreement",
]
