"""Are the attributions right? Interventions, agreement with leave-one-out, and how far first order reaches."""

from tl_jacobian.studies.evaluation.agreement import Agreement, rank_agreement
from tl_jacobian.studies.evaluation.curves import PerturbationCurves, perturbation_curves
from tl_jacobian.studies.evaluation.evaluate import EvaluationJob, evaluate, load_evaluation
from tl_jacobian.studies.evaluation.judge import METHODS, PAPER, Settings, Trial, judge
from tl_jacobian.studies.evaluation.linearity import Linearity, linearity

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
