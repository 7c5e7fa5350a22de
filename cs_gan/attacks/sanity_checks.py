"""The sanity checks of a robustness evaluation (Athalye 2018, Carlini 2019, Tramer 2020), run automatically.

These signs show that a defence only hides its gradients: one step harms more than many, an attack without gradients
harms more than one with them, or accuracy remains at a huge eps. If a check fails or can't be decided, robustness is
not claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise
from typing import NamedTuple

from cs_gan.attacks.evaluation import ResultRow

# Accuracy below this counts as 0 %: a table with whole percents prints 0.
ZERO = 0.005


class SanityCheck(NamedTuple):
    """The name of a check, whether it passed, the numbers that decided, and whether there were any."""

    name: str
    passed: bool
    evidence: str
    judged: bool = True


@dataclass(frozen=True)
class Verdict:
    """``claim`` is whether robustness may be claimed; ``sentence`` says so, or why not."""

    claim: bool
    sentence: str


def run_sanity_checks(rows: Sequence[ResultRow]) -> list[SanityCheck]:
    """Run every check on the mean accuracy of the rows. A check that the rows can't decide counts as failed.

    "At least as strong" means: accuracy no higher than the upper end of the other row's 95 % interval.
    Only rows of the same norm, eps, group size and n are compared. Rows at eps = 0 serve as the clean accuracy.
    """
    return [
        _iterative_beats_single_step(rows),
        _white_box_beats_black_box(rows),
        _informed_beats_uninformed(rows),
        _large_eps_gives_zero(rows),
        _monotone_in_eps(rows),
        _eot_reaches_a_plateau(rows),
        _batch_sizes_run(rows),
        _every_prediction_is_a_class(rows),
    ]


def verdict(checks: Iterable[SanityCheck]) -> Verdict:
    """Whether robustness may be claimed. If not, the sentence contains the evidence of every failed check."""
    checks = list(checks)
    failed = [check for check in checks if not check.passed]
    if not checks:
        return Verdict(False, "no robustness claim: no sanity check was run.")
    if failed:
        evidence = " ".join(f"{check.name}: {check.evidence}" for check in failed)
        return Verdict(False, f"no robustness claim: {len(failed)} of {len(checks)} sanity checks failed. {evidence}")
    return Verdict(True, f"all {len(checks)} sanity checks passed: each accuracy under attack is an upper bound.")


def _iterative_beats_single_step(rows: Sequence[ResultRow]) -> SanityCheck:
    pairs = []
    for comparable in _by(_attacked(rows), lambda row: (*_setting(row), row.threat)):
        iterative = [row for row in comparable if row.attack not in ("fgsm", "square")]
        pairs += [(_best(iterative), row) for row in comparable if row.attack == "fgsm" and iterative]
    needs = "needs rows of fgsm and of pgd (or apgd) for the same threat, norm, eps, group size and n."
    return _compared("iterative beats single-step", pairs, needs)


def _white_box_beats_black_box(rows: Sequence[ResultRow]) -> SanityCheck:
    pairs = _best_against(rows, "white-box", lambda row: row.kind == "black-box")
    return _compared(
        "white-box beats black-box", pairs, "needs rows of eot-n and of square or transfer at the same eps."
    )


def _informed_beats_uninformed(rows: Sequence[ResultRow]) -> SanityCheck:
    """An adaptive attacker knows more than an oblivious one and less than one that knows the permutation."""
    pairs = _best_against(rows, "white-box", lambda row: row.kind == "uninformed")
    pairs += _best_against(rows, "omniscient", lambda row: row.kind == "white-box" and row.attack != "fgsm")
    needs = "needs rows of eot-n and of oblivious or wrong_permutation at the same eps."
    return _compared("informed beats uninformed", pairs, needs)


def _large_eps_gives_zero(rows: Sequence[ResultRow]) -> SanityCheck:
    name, best = "large eps gives 0 %", []
    for comparable in _by(_attacked(rows), lambda row: (row.norm,)):
        adaptive = [row for row in comparable if row.kind == "white-box" and row.attack != "fgsm"]
        if adaptive:
            largest = max((row.eps, row.n) for row in adaptive)
            best.append(_best(row for row in adaptive if (row.eps, row.n) == largest))
    if not best:
        return _not_judged(
            name, "needs rows of eot-n with pgd (or apgd), the last at an eps where no prediction can stay correct."
        )
    worst = max(best, key=lambda row: row.mean.value)
    passed = worst.mean.value < ZERO
    advice = (
        "." if passed else "; raise eps until nothing survives. If accuracy remains at any eps, gradients are masked."
    )
    return SanityCheck(name, passed, f"at {worst.norm} eps = {worst.eps:g}, {_says(worst)}{advice}")


def _monotone_in_eps(rows: Sequence[ResultRow]) -> SanityCheck:
    """Without fgsm: its one step overshoots at a large eps, also on undefended networks."""
    pairs = []
    for series in _by([row for row in rows if row.attack != "fgsm"], _recipe):
        ordered = sorted(series, key=lambda row: row.eps)
        pairs += [(more, less) for less, more in combinations(ordered, 2) if less.eps < more.eps]
    needs = "needs rows of the same threat and attack at two or more eps."
    return _compared("accuracy falls monotonically with eps", pairs, needs)


def _eot_reaches_a_plateau(rows: Sequence[ResultRow]) -> SanityCheck:
    """More draws per gradient must not weaken an attack, and the last doubling must stay within the interval."""
    name, pairs, rising = "more EOT doesn't weaken, up to a plateau", [], []
    adaptive = [row for row in _attacked(rows) if row.threat.startswith("eot-") and row.attack in ("fgsm", "pgd")]
    for series in _by(adaptive, lambda row: (*_setting(row), row.attack, row.loss, row.steps, row.restarts)):
        ordered = sorted({row.eot: row for row in series}.values(), key=lambda row: row.eot)
        pairs += [(more, less) for less, more in pairwise(ordered)]
        if len(ordered) > 1 and ordered[-1].mean.value < ordered[-2].mean.low:
            rising.append((ordered[-2], ordered[-1]))
    check = _compared(name, pairs, "needs rows of eot-n for two or more n at the same eps, with fgsm or pgd.")
    if check.passed and rising:
        less, more = rising[0]
        evidence = f"no plateau yet at {_where(more)}: {_says(less)}, {_says(more)}; raise n."
        return SanityCheck(name, False, evidence)
    return check


def _batch_sizes_run(rows: Sequence[ResultRow]) -> SanityCheck:
    name, sizes = "batch sizes 1, 2, K and a short last batch run", {size for row in rows for size in row.batch_sizes}
    short = sorted({row.batch_sizes[-1] for row in rows if len(row.batch_sizes) > 1})
    K = max(sizes, default=0)
    missing = [str(size) for size in (1, 2) if size not in sizes]
    missing += ["K of 3 or more"] if K < 3 else []
    missing += [] if short else ["a short last batch"]
    if missing:
        return _not_judged(name, f"no row with {', '.join(missing)} (exercise_batch_sizes makes them).")
    return SanityCheck(name, True, f"groups of 1, 2 and {K} ran, and short last ones of {', '.join(map(str, short))}.")


def _every_prediction_is_a_class(rows: Sequence[ResultRow]) -> SanityCheck:
    name = "every prediction is a class"
    if not rows:
        return _not_judged(name, "there are no rows.")
    worst = max(rows, key=lambda row: row.without_class)
    if worst.without_class:
        problem = f"logits are NaN or infinite in {worst.without_class} of {worst.n * worst.draws} predictions"
        return SanityCheck(
            name,
            False,
            f"{problem} at {_where(worst)}: {_says(worst)}. The network is broken: this is no result of the attack.",
        )
    return SanityCheck(name, True, f"logits are finite in all {len(rows)} rows.")


# -- comparing rows ----------------------------------------------------------------------------------


Pair = tuple[ResultRow, ResultRow]  # the row that must be at least as strong, the other row


def _compared(name: str, pairs: Sequence[Pair], needs: str) -> SanityCheck:
    if not pairs:
        return _not_judged(name, needs)
    excess, strong, weak = max(((s.mean.value - w.mean.high, s, w) for s, w in pairs), key=lambda triple: triple[0])
    passed = excess <= 0
    comparisons = f"{len(pairs)} comparison{'s' if len(pairs) > 1 else ''}"
    closest = f"{comparisons}, the {'closest' if passed else 'worst'} at {_where(strong)}"
    return SanityCheck(name, passed, f"{closest}: {_says(strong)}, {_says(weak)}.")


def _best_against(rows: Sequence[ResultRow], kind: str, weaker: Callable[[ResultRow], bool]) -> list[Pair]:
    """Pairs of the strongest row of a kind with each weaker row of the same setting."""
    pairs = []
    for comparable in _by(_attacked(rows), _setting):
        strong = [row for row in comparable if row.kind == kind]
        pairs += [(_best(strong), row) for row in comparable if strong and weaker(row)]
    return pairs


def _by(rows: Iterable[ResultRow], key: Callable[[ResultRow], tuple[object, ...]]) -> list[list[ResultRow]]:
    text = lambda row: tuple(map(str, key(row)))
    return [list(comparable) for _, comparable in groupby(sorted(rows, key=text), text)]


def _setting(row: ResultRow) -> tuple[object, ...]:
    return row.norm, row.eps, row.group_size, row.n


def _recipe(row: ResultRow) -> tuple[object, ...]:
    return row.norm, row.group_size, row.n, row.threat, row.attack, row.loss, row.steps, row.restarts, row.eot


def _attacked(rows: Iterable[ResultRow]) -> list[ResultRow]:
    return [row for row in rows if row.eps > 0]


def _best(rows: Iterable[ResultRow]) -> ResultRow:
    return min(rows, key=lambda row: row.mean.value)


def _says(row: ResultRow) -> str:
    return f"{row.threat} ({row.attack} on {row.loss}, eps {row.eps:g}) leaves {row.mean}"


def _where(row: ResultRow) -> str:
    return f"{row.norm} eps = {row.eps:g} in groups of {row.group_size}"


def _not_judged(name: str, reason: str) -> SanityCheck:
    return SanityCheck(name, False, f"could not be judged: {reason}", judged=False)
