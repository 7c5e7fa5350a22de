"""Threat models of Randomized Coded Inference by name: what the attacker knows, and what it may change."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cs_gan.attacks import autoattack
from cs_gan.attacks.scene import Scene, Trial
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
    attack: Callable[[Scene], list[Trial]]
    eot: int | None = 1  # None: that of the budget


def _oblivious(scene: Scene) -> list[Trial]:
    adversarial = scene.budget.run(plain(scene.defence), scene.images, scene.labels, scene.generator())
    return [scene.whole(adversarial)]


def _through_seed(scene: Scene, seed: int) -> Tensor:
    return scene.budget.run(fixed(scene.defence, seed), scene.images, scene.labels, scene.generator())


def _wrong_permutation(scene: Scene) -> list[Trial]:
    """Its permutation is not among the scoring permutations, unless the batch is too small for another one."""
    bank = scene.defence.reference if isinstance(scene.defence, RandomizedCodedInference) else None
    size = max(len(scene.images), 1 if bank is None else 1 + len(bank))
    taken = {first_permutation(seed, size) for seed in scene.seeds()}
    candidates = [derive_seed(*scene.key, "wrong", attempt) for attempt in range(64)]
    seed = next((each for each in candidates if first_permutation(each, size) not in taken), candidates[0])
    return [scene.whole(_through_seed(scene, seed))]


def first_permutation(seed: int, size: int) -> tuple[int, ...]:
    """The first permutation of ``size`` samples that a defence with this ``seed`` uses."""
    return tuple(torch.randperm(size, generator=torch.Generator().manual_seed(seed), device="cpu").tolist())


def _true_permutation(scene: Scene) -> list[Trial]:
    seed = scene.seeds()[0]
    return [scene.whole(_through_seed(scene, seed), [seed])]


def _jointly(scene: Scene, eot: int) -> list[Trial]:
    forward = fresh(scene.defence, scene.generator("permutations"))
    return [scene.whole(scene.budget.run(forward, scene.images, scene.labels, scene.generator(), eot))]


def _square(scene: Scene) -> list[Trial]:
    budget, forward = scene.budget, fresh(scene.defence, scene.generator("permutations"))
    adversarial = autoattack.square(
        forward, scene.images, scene.labels, eps=budget.eps, norm=budget.norm, queries=budget.queries,
        restarts=budget.restarts, low=budget.low, high=budget.high, generator=scene.generator(),
    )  # fmt: skip
    return [scene.whole(adversarial)]


def _transfer(scene: Scene) -> list[Trial]:
    if scene.surrogate is None:
        raise AttackError("transfer needs another network to attack: give surrogate=network.")
    return [scene.whole(scene.budget.run(scene.surrogate, scene.images, scene.labels, scene.generator()))]


def _neighbours_fixed(scene: Scene) -> list[Trial]:
    """The attacker knows the clean neighbours, and is scored with the same ones."""
    return [_beside(scene, target, lambda _, __: scene.images) for target in scene.targets]


def _neighbours_fresh(scene: Scene) -> list[Trial]:
    """New clean neighbours are drawn from the pool for every gradient and every scoring draw."""
    size = len(scene.images)
    if size > 1 and len(scene.pool) <= size:
        raise AttackError(
            f"{len(scene.pool)} images are not more than one batch of {size}. Fresh neighbours need more images, or a "
            "smaller group_size."
        )

    def company(target: int, generator: torch.Generator) -> Tensor:
        others = torch.randperm(len(scene.pool) - 1, generator=generator, device="cpu")[:size]
        others += others >= scene.first + target  # step over the target itself
        return scene.pool[others.to(scene.pool.device)]

    return [_beside(scene, target, company) for target in scene.targets]


def _beside(scene: Scene, target: int, company: Callable[[int, torch.Generator], Tensor]) -> Trial:
    """Perturb one sample in its own batch; ``company(target, generator)`` fills the other places."""
    generator = scene.generator("permutations", target)
    defended, drawn = fresh(scene.defence, generator), scene.generator("neighbours", target)

    def batch(image: Tensor, neighbours: Tensor) -> Tensor:  # (1, *F), (K, *F) -> (K, *F)
        return torch.cat([neighbours[:target], image, neighbours[target + 1 :]])

    def forward(image: Tensor) -> Tensor:  # (1, *F) -> (1, classes)
        return defended(batch(image, company(target, drawn)))[target : target + 1]

    here = slice(target, target + 1)
    image = scene.budget.run(forward, scene.images[here], scene.labels[here], scene.generator(target), scene.budget.eot)
    return scene.single(
        lambda draw: batch(image, company(target, stream(*scene.key, "score neighbours", target, draw))), target
    )


def _hostile(scene: Scene) -> list[Trial]:
    """The neighbours are perturbed, each within eps, to misclassify a target that stays clean."""
    return [_against(scene, target) for target in scene.targets]


def _against(scene: Scene, target: int) -> Trial:
    if len(scene.images) == 1:  # it has no neighbours
        return scene.single(lambda _: scene.images, target)
    defended = fresh(scene.defence, scene.generator("permutations", target))
    clean = scene.images[target : target + 1]

    def batch(others: Tensor) -> Tensor:  # (K - 1, *F) -> (K, *F)
        return torch.cat([others[:target], clean, others[target:]])

    def forward(others: Tensor) -> Tensor:  # (K - 1, *F) -> (K - 1, classes)
        # Each neighbour gets the target's logits here and its label below. So all have the same loss, and a restart
        # is kept or dropped as a whole.
        return defended(batch(others))[target : target + 1].expand(len(others), -1)

    keep = torch.arange(len(scene.images), device=scene.images.device) != target
    others = scene.budget.run(
        forward, scene.images[keep], scene.labels[target].repeat(int(keep.sum())), scene.generator(target),
        scene.budget.eot,
    )  # fmt: skip
    return scene.single(lambda _: batch(others), target)


def _eot(n: int) -> ThreatModel:
    knows = f"the defence but no permutation: gradients averaged over {n} fresh one{'s' if n > 1 else ''}"
    return ThreatModel(f"eot-{n}", "white-box", knows, lambda scene: _jointly(scene, n), n)


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
            lambda scene: _jointly(scene, scene.budget.eot), None,
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
    wanted = _plainly(name)
    for known, threat in THREATS.items():
        if _plainly(known) == wanted:
            return threat
    if count := re.fullmatch(r"eot ([1-9]\d*)", wanted):
        return _eot(int(count[1]))
    names = {_plainly(known): known for known in THREATS}
    hint = did_you_mean(wanted, names, most=1, show=names.__getitem__)
    known = f"There are {', '.join(THREATS)}, and eot-n with another n."
    raise AttackError(f"threat {name!r} is unknown. {hint}{' ' if hint else ''}{known}")


def _plainly(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower())
