"""Pictures of a chat request: their times, their order, their bytes, and what is refused."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.server.chat_request import MAX_PICTURES, Abilities, ChatRequest, parse_body
from pipeline.server.errors import ApiError
from pipeline.server.intake.pictures import decode_pictures

QUESTION = {"type": "text", "text": "What is it?"}


def image(color: tuple[int, int, int] = (200, 30, 60), size: int = 8, form: str = "PNG") -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, form)
    data = base64.b64encode(buffer.getvalue()).decode()
    url = f"data:image/{form.lower()};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def parsed(*parts: Any) -> ChatRequest:
    body = {"model": "reelbank", "messages": [{"role": "user", "content": list(parts)}]}
    data = bytearray(json.dumps(body).encode())
    return parse_body(data, max_letters=100, max_tokens=64, abilities=Abilities())


def test_times_stand_before_pictures_and_not_in_the_question() -> None:
    request = parsed(
        text("[00:31]"), image(), text("2. [01:02.500]"), image(), text("said: hello"), QUESTION
    )
    assert [picture.time for picture in request.pictures] == [31.0, 62.5]
    assert request.question == "said: hello\nWhat is it?" and request.video is None


def test_without_times_there_is_a_picture_a_second() -> None:
    request = parsed(text("Look:"), image(), image(), text("[00:09]"), image(), QUESTION)
    assert [picture.time for picture in request.pictures] == [0.0, 1.0, 9.0]
    assert request.question.startswith("Look:")


def test_pixels_arrive_as_they_were_sent() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    request = parsed({"type": "image_url", "image_url": {"url": url}}, image(), QUESTION)
    frames = decode_pictures(request.pictures, (8, 8))
    assert (frames.pixels[0] == noise).all() and (frames.pixels[1] == (200, 30, 60)).all()
    assert decode_pictures(request.pictures, (6, 4)).pixels.shape == (2, 4, 6, 3)


@pytest.mark.parametrize(
    ("parts", "status", "said"),
    [
        ([{"type": "image_url", "image_url": {"url": "https://x/a.png"}}], 422, "data:image"),
        ([{"type": "image_url", "image_url": "data:image/png;base64,AA"}], 422, "image_url"),
        ([text("[00:05]"), image(), text("[00:05]"), image()], 422, "order of their times"),
        ([image(), {"type": "file", "file": {"file_id": "file-1"}}], 422, "not both"),
        ([image(size=1)] * (MAX_PICTURES + 1), 413, "at most 256"),
    ],
)
def test_what_is_refused(parts: list[dict], status: int, said: str) -> None:
    with pytest.raises(ApiError, match=said) as error:
        parsed(*parts, QUESTION)
    assert error.value.status == status


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("data:image/png;base64,AAAA", 422),
        ("data:image/png;base64,%%%", 400),
        ("data:image/png,plain", 400),
        ("data:image/svg+xml;base64,PHN2Zy8+", 422),
    ],
)
def test_bytes_that_are_no_picture(url: str, status: int) -> None:
    request = parsed({"type": "image_url", "image_url": {"url": url}}, QUESTION)
    with pytest.raises(ApiError, match=r"[Pp]icture") as error:
        decode_pictures(request.pictures, (8, 8))
    assert error.value.status == status


def test_a_picture_of_too_many_pixels_is_not_decoded() -> None:
    request = parsed(image(size=6000), QUESTION)
    with pytest.raises(ApiError, match="more than 32000000 pixels") as error:
        decode_pictures(request.pictures, (8, 8))
    assert error.value.status == 413
