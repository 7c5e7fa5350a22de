#!/usr/bin/env bash
# The wheel as a stranger meets it: sdist and wheel are built and checked, then an empty environment by pip, and another by
# uv, take the wheel and run the README's three lines and an example:
#   bash tests/release.sh python3.13 2.14.1     a Python, and a torch (none: the newest)
#   bash tests/release.sh python3.13 2.14.1 uv  by uv alone (or pip)
# Each environment is 1 to 6 GB, and is removed when it has been seen. uv reads its own settings, such as UV_INDEX.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3} torch=${2:-} installers=${3:-pip uv}
checkout=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet build twine uv
git clone --quiet . "$work/source" # what is committed, with its tags; building leaves nothing in the checkout
"$work/tools/bin/python" -m build --outdir "$work/dist" "$work/source" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$work/tools/bin/twine" check --strict "$work"/dist/*
for installer in $installers; do
  venv=$work/$installer
  if [ "$installer" = uv ]; then
    "$work/tools/bin/uv" venv --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" "$venv"
    install=("$work/tools/bin/uv" pip install --quiet --python "$venv/bin/python")
  else
    "$python" -m venv "$venv"
    install=("$venv/bin/pip" install --quiet)
  fi
  began=$SECONDS
  "${install[@]}" "$work"/dist/*.whl "torch${torch:+==$torch}"
  echo "$installer: $((SECONDS - began)) s, $(du -sm "$venv" | cut -f1) MB"
  cd "$work" # away from the checkout, so that the wheel is what is imported
  "$venv/bin/python" "$checkout/tests/release_check.py" "$checkout/README.md"
  "${install[@]}" scikit-learn # for its digits
  "$venv/bin/python" "$checkout/examples/plain_gan.py" --steps=200 | tail -1
  cd "$checkout"
  rm -rf "$venv"
done
