"""evaluate.py publish: what the Hub is handed. The Hub itself is not asked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.hub_mixin
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HTTPError

from models import PretrainedGenerator
from tasks.gan import publish
from tests.test_evaluate import folder, refused, run  # noqa: F401 (the first is a fixture)


class Hub:
    """In the place of HfApi: keeps what it is handed, or fails."""

    def __init__(self, uploaded: Path) -> None:
        self.uploaded, self.error, self.made = uploaded, None, {}

    def __call__(self, token=None):
        return self

    def create_repo(self, repo_id, **options):
        if self.error:
            raise self.error
        self.made = {"repo_id": repo_id, **options}
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id, folder_path, commit_message, **_):
        Path(folder_path).rename(self.uploaded)
        self.made["message"] = commit_message
        return f"https://huggingface.co/{repo_id}/commit/1"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    found = Hub(tmp_path / "uploaded")
    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", found)
    monkeypatch.setattr(publish, "get_token", lambda: "hf_secret")
    return found


@pytest.fixture
def scored(folder):  # noqa: F811
    """The run folder, with a score for its snapshot of step 70."""
    provenance = {"extractor": "digits", "weights_sha256": "ab", "num_samples": 40, "num_reference": 60, "step": 70}
    line = {"step": 70, "scores": {"FD, digits classifier": 12.5}, "provenance": provenance}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "config.yaml").write_text("seed: 5\n")
    return folder


def test_push_hands_the_hub_weights_and_a_card_with_scores_and_name(scored, hub, capsys):
    assert run("publish", scored, "--repo=someone/digits") == 0
    assert "publish: https://huggingface.co/someone/digits" in capsys.readouterr().out
    assert hub.made == {
        "repo_id": "someone/digits",
        "private": None,
        "exist_ok": True,
        "message": "snapshot.safetensors of step 70",
    }
    names = {"config.json", "model.safetensors", "README.md", "samples.png"}
    assert {path.name for path in hub.uploaded.iterdir()} == names
    card = ModelCard.load(hub.uploaded / "README.md")
    assert [each.metric_value for each in card.data.eval_results] == [12.5]
    assert card.data.model_name == "digits"
    assert 'from_pretrained("someone/digits")' in card.text
    again = PretrainedGenerator.from_pretrained(str(hub.uploaded))
    assert torch.equal(again.sample(3), PretrainedGenerator.from_snapshot(scored / "snapshot.safetensors").sample(3))


def test_private_is_passed_on(scored, hub):
    assert run("publish", scored, "--repo=someone/digits", "--private") == 0
    assert hub.made["private"] is True


def test_a_folder_gets_the_same_files_and_nothing_is_pushed(scored, hub, tmp_path, capsys):
    assert run("publish", scored, "--folder", tmp_path / "look") == 0
    assert "not pushed" in capsys.readouterr().out
    assert hub.made == {}
    assert run("publish", scored, "--repo=user/name") == 0  # the card of a folder has this as a placeholder
    for name in ("config.json", "model.safetensors", "samples.png"):
        assert (tmp_path / "look" / name).read_bytes() == (hub.uploaded / name).read_bytes()
    cards = [ModelCard.load(each / "README.md").text for each in (tmp_path / "look", hub.uploaded)]
    assert cards[0] == cards[1]


def test_a_run_without_scores_is_to_be_scored_first_and_then_can_be(folder, hub, tmp_path, capsys):  # noqa: F811
    (folder / "config.yaml").write_text("seed: 5\n")
    for where in (["--repo=someone/digits"], ["--folder", tmp_path / "look"]):
        assert f"evaluate.py score {folder / 'snapshot.safetensors'}" in refused(capsys, "publish", folder, *where)
    assert hub.made == {}
    assert run("score", folder) == 0
    assert run("publish", folder, "--folder", tmp_path / "look") == 0
    result = json.loads((folder / "score-step70-digits-40-seed5.json").read_text())
    told = ModelCard.load(tmp_path / "look" / "README.md").data.eval_results
    assert {each.metric_name: each.metric_value for each in told}.items() <= result["scores"].items()
    assert told[0].metric_args["num_samples"] == 40


def test_a_snapshot_without_a_run_is_published_without_scores(folder, hub):  # noqa: F811
    assert run("publish", folder, "--repo=someone/digits") == 0
    assert "No scores of this network are known" in (hub.uploaded / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--repo user/name"),
        (["--repo=a/b", "--folder=somewhere"], "--folder"),
        (["--repo=a b"], "is no name on the Hub"),
        (["--repo=a/b/c"], "is no name on the Hub"),
        (["--push-to-hub=a/b"], "doesn't take"),
    ],
)
def test_wrong_words_are_one_line(scored, hub, capsys, words, said):
    assert said in refused(capsys, "publish", scored, *words)
    assert hub.made == {}


def test_a_folder_that_holds_files_is_kept(scored, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    assert "holds files already" in refused(capsys, "publish", scored, "--folder", tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_not_logged_in_is_said_before_the_hub_is_asked(scored, hub, monkeypatch, capsys):
    monkeypatch.setattr(publish, "get_token", lambda: None)
    assert "hf auth login" in refused(capsys, "publish", scored, "--repo=a/b")
    assert hub.made == {}


def answered(status: int) -> HTTPError:
    error = HTTPError("the server's words\nand more")
    error.response = SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answered(401), "hf auth login"),
        (answered(403), "a token that may write there"),
        (answered(500), "answered 500: the server's words and more."),
        (ConnectionError("Name or service not known"), "can't be reached: Name or service not known."),
        (HTTPError("[Errno -2] no name"), "can't be reached"),
    ],
)
def test_what_the_hub_refuses_is_one_line(scored, hub, capsys, error, said):
    hub.error = error
    line = refused(capsys, "publish", scored, "--repo=someone/digits")
    assert said in line
    assert "someone/digits" in line
    assert "hf_secret" not in line
