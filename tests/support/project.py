"""What pyproject.toml says: the core, and the extras with the extras that they name."""

import tomllib

from packaging.requirements import Requirement

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def requirements_of(extra: str) -> list[Requirement]:
    """All requirements of an extra; those of `reelbank[other]` in its place."""
    found: list[Requirement] = []
    for text in EXTRAS[extra]:
        one = Requirement(text)
        if one.name == PROJECT["name"]:
            found += [inner for name in sorted(one.extras) for inner in requirements_of(name)]
        else:
            found.append(one)
    return found
