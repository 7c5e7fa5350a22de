"""``python release_check.py README.md``: the README's three lines with the cs_gan that is installed."""

import importlib.metadata
import platform
import re
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

import cs_gan

assert Path(cs_gan.__file__).is_relative_to(sys.prefix), f"{cs_gan.__file__} is not the installed one"
block = re.search(r"```python\n(.*?)```", Path(sys.argv[1]).read_text(), re.DOTALL)
assert block is not None
assert "coded.penalty()" in block[1]
torch.manual_seed(0)
blocks = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh())
critic = nn.Sequential(OrderedDict(blocks=blocks, head=nn.Linear(32, 1)))
generator = nn.Sequential(nn.Linear(128, 64), nn.Unflatten(1, (1, 8, 8)))
given = {"torch": torch, "critic": critic, "generator": generator, "loader": [torch.randn(16, 1, 8, 8)]}
exec(block[1], given)
given["loss"].backward()
assert all(p.grad is not None for p in critic.parameters())
assert given["coded"].penalty() > 0
versions = {name: importlib.metadata.version(name) for name in ("cs-gan", "torch", "numpy", "scipy")}
print(f"Python {platform.python_version()}, {versions}: penalty {given['coded'].penalty().item():.1e}")
