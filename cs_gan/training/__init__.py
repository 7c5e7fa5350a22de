"""What a run needs besides its networks: recipe, folder, loop, checkpoints, snapshots, trackers, progress."""

from typing import TYPE_CHECKING

from cs_gan.lazy import lazily

if TYPE_CHECKING:
    from cs_gan.training.capture import CapturedStep, CudaGraphs
    from cs_gan.training.checkpoint import abandon_after, list_checkpoints, read_checkpoint, restore, save_checkpoint
    from cs_gan.training.loop import train
    from cs_gan.training.optimizers import device_options, set_learning_rate, without_dynamo
    from cs_gan.training.progress import Interrupted, Progress, StopRequest
    from cs_gan.training.recipes.parse import as_plain, differences, parse_config, save_config
    from cs_gan.training.script import run_script
    from cs_gan.training.session import Session
    from cs_gan.training.snapshot import Snapshot, find_snapshot, read_snapshot, save_snapshot
    from cs_gan.training.task import State, Task
    from cs_gan.training.unread_losses import UnreadLosses

__all__ = [
    "CapturedStep",
    "CudaGraphs",
    "Interrupted",
    "Progress",
    "Session",
    "Snapshot",
    "State",
    "StopRequest",
    "Task",
    "UnreadLosses",
    "abandon_after",
    "as_plain",
    "device_options",
    "differences",
    "find_snapshot",
    "list_checkpoints",
    "parse_config",
    "read_checkpoint",
    "read_snapshot",
    "restore",
    "run_script",
    "save_checkpoint",
    "save_config",
    "save_snapshot",
    "set_learning_rate",
    "train",
    "without_dynamo",
]

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazily(__name__)
