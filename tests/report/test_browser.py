"""The report in a real browser, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from cs_gan.report import save_grid, save_neighbours, save_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium in PATH")


def browse(page, profile, *options):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *options]
    return subprocess.run([BROWSER, *flags, page.as_uri()], capture_output=True, text=True, timeout=90, check=True)


@pytest.fixture
def page(make_run, tmp_path):
    path = tmp_path / "report.html"
    save_report(path, make_run(grids=(0, 500, 1000)))
    return path


def test_the_page_is_drawn(page, tmp_path):
    picture = tmp_path / "shot.png"
    browse(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1200,1600", "--hide-scrollbars")
    pixels = np.asarray(Image.open(picture).convert("RGB"), dtype=int)
    assert pixels.shape[1] == 1200
    assert pixels.std() > 5  # a blank page has 0
    # The curves are drawn in the first colour of the palette, whichever scheme the browser has.
    found = [np.abs(pixels - np.array(shade)).max(-1) < 12 for shade in ((0x00, 0x72, 0xB2), (0x5D, 0xB3, 0xE6))]
    assert max(near.sum() for near in found) > 200


@pytest.mark.parametrize("width", [400, 1280])  # of a frame, because a window of Chromium is never that narrow
def test_nothing_reaches_over_the_edge_of_a_narrow_or_a_wide_window(width, make_run, tmp_path):
    folder = make_run()
    images = torch.zeros(64, 3, 64, 64, dtype=torch.uint8)
    save_grid(folder / "real.png", images)
    save_grid(folder / "interpolation-strip.png", images, columns=16)
    near = images[:, None].expand(-1, 16, -1, -1, -1)
    save_neighbours(folder / "nearest-strip.png", images[:4], near[:4], torch.ones(4, 16), "the distance in x")
    save_report(folder / "report.html", folder)
    frame = f"""<iframe src="report.html" style="width: {width}px; height: 900px; border: 0"></iframe>
    <script>onload = () => {{
      const root = document.querySelector("iframe").contentDocument.documentElement;
      document.title = `${{root.clientWidth}} ${{root.scrollWidth}}`;
    }};</script>"""
    (folder / "frame.html").write_text(frame)
    flags = ["--window-size=1400,900", "--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom"]
    dom = browse(folder / "frame.html", tmp_path / "profile", *flags).stdout
    [(inner, needed)] = re.findall(r"<title>(\d+) (\d+)</title>", dom)
    assert width - 20 < int(inner) <= width  # less a scroll bar
    assert int(needed) <= int(inner)


@pytest.mark.parametrize(
    ("act", "shown", "button"),
    [
        ("", "step 1,000", "Play"),
        ("slider.value = 1; slider.dispatchEvent(new Event('input'));", "step 500", "Play"),
        ("slider.value = 0; slider.dispatchEvent(new Event('input')); button.click();", "step 1,000", "Play"),
        ("button.click(); button.click();", "step 0", "Play"),
    ],
    ids=["as it opens", "slider", "play to the end", "pause"],
)
def test_the_slider_and_the_button_work(act, shown, button, page, tmp_path):
    script = f"""<script>
    const player = document.querySelector(".player");
    const [button, slider] = ["button", "input"].map((name) => player.querySelector(name));
    {act}
    setTimeout(() => {{
      const frames = [...player.querySelectorAll(".frame")].filter((f) => getComputedStyle(f).display !== "none");
      document.title = JSON.stringify([
        frames.map((f) => f.alt), player.querySelector("output").textContent, button.textContent,
        button.checkVisibility(), frames[0].naturalWidth > 0,
      ]);
    }}, 3000);
    </script>"""
    page.write_text(page.read_text().replace("</body>", script + "</body>"))
    dom = browse(page, tmp_path / "profile", "--virtual-time-budget=10000", "--dump-dom").stdout
    assert f'<title>[["{shown}"],"{shown}","{button}",true,true]</title>' in dom
