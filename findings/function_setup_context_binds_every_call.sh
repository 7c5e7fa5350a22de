#!/usr/bin/env bash
# torch 2.14.1: the new style of autograd.Function (forward without ctx, plus setup_context) costs more per call.
#
# Guess before running: both styles cost the same. PyTorch's notes on extending autograd offer setup_context as the form
# that torch.func needs, and say nothing of time.
#
# Seen: each apply() of a class with setup_context binds its arguments to forward's signature with Python's inspect
# module, in torch/autograd/function.py (bind_default_args), although the signature never changes. One apply() of
# a trivial function took four times as long as in the old style (46 instead of 10 microseconds where this was written). In a loss made of
# a few such functions that is as much as the arithmetic of a small network.
#
# Runs without cs_gan. Fails if inspect is no longer called once per apply, or the new style is no longer slower.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.14.1" "numpy==2.3.5"
"$folder/venv/bin/python" - <<'PYTHON'
import inspect
import sys
import time

import torch
from torch.autograd import Function


class Old(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


class New(Function):
    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


torch.set_num_threads(1)
x = torch.ones(4, requires_grad=True)


def fastest(function):
    """Seconds per call, the best of 20 rounds of 500."""
    rounds = []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            function.apply(x)
        rounds.append((time.perf_counter() - start) / 500)
    return min(rounds)


calls = []
original = inspect.signature
inspect.signature = lambda *args, **options: (calls.append(args), original(*args, **options))[1]
for function in (Old, New):
    calls.clear()
    for _ in range(10):
        function.apply(x)
    print(f"{function.__name__}: inspect.signature called {len(calls)} times in 10 calls of apply")
    assert len(calls) == (10 if function is New else 0)
inspect.signature = original

old, new = fastest(Old), fastest(New)
print(f"torch {torch.__version__}: old style {1e6 * old:.1f} us, new style {1e6 * new:.1f} us, ratio {new / old:.1f}")
sys.exit(new < 1.5 * old)
PYTHON
