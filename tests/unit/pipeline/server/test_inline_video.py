"""A video in a data: URL comes out as the bytes that went in, however its base64 is written."""

import base64
import json
import random
from urllib.parse import quote

import pytest

from pipeline.server.errors import ApiError
from pipeline.server.intake import bounded_json
from pipeline.server.intake.inline_video import InlineVideo

DATA = random.Random(1).randbytes(100_001)
PLAIN = base64.b64encode(DATA).decode()


def lines(text: str, width: int, end: str) -> str:
    return end.join(text[i : i + width] for i in range(0, len(text), width)) + end


WAYS = {
    "plain": "data:video/mp4;base64," + PLAIN,
    "codecs": "data:video/webm;codecs=vp9,opus;base64," + PLAIN,
    "codecs in quotes": 'data:video/webm;codecs="vp9,opus";base64,' + PLAIN,
    "no type": "data:;base64," + PLAIN,
    "capitals": "DATA:Video/MP4;BASE64," + PLAIN,
    "blank before base64": "data:video/mp4; base64," + PLAIN,
    "charset": "data:video/mp4;charset=utf-8;base64," + PLAIN,
    "76 letters a line": "data:video/mp4;base64," + lines(PLAIN, 76, "\n"),
    "76 letters, CRLF": "data:video/mp4;base64,\r\n" + lines(PLAIN, 76, "\r\n"),
    "blanks and tabs": "data:video/mp4;base64, " + lines(PLAIN, 13, " \t"),
    "no padding": "data:video/mp4;base64," + PLAIN.rstrip("="),
    "percent signs": "data:video/mp4;base64," + quote(PLAIN, safe=""),
    "URL-safe letters": "data:video/mp4;base64," + base64.urlsafe_b64encode(DATA).decode(),
}


def decoded(url: str, escape_slash: bool = False) -> bytes:
    written = json.dumps([url])
    document = bounded_json.parse(
        bytearray((written.replace("/", "\\/") if escape_slash else written).encode())
    )
    return b"".join(InlineVideo(document.long_texts[document.value[0]]).pieces())


@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_write_it_gives_the_same_bytes(name, monkeypatch):
    assert b"".join(InlineVideo(WAYS[name]).pieces()) == DATA
    for size in (2000, 4001, 256 << 10):
        monkeypatch.setattr(bounded_json, "_PIECE", size)
        assert decoded(WAYS[name]) == decoded(WAYS[name], escape_slash=True) == DATA


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:video/mp4,xxxx", "is written as"),
        ("data:video/mp4;base64", "is written as"),
        ("video/mp4;base64,QUJD", "is written as"),
        ("QUJD", "is written as"),
        ("", "is written as"),
        ("data:;base64,", "is empty"),
        ("data:;base64, \n", "is empty"),
        ("data:;base64,Q", "is damaged"),
        ("data:;base64,QUJDQ", "is damaged"),
        ("data:;base64,QUI=QUJD", "is damaged"),
        ("data:;base64,QUI=" + "QUJD" * 10, "is damaged"),
        ("data:;base64,QU=I", "is damaged"),
        ("data:;base64,====", "is damaged"),
        ("data:;base64,=", "is damaged"),
        ("data:;base64,QU%4", "is damaged"),
        ("data:;base64,QUJ?", "is damaged"),
        ("data:;base64,QUJé", "is damaged"),
        ("data:;base64,QUJ\ud800", "is damaged"),
        ("data:;base64,QUJ\\", "is damaged"),
        ("data:;base64,QUJD\0QUJD", "is damaged"),
    ],
)
def test_a_damaged_one_is_told(url, words):
    with pytest.raises(ApiError, match=words) as told:
        list(InlineVideo(url).pieces())
    assert told.value.status == 400
    if "QU" in url and ";base64," in url:
        long = url.replace("base64,", "base64," + "QUJD" * 30_000)
        with pytest.raises(ApiError, match=words):
            decoded(long)
