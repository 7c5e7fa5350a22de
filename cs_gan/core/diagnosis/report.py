"""The report of ``CodedSmoothing.diagnose``: figures for each block, and the failure signatures that they show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cs_gan.core.diagnosis.measure import CodeCondition, ErrorParts, ratio
from cs_gan.core.diagnosis.strength import SHARES, Strength

OVER_SMOOTHING, SMALL_BATCH = "over-smoothing", "small batch"
COLLAPSE, NOT_FINITE = "collapse to ERM", "not finite"
NO_EFFECT, ONLY_SHRINKS = "no effect", "only shrinks"
USELESS = (NO_EFFECT, ONLY_SHRINKS)

# Thresholds of the warnings. The numbers come from one setting: digits with 300 labels, cnn_small, batches of 64, 60
# epochs of SGD (cosine schedule from 0.05, momentum 0.9), the whole network coded, one seed, training mode. They were
# measured after 10, 50 and 100 % of the steps by python -m benchmarks.diagnosis (table in docs/method.md). Spread,
# relative error and all numbers before training come from a similar run by hand.

# Headroom fell from 0.22 to 0.18 with mu = 0.95 (95.0 % accuracy; 97.8 % without the penalty), from 0.07 to 0.02 with
# mu = 0.5 (98.1 %) and from 0.02 to 0.00 without the penalty. With mu = 0.8 (98.0 %) it was 0.20, 0.08, 0.05, with
# mu = 0.99 (89.7 %) 0.05, 0.16, 0.19.
LARGE_HEADROOM = 0.15
# The share does not show over-smoothing, because a penalty that is fully minimised is small: 0.05 to 0.12 with
# mu = 0.99, 0.07 to 0.29 with mu = 0.95, 0.52 to 0.57 with mu = 0.5. This bound is above all measured values. There
# the task hardly counts in the objective.
DOMINANT_SHARE = 0.9
# 0.05 before training. After 10 % of the steps 0.37 with mu = 0.99, and 0.6 or more in all other runs.
COLLAPSED_SPREAD = 0.01
# The variance of the logits rose from each measurement to the next in every run. But with mu = 0.99 it fell to half of
# its value before training.
SHRUNK = 0.5
# At N = 4 K and mu = 0.5 the share was still 0.14 to 0.47. Before training it was 0.00 to 0.06 for every mu.
NEGLIGIBLE_SHARE = 0.01
# Of the gradient. Weight 0.1 on an inner block of the digits critic is 0.02 to 0.15 %, and changes no score visibly.
PLAIN_TRAINING, OVERWHELMING = 0.001, 1.0
# Rounding in float32 leaves about 1e-10 of the error of an affine block.
NO_CURVATURE = 1e-4
# The final value was 0.09 with N = 1.5 K and 0.02 with N = 4 K.
NEGLIGIBLE_ERROR = 0.01
# ||DE - I||_F^2 / K is 2.1e-3 at N = 1.5 K, where the paper's schedule ends, 2.6e-4 at 2 K and 9.5e-5 at 2.5 K
# (K = 128). We chose this bound because the affine part caused the gain in our prototype; here it is 20 times smaller.
FADED_BIAS = 1e-4
# From K = 16 to 128 the bias at N/K = 1, 1.25, 1.5, 2, 2.5, 3 is within a factor 2 of the bias at K = 128. For smaller
# K it depends on the rounding of N: 15 times too small at K = 5 and N = K, 5 times too large at K = 5 and N = 1.25 K.
SMALLEST_BATCH = 16


@dataclass(frozen=True)
class BlockDiagnosis:
    """One block on one batch. Errors, variances and the penalty are summed over output tensors and calls.

    Attributes:
        name: of the block; ``""`` is the model itself.
        calls: how often the block ran.
        penalty: the unweighted penalty, as :meth:`CodedSmoothing.observe` measures it.
        share: of the weighted penalty in the objective, in [0, 1]; None without a task loss. The absolute values of
            losses count, so it is also meaningful for a critic's loss.
        parts: the mean squared decoding error and its parts.
        condition: conditioning of the code of the call with the smallest batch.
        headroom: how much the task loss would fall if the block's outputs were spread twice as far around their mean
            over the batch, divided by the task loss if all outputs equal that mean. Negative if the loss would rise.
            None if the task loss is no function, not above 0, or affine in the outputs, as a WGAN critic's is: that
            one has no lower bound.
        earlier_variance: ``parts.variance`` of the same block in the earlier report, or None.
        strength: norms of the unweighted gradients; None where no gradients can be computed.
        gradient_share: the weighted penalty's gradient over the weighted task loss's, on the parameters that both
            touch; None without a task loss that has a graph.
    """

    name: str
    calls: int
    penalty: float
    share: float | None
    parts: ErrorParts
    condition: CodeCondition
    headroom: float | None = None
    earlier_variance: float | None = None
    strength: Strength | None = None
    gradient_share: float | None = None

    @property
    def error(self) -> float:
        """The decoding error relative to the outputs: the root of mean squared error / variance in the batch.

        About the root of ``condition.bias`` for an affine block and independent samples; 0 if the outputs are constant.
        """
        return math.sqrt(ratio(self.parts.error, self.parts.variance))

    @property
    def affine_share(self) -> float:
        """The affine part's share of the mean squared error. The three shares add up to 1, unless the error is 0."""
        return ratio(self.parts.affine, self.parts.error)

    @property
    def curvature_share(self) -> float:
        """The curvature part's share. It can be above 1 if the cross term is negative."""
        return ratio(self.parts.curvature, self.parts.error)

    @property
    def cross_share(self) -> float:
        """The share of the cross term, positive or negative."""
        return ratio(self.parts.cross, self.parts.error)

    @property
    def spread(self) -> float:
        """The outputs' variance over the batch divided by their mean square. 0 if they are equal for all samples."""
        return ratio(self.parts.variance, self.parts.power)


@dataclass(frozen=True)
class Finding:
    """A failure signature that a block shows.

    Attributes:
        signature: ``over-smoothing``, ``small batch``, ``collapse to ERM``, ``not finite``, ``no effect`` or
            ``only shrinks``.
        block: its name.
        message: what was measured and what to do, in one or two sentences.
    """

    signature: str
    block: str
    message: str


@dataclass(frozen=True)
class Diagnosis:
    """The result of :meth:`CodedSmoothing.diagnose`. ``print`` it for a table and the findings.

    Attributes:
        blocks: by name.
        task_loss: unweighted, or None.
        task_weight, penalty_weight: the factors in the objective: 1 and ``weight``, or 1 - mu and mu ``weight``.
        findings: the failure signatures; empty if there are none.
        mu: as it was given.
        together: the strength of all blocks together; None for a single one.
        weight: the penalty's weight, without mu.
    """

    blocks: dict[str, BlockDiagnosis]
    task_loss: float | None
    task_weight: float
    penalty_weight: float
    findings: tuple[Finding, ...]
    mu: float | None = None
    together: Strength | None = None
    weight: float = 1.0

    def proposals(self) -> dict[str, dict[float, float]]:
        """For each block, and for ``all blocks`` if there are several: share of the gradient -> weight or mu."""
        strengths = {name: block.strength for name, block in self.blocks.items()} | {"all blocks": self.together}
        return {
            name: dict(zip(SHARES, strength.proposals(self.weight, self.mu), strict=True))
            for name, strength in strengths.items()
            if strength is not None and strength.task and strength.penalty
        }

    def __str__(self) -> str:
        width = max(8, *(len(repr(name)) for name in self.blocks))
        lines = [f"{'block':<{width}}{_HEADER}"]
        lines += [f"{name!r:<{width}}{_row(block)}" for name, block in self.blocks.items()]
        if self.task_loss is not None:
            lines.append(
                f"objective: {self.task_weight:.4g} x task loss {self.task_loss:.4g} "
                f"+ {self.penalty_weight:.4g} x penalty"
            )
        key, percents = "weight" if self.mu is None else "mu", ", ".join(f"{share:.0%}" for share in SHARES)
        for name, values in self.proposals().items():
            shown = name if name == "all blocks" else repr(name)
            numbers = ", ".join(f"{value:.3g}" for value in values.values())
            lines.append(f"{shown}: {key} {numbers} for {percents} of the gradient now")
        for condition in dict.fromkeys(block.condition for block in self.blocks.values()):
            lines.append(
                f"code: K = {condition.K}, N = {condition.N}, encoding norm {condition.encoder_norm:.2f}, "
                f"decoding norm {condition.decoder_norm:.2f}, condition {condition.condition:.1f}, "
                f"bias {condition.bias:.2g}"
            )
        lines += [f"{finding.signature}, block {finding.block!r}: {finding.message}" for finding in self.findings]
        if not self.findings:
            lines.append("no failure signature seen")
        if all(block.gradient_share is None for block in self.blocks.values()):
            lines.append("strength not measured: give the task loss as a function, or as a tensor with its graph")
        return "\n".join(lines)


_HEADER = "  penalty   of grad  of loss    error   affine   curved    cross   spread  headroom"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _row(block: BlockDiagnosis) -> str:
    shares = (block.affine_share, block.curvature_share, block.cross_share, block.spread)
    columns = [_percent(value) for value in (block.share, block.error, *shares)]
    return (
        f"{block.penalty:>9.3g}{_percent(block.gradient_share):>10}"
        + "".join(f"{c:>9}" for c in columns)
        + f"{_percent(block.headroom):>10}"
    )


def findings(block: BlockDiagnosis) -> Iterator[Finding]:
    """The failure signatures that the figures of one block show."""
    figures = (block.penalty, block.parts.error, block.parts.power, block.share or 0.0)
    if not all(map(math.isfinite, figures)):
        message = (
            "the penalty or the outputs are not finite. Lower the learning rate or the weight, and look at the input."
        )
        yield Finding(NOT_FINITE, block.name, message)
        return
    if not block.parts.power:
        message = (
            "all outputs are 0, and so is the penalty. A last layer that starts at 0 changes within steps: diagnose "
            "again then. A block whose units are dead stays."
        )
        yield Finding(NO_EFFECT, block.name, message)
        return
    for signature, messages in (
        (NO_EFFECT, _no_effect(block)),
        (ONLY_SHRINKS, _only_shrinks(block)),
        (OVER_SMOOTHING, _over_smoothing(block)),
        (COLLAPSE, _collapse(block)),
        (SMALL_BATCH, _small_batch(block)),
    ):
        yield from (Finding(signature, block.name, message) for message in messages)


def _no_effect(block: BlockDiagnosis) -> Iterator[str]:
    if block.strength is not None and not block.strength.trains:
        yield "its penalty has no gradient, because nothing in the block or before it is trained. Choose another block."
    elif block.gradient_share is not None and block.gradient_share < PLAIN_TRAINING:
        yield (
            f"the penalty's gradient is {block.gradient_share:.2g} of the task loss's: while it is, this is plain "
            "training. It can grow a thousandfold in the first steps, a classifier's most of all: diagnose again "
            "after some hundred. If it stays, raise mu or the weight; above are those for 1 to 10 %."
        )


def _only_shrinks(block: BlockDiagnosis) -> Iterator[str]:
    if block.curvature_share < NO_CURVATURE and block.condition.decoder_kind != "zero-forcing":
        yield (
            "the block is affine on this batch, and coding an affine block only shrinks it. Take a block that contains "
            "its activation."
        )


def _over_smoothing(block: BlockDiagnosis) -> Iterator[str]:
    advice = "Lower mu or the weight."
    if block.headroom is not None and block.headroom > LARGE_HEADROOM and (block.share or 0) > NEGLIGIBLE_SHARE:
        yield (
            f"with outputs spread twice as far, the task loss would fall by {block.headroom:.0%} of its value for "
            f"constant outputs: the penalty keeps them too close. {advice} (Early in training this can be temporary.)"
        )
    if block.gradient_share is not None and block.gradient_share > OVERWHELMING:
        yield f"the penalty's gradient is {block.gradient_share:.0%} of the task loss's. {advice}"
    elif block.gradient_share is None and block.share is not None and block.share > DOMINANT_SHARE:
        yield f"the penalty is {block.share:.0%} of the objective. {advice}"
    if block.spread < COLLAPSED_SPREAD:
        yield (
            f"outputs hardly depend on the sample: {block.spread:.2%} of their mean square is variance over the batch. "
            f"{advice} If it is 0 already, the block itself has collapsed."
        )
    before = block.earlier_variance
    if before is not None and block.parts.variance < SHRUNK * before:
        yield f"the outputs' variance over the batch fell from {before:.3g} to {block.parts.variance:.3g}. {advice}"


def _collapse(block: BlockDiagnosis) -> Iterator[str]:
    condition = block.condition
    if condition.bias < FADED_BIAS and condition.decoder_kind != "zero-forcing":
        yield (
            f"with N = {condition.N} for K = {condition.K} the penalty of an affine block is {condition.bias:.1g} of "
            "its variance, so coding has hardly any effect. Use a ratio of 1 to 1.5, or let it grow more slowly."
        )
    if block.gradient_share is None and block.share is not None and block.share < NEGLIGIBLE_SHARE:
        yield (
            f"the penalty is {block.share:.2%} of the objective: this is nearly plain training. Raise mu or the "
            "weight, or lower the ratio. (Before training this is normal, because outputs are still nearly constant.)"
        )
    if block.share is None and block.error < NEGLIGIBLE_ERROR:
        yield (
            f"decoded outputs are within {block.error:.2%} of the outputs, so the penalty is nearly 0. Lower the "
            "ratio. Give a task_loss to see the penalty's share of the objective."
        )


def _small_batch(block: BlockDiagnosis) -> Iterator[str]:
    condition = block.condition
    if condition.K < SMALLEST_BATCH:
        yield (
            f"K = {condition.K}: below {SMALLEST_BATCH} the strength of the penalty depends on how N = {condition.N} "
            "rounds, and varies from batch to batch. Use a larger batch."
        )
