"""Additive masks: tensors that remove entries when they are added, such as 0 and -inf before a softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOW = -1e4  # no additive mask is above; -1e4 was usual in float16
_ORDINARY = 100.0  # what a mask leaves alone is 0, or a learned bias


def readable(tensor: Tensor, first_call: bool) -> bool:
    """Whether to look at values. On a GPU only in the first call, because looking waits for the device."""
    if torch._C._len_torch_dispatch_stack():
        return False
    if tensor.device.type == "cpu":
        return True
    capturing = tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    return first_call and not capturing


def additive_mask(tensor: Tensor) -> bool:
    """Whether adding the tensor removes entries.

    It holds -inf or the type's lowest numbers; or very low ones and otherwise only numbers of an ordinary size.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return False
    values = tensor.detach()
    if not (lowest := values.amin().item()) <= _LOW or not (highest := values.amax().item()) < math.inf:
        return False
    if lowest <= torch.finfo(tensor.dtype).min / 2:
        return True
    return -_ORDINARY <= highest <= _ORDINARY and bool(((values >= -_ORDINARY) | (values <= _LOW)).all())
