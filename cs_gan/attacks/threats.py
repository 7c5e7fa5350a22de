"""Threat models of Randomized Coded Inference by name: what the attacker knows, and what it may change."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cs_gan.attacks import autoattack
from cs_gan.attacks.attacked_batch import AttackedBatch, Trial
from cs_gan.attacks.scoring import fixed, fresh, plain
from cs_gan.core import RandomizedCodedInference
from cs_gan.errors import AttackError
from cs_gan.names import did_you_mean
from cs_gan.randomness import derive_seed, stream

SQUARE = "square"


@dataclass(frozen=True)
class ThreatModel:
    """A named attacker.

    ``kind`` is ``white-box`` (gradients through the defence under fresh permutations), ``black-box``
    (no gradients through the defended network), ``uninformed`` (gradients of a wrong defence),
    ``omniscient`` (knows the permutation that it is scored on) or ``batch`` (who shares the batch).
    """

    name: str
    kind: str
    knows: str
    attack: Callable[[AttackedBatch], list[Trial]]
    eot: int | None = 1  # None: that of the budget


def _oblivious(attacked: AttackedBatch) -> list[Trial]:
    adversarial = attacked.budget.run(plain(attacked.defence), attacked.images, attacked.labels, attacked.generator())
    return [attacked.whole(adversarial)]


def _through_seed(attacked: AttackedBatch, seed: int) -> Tensor:
    return attacked.budget.run(fixed(attacked.defence, seed), attacked.images, attacked.labels, attacked.generator())


def _wrong_permutation(attacked: AttackedBatch) -> list[Trial]:
    """Its permutation is not among the scoring permutations, unless the batch is too small for another one."""
    bank = attacked.defence.reference if isinstance(attacked.defence, RandomizedCodedInference) else None
    size = max(len(attacked.images), 1 if bank is None else 1 + len(bank))
    scoring_permutations = {first_permutation(seed, size) for seed in attacked.seeds()}
    candidates = [derive_seed(*attacked.key, "wrong", attempt) for attempt in range(64)]
    others = [seed for seed in candidates if first_permutation(seed, size) not in scoring_permutations]
    return [attacked.whole(_through_seed(attacked, (others or candidates)[0]))]


def first_permutation(seed: int, size: int) -> tuple[int, ...]:
    """The first permutation of ``size`` samples that a defence with this ``seed`` uses."""
    return tuple(torch.randperm(size, generator=torch.Generator().manual_seed(seed), device="cpu").tolist())


def _true_permutation(attacked: AttackedBatch) -> list[Trial]:
    seed = attacked.seeds()[0]
    return [attacked.whole(_through_seed(attacked, seed), [seed])]


def _jointly(attacked: AttackedBatch, eot: int) -> list[Trial]:
    forward = fresh(attacked.defence, attacked.generator("permutations"))
    return [attacked.whole(attacked.budget.run(forward, attacked.images, attacked.labels, attacked.generator(), eot))]


def _square(attacked: AttackedBatch) -> list[Trial]:
    budget, forward = attacked.budget, fresh(attacked.defence, attacked.generator("permutations"))
    adversarial = autoattack.square(
        forward, attacked.images, attacked.labels, eps=budget.eps, norm=budget.norm, queries=budget.queries,
        restarts=budget.restarts, low=budget.low, high=budget.high, generator=attacked.generator(),
    )  # fmt: skip
    return [attacked.whole(adversarial)]


def _transfer(attacked: AttackedBatch) -> list[Trial]:
    if attacked.surrogate is None:
        raise AttackError("transfer needs another network to attack: give surrogate=network.")
    return [
        attacked.whole(attacked.budget.run(attacked.surrogate, attacked.images, attacked.labels, attacked.generator()))
    ]


def _neighbours_fixed(attacked: AttackedBatch) -> list[Trial]:
    """The attacker knows the clean neighbours, and is scored with the same ones."""
    return [_beside(attacked, target, lambda _, __: attacked.images) for target in attacked.targets]


def _neighbours_fresh(attacked: AttackedBatch) -> list[Trial]:
    """New clean neighbours are drawn from the pool for every gradient and every scoring draw."""
    size = len(attacked.images)
    if size > 1 and len(attacked.pool) <= size:
        raise AttackError(
            f"{len(attacked.pool)} images are not more than one batch of {size}. Fresh neighbours need more images, or "
            "a smaller group_size."
        )

    def company(target: int, generator: torch.Generator) -> Tensor:
        others = torch.randperm(len(attacked.pool) - 1, generator=generator, device="cpu")[:size]
        others += others >= attacked.first + target  # step over the target itself
        return attacked.pool[others.to(attacked.pool.device)]

    return [_beside(attacked, target, company) for target in attacked.targets]


def _beside(attacked: AttackedBatch, target: int, company: Callable[[int, torch.Generator], Tensor]) -> Trial:
    """Perturb one sample in its own batch; ``company(target, generator)`` fills the other places."""
    generator = attacked.generator("permutations", target)
    defended, neighbour_draws = fresh(attacked.defence, generator), attacked.generator("neighbours", target)

    def batch(image: Tensor, neighbours: Tensor) -> Tensor:  # (1, *F), (K, *F) -> (K, *F)
        return torch.cat([neighbours[:target], image, neighbours[target + 1 :]])

    def forward(image: Tensor) -> Tensor:  # (1, *F) -> (1, classes)
        return defended(batch(image, company(target, neighbour_draws)))[target : target + 1]

    place = slice(target, target + 1)
    image = attacked.budget.run(
        forward, attacked.images[place], attacked.labels[place], attacked.generator(target), attacked.budget.eot
    )
    return attacked.single(
        lambda draw: batch(image, company(target, stream(*attacked.key, "score neighbours", target, draw))), target
    )


def _hostile(attacked: AttackedBatch) -> list[Trial]:
    """The neighbours are perturbed, each within eps, to misclassify a target that stays clean."""
    return [_against(attacked, target) for target in attacked.targets]


def _against(attacked: AttackedBatch, target: int) -> Trial:
    if len(attacked.images) == 1:  # it has no neighbours
        return attacked.single(lambda _: attacked.images, target)
    defended = fresh(attacked.defence, attacked.generator("permutations", target))
    clean = attacked.images[target : target + 1]

    def batch(others: Tensor) -> Tensor:  # (K - 1, *F) -> (K, *F)
        return torch.cat([others[:target], clean, others[target:]])

    def forward(others: Tensor) -> Tensor:  # (K - 1, *F) -> (K - 1, classes)
        # Each neighbour gets the target's logits here and its label below. So all have the same loss, and a restart
        # is kept or dropped as a whole.
        return defended(batch(others))[target : target + 1].expand(len(others), -1)

    keep = torch.arange(len(attacked.images), device=attacked.images.device) != target
    others = attacked.budget.run(
        forward, attacked.images[keep], attacked.labels[target].repeat(int(keep.sum())), attacked.generator(target),
        attacked.budget.eot,
    )  # fmt: skip
    return attacked.single(lambda _: batch(others), target)


def _eot(n: int) -> ThreatModel:
    knows = f"the defence but no permutation: gradients averaged over {n} fresh one{'s' if n > 1 else ''}"
    return ThreatModel(f"eot-{n}", "white-box", knows, lambda attacked: _jointly(attacked, n), n)


THREATS: dict[str, ThreatModel] = {
    threat.name: threat
    for threat in (
        ThreatModel("oblivious", "uninformed", "the plain network, not that it is defended", _oblivious),
        ThreatModel(
            "wrong_permutation", "uninformed", "the defence, with one fixed permutation, not one of the test's",
            _wrong_permutation,
        ),
        ThreatModel(
            "true_permutation", "omniscient", "the very permutation that it is scored on", _true_permutation
        ),
        *(_eot(n) for n in (1, 5, 20, 50)),
        ThreatModel(SQUARE, "black-box", "logits under fresh permutations, no gradient", _square),
        ThreatModel("transfer", "black-box", "another network", _transfer),
        ThreatModel(
            "neighbours clean and fixed", "batch", "the clean samples that share the target's batch, then and now",
            _neighbours_fixed, None,
        ),
        ThreatModel(
            "neighbours clean and fresh", "batch", "only where the target's clean neighbours are drawn from",
            _neighbours_fresh, None,
        ),
        ThreatModel(
            "jointly perturbed", "batch", "the whole batch, all of it perturbed together",
            lambda attacked: _jointly(attacked, attacked.budget.eot), None,
        ),
        ThreatModel(
            "hostile beside a clean target", "batch", "the target, and perturbs its neighbours only", _hostile, None
        ),
    )
}  # fmt: skip


def find_threat(name: str) -> ThreatModel:
    """The threat model of that name; ``eot-n`` for any n. Spaces, hyphens and underscores are equivalent.

    Raises:
        AttackError: for an unknown name.
    """
    plain_name = _plainly(name)
    for known_name, threat in THREATS.items():
        if _plainly(known_name) == plain_name:
            return threat
    if count := re.fullmatch(r"eot ([1-9]\d*)", plain_name):
        return _eot(int(count[1]))
    names = {_plainly(known_name): known_name for known_name in THREATS}
    hint = did_you_mean(plain_name, names, most=1, show=names.__getitem__)
    available = f"There are {', '.join(THREATS)}, and eot-n with another n."
    raise AttackError(f"threat {name!r} is unknown. {hint}{' ' if hint else ''}{available}")


def _plainly(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower())
