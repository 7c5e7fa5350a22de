"""What critics and generators return: checked where the steps, penalties and terms call them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cs_gan.errors import BatchError, ConfigError


def scores(call: str, output: Any, images: Tensor, *, per_image: bool = False) -> Tensor:
    """What the critic gave: scores of shape (B,), (B, 1), patches (B, 1, H, W) or any other of a floating-point type.

    Args:
        call: the function that called the critic, for the error message.
        output: what it returned.
        images: (B, *F), what it was given.
        per_image: whether one number for the whole batch is refused too. Its gradient is not that of each score.

    Raises:
        ConfigError: for anything else.
    """
    tensor = _floating(output)
    if tensor is None or (per_image and not output.dim() and len(images) > 1):
        raise ConfigError(
            f"{call}: the critic gave {described(output)} for {len(images)} images, but a floating-point score for "
            f"each is needed, of shape ({len(images)},), ({len(images)}, 1) or with one for each patch. "
            "Give a module that returns only the scores."
        )
    return tensor


def images(call: str, output: Any) -> Tensor:
    """What the generator gave: a floating-point tensor. Raises ConfigError for anything else."""
    tensor = _floating(output)
    if tensor is None:
        raise ConfigError(
            f"{call}: the generator gave {described(output)}, but images are needed, a floating-point tensor "
            "(B, C, H, W). Give a module that returns only the images."
        )
    return tensor


def require_tensors(call: str, **arguments: Any) -> None:
    """Raises BatchError for an argument that is no tensor."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise BatchError(f"{call} got {described(value)} as {name}: give a tensor.")


def described(value: Any) -> str:
    """In words, such as ``a tuple of 2 (Tensor, Tensor)`` or ``a dict with the keys 'scores', 'features'``."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor {tuple(value.shape)}"
    kind = type(value).__name__
    if isinstance(value, dict):
        return f"a {kind} with the keys {', '.join(repr(key) for key in value)}"
    if isinstance(value, tuple | list):
        return f"a {kind} of {len(value)} ({', '.join(type(entry).__name__ for entry in value)})"
    return f"a {kind}"


def _floating(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) and value.is_floating_point() else None
