"""Probes of what is installed: Python, Reelbank, the packages of its core, and its extras.

Reads the metadata of distributions. Imports only what must be seen to load: compiled libraries
without which no film is read.
"""

import platform
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from encoders.extras import EXTRAS, absent_modules, install_line
from pipeline.commands.machine.finding import Finding, Status

OURS = ("conf", "encoders", "memory", "pipeline")
# module -> distribution: compiled, so that they may be there and still not load
_COMPILED = {"numpy": "numpy", "torch": "torch", "av": "av", "faiss": "faiss-cpu"}
_ROOT = Path(__file__).parents[3]


def python() -> Iterator[Finding]:
    """The interpreter and the system."""
    system = f"{platform.system()} {platform.machine()}"
    version = platform.python_version()
    yield Finding(
        "installation", "python", Status.OK, f"{version}, {system}",
        {"version": version, "system": platform.system(), "machine": platform.machine(),
         "executable": sys.executable},
    )  # fmt: skip


def reelbank() -> Iterator[Finding]:
    """The version, and where its packages come from."""
    version = metadata.version("reelbank")
    yield Finding(
        "installation", "reelbank", Status.OK, f"{version}, in {_ROOT}",
        {"version": version, "folder": str(_ROOT)},
    )  # fmt: skip


def own_packages() -> Iterator[Finding]:
    """Whether Python finds ours under the names that other distributions have as well."""
    for name in OURS:
        spec = find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec else []
        if str(_ROOT / name) not in places:
            found = places[0] if places else (spec.origin if spec else "nowhere")
            yield Finding(
                "installation", name, Status.BROKEN,
                f"Python finds the package {name} at {found}, not at {_ROOT / name}; rename the "
                "other one, or start elsewhere",
            )  # fmt: skip


def core() -> Iterator[Finding]:
    """Each package that the core needs, with its version."""
    for text in metadata.requires("reelbank") or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)


def _package(requirement: Requirement) -> Finding:
    name = requirement.name
    remedy = f"say `pip install '{name}{requirement.specifier}'`"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        if name == "faiss-cpu" and find_spec("faiss"):  # of faiss-gpu, which replaces it
            return Finding("packages", name, Status.OK, "another build of faiss is installed")
        return Finding("packages", name, Status.BROKEN, f"is not installed; {remedy}")
    facts = {"version": version}
    # a build such as 2.13.0+cpu is one of 2.13.0
    if not requirement.specifier.contains(version, prereleases=True):
        text = f"{version}, and {requirement.specifier} is needed; {remedy}"
        return Finding("packages", name, Status.BROKEN, text, facts)
    module = next((module for module, own in _COMPILED.items() if own == name), "")
    if module:
        try:
            import_module(module)
        except Exception as error:  # OSError of a shared library, ImportError, and what they raise
            lines = str(error).splitlines() or [type(error).__name__]
            text = f"{version}, which cannot be loaded ({lines[0]}); install it again"
            return Finding("packages", name, Status.BROKEN, text, facts)
    return Finding("packages", name, Status.OK, version, facts)


def extras() -> Iterator[Finding]:
    """Each extra, with the line that installs it where it is missing."""
    for extra, modules in EXTRAS.items():
        absent = absent_modules(extra)
        facts = {"modules": list(modules), "missing": list(absent), "install": install_line(extra)}
        if absent:
            text = f"{', '.join(absent)} missing; {install_line(extra)}"
            yield Finding("extras", extra, Status.MISSING, text, facts)
        else:
            yield Finding("extras", extra, Status.OK, "installed", facts)
