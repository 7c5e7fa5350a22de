from dataclasses import replace

import pytest

from cs_gan import RandomizedCodedInference
from cs_gan.attacks import (
    Budget,
    ResultRow,
    evaluate_threat,
    exercise_batch_sizes,
    find_threat,
    run_sanity_checks,
    verdict,
    wilson,
)
from tests.attacks.networks import batch, mlp

EPSILONS = (0.0, 0.1, 0.3, 1.0)
CHECKS = [
    "iterative beats single-step",
    "white-box beats black-box",
    "informed beats uninformed",
    "large eps gives 0 %",
    "accuracy falls monotonically with eps",
    "more EOT doesn't weaken, up to a plateau",
    "batch sizes 1, 2, K and a short last batch run",
    "every prediction is a class",
]
# Accuracy per eps of an honest defence: every attack as strong as its knowledge.
HONEST = {
    ("oblivious", "pgd"): (0.95, 0.80, 0.50, 0.10),
    ("wrong_permutation", "pgd"): (0.95, 0.82, 0.52, 0.12),
    ("true_permutation", "pgd"): (0.95, 0.60, 0.20, 0.0),
    ("eot-1", "fgsm"): (0.95, 0.78, 0.45, 0.20),
    ("eot-1", "pgd"): (0.95, 0.72, 0.35, 0.02),
    ("eot-5", "pgd"): (0.95, 0.66, 0.28, 0.0),
    ("eot-20", "pgd"): (0.95, 0.65, 0.27, 0.0),
    ("square", "square"): (0.95, 0.85, 0.60, 0.05),
    ("transfer", "pgd"): (0.95, 0.90, 0.80, 0.40),
}


def row(threat, attack, eps, accuracy, n=1000, group_size=64, batch_sizes=(64, 40), norm="linf"):
    model = find_threat(threat)
    value = wilson(accuracy, n)
    return ResultRow(
        threat=threat, kind=model.kind, eps=eps, norm=norm, attack=attack, loss="margin", steps=20, restarts=1,
        eot=model.eot or 5,
        mean=value, worst=value, majority=value, n=n, draws=10, group_size=group_size, batch_sizes=batch_sizes,
        seconds=1.0, forward_passes=1,
    )  # fmt: skip


def table(**norm):
    rows = [
        row(*key, eps, accuracy, **norm)
        for key, accuracies in HONEST.items()
        for eps, accuracy in zip(EPSILONS, accuracies, strict=True)
    ]
    small = [row("eot-1", "pgd", 0.3, 0.0, n=2 * size, group_size=size, batch_sizes=(size,)) for size in (1, 2)]
    return rows + small


def planted(rows, change):
    """The table with accuracies changed: (row) -> accuracy or None to keep it."""
    result = []
    for each in rows:
        accuracy = change(each)
        result.append(each if accuracy is None else replace(each, mean=wilson(accuracy, each.n)))
    return result


def failed(rows):
    return [check.name for check in run_sanity_checks(rows) if not check.passed]


def test_an_honest_table_passes_every_check():
    checks = run_sanity_checks(table())
    assert [check.name for check in checks] == CHECKS
    assert all(check.passed for check in checks), checks
    assert verdict(checks).claim
    assert "is an upper bound" in verdict(checks).sentence


def is_(each, threat, attack="pgd"):
    return each.threat == threat and each.attack == attack


@pytest.mark.parametrize(
    ("change", "check"),
    [
        # one signed step finds what twenty don't: the loss surface is rough
        (lambda r: 0.1 if is_(r, "eot-1", "fgsm") and r.eps == 0.3 else None, CHECKS[0]),
        # queries or another network find what gradients don't
        (lambda r: 0.61 if r.threat == "square" and r.eps == 0.1 else None, CHECKS[1]),
        (lambda r: 0.1 if r.threat == "transfer" and r.eps >= 0.3 else None, CHECKS[1]),
        # the plain network's gradient is better than the defended one's
        (lambda r: 0.55 if r.threat == "oblivious" and r.eps == 0.1 else None, CHECKS[2]),
        (lambda r: 0.8 if r.threat == "true_permutation" and r.eps == 0.1 else None, CHECKS[2]),
        # accuracy under an unbounded attack
        (lambda r: 0.04 if r.eps == 1.0 and r.kind == "white-box" else None, CHECKS[3]),
        # a larger ball holds a worse point
        (lambda r: 0.9 if r.threat == "transfer" and r.eps == 1.0 else None, CHECKS[4]),
        # averaging makes the attack weaker, or the last average still gains
        (lambda r: 0.7 if r.threat == "eot-20" and r.eps == 0.1 else None, CHECKS[5]),
        (lambda r: 0.61 if r.threat == "eot-20" and r.eps == 0.1 else None, CHECKS[5]),
    ],
)
def test_each_planted_fault_fails_its_check_alone(change, check):
    rows = planted(table(), change)
    assert failed(rows) == [check]
    told = verdict(run_sanity_checks(rows))
    assert not told.claim
    assert told.sentence.startswith("no robustness claim")
    assert check in told.sentence


def test_a_table_of_masked_gradients_fails():
    """Gradients through the defence do nothing, queries and other networks do."""
    rows = planted(table(), lambda r: 0.95 if r.kind == "white-box" and r.attack == "pgd" else None)
    assert set(failed(rows)) >= set(CHECKS[:4])


def test_differences_within_the_interval_pass():
    rows = planted(table(), lambda r: 0.672 if r.threat == "eot-20" and r.eps == 0.1 else None)  # eot-5: 66 % +- 3
    assert failed(rows) == []


@pytest.mark.parametrize(
    ("keep", "checks"),
    [
        (lambda r: r.attack != "fgsm", [CHECKS[0]]),
        (lambda r: r.kind != "black-box", [CHECKS[1]]),
        (lambda r: r.kind not in ("uninformed", "omniscient"), [CHECKS[2]]),
        (lambda r: r.kind != "white-box", [CHECKS[0], CHECKS[1], CHECKS[2], CHECKS[3], CHECKS[5], CHECKS[6]]),
        (lambda r: r.eps == 0.3, [CHECKS[3], CHECKS[4]]),
        (lambda r: r.threat not in ("eot-5", "eot-20"), [CHECKS[3], CHECKS[5]]),
        (lambda r: r.group_size > 1, [CHECKS[6]]),
        (lambda r: r.group_size != 2, [CHECKS[6]]),
        (lambda r: False, CHECKS),
    ],
)
def test_what_can_not_be_judged_counts_as_failed_and_says_what_is_missing(keep, checks):
    rows = [each for each in table() if keep(each)]
    results = {check.name: check for check in run_sanity_checks(rows)}
    assert [name for name in CHECKS if not results[name].passed] == checks
    assert any("could not be judged" in results[name].evidence for name in checks)


def test_a_short_last_batch_and_k_are_missed():
    rows = [replace(each, batch_sizes=each.batch_sizes[:1]) for each in table()]
    assert "short last" in {check.name: check for check in run_sanity_checks(rows)}[CHECKS[6]].evidence
    rows = [each for each in table() if each.group_size < 3]
    assert "K of 3" in {check.name: check for check in run_sanity_checks(rows)}[CHECKS[6]].evidence


def test_tiny_rows_do_not_stand_for_the_whole_set():
    """Rows that only exercise batch sizes reach 0 % on two samples; the large ones decide."""
    rows = planted(table(), lambda r: 0.3 if r.eps == 1.0 and r.kind == "white-box" else None)
    rows.append(row("eot-1", "pgd", 1.0, 0.0, n=12, batch_sizes=(8, 4)))
    assert CHECKS[3] in failed(rows)


def test_every_norm_must_pass():
    good, bad = table(), planted(table(norm="l2"), lambda r: 0.3 if r.eps == 1.0 and r.kind == "white-box" else None)
    assert failed(good + table(norm="l2")) == []
    check = {check.name: check for check in run_sanity_checks(good + bad)}[CHECKS[3]]
    assert not check.passed
    assert "l2" in check.evidence


def test_without_checks_nothing_is_claimed():
    assert not verdict([]).claim


def test_rows_of_a_real_evaluation_can_be_judged():
    pytest.importorskip("pyautoattack")
    images, labels = batch(9)
    images = images.float()
    defence = RandomizedCodedInference(mlp().float(), reference=images[:3])
    budget = Budget(0.1, steps=4, queries=5)
    threats = ["oblivious", "wrong_permutation", "true_permutation", "eot-1", "eot-5", "square"]
    options = {"group_size": 4, "draws": 2}
    planned = [(threat, replace(budget, eps=eps)) for threat in threats for eps in (0.0, 0.1, 2.0)]
    planned += [("eot-1", replace(budget, eps=eps, attack="fgsm")) for eps in (0.1, 2.0)]
    rows = [evaluate_threat(threat, defence, images, labels, each, **options) for threat, each in planned]
    rows += exercise_batch_sizes(defence, images, labels, budget, group_size=4)
    assert not any("could not be judged" in check.evidence for check in run_sanity_checks(rows))
