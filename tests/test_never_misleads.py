"""Runs, files and folders that could mislead: what is refused, what is kept, and what is said."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import yaml

import evaluate
import train_classifier
import train_gan
from cs_gan.data import load_images
from cs_gan.errors import ConfigError, DataError
from cs_gan.read_yaml import read_yaml
from cs_gan.runs import read_lines
from cs_gan.training import list_checkpoints, read_snapshot, save_snapshot
from models import build_gan
from tasks.gan.task import GanTask
from tests.scripts import ONE_NETWORK, words

pytestmark = pytest.mark.usefixtures("without_pictures", "signal_handlers_as_before")

GAN = {
    "data.name": "digits",
    "model.name": "dcgan16",
    "model.width": 4,
    "training.steps": 4,
    "training.batch_size": 8,
    "training.n_critic": 1,
    "training.log_every": 1,
    "training.checkpoint_every": 2,
    "metrics.extractor": "none",
    "tracking.trackers": "none",
}
SCORED = {**GAN, "metrics.extractor": "digits", "metrics.num_samples": 20, "training.evaluate_every": 2}


def gan(folder, *more, recipe=GAN):
    return train_gan.main(words(folder, recipe, *more))


def classifier(folder, *more):
    return train_classifier.main(words(folder, ONE_NETWORK, *more))


def error_of(capsys):
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.fixture
def class_folders(tmp_path):
    """Two classes of 12 grey images each, and a function that swaps the labels of two images."""
    from PIL import Image

    root = tmp_path / "data"
    for split, count in (("train", 12), ("test", 4)):
        for name in "ab":
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                value = 10 * number + (name == "b") * 5 + (split == "test")
                Image.new("L", (8, 8), value).save(folder / f"{name}{number}.png")
    return root


LABELLED = ["--data.name=folder", "--data.holdout=0", "--training.steps=2"]


class TestResume:
    def test_other_labels_of_the_same_images_are_refused(self, tmp_path, class_folders, capsys):
        data = [*LABELLED, f"--data.root={class_folders}"]
        assert classifier(tmp_path / "run", *data) == 0
        relabelled = tmp_path / "relabelled"
        shutil.copytree(class_folders, relabelled)
        (relabelled / "train" / "a").rename(relabelled / "train" / "c")  # the same images in the same order
        (relabelled / "train" / "b").rename(relabelled / "train" / "d")
        for split in ("a", "b"):
            (relabelled / "test" / split).rename(relabelled / "test" / ("c" if split == "a" else "d"))
        capsys.readouterr()
        assert classifier(tmp_path / "run", *LABELLED, f"--data.root={relabelled}") == 2
        assert "labels: " in error_of(capsys)

    def test_other_images_to_score_on_are_refused(self, tmp_path, class_folders, capsys):
        data = [*LABELLED, f"--data.root={class_folders}"]
        assert classifier(tmp_path / "run", *data) == 0
        (class_folders / "test" / "a" / "a0.png").unlink()
        capsys.readouterr()
        assert classifier(tmp_path / "run", *data) == 2
        assert "scored_images: " in error_of(capsys)

    def test_a_checkpoint_from_before_labels_were_recorded_resumes(self, tmp_path):
        assert classifier(tmp_path / "run") == 0
        path = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
        change_state(path, lambda state: [state["circumstances"].pop(key) for key in ("labels", "scored_images")])
        assert classifier(tmp_path / "run", f"--resume={path}") == 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state.pop("config"), "has no 'config'"),
            (lambda state: state.update(metrics=[{"step": "x"}]), "has no 'step'"),
            (lambda state: state.update(losses={"critic_loss": 3}), "losses that are no lists"),
            (lambda state: state.update(step="two"), "has no 'step'"),
            (lambda state: state["config"].update(training=None), "is no JSON object"),
        ],
    )
    def test_a_state_of_another_shape_is_one_error(self, tmp_path, capsys, change, message):
        assert gan(tmp_path / "run") == 0
        for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
            change_state(path, change)
        capsys.readouterr()
        assert gan(tmp_path / "run") == 2
        assert message in error_of(capsys)

    def test_a_checkpoint_of_a_later_format_is_refused(self, tmp_path, capsys):
        assert gan(tmp_path / "run") == 0
        for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
            manifest = json.loads((path / "manifest.json").read_text())
            (path / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
        capsys.readouterr()
        assert gan(tmp_path / "run") == 2
        assert "has format 2, and this version of cs_gan reads format 1" in error_of(capsys)

    @pytest.mark.parametrize("name", ["log.jsonl", "metrics.jsonl"])
    @pytest.mark.parametrize("line", ["[1, 2]", '{"steps": 3}', "3", "[" * 20_000])
    def test_a_line_of_another_shape_is_one_error_before_anything_is_loaded(self, tmp_path, capsys, name, line):
        assert gan(tmp_path / "run", recipe=SCORED) == 0
        path = tmp_path / "run" / name
        path.write_text(path.read_text() + line + "\n")
        before = sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir())
        capsys.readouterr()
        assert gan(tmp_path / "run", recipe=SCORED) == 2
        assert f"{name}, line " in error_of(capsys)
        assert sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir()) == before

    def test_fewer_steps_of_a_finished_run_do_not_advise_to_extend(self, tmp_path, capsys):
        decay = "--training.decay=linear"
        assert gan(tmp_path / "run", decay) == 0
        capsys.readouterr()
        assert gan(tmp_path / "run", decay, "--training.steps=2") == 2
        text = error_of(capsys)
        assert "training.steps: 4 -> 2" in text
        assert "--extend" not in text

    def test_a_longer_run_is_not_recorded_as_shorter(self, tmp_path, capsys):
        assert gan(tmp_path / "run") == 0
        recipe = (tmp_path / "run" / "config.yaml").read_text()
        assert gan(tmp_path / "run", "--training.steps=3") == 2
        assert "has more steps than training.steps=3" in error_of(capsys)
        assert (tmp_path / "run" / "config.yaml").read_text() == recipe

    @pytest.mark.parametrize(
        "wrong",
        [
            ["--coded.critic.blocks=nope", "--coded.critic.weight=1"],
            ["--data.name=folder", "--data.root=/nonexistent"],
            ["--extend=hold", "--training.steps=6"],
            ["--resume={run}/checkpoints/step-00000004"],
            ["--resume={run}-of-another"],
        ],
        ids=["block", "data", "extend", "own checkpoint", "no checkpoint"],
    )
    def test_overwrite_deletes_nothing_before_all_is_checked(self, tmp_path, capsys, wrong):
        run = tmp_path / "run"
        assert gan(run) == 0
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        assert gan(run, "--overwrite", *(word.format(run=run) for word in wrong)) == 2
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    def test_overwrite_also_deletes_what_evaluate_made_of_the_lost_network(self, tmp_path):
        run = tmp_path / "run"
        assert gan(run, recipe=SCORED) == 0
        made = [run / name for name in ("samples.png", "nearest-best.png", "score-step4-digits-20-seed0.json")]
        made += [run / folder / "robustness.jsonl" for folder in ("robustness", "robustness-best")]
        kept = [run / "notes.txt", run / "robustness" / "notes.txt"]
        for path in [*made, *kept]:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        assert gan(run, "--overwrite", "--seed=1", recipe=SCORED) == 0
        assert not any(path.exists() for path in made)
        assert all(path.exists() for path in kept)


def change_state(path, change):
    """Change state.json of a checkpoint, and its hash."""
    from cs_gan.files import file_sha256

    state = json.loads((path / "state.json").read_text())
    change(state)
    (path / "state.json").write_text(json.dumps(state))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"state.json": file_sha256(path / "state.json")}))


class TestBest:
    def test_the_untrained_network_is_never_best(self, tmp_path):
        """Its score is made the best by far, as grey noise can be."""
        real = GanTask.evaluate
        with pytest.MonkeyPatch.context() as patch:

            def flattered(task, about, **options):
                row = real(task, about, **options)
                if about["step"] == 0:
                    row["scores"][row["primary"]] = -1e9
                return row

            patch.setattr(GanTask, "evaluate", flattered)
            assert gan(tmp_path / "run", recipe=SCORED) == 0
        assert read_lines(tmp_path / "run" / "metrics.jsonl")[0]["untrained"] is True
        assert read_snapshot(tmp_path / "run" / "best.safetensors").step > 0
        assert json.loads((tmp_path / "run" / "scores.json").read_text())["best"]["step"] > 0

    def test_no_network_of_the_warm_up_is_best(self, tmp_path):
        warm = ["--training.warmup=0.5", "--training.evaluate_every=1", "--metrics.rci_ratio=null"]
        assert classifier(tmp_path / "run", *warm) == 0
        rows = read_lines(tmp_path / "run" / "metrics.jsonl")
        assert [row["step"] for row in rows if row.get("untrained")] == [0, 1, 2]
        assert read_snapshot(tmp_path / "run" / "best.safetensors").step > 2

    def test_sample_of_the_best_network_has_its_own_file(self, tmp_path):
        assert gan(tmp_path / "run", recipe=SCORED) == 0
        for option in ([], ["--best"]):
            assert evaluate.main(["sample", str(tmp_path / "run"), "--count=4", *option]) == 0
        assert (tmp_path / "run" / "samples.png").exists()
        assert (tmp_path / "run" / "samples-best.png").exists()


class TestFolder:
    @pytest.mark.parametrize("name", ["log.jsonl", "config.yaml", "grids/step-00000000.png", "metrics.csv"])
    def test_a_foreign_folder_loses_nothing(self, tmp_path, capsys, name):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True)
        path.write_text("my own notes")
        assert gan(tmp_path / "mine") == 2
        assert f"holds {name} that no run of cs_gan wrote" in error_of(capsys)
        assert path.read_text() == "my own notes"
        assert gan(tmp_path / "mine", "--overwrite") == 2  # and says so again
        assert path.read_text() == "my own notes"

    def test_files_of_other_names_in_the_folder_stay(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "notes.txt").write_text("mine")
        assert gan(tmp_path / "run") == 0
        assert gan(tmp_path / "run", "--overwrite", "--seed=1") == 0
        assert (tmp_path / "run" / "notes.txt").read_text() == "mine"

    def test_a_network_without_checkpoints_is_not_written_over(self, tmp_path, capsys):
        assert gan(tmp_path / "run") == 0
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        before = (tmp_path / "run" / "snapshot.safetensors").read_bytes()
        capsys.readouterr()
        assert gan(tmp_path / "run", "--seed=1") == 2
        assert "--overwrite to lose it" in error_of(capsys)
        assert (tmp_path / "run" / "snapshot.safetensors").read_bytes() == before

    def test_the_log_of_another_recipe_is_not_written_over(self, tmp_path, capsys):
        assert gan(tmp_path / "run") == 0
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        (tmp_path / "run" / "snapshot.safetensors").unlink()
        capsys.readouterr()
        assert gan(tmp_path / "run", "--training.learning_rate=0.1") == 2
        assert "holds log.jsonl of a run" in error_of(capsys)
        assert gan(tmp_path / "run") == 0  # killed before its first checkpoint, the same recipe starts again

    def test_overwrite_begins_anew_once_and_the_saved_recipe_does_not(self, tmp_path):
        assert gan(tmp_path / "run") == 0
        assert gan(tmp_path / "run", "--overwrite", "--seed=1", "--training.steps=2") == 0
        assert [row["step"] for row in read_lines(tmp_path / "run" / "log.jsonl")] == [1, 2]
        saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        assert saved["overwrite"] is False
        assert saved["seed"] == 1

    def test_a_tracker_writes_nowhere_else(self, tmp_path, capsys):
        assert gan(tmp_path / "run", "--tracking.project=../../elsewhere") == 2
        assert "tracking.project = '../../elsewhere'" in error_of(capsys)


class TestSignals:
    @pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
    def test_save_and_stop_like_sigterm(self, tmp_path, monkeypatch, name):
        number = getattr(signal, name)
        step = GanTask.step

        def signalled(task, index):
            if index == 0:
                signal.raise_signal(number)
            return step(task, index)

        monkeypatch.setattr(GanTask, "step", signalled)
        before = signal.signal(number, signal.SIG_DFL)  # as if these tests don't run under nohup
        try:
            assert gan(tmp_path / "run") == 128 + number
        finally:
            signal.signal(number, before)
        assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000001"]

    def test_sighup_stays_ignored_under_nohup(self, tmp_path, monkeypatch):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            assert gan(tmp_path / "run", "--training.steps=1") == 0
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)


class TestRecipes:
    def test_yaml_words_for_off_are_words(self, tmp_path):
        recipe = tmp_path / "r.yaml"
        recipe.write_text("training: {mixed_precision: no, cuda_graph: off}\n")
        assert gan(tmp_path / "run", f"--config={recipe}", "--training.steps=1") == 0
        saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]
        assert (saved["mixed_precision"], saved["cuda_graph"]) == ("no", "off")

    def test_a_weight_beside_a_share_that_sets_it_is_refused(self, tmp_path, capsys):
        both = ["--coded.critic.blocks=blocks.1", "--coded.critic.share=0.03", "--coded.critic.weight=0.1"]
        assert gan(tmp_path / "run", *both) == 2
        assert "coded: share = 0.03 must be null where a weight is given" in error_of(capsys)

    def test_a_share_of_0_is_refused(self, tmp_path, capsys):
        assert gan(tmp_path / "run", "--coded.critic.blocks=blocks.1", "--coded.critic.share=0") == 2
        assert "coded.critic.share = 0.0 must be above 0, or null" in error_of(capsys)

    def test_a_section_in_place_of_a_value_is_one_error(self, tmp_path, capsys):
        assert classifier(tmp_path / "run", "--method.logit_norm.weight=0.01") == 2
        assert "method.logit_norm is a value, not a section: it has no key 'weight'" in error_of(capsys)

    def test_a_key_that_occurs_twice_is_refused(self, tmp_path, capsys):
        (tmp_path / "r.yaml").write_text("seed: 1\nseed: 2\n")
        assert gan(tmp_path / "run", f"--config={tmp_path / 'r.yaml'}") == 2
        assert "'seed' occurs twice" in error_of(capsys)

    def test_a_key_with_dots_and_as_a_section_is_refused(self, tmp_path, capsys):
        (tmp_path / "r.yaml").write_text("training: {steps: 1}\ntraining.steps: 3\n")
        assert gan(tmp_path / "run", f"--config={tmp_path / 'r.yaml'}") == 2
        assert "the recipe sets training.steps twice, with dots and as a section" in error_of(capsys)

    def test_a_recipe_is_found_by_its_name(self, tmp_path):
        from cs_gan.training import parse_config
        from tasks.gan.recipe import GanConfig

        folder = Path(train_gan.__file__).parent / "configs" / "gan"
        assert parse_config(GanConfig, ["--config=quickstart"], recipes=folder).output_dir == "samples/quickstart"
        with pytest.raises(ConfigError, match="Did you mean quickstart"):
            parse_config(GanConfig, ["--config=quickstrat"], recipes=folder)

    def test_what_other_code_bases_call_a_key_gets_its_name(self, tmp_path, capsys):
        assert gan(tmp_path / "run", "--training.lr=1") == 2
        assert "Did you mean training.learning_rate?" in error_of(capsys)

    def test_a_path_as_name_of_the_data_gets_the_two_keys_for_it(self, tmp_path, capsys):
        assert gan(tmp_path / "run", f"--data.name={tmp_path}") == 2
        assert f"--data.name=folder --data.root={tmp_path}" in error_of(capsys)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("? [a, b]\n: 3", "a key must be a word"),
            ("training: {steps: null}", "training.steps = 'null' must be at least 1"),
            ("seed: null", "seed = 'null' must be"),
            ("training: &t {steps: 3, x: *t}", "Circular reference"),
        ],
    )
    def test_odd_yaml_is_one_error(self, tmp_path, capsys, text, said):
        (tmp_path / "r.yaml").write_text(text)
        assert gan(tmp_path / "run", f"--config={tmp_path / 'r.yaml'}", recipe={}) == 2
        assert said in error_of(capsys)

    def test_a_number_with_a_zero_in_front_is_decimal(self, tmp_path):
        (tmp_path / "r.yaml").write_text("training: {steps: 010}")
        assert read_yaml(tmp_path / "r.yaml", "recipe") == {"training": {"steps": 10}}

    @pytest.mark.parametrize("word", ["true_images", "falsecolour", "true labels"])
    def test_a_word_that_begins_with_true_or_false_is_a_word(self, tmp_path, word):
        (tmp_path / "r.yaml").write_text(f"data: {{root: {word}}}")
        assert read_yaml(tmp_path / "r.yaml", "recipe") == {"data": {"root": word}}

    def test_a_recipe_nested_thousands_deep_is_one_error(self, tmp_path, capsys):
        (tmp_path / "r.yaml").write_text("[" * 5000)
        assert gan(tmp_path / "run", f"--config={tmp_path / 'r.yaml'}") == 2
        assert "nested too deeply" in error_of(capsys)

    def test_a_batch_above_the_number_of_images_is_said(self, tmp_path, capsys):
        assert gan(tmp_path / "run", "--data.limit=5", "--training.steps=1") == 0
        assert "note: training.batch_size = 8 is above the 5 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (["faces/train/a", "faces/test/a", "."], "has the splits test, train inside of faces/"),
        (["a/train", "a/test", "b/train", "b/test"], "has the splits test, train inside of a/"),
        (["trainA", "trainB", "testA", "testB"], "has 2 folders for 'train': trainA, trainB"),
    ],
)
def test_splits_that_are_not_on_top_are_not_read_as_one(tmp_path, places, said):
    from PIL import Image

    for number, place in enumerate(places):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(tmp_path / place / f"{number}.png")
    with pytest.raises(DataError, match=said):
        load_images("folder", tmp_path)


class TestSnapshots:
    def test_a_network_larger_than_its_tensors_is_not_built(self, tmp_path, capsys):
        generator, _ = build_gan("dcgan16", width=4, channels=1)
        model = {"name": "dcgan16", "width": 100_000, "channels": 1}
        path = tmp_path / "snapshot.safetensors"
        save_snapshot(path, generator, kind="gan", model=model, config={}, step=1)
        assert evaluate.main(["sample", str(path), "--device=cpu"]) == 2
        assert "its tensors don't fit its arguments" in error_of(capsys)

    @pytest.mark.parametrize("root", ["/", "~", "/usr/.."])
    def test_a_file_can_not_make_us_read_a_whole_disk(self, tmp_path, capsys, root):
        generator, _ = build_gan("dcgan16", width=4, channels=1)
        path = tmp_path / "snapshot.safetensors"
        config = {"data": {"name": "folder", "root": root}, "metrics": {"extractor": "digits"}}
        model = {"name": "dcgan16", "width": 4, "channels": 1}
        save_snapshot(path, generator, kind="gan", model=model, config=config, step=1)
        assert evaluate.main(["score", str(path), "--device=cpu"]) == 2
        said = error_of(capsys)
        assert f"was trained on images in {root}" in said
        assert "say where they are by --data.root" in said

    def test_a_snapshot_without_its_run_does_not_say_which_folder_is_read(self, tmp_path, class_folders, capsys):
        """Someone else's file names a folder of someone else's machine; the same path may be anything here."""
        run = tmp_path / "run"
        data = ["--data.name=folder", f"--data.root={class_folders}", "--data.image_size=16", "--data.channels=1"]
        assert gan(run, *data, "--training.steps=1", recipe=SCORED) == 0
        alone = tmp_path / "downloaded" / "snapshot.safetensors"
        alone.parent.mkdir()
        shutil.copy(run / "snapshot.safetensors", alone)
        words = ["--device=cpu", "--metrics.num_samples=20"]
        capsys.readouterr()
        assert evaluate.main(["score", str(alone), *words]) == 2
        assert f"was trained on images in {class_folders}, and lies outside the folder of its run" in error_of(capsys)
        assert evaluate.main(["score", str(alone), *words, f"--data.root={class_folders}"]) == 0
        moved = tmp_path / "moved"
        shutil.move(run, moved)
        assert evaluate.main(["score", str(moved), *words]) == 0

    def test_a_note_about_other_weights_holds_no_path_of_this_machine(self, tmp_path):
        assert gan(tmp_path / "one") == 0
        begun = [f"--resume={tmp_path / 'one'}", "--training.learning_rate=0.001"]
        assert gan(tmp_path / "two", *begun) == 0
        history = read_snapshot(tmp_path / "two" / "snapshot.safetensors").config["history"]
        assert history == ["began with the weights of one/step-00000004 (step 4)"]
        assert str(tmp_path) not in " ".join(history)


def test_a_limit_on_address_space_is_seen_as_the_memory_there_is(monkeypatch):
    from cs_gan.data import memory

    used = memory.psutil.Process().memory_info().vms
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _kind: (used + 2**20, used + 2**20))
    assert memory.available_memory() <= 2**21


def test_the_limit_of_a_version_1_cgroup_is_seen(tmp_path, monkeypatch):
    from cs_gan.data import memory

    for name, text in (
        ("memory.limit_in_bytes", "1000000"),
        ("memory.usage_in_bytes", "600000"),
        ("memory.stat", "total_inactive_file 100000"),
    ):
        (tmp_path / name).write_text(text)
    _, *names = memory.CGROUPS[1]
    monkeypatch.setattr(memory, "CGROUPS", ((tmp_path / "none", *memory.CGROUPS[0][1:]), (tmp_path, *names)))
    assert memory.available_memory() == 500_000
