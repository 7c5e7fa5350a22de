"""The setup of a robustness evaluation: networks, images and budget, checked. It computes the planned rows."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cs_gan
from cs_gan import RandomizedCodedInference
from cs_gan.attacks import (
    Budget,
    DefenceReport,
    Score,
    eps_from_pixels,
    evaluate_defence,
    evaluate_threat,
    exercise_batch_sizes,
)
from cs_gan.data.labelled import labels_of
from cs_gan.errors import ConfigError
from cs_gan.files import file_sha256
from cs_gan.randomness import stream
from cs_gan.runs import Row
from cs_gan.supervised import accuracy
from cs_gan.training import Snapshot, find_snapshot, parse_config, read_snapshot
from models import Classifier
from tasks.classifier.load import classifier_of, data_of, shuffled
from tasks.classifier.recipe import ClassifierConfig
from tasks.job import Job
from tasks.robustness.plan import DEFENDED, PLAIN, UNDEFENDED, PlannedRow


class AttackSetup:
    """The networks, the images and the budget of the attacks, checked."""

    def __init__(self, job: Job) -> None:
        self.job, arguments = job, job.arguments
        self.output: Path | None = arguments.output
        largest = eps_from_pixels(max(arguments.eps.values()))
        self.budget = Budget(
            largest,
            arguments.norm,
            steps=arguments.steps,
            restarts=arguments.restarts,
            loss=arguments.loss,
            queries=arguments.queries,
        )
        self.network = classifier_of(job.snapshot, job.path, job.device)
        self.other = {name: self._other(name) for name in ("surrogate", "plain") if getattr(arguments, name)}
        self.config = parse_config(ClassifierConfig, job.recipe_words({}, "data"), prog="evaluate.py")
        self.train, self.test = data_of(job, self.config, self.network)
        # In random order, because folders are sorted by class and groups should mix classes.
        count = min(arguments.images, len(self.test))
        chosen = torch.randperm(len(self.test), generator=stream(arguments.seed, "attacked images"))[:count]
        self.images = self.test.batch(chosen).to(job.device, memory_format=torch.channels_last)
        self.labels = labels_of(self.test)[chosen].to(job.device)
        # The bank fills up a short group, as in the scores during training.
        self.bank = self.train.batch(shuffled(self.train)[: arguments.group - 1]).to(job.device)
        self.reference = self.bank if len(self.bank) else None

    def _other(self, name: str) -> tuple[Path, Snapshot, Classifier]:
        path = find_snapshot(getattr(self.job.arguments, name), best=False)
        snapshot = read_snapshot(path)
        network = classifier_of(snapshot, path, self.job.device)
        (classes, shape), (needed_classes, needed_shape) = (
            (model.num_classes, model.input_shape) for model in (network, self.network)
        )
        if (classes, shape) != (needed_classes, needed_shape):
            raise ConfigError(
                f"--{name} {path} is for {classes} classes of {shape} images, but {self.job.path} for "
                f"{needed_classes} of {needed_shape}."
            )
        return path, snapshot, network

    def digest(self, name: str) -> str:
        """SHA-256 of another network's snapshot, or "" if it wasn't given."""
        return file_sha256(self.other[name][0]) if name in self.other else ""

    def provenance(self) -> dict[str, Any]:
        """Everything that the numbers of a row depend on, except its threat and eps."""
        arguments, test = self.job.arguments, self.test
        budget = {key: value for key, value in asdict(self.budget).items() if key not in ("eps", "attack")}
        return {
            **self.job.about,
            "data": {"name": test.name, "split": test.split, "preparation": test.preparation},
            "fingerprint": test.fingerprint,
            "images": len(self.images),
            "images_available": len(test),
            "bank": {"images": len(self.bank), "of": self.train.split, "fingerprint": self.train.fingerprint},
            "budget": budget,
            "rci": {
                "ratio": arguments.ratio,
                "votes": arguments.votes,
                "group": arguments.group,
                "blocks": arguments.blocks,
            },
            "draws": arguments.draws,
            "targets": arguments.targets,
            "seed": arguments.seed,
            "device": self.job.device.type,
            "versions": versions(),
        }

    def others(self) -> dict[str, Any]:
        """Paths and digests of the other networks."""
        paths = {name: str(path) for name, (path, _, _) in self.other.items()}
        return paths | {f"{name}_sha256": self.digest(name) for name in self.other}

    def measure(self) -> Row:
        """Accuracy and cost without an attack, without and with RCI."""
        arguments = self.job.arguments
        report = evaluate_defence(
            self.network, self.images, self.labels, ratio=arguments.ratio, votes=arguments.votes,
            group_size=arguments.group, blocks=arguments.blocks, reference=self.reference,
            draws=arguments.draws, seed=arguments.seed,
        )  # fmt: skip
        return as_row(report)

    def networks(self, defence: Row) -> list[Row]:
        """Clean accuracy of a network trained without coding (if given), of this one without RCI, and with RCI."""
        rows = []
        if "plain" in self.other:
            path, snapshot, network = self.other["plain"]
            parts = zip(self.images.split(256), self.labels.split(256), strict=True)
            right, *_ = accuracy(network, ((i, x, y) for i, (x, y) in enumerate(parts)), device=self.job.device)
            rows.append(
                {"network": PLAIN, "trained": training_of(snapshot), "snapshot": str(path), "accuracy": right / 100}
            )
        about = {"trained": training_of(self.job.snapshot), "snapshot": str(self.job.path)}
        return [
            *rows,
            {"network": UNDEFENDED, **about, "accuracy": defence["plain"]["value"]},
            {"network": DEFENDED, **about, "accuracy": defence["defended"]["mean"]["value"]},
        ]

    def run(self, row: PlannedRow) -> list[Row]:
        """Compute a planned row. A row for batch sizes gives several results."""
        arguments = self.job.arguments
        common = {"group_size": arguments.group, "seed": arguments.seed}
        if row.network == DEFENDED:
            defence: nn.Module = RandomizedCodedInference(
                self.network, arguments.ratio, blocks=arguments.blocks, votes=arguments.votes, reference=self.reference,
                seed=arguments.seed,
            )  # fmt: skip
        else:
            defence = self.network if row.network == UNDEFENDED else self.other["plain"][2]
        try:
            if row.sizes:
                rows = exercise_batch_sizes(defence, self.images, self.labels, row.budget, **common)
            else:
                counts = {"draws": arguments.draws if row.network == DEFENDED else 1, "targets": arguments.targets}
                surrogate = self.other["surrogate"][2] if "surrogate" in self.other else None
                rows = [
                    evaluate_threat(
                        row.threat,
                        defence,
                        self.images,
                        self.labels,
                        row.budget,
                        surrogate=surrogate,
                        **common,
                        **counts,
                    )
                ]
        finally:
            if isinstance(defence, RandomizedCodedInference):
                defence.coded.detach()
        return [result.as_dict() for result in rows]


def training_of(snapshot: Snapshot) -> str:
    """The training method of a network, in a few words."""
    method = snapshot.config.get("method", {})
    coded = method.get("coded", {})
    words = [f"coded, mu {coded.get('mu')}"] if coded.get("blocks") else []
    words += [name for name in ("mixup", "cutmix", "manifold_mixup") if method.get(name, {}).get("alpha")]
    words += [name for name in ("label_smoothing", "logit_norm", "jacobian") if method.get(name)]
    return ", ".join(words).replace("_", " ") or "ERM"


def as_row(report: DefenceReport) -> Row:
    """A defence report in JSON values."""
    flat = {key: value for key, value in vars(report).items() if key not in ("plain", "defended")}
    score: Score = report.defended
    three = {name: getattr(score, name)._asdict() for name in ("mean", "worst", "majority")}
    return {
        "plain": report.plain._asdict(),
        "defended": {**three, "n": score.n, "draws": score.draws},
        **flat,
        "slowdown": report.slowdown,
    }


def versions() -> dict[str, str]:
    """Versions of the packages that compute the numbers."""
    numbers = {"cs_gan": cs_gan.__version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("numpy", "scipy", "pyautoattack"):
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            numbers[name] = "none"
    return numbers
