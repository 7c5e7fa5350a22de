"""What Hugging Face Accelerate reads from the environment: the recipe decides, so what would change a run is refused.

Read from accelerate 1.15. docs/multi-gpu.md has a table of all variables.
"""

from __future__ import annotations

from collections.abc import Mapping

from cs_gan.errors import ConfigError

_DATA_PARALLEL = (
    "second derivatives need plain data parallelism. Run `accelerate config` without DeepSpeed, FSDP, Megatron-LM, "
    "SageMaker and other parallelism, or unset the variable."
)

_REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        ("1",),
        "every loss would be divided by it, and the steps don't accumulate. Unset it, and set training.batch_size.",
    ),
    "ACCELERATE_DYNAMO_BACKEND": (
        ("no",),
        "compiled networks have no second derivatives. Run `accelerate config` without dynamo, or unset the variable.",
    ),
    "ACCELERATE_FP8_BACKEND": (
        ("no",),
        "it would change layers to 8 bits. Unset it, and choose training.mixed_precision (no or bf16).",
    ),
    **{
        f"ACCELERATE_USE_{name}": (("false", "0", "no", "n", "f", "off"), _DATA_PARALLEL)
        for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER")
    },
}
"""For each variable the values that change nothing, and why others are refused, with what to do."""


def refuse_what_changes_a_run(environment: Mapping[str, str], processes: int) -> None:
    """Raise ConfigError for a variable that would change a run without a word.

    Args:
        environment: such as ``os.environ``.
        processes: the number that was launched.
    """
    for name, (harmless, reason) in _REFUSED.items():
        value = environment.get(name, "")
        if value and value.lower() not in harmless:
            raise ConfigError(f"{name}={value} is set in the environment: {reason}")
    device = environment.get("ACCELERATE_TORCH_DEVICE")
    if device and processes > 1:
        raise ConfigError(
            f"ACCELERATE_TORCH_DEVICE={device} is set in the environment: all {processes} processes would use this "
            "device. Unset it; each process then takes its own."
        )
