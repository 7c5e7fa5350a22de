"""Writes docs/contract.md: ``python -m tests.contract.table`` runs all checks and writes the page.

The tests run the same checks and compare each outcome with its cell of the committed table.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

from cs_gan.errors import CsGanError
from tests.contract.helpers import NeedsMathKernel, TorchRefuses
from tests.contract.kinds import KINDS
from tests.contract.properties import PROPERTIES
from tests.processes import run_in_processes

PATH = Path(__file__).parents[2] / "docs" / "contract.md"
DDP = "DDP"
COLUMNS = (*PROPERTIES, DDP)
WORKS, TORCH, MATH = "yes", "torch", "math"

# A refusal's mark, what its message must say, and what the table says of it.
REFUSALS: dict[str, tuple[str, str]] = {
    "a": (
        r"takes a torch\.\w+ tensor .*discrete=\"nearest\"",
        'Integers, labels and masks can\'t be mixed. With `discrete="nearest"` a coded sample takes the label or mask '
        "of the nearest data sample. If a block takes only integers, choose the block after the embedding.",
    ),
    "b": (
        r"batch of 1: a spline needs at least 2 samples.*`reference`",
        "A spline needs two samples. Use a larger batch, or give RandomizedCodedInference a bank of reference inputs.",
    ),
    "c": (r"without a tensor with an axis 1 \(batch_axis=1", "No tensor has the axis `batch_axis`."),
    "d": (
        r"a single sequence: give it 3 axes",
        "The input is a single sequence without a batch axis. torch's recurrent and attention modules accept those. "
        "Coding needs a batch.",
    ),
    "e": (
        r"is not the batch \([KN] = \d\)\. .*`batch_axis`",
        "The batch axis of the output is not that of the input. Choose a block that keeps it, or set `batch_axis`. "
        "Your own modules must have the same batch axis in all inputs and outputs. Only torch's recurrent and "
        "attention modules may use different ones.",
    ),
    "f": (
        r"gives (no floating-point tensor with features but|a) torch.int64",
        "The output is integers, which can't be decoded. Choose an earlier block.",
    ),
    "g": (
        r"gives no (floating-point )?tensor (with features )?(that can be decoded )?but set",
        "The output holds nothing that can be decoded. Return tensors, tuples, lists, dicts or dataclasses, or "
        "register the class with `torch.utils._pytree`.",
    ),
    "h": (
        r"runs inside a checkpoint in a block's coded pass.*checkpoint around the coded block",
        "The backward would recompute the module without the settings of the coded pass (unchanged running statistics, "
        "one weight for both passes, shared masks, unchanged buffers). Checkpoint around the coded block.",
    ),
    "i": (
        r"use_cache=False",
        "A call would change the object, or it holds tensors of the batch that would not be encoded. Hugging Face "
        "models run without their cache with `use_cache=False`.",
    ),
    "j": (
        r"changes its parameters .* in its own forward",
        "Change a weight outside `forward()`, or keep it as a buffer. A frozen parameter that the forward changes is "
        "treated as a buffer.",
    ),
    "k": (
        r"changes a list or dict that it is given",
        "Inside `substitute()` a block gets copies of lists and dicts, with coded tensors. What it puts there would "
        "be lost.",
    ),
    "l": (
        r"may be one entry for each sample, or a part of one sample",
        "The argument is as long as the batch, but it could be a table or a mask without a batch. Say which with "
        '`arguments={"table": "plain"}` (or `"encode"`, `"nearest"`). A call with another batch size before tells too.',
    ),
    "m": (
        r"got a (nested tensor|tensor of layout)",
        "Samples of different lengths and sparse numbers can't be mixed. Give the padded or the dense tensor.",
    ),
}

HEAD = f"""# Which blocks can be coded

Each row is a kind of block, each column a check. Every kind goes through every check. `python -m tests.contract.table`
runs the checks and writes this page. The tests in `tests/contract` run them too and fail if a cell differs. The checks
are in `tests/contract/properties.py`, the kinds in `tests/contract/kinds.py`. *By hand* means with scipy's splines as
matrices in float64, along the batch axes that the kind states.

- **{WORKS}**: works
- **a letter**: refused with an error that says what to do ([below](#what-is-refused))
- **{TORCH}**: does not work in torch for the bare model either (torch cannot pickle a parametrized module, and a
  checkpoint's input must not be overwritten)
- **{MATH}**: torch's fused attention kernels have no second derivative, coded or not. It works inside
  `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`. Our `gradient_penalty`, `r1_penalty` and `critic_step` set it
"""

AHEAD_OF_TIME = """\
- **Other backends**: `aot_eager` and inductor compile ahead of time and can differentiate only once. With `aot_eager`,
  output, penalty and first gradients are correct where the column above says yes (tested for a few kinds). A gradient
  penalty through such a block does not work in torch: `gradient_penalty` and `jacobian_penalty` raise an error that
  says why."""

# tests/test_interop.py
WRAPPED = """\
- **DataParallel**: On one device, and on a CPU, it calls the model itself, and all holds. On several it runs copies of
  the model in threads, and copies can't be coded: blocks inside a wrapper that CodedSmoothing is given are refused (one
  that is put around the model later is not seen). Use DDP.
- **torch.export, ONNX**: An attached model exports as the bare one does, node for node, and so after detach(): there
  are no hooks outside the contexts. Inside observe() the coded pass would be exported too, so export outside."""


def outcome(check, kind) -> str:
    """``yes``, ``torch``, ``math``, or the mark of the refusal; any other error is one."""
    try:
        check(kind)
    except TorchRefuses:
        return TORCH
    except NeedsMathKernel:
        return MATH
    except CsGanError as error:
        marks = [mark for mark, (message, _) in REFUSALS.items() if re.search(message, str(error))]
        if len(marks) != 1:
            raise
        return marks[0]
    return WORKS


def outcomes_of_two_processes() -> dict[str, str]:
    """The DDP column."""
    with tempfile.TemporaryDirectory() as folder:
        run_in_processes("tests.contract.distributed", 2, folder)
        first, second = (json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    return first


def rendered(cells: dict[str, dict[str, str]]) -> str:
    """The page: cells[kind][property]."""
    lines = ["| block | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    lines += [f"| {kind} | " + " | ".join(cells[kind][column] for column in COLUMNS) + " |" for kind in KINDS]
    what = [f"- **{name}**: {' '.join(check.__doc__.split())}" for name, check in PROPERTIES.items()]
    what.append(AHEAD_OF_TIME)
    what.append(
        f"- **{DDP}**: In two processes (gloo) the gradients are the mean of both processes' own, and buffers are the "
        "same as without coding."
    )
    what.append(WRAPPED)
    why = [f"- **{mark}**: {reason}" for mark, (_, reason) in REFUSALS.items()]
    return "\n".join([HEAD, *lines, "\n## What is checked\n", *what, "\n## What is refused\n", *why, ""])


def committed(text: str) -> dict[str, dict[str, str]]:
    """The cells of a page: what :func:`rendered` wrote, read back."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    (_, *columns), _, *body = rows
    return {kind: dict(zip(columns, cells, strict=True)) for kind, *cells in body}


def main() -> None:
    """Run every check and write the page."""
    warnings.simplefilter("ignore")
    before, last = committed(PATH.read_text()), outcomes_of_two_processes()

    def cell(name: str, column: str) -> str:
        try:
            return outcome(PROPERTIES[column], KINDS[name])
        except pytest.skip.Exception as skipped:  # what this machine can't run stays what another one found
            print(f"{name}, {column}: {skipped}", file=sys.stderr)
            return before[name][column]

    cells = {name: {column: cell(name, column) for column in PROPERTIES} | {DDP: last[name]} for name in KINDS}
    PATH.write_text(rendered(cells))
    print(f"{PATH}: {len(KINDS)} kinds of block, {len(COLUMNS)} properties")


if __name__ == "__main__":
    main()
