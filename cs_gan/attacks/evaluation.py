"""Run a threat model over a test set, score it on fresh permutations, and report one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from cs_gan.attacks.attacked_batch import AttackedBatch
from cs_gan.attacks.autoattack import RAND_EOT
from cs_gan.attacks.budget import Budget
from cs_gan.attacks.scoring import Interval, groups, plain, predict, score_predictions
from cs_gan.attacks.state import PassCounter, clock, undisturbed
from cs_gan.attacks.threats import SQUARE, ThreatModel, find_threat
from cs_gan.core import RandomizedCodedInference
from cs_gan.errors import AttackError
from cs_gan.predictions import NO_CLASS
from cs_gan.randomness import stream


@dataclass(frozen=True)
class ResultRow:
    """One threat at one budget, with the accuracies of the defence under attack.

    ``n`` is the number of samples counted (the targets, for threats against one sample at a time). ``batch_sizes`` are
    the sizes of the groups coded together, in order of appearance. ``seconds`` and ``forward_passes`` (calls of the
    attacked networks) cover only the attack, not the scoring. ``without_class`` is the number of predictions from
    logits of NaN or +inf, over all draws. They count as wrong, and a sanity check fails.
    """

    threat: str
    kind: str
    eps: float
    norm: str
    attack: str
    loss: str
    steps: int
    restarts: int
    eot: int
    mean: Interval
    worst: Interval
    majority: Interval
    n: int
    draws: int
    group_size: int
    batch_sizes: tuple[int, ...]
    seconds: float
    forward_passes: int
    without_class: int = 0

    def as_dict(self) -> dict[str, object]:
        """Flat, for CSV and JSON: intervals as mean, mean_low, mean_high and so on."""
        flat: dict[str, object] = {}
        for name, value in asdict(self).items():
            if name in ("mean", "worst", "majority"):
                interval = Interval(*value)
                flat |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
            else:
                flat[name] = value
        return flat

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> ResultRow:
        """The row from the result of :meth:`as_dict`; other keys are ignored."""
        values = {field.name: flat[field.name] for field in fields(cls) if field.name in flat}
        for name in ("mean", "worst", "majority"):
            values[name] = Interval(flat[name], flat[f"{name}_low"], flat[f"{name}_high"])
        return cls(**values | {"batch_sizes": tuple(flat["batch_sizes"])})


def evaluate_threat(
    threat: str | ThreatModel,
    defence: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    group_size: int = 64,
    draws: int = 10,
    targets: int = 64,
    surrogate: nn.Module | None = None,
    seed: int = 0,
) -> ResultRow:
    """One row: attack every group of the images, then score on ``draws`` fresh permutations.

    Scoring permutations depend only on ``seed`` and are the same for every threat and budget, so rows can be compared
    sample by sample. The attacker draws from other streams. Afterwards the defence's generator, training modes,
    gradients of parameters and global random state are unchanged.

    Args:
        threat: a name of :data:`THREATS` (``eot-n`` for any n), or your own threat model.
        defence: a RandomizedCodedInference, or a plain network, which then runs without permutations.
        images: (M, *F) clean. labels: (M,).
        group_size: samples coded together, K; the last group may be shorter.
        draws: number of permutations to score on; ``true_permutation`` is scored on its own permutation.
        targets: how many samples threats against one sample at a time attack, evenly spread.
        surrogate: the network that ``transfer`` attacks.

    Raises:
        AttackError: for an unusable budget, labels or logits.
        BatchError: for a group of one without a reference bank, or a bank of another shape.
    """
    threat = find_threat(threat) if isinstance(threat, str) else threat
    if draws < 1 or targets < 1:
        raise AttackError(f"draws={draws}, targets={targets}: give at least one of each.")
    slices, labels = list(groups(defence, images, labels, group_size)), labels.long()
    target_indices = torch.linspace(0, len(images) - 1, min(targets, len(images))).round().long().tolist()
    networks = [plain(defence), *([surrogate] if surrogate is not None else [])]
    predicted, truth, seconds, passes = [], [], 0.0, 0
    with undisturbed(images.device, stream(seed, "attacked"), defence, *networks), torch.inference_mode(False):
        predict(defence, lambda _: images[slices[0]], [0], labels)  # so that wrong labels fail at once
        for index, part in enumerate(slices):
            positions = [i - part.start for i in target_indices if part.start <= i < part.stop]
            attacked = AttackedBatch(
                defence, images[part], labels[part], images, part.start, positions, budget,
                (seed, "group", index), draws, surrogate,
            )  # fmt: skip
            with PassCounter(*networks) as counter:
                start = clock(images.device)
                trials = threat.attack(attacked)
                seconds += clock(images.device) - start
            passes += counter.calls
            for trial in trials:
                predictions = predict(defence, trial.batch, trial.seeds, trial.labels)
                predicted.append(predictions[:, trial.counted])
                truth.append(trial.labels[trial.counted])
    classes = torch.cat(predicted, 1)
    score = score_predictions(classes, torch.cat(truth))
    attack, loss, steps, restarts, eot = _used(threat, budget)
    return ResultRow(
        threat=threat.name, kind=threat.kind, eps=budget.eps, norm=budget.norm, attack=attack, loss=loss, steps=steps,
        restarts=restarts, eot=eot, mean=score.mean, worst=score.worst, majority=score.majority, n=score.n,
        draws=score.draws, group_size=group_size, seconds=seconds, forward_passes=passes,
        without_class=int((classes == NO_CLASS).sum()),
        batch_sizes=tuple(dict.fromkeys(part.stop - part.start for part in slices)),
    )  # fmt: skip


def exercise_batch_sizes(
    defence: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    group_size: int = 64,
    draws: int = 2,
    seed: int = 0,
) -> list[ResultRow]:
    """Small ``eot-1`` rows in groups of 1, 2 and K with a short last group, for the sanity check on batch sizes.

    Groups of one are left out if the defence has no reference bank, because they would raise an error.
    """
    K = min(group_size, len(images) - 1)
    if K < 3:
        raise AttackError(f"{len(images)} images, group_size={group_size}: sizes 1, 2, K and a short one need K >= 3.")
    last = min(max(2, K // 2), len(images) - K)
    one_is_possible = not isinstance(defence, RandomizedCodedInference) or defence.reference is not None
    if last == 1 and not one_is_possible:
        raise AttackError(
            f"{len(images)} images in groups of {K} leave a group of one: give more images or a reference bank."
        )
    plan = [(1, 2)] if one_is_possible else []
    return [
        evaluate_threat(
            "eot-1", defence, images[:count], labels[:count], budget, group_size=size, draws=draws, seed=seed
        )
        for size, count in [*plan, (2, 4), (K, K + last)]
    ]


def _used(threat: ThreatModel, budget: Budget) -> tuple[str, str, int, int, int]:
    """The attack, loss, steps, restarts and draws per gradient that the threat really uses of the budget."""
    if threat.name == SQUARE:
        return SQUARE, "margin", budget.queries, budget.restarts, 1
    eot = budget.eot if threat.eot is None else threat.eot
    match budget.attack:
        case "fgsm":
            return "fgsm", budget.loss, 1, 1, eot
        case "pgd":
            return "pgd", budget.loss, budget.steps, budget.restarts, eot
        case "rand":
            return "rand", "cross-entropy, dlr", budget.steps, 1, RAND_EOT
    loss = "dlr" if budget.attack == "apgd-dlr" else "cross-entropy"
    return budget.attack, loss, budget.steps, budget.restarts, eot
