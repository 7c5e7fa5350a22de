"""The short help, the list of recipes and shell completion, as each script gives them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import set_parsing_settings

import train_classifier
import train_gan
import train_ssl
from cs_gan.errors import ConfigError
from cs_gan.flat_keys import flatten
from cs_gan.training import as_plain, parse_config
from cs_gan.training.recipes.help import KEYS, recipe_list
from tasks.classifier.recipe import ClassifierConfig
from tasks.encoder.recipe import SslConfig
from tasks.gan.recipe import GanConfig

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "gan": (train_gan, GanConfig),
    "classifier": (train_classifier, ClassifierConfig),
    "ssl": (train_ssl, SslConfig),
}
each_script = pytest.mark.parametrize("name", SCRIPTS)


class TestHelp:
    @each_script
    @pytest.mark.parametrize("word", ["--help", "-h"])
    def test_fits_a_terminal_and_shows_the_keys_with_their_defaults(self, name, word, capsys):
        script, kind = SCRIPTS[name]
        assert script.main(["--training.steps=5", word]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) <= 40
        shown = dict(re.findall(r"^  --([a-z_.]+)=(\S+)", "\n".join(lines), flags=re.MULTILINE))
        shown.pop("print_completion")
        defaults = flatten(as_plain(kind()))
        assert {key: str(defaults[key]).replace("None", "null") for key in shown} == shown
        assert len(shown) >= 10
        for option in ("--list-recipes", "--dry-run", "--extend", "--help-all", "--config"):
            assert option in "\n".join(lines)
        # What it shows can be typed.
        parse_config(kind, [f"--{key}={value}" for key, value in shown.items()])

    def test_every_key_it_knows_is_of_some_script(self):
        assert set(KEYS) <= {key for _, kind in SCRIPTS.values() for key in flatten(as_plain(kind()))}

    @each_script
    def test_in_full_has_every_key(self, name, capsys):
        script, kind = SCRIPTS[name]
        with pytest.raises(SystemExit) as exit_:
            script.main(["--help-all"])
        assert exit_.value.code == 0
        shown = set(re.findall(r"--([a-z][\w.]+)", capsys.readouterr().out))
        assert set(flatten(as_plain(kind()))) <= shown


class TestRecipes:
    @each_script
    def test_are_listed_a_line_each_with_the_first_sentence_of_their_comment(self, name, capsys):
        script, _ = SCRIPTS[name]
        assert script.main(["--list-recipes"]) == 0
        *lines, empty, use = capsys.readouterr().out.splitlines()
        recipes = sorted((ROOT / "configs" / name).glob("*.yaml"))
        assert [line.split()[0] for line in lines] == [path.stem for path in recipes]
        for line, path in zip(lines, recipes, strict=True):
            about = line.split(maxsplit=1)[1]
            comment = path.read_text().replace("\n# ", " ").removeprefix("# ")
            assert comment.startswith(about)
            assert comment[len(about)] in ".;:\n"
        assert (empty, use.startswith("Use one with --config ")) == ("", True)

    def test_are_cut_to_a_terminal(self):
        lines = recipe_list(ROOT / "configs" / "classifier", 80).splitlines()
        assert max(map(len, lines)) <= 80
        assert any(line.endswith(" ...") for line in lines)

    def test_a_recipe_without_a_comment_is_listed_too(self, tmp_path):
        (tmp_path / "mine.yaml").write_text("seed: 1\n")
        assert recipe_list(tmp_path).splitlines()[0] == "mine"


class TestCompletion:
    def test_needs_a_package_that_it_names(self, monkeypatch):
        monkeypatch.setattr("cs_gan.training.recipes.parse.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match="pip install shtab"):
            parse_config(GanConfig, ["--print_completion=shtab-bash"])

    def test_in_bash_completes_the_keys_of_a_script(self, tmp_path, monkeypatch, capsys):
        pytest.importorskip("shtab")
        monkeypatch.setattr(sys, "argv", [str(ROOT / "train_gan.py")])
        try:
            with pytest.raises(SystemExit) as exit_:
                train_gan.main(["--print_completion=shtab-bash"])
        finally:
            set_parsing_settings(add_print_completion_argument=False)
        assert exit_.value.code == 0
        script = tmp_path / "completion"
        script.write_text(capsys.readouterr().out)
        asked = f"""source {script}
COMP_WORDS=(./train_gan.py --training.gradient) COMP_CWORD=1
$(complete -p train_gan.py | sed 's/.*-F \\([^ ]*\\).*/\\1/')
echo "${{COMPREPLY[@]}}" """
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True)
        assert done.stdout.split() == ["--training.gradient_penalty"], done.stderr
