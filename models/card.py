"""The model card of a generator: network, training and scores, read from its run folder."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

TEMPLATE = Path(__file__).with_name("card.md")
UNKNOWN = "not recorded"
# Keys of a recipe that belong to one machine. Cards are public, so they leave these out.
PRIVATE = ("output_dir", "resume", "dry_run", "tracking")


@dataclass(frozen=True)
class Origin:
    """Where a generator comes from.

    Attributes:
        config: the resolved recipe; empty if it is not known.
        step: the number of training steps, or None.
        evaluations: each has ``scores`` by name and their ``provenance``, which is empty if it is not known.
    """

    config: dict[str, Any] = field(default_factory=dict)
    step: int | None = None
    evaluations: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Data:
    """A data set: its name, its id on the Hub and its licence."""

    title: str
    hub: str | None
    licence: str


_NO_LICENCE = "its authors state no licence"
DATA = {
    "digits": Data(
        "UCI's Optical Recognition of Handwritten Digits (the 1,797 images in scikit-learn)",
        "sklearn-docs/digits",
        "UCI offers it under CC BY 4.0",
    ),
    "cifar10": Data("CIFAR-10", "uoft-cs/cifar10", _NO_LICENCE),
    "cifar100": Data("CIFAR-100", "uoft-cs/cifar100", _NO_LICENCE),
    "mnist": Data("MNIST", "ylecun/mnist", _NO_LICENCE),
    "svhn": Data("SVHN (cropped digits)", "ufldl-stanford/svhn", "its authors allow non-commercial use alone"),
    "stl10": Data("STL-10", None, f"{_NO_LICENCE}, and its images are ImageNet's, under ImageNet's terms"),
    "fashion_mnist": Data("Fashion-MNIST", "zalando-datasets/fashion_mnist", "it comes under the MIT licence"),
    "tiny_imagenet": Data(
        "Tiny ImageNet",
        "zh-plus/tiny-imagenet",
        f"{_NO_LICENCE}, and its images are ImageNet's, under ImageNet's terms",
    ),
    "celeba": Data("CelebA", "flwrlabs/celeba", "its agreement allows non-commercial research alone"),
}


def _of_hub(name: str | None) -> Data | None:
    """The data set that ``hf:<owner>/<name>`` or ``hf:<owner>/<name>/<folder>`` names; None for another name."""
    if not name or not name.startswith("hf:"):
        return None
    hub = "/".join(name.removeprefix("hf:").split("/")[:2])
    return Data(hub, hub, "its page on the Hub states its licence")


def read_origin(path: Path, metadata: dict[str, str]) -> Origin:
    """Where a snapshot comes from, according to its metadata and the files beside it."""
    metadata_values = {key: json.loads(metadata.get(key, "null")) for key in ("config", "step", "scores")}
    evaluations = list(_evaluations(path, metadata_values["step"]))
    if not evaluations and metadata_values["scores"]:
        evaluations = [{"scores": metadata_values["scores"], "provenance": {}}]
    return Origin(metadata_values["config"] or {}, metadata_values["step"], evaluations)


def _evaluations(path: Path, step: int | None) -> Iterator[dict[str, Any]]:
    """The run's evaluation at this step (the full one, if any), and those that evaluate.py made of this file."""
    folder, yielded = path.parent, list[dict[str, float]]()
    full = [row for scores in _objects(folder / "scores.json") for row in (scores.get("final"), scores.get("best"))]
    # The last line of metrics.jsonl for the step, because a resume may write a step again.
    in_run = _at(step, full)[:1] or _at(step, _objects(folder / "metrics.jsonl"))[-1:]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    later = [row for file in sorted(folder.glob("score-*.json")) for row in _objects(file) if _is_scored(row)]
    for row in [*in_run, *(row for row in later if row["provenance"].get("snapshot_sha256") == digest)]:
        if row["scores"] not in yielded:
            yielded.append(row["scores"])
            yield {key: row[key] for key in ("scores", "provenance")}


def _at(step: int | None, rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [row for row in rows if _is_scored(row) and row.get("step") == step]


def _is_scored(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(key), dict) and row[key] for key in ("scores", "provenance")
    )


def _objects(path: Path) -> list[dict[str, Any]]:
    """The object in a JSON file, or the objects in a JSON Lines file. Missing and incomplete ones are left out."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    values = []
    for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
        try:
            values.append(json.loads(part))
        except (ValueError, RecursionError):
            continue
    return [value for value in values if isinstance(value, dict)]


def model_card(
    about: ModelCardData,
    arguments: dict[str, Any],
    image_shape: Sequence[int],
    parameters: int,
    origin: Origin,
    repo_id: str | None = None,
) -> ModelCard:
    """The card of a generator.

    ``about`` is the metadata that all generators have in common, ``arguments`` are those of ``build_gan``.
    ``parameters`` is the number of parameters, and ``repo_id`` the name on the Hub, such as ``someone/digits``.
    """
    name = origin.config.get("data", {}).get("name")
    data = (
        DATA.get(name)
        or _of_hub(name)
        or Data("images that are no public data set", None, "their licence is not recorded")
    )
    title = f"{arguments['name']} trained on {name}" if name else arguments["name"]
    about = ModelCardData(**about.to_dict())
    about.datasets = [data.hub] if data.hub else None
    if origin.config.get("training", {}).get("loss", "wasserstein") != "wasserstein":
        about.tags = [tag for tag in about.tags or [] if tag != "wgan-gp"]
    if arguments.get("class_names"):
        about.tags = [*(about.tags or []), "class-conditional"]
    about.model_name = repo_id.split("/")[-1] if repo_id else title
    about.eval_results = list(_results(origin.evaluations, data, name)) or None
    if not about.eval_results:
        about.model_name = None  # a model-index needs results
    channels, size = image_shape[0], image_shape[-1]
    card: ModelCard = ModelCard.from_template(
        about,
        template_path=str(TEMPLATE),
        title=title,
        shape=f"{size}x{size} {'grey' if channels == 1 else 'RGB'}",
        image_shape=image_shape,
        repo_id=repo_id or "user/name",
        facts=_facts(arguments, parameters, origin, data if name else None),
        # The template reads these two keys of every provenance.
        evaluations=[
            {
                **evaluation,
                "provenance": evaluation["provenance"] and {"reference": {}, "notes": [], **evaluation["provenance"]},
            }
            for evaluation in origin.evaluations
        ],
        command=_command(origin.config),
        recipe=yaml.safe_dump(_public(origin.config), sort_keys=False).strip() if origin.config else "",
        licence=f"{data.title}: {data.licence}." if name else f"The training data is {UNKNOWN}.",
        unknown=UNKNOWN,
    )
    return card


def _results(evaluations: Sequence[dict[str, Any]], data: Data, name: str | None) -> Iterator[EvalResult]:
    """The results for the Hub's model-index: only scores of images with known provenance."""
    counted = ("extractor", "weights_sha256", "num_samples", "num_reference", "seed", "step")
    for evaluation in evaluations:
        provenance = evaluation["provenance"]
        reference = provenance.get("reference", {})
        for score, value in evaluation["scores"].items() if provenance else ():
            if score.endswith(" std") or score == "critic_gap":  # the gap is the critic's
                continue
            yield EvalResult(
                task_type="unconditional-image-generation",
                dataset_type=data.hub or "custom",
                dataset_name=str(reference.get("data", name)),
                dataset_split=reference.get("split"),
                metric_type=re.sub("[^a-z0-9]+", "-", score.lower()).strip("-"),
                metric_name=score,
                metric_value=value,
                metric_args={key: provenance[key] for key in counted if key in provenance},
            )


def _facts(arguments: dict[str, Any], parameters: int, origin: Origin, data: Data | None) -> dict[str, str]:
    """The rows of the table at the top."""
    others = ", ".join(f"{key} {value}" for key, value in arguments.items() if key not in ("name", "class_names"))
    facts = {"network": f"`{arguments['name']}`" + (f" ({others})" if others else ""), "parameters": f"{parameters:,}"}
    if classes := arguments.get("class_names"):
        facts["classes"] = ", ".join(classes[:10]) + (f", ... ({len(classes)})" if len(classes) > 10 else "")
    config, step = origin.config, origin.step
    if data:
        limit = config["data"].get("limit")
        facts["data"] = data.title + (f", {limit:,} of its images" if limit else "")
    if training := config.get("training"):
        of = f"{training.get('batch_size')} images, {training.get('n_critic')} critic updates each"
        facts["training"] = f"{UNKNOWN if step is None else f'{step:,}'} steps of {of}, loss {training.get('loss')}"
    if coded := config.get("coded"):
        facts["coded blocks"] = _coded(coded)
    with suppress(PackageNotFoundError):  # a checkout that isn't installed
        facts["card written by"] = f"cs-gan {version('cs-gan')}"
    return facts | {"licence": "MIT (code and weights)"}


def _coded(coded: dict[str, Any]) -> str:
    descriptions = []
    for part in ("generator", "critic"):
        section = coded.get(part, {})
        share, end = section.get("share"), section.get("weight_end")
        if section.get("blocks") and (section.get("weight") or end or share):
            weight = f"weight {section.get('weight')}" + ("" if end is None else f" to {end}")
            weight = f"held at {share} of the gradient" if share else weight
            blocks = ", ".join(f"`{block}`" if block else "the whole network" for block in section["blocks"])
            descriptions.append(f"{part}: {blocks}, {weight}")
    ratio = f"; N/K from {coded.get('ratio_start')} to {coded.get('ratio_end')}"
    return "; ".join(descriptions) + ratio if descriptions else "none"


def _command(config: dict[str, Any]) -> str:
    places = {
        "data.root": config.get("data", {}).get("root"),
        "metrics.weights": config.get("metrics", {}).get("weights"),
    }
    words = [f"--{key}={shlex.quote('<your path>')}" for key, place in places.items() if place]
    return " ".join(["python train_gan.py --config recipe.yaml", *words])


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """The recipe without the keys that belong to one machine."""
    public = {key: value for key, value in config.items() if key not in PRIVATE}
    for section, key in (("data", "root"), ("metrics", "weights")):
        if section in public:
            public[section] = public[section] | {key: None}
    return public
