"""The documentation: code blocks run, commands name what exists, and the site builds without a warning."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from cs_gan import CodedSmoothing, HeldShare
from cs_gan.gan import Consistency, FeatureNorm, LeCam, LeCamTerm, ZeroCentred, critic_step, generator_step
from cs_gan.training import save_snapshot
from models import build_gan

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(page.relative_to(ROOT)): page.read_text() for page in [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]}
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_PYTHON = [page for page, text in PAGES.items() if PYTHON.search(text)]


def names_taken_for_granted() -> dict[str, object]:
    """What a reader of a block is told to have: a small GAN, a small classifier, and batches for them."""
    generator, critic = build_gan("dcgan16", width=4, channels=1)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10))
    images = torch.randn(8, 1, 16, 16)
    labels = torch.arange(8) % 10
    return {
        "torch": torch,
        "nn": nn,
        "generator": generator,
        "critic": critic,
        "generator_optimizer": torch.optim.Adam(generator.parameters(), 1e-4),
        "critic_optimizer": torch.optim.Adam(critic.parameters(), 1e-4),
        "classifier": classifier,
        "model": classifier,
        "optimizer": torch.optim.SGD(classifier.parameters(), 0.1),
        "loader": [images, images.flip(0)],
        "real": images,
        "images": images,
        "labels": labels,
        "x": images[:1],
        "some_training_inputs": images,
    }


def test_there_are_blocks_to_run():
    assert {"README.md", "docs/your-gan.md", "docs/rci.md"} <= set(WITH_PYTHON)


def run_blocks(page: str, folder: Path) -> dict[str, object]:
    """Run a page's blocks one after the other, where the run of the quickstart is; returns their names."""
    names, snapshot = names_taken_for_granted(), folder / "samples" / "quickstart" / "snapshot.safetensors"
    snapshot.parent.mkdir(parents=True)
    model = {"name": "dcgan16", "width": 4, "channels": 1}
    save_snapshot(snapshot, names["generator"], kind="gan", model=model, config={}, step=0)
    for found in PYTHON.finditer(PAGES[page]):
        line = PAGES[page].count("\n", 0, found.start()) + 1
        # Padded, so that a traceback gives the page's own line.
        exec(compile("\n" * line + found[1], page, "exec"), names)
    return names


@pytest.fixture
def _accelerate_as_before():
    """Its states are shared by all accelerators in a process, and a page's loop may end within an accumulation."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.parametrize("page", WITH_PYTHON)
@pytest.mark.usefixtures("_accelerate_as_before")
def test_python_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(page, tmp_path)
    if page == "README.md":
        names["loss"].backward()
        assert all(p.grad is not None for p in names["critic"].parameters())
        assert len(names["images"]) == 64
        assert names["logits"].shape == (1, 10)


def missing(text: str) -> list[str]:
    """What commands on a page name and the repository lacks; <...> and $... stand for the reader's own."""
    configs = re.findall(r"(?:--config(?:_file)?[= ]|(?<![\w./])(?=configs/))([^\s`<$*{]+\.yaml)(?![\w<$])", text)
    scripts = re.findall(r"(?:python|accelerate launch|bash)(?: --?[^\s`]+(?: \d+)?)* ([^\s`<$]+\.(?:py|sh))\b", text)
    modules = re.findall(r"python -m ([\w.]+)", text)
    targets = re.findall(r"^make (\w+)|`make (\w+)", text, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    return [
        *(name for name in {*configs, *scripts} if not (ROOT / name).exists()),
        *(name for name in set(modules) if importlib.util.find_spec(name) is None),
        *(f"make {name}" for name in {a or b for a, b in targets} if f"\n{name}:" not in makefile),
    ]


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "examples/README.md", "samples/gallery/README.md"])
def test_linked_files_exist_and_no_placeholder_is_left(page):
    path = ROOT / page
    text = path.read_text()
    assert "@@" not in text
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_exists(page):
    assert missing(PAGES[page]) == []


def test_commands_that_name_nothing_are_seen():
    page = """
python -m cs_gan.nothing configs/studies/nothing.yaml
accelerate launch --num_processes 2 train_nothing.py --config configs/gan/none.yaml
make nothing
python evaluate.py sample samples/quickstart; `make test`; --config configs/gan/$recipe.yaml
"""
    assert sorted(missing(page)) == [
        "configs/gan/none.yaml",
        "configs/studies/nothing.yaml",
        "cs_gan.nothing",
        "make nothing",
        "train_nothing.py",
    ]


class Fetched(HTMLParser):
    """What a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        if tag == "link" and names.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(names.get("href") or "")
        elif tag in ("script", "img", "iframe", "source"):
            self.addresses.append(names.get("src") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for package in ("mkdocs", "latex2mathml"):
        pytest.importorskip(package, reason="the extra [docs] is not installed")
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet, under which mkdocs doesn't count its warnings.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_builds_strictly_and_fetches_nothing(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text())
        assert [address for address in parser.addresses if "//" in address] == [], page


def test_first_page_shows_what_readme_begins_with(site):
    page = (site / "index.html").read_text()
    assert "{{" not in page
    assert 'src="pictures/rough_and_smooth.png"' in page
    assert 'href="choosing.html#how-strong"' in page
    assert "<!-- end -->" not in page
    assert "Read on" not in page


def test_formulas_are_typeset_and_code_is_left_alone(site):
    page = (site / "method.html").read_text()
    formulas = len(re.findall(r"\$\$.+?\$\$|(?<!\$)\$[^$\n]+\$(?!\$)", (DOCS / "method.md").read_text(), re.DOTALL))
    assert page.count("<math") == formulas > 20
    assert 'class="formula"' in page
    assert "\\frac" not in page
    assert "$" not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    # Shell variables in code are no formulas.
    results = (site / "results.html").read_text()
    assert "$D" in re.sub(r"<[^>]+>", "", results)


def test_cells_of_tables_name_their_columns(site):
    page = (site / "log.html").read_text()
    assert '<td data-column="name"><code>critic_coded</code></td>' in page
    assert '<td data-column="weighted?">no</td>' in page


def test_every_logged_name_is_explained():
    """What steps return and tasks add, under the names of docs/log.md."""
    explained = set(re.findall(r"`(\w+)`", (DOCS / "log.md").read_text()))
    generator, critic = build_gan("dcgan16", width=4, channels=1)
    images, latents = torch.randn(4, 1, 16, 16), torch.randn(4, generator.latent_dim)
    logged: set[str] = set()
    for part, network in (("critic", critic), ("generator", generator)):
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        coded = CodedSmoothing(network, ["blocks.0"], weight=0.1)
        if part == "critic":
            terms = [ZeroCentred(0.1), ZeroCentred(0.1, on="fake"), Consistency(1.0, view=lambda x: x.flip(3))]
            terms += [LeCamTerm(0.1, LeCam()), FeatureNorm(HeldShare(0.1), "blocks.0")]
            alpha = torch.rand(4)
            losses = critic_step(critic, optimizer, images, images, alpha, terms=terms, coded=coded, measure_share=True)
        else:
            losses = generator_step(generator, critic, optimizer, latents, coded=coded, measure_share=True)
        logged |= set(losses)
    assert {"critic_coded", "critic_share", "feature_norm_share", "generator_share", "wasserstein", "r2"} <= logged
    assert logged <= explained


def test_site_lists_every_recipe_and_every_public_name(site):
    import cs_gan.attacks
    import cs_gan.core
    import cs_gan.data
    import cs_gan.gan
    import cs_gan.metrics
    import cs_gan.ssl
    import cs_gan.supervised

    recipes = (site / "recipes.html").read_text()
    for folder in ("gan", "classifier", "ssl", "studies"):
        for path in (ROOT / "configs" / folder).glob("*.yaml"):
            assert f"<code>{path.stem}</code>" in recipes
    for module in (
        cs_gan.core,
        cs_gan.gan,
        cs_gan.supervised,
        cs_gan.ssl,
        cs_gan.attacks,
        cs_gan.metrics,
        cs_gan.data,
    ):
        name = module.__name__.removeprefix("cs_gan.")
        page = (site / "api" / f"{name}.html").read_text()
        # A function with the name of its module (accuracy, labelled) is found there.
        shown = [each for each in module.__all__ if re.search(rf'id="cs_gan.{name}.{each}(.{each})?"', page)]
        assert shown == module.__all__
        assert 'id="cs_gan.core.__all__"' not in page


def test_pictures_are_small_and_all_shown():
    text = "".join(PAGES.values())
    for picture in (DOCS / "pictures").glob("*.png"):
        assert picture.stat().st_size < 100_000, picture
        assert f"pictures/{picture.name}" in text, picture


def test_every_page_is_in_the_sites_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    missing = [page for path in DOCS.rglob("*.md") if f": {(page := path.relative_to(DOCS).as_posix())}\n" not in menu]
    assert not missing
