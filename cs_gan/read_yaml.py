"""Read YAML as recipes and studies are written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from cs_gan.errors import ConfigError
from cs_gan.flat_keys import flat_items


class _Loader(yaml.SafeLoader):
    """As YAML 1.2: 1e-4 is a number, and 010 is 10. Only true and false are booleans, so no, off and dates are words.

    Rejects duplicate keys, of which YAML drops the first, and keys that are no text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in the base class, after checking the keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} occurs twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Decimal, whatever the first digit."""
        return int(str(self.construct_scalar(node)))


OTHERWISE = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp")}
"""YAML 1.1 reads these in ways of its own: 1:30 is 90, and 1_0 is 10."""
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in OTHERWISE]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?\d+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file.

    Raises:
        ConfigError: if it is missing or not YAML, or sets a key twice.
    """
    content = _loaded(path, what)
    seen: set[str] = set()
    for key, _ in flat_items(content) if isinstance(content, dict) else ():
        if key in seen:
            raise ConfigError(f"{path}: {what} sets {key} twice, with dots and as a section. Leave one out.")
        seen.add(key)
    return content


def _loaded(path: Path, what: str) -> Any:
    try:
        with path.open() as file:
            content = yaml.load(file, _Loader)  # a SafeLoader
        json.dumps(content, default=str)  # fails for what contains itself
        return content
    except OSError as error:
        raise ConfigError(f"{path}: {what} can't be read: {error.strerror or error}.") from error
    except RecursionError:
        raise ConfigError(f"{path}: {what} is nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:  # also bytes that are no text
        raise ConfigError(f"{path}: {what} is not valid YAML: {' '.join(str(error).split())}") from error
