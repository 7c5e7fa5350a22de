"""Read YAML as recipes and studies are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cs_gan.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """As YAML 1.2: 1e-4 is a number, and only true and false are booleans, so no and off are words.

    Rejects duplicate keys, of which YAML drops the first.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in the base class, after checking the keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} occurs twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file.

    Raises:
        ConfigError: if it is missing or not YAML.
    """
    try:
        with path.open() as file:
            return yaml.load(file, _Loader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: {what} can't be read: {error.strerror or error}.") from error
    except RecursionError:
        raise ConfigError(f"{path}: {what} is nested too deeply.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {what} is not valid YAML: {' '.join(str(error).split())}") from error
