"""streams.yaml and the body of a request: what is taken, and one sentence for what is not."""

from pathlib import Path

import pytest

from encoders.errors import UserError
from pipeline.server.streams.stream_hosts import check_host
from pipeline.server.streams.stream_settings import parse_stream, read_streams

DOOR = """
streams:
  door:
    url: rtsp://user:secret@192.168.1.20/door
    fps: 2
    bank: cams
    older_than: 7d
    max_bytes: 10GB
    alerts: [tell me when a red star appears]
  yard: {url: camera:0}
"""


def test_a_file_of_streams_is_read(tmp_path: Path):
    path = tmp_path / "streams.yaml"
    path.write_text(DOOR)
    door, yard = read_streams(path)
    assert (door.name, door.fps, door.bank, door.older_than) == ("door", 2.0, "cams", "7d")
    assert door.alerts == ["tell me when a red star appears"]
    assert (yard.name, yard.url, yard.fps, yard.alerts) == ("yard", "camera:0", None, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DOOR + "  door: {url: camera:1}\n", "two streams or keys have the name door"),
        ("streams: {a b: {url: camera:0}}", "'a b' cannot name a stream"),
        ("streams: {a: {url: gopher://h/x}}", "streams.yaml: a: gopher://h/x is no address"),
        ("streams: {a: {url: /etc/hostname}}", "/etc/hostname is no address that can be watched"),
        ("streams: {a: {url: ''}}", "the address is empty"),
        ("streams: {a: {url: 'rtsp://:0'}}", "has no host and port"),
        ("streams: {a: {url: camera:0, rate: 2}}", "the keys are name, url, fps"),
        ("streams: {a: {url: camera:0, fps: 0}}", "fps: Input should be greater than 0"),
        ("streams: {a: {url: camera:0, older_than: soon}}", "is no age"),
        ("streams: {a: {fps: 1}}", "url: Field required"),
        ("streams: {a: camera:0}", "is no stream; give name and url"),
        ("streams: [", "cannot be read in line"),
        ("door: {url: camera:0}", "has no streams"),
    ],
)
def test_what_cannot_be_watched_is_told_in_one_sentence(tmp_path: Path, text: str, words: str):
    path = tmp_path / "streams.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_streams(path)
    assert words in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_streams(tmp_path / "none.yaml")


def test_a_password_is_in_no_error():
    with pytest.raises(UserError) as error:
        parse_stream({"name": "a", "url": "gopher://user:secret@h/x"}, "The stream")
    assert "secret" not in str(error.value)


def test_clients_reach_the_hosts_that_are_allowed_alone():
    check_host("rtsp://any/x", None, "This server")
    check_host("rtsp://CAM/x", ("cam",), "This server")
    for url in ("rtsp://other/x", "camera:0", "rtsp://[bad", ""):
        with pytest.raises(UserError):
            check_host(url, ("cam",), "This server")
