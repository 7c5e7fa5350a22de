"""Random streams derived from what they are for, never from how the run got there.

A resumed run draws what the undisturbed one would have drawn, because every draw is keyed by the
seed, the step, the rank and a purpose. The idea is EDM2's; the hash is ours.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed from a key such as ``(seed, "latents", step, rank)``; equal keys, equal seeds."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`, so draws don't depend on the device."""
    return torch.Generator().manual_seed(derive_seed(*key))
