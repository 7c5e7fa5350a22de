"""The environment of a training run: processes, precision, the folder, the trackers."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.distributed.nn  # before there is a process group, which its default arguments would hold to the end
import yaml
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import broadcast, broadcast_object_list
from torch import nn

from cs_gan.errors import ConfigError
from cs_gan.flat_keys import flatten
from cs_gan.precision import cpu_multiplies_bfloat16
from cs_gan.runs import RunFolder
from cs_gan.training.capture import Capture, CudaGraphs
from cs_gan.training.environment import refuse_what_changes_a_run
from cs_gan.training.recipes.parse import as_plain
from cs_gan.training.recipes.sections import RunConfig

# One process may download a data set while the others wait.
PATIENCE = timedelta(hours=1)


Config = TypeVar("Config", bound=RunConfig)
Network = TypeVar("Network", bound=nn.Module)
Value = TypeVar("Value")


class Session(Generic[Config]):
    """The processes of a run, and the files that the first of them writes.

    Args:
        config: the recipe.
        stack: closes everything opened here, such as the lock on the folder.
        command: the command that started the run, if there was one.

    Raises:
        ConfigError: for an unusable launcher setting or tracker, or a folder that can't be written.
    """

    def __init__(self, config: Config, stack: ExitStack, command: str = "") -> None:
        self.config, self.command = config, command
        self.folder = RunFolder(Path(config.output_dir or ""))
        self._trackers = _known_trackers(list(config.tracking.trackers))
        self.accelerator = _accelerator(self._trackers, self.folder.tracking)
        self.precision = _precision(config)
        torch.backends.cudnn.allow_tf32 = config.training.tf32
        torch.backends.cudnn.deterministic = config.training.deterministic
        self.overwrote, config.overwrite = config.overwrite, False  # a resume from the saved recipe must not
        if self.overwrote:
            self._refuse_to_lose_what_is_needed()
        if self.is_main and not config.dry_run:
            stack.enter_context(self.folder.occupied())

    def _refuse_to_lose_what_is_needed(self) -> None:
        """Raise ConfigError for options that continue the run which --overwrite deletes."""
        config, own = self.config, self.folder.path.resolve()
        needed = config.resume not in ("auto", "never") and own in Path(config.resume).resolve().parents
        if needed or config.extend != "never":
            raise ConfigError(
                f"--overwrite deletes the run in {self.folder.path}, which "
                f"{f'--resume={config.resume}' if needed else '--extend'} continues: leave one of them out."
            )

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def processes(self) -> int:
        """The number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def device(self) -> torch.device:
        """This process's device."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def machine(self) -> dict[str, Any]:
        """Everything that the last bits of a result depend on, besides the recipe."""
        return {"device": self.device.type, "threads": torch.get_num_threads(), "torch": torch.__version__}

    @property
    def hardware(self) -> str:
        """Processes and what each computes on, in words."""
        if self.device.type == "cuda":
            return f"{self.processes} x {torch.cuda.get_device_name(self.device)}"
        return f"{self.processes} x {self.device.type} ({platform.machine()}), {torch.get_num_threads()} threads"

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[Any]]:
        """A context for forward passes in the run's precision."""
        if self.precision == "no":
            return nullcontext
        return partial(torch.autocast, self.device.type, torch.bfloat16)

    def capture(self, *obstacles: str) -> tuple[Capture | None, str]:
        """How a step is captured, and a message about it or why it is not captured. No message on a CPU.

        Args:
            obstacles: descriptions of what in the task can't be captured.
        """
        if self.device.type != "cuda":
            return None, ""
        reasons = [f"{self.processes} processes"] if self.processes > 1 else []
        reasons += ["training.cuda_graph is off"] if self.config.training.cuda_graph == "off" else []
        reasons += [obstacle for obstacle in obstacles if obstacle]
        if reasons:
            return None, f"no CUDA graph: {', '.join(reasons)}"
        return CudaGraphs(), "each step runs as one CUDA graph"

    def overwrite(self) -> None:
        """With --overwrite, delete the earlier run. Called when everything is checked, in all processes."""
        if self.overwrote:
            if self.is_main:
                self.folder.clear()
            self.accelerator.wait_for_everyone()  # before the others look for checkpoints

    def describe(self) -> str:
        """Processes and device, for the first lines of a run."""
        kind, used, cores = self.device.type, torch.get_num_threads(), os.cpu_count() or 1
        line = f"{self.processes} x {kind}"
        if kind == "cpu" and self.precision == "bf16" and not cpu_multiplies_bfloat16():
            line += " without bfloat16 in hardware: training.mixed_precision=no is faster"
        if kind != "cpu" or self.processes * used >= cores:
            return line
        # accelerate launch sets OMP_NUM_THREADS=1 by default
        each = cores // self.processes
        hint = f"OMP_NUM_THREADS={each}, or `accelerate launch --num_cpu_threads_per_process {each}`, uses them all"
        return f"{line}, {used} of {cores} cores each ({hint})"

    @property
    def waits_to_read(self) -> bool:
        """Whether reading a number from the device makes the host wait."""
        return self.device.type != "cpu"

    def averages(self, values: torch.Tensor) -> list[float]:  # (n,) -> n numbers
        """Scalars averaged over all processes, on the host, with one exchange and one read."""
        if self.processes > 1:
            values = self.accelerator.reduce(values, "mean")
        averages: list[float] = values.tolist()
        return averages

    def of_first(self, value: Value) -> Value:
        """The first process's value, in all processes. All must call it."""
        return value if self.processes == 1 else broadcast_object_list([value])[0]

    def in_all(self, flag: bool) -> bool:
        """Whether it is true in all processes. All must call it."""
        return self.averages(torch.tensor([float(flag)], device=self.device)) == [1.0]

    def prepared(self, network: Network) -> Network:
        """The network, wrapped if there are several processes. With one, Accelerate's half a second changes nothing."""
        prepared: Network = network if self.processes == 1 else self.accelerator.prepare(network)
        return prepared

    def align_buffers(self, network: nn.Module) -> None:
        """Copy the first process's buffers to all, because batch norm has seen different batches in each."""
        if self.processes > 1:
            for buffer in network.buffers():
                broadcast(buffer)

    # -- trackers ----------------------------------------------------------------------------------

    def start_trackers(self, first: int) -> None:
        """Open the trackers. TensorBoard drops everything after step ``first``, which a resume writes again."""
        if not self._trackers:
            return
        plain = flatten(as_plain(self.config))
        simple = {key: value if isinstance(value, int | float | str) else str(value) for key, value in plain.items()}
        # A second start in the same folder continues the same run if the tracker can.
        name = self.folder.path.name
        identity = self.folder.identity() if self.is_main and "wandb" in self._trackers else None
        options: dict[str, dict[str, Any]] = {
            "tensorboard": {"purge_step": first + 1 if first else 0},
            "wandb": {"name": name, "dir": str(self.folder.path), "id": identity, "resume": "allow"},
            "trackio": {"name": name, "resume": "allow"},
        }
        chosen = {tracker: options[tracker] for tracker in self._trackers if tracker in options}
        self.accelerator.init_trackers(self.config.tracking.project, init_kwargs=chosen)
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":  # by default it would open another folder at every start
                tracker.log({"config": yaml.safe_dump(plain)}, step=first)
            else:
                tracker.store_init_configuration(simple)

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Send scalars to all trackers. Called on all processes; the first one sends."""
        if self._trackers:
            self.accelerator.log(dict(values), step=step)

    def track_image(self, name: str, path: Path, step: int) -> None:
        """Send a picture file to the trackers that support it."""
        takers = [tracker for tracker in self.accelerator.trackers if hasattr(tracker, "log_images")]
        if takers:
            from PIL import Image

            with Image.open(path, formats=("PNG",)) as picture:
                pixels = np.asarray(picture.convert("RGB"))[None]
            for tracker in takers:
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({name: pixels}, step=step, **layout)

    def end_trackers(self) -> None:
        """Let the trackers finish."""
        for tracker in self.accelerator.trackers:
            tracker.finish()


def _accelerator(trackers: list[str], tracking: Path) -> Accelerator:
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    refuse_what_changes_a_run(os.environ, launched)
    accelerator = Accelerator(
        # Without a GPU, Accelerate makes each process a separate run, unless the CPU is requested.
        cpu=launched > 1 and not torch.cuda.is_available(),
        mixed_precision="no",  # the forward passes' precision is set by Session.autocast
        log_with=trackers or None,
        project_dir=tracking,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    kind, compiler = accelerator.distributed_type.value, accelerator.state.dynamo_plugin.backend.value
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU") or compiler.upper() != "NO":
        raise ConfigError(
            f"accelerate is set to {kind} with compiler {compiler}: the gradient penalty's second derivatives need "
            "plain data parallelism. Run `accelerate config` without DeepSpeed, FSDP and dynamo."
        )
    if accelerator.num_processes != launched:
        raise ConfigError(
            f"{launched} processes were launched, but accelerate joined {accelerator.num_processes}: see "
            "docs/multi-gpu.md for configurations that work."
        )
    # Distributed buckets use other strides for 1x1 weights. Copying them is harmless.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return accelerator


def _precision(config: RunConfig) -> str:
    """The precision of forward passes: from the recipe, otherwise from ``accelerate launch``."""
    asked = config.training.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", "bf16"):
        raise ConfigError(f"mixed precision {asked!r}: second derivatives overflow in it. Use bf16 or no.")
    return asked


def _known_trackers(names: list[str]) -> list[str]:
    # Accelerate silently leaves out a tracker that isn't installed.
    installed = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(LOGGER_TYPE_TO_CLASS)
            raise ConfigError(f"tracking.trackers: {name!r} is unknown. Choose from {known}, or none.")
        if name not in installed:
            raise ConfigError(
                f"tracking.trackers: {name} isn't installed. `pip install {name}`, or --tracking.trackers=none."
            )
    return names
