"""The report of one run."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from cs_gan.errors import DataError
from cs_gan.report import save_grid, save_neighbours, save_report
from cs_gan.report.page import frame, number, with_spread

from .conftest import FD, IS, evaluation, frames, lines, text_of

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def report(tmp_path):
    """The page of a run folder, as text."""

    def make(folder):
        path = tmp_path / "report.html"
        save_report(path, folder)
        assert not list(tmp_path.glob("*.partial"))
        return path.read_text()

    return make


def test_says_what_the_run_is_and_how_it_stands(make_run, report):
    text = text_of(report(make_run()))
    for fact in (
        "Steps 1,000 of 1,000",
        "Data cifar10",
        "Model dcgan32",
        "Median speed 800.0 images/s",
        f"{FD} (lower is better) last 123.0 step 1,000 best 117.2 step 500",
        "500 117.2 2.50 ± 0.12",
        "weights_sha256 702b1ec2",
        "reference.split train",
        "n_critic: 5",
    ):
        assert fact in text
    assert "Go on with it" not in text  # it is done


def test_says_how_to_go_on_and_how_to_do_it_again(make_run, report):
    folder = make_run("a run", recipe={"training": {"steps": 2000, "n_critic": 5}})
    config = folder / "config.yaml"
    config.write_text("# python train_gan.py --config configs/gan/x.yaml\n" + config.read_text())
    text = report(folder).replace("&#39;", "'")
    launch = f"python train_gan.py \\\n  --config '{folder}/config.yaml' \\\n  "
    assert f"{launch}--resume=auto<" in text
    assert f"{launch}--resume=never \\\n  --output_dir='{folder}_again'<" in text


def test_a_run_that_does_not_say_its_script_has_no_command(make_run, report):
    assert "--config" not in report(make_run(recipe={"training": {"steps": 10}}))


def test_draws_every_evaluation_and_every_loss(make_run, report):
    page = report(make_run())
    said = re.findall(r"<title>(step [^<]*)</title>", page)
    assert said[:3] == ["step 0: 304.5", "step 500: 117.2", "step 1,000: 123"]
    titles = re.findall(r"<figcaption>([^<]*)", page)
    assert [title.strip() for title in titles] == [FD, IS, "critic loss", "images per second"]
    # y grows downwards: the first distance, the highest, is drawn above the others.
    heights = [float(point.split(",")[1]) for point in re.search(r'points="([^"]+)"', page)[1].split()]
    assert heights[0] < heights[2] < heights[1]


def test_every_panel_names_its_axes_and_has_a_sentence_that_says_what_is_better(make_run, report):
    scores = {name: 0.5 for name in (FD, IS, "KID, x", "precision, x", "recall, x", "density, x", "coverage, x")}
    folder = make_run(metrics=[evaluation(step, scores) for step in (0, 5)])
    page = report(folder)
    figures = re.findall(r'<figure class="card">\s*<figcaption>.*?</figure>', page, re.DOTALL)
    assert len(figures) == 6  # three scores, one panel of fractions, loss and speed
    for figure in figures:
        assert re.search(r'class="axis" x=[^>]*>step<', figure)
        assert re.search(r'class="axis" transform=[^>]*>[^<]+<', figure)
        assert re.search(r'<p class="note">[^<]+\.</p>', figure)
    assert [("Lower is better" in figure, "Higher is better" in figure) for figure in figures[:4]] == [
        (True, False),
        (False, True),
        (True, False),
        (False, True),
    ]


def test_every_fraction_in_one_panel_has_the_dash_of_its_line_as_its_key(make_run, report):
    names = [f"{name}, x" for name in ("precision", "recall", "density", "coverage")]
    page = report(make_run(metrics=[evaluation(step, dict.fromkeys(names, 0.5)) for step in (0, 5)], log=False))
    keys = re.findall(r'<svg class="dash"[^>]*><path class="line (d\d)"[^>]*/></svg>(\w+)', page)
    assert keys == [("d0", "precision"), ("d1", "recall"), ("d2", "density"), ("d3", "coverage")]
    assert re.findall(r'<polyline class="line c0 (d\d)"', page) == ["d0", "d1", "d2", "d3"]
    for dash in ("d1", "d2", "d3"):
        assert f"svg .line.{dash} {{ stroke-dasharray" in page


def test_real_images_stand_beside_the_fakes_in_the_same_size(make_run, report):
    folder = make_run(grids=(0, 500))
    save_grid(folder / "real.png", torch.full((4, 3, 32, 32), 77, dtype=torch.uint8))
    page = report(folder)
    opening = page[page.index('class="opening"') : page.index("Scores</h2>")]
    assert 'alt="real images"' in opening
    fake, _, real = frames(opening)
    assert real.shape == fake.shape
    assert abs(int(real[5, 5, 0]) - 77) <= 4  # JPEG


def test_strips_show_with_their_step_and_a_sentence_unless_a_resume_discarded_it(make_run, report):
    folder = make_run()
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    save_grid(folder / "interpolation-strip.png", images, about={"step": "1000"})
    save_neighbours(
        folder / "nearest-strip.png", images, images[:, None], torch.zeros(4, 1), "x", about={"step": "500"}
    )
    text = text_of(report(folder))
    assert "Interpolation , step 1,000 Each row goes from one latent to another." in text
    assert "Nearest training images , step 500 Each row is a generated image" in text
    save_grid(folder / "interpolation-strip.png", images, about={"step": "1500"})  # the run is at 1,000 again
    assert "Interpolation" not in text_of(report(folder))


def test_an_older_run_without_the_new_files_has_a_report(make_run, report):
    page = report(make_run())
    assert "real images" not in page
    assert "A closer look" not in page


def test_path_and_count_of_the_data_are_told_and_for_older_runs_what_is_recorded(make_run, report):
    recipe = {"data": {"name": "folder", "root": "pictures"}}
    metrics = [evaluation(0, {FD: 1.0}, trained_on={"count": 1200})]
    folder = make_run(recipe=recipe, metrics=metrics)
    assert "Data folder Model dcgan32 Seed 0 Path pictures Training images 1,200" in text_of(report(folder))
    (folder / "training_data.json").write_text(json.dumps({"path": "/home/me/pictures", "count": 1500}))
    assert "Path /home/me/pictures Training images 1,500" in text_of(report(folder))
    (folder / "training_data.json").write_text("[")
    assert "Training images 1,200" in text_of(report(folder))


def test_everything_from_files_is_escaped(make_run, report):
    nasty = f"{SCRIPT}\"'&"
    folder = make_run(
        nasty.replace("/", "∕"),  # a folder's name can't hold the other
        recipe={"data": {"name": nasty}, "seed": nasty, nasty: nasty},
        metrics=[evaluation(1, {f"FD {nasty}": 2.0, f"precision, {nasty}": 1.0, "recall, x": 1.0}, reference=nasty)],
    )
    (folder / "log.jsonl").write_text(lines({"step": 1, nasty: 3.0}))
    page = report(folder)
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert f'="{SCRIPT[:5]}' not in page
    # Outside our own style and script there is no tag that the templates don't have.
    assert page.count("<script>") == 1


def test_the_page_fetches_nothing(make_run, report):
    page = re.sub(r"base64,[^\"]+", "", report(make_run()))  # where any letters may follow each other
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<iframe", page.replace("'none'", ""))
    assert "default-src 'none'" in page


def test_the_newest_grid_shows_without_a_script(make_run, report):
    page = report(make_run())
    shown = re.findall(r'class="frame shown"[^>]*alt="([^"]+)"', page)
    assert shown == ["step 1,000"]
    # Grids go from black to white, behind a grey gap; JPEG at quality 85 keeps a flat colour to a few levels.
    corners = [frame[5, 5].astype(int) for frame in frames(page)]
    np.testing.assert_allclose([corner.mean() for corner in corners], [0, 127, 255], atol=4)


def test_many_grids_are_thinned_and_large_ones_shrunk(make_run, report):
    folder = make_run(grids=range(0, 5000, 100))
    Image.new("RGB", (2000, 1000)).save(folder / "grids" / "step-00004900.png")
    page = report(folder)
    pictures = frames(page)
    assert len(pictures) == 24
    assert pictures[-1].shape == (400, 800, 3)
    steps = [int(step.replace(",", "")) for step in re.findall(r'alt="step ([\d,]+)"', page)]
    assert (steps[0], steps[-1]) == (0, 4900)
    assert set(np.diff(steps)) <= {200, 300}
    assert "24 of 50 sample grids" in text_of(page)


def test_long_logs_are_averaged(make_run, report):
    folder = make_run()
    rows = [{"step": step, "loss": float(step % 2)} for step in range(1, 3001)]
    (folder / "log.jsonl").write_text(lines(*rows) + '{"step": 3001, "lo')
    page = report(folder)
    [line] = re.findall(r'<polyline class="line c0 d0" points="([^"]+)"', page)[2:]
    heights = {point.split(",")[1] for point in line.split()}
    assert len(line.split()) == 300
    assert len(heights) == 1  # each point is the mean of five 0 and five 1
    assert "the mean of 10 lines of the log" in text_of(page)


@pytest.mark.parametrize(
    ("missing", "heading"),
    [("metrics.jsonl", "Scores"), ("log.jsonl", "Losses and speed"), ("config.yaml", "Configuration")],
)
def test_what_is_missing_is_left_out(missing, heading, make_run, report):
    folder = make_run()
    assert heading in text_of(report(folder))
    (folder / missing).unlink()
    assert heading not in text_of(report(folder))


def test_a_run_that_has_only_begun_has_a_report(make_run, report):
    folder = make_run(metrics=None, log=False, grids=())
    text = text_of(report(folder))
    assert "Steps 0 of 1,000" in text
    assert "Scores" not in text
    assert "<img" not in report(folder)


def test_a_broken_grid_is_left_out(make_run, report):
    folder = make_run()
    (folder / "grids" / "step-00000500.png").write_bytes(b"\x89PNG broken")
    assert len(frames(report(folder))) == 2


def test_scores_in_full_stand_first_with_their_own_provenance(make_run, report):
    full = {
        "final": evaluation(1000, {FD: 101.5}, num_samples=50_000),
        "best": evaluation(500, {FD: 99.5}, num_samples=50_000),
    }
    text = text_of(report(make_run(scores=full)))
    assert "last 101.5 step 1,000 best 99.50 step 500 Full scores" in text
    assert "num_samples 50000 50000" in text
    assert "Some scores of this run are not comparable" not in text


def test_scores_that_changed_their_meaning_within_a_run_are_flagged(make_run, report):
    rows = [evaluation(0, {FD: 9.0}), evaluation(5, {FD: 3.0}, num_samples=100)]
    text = text_of(report(make_run(metrics=rows)))
    assert "Some scores of this run are not comparable" in text
    assert "num_samples 2000 / 100" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="give the folder of a run"):
        save_report(tmp_path / "report.html", tmp_path / "empty")
    assert not (tmp_path / "report.html").exists()


def test_equal_runs_have_equal_reports(make_run, report):
    folder = make_run()
    assert report(folder) == report(folder)


@pytest.mark.parametrize(
    ("value", "text"),
    [(119.0, "119.0"), (1873.63, "1874"), (12345.6, "12,346"), (0.0012344, "0.001234"), (-7, "-7.000")],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text


def test_spread_follows_its_value():
    assert [with_spread(3.2, 0.1), with_spread(3.2, None), with_spread(None, None)] == ["3.20 ± 0.10", "3.200", "–"]


def test_a_picture_of_another_format_is_left_out(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "grid.png", "PCX")
    assert frame("grid", tmp_path / "grid.png") is None
