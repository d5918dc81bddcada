"""Questions to a model behind an address, by commands, against a strict server: what is sent, what
is cited, and one sentence for everything that goes wrong.
"""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from encoders.schema import DualEncoder
from encoders.text.lines import TextLine
from memory.schema import FrameName, Question
from pipeline import cli
from pipeline.build import build_backbone, build_clip, build_qa, open_video
from pipeline.config.compose import compose
from pipeline.config.parts import check
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.engine import Engine
from pipeline.runtime.stage_timer import StageTimer
from tests.support.chat_server import MODEL, Asked, ChatServer, Reply, chat_server
from tests.support.llama_server import llama_python, llama_server
from tests.support.paths import ROOT
from tests.support.serving import film as write_film
from tests.support.toys import toy_parts

KEY = "sk-topsecret-4711"
QUESTION = "What is the code on the card?"
Run = Callable[..., tuple[int, str, str]]
Ask = Callable[..., dict]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds with a card at 5, and a line of subtitles at 8."""
    path = write_film(tmp_path_factory.mktemp("film") / "a.mp4", "code:4821@5")
    path.with_suffix(".srt").write_text(
        "1\n00:00:08,000 --> 00:00:09,500\nThe code on the card is old.\n"
    )
    return path


@pytest.fixture(scope="module")
def bank(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The film, encoded without any model and without any server."""
    folder = tmp_path_factory.mktemp("bank") / "bank"
    with pytest.raises(SystemExit) as end:
        cli.main(["ingest", f"video={film}", f"bank={folder}", "backbone=endpoint",
                  "backbone.url=http://127.0.0.1:9/v1", "backbone.model=none", "text=subtitles",
                  *clip()])  # fmt: skip
    assert end.value.code == 0
    return folder


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(answer=lambda asked: Reply("4821\nSources: 6, 7")) as running:
        yield running
        assert running.mistakes == []


@pytest.fixture(scope="module")
def base(film: Path, bank: Path) -> tuple[AskSettings, DualEncoder]:
    """What all questions have in common, composed and loaded once."""
    config = compose("ask", [
        f"video={film}", f"bank={bank}", f"question={QUESTION}", "backbone=endpoint",
        f"backbone.model={MODEL}", "backbone.retry_s=0.01", "text=subtitles", *clip(),
    ])  # fmt: skip
    return config, build_clip(config)


@pytest.fixture
def ask(base: tuple[AskSettings, DualEncoder], server: ChatServer, monkeypatch) -> Ask:
    """The answer of the server, with these settings of the backbone."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config, embedder = base

    def answer(asked_at: float = math.inf, settings: dict | None = None, **backbone) -> dict:
        node = config.backbone | {"url": server.url} | backbone
        own = config.changed(backbone=node, **(settings or {}))
        check("backbone", node)
        qa = build_qa(own, build_backbone(own), embedder)
        with qa.bank as opened:
            (video,) = opened.catalog.videos()
            pieces: list[str] = []
            answer = qa.ask(Question(QUESTION, video.info.video_id, asked_at), pieces.append)
        assert "".join(pieces) == answer.text
        return json.loads(json.dumps(asdict(answer)))

    return answer


@pytest.fixture
def run(film: Path, bank: Path, server: ChatServer, capfd, monkeypatch) -> Run:
    """`reelbank ask` of the server: exit code, stdout, stderr."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def command(*overrides: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["ask", f"video={film}", f"bank={bank}", f"question={QUESTION}",
                      "backbone=endpoint", f"backbone.url={server.url}", f"backbone.model={MODEL}",
                      "text=subtitles", *clip(), *overrides])  # fmt: skip
        return int(str(end.value.code)), *capfd.readouterr()

    return command


def clip() -> list[str]:
    """The toy's frame embedder."""
    return [part for part in toy_parts() if part.startswith("clip")]


def sentence(result: tuple[int, str, str]) -> str:
    """The one line of an error."""
    code, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("reelbank: ")]
    assert code == 2 and out == "" and len(lines) == 1, result
    return lines[0].removeprefix("reelbank: ")


def test_pictures_and_lines_are_sent_in_time_order(ask: Ask, server: ChatServer, film: Path):
    answer = ask()
    (asked,) = server.asked
    times = [text.split()[1] for text in asked.texts[1:-1]]
    assert len(asked.pictures) == 12 and times == sorted(times) and times[0] == "[00:00]"
    assert (
        "The code on the card is old." in asked.texts[10] and "10. [00:08] said:" in asked.texts[10]
    )
    assert asked.texts[-1].endswith(QUESTION)
    assert all(picture.size == (320, 180) for picture in asked.pictures)
    assert answer["text"] == "4821" and answer["frames_read"] == 12
    assert answer["usage"] == {
        "prompt_tokens": 1200 + sum(map(len, asked.texts)), "answer_tokens": 18, "cost": None,
    }  # fmt: skip


def test_what_the_model_names_is_cited(ask: Ask, run: Run):
    """Parts 6 and 7 are the frames at 5 and 6 s."""
    answer = ask()
    assert answer["cited_by"] == "model" and answer["spans"] == [[5.0, 7.0]]
    _, out, _ = run()
    assert out.startswith("4821\nseen at 00:05-00:07 (5.0-7.0 s), as the model says\n")


def test_a_named_line_cites_its_moment(ask: Ask, server: ChatServer):
    server.replies = [Reply("Old.\nSources: 10")]
    assert ask()["spans"] == [[8.0, 10.0]]


@pytest.mark.parametrize("text", ["4821", "4821\nSources: 77, 900", "4821\nSources: Reuters"])
def test_the_search_is_cited_where_the_model_names_nothing_that_was_sent(
    ask: Ask, server: ChatServer, text: str
):
    server.replies = [Reply(text)]
    answer = ask()
    if "Reuters" in text:  # it named none, in so many words
        assert answer["cited_by"] == "model" and answer["spans"] == []
    else:
        assert answer["cited_by"] == "search" and 1 <= len(answer["cited"]) <= 3
    assert answer["text"] == "4821"


def test_not_in_the_video_cites_nothing(ask: Ask, server: ChatServer):
    server.replies = [Reply("Not in the video.\nSources: none")]
    answer = ask()
    assert not answer["shown"] and answer["spans"] == [] and answer["lines"] == []


def test_nothing_after_the_moment_of_a_question_is_sent(ask: Ask, server: ChatServer):
    ask(asked_at=4.5)
    assert [text.split()[1] for text in server.asked[0].texts[1:-1]] == [
        "[00:00]", "[00:01]", "[00:02]", "[00:03]", "[00:04]",
    ]  # fmt: skip


def test_the_picture_of_a_frame_is_the_one_that_is_shown_then(ask: Ask, server: ChatServer):
    """The card covers the middle of the picture, and nothing else there is as bright."""
    ask(image_format="png")
    brightness = [
        sum(picture.convert("L").crop((100, 40, 220, 140)).histogram()[200:])
        for picture in server.asked[0].pictures
    ]
    cards = [second for second, bright in enumerate(brightness) if bright > 2 * brightness[0] + 500]
    assert cards == [5, 6]
    assert {picture.format for picture in server.asked[0].pictures} == {"PNG"}


def test_a_model_of_text_gets_the_lines_alone(ask: Ask, server: ChatServer):
    server.replies = [Reply("Old.\nSources: 1")]
    answer = ask(images=False)
    (asked,) = server.asked
    assert isinstance(asked.body["messages"][0]["content"], str) and asked.pictures == []
    assert "1. [00:08] said: The code on the card is old." in asked.texts[0]
    assert answer["spans"] == [[8.0, 10.0]] and answer["frames_read"] == 0


def test_limits_leave_out_what_ranks_lowest(ask: Ask, server: ChatServer):
    most = ask(max_images=6, settings={"read_tokens": 12})
    assert len(server.asked[0].pictures) == 6 and "6 frames did not fit" in most["warning"]
    ask(max_images=6)  # then no more are recalled
    assert len(server.asked[1].pictures) == 6
    ask(max_bytes=30000)
    assert 1 <= len(server.asked[2].pictures) < 6
    newest = server.asked[2].texts[-2].split()[1]
    assert newest == "[00:11]"


def test_the_context_is_asked_of_the_server(ask: Ask, server: ChatServer):
    server.models = [{"id": MODEL, "max_model_len": 4096}]
    ask(image_tokens=1000)
    assert len(server.asked[0].pictures) == 3
    ask(image_tokens=1000, context=8192)
    assert len(server.asked[1].pictures) == 7


def test_a_schema_is_asked_for(ask: Ask, server: ChatServer):
    server.replies = [Reply('{"answer": "4821", "sources": [6]}')]
    answer = ask(answer_form="json")
    assert server.asked[0].body["response_format"]["type"] == "json_schema"
    assert (answer["text"], answer["cited_by"], answer["spans"]) == ("4821", "model", [[5.0, 6.0]])


def test_a_bare_question_is_sent_bare(ask: Ask, server: ChatServer):
    server.replies = [Reply("4821")]
    answer = ask(answer_form="plain", settings={"read_text_tokens": 0})
    assert server.asked[0].texts[0] == "[00:00]" and server.asked[0].texts[-1] == QUESTION
    assert answer["cited_by"] == "search"


def test_an_answer_without_a_stream(ask: Ask, server: ChatServer):
    server.replies = [Reply("4821\nSources: 6", json=True)]
    assert ask()["spans"] == [[5.0, 6.0]]


@pytest.mark.parametrize("strategy", ["full", "map_reduce", "route"])
def test_every_way_to_answer_asks_the_server(ask: Ask, server: ChatServer, strategy: str):
    """map_reduce asks about each segment, and then for one answer from what was said of them."""

    def answer(asked: Asked) -> Reply:
        if not asked.pictures:
            return Reply("4821\nSources: none")
        tags = [text for text in asked.texts if text.endswith("[00:05]")]
        if not tags:
            return Reply("not in the video\nSources: none")
        return Reply(f"The card says 4821.\nSources: {tags[0].split('.')[0]}")

    server.answer = answer
    said = ask(
        settings={"answer": compose("ask", [f"answer={strategy}"]).answer},
        price_prompt=1000,
        price_answer=2000,
    )
    assert "4821" in said["text"] and [5.0, 6.0] in said["spans"]
    assert len(server.asked) == (3 if strategy == "map_reduce" else 1)
    counted = sum(100 * len(each.pictures) + sum(map(len, each.texts)) for each in server.asked)
    assert said["usage"]["prompt_tokens"] == counted
    each = [call["usage"] for call in said["trace"]["calls"]]
    for name in ("prompt_tokens", "answer_tokens", "cost"):
        assert said["usage"][name] == pytest.approx(sum(one[name] for one in each))


def test_prices_make_a_cost(ask: Ask):
    answer = ask(price_prompt=1000, price_answer=2000)
    usage = answer["usage"]
    assert usage["cost"] == pytest.approx(
        (1000 * usage["prompt_tokens"] + 2000 * usage["answer_tokens"]) / 1e6
    )


# ---- the key


def test_the_key_stays_where_it_is(
    ask: Ask, run: Run, server: ChatServer, bank: Path, monkeypatch, capfd
):
    server.key = KEY
    assert sentence(run()) == (
        f"{server.url} refuses the key (401); put a key into the environment variable "
        "OPENAI_API_KEY."
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    text = sentence(run())
    assert "the key in OPENAI_API_KEY is not right" in text and "sk-wrong" not in text
    monkeypatch.setenv("MY_KEY", KEY)
    answer = ask(key_env="MY_KEY")
    assert server.asked[-1].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(answer)
    server.replies = [Reply(status=418, body={"error": {"message": f"I saw {KEY}"}})]
    assert "I saw ***" in sentence(run("backbone.key_env=MY_KEY"))
    capfd.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["ask", "--cfg", "backbone=endpoint", "backbone.key_env=MY_KEY"])
    out, _ = capfd.readouterr()
    assert "MY_KEY" in out and KEY not in out
    held = [file for file in bank.rglob("*") if file.is_file()]
    assert held and all(KEY.encode() not in file.read_bytes() for file in held)


# ---- banks and films


def test_a_film_that_is_gone_leaves_its_lines(film: Path, tmp_path: Path, server, capfd):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(film.read_bytes())
    copy.with_suffix(".srt").write_text(film.with_suffix(".srt").read_text())
    common = [f"bank={tmp_path / 'bank'}", "backbone=endpoint", f"backbone.url={server.url}",
              f"backbone.model={MODEL}", *clip()]  # fmt: skip
    with pytest.raises(SystemExit):
        cli.main(["ingest", f"video={copy}", "text=subtitles", *common])
    copy.unlink()
    with Engine.compose(common) as engine:
        answer = engine.ask(QUESTION, str(copy))
        assert server.asked[-1].pictures == [] and "is not there" in answer.warning
        assert "The code on the card is old" in server.asked[-1].texts[0]
        with pytest.raises(Exception, match=r"No picture can be sent.*is not there.*keep=jpeg"):
            engine.ask("zebra?", str(copy))


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_stored_thumbnails_stand_for_a_film_that_is_gone(
    film: Path, tmp_path: Path, server: ChatServer, capfd, form: str
):
    """The pictures are those of the film's frames, and the answer says where they come from."""
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(film.read_bytes())
    common = [f"bank={tmp_path / 'bank'}", "backbone=endpoint", f"backbone.url={server.url}",
              f"backbone.model={MODEL}", f"backbone.image_format={form}", "source.keep=jpeg",
              *clip()]  # fmt: skip
    capfd.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["ingest", f"video={copy}", *common])
    out, _ = capfd.readouterr()
    told = re.search(r"thumbnails: 0\.\d MB, at this rate (\d+) MB an hour", out)
    assert told is not None and 5 <= int(told[1]) <= 36, out  # 36: 3600 of keep_bytes
    with Engine.compose(common) as engine:
        decoded = engine.ask(QUESTION, str(copy))
        assert decoded.warning == ""
        copy.unlink()
        answer = engine.ask("And which code?", str(copy))  # of pictures that are in memory
        assert answer.warning == "" and len(server.asked[-1].pictures) == 12
    with Engine.compose(common) as engine:
        answer = engine.ask(QUESTION, str(copy))
    first, _, last = server.asked
    assert answer.text == "4821" and answer.spans == ((5.0, 7.0),) and answer.frames_read == 12
    assert answer.warning == (f"Pictures are stored thumbnails, because {copy} is not there.")
    assert {picture.format for picture in last.pictures} == {"JPEG"}
    for one, two in zip(first.pictures, last.pictures, strict=True):
        assert one.size == two.size == (320, 180)
        difference = np.abs(np.asarray(one, np.int16) - np.asarray(two, np.int16)).mean()
        assert difference < 6, difference
    with Engine.compose([*common, "backbone.image_size=96"]) as engine:
        engine.ask(QUESTION, str(copy))
    assert {max(picture.size) for picture in server.asked[-1].pictures} == {96}


def test_a_bank_of_a_local_model_is_asked_and_not_written(
    film: Path, tmp_path: Path, server: ChatServer, capfd
):
    bank = tmp_path / "bank"
    for path in (film, write_film(tmp_path / "b.mp4", "name:Alice@3", seconds=6.0, seed=4)):
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            if path == film:
                cli.main(["ingest", f"video={path}", f"bank={bank}", *toy_parts()])
            else:
                cli.main(["ask", f"video={path}", f"bank={bank}", "question=a",
                          "backbone=endpoint", f"backbone.url={server.url}",
                          f"backbone.model={MODEL}", *clip()])  # fmt: skip
        if path == film:
            assert end.value.code == 0
    _, err = capfd.readouterr()
    assert end.value.code == 2 and "answers from it but adds no video" in err
    with pytest.raises(SystemExit) as end:
        cli.main(["ask", f"video={film}", f"bank={bank}", f"question={QUESTION}",
                  "backbone=endpoint", f"backbone.url={server.url}", f"backbone.model={MODEL}",
                  "backbone.max_images=6", *clip()])  # fmt: skip
    out, err = capfd.readouterr()
    assert end.value.code == 0, err
    assert out.startswith("4821\n") and len(server.asked[-1].pictures) == 6


def test_several_videos_are_told_apart(film: Path, bank: Path, tmp_path: Path, server: ChatServer):
    """Video by video, each in time order; what is named is cited in its own video."""
    other = write_film(tmp_path / "b.mp4", "name:Alice@2", seconds=4.0, seed=4)
    config = compose("ask", [
        f"video={other}", f"bank={tmp_path / 'bank'}", "question=x", "backbone=endpoint",
        f"backbone.url={server.url}", f"backbone.model={MODEL}", "text=subtitles", *clip(),
    ])  # fmt: skip
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    with qa.bank:
        videos = [
            qa.ingest(open_video(config, backbone, str(path))).video_id for path in (film, other)
        ]
        server.replies = [Reply("Alice.\nSources: 16")]
        line = TextLine(videos[0], 8.0, 9.5, "subtitle", "The code on the card is old.", 9.5)
        evidence = qa.bank.recall(
            Question(QUESTION, videos), read_tokens=24, kv=False, lines=[line]
        )
        reading = qa.answerer.reader.read(evidence, StageTimer())
    (asked,) = server.asked
    tags = [text for text in asked.texts[1:-1] if "said" not in text]
    assert tags[:2] == ["Video 1:\n", "1. [00:00]"]
    assert tags[13:15] == ["Video 2:\n", "14. [00:00]"] and tags[-1] == "17. [00:03]"
    assert "10. [00:08] said: The code on the card is old." in "".join(asked.texts)
    assert len(asked.pictures) == 16 and "parts of several videos" in asked.texts[0]
    assert reading.weights == {FrameName(videos[1], 2): 1.0}


# ---- our own server as the model


@contextmanager
def serving(bank: Path) -> Iterator[str]:
    """The address of `reelbank serve` in a process of its own, with the embedded model."""
    command = [sys.executable, "-m", "pipeline.cli", "serve", f"bank={bank}", "port=0",
               "reader=tokens", "prefill=none", "retriever=clip"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = None
        while address is None:
            line = process.stderr.readline()
            assert line, "the server ended"
            address = re.search(r"http://[\d.]+:\d+", line)
        yield address[0]
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_needles_are_found_through_a_server_as_in_process(tmp_path: Path):
    """The embedded model behind an address gets the same pixels, so it gives the same answers."""
    local = "'reader=tokens','prefill=none','retriever=clip'"
    with serving(tmp_path / "bank") as address:
        endpoint = ",".join(f"'{one}'" for one in [
            "backbone=endpoint", f"backbone.url={address}/v1", "backbone.model=reelbank",
            "backbone.image_format=png", "backbone.image_size=96x96", "backbone.frame_size=96x96",
            "backbone.answer_form=plain", "+backbone.extra.cite_in_text=false", "clip=embedded",
            "retriever=clip",
        ])  # fmt: skip
        with pytest.raises(SystemExit) as end:
            cli.main(["needle", "preset=smoke", f"out={tmp_path / 'out'}", "files=true",
                      "depths=[10,90]", "controls=[]", f"arms.fused=[{local}]",
                      f"+arms.endpoint=[{endpoint}]"])  # fmt: skip
    assert end.value.code == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").open()]
    answers: dict[str, dict[str, tuple]] = {"fused": {}, "endpoint": {}}
    for row in rows:
        answers[row["arm"]][row["item"]] = (row["text"], row["read"], row["right"])
    assert answers["endpoint"] == answers["fused"] and len(answers["fused"]) == 7
    assert sum(right for *_, right in answers["endpoint"].values()) >= 5


@pytest.mark.slow
def test_our_own_server_gets_pictures_as_other_servers_do(film: Path, bank: Path, tmp_path, capfd):
    """The default form: JPEG at the film's size, numbers and an instruction. What the embedded
    model makes of it is its own affair; the request is understood, and the answer cited.
    """
    with serving(tmp_path / "bank") as address:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["ask", f"video={film}", f"bank={bank}", f"question={QUESTION}",
                      "backbone=endpoint", f"backbone.url={address}/v1", "format=json",
                      "backbone.model=reelbank", *clip()])  # fmt: skip
    out, err = capfd.readouterr()
    assert end.value.code == 0, err
    answer = json.loads(out)
    assert answer["frames_read"] == 12 and answer["usage"]["prompt_tokens"] > 12 * 16


# ---- batches


@pytest.mark.slow  # seconds of CPU
def test_a_batch_asks_several_at_once_and_goes_on(
    film: Path, bank: Path, server: ChatServer, tmp_path: Path, capfd, monkeypatch
):
    """A question that fails costs no other one, and a second run asks for it alone."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    jobs = tmp_path / "jobs.jsonl"
    rows: list[dict] = [
        {"id": f"q{n}", "video": str(film), "question": f"{QUESTION} ({n})", "answer": "4821"}
        for n in range(6)
    ]
    rows.append(rows[0] | {"id": "choice", "options": ["1111", "4821"], "answer": "B"})
    jobs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    broken = True

    def answer(asked: Asked) -> Reply:
        if broken and "(3)" in asked.texts[-1]:
            return Reply(status=400, body={"error": {"message": "I do not like threes"}})
        return Reply("B\nSources: 6" if "A. 1111" in asked.texts[-1] else "4821\nSources: 6, 7",
                     silent_s=0.1)  # fmt: skip

    server.answer = answer
    line = ["batch", f"jobs={jobs}", f"out={tmp_path / 'out'}", f"bank={bank}",
            "backbone=endpoint", f"backbone.url={server.url}", f"backbone.model={MODEL}",
            "backbone.parallel=3", "backbone.price_prompt=1", "option_choice=parse",
            *clip()]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        cli.main(line)
    out, err = capfd.readouterr()
    assert end.value.code == 1, err
    assert server.most_at_once == 3 and len(server.asked) == 7  # no question was paid for twice
    assert "6 of 7 answered, 1 failed" in out and "I do not like threes" in out
    path = tmp_path / "out" / "answers.jsonl"
    answers = {row["id"]: row for row in map(json.loads, path.open())}
    assert answers["q1"]["right"] and answers["choice"]["choice"] == "B"
    assert answers["q1"]["cited_by"] == "model" and answers["q1"]["spans"] == [[5.0, 7.0]]
    assert answers["q1"]["cost"] == pytest.approx(answers["q1"]["prompt_tokens"] / 1e6)
    assert "tokens sent" in out and "cost 0.0" in out
    broken = False
    server.asked.clear()
    with pytest.raises(SystemExit) as end:
        cli.main(line)
    assert end.value.code == 0 and len(server.asked) == 1
    server.asked.clear()
    mapped = tmp_path / "mapped"
    with pytest.raises(SystemExit) as end:
        cli.main([*line, f"out={mapped}", "answer=map_reduce", "answer.keep_findings=false"])
    assert end.value.code == 0
    plain = [json.loads(row) for row in (mapped / "answers.jsonl").open()]
    counted = sum(100 * len(each.pictures) + sum(map(len, each.texts)) for each in server.asked)
    assert len(server.asked) > len(plain) == 7
    assert sum(row["prompt_tokens"] for row in plain) == counted
    assert sum(row["cost"] for row in plain) == pytest.approx(counted / 1e6)
    server.asked.clear()
    with pytest.raises(SystemExit) as end:
        cli.main([*line, f"out={tmp_path / 'other'}", "option_choice=likelihood"])
    _, err = capfd.readouterr()
    assert end.value.code == 2 and "use option_choice=parse" in err and not server.asked


def test_a_batch_goes_on_past_every_kind_of_failure(
    film: Path, bank: Path, server: ChatServer, tmp_path: Path, capfd, monkeypatch
):
    """A row with one sentence for each question that fails, and an answer for each other one."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    failures = {
        "key": (Reply(status=401, body={"error": {"message": "no"}}), "refuses the key (401)"),
        "busy": (Reply(status=429, body={"error": {"message": "slow"}}), "too many requests"),
        "broken": (Reply(status=500, body=b"<html>"), "answers 500"),
        "silent": (Reply(silent_s=4.0), "has sent nothing for 2 s"),
        "cut": (Reply("4821 and more", cut_after=6), "cut the answer off"),
        "nonsense": (Reply(raw="{nonsense"), "something else than OpenAI's JSON"),
        "blind": (Reply(status=400, body={"error": {"message": "image input is not supported"}}),
                  "it takes no pictures; choose a model that sees"),
    }  # fmt: skip
    jobs = tmp_path / "jobs.jsonl"
    names = [name for failure in failures for name in (failure, f"after-{failure}")]
    rows = [{"id": name, "video": str(film), "question": f"{QUESTION} ({name})"} for name in names]
    jobs.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(asked: Asked) -> Reply:
        name = asked.texts[-1].rpartition("(")[2].rstrip(")")
        return failures[name][0] if name in failures else Reply("4821\nSources: 6, 7")

    server.answer = answer
    with pytest.raises(SystemExit) as end:
        cli.main(["batch", f"jobs={jobs}", f"out={tmp_path / 'out'}", f"bank={bank}",
                  "backbone=endpoint", f"backbone.url={server.url}", f"backbone.model={MODEL}",
                  "backbone.tries=1", "backbone.timeout_s=2", "unlabelled=true",
                  *clip()])  # fmt: skip
    _, err = capfd.readouterr()
    assert end.value.code == 1, err
    answers = {
        row["id"]: row for row in map(json.loads, (tmp_path / "out" / "answers.jsonl").open())
    }
    for name in names:
        error = answers[name]["error"]
        if name not in failures:
            assert error is None and answers[name]["answer"] == "4821"
            continue
        assert failures[name][1] in error and server.url in error and error.count(". ") == 0


def test_a_batch_takes_the_likeliest_letter(
    film: Path, bank: Path, server: ChatServer, tmp_path: Path, capfd, monkeypatch
):
    """One token is asked for each question. A server without log-probabilities is refused before
    the first question, and nothing is written of answers.
    """
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    jobs = tmp_path / "jobs.jsonl"
    rows = [
        {"id": name, "video": str(film), "question": f"{QUESTION} {name}",
         "options": ["1111", "4821", "9999"], "answer": "B"}
        for name in ("right", "wrong", "neither")
    ]  # fmt: skip
    jobs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tops = {
        "right": {"A": -1.6, " B": -1.2, "B": -1.3, "The": -3.0},  # B, of two tokens
        "wrong": {"C": -0.1, "(A": -4.0},
        "neither": {"Well": -0.2, "I": -2.0},
    }

    def answer(asked: Asked) -> Reply:
        names = [name for name in tops if name in asked.texts[-1]]
        return Reply("B", finish="length", top=tops[names[0]] if names else {"A": -0.7, "B": -0.7})

    def batch(out: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["batch", f"jobs={jobs}", f"out={tmp_path / out}", f"bank={bank}",
                      "backbone=endpoint", f"backbone.url={server.url}",
                      f"backbone.model={MODEL}", "backbone.answer_form=json",
                      "option_choice=letters", *clip()])  # fmt: skip
        return int(str(end.value.code)), *capfd.readouterr()

    server.answer = answer
    code, _, err = batch("out")
    assert code == 0, err
    answers = {
        row["id"]: row for row in map(json.loads, (tmp_path / "out" / "answers.jsonl").open())
    }
    assert {name: row["choice"] for name, row in answers.items()} == {
        "right": "B", "wrong": "C", "neither": None,
    }  # fmt: skip
    assert [answers[name]["right"] for name in tops] == [True, False, False]
    both = math.log(math.exp(-1.2) + math.exp(-1.3))
    assert answers["right"]["scores"] == pytest.approx([-1.6, both, -3.0])
    assert answers["right"]["answer"] == "4821" and answers["right"]["cited_by"] == "search"
    assert answers["neither"]["answer"] == "no letter of an option"
    assert len(server.asked) == 4  # with the first one, which asks whether it can
    for asked in server.asked:
        assert asked.body["max_tokens"] == 1 and asked.body["top_logprobs"] == 20
        assert "response_format" not in asked.body
    assert len(server.asked[-1].pictures) == 12 and "A. 1111" in server.asked[-1].texts[-1]

    for reply in (
        Reply("B"),
        Reply(status=400, body={"error": {"message": "logprobs is not supported"}}),
    ):
        server.asked.clear()
        server.replies = [reply]
        text = sentence(batch("refused"))
        assert "gives no log-probabilities of tokens" in text and "option_choice=parse" in text
        assert len(server.asked) == 1
        assert (tmp_path / "refused" / "answers.jsonl").read_text() == ""


# ---- a real server of llama.cpp


@pytest.mark.slow
@pytest.mark.parametrize("form", ["line", "json"])
def test_a_server_of_llama_cpp_answers_from_lines(film: Path, bank: Path, form: str, capfd):
    """tests/support/llama_server.py says where it looks for the server."""
    python = llama_python()
    if python is None:
        pytest.skip("LLAMA_PYTHON names no Python with a server of llama.cpp")
    with llama_server(python) as address, pytest.raises(SystemExit) as end:
        cli.main(["ask", f"video={film}", f"bank={bank}", f"question={QUESTION}",
                  "backbone=endpoint", f"backbone.url={address}", "backbone.images=false",
                  "backbone.max_tokens=48", f"backbone.answer_form={form}", "format=json",
                  *clip()])  # fmt: skip
    out, err = capfd.readouterr()
    assert end.value.code == 0, err
    answer = json.loads(out)
    assert answer["text"] and answer["usage"]["prompt_tokens"] > 50
    assert "Sources:" not in answer["text"] and '{"answer"' not in answer["text"]
    assert answer["lines"] == [] or answer["lines"][0]["read"]


@pytest.mark.slow
def test_a_server_of_llama_cpp_answers_a_batch(film: Path, bank: Path, tmp_path: Path, capfd):
    """Free questions and letters of options in one run; its log-probabilities are real ones."""
    python = llama_python()
    if python is None:
        pytest.skip("LLAMA_PYTHON names no Python with a server of llama.cpp")
    jobs = tmp_path / "jobs.jsonl"
    row = {"video": str(film), "question": "Is the code on the card old?"}
    choice = row | {"id": "b", "options": ["yes", "no"], "answer": "A"}
    jobs.write_text(json.dumps(row | {"id": "a"}) + "\n" + json.dumps(choice) + "\n")
    with llama_server(python) as address, pytest.raises(SystemExit) as end:
        cli.main(["batch", f"jobs={jobs}", f"out={tmp_path / 'out'}", f"bank={bank}",
                  "backbone=endpoint", f"backbone.url={address}", "backbone.images=false",
                  "backbone.max_tokens=48", "text=subtitles", "option_choice=letters",
                  "unlabelled=true", *clip()])  # fmt: skip
    _, err = capfd.readouterr()
    assert end.value.code == 0, err
    answers = {
        row["id"]: row for row in map(json.loads, (tmp_path / "out" / "answers.jsonl").open())
    }
    assert answers["a"]["answer"] and answers["a"]["prompt_tokens"] > 50
    assert answers["b"]["answer_tokens"] == 1
    assert all(-30 < score < 0 for score in answers["b"]["scores"]) or not answers["b"]["scores"]


@pytest.mark.slow
def test_a_summary_is_written_by_the_server_and_asked_for_once(
    film: Path, bank: Path, server: ChatServer, capfd, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def answer(asked: Asked) -> Reply:
        if asked.pictures:
            return Reply(f"A card, in {len(asked.pictures)} pictures.")
        assert "pictures." in "".join(asked.texts) and "The code on the card" in asked.texts[-1]
        return Reply("A card shows a code, and somebody calls it old.")

    server.answer = answer
    line = ["summary", str(film), "-b", str(bank), "--model", server.url, "--model-name", MODEL,
            "text=subtitles", *clip(), "format=json"]  # fmt: skip
    found = []
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            cli.main(line)
        out, err = capfd.readouterr()
        assert end.value.code == 0, err
        found.append(json.loads(out))
    (said,) = found[0]["sentences"]
    assert said["text"] == "A card shows a code, and somebody calls it old."
    assert not said["is_quoted"] and 0 <= said["start"] < 8.0 and said["end"] == 12.0
    assert [8.0, 9.5] in said["sources"] and said["parents"] == [0, 1]
    assert found[0]["model"] == MODEL and found[0]["calls"] == 2 and len(server.asked) == 3
    assert found[1] == found[0] | {"calls": 0}
    # a model that takes no pictures is asked for what the words say, and for nothing else
    server.asked.clear()
    server.answer = lambda asked: Reply("Somebody calls a code old.")
    with pytest.raises(SystemExit):
        cli.main([*line, "backbone.images=false"])
    words = json.loads(capfd.readouterr()[0])
    assert [each["text"] for each in words["sentences"]] == ["Somebody calls a code old."]
    assert words["calls"] == len(server.asked) == 1 and words["sentences"][0]["start"] == 8.0
