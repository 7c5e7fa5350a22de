"""Variables that Accelerate reads: what would change a run without a word is refused by name."""

import re
from pathlib import Path

import accelerate
import pytest

from cs_gan.errors import ConfigError
from cs_gan.training.environment import refuse_what_changes_a_run

REFUSED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_DYNAMO_BACKEND": "inductor",
    "ACCELERATE_FP8_BACKEND": "TE",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_USE_FSDP": "True",
    "ACCELERATE_USE_MEGATRON_LM": "true",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "ACCELERATE_USE_SAGEMAKER": "true",
}
# What `accelerate launch` sets for plain data parallelism.
LAUNCHED = {
    "ACCELERATE_USE_CPU": "True",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_CPU_AFFINITY": "1",
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_variable_that_changes_a_run_is_refused(name):
    with pytest.raises(ConfigError, match=rf"{name}={REFUSED[name]} is set in the environment: .*[Uu]nset"):
        refuse_what_changes_a_run({**LAUNCHED, name: REFUSED[name]}, 1)


@pytest.mark.parametrize(
    "environment",
    [
        LAUNCHED,
        {},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1", "ACCELERATE_USE_FSDP": "false", "ACCELERATE_FP8_BACKEND": "NO"},
        {"ACCELERATE_USE_DEEPSPEED": "", "ACCELERATE_TORCH_DEVICE": "cpu"},
    ],
)
def test_what_changes_nothing_passes(environment):
    refuse_what_changes_a_run(environment, 1)


def test_one_device_for_several_processes_is_refused():
    refuse_what_changes_a_run({"ACCELERATE_TORCH_DEVICE": "cuda:0"}, 1)
    with pytest.raises(ConfigError, match=r"ACCELERATE_TORCH_DEVICE=cuda:0 .* all 2 processes"):
        refuse_what_changes_a_run({"ACCELERATE_TORCH_DEVICE": "cuda:0"}, 2)


def test_every_variable_of_accelerate_is_in_the_table():
    """docs/multi-gpu.md says of each variable that the installed Accelerate reads what becomes of it."""
    package = Path(accelerate.__file__).parent
    files = [
        path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in ("commands", "test_utils")
    ]
    read = {name for path in files for name in re.findall(r"ACCELERATE_[A-Z0-9_]*[A-Z0-9]", path.read_text())}
    page = (Path(__file__).parents[2] / "docs" / "multi-gpu.md").read_text()
    # `ACCELERATE_DYNAMO_*` stands for all that begin so.
    known = {name.rstrip("*") for name in re.findall(r"`(ACCELERATE_[A-Z0-9_]+\*?)", page)}
    begins = tuple(name for name in known if name.endswith("_"))
    missing = {name for name in read if name not in known and not f"{name}_".startswith(begins)}
    assert not missing
    assert set(REFUSED) <= {name for name in read if name in known or name.startswith(begins)}
