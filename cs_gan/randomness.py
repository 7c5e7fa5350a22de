"""Random streams that depend on their key, never on earlier draws.

A resumed run draws the same numbers as an uninterrupted one, because every draw is keyed by the seed, the step, the
rank and a purpose. The idea is EDM2's; the hash is ours.

Bulk draws come from SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). Its
j-th output is a hash of (key + j gamma), so any number of draws takes a few operations on int64 tensors and gives the
same bits on every device. The key can be a tensor on the device.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed from a key such as ``(seed, "latents", step, rank)``; equal keys, equal seeds."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`, so draws don't depend on the device."""
    return torch.Generator().manual_seed(derive_seed(*key))


# -- SplitMix64 on tensors -------------------------------------------------------------------------


def splitmix(key: Tensor | int, position: Tensor) -> Tensor:  # int64, broadcasts
    """Output number ``position`` (from 0) of the SplitMix64 generator that starts at ``key``.

    Each has 64 random bits, as int64. torch has no uint64 arithmetic, and two's complement wraps in the same way.
    """
    z = key + (position + 1).mul_(_GAMMA)
    z.bitwise_xor_(_shifted(z, 30)).mul_(_MIX_1)
    z.bitwise_xor_(_shifted(z, 27)).mul_(_MIX_2)
    return z.bitwise_xor_(_shifted(z, 31))


def uniform(keys: Tensor, *shape: int) -> Tensor:  # int64 (*K) -> (*K, *shape) float32
    """Uniform numbers in [0, 1), multiples of 2^-24, on the keys' device; each key has its own."""
    return (_shifted(_words(keys, math.prod(shape)), 40).to(torch.float32) * 2.0**-24).view(*keys.shape, *shape)


def normal(keys: Tensor, *shape: int) -> Tensor:  # int64 (*K) -> (*K, *shape) float32
    """Standard normal numbers, on the keys' device; each key has its own.

    Box and Muller's transform of pairs of words, in float64. Devices differ in the last bits of a logarithm, but
    rounding to float32 almost always hides this.
    """
    count = math.prod(shape)
    wide = torch.float32 if keys.device.type == "mps" else torch.float64  # which Apple's devices lack
    pairs = (_shifted(_words(keys, count + count % 2), 11).to(wide) + 0.5) * 2.0**-53
    radius, angle = (-2 * pairs[..., ::2].log()).sqrt(), 2 * math.pi * pairs[..., 1::2]
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return both[..., :count].to(torch.float32).reshape(*keys.shape, *shape)


def _words(keys: Tensor, count: int) -> Tensor:  # (*K) -> (*K, count)
    return splitmix(keys[..., None], torch.arange(count, device=keys.device))


def _shifted(z: Tensor, bits: int) -> Tensor:
    """A logical shift to the right (torch's own is arithmetic: it copies the sign bit)."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_GAMMA, _MIX_1, _MIX_2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
