"""The Dockerfile and compose.yaml name what there is. No daemon is asked; no line is executed."""

import re
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml

from encoders.extras import EXTRAS
from pipeline.cli.arguments import parse
from pipeline.cli.commands import COMMANDS
from pipeline.config.compose import compose
from pipeline.config.default_bank import default_bank
from pipeline.config.tasks.server_settings import ServeSettings
from tests.support.paths import ROOT
from tests.support.wheels import BESIDE, PACKAGES

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each instruction, its continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")
    ]


def of(word: str) -> list[str]:
    found = [rest for one, rest in instructions() if one == word]
    assert found, f"the Dockerfile has no {word}"
    return found


def copied() -> list[str]:
    return [source for rest in of("COPY") for source in rest.split()[:-1]]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    for name in copied():
        assert (ROOT / name).exists(), name
        last = next(line for line in reversed(ignored) if fnmatch(name, line.removeprefix("!")))
        assert last.startswith("!"), f"{name} is ignored"
    for name in ("docs", "tests", ".git", ".venv", "films"):
        assert not any(fnmatch(name, line[1:]) for line in ignored if line.startswith("!"))


def test_everything_that_a_wheel_is_built_from_is_copied() -> None:
    assert {*PACKAGES, *BESIDE} <= set(copied())


def test_the_extras_are_there() -> None:
    (names,) = [rest.removeprefix("EXTRAS=") for rest in of("ARG") if rest.startswith("EXTRAS=")]
    assert "serve" in names.split(",") and set(names.split(",")) <= set(EXTRAS)
    assert any("[${EXTRAS}]" in rest for rest in of("RUN"))


def test_the_python_is_one_that_the_package_takes() -> None:
    (version,) = [rest.removeprefix("PYTHON=") for rest in of("ARG") if rest.startswith("PYTHON=")]
    assert version in ("3.11", "3.12", "3.13")
    assert all(rest.startswith("python:${PYTHON}-slim-bookworm") for rest in of("FROM"))


def test_a_user_without_rights_serves_by_default() -> None:
    words = [word for word, _ in instructions()]
    assert of("USER") == ["reelbank"]
    assert words.index("USER") < words.index("CMD") and words.index("USER") < words.index("VOLUME")
    assert of("ENTRYPOINT") == ['["reelbank"]']
    started = yaml.safe_load(of("CMD")[0])
    assert served(started).host == "0.0.0.0"
    assert str(served(started).port) == of("EXPOSE")[0]
    (health,) = of("HEALTHCHECK")
    assert f":{of('EXPOSE')[0]}/health" in health
    app = (ROOT / "pipeline" / "server" / "app.py").read_text(encoding="utf-8")
    assert '@app.get("/health")' in app


def served(words: list[str]) -> ServeSettings:
    """The settings of a command of the image."""
    assert words[0] == "serve"
    return compose("serve", list(parse(COMMANDS["serve"], words[1:]).overrides))


def test_the_bank_and_what_is_uploaded_lie_in_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    own = dict(re.findall(r"(\w+)=(\S+)", " ".join(of("ENV"))))
    (volume,) = yaml.safe_load(of("VOLUME")[0])
    monkeypatch.setenv("REELBANK_BANK", own["REELBANK_BANK"])
    assert default_bank().startswith(f"{volume}/")  # uploads are in BANK-files, beside it
    assert own["HF_HOME"].startswith(f"{volume}/")
    assert f"/{volume.strip('/')}" in of("RUN")[-1] and "useradd" in of("RUN")[-1]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_fits_the_image(name: str) -> None:
    service = COMPOSE["services"][name]
    arguments = {rest.partition("=")[0] for rest in of("ARG")}
    assert set(service["build"]["args"]) <= arguments
    targets = {volume.rpartition(":ro")[0] or volume for volume in service["volumes"]}
    assert any(target.endswith(f":{yaml.safe_load(of('VOLUME')[0])[0]}") for target in targets)
    assert all(port.endswith(f":{of('EXPOSE')[0]}") for port in service["ports"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    volumes = {volume.partition(":")[0] for volume in service["volumes"]}
    assert volumes & set(COMPOSE["volumes"])
    if "command" in service:
        words = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in service["command"]]
        assert served(words).backbone["device"] == "cuda"
        assert str(served(words).port) == of("EXPOSE")[0]
