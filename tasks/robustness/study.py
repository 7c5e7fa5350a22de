"""Attack all classifiers of a study with PGD and APGD: ``python -m tasks.robustness.study <folder of the study>``.

The networks run without Randomized Coded Inference (for RCI use ``evaluate.py attack``). Writes ``attacks.csv`` with a
line for each run into the folder. Existing results are not computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cs_gan.attacks import apgd, eps_from_pixels, pgd
from cs_gan.data import train_and_test
from cs_gan.data.labelled import labels_of
from cs_gan.errors import ConfigError, CsGanError
from cs_gan.files import file_sha256, write_text
from cs_gan.predictions import predicted_classes
from cs_gan.randomness import stream
from cs_gan.runs import Row, RunFolder
from cs_gan.training import parse_config, read_snapshot
from models import Classifier
from tasks.classifier.load import classifier_of
from tasks.classifier.recipe import ClassifierConfig
from tasks.options import Parser, positive
from tasks.robustness.command import as_csv
from tasks.robustness.ledger import Ledger

UNIT = 128  # images attacked together


def attack_run(folder: RunFolder, images: int, eps: float, steps: int, device: torch.device) -> Row:
    """Accuracies (%) of a run's network on test images: clean, PGD, APGD-CE, APGD-DLR, and under all of them.

    Under ``images`` is how many there were.

    Args:
        images: the largest number of images; the same images for all runs with the same data.
        eps: L-inf radius for pixels in [0, 1].
        steps: of PGD. APGD takes five times as many, which is its usual 100 by default.
    """
    network = classifier_of(read_snapshot(folder.snapshot), folder.snapshot, device)
    config = parse_config(ClassifierConfig, [f"--config={folder.config}"], prog="study_attacks")
    _, test = train_and_test(**config.data.parts(config.seed))
    labels = labels_of(test)
    chosen = torch.randperm(len(test), generator=stream(0, "attacked images"))[:images]
    right: dict[str, list[Tensor]] = {}
    for unit, indices in enumerate(chosen.split(UNIT)):
        x, y = test.batch(indices).to(device), labels[indices].to(device)
        for name, correct in attack_unit(network, x, y, unit, eps_from_pixels(eps), steps).items():
            right.setdefault(name, []).append(correct)
    joined = {name: torch.cat(parts) for name, parts in right.items()}
    joined["all"] = torch.stack(list(joined.values())).all(0)
    percents = {name: 100 * correct.double().mean().item() for name, correct in joined.items()}
    return {"images": len(chosen)} | percents


def attack_unit(
    network: Classifier, images: Tensor, labels: Tensor, unit: int, eps: float, steps: int
) -> dict[str, Tensor]:  # (K, C, H, W), (K,) -> (K,) each
    """Whether each image is classified correctly, clean and under each attack (Madry 2018; Croce and Hein 2020)."""
    attacks = {
        "PGD": partial(pgd, steps=steps),
        "APGD-CE": partial(apgd, steps=5 * steps, loss="ce"),
        "APGD-DLR": partial(apgd, steps=5 * steps, loss="dlr"),
    }
    moved = {"clean": images}
    for name, attack in attacks.items():
        moved[name] = attack(network, images, labels, eps=eps, generator=stream(0, "study attacks", name, unit))
    with torch.no_grad():
        return {name: (predicted_classes(network(x)) == labels).cpu() for name, x in moved.items()}


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = Parser(prog="python -m tasks.robustness.study", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="folder of the study, such as samples/studies/classifier_5k")
    parser.add_argument("--images", type=positive, default=1000, help="number of test images (%(default)s)")
    parser.add_argument("--eps", type=float, default=2 / 255, help="L-inf, for pixels in [0, 1] (2/255)")
    parser.add_argument(
        "--steps", type=positive, default=20, help="steps of PGD; APGD takes five times as many (%(default)s)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    arguments = parser.parse_args(words)
    try:
        attack_study(arguments.folder, arguments.images, arguments.eps, arguments.steps, torch.device(arguments.device))
    except CsGanError as error:
        print(f"study_attacks: {error}", file=sys.stderr)
        return 2
    return 0


def attack_study(folder: Path, images: int, eps: float, steps: int, device: torch.device) -> None:
    """Attack every finished run in the folder of a study, and write the table."""
    # scores.json is written last, so a run without it is not finished.
    runs = [RunFolder(path.parent) for path in sorted(folder.glob("runs/*/scores.json"))]
    if not runs:
        raise ConfigError(f"{folder}: no finished run in its runs/. Give the folder of a study that has run.")
    ledger, rows = Ledger(folder / "attacks.jsonl"), []
    for run in runs:
        key = f"{file_sha256(run.snapshot)}|{images}|{eps!r}|{steps}"
        result = ledger.get(key, partial(attack_run, run, images, eps, steps, device))
        rows.append({"run": run.path.name, "images": images, "eps": eps, "steps": steps} | result)
        accuracies = ", ".join(f"{name} {value:.1f} %" for name, value in result.items() if name != "images")
        print(f"{run.path.name}, {rows[-1]['images']} images: {accuracies}", flush=True)
    write_text(folder / "attacks.csv", as_csv(rows))


if __name__ == "__main__":
    sys.exit(main())
