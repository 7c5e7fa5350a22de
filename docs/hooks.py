"""What mkdocs does to the pages on their way to the site; read by mkdocs.yml, never installed."""

from __future__ import annotations

import os
import re
from html import escape, unescape
from itertools import cycle, takewhile
from pathlib import Path
from typing import Any

import yaml

from cs_gan.training.recipes.sections import SHARE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples" / "README.md"
README = ROOT / "README.md"
SHARED = re.compile(r"<!-- start: .*? -->\n(.*?)<!-- end -->", re.DOTALL)
CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\w)", re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Pages and pictures that live elsewhere in the repository."""
    from mkdocs.structure.files import File

    text = EXAMPLES.read_text() if EXAMPLES.exists() else "# Examples\n\nNone yet.\n"
    files.append(File.generated(config, "examples.md", content=for_the_site(text, EXAMPLES.parent)))
    for picture in (ROOT / "samples" / "gallery").glob("*.png"):
        files.append(File.generated(config, f"gallery/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """README's first part, links, formulas, and ``{{ recipes: gan }}`` as a table of configs/gan."""
    if page.file.src_uri != "examples.md":
        markdown = for_the_site(markdown, (DOCS / page.file.src_uri).parent)
    markdown = with_formulas(markdown.replace("{{ readme }}", shared_with_readme()))
    return re.sub(r"\{\{ recipes: (\w+) \}\}", lambda found: recipe_table(found[1]), markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Docstrings are written for Python's help(): ``:class:`X``` and a paragraph that ends with ``::``."""
    html = re.sub(r":(?:class|meth|func|data|attr|mod|exc):<code>", "<code>", html)
    html = html.replace("<p>::</p>", "").replace("::</p>", ":</p>")
    return re.sub(r"<table>.*?</table>", lambda found: labelled(found[0]), html, flags=re.DOTALL)


def labelled(table: str) -> str:
    """A table whose cells name their columns: on a narrow screen style.css shows a row as a list of them.

    Names of keys in its head may break after a dot or underscore.
    """
    heads = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", table, re.DOTALL)
    columns = cycle([escape(unescape(re.sub(r"<[^>]+>", "", head))) for head in heads] or [""])
    table = re.sub(r"(?<=>)[\w.]+(?=</th>)", lambda found: re.sub(r"([._])", r"\1<wbr>", found[0]), table)
    return re.sub(r"<td(?=[ >])", lambda _: f'<td data-column="{next(columns)}"', table)


def shared_with_readme() -> str:
    """What README and the first page have in common."""
    found = SHARED.search(README.read_text())
    if found is None:
        raise ValueError(
            "README.md has no <!-- start: ... --> and <!-- end -->: docs/index.md shows what is between them."
        )
    return for_the_site(found[1], ROOT)


def with_formulas(markdown: str) -> str:
    """``$...$`` and ``$$...$$`` outside code as MathML, which browsers typeset without a script."""
    parts = CODE.split(markdown)
    parts[::2] = [FORMULA.sub(lambda found: mathml(found[1] or found[2], bool(found[1])), part) for part in parts[::2]]
    return "".join(parts)


def mathml(latex: str, on_its_own_line: bool) -> str:
    """A formula; in a line of its own it may scroll."""
    from latex2mathml.converter import convert  # of the extra [docs]

    html: str = convert(latex.strip(), display="block" if on_its_own_line else "inline")
    # In a span, because a line that begins with <math> would be a paragraph of its own.
    return f'\n<div class="formula">{html}</div>\n' if on_its_own_line else f"<span>{html}</span>"


def for_the_site(markdown: str, folder: Path) -> str:
    """Links from a page in ``folder``, as a page of the site has them."""

    def moved(link: re.Match[str]) -> str:
        image, text, path, anchor = link[1], link[2], link[3], link[4] or ""
        target = Path(os.path.normpath(folder / path))
        if not target.exists():
            return link[0]  # mkdocs names it
        if target == EXAMPLES:
            target = DOCS / "examples.md"
        if target.is_relative_to(DOCS):
            # Pages that come from elsewhere are put at the top of docs/.
            base = folder if folder.is_relative_to(DOCS) else DOCS
            return f"{image}[{text}]({os.path.relpath(target, base)}{anchor})"
        if target.is_relative_to(ROOT / "samples" / "gallery") and image:
            base = folder if folder.is_relative_to(DOCS) else DOCS
            return f"![{text}]({os.path.relpath(DOCS / 'gallery' / target.name, base)})"
        return text

    return LINK.sub(moved, markdown)


def recipe_table(folder: str) -> str:
    """A table of every recipe in configs/``folder``: its first comment and, but for studies, what it trains."""
    recipes = {path.stem: path.read_text() for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))}
    rows = ["| recipe | what it is |", "|---|---|"]
    if folder != "studies":
        rows = ["| recipe | what it is | data | network | length | coded |", "|---|---|---|---|---|---|"]
    for name, text in recipes.items():
        cells = [f"`{name}`", comment(text)]
        if folder != "studies":
            cells += trained(yaml.safe_load(text))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def trained(recipe: dict[str, Any]) -> list[str]:
    """Data, network, length and coded blocks of a recipe, as cells."""
    training, coded = recipe["training"], recipe.get("coded") or recipe.get("method", {}).get("coded") or {}
    length = f"{training['epochs']} epochs" if "epochs" in training else f"{training['steps']:,} steps"
    parts = {"": coded} if "blocks" in coded else {name: one for name, one in coded.items() if isinstance(one, dict)}
    codes = []
    for part, one in parts.items():
        names = ", ".join(f"`{name}`" if name else "the whole" for name in one["blocks"])
        strength = next((f"{key} {one[key]}" for key in ("share", "weight", "mu") if key in one), f"share {SHARE}")
        codes.append(f"{part} {names}, {strength}".strip())
    return [recipe["data"]["name"], recipe["model"]["name"], length, "; ".join(codes) or "no"]


def comment(text: str) -> str:
    """The comment that a YAML file begins with, as one line."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines).replace("|", "\\|")
