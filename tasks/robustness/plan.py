"""The rows of a robustness evaluation: every threat at every eps, rows for the gates, and undefended networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cs_gan.attacks import Budget, ThreatModel, eps_from_pixels, find_threat
from cs_gan.attacks.threats import SQUARE

DEFENDED, UNDEFENDED, PLAIN = "RCI", "without RCI", "plain network"  # the compared networks
THREAT, BASELINE, GATE = "threat", "baseline", "gate"  # the purpose of a row
SIZES = "batch sizes"  # not a threat: the small rows of exercise_batch_sizes


@dataclass(frozen=True)
class Planned:
    """A row to compute. ``label`` is its eps as the user wrote it; ``other`` the digest of another network it needs."""

    network: str
    role: str
    threat: ThreatModel
    budget: Budget
    label: str
    pixels: float
    sizes: bool = False
    other: str = ""

    @property
    def identity(self) -> str:
        """A unique name among the rows with the same provenance."""
        name = SIZES if self.sizes else self.threat.name
        return "|".join((self.network, name, self.budget.attack, repr(self.budget.eps), self.other))

    def passes(self, images: int, group: int, targets: int, draws: int) -> float:
        """The approximate number of forward passes, to estimate the remaining time. With a gradient each counts 3."""
        groups = math.ceil(images / group)
        if self.sizes:
            return 3 * self.budget.steps * 6
        alone = self.threat.kind == "batch" and self.threat.name != "jointly perturbed"
        units = min(targets, images) if alone else groups
        scoring = units * (draws if self.network == DEFENDED else 1)
        if not self.budget.eps:
            return scoring
        if self.threat.name == SQUARE:
            return scoring + units * self.budget.queries * self.budget.restarts
        eot = self.budget.eot if self.threat.eot is None else self.threat.eot
        steps = 1 if self.budget.attack == "fgsm" else self.budget.steps * self.budget.restarts
        return scoring + 3.0 * units * eot * steps


def plan(
    threats: Sequence[ThreatModel],
    epsilons: Mapping[str, float],
    budget: Budget,
    *,
    features: int,
    images: int,
    group: int,
    surrogate: str = "",
    plain: str = "",
) -> list[Planned]:
    """All rows: first undefended networks, then the threats in the given order, then rows that only the gates need.

    Args:
        threats: against the defended network.
        epsilons: radii for pixels in [0, 1], by the user's notation.
        budget: of all attacks, except eps.
        features: number of values in an image, for an l2 eps that no input survives.
        images, group: number of images attacked, and coded together.
        surrogate, plain: digests of the other networks, or "" if there are none.
    """
    adaptive = sorted((each for each in threats if each.name.startswith("eot-")), key=lambda each: each.eot or 0)

    def at(eps: tuple[str, float], network: str, role: str, threat: ThreatModel, **more: object) -> Planned:
        other = surrogate if threat.name == "transfer" else plain if network == PLAIN else ""
        attack = str(more.pop("attack", budget.attack))
        spent = replace(budget, eps=eps_from_pixels(eps[1], budget.low, budget.high), attack=attack)
        return Planned(network, role, threat, spent, *eps, other=other, sizes=bool(more))

    given, one = list(epsilons.items()), find_threat("eot-1")  # for a network without random draws, eot-1 is PGD
    undefended = [PLAIN, UNDEFENDED] if plain else [UNDEFENDED]
    rows = [at(eps, network, BASELINE, one) for network in undefended for eps in given]
    rows += [at(eps, DEFENDED, THREAT, threat) for threat in threats for eps in given]
    if adaptive:
        rows += [at(eps, DEFENDED, GATE, adaptive[0], attack="fgsm") for eps in given if eps[1]]
        large = largest_eps(budget.norm, features)
        if max(epsilons.values()) < large[1]:
            affordable = [threat for threat in adaptive if (threat.eot or 0) <= 20] or adaptive[:1]
            rows.append(at(large, DEFENDED, GATE, affordable[-1]))
    if min(group, images - 1) >= 3:  # exercise_batch_sizes needs this
        rows.append(at(given[-1], DEFENDED, GATE, one, sizes=True))
    return rows


def largest_eps(norm: str, features: int) -> tuple[str, float]:
    """An eps for pixels in [0, 1] at which every image can be made uniformly grey, so no classifier survives it."""
    return ("1/2", 0.5) if norm == "linf" else (f"sqrt({features})/2", math.sqrt(features) / 2)
