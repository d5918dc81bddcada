"""A model behind an address in the long-running programs: the server, alerts, and captions."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from encoders.errors import UserError
from encoders.sources.live.file_playback import FilePlayback
from memory.schema import Question
from pipeline.alerts.alert import Alert
from pipeline.alerts.alert_watcher import AlertWatcher
from pipeline.alerts.check import check_for
from pipeline.answer import text_evidence
from pipeline.build import build_backbone, build_qa, build_thumbnail_maker, open_video
from pipeline.config.compose import compose
from pipeline.live.session import Session
from pipeline.resident import ask_resident
from tests.support.chat_server import MODEL, Asked, ChatServer, Reply, chat_server
from tests.support.serving import film as write_film
from tests.support.serving import serving
from tests.support.sessions import SIZE, feed, pushed, wait_until_seen, wait_until_stored, world
from tests.support.toys import toy_parts


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "a.mp4", "code:4821@5")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(answer=lambda asked: Reply("A card: 4821.\nSources: 6")) as running:
        yield running
        assert running.mistakes == []


def parts(server: ChatServer) -> list[str]:
    clip = [part for part in toy_parts() if part.startswith("clip")]
    return ["backbone=endpoint", f"backbone.url={server.url}", f"backbone.model={MODEL}",
            "backbone.retry_s=0.01", *clip]  # fmt: skip


def test_serve_streams_the_answer_of_the_model_behind_it(
    film: Path, server: ChatServer, tmp_path: Path
):
    server.answer = lambda asked: Reply("A card: 4821.\nSources: 6", piece_s=0.02)
    with serving(tmp_path, *parts(server)) as (address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        video = client.files.create(file=film.open("rb"), purpose="user_data")
        content: list[Any] = [
            {"type": "file", "file": {"file_id": video.id}},
            {"type": "text", "text": "What is the code?"},
        ]
        messages: list[Any] = [{"role": "user", "content": content}]
        chunks = list(
            client.chat.completions.create(
                model="reelbank", messages=messages, stream=True,
                stream_options={"include_usage": True}, extra_body={"cite_in_text": False},
            )
        )  # fmt: skip
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        pieces = [delta.content for delta in deltas if delta.content]
        assert "".join(pieces) == "A card: 4821." and len(pieces) > 2
        assert deltas[-1].model_dump()["citations"] == [
            {"file_id": video.id, "start": 5.0, "end": 6.0}
        ]
        usage = chunks[-1].usage
        assert usage is not None and usage.prompt_tokens > 1200 and usage.completion_tokens == 24
        server.replies = [Reply(status=403, body={"error": {"message": "no"}})]
        with pytest.raises(openai.APIStatusError, match="may not use model seer"):
            client.chat.completions.create(model="reelbank", messages=messages)
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        mixed: list[Any] = [{"role": "user", "content": [picture, content[1]]}]
        with pytest.raises(openai.APIStatusError, match="no JPEG, PNG or WebP"):
            client.chat.completions.create(
                model="reelbank",
                messages=mixed,
            )


def test_captions_are_sentences_of_the_model(film: Path, server: ChatServer, tmp_path: Path):
    config = compose("ask", [
        f"video={film}", f"bank={tmp_path / 'bank'}", "question=x", "text=captions",
        "backbone.answer_form=plain", *parts(server),
    ])  # fmt: skip
    server.answer = lambda asked: Reply(f"{len(asked.pictures)} pictures of clouds.")
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    with qa.bank as bank:
        report = qa.ingest(open_video(config, backbone, str(film)))
        assert report.text_lines == {"captions": 2} and len(server.asked) == 2
        question = Question("pictures of clouds", report.video_id)
        found = text_evidence.find(bank, question, {question.video_id: 12.0})
        assert {one.line.text for one in found} == {
            "8 pictures of clouds.", "4 pictures of clouds.",
        }  # fmt: skip
        (run,) = bank.text.runs(report.video_id)
        assert MODEL in json.dumps(str(run))


def test_captions_go_on_where_a_server_failed(film: Path, server: ChatServer, tmp_path: Path):
    """The film is in the bank whole, and the next run describes it."""
    config = compose("ask", [
        f"video={film}", f"bank={tmp_path / 'bank'}", "question=x", "text=captions",
        "backbone.answer_form=plain", "backbone.tries=1", *parts(server),
    ])  # fmt: skip
    backbone = build_backbone(config)
    server.replies = [Reply("Clouds."), Reply(status=500, body={"error": {"message": "oops"}})]
    qa = build_qa(config, backbone)
    with qa.bank as bank:
        with pytest.raises(UserError, match=r"answers 500 \(oops\)"):
            qa.ingest(open_video(config, backbone, str(film)))
        (video,) = bank.catalog.videos()
        assert video.finished and bank.check.verify() == []
        report = qa.ingest(open_video(config, backbone, str(film)))
        assert report.text_lines == {"captions": 2} and report.new_segments == 0


def test_an_alert_goes_on_where_a_server_failed(
    film: Path, server: ChatServer, tmp_path: Path, caplog
):
    """One warning for the same failure; the next check that gets an answer tells."""
    config = compose("ask", [f"bank={tmp_path / 'bank'}", "question=x", "video=-",
                             "source.keep=jpeg", "backbone.tries=1", *parts(server)])  # fmt: skip
    is_broken = True

    def answer(asked: Asked) -> Reply:
        bright = any(sum(one.convert("L").histogram()[200:]) > 1000 for one in asked.pictures[-2:])
        if is_broken:
            return Reply(status=401, body={"error": {"message": "no"}})
        return Reply("Yes." if bright else "No.")

    server.answer = answer
    qa = build_qa(config, build_backbone(config))
    source, notified = pushed(qa), list[float]()
    source.thumbnail = build_thumbnail_maker(config)
    with qa.bank, Session(qa, source) as session:
        watcher = AlertWatcher(session, lambda _, decision: notified.append(decision.time))
        alert = Alert(session, "a card", check_for("a card", None))
        watcher.add(alert)
        paint = world("code:4821@5", "code:7777@12")
        feed(source, paint, 0, 9)
        wait_until(lambda: len(alert.log) >= 9)
        assert notified == [] and "refuses the key (401)" in watcher.problem
        assert {one.why for one in alert.log} <= {"no answer", "gate closed"}
        is_broken = False
        feed(source, paint, 9, 16)
        wait_until(lambda: len(alert.log) >= 16)
        watcher.close()
    assert notified in ([12.0], [13.0]) and watcher.problem == ""
    assert caplog.text.count("an alert was not checked") == 1


def wait_until(is_so: Callable[[], bool], timeout: float = 30.0) -> None:
    until = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_alert_asks_yes_or_no(film: Path, server: ChatServer, tmp_path: Path):
    config = compose("ask", [f"video={film}", f"bank={tmp_path / 'bank'}", "question=x",
                             *parts(server)])  # fmt: skip

    def answer(asked: Asked) -> Reply:
        bright = any(
            sum(one.convert("L").crop((100, 40, 220, 140)).histogram()[200:]) > 1000
            for one in asked.pictures
        )
        return Reply("Yes." if bright else "No, nothing.")

    server.answer = answer
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    source = FilePlayback(open_video(config, backbone, str(film)), float("inf"))
    with qa.bank, Session(qa, source) as session:
        session.join(60)
        alert = Alert(session, "a card", check_for("a card", backbone.questions))
        scores = [alert._score(float(at), at + 0.5)[0] for at in range(12)]
    assert [at for at, score in enumerate(scores) if score] == [5, 6]
    assert set(scores) == {0.0, 1.0}


@pytest.mark.parametrize("keep", ["none", "jpeg"])
def test_a_stream_is_answered_from_its_thumbnails(server: ChatServer, tmp_path: Path, keep: str):
    """A camera leaves no file. Frames of the open segment have theirs as well."""
    config = compose("ask", [f"bank={tmp_path / 'bank'}", "video=-", "question=x",
                             f"source.keep={keep}", *parts(server)])  # fmt: skip
    server.answer = lambda asked: Reply(f"{len(asked.pictures)} pictures.\nSources: 6")
    qa = build_qa(config, build_backbone(config))
    source = pushed(qa)
    source.thumbnail = build_thumbnail_maker(config)
    with qa.bank, Session(qa, source) as session:
        feed(source, world("code:4821@5"), 0, 11)
        wait_until_seen(session, 10)
        wait_until_stored(session, 1)
        if keep == "none":
            with pytest.raises(UserError, match=r"No picture can be sent.*source.keep=jpeg"):
                list(session.ask("What is the code on the card?"))
            return
        stream = session.ask("What is the code on the card?")
        assert "".join(stream) == "11 pictures." and stream.answer is not None
        assert "are stored thumbnails, because page is not there" in stream.answer.warning
        assert stream.answer.spans == ((5.0, 6.0),)
    (asked,) = server.asked
    assert {picture.size for picture in asked.pictures} == {SIZE}
    bright = [sum(picture.convert("L").histogram()[200:]) > 1000 for picture in asked.pictures]
    assert [second for second, is_bright in enumerate(bright) if is_bright] == [5, 6]


def test_no_resident_process_asks_a_server(tmp_path: Path):
    """It would need the key of the command's environment."""
    bank = str(tmp_path / "bank")
    assert ask_resident("ask", ["backbone=endpoint", "question=x"], bank, start=True) is None
    assert list(tmp_path.iterdir()) == []
