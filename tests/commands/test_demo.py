"""`reelbank demo`: the server and page of `serve`, opened; and its old ways, which are refused."""

import os
import stat
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import pytest

from encoders.errors import UserError
from pipeline.config.compose import compose
from pipeline.demo import command
from tests.support import children
from tests.support.page import until


def demo(variables: dict[str, str], arguments: list[str], connection: Connection) -> None:
    """The command in a process with these variables of the environment."""
    os.environ.pop("SSH_CONNECTION", None)
    os.environ.update(variables)
    children.command(arguments, connection)


def test_the_page_of_the_server_is_opened_at_its_address(tmp_path: Path) -> None:
    """A process, a program in the browser's place, and the page it was given."""
    opened, program = tmp_path / "opened", tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > {opened}.tmp && mv {opened}.tmp {opened}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    arguments = ["demo", "--bank", str(tmp_path / "bank"), "port=0"]
    process, _ = children.start(demo, {"BROWSER": str(program), "DISPLAY": ":1"}, arguments)
    try:
        until(opened.exists)
        address = opened.read_text().strip()
        assert 'id="talk"' in httpx.get(address).text
        videos = httpx.get(f"{address}/v1/videos").json()  # no key is needed here
        assert videos["whole_bank"] and videos["can_watch"] and "4-digit code" in videos["about"]
    finally:
        process.kill()
        process.join(20)


@pytest.mark.parametrize(
    ("variables", "shows"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, False),
    ],
)
def test_a_browser_needs_a_screen(monkeypatch: Any, variables: dict[str, str], shows: bool) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", "linux")
    assert command.has_screen() == shows


def test_a_login_of_earlier_versions_is_refused_and_leaves_no_open_page(monkeypatch: Any) -> None:
    with pytest.raises(UserError, match=r"auth= is no more in reelbank demo; set api_key="):
        compose("demo", ["auth=ann:sesame"])
    monkeypatch.setenv("REELBANK_AUTH", "ann:sesame")
    with pytest.raises(UserError, match="REELBANK_AUTH is read no more; set REELBANK_API_KEY"):
        command.run(compose("demo", []))
