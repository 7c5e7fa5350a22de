"""One thread and one seed for every test."""

import os

# Before numpy comes: its BLAS would start a thread for each core, and these spin while they wait. Child processes of
# tests inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)

if not torch.cuda.is_available():
    # torch.manual_seed keeps a stack trace for each kind of GPU, in case one comes up later. That takes 2 ms a call.
    torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = lambda seed: None


@pytest.fixture(autouse=True)
def _same_seed():
    torch.manual_seed(0)
