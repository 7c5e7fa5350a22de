#!/usr/bin/env bash
# The tests of what needs no extra (core, gan, attacks), against the wheel in a bare environment:
#   bash tests/compat.sh python3.13 2.14.1     a Python, and a torch (none: the newest that pip finds)
# KEEP=<folder> uses an environment that is there, or makes it there and keeps it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3} torch=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${KEEP:-$work/venv}
if [ ! -x "$venv/bin/python" ]; then
  "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet "torch${torch:+==$torch}" pytest
fi
mkdir "$work/source" "$work/run"
cp -r cs_gan pyproject.toml README.md LICENSE "$work/source"  # building leaves nothing in the checkout
"$venv/bin/pip" install --quiet --force-reinstall --no-deps "$work/source"
"$venv/bin/pip" install --quiet "$work/source"
# Away from the checkout, so that the wheel is what is imported.
cp -r tests models pyproject.toml "$work/run"
cd "$work/run"
"$venv/bin/python" -c 'import platform, cs_gan, numpy, scipy, torch; print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}, scipy {scipy.__version__}, {cs_gan.__file__}")'
"$venv/bin/python" -m pytest tests/core tests/gan tests/attacks
