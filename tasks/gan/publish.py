"""Publish a trained generator on the Hugging Face Hub, with a model card that has its scores."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from cs_gan.errors import ConfigError
from tasks.gan.commands import empty_folder
from tasks.job import Command, Job


def publish(job: Job) -> None:
    """Push weights, configuration and model card to the Hugging Face Hub, or write them to a folder."""
    if ":" in str(job.snapshot.model.get("name")):
        raise ConfigError(
            f"{job.path} holds a network of the class {job.snapshot.model['name']}, and publish is for those that come "
            "with cs_gan: others could not load yours. Publish your code together with the snapshot instead."
        )
    options, generator = job.arguments, job.generator
    if (options.repo is None) == (options.folder is None):
        raise ConfigError(
            "publish takes --repo user/name to push, or --folder to write the same files without pushing."
        )
    if not generator.origin.evaluations and job.path.with_name("config.yaml").exists():
        raise ConfigError(
            f"{job.path} at step {job.snapshot.step} has no scores, and the model card needs them: run "
            f"`python evaluate.py score {job.path}` first."
        )
    if options.folder:
        generator.save_pretrained(empty_folder(options.folder))
        print(f"publish: {options.folder}, not pushed")
    else:
        print(f"publish: {_push(job, options.repo, options.private)}")


def _push(job: Job, repo: str, private: bool) -> str:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"--repo {repo} is no name on the Hub, such as user/name: {_line(error)}") from error
    if get_token() is None:
        raise ConfigError("no one is logged in to the Hugging Face Hub here: run `hf auth login`, or set HF_TOKEN.")
    message = f"{job.path.name} of step {job.snapshot.step}"
    try:
        return job.generator.push_to_hub(repo, private=private or None, commit_message=message)
    except (HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise ConfigError(
                f"the Hub refused --repo {repo} ({status}): log in by `hf auth login` with a token that may write "
                f"there, or give a --repo of your own. {_line(error)}"
            ) from error
        reached = "can't be reached" if status is None else f"answered {status}"
        raise ConfigError(
            f"--repo {repo} wasn't pushed, the Hub {reached}: {_line(error)} Try again later, or write the same files "
            "by --folder."
        ) from error


def _line(error: Exception) -> str:
    """The error's message as one sentence."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".") + "."


COMMAND = Command(
    {"gan": publish},
    {
        "repo": (None, {"metavar": "USER/NAME", "help": "push to this repository; it is created if it doesn't exist"}),
        "private": (False, {"action": "store_true", "help": "if it is created, make it private"}),
        "folder": (None, {"type": Path, "help": "write the files to this empty or new folder instead of pushing"}),
    },
)
