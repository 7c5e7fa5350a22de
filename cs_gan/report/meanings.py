"""What each score and each column of the log means: the name of its axis, and one plain sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Meaning(NamedTuple):
    """What a chart's vertical axis shows, and a sentence that says it and which direction is better."""

    axis: str
    sentence: str


SCORES = {
    "FID": Meaning(
        "distance", "How far generated images are from real ones, in features of a network. Lower is better."
    ),
    "FD": Meaning(
        "distance", "How far generated images are from real ones, in features of a network. Lower is better."
    ),
    "KID": Meaning(
        "distance", "Another distance between generated and real images, fair to few samples. Lower is better."
    ),
    "IS": Meaning("score", "How clear and how varied the generated images are to a classifier. Higher is better."),
    "precision": Meaning(
        "fraction", "The fraction of generated images that lie among the real ones. Higher is better."
    ),
    "recall": Meaning("fraction", "The fraction of real images that lie among the generated ones. Higher is better."),
    "density": Meaning("fraction", "How densely real images lie around the generated ones. Higher is better."),
    "coverage": Meaning("fraction", "The fraction of real images with a generated one nearby. Higher is better."),
    "critic_gap": Meaning(
        "critic score",
        "The critic's mean score of training images minus that of real images it never saw. Near 0 is better: "
        "a growing gap means that it memorises.",
    ),
    "accuracy": Meaning("accuracy", "The share of test images that are classified rightly. Higher is better."),
    "cross-entropy": Meaning(
        "nats", "How surprised the network is by the right classes of test images. Lower is better."
    ),
    "linear probe": Meaning(
        "accuracy", "The accuracy of a linear classifier on the features, with few labels. Higher is better."
    ),
    "kNN": Meaning("accuracy", "The accuracy of a vote of the nearest features with labels. Higher is better."),
}
"""By the part of a score's name before the comma, without ``(%)``."""

TOGETHER = (
    (("precision", "density"), "say whether generated images look real"),
    (("recall", "coverage"), "say whether all that real images show is generated"),
)
"""What fractions in one panel say, by those that say the same."""

LOG = {
    "critic_loss": Meaning(
        "loss", "What the critic minimises. It says little about the images; a jump or a drift does."
    ),
    "generator_loss": Meaning(
        "loss", "What the generator minimises. It moves with the critic, so its level says little."
    ),
    "wasserstein": Meaning(
        "critic score",
        "The critic's mean score of real images minus that of fakes. With the wasserstein loss a slow fall is good.",
    ),
    "gradient_penalty": Meaning("penalty", "How far the critic's slope is from 1. Near 0 is better."),
    "r1": Meaning("penalty", "The critic's squared slope at real images. A sudden growth is a bad sign."),
    "r2": Meaning("penalty", "The critic's squared slope at fakes. A sudden growth is a bad sign."),
    "consistency": Meaning(
        "penalty", "How much the critic's score of a real image changes when it is moved. Lower is better."
    ),
    "consistency_fake": Meaning(
        "penalty", "How much the critic's score of a fake changes when it is moved. Lower is better."
    ),
    "lecam": Meaning("penalty", "How far the critic's scores are from their averages of before. Lower is calmer."),
    "feature_norm": Meaning(
        "penalty",
        "The size of the critic's features of real images, without its weight. Steady is better than growing.",
    ),
    "logit_norm": Meaning("penalty", "The size of the logits, without its weight. Steady is better than growing."),
    "jacobian": Meaning("penalty", "How strongly the logits follow the pixels, without its weight. Lower is smoother."),
    "loss": Meaning("loss", "What the network minimises on training images. Lower is better, if the scores follow."),
    "learning_rate": Meaning(
        "learning rate", "The optimiser's step size, as the recipe schedules it. Neither way is better."
    ),
    "ratio": Meaning(
        "N/K", "Coded samples per sample of the batch, as the recipe schedules it. Neither way is better."
    ),
    "images_per_second": Meaning("images/s", "Training images per second. Higher is faster."),
}
"""By the column of the log."""

ENDINGS = {
    "coded": Meaning("penalty", "The error of decoding, without its weight. Lower is smoother."),
    "share": Meaning("share of gradient", "The penalty's part of the gradient. Below 0.001 it does nothing."),
    "weight": Meaning(
        "weight", "The penalty's weight, which follows the gradient to hold its share. Neither way is better."
    ),
}
"""By the last word of a column that is none of :data:`LOG`."""


def of_scores(names: Sequence[str], better: str = "") -> Meaning:
    """The meaning of the scores of one panel.

    Args:
        names: as evaluations have them.
        better: the direction recorded for a score that isn't known here; empty if none is.
    """
    kinds = [name.partition(", ")[0].removesuffix(" (%)") for name in names]
    if len(kinds) > 1:  # fractions of one panel
        parts = [(" and ".join(kind for kind in same if kind in kinds), says) for same, says in TOGETHER]
        said = ", ".join(f"{subject} {says}" for subject, says in parts if subject)
        return Meaning("fraction", f"{said[:1].upper()}{said[1:]}. Higher is better.")
    if kinds[0] in SCORES:
        axis, sentence = SCORES[kinds[0]]
        return Meaning(f"{axis} in %" if "(%)" in names[0] else axis, sentence)
    return Meaning("score", f"{better.capitalize()} is better." if better else "")


def of_column(column: str) -> Meaning:
    """The meaning of a column of the log; without a sentence if it isn't known."""
    found = LOG.get(column) or ENDINGS.get(column.rpartition("_")[2])
    return found or Meaning("value", "")
