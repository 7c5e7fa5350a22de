"""Train a WGAN-GP with coded blocks: ``accelerate launch train_gan.py --config configs/gan/<recipe>.yaml``.

Any key of the recipe can be given as ``--key=value``; ``--help`` lists them. A step is one generator update.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cs_gan import CodedSmoothing, Linear
from cs_gan.data import ImageStore, batch_indices, load_images
from cs_gan.errors import ConfigError, CsGanError, DivergedError
from cs_gan.gan import averaged, critic_step, generator_step
from cs_gan.metrics import Evaluator, to_uint8
from cs_gan.randomness import derive_seed, stream
from cs_gan.report import save_curve, save_grid
from cs_gan.training import (
    GanConfig,
    Progress,
    RunFolder,
    StopRequest,
    abandon_after,
    append_row,
    as_plain,
    differences,
    drop_rows_from,
    list_checkpoints,
    parse_config,
    read_checkpoint,
    read_rows,
    restore,
    save_checkpoint,
    save_config,
    save_snapshot,
)
from models import build_gan

# What a resumed run may do differently without becoming another run.
FREE_ON_RESUME = ("resume", "output_dir", "data.root", "training.max_minutes", "metrics.weights")
FREE_ON_RESUME += tuple(f"training.{name}" for name in ("checkpoint_every", "keep_checkpoints", "log_every"))
SAMPLES = 64


@dataclass
class Run:
    """Everything a step uses. ``generator`` and ``critic`` may be wrapped; ``bare_*`` are the networks."""

    config: GanConfig
    accelerator: Accelerator
    folder: RunFolder
    store: ImageStore
    generator: nn.Module
    critic: nn.Module
    bare_generator: nn.Module
    bare_critic: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    ema: AveragedModel
    coded_generator: CodedSmoothing | None
    coded_critic: CodedSmoothing | None
    evaluator: Evaluator | None
    precision: str
    losses: dict[str, list[float]] = field(default_factory=dict)  # since the last line of log.csv

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks a checkpoint holds."""
        return {"generator": self.bare_generator, "critic": self.bare_critic, "ema": self.ema}

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.accelerator.is_main_process

    @property
    def circumstances(self) -> dict[str, Any]:
        """What a step depends on beside the configuration, so that a resume can hold it to the same."""
        return {
            "processes": self.accelerator.num_processes,
            "images": self.store.fingerprint,
            "precision": self.precision,
        }


def build(config: GanConfig, stack: ExitStack) -> Run:
    """Data, networks, coded blocks and scores, all checked before the first step.

    The run folder is held until ``stack`` closes.
    """
    accelerator = _accelerator()
    folder = RunFolder(Path(config.output_dir))
    if accelerator.is_main_process:
        stack.enter_context(folder.occupied())
    with accelerator.local_main_process_first():  # one process downloads
        data = config.data
        store = load_images(
            data.name,
            data.root,
            image_size=data.image_size,
            limit=data.limit,
            progress=accelerator.is_main_process and sys.stderr.isatty(),
        )

    torch.manual_seed(derive_seed(config.seed, "weights"))
    try:
        generator, critic = build_gan(config.model.name, channels=store.image_shape[0], **config.model.overrides())
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if generator.image_shape != store.image_shape:
        raise ConfigError(
            f"{config.model.name} makes images of {generator.image_shape}, and {store.description} holds "
            f"{store.image_shape}: set --data.image_size={generator.image_shape[-1]} or another --model.name."
        )
    # channels_last is worth 20 to 30 % of a step on CPU, and tensor cores want it too.
    generator.to(accelerator.device, memory_format=torch.channels_last)
    critic.to(accelerator.device, memory_format=torch.channels_last)
    adam = partial(torch.optim.Adam, lr=config.training.learning_rate, betas=config.training.betas)
    optimizers = {"generator": adam(generator.parameters()), "critic": adam(critic.parameters())}
    # Distributed buckets lay 1x1 weights out otherwise; copying them is nothing worth a warning.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    wrapped_generator, wrapped_critic = accelerator.prepare(generator, critic)
    return Run(
        config,
        accelerator,
        folder,
        store,
        generator=wrapped_generator,
        critic=wrapped_critic,
        bare_generator=generator,
        bare_critic=critic,
        optimizers=optimizers,
        ema=averaged(generator, config.training.ema_decay),
        coded_generator=_coded(config, generator, "generator"),
        coded_critic=_coded(config, critic, "critic"),
        precision=_precision(config),
        evaluator=_evaluator(config, store, accelerator),
    )


def _accelerator() -> Accelerator:
    # One rank scores while the others wait, for longer than the default time-out.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=4))
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[patience])  # precision is set in train_step
    kind, compiler = accelerator.distributed_type.value, accelerator.state.dynamo_plugin.backend.value
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU") or compiler.upper() != "NO":
        raise ConfigError(
            f"accelerate is set to {kind} with compiler {compiler}: the gradient penalty's second derivatives need "
            "plain data parallelism. Run `accelerate config` without DeepSpeed, FSDP and dynamo."
        )
    return accelerator


def _precision(config: GanConfig) -> str:
    """The forward passes' precision: the recipe's, else what ``accelerate launch`` was told."""
    asked = config.training.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", "bf16"):
        raise ConfigError(f"mixed precision {asked!r}: second derivatives overflow in it; use bf16 or no.")
    return asked


def _coded(config: GanConfig, network: nn.Module, part: str) -> CodedSmoothing | None:
    choice, coded = getattr(config.coded, part), config.coded
    if not choice.blocks or not (choice.weight or choice.weight_end):
        return None
    ratio = Linear(coded.ratio_start, coded.ratio_end)
    seed = derive_seed(config.seed, part)
    weight = choice.weight if choice.weight_end is None else Linear(choice.weight, choice.weight_end)
    smoothing = CodedSmoothing(network, choice.blocks, ratio, weight=weight, seed=seed, **coded.options())
    training = config.training
    batch = (part == "generator" and training.generator_batch_size) or training.batch_size
    for step in (0, training.steps):  # a code that can't be built is refused now, not hours from here
        smoothing.set_step(step, training.steps)
        smoothing.code(batch)
    return smoothing


def _evaluator(config: GanConfig, store: ImageStore, accelerator: Accelerator) -> Evaluator | None:
    metrics = config.metrics
    if metrics.extractor == "none" or not accelerator.is_main_process:
        return None
    return Evaluator(
        metrics.extractor,
        store.images,
        reference_name=store.fingerprint,
        num_samples=metrics.num_samples,
        num_reference=metrics.num_reference,
        batch_size=metrics.batch_size,
        device=accelerator.device,
        weights=Path(metrics.weights) if metrics.weights else None,
        progress=sys.stderr.isatty(),
    )


# -- one step --------------------------------------------------------------------------------------


def train_step(run: Run, step: int) -> dict[str, Tensor]:
    """``n_critic`` updates of the critic and one of the generator, all drawn from (seed, step, rank)."""
    config, training = run.config, run.config.training
    rank, device = run.accelerator.process_index, run.accelerator.device
    autocast = _autocast(run)
    shared: dict[str, Any] = {"autocast": autocast, "backward": run.accelerator.backward}
    torch.manual_seed(derive_seed(config.seed, "step", step, rank))  # for networks that draw, such as dropout
    factor = 1 - step / training.steps if training.decay == "linear" else 1.0
    for optimizer in run.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * factor
    for coded in (run.coded_generator, run.coded_critic):
        if coded:
            coded.set_step(step, training.steps)

    for draw in range(step * training.n_critic, (step + 1) * training.n_critic):
        real = real_batch(run, draw)
        with torch.no_grad(), autocast():
            fake = run.bare_generator(latents(run, len(real), "critic", draw))
        alpha = torch.rand(len(real), generator=stream(config.seed, "alpha", draw, rank)).to(device)
        losses = critic_step(
            run.critic,
            run.optimizers["critic"],
            real,
            fake.float(),
            alpha,
            penalty_weight=training.gradient_penalty,
            coded=run.coded_critic,
            coded_on=config.coded.critic.observe,
            **shared,
        )
    z = latents(run, training.generator_batch_size or training.batch_size, "generator", step)
    losses |= generator_step(
        run.generator, run.bare_critic, run.optimizers["generator"], z, coded=run.coded_generator, **shared
    )
    run.ema.update_parameters(run.bare_generator)
    return losses


def real_batch(run: Run, draw: int) -> Tensor:  # -> (B, C, H, W) in [-1, 1]
    """The ``draw``-th batch of this rank, on its device."""
    data, seed, rank = run.config.data, run.config.seed, run.accelerator.process_index
    size, world = run.config.training.batch_size, run.accelerator.num_processes
    indices = batch_indices(len(run.store), size, draw, seed=seed, rank=rank, world_size=world)
    noise = stream(seed, "augmentation", draw, rank)
    batch = run.store.batch(indices, generator=noise, flip=data.flip, dequantize=data.dequantize)
    return batch.to(run.accelerator.device, memory_format=torch.channels_last, non_blocking=True)


def latents(run: Run, count: int, purpose: str, draw: int) -> Tensor:  # -> (count, latent_dim)
    """Standard normal latents of this rank."""
    generator = stream(run.config.seed, "latents", purpose, draw, run.accelerator.process_index)
    return torch.randn(count, run.ema.module.latent_dim, generator=generator).to(run.accelerator.device)


def _autocast(run: Run) -> Callable[[], AbstractContextManager[Any]]:
    if run.precision == "no":
        return nullcontext
    return partial(torch.autocast, run.accelerator.device.type, torch.bfloat16)


# -- what happens between steps --------------------------------------------------------------------


def record(run: Run, done: int, losses: dict[str, Tensor], progress: Progress) -> None:
    """Keep the losses of a step; refuse to go on from one that is not finite; every so often a line of log."""
    values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        kept = list_checkpoints(run.folder.checkpoints)
        raise DivergedError(
            f"step {done}: {', '.join(bad)} is not finite. "
            + (f"The last good checkpoint is {kept[-1]}. " if kept else "No checkpoint was written yet. ")
            + "Try a smaller training.learning_rate or coded weight."
        )
    for name, value in values.items():
        run.losses.setdefault(name, []).append(value)
    if done % run.config.training.log_every == 0:
        means = {name: sum(kept) / len(kept) for name, kept in run.losses.items()}
        run.losses.clear()
        speed = progress.show(means)
        coded = run.coded_critic or run.coded_generator
        if coded:
            means["ratio"] = coded.ratio
        if run.is_main:
            append_row(run.folder.log, {"step": done, **means, "images_per_second": round(speed, 1)})


def sample(run: Run, done: int) -> None:
    """A grid from latents that are the same at every step."""
    z = torch.randn(SAMPLES, run.ema.module.latent_dim, generator=stream(run.config.seed, "grid"))
    with torch.no_grad():
        images = to_uint8(run.ema.module(z.to(run.accelerator.device)))
    for path in (run.folder.grid_at(done), run.folder.grid):
        save_grid(path, images)


def evaluate(run: Run, done: int, progress: Progress) -> None:
    """Score the averaged generator and redraw the curve."""
    if run.evaluator is None:
        return
    scores = run.evaluator(run.ema.module, seed=run.config.seed)
    row = {"step": done, **{name: f"{value:.6g}" for name, value in scores.values.items()}}
    append_row(run.folder.metrics, row | {"seconds": round(scores.provenance["seconds"], 1)})
    run.folder.provenance.write_text(json.dumps(scores.provenance, indent=2))
    save_curve(run.folder.curve, {run.folder.path.name: run.folder.metrics})
    notes = "".join(f" ({note})" for note in scores.provenance["notes"])
    progress.say(f"step {done}: {scores.primary} = {scores.values[scores.primary]:.4g}{notes}")


def checkpoint(run: Run, done: int) -> None:
    """Write what a resume needs, and the generator for use."""
    config = as_plain(run.config)
    kept = [value for module in run.modules.values() for value in module.state_dict().values()]
    kept += [value for optimizer in run.optimizers.values() for s in optimizer.state.values() for value in s.values()]
    if not all(bool(torch.isfinite(value).all()) for value in kept):
        raise DivergedError(
            f"step {done}: weights are not finite, and no checkpoint is written over the last good one."
        )
    keep = run.config.training.keep_checkpoints
    state = {"config": config, "circumstances": run.circumstances, "losses": run.losses}
    save_checkpoint(run.folder.checkpoints, done, run.modules, run.optimizers, state, keep)
    save_snapshot(run.folder.snapshot, run.ema.module, config, done)


def resume(run: Run) -> int:
    """The step to go on from: that of the checkpoint asked for, or 0."""
    asked, folder = run.config.resume, run.folder
    found = list_checkpoints(folder.checkpoints)
    if asked == "never" and found:
        raise ConfigError(f"{folder.path} holds a run: give another --output_dir, or --resume=auto to go on with it.")
    if asked == "never" or (asked == "auto" and not found):
        return 0
    path = found[-1] if asked == "auto" else Path(asked)
    tensors, state = read_checkpoint(path)
    free = FREE_ON_RESUME if run.config.scheduled else (*FREE_ON_RESUME, "training.steps")
    changed = [line for line in differences(state["config"], as_plain(run.config)) if line.split(":")[0] not in free]
    before, now = state["circumstances"], run.circumstances
    changed += [f"{key}: {before[key]} -> {now[key]}" for key in now if before[key] != now[key]]
    if changed:
        raise ConfigError(f"{path} belongs to another recipe; changed since: {'; '.join(changed)}.")
    restore(tensors, state, run.modules, run.optimizers)
    run.losses = state["losses"]
    run.accelerator.wait_for_everyone()  # all have read before anything moves
    if run.is_main:
        abandon_after(folder.checkpoints, int(state["step"]))
    return int(state["step"])


def _stopping(run: Run, stop: StopRequest) -> bool:
    """Whether any process wants to stop; all of them agree on the step."""
    asked = bool(stop)
    if run.accelerator.num_processes == 1:
        return asked
    votes = run.accelerator.reduce(torch.tensor(float(asked), device=run.accelerator.device), "sum")
    return bool(votes.item())


# -- the run ---------------------------------------------------------------------------------------


def train(run: Run) -> str:
    """All steps, from the checkpoint on if there is one; returns why it ended early, or nothing."""
    training, folder = run.config.training, run.folder
    first = resume(run)
    if run.is_main:
        for table in (folder.log, folder.metrics):
            drop_rows_from(table, first + 1 if first else 0)  # what this run writes again
        save_config(run.config, folder.config)
    stop = StopRequest(training.max_minutes)
    progress = Progress(first, training.steps, shown=run.is_main)
    progress.say(_opening(run, first))
    if run.is_main and first == 0:
        sample(run, 0)
        evaluate(run, 0, progress)
    progress.pause()
    ended = ""
    for step in range(first, training.steps):
        losses = train_step(run, step)
        done = step + 1
        progress.step(training.batch_size * training.n_critic * run.accelerator.num_processes)
        record(run, done, losses, progress)

        stopping = _stopping(run, stop)
        last = done == training.steps or (stopping and not stop.signal)
        due = {name: last or _due(done, getattr(training, f"{name}_every")) for name in ("sample", "evaluate")}
        if run.is_main and not stop.signal:
            if due["sample"]:
                sample(run, done)
            if due["evaluate"]:
                evaluate(run, done, progress)
        due["checkpoint"] = last or stopping or _due(done, training.checkpoint_every)
        if run.is_main and due["checkpoint"]:
            checkpoint(run, done)
        if any(due.values()):
            run.accelerator.wait_for_everyone()
            progress.pause()
        if stopping:
            ended = stop.reason or "another process was stopped"
            break
    progress.close()
    if run.is_main:
        print(_closing(run, ended))
    return "" if not stop.signal else ended


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _opening(run: Run, first: int) -> str:
    def count(network: nn.Module) -> str:
        return f"{sum(p.numel() for p in network.parameters()):,}"

    lines = [
        run.store.description,
        f"{run.config.model.name}: generator {count(run.bare_generator)}, critic {count(run.bare_critic)} parameters; "
        f"{run.accelerator.num_processes} x {_device(run.accelerator)}",
    ]
    for part, coded in (("generator", run.coded_generator), ("critic", run.coded_critic)):
        if coded:
            lines.append(f"{part} coded at {', '.join(coded.blocks)}, weight {getattr(run.config.coded, part).weight}")
    lines.append(f"Going on from step {first}." if first else f"Writing to {run.folder.path}")
    return "\n".join(lines)


def _device(accelerator: Accelerator) -> str:
    device, used, cores = accelerator.device.type, torch.get_num_threads(), os.cpu_count() or 1
    if device != "cpu" or accelerator.num_processes * used >= cores:
        return device
    # accelerate launch sets OMP_NUM_THREADS=1 unless it is told otherwise
    share = cores // accelerator.num_processes
    return (
        f"cpu, {used} of {cores} cores each (`accelerate launch --num_cpu_threads_per_process {share}` uses them all)"
    )


def _closing(run: Run, ended: str) -> str:
    folder, rows = run.folder, read_rows(run.folder.metrics)
    auto = "" if run.config.resume == "auto" else " with --resume=auto"
    lines = [f"Ended early: {ended}. The same command{auto} goes on from here." if ended else "Done."]
    if folder.grid.exists():
        lines.append(f"  samples    {folder.grid}")
    if rows:
        name = next(key for key in rows[0] if key != "step")
        lines.append(f"  curve      {folder.curve}")
        lines.append(
            f"  score      {name}: {rows[0][name]} at step {rows[0]['step']}, {rows[-1][name]} at {rows[-1]['step']}"
        )
    lines += [f"  losses     {folder.log}", f"  generator  {folder.snapshot}", f"  checkpoint {folder.checkpoints}"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 when done, 2 for what the user can mend, 130 after Ctrl-C, 143 after SIGTERM."""
    try:
        with ExitStack() as stack:
            run = build(parse_config(arguments), stack)
            ended = train(run)
            run.accelerator.end_training()
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint stands.", file=sys.stderr)
        return 130
    except (CsGanError, OSError) as error:  # OSError: a full disk, a file that can't be read
        print(f"error: {error}", file=sys.stderr)
        return 2
    return {"": 0, "SIGINT received": 130}.get(ended, 143)


if __name__ == "__main__":
    sys.exit(main())
