"""What a run needs beside its networks: configuration, folder, checkpoints, snapshots, progress."""

from cs_gan.training.checkpoint import abandon_after, list_checkpoints, read_checkpoint, restore, save_checkpoint
from cs_gan.training.config import GanConfig, as_plain, differences, parse_config, save_config
from cs_gan.training.progress import Progress, StopRequest
from cs_gan.training.run_folder import RunFolder, append_row, drop_rows_from, read_rows
from cs_gan.training.snapshot import read_snapshot, save_snapshot

__all__ = [
    "GanConfig",
    "Progress",
    "RunFolder",
    "StopRequest",
    "abandon_after",
    "append_row",
    "as_plain",
    "differences",
    "drop_rows_from",
    "list_checkpoints",
    "parse_config",
    "read_checkpoint",
    "read_rows",
    "read_snapshot",
    "restore",
    "save_checkpoint",
    "save_config",
    "save_snapshot",
]
