"""What is known of arguments without looking at their values: those of torch's own modules, and names that say it.

To teach a module of another library, add a function to ``TORCH``: from the module to its :class:`Axes`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

KINDS = ("encode", "nearest", "plain")


@dataclass(frozen=True)
class Role:
    """What a coded pass does with a tensor.

    Attributes:
        kind: ``encode`` it, take that of the ``nearest`` data sample, or pass it on (``plain``).
        axis: its batch axis; None: the block's.
        rows: entries along the batch axis for each sample; above 1 for the masks of several heads.
        dims: a tensor with another number of axes has no batch.
        sure: whether it may not be something else that happens to be as long as the batch.
        by_user: whether the user said so.
        argument: the tensor's argument, for messages.
    """

    kind: str
    axis: int | None = None
    rows: int = 1
    dims: int | None = None
    sure: bool = True
    by_user: bool = False
    argument: int | str = 0


ENCODE, NEAREST, PLAIN = (Role(kind) for kind in KINDS)
PERHAPS_NEAREST = Role("nearest", sure=False)


@dataclass(frozen=True)
class Axes:
    """The batch axes of a block.

    Attributes:
        takes: of its inputs.
        gives: of its first output tensor, and of all others.
        unmixed: candidates for tensors that can't be mixed; the first one that is as long as the batch is used.
        dims: required number of axes of the first input; with fewer it has no batch axis.
        arguments: roles of arguments by name.
    """

    takes: int = 0
    gives: tuple[int, int] = (0, 0)
    unmixed: tuple[int, ...] = (0,)
    dims: int | None = None
    arguments: Mapping[str, Role] = field(default_factory=dict)


# -- torch's own modules ---------------------------------------------------------------------------


def _recurrent(module: nn.RNNBase) -> Axes:
    """``batch_first`` does not apply to hidden states, which are always (layers, batch, features)."""
    first = 0 if module.batch_first else 1
    arguments = {"input": replace(ENCODE, axis=first), "hx": replace(ENCODE, axis=1)}
    return Axes(first, (first, 1), dims=3, arguments=arguments)


def _attending(module: nn.Module, attention: Any) -> Axes:
    """Padding masks are always (batch, length), masks of scores (length, length) or (batch x heads, length, length).

    So are attention weights (batch, length, length). An attention that isn't torch's says nothing about its axes.
    """
    if not isinstance(attention, nn.MultiheadAttention):
        return Axes()
    first = 0 if attention.batch_first else 1
    padding, scores = replace(NEAREST, axis=0), replace(NEAREST, axis=0, rows=attention.num_heads, dims=3)
    arguments = dict.fromkeys(parameters_of(module), replace(ENCODE, axis=first))
    for name in arguments:
        if name.endswith("mask"):
            arguments[name] = padding if name.endswith("key_padding_mask") else scores
    return Axes(first, (first, 0), dims=3, arguments=arguments)


def _stack(module: Any) -> Axes:
    """A stack of layers has the axes of its first one."""
    layers = module.encoder.layers if isinstance(module, nn.Transformer) else module.layers
    return _attending(module, getattr(layers[0], "self_attn", None)) if len(layers) else Axes()


TORCH: dict[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[Any], Axes]] = {
    nn.RNNBase: _recurrent,
    nn.MultiheadAttention: lambda module: _attending(module, module),
    (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer): lambda module: _attending(module, module.self_attn),
    (nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer): _stack,
}


def axes_of_torch(module: nn.Module) -> Axes | None:
    """The axes of one of torch's own modules that defines them, else None."""
    axes = next((axes_of(module) for kind, axes_of in TORCH.items() if isinstance(module, kind)), None)
    return axes if axes is None or axes.arguments else None


def parameters_of(module: nn.Module) -> dict[str, inspect.Parameter]:
    """The parameters of a module's forward, in order; empty if Python can't tell."""
    module = getattr(module, "_orig_mod", module)  # torch.compile's wrapper
    forward = module.forward
    return _parameters(getattr(forward, "__func__", forward), inspect.ismethod(forward))


@lru_cache(maxsize=256)
def _parameters(function: Callable[..., Any], bound: bool) -> dict[str, inspect.Parameter]:
    try:
        named = list(inspect.signature(function).parameters.items())
    except (TypeError, ValueError):
        return {}
    return dict(named[1:] if bound else named)


# -- names -----------------------------------------------------------------------------------------

# Of transformers' layers: the same for all samples, or with a batch axis in front.
_POSITIONS = (
    *("cache_position", "position_ids", "position_embeddings", "position_bias", "rotary_pos_emb", "alibi"),
    *(
        "rope",
        "rotary_emb",
        "image_rotary_emb",
        "freqs_cis",
        "rel_pos",
        "rel_pos_bias",
        "pos_embed",
        "txt_ids",
        "img_ids",
    ),
)
# Of diffusion and conditional models: one entry for each sample.
_CONDITIONS = (
    *("c", "cond", "conditioning", "temb", "timestep", "timesteps", "sigma", "pooled_projections"),
    *("y", "label", "labels", "class_labels", "style", "z", "latent", "latents"),
)
_OF_SAMPLES = ("attention_mask", "encoder_attention_mask", "decoder_attention_mask")


def role_by_name(name: int | str, tensor: Tensor) -> Role | None:
    """What an argument's name says: masks and positions are never mixed. None if it says nothing."""
    if not isinstance(name, str):
        return None
    if name in _POSITIONS:
        return NEAREST if tensor.dim() > 2 or (tensor.dim() == 2 and not tensor.is_floating_point()) else PLAIN
    if name in _CONDITIONS:
        return ENCODE  # integers become nearest
    if name.lower().rsplit("_", 1)[-1] not in ("mask", "masks"):
        return None
    if "causal" in name and tensor.dim() == 2:
        return PLAIN
    return NEAREST if name in _OF_SAMPLES or "padding" in name else PERHAPS_NEAREST
