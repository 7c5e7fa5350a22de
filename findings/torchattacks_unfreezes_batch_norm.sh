#!/usr/bin/env bash
# torchattacks 3.5.1: an attack puts frozen batch norms of a network in training back into training mode.
#
# Guess before running: an attack leaves the model as it found it. Its base class says that it "recovers" the mode.
#
# Seen: Attack.__call__ reads the flag of the root module only. If the network is in training mode, it ends with
# model.train(), which also switches on all parts that the user had frozen with eval(). The usual way to fine-tune or to
# train adversarially with frozen batch-norm statistics is just that: network.train(), batch norms .eval(). After the
# first attack of the first batch the statistics move again, and nothing says so.
#
# Runs without cs_gan. Fails if the frozen batch norm stays frozen.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.14.1" "torchvision==0.29.1" "numpy==2.3.5" "scipy==1.17.0" "tqdm==4.67.1" \
  "requests==2.25.1" "setuptools<81"
"$folder/venv/bin/pip" install --quiet --no-deps "torchattacks==3.5.1"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

warnings.simplefilter("ignore")

import torch
import torchattacks
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
network.train()
network[1].eval()  # frozen statistics
images, labels = torch.rand(8, 3, 8, 8), torch.randint(10, (8,))

network(images)
still = network[1].running_mean.clone()
torchattacks.FGSM(network, eps=8 / 255)(images, labels)
frozen_after = not network[1].training
network(images)
moved = (network[1].running_mean - still).abs().max().item()
print(f"torchattacks {torchattacks.__version__ if hasattr(torchattacks, '__version__') else '3.5.1'}, torch {torch.__version__}")
print(f"batch norm frozen after the attack: {frozen_after}; its running mean then moves by {moved:.3f} in one batch")
assert torch.equal(still, torch.zeros(4)), "it was frozen before the attack"
assert not frozen_after
assert moved > 0
PYTHON
