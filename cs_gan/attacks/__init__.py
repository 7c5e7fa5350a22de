"""Attacks on whole batches, threat models of Randomized Coded Inference, and sanity checks for a robustness claim."""

from cs_gan.attacks.attacked_batch import AttackedBatch, Trial
from cs_gan.attacks.autoattack import apgd, rand, square
from cs_gan.attacks.budget import Budget
from cs_gan.attacks.defence import DefenceReport, evaluate_defence
from cs_gan.attacks.evaluation import ResultRow, evaluate_threat, exercise_batch_sizes
from cs_gan.attacks.gradient import fgsm, pgd
from cs_gan.attacks.norms import Ball, eps_from_pixels
from cs_gan.attacks.sanity_checks import SanityCheck, Verdict, run_sanity_checks, verdict
from cs_gan.attacks.scoring import Interval, Score, fixed, fresh, plain, score_predictions, wilson
from cs_gan.attacks.threats import THREATS, ThreatModel, find_threat

__all__ = [
    "THREATS",
    "AttackedBatch",
    "Ball",
    "Budget",
    "DefenceReport",
    "Interval",
    "ResultRow",
    "SanityCheck",
    "Score",
    "ThreatModel",
    "Trial",
    "Verdict",
    "apgd",
    "eps_from_pixels",
    "evaluate_defence",
    "evaluate_threat",
    "exercise_batch_sizes",
    "fgsm",
    "find_threat",
    "fixed",
    "fresh",
    "pgd",
    "plain",
    "rand",
    "run_sanity_checks",
    "score_predictions",
    "square",
    "verdict",
    "wilson",
]
