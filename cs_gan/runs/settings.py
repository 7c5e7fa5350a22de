"""Which settings of a run may change while it is one and the same run."""

# Keys that say how long a run is.
LENGTH = {"training.steps", "training.epochs", "training.schedule_steps"}

# Keys that may change on a resume, because they do not affect training.
FREE_ON_RESUME = {
    *("resume", "extend", "overwrite", "history", "output_dir", "dry_run", "metrics.weights"),
    *("data.root", "data.workers", "data.device", "training.cuda_graph"),
    *("tracking.trackers", "tracking.project", "training.max_minutes", "training.keep_checkpoints"),
    *(f"training.{name}_every" for name in ("checkpoint", "log", "sample", "evaluate")),
}
