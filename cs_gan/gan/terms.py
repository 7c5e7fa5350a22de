"""Terms that a critic step can add to its loss, each with a weight, for :func:`~cs_gan.gan.critic_step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import inf
from numbers import Real
from typing import Any

from torch import Tensor, nn

from cs_gan.core import HeldShare, in_coded_pass
from cs_gan.errors import BlockError, ConfigError
from cs_gan.gan import outputs
from cs_gan.gan.penalties import LeCam, consistency_penalty, feature_norm_penalty, gradient_penalty, r1_penalty


@dataclass(frozen=True)
class ScoredBatch:
    """The inputs of a term in a critic step.

    Attributes:
        critic: images -> scores, as passed to the step, possibly wrapped; for further scores.
        bare: the same by the unwrapped network; for second derivatives.
        images: real and fake, (B, C, H, W).
        scores: of both, (B,) float32.
        autocast: the context in which the scores were computed.
    """

    critic: Callable[[Tensor], Any]
    bare: Callable[[Tensor], Any]
    images: dict[str, Tensor]
    scores: dict[str, Tensor]
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext


class Term:
    """A penalty with its weight and its name in the losses. The weight may hold a share of the gradient.

    Raises:
        ConfigError: for a weight below 0, or that is no number.
    """

    name: str
    weight: float | HeldShare

    def __post_init__(self) -> None:
        if not isinstance(self.weight, HeldShare) and not (isinstance(self.weight, Real) and 0 <= self.weight < inf):
            raise ConfigError(f"{type(self).__name__}: weight = {self.weight!r} must be 0 or more, or a HeldShare.")

    @property
    def held(self) -> HeldShare | None:
        """The weight, if it holds a share of the gradient."""
        return self.weight if isinstance(self.weight, HeldShare) else None

    def weighted(self, penalty: Tensor) -> Tensor:  # () -> ()
        """The penalty with its weight.

        Raises:
            CodeError: if the weight holds a share that was never measured (:meth:`HeldShare.of_penalty`).
        """
        # A copy, because a held weight changes before the backward.
        weight = self.weight.of_penalty().clone() if isinstance(self.weight, HeldShare) else self.weight
        return weight * penalty

    def watching(self, critic: nn.Module) -> AbstractContextManager[Any]:
        """The context for the scores of the real images."""
        return nullcontext()

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """The penalty before its weight, ()."""
        raise NotImplementedError


@dataclass(frozen=True)
class GradientPenalty(Term):
    """WGAN-GP's penalty between real and fake images (:func:`gradient_penalty`).

    Args:
        weight: 10 is usual.
        alpha: (B,) uniform in [0, 1].
    """

    weight: float
    alpha: Tensor
    name: str = "gradient_penalty"

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """At points between the images."""
        return gradient_penalty(batch.bare, batch.images["real"], batch.images["fake"], self.alpha)


@dataclass(frozen=True)
class ZeroCentred(Term):
    """R1 at real images, R2 at fake ones: gamma / 2 times the mean squared slope (:func:`r1_penalty`)."""

    gamma: float
    on: str = "real"

    @property
    def weight(self) -> float:  # type: ignore[override]
        """gamma / 2."""
        return self.gamma / 2

    @property
    def name(self) -> str:  # type: ignore[override]
        """r1 or r2."""
        return "r1" if self.on == "real" else "r2"

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """The mean squared slope."""
        return r1_penalty(batch.bare, batch.images[self.on])


@dataclass(frozen=True)
class Consistency(Term):
    """CR on real images. Together with a second one on fake images it is bCR (:func:`consistency_penalty`).

    Args:
        weight: 10 is usual.
        view: an augmented view of a batch of images.
        on: real or fake.
    """

    weight: float
    view: Callable[[Tensor], Tensor]
    on: str = "real"

    @property
    def name(self) -> str:  # type: ignore[override]
        """consistency or consistency_fake."""
        return "consistency" if self.on == "real" else "consistency_fake"

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Scores the view."""
        with batch.autocast():
            view = self.view(batch.images[self.on])
            view_scores = outputs.scores("critic_step", batch.critic(view), view)
        return consistency_penalty(batch.scores[self.on], view_scores.float())


@dataclass(frozen=True)
class LeCamTerm(Term):
    """LeCam divergence; the averages persist between steps (:class:`LeCam`)."""

    weight: float
    anchors: LeCam
    name: str = "lecam"

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Updates the averages too."""
        penalty: Tensor = self.anchors(batch.scores["real"], batch.scores["fake"])
        return penalty


@dataclass(frozen=True)
class FeatureNorm(Term):
    """The mean square of a block's outputs on real images (:func:`feature_norm_penalty`).

    Raises:
        BlockError: if the critic doesn't have the block, or the block doesn't run or doesn't return a tensor.
    """

    weight: float | HeldShare
    block: str
    name: str = "feature_norm"
    _outputs: list[Any] = field(default_factory=list, compare=False)

    @contextmanager
    def _recording(self, block: nn.Module) -> Iterator[None]:
        self._outputs.clear()

        def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
            if not in_coded_pass():  # of a coded block around this one
                self._outputs.append(output)

        hook = block.register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    def watching(self, critic: nn.Module) -> AbstractContextManager[Any]:
        """Stores the output of the block."""
        try:
            return self._recording(critic.get_submodule(self.block))
        except AttributeError as error:
            names = ", ".join(name for name, _ in critic.named_modules() if name)
            raise BlockError(f"feature norm: the critic has no block {self.block!r}. It has {names}.") from error

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Of what was kept."""
        if not self._outputs:
            raise BlockError(f"feature norm: block {self.block!r} did not run when the real images were scored.")
        features = self._outputs[-1]
        if not isinstance(features, Tensor):
            description = outputs.described(features)
            raise BlockError(
                f"feature norm: block {self.block!r} gave {description}. Choose one that returns one tensor."
            )
        penalty = feature_norm_penalty(features.float())
        self._outputs.clear()
        return penalty
