"""The YAML that recipe files are written in: 1e-3 is a number, which YAML 1.1 denies, and dates are texts."""

from __future__ import annotations

import re
from typing import Any

import yaml

HEADER = "# @package _global_"
"""The first line of a recipe file."""

FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")


class _Resolver(yaml.resolver.Resolver):
    """Says what a plain word means."""


_Resolver.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
}
_Resolver.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))

MEANINGS = _Resolver.yaml_implicit_resolvers
"""First letter of a plain word to what it may mean, for loaders and dumpers alike."""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that would be read as something else."""

    yaml_implicit_resolvers = MEANINGS


def dump(values: Any) -> str:
    """Return plain values as a block of YAML that is read as the same values."""
    return yaml.dump(values, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
