from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cs_gan.errors import ConfigError
from cs_gan.training import as_plain, differences, parse_config, save_config
from tasks.classifier.recipe import ClassifierConfig
from tasks.encoder.recipe import SslConfig
from tasks.gan.recipe import GanConfig

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = CONFIGS / "gan"
CODED = [(GanConfig, path) for path in sorted(RECIPES.glob("*_coded.yaml"))]
CODED += [(SslConfig, path) for path in sorted(CONFIGS.glob("ssl/*_coded.yaml"))]


def nested(key, value):
    """A recipe with one key."""
    for section in reversed(key.split(".")):
        value = {section: value}
    return yaml.safe_dump(value)


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and gives the argument that reads it."""

    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return f"--config={path}"

    return write


class TestParsing:
    def test_an_empty_command_line_gives_the_defaults(self):
        assert parse_config(GanConfig, []) == GanConfig(output_dir="samples/run")

    def test_later_arguments_win_over_earlier_ones_and_over_the_recipe(self, recipe):
        config = recipe("seed: 5\ntraining:\n  steps: 7\n  n_critic: 2\n")
        parsed = parse_config(GanConfig, [config, "--training.steps=8", "--training.steps=9"])
        assert (parsed.seed, parsed.training.steps, parsed.training.n_critic) == (5, 9, 2)
        assert parsed.training.batch_size == GanConfig().training.batch_size

    @pytest.mark.parametrize("apart", [False, True])
    @pytest.mark.parametrize("last", [False, True])
    def test_a_key_wins_over_a_recipe_wherever_it_stands(self, recipe, apart, last):
        file = recipe("seed: 5\ntraining:\n  steps: 7\n").split("=") if apart else [recipe("training:\n  steps: 7\n")]
        key = ["--training.steps", "8"] if apart else ["--training.steps=8"]
        parsed = parse_config(GanConfig, [*key, *file] if last else [*file, *key])
        assert (parsed.training.steps, parsed.output_dir) == (8, "samples/recipe")

    def test_of_two_recipes_the_later_one_wins_and_names_the_folder(self, tmp_path):
        for name, steps in (("one", 1), ("two", 2)):
            (tmp_path / f"{name}.yaml").write_text(f"seed: {steps}\ntraining:\n  steps: {steps}\n")
        one, two = (f"--config={tmp_path}/{name}.yaml" for name in ("one", "two"))
        for words, expected in (([one, "--seed=9", two], 2), (["--seed=9", two, one], 1)):
            parsed = parse_config(GanConfig, words)
            assert (parsed.training.steps, parsed.seed) == (expected, 9)
            assert parsed.output_dir == f"samples/{('one', 'two')[expected - 1]}"

    def test_a_key_wins_over_a_file_of_its_section_and_that_over_the_recipe(self, recipe, tmp_path):
        (tmp_path / "section.yaml").write_text("steps: 8\nn_critic: 3\n")
        section = f"--training={tmp_path / 'section.yaml'}"
        config = recipe("training:\n  steps: 7\n  n_critic: 2\n  log_every: 4\n")
        training = parse_config(GanConfig, ["--training.steps=9", section, config]).training
        assert (training.steps, training.n_critic, training.log_every) == (9, 3, 4)

    @pytest.mark.parametrize("given", ["[0.5, 0.99]", "[0.5,0.99]"])
    def test_betas_are_a_tuple_wherever_they_come_from(self, given, recipe):
        by_recipe = parse_config(GanConfig, [recipe(f"training:\n  betas: {given}\n")])
        by_argument = parse_config(GanConfig, [f"--training.betas={given}"])
        assert by_recipe.training.betas == by_argument.training.betas == (0.5, 0.99)

    @pytest.mark.parametrize("written", ["2e-4", "2.0e-4", "0.0002", "2E-4"])
    def test_a_number_in_scientific_notation_is_a_number(self, written, recipe):
        """YAML 1.1 itself reads 2e-4 as a string."""
        assert (
            parse_config(GanConfig, [recipe(f"training:\n  learning_rate: {written}\n")]).training.learning_rate == 2e-4
        )

    @pytest.mark.parametrize(
        ("given", "blocks"),
        [
            ("blocks.1", ["blocks.1"]),
            ("blocks.0,blocks.1", ["blocks.0", "blocks.1"]),
            ("blocks.0, blocks.1 ", ["blocks.0", "blocks.1"]),
            ("[blocks.0,blocks.1]", ["blocks.0", "blocks.1"]),
            ("[blocks.*]", ["blocks.*"]),
            ("blocks.0,", ["blocks.0"]),  # "" would be the whole network
            ("", []),
            ("[]", []),
            ('[""]', [""]),
        ],
    )
    def test_blocks_are_a_list_or_names_separated_by_commas(self, given, blocks):
        assert parse_config(GanConfig, [f"--coded.critic.blocks={given}"]).coded.critic.blocks == blocks

    def test_an_argument_replaces_the_recipes_blocks(self, recipe):
        config = recipe("coded:\n  critic:\n    blocks: blocks.0, blocks.1\n    weight: 0.5\n")
        assert parse_config(GanConfig, [config]).coded.critic.blocks == ["blocks.0", "blocks.1"]
        critic = parse_config(GanConfig, [config, "--coded.critic.blocks=blocks.2"]).coded.critic
        assert (critic.blocks, critic.weight) == (["blocks.2"], 0.5)

    def test_two_configurations_share_nothing(self):
        parse_config(GanConfig, []).coded.critic.blocks.append("blocks.1")
        assert parse_config(GanConfig, []).coded.critic.blocks == []

    def test_null_means_unset(self, recipe):
        assert parse_config(GanConfig, [recipe("data:\n  root: null\n"), "--training.max_minutes=null"]) == GanConfig(
            output_dir="samples/recipe"
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "nearest"),
        [
            ("training.stpes", "training.steps"),
            ("trainig.steps", "training.steps"),
            ("coded.critic.wieght", "coded.critic.weight"),
            ("coded.critc.weight", "coded.critic.weight"),
            ("metrics.num_sample", "metrics.num_samples"),  # no abbreviations
            ("training.step", "training.steps"),
            ("training.stepz", "training.steps"),  # and not training.tf32, which shares the section alone
            ("sead", "seed"),
            ("steps", "training.steps"),  # the section left out
        ],
    )
    def test_an_unknown_key_names_the_nearest_one(self, key, nearest, recipe):
        for argument in (f"--{key}=5", recipe(nested(key, 5))):
            with pytest.raises(ConfigError, match="unknown configuration key") as error:
                parse_config(GanConfig, [argument])
            assert repr(key) in str(error.value)
            suggested = str(error.value).split("Did you mean")[1]
            assert nearest in suggested
            assert "tf32" not in suggested

    @pytest.mark.parametrize(
        ("argument", "said"),
        [("--zzzzzzzz=1", "--help"), ("--output-dir=here", "unknown configuration key 'output-dir'.*output_dir")],
    )
    def test_an_argument_without_a_neighbour_or_with_a_dash_is_told_from_a_key(self, argument, said):
        with pytest.raises(ConfigError, match=said):
            parse_config(GanConfig, [argument])

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("training.steps", "many", "int"),
            ("training.steps", "1.5", "int"),
            ("seed", "abc", "int"),
            ("training.learning_rate", "fast", "float"),
            ("data.flip", "maybe", "bool"),
            ("training.betas", "0.5", "tuple"),
            ("training.betas", "[0.5]", "2 elements"),
            ("training.decay", "cosine", "'constant', 'linear'"),
            ("training.mixed_precision", "fp16", "'bf16'"),
            ("coded.critic.observe", "all", "'real', 'fake', 'both'"),
        ],
    )
    def test_a_wrong_type_names_key_type_and_value(self, key, value, expected, recipe):
        for argument in (f"--{key}={value}", recipe(nested(key, yaml.safe_load(value)))):
            with pytest.raises(ConfigError) as error:
                parse_config(GanConfig, [argument])
            assert all(part in str(error.value) for part in (key, value, expected))
            assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("training.steps", "0"),
            ("training.batch_size", "0"),
            ("training.n_critic", "-1"),
            ("training.log_every", "0"),
            ("training.keep_checkpoints", "0"),
            ("training.checkpoint_every", "-1"),
            ("training.sample_every", "-5"),
            ("training.evaluate_every", "-5"),
            ("training.gradient_penalty", "-0.5"),
            ("training.learning_rate", "0.0"),
            ("training.ema_decay", "1.0"),
            ("training.betas", "[0.0, 1.0]"),
            ("training.generator_batch_size", "0"),
            ("training.max_minutes", "-1.0"),
            ("metrics.num_samples", "1"),
            ("coded.critic.weight", "-1.0"),
            ("coded.generator.weight", "-1.0"),
        ],
    )
    def test_an_impossible_value_names_key_and_value(self, key, value):
        with pytest.raises(ConfigError, match="must be") as error:
            parse_config(GanConfig, [f"--{key}={value}"])
        assert key in str(error.value)
        assert value.strip("[]") in str(error.value)

    @pytest.mark.parametrize(("kind", "key"), [(GanConfig, "coded"), (ClassifierConfig, "method.coded")])
    def test_one_level_of_the_ratio_is_refused(self, kind, key):
        with pytest.raises(ConfigError, match=r"coded\.levels = 1 must be at least 2"):
            parse_config(kind, [f"--{key}.levels=1"])
        parse_config(kind, [f"--{key}.levels=2"])

    def test_a_folder_is_no_recipe(self, tmp_path):
        with pytest.raises(ConfigError, match="not a file"):
            parse_config(GanConfig, [f"--config={tmp_path}"])

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("training: [\n", ""),
            ("- a\n- b\n", ""),
            ("just words\n", ""),
            ("a: b: c\n", ""),
            ("", ""),
            ("seed: 1\ntraining:\n", "training"),
            ("seed: 1\ntraining: 5\n", "training"),
            ("seed: 1\ncoded:\n  critic:\n", "coded.critic"),
        ],
    )
    def test_a_recipe_or_section_that_is_no_mapping_is_refused(self, text, named, recipe):
        with pytest.raises(ConfigError) as error:
            parse_config(GanConfig, [recipe(text)])
        assert named in str(error.value)

    @pytest.mark.parametrize("arguments", [["quickstart"], ["--training.steps"], ["--training=5"]])
    def test_what_is_no_key_and_value_is_refused(self, arguments):
        with pytest.raises(ConfigError):
            parse_config(GanConfig, arguments)


class TestSaving:
    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--training.betas=[0.5,0.99]", "--training.learning_rate=1e-5", "--training.max_minutes=0.25"],
            ["--coded.critic.blocks=blocks.0,blocks.*", '--coded.generator.blocks=[""]', "--seed=123456789012"],
            ["--data.root=/a path/with: colons", "--model.width=8", "--coded.smoothing=1e-12"],
        ],
    )
    def test_a_saved_configuration_is_a_recipe_of_itself(self, arguments, tmp_path):
        config, path = parse_config(GanConfig, arguments), tmp_path / "config.yaml"
        save_config(config, path)
        assert parse_config(GanConfig, [f"--config={path}"]) == config

    def test_the_command_is_a_comment_in_the_first_line(self, tmp_path):
        config, path = parse_config(GanConfig, []), tmp_path / "config.yaml"
        save_config(config, path, "python train_gan.py --data.root='two\nlines'")
        assert path.read_text().startswith("# python train_gan.py --data.root='two lines'\nseed: 0\n")
        assert parse_config(GanConfig, [f"--config={path}"]) == config


class TestDifferences:
    def test_name_the_dotted_key_and_both_values(self):
        old, new = parse_config(GanConfig, []), parse_config(GanConfig, ["--seed=3", "--coded.critic.blocks=blocks.1"])
        lines = differences(as_plain(old), new)
        assert lines == [
            "coded.critic.blocks: [] -> ['blocks.1']",
            "coded.critic.share: None -> 0.03",
            "seed: 0 -> 3",
        ]

    def test_a_key_that_is_no_more_is_told(self):
        assert differences(as_plain(GanConfig()) | {"old": 1}, GanConfig()) == ["old: 1 -> None"]

    def test_a_key_younger_than_the_old_run_counts_as_its_default(self):
        old = {"seed": 0, "training": {"steps": 100_000}}
        assert differences(old, GanConfig()) == []
        new = GanConfig(training=replace(GanConfig().training, n_critic=4))
        assert differences(old, new) == ["training.n_critic: 5 -> 4"]


class TestLimitSeed:
    def test_a_classifier_draws_by_the_runs_seed_unless_told_otherwise(self):
        parts = [parse_config(ClassifierConfig, words).data.parts(seed) for words, seed in (([], 1), ([], 2))]
        assert parts[0]["limit_seed"] != parts[1]["limit_seed"]
        config = parse_config(ClassifierConfig, ["--data.limit_seed=7"])
        assert [config.data.parts(seed)["limit_seed"] for seed in (1, 2)] == [7, 7]


class TestRecipes:
    def test_there_are_some(self):
        assert {"quickstart", "cifar10_small", "celeba64_small"} <= {path.stem for path in RECIPES.glob("*.yaml")}

    @pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
    def test_parses_and_writes_to_a_folder_of_its_name(self, path):
        assert parse_config(GanConfig, [f"--config={path}"]).output_dir == f"samples/{path.stem}"

    @pytest.mark.parametrize(("kind", "path"), CODED, ids=lambda value: getattr(value, "stem", ""))
    def test_a_coded_recipe_differs_from_its_plain_twin_in_the_coded_section_alone(self, kind, path):
        plain = parse_config(kind, [f"--config={path.with_name(path.name.replace('_coded', ''))}"])
        changed = differences(as_plain(plain), parse_config(kind, [f"--config={path}"]))
        assert {line.split(":")[0].split(".")[0] for line in changed} == {"output_dir", "coded"}
        assert any("blocks: []" in line for line in changed)
        assert plain.coded == kind().coded

    @pytest.mark.parametrize(("share", "limit"), [("10pct", 5000), ("20pct", 10_000)])
    def test_the_low_data_recipes_are_the_small_one_under_the_protocol(self, share, limit):
        small, low = (parse_config(GanConfig, [f"--config={RECIPES}/cifar10_{name}.yaml"]) for name in ("small", share))
        protocol = {"reference": "test", "num_reference": 10_000, "num_samples": 2000, "final_samples": 10_000}
        assert low == replace(
            small,
            output_dir=low.output_dir,
            data=replace(small.data, limit=limit, limit_seed=0),
            metrics=replace(small.metrics, **protocol),
        )
