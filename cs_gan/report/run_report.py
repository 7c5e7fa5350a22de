"""The report of one run: ``report.html``, one self-contained file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cs_gan.report.groups import score_conflicts
from cs_gan.report.page import MOST_GRIDS, Frame, evenly, frame, number, with_spread, write_page
from cs_gan.report.panels import log_panels, points_averaged, score_panels
from cs_gan.report.run import Run, command_of, read_run, score_names, shown
from cs_gan.report.svg import layout
from cs_gan.runs import Evaluation, RunFolder, best, is_number

KEY_FACTS = {"data.name": "Data", "model.name": "Model", "seed": "Seed"}
STRIPS = {
    "interpolation": (
        "Interpolation",
        "Each row goes from one latent to another. Smooth changes between good images are better than jumps, or than "
        "rows that hardly change.",
    ),
    "nearest": (
        "Nearest training images",
        "Each row is a generated image and the training images nearest to it. A copy is a bad sign: the generator "
        "then remembers images. Images that are alike but not the same are better.",
    ),
}
NEXT_LINE = " \\\n  "  # a line break in a shell command


def save_report(path: Path, run: Path) -> None:
    """Write everything known about a run as one HTML file, atomically.

    Missing parts are left out. The file makes no requests. Its size is limited: at most 24 grids, as JPEG.

    Raises:
        DataError: if ``run`` is not a run folder.
    """
    contents = read_run(run)
    evaluations = contents.evaluations
    last, top = contents.last, contents.best
    write_page(
        path,
        "run.html",
        run=contents,
        total=_total_steps(contents),
        facts=_facts(contents),
        last=last,
        best=top,
        best_of_curve=best(evaluations),
        frames=_frames(contents.grids),
        real=frame("real images", RunFolder(run).real),
        strips=_strips(contents),
        score_charts=[layout(panel) for panel in score_panels({"": [evaluations]})],
        log_charts=[layout(panel) for panel in log_panels(contents.log)],
        averaged=points_averaged(contents.log),
        columns=score_names(evaluations),
        rows=[_row(evaluation, score_names(evaluations)) for evaluation in evaluations],
        provenance=_provenance([last, top or last]) if last else {},
        conflicts=score_conflicts([evaluations]),
        commands=_commands(contents),
    )


def _total_steps(run: Run) -> int | None:
    total = run.config.get("training.steps")
    return total if isinstance(total, int) and total > 0 else None


def _facts(run: Run) -> dict[str, str]:
    facts = {label: str(run.config[key]) for key, label in KEY_FACTS.items() if run.config.get(key) is not None}
    speeds = [line["images_per_second"] for line in run.log if is_number(line.get("images_per_second"))]
    facts |= _data_facts(run)
    return facts | ({"Median speed": f"{number(median(speeds))} images/s"} if speeds else {})


def _data_facts(run: Run) -> dict[str, str]:
    """Path and number of the training images; what is recorded of them in an older run."""
    path = run.data.get("path", run.config.get("data.root"))
    last = run.last.provenance if run.last else {}
    count = run.data.get("count", last.get("trained_on.count"))
    facts = {"Path": str(path)} if path else {}
    return facts | ({"Training images": f"{count:,}"} if isinstance(count, int) else {})


def _strips(run: Run) -> list[tuple[str, str, Frame]]:
    """Title, sentence and picture of each strip, without those of steps that a resume has discarded."""
    folder = RunFolder(run.path)
    strips = []
    for name, (title, sentence) in STRIPS.items():
        picture = frame(title, getattr(folder, name))
        if picture and (picture.step or 0) <= run.steps_done:
            strips.append((title, sentence, picture))
    return strips


def _frames(grids: Sequence[tuple[int | None, Path]]) -> list[Frame]:
    shown = evenly(grids, MOST_GRIDS)
    frames = [frame("newest" if step is None else f"step {step:,}", picture) for step, picture in shown]
    return [picture_frame for picture_frame in frames if picture_frame is not None]


def _row(evaluation: Evaluation, columns: Sequence[str]) -> list[str]:
    """The scores as text, with their recorded deviations."""
    return [with_spread(evaluation.scores.get(name), evaluation.scores.get(f"{name} std")) for name in columns]


def _provenance(evaluations: Sequence[Evaluation]) -> dict[str, list[Any]]:
    """key -> its value for each evaluation."""
    keys = dict.fromkeys(key for evaluation in evaluations for key in evaluation.provenance)
    return {key: [shown(evaluation.provenance.get(key)) for evaluation in evaluations] for key in keys}


def _commands(run: Run) -> dict[str, str]:
    """The commands to resume and to repeat the run; empty if it doesn't say which script started it."""
    folder = run.config.get("output_dir")
    script = re.search(r"[\w-]+\.py\b", command_of(run))
    if not folder or script is None:
        return {}
    recipe = shlex.quote(f"{folder}/config.yaml")
    # A resume needs the same number of processes. accelerate launch would allow only one thread.
    processes = run.last.provenance.get("processes", 1) if run.last else 1
    start = "python" if processes == 1 else f"torchrun --nproc_per_node {processes}"
    launch = f"{start} {script[0]}{NEXT_LINE}--config {recipe}{NEXT_LINE}"
    commands = {"Do it again": f"{launch}--resume=never{NEXT_LINE}--output_dir={shlex.quote(f'{folder}_again')}"}
    total = _total_steps(run)
    if total and run.steps_done < total:
        commands = {"Go on with it": f"{launch}--resume=auto"} | commands
    return commands
