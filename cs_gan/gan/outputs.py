"""What critics and generators return: checked where the steps, penalties and terms call them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cs_gan.errors import BatchError, ConfigError


def scores(call: str, given: Any, images: Tensor, *, each: bool = False) -> Tensor:
    """What the critic gave: scores of shape (B,), (B, 1), patches (B, 1, H, W) or any other of a floating-point type.

    Args:
        call: the function that called the critic, for the error message.
        given: what it returned.
        images: (B, *F), what it was given.
        each: whether one number for the whole batch is refused too. Its gradient is not that of each score.

    Raises:
        ConfigError: for anything else.
    """
    found = _floating(given)
    if found is None or (each and not given.dim() and len(images) > 1):
        raise ConfigError(
            f"{call}: the critic gave {described(given)} for {len(images)} images, but a floating-point score for each "
            f"is needed, of shape ({len(images)},), ({len(images)}, 1) or with one for each patch. "
            "Give a module that returns only the scores."
        )
    return found


def images(call: str, given: Any) -> Tensor:
    """What the generator gave: a floating-point tensor. Raises ConfigError for anything else."""
    found = _floating(given)
    if found is None:
        raise ConfigError(
            f"{call}: the generator gave {described(given)}, but images are needed, a floating-point tensor "
            "(B, C, H, W). Give a module that returns only the images."
        )
    return found


def require_tensors(call: str, **given: Any) -> None:
    """Raises BatchError for an argument that is no tensor."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise BatchError(f"{call} got {described(value)} as {name}: give a tensor.")


def described(given: Any) -> str:
    """In words, such as ``a tuple of 2 (Tensor, Tensor)`` or ``a dict with the keys 'scores', 'features'``."""
    if isinstance(given, Tensor):
        return f"a {given.dtype} tensor {tuple(given.shape)}"
    kind = type(given).__name__
    if isinstance(given, dict):
        return f"a {kind} with the keys {', '.join(repr(key) for key in given)}"
    if isinstance(given, tuple | list):
        return f"a {kind} of {len(given)} ({', '.join(type(value).__name__ for value in given)})"
    return f"a {kind}"


def _floating(given: Any) -> Tensor | None:
    return given if isinstance(given, Tensor) and given.is_floating_point() else None
