"""`reelbank find`, words beside a bank's pictures, and words in answers.

Real files, real commands, small random models.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.text import subtitles
from encoders.text.lines import VideoFile
from encoders.text.subtitles import Subtitles
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question, VideoSpan
from pipeline import cli
from pipeline.answer import text_evidence
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.ingest.text import TextExtraction, video_file
from pipeline.moments.finder import Finder
from pipeline.runtime.stage_timer import StageTimer
from tests.support.console import sentence
from tests.support.matching_model import matching_checkpoint
from tests.support.records import files, info
from tests.support.talks import SRT, WORDS, talks
from tests.support.toys import toy_checkpoint, toy_parts

SECONDS = 20


def parts(film: Path, bank: Path, *overrides: str) -> tuple[Any, Any]:
    config = compose(
        "ask", [f"video={film}", f"bank={bank}", "question=-", *toy_parts(), *overrides]
    )
    backbone = build_backbone(config)
    return build_qa(config, backbone), build_source(config, backbone)


# ---- find


def test_a_moment_is_found_by_its_words(run, bank, film) -> None:
    code, out, err = run(
        "find", f"bank={bank}", "query=Who rebuilt the harbour with granite?", WORDS, "format=json"
    )
    assert (code, err) == (0, "")
    moment = json.loads(out)["moments"][0]
    assert (moment["start"], moment["end"], moment["channels"]) == (2.0, 6.0, ["subtitle"])
    assert moment["snippet"] == "The harbour was rebuilt / with granite in 1847." and moment[
        "path"
    ] == str(film)
    code, out, _ = run("find", f"bank={bank}", "query=granite", WORDS)
    assert code == 0 and out.startswith("00:00:04-00:00:06 (4.1-6.0 s)  subtitle") and "1847" in out


def test_pictures_and_words_are_fused_and_shown_on_a_page(run, bank, tmp_path) -> None:
    clip = toy_parts()[1]
    page = tmp_path / "page.html"
    code, out, err = run(
        "find", f"bank={bank}", "query=bread and salt", clip, "format=html", f"out={page}", "top=3"
    )
    assert (code, err, out) == (0, "", f"3 moments: {page}\n")
    text = page.read_text()
    assert (
        text.count("data:image/jpeg;base64,") == 3
        and "subtitle" in text
        and "&lt;|im_end|&gt;" in text
    )
    code, out, _ = run(
        "find",
        f"bank={bank}",
        "query=bread and salt",
        clip,
        "format=json",
        "thumbnails=true",
        "widen=1",
    )
    moments = json.loads(out)["moments"]
    assert code == 0 and "picture" in {channel for each in moments for channel in each["channels"]}
    assert moments[0]["lines"][0]["text"].startswith("Bread") and len(moments[0]["thumbnail"]) > 100


@pytest.mark.slow  # seconds of CPU
def test_lines_are_also_found_by_the_attention_of_a_model_that_reads_them_all(run, bank) -> None:
    """With a model whose attention is set by hand; the embedded one reads no text, and one behind
    an address shows no attention."""
    asked = ("find", f"bank={bank}", "query=bread and salt", "channels=[subtitle]")
    scan = "line_scan=attention"
    own = (f"backbone.path={matching_checkpoint()}", "backbone.reads_text=true")
    code, out, err = run(*asked, scan, *own, "backbone.questions=null", "format=json")
    best, *_ = json.loads(out)["moments"]
    assert (code, err) == (0, "") and set(best["channels"]) == {"subtitle", "attention"}
    assert best["lines"][0]["text"].startswith("Bread")
    code, out, err = run(*asked, scan)
    assert (code, out) == (2, "")
    sentence(err, "line_scan=attention needs a model that reads text")
    code, out, err = run(*asked, scan, "backbone=endpoint", "backbone.url=http://localhost:9/v1")
    assert (code, out) == (2, "")
    sentence(err, "line_scan=attention needs a model in this process")
    code, out, err = run(*asked, scan, *own, "line_scan.keep_tokens=0")
    assert (code, out) == (2, "")
    sentence(err, "line_scan.keep_tokens=0", "use 1 or more of each")


def test_frames_are_also_found_by_the_language_models_own_keys(run, bank, film) -> None:
    """As the same retriever ranks them for an answer."""
    code, out, err = run(
        "find",
        f"bank={bank}",
        "query=bread and salt",
        *toy_parts(),
        "channels=[kv,subtitle]",
        "format=json",
    )
    moments = json.loads(out)["moments"]
    assert (code, err) == (0, "") and {"kv", "subtitle"} == {
        channel for each in moments for channel in each["channels"]
    }
    code, out, _ = run(
        "find",
        f"bank={bank}",
        "query=bread and salt",
        *toy_parts(),
        "channels=[kv]",
        "format=json",
        "top=3",
    )
    found = [each["start"] for each in json.loads(out)["moments"]]
    qa, source = parts(film, bank, "retriever=kv")
    with qa.bank:
        ranked = [m.start for m in qa.bank.rank_frames("bread and salt", source.info.video_id)]
    assert (
        code == 0
        and ranked[0] == found[0]
        and all(min(abs(at - other) for other in ranked[:10]) == 0 for at in found)
    )


def test_keys_of_another_model_are_refused_and_nothing_is_loaded_unasked(
    run, bank, monkeypatch
) -> None:
    code, out, err = run(
        "find",
        f"bank={bank}",
        "query=bread",
        f"backbone.path={toy_checkpoint(seed=1)}",
        "channels=[kv]",
    )
    assert (code, out) == (2, "")
    sentence(err, "only that can search its keys", "backbone=")
    monkeypatch.setattr("encoders.models.families.llava_onevision.LlavaOneVision.__init__", None)
    assert run("find", f"bank={bank}", "query=bread", toy_parts()[1])[0] == 0


def test_a_time_in_the_question_and_a_moment_limit_what_is_found(run, bank, film) -> None:
    def starts(*arguments: str) -> list[float]:
        code, out, _ = run("find", f"bank={bank}", WORDS, "format=json", *arguments)
        assert code == 0
        return [each["start"] for each in json.loads(out)["moments"]]

    assert starts("query=what is said of bread in the second half?") == [12.0]
    assert starts("query=what is said of bread in the first half?") == []
    assert starts("query=bread after 0:13") == [12.0] and starts("query=bread before 0:10") == []
    assert starts("query=bread", f"video={film}", "asked_at=13.9") == []
    assert starts("query=bread", f"video={film}", "asked_at=14") == [12.0]
    assert starts("query=harbour", "start=5") == [] and starts("query=harbour", "end=5") == [2.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["query= "], ("query is empty",)),
        ([], ("query",)),
        (["query=x", "channels=[smell]"], ("smell", "subtitle")),
        (["query=x", "channels=[]"], ("channels=",)),
        (["query=x", "format=xml"], ("format=xml",)),
        (["query=x", "top=0"], ("top=0",)),
        (["query=x", "widen=-1"], ("widen=-1",)),
        (["query=x", "start=5", "end=4"], ("start=5.0", "end=4.0")),
        (["query=x", "asked_at=-1"], ("asked_at=-1",)),
        (["query=x", "asked_at=5"], ("video=",)),
        (["query=x", "video=nobody.mp4"], ("nobody.mp4",)),
        (["query=x", "format=html", "out=no/where/x.html"], ("no/where",)),
        (["query=x", "bank=nowhere", WORDS], ("there is no bank at nowhere",)),
        (["query=x", "channels=[picture]"], ("frame embedder",)),
    ],
)
def test_bad_input_is_one_sentence(run, bank, tmp_path, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("find", f"bank={bank}", *arguments)
    assert (code, out) == (2, "")
    sentence(err, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_bank_without_words_says_how_to_add_them(run, film, tmp_path) -> None:
    assert (
        cli.run("ingest", [f"video={film}", f"bank={tmp_path / 'b'}", "text=none", *toy_parts()])
        == 0
    )
    before = files(tmp_path / "b")
    code, out, _ = run("find", f"bank={tmp_path / 'b'}", "query=bread", WORDS)
    assert code == 0 and "text=[subtitles,ocr]" in out
    # no model is loaded for it
    code, out, _ = run("ingest", f"bank={tmp_path / 'b'}", "text=subtitles")
    assert code == 0 and "3 lines by subtitles" in out and files(tmp_path / "b") == before
    code, out, _ = run("find", f"bank={tmp_path / 'b'}", "query=bread", WORDS)
    assert code == 0 and "Bread" in out
    code, out, _ = run("bank", f"bank={tmp_path / 'b'}")
    assert "  subtitles: 3 lines\n" in out


# ---- extractors beside the encoder


def test_words_come_with_the_pictures_and_once(bank, film, monkeypatch) -> None:
    qa, source = parts(film, bank, "text=subtitles")
    with qa.bank:
        monkeypatch.setattr(subtitles, "read_file", None)  # it is not read again
        assert qa.ingest(source).text_lines == {"subtitles": 3}


def test_an_edited_subtitle_file_replaces_what_was_read(film, tmp_path) -> None:
    video = tmp_path / "b.mp4"
    video.write_bytes(film.read_bytes())
    video.with_suffix(".srt").write_text(SRT)
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
    ) as held:
        held.record_video(replace(info("v"), path=str(video)), 1.0, finished=True)
        for text in (SRT, SRT.replace("granite", "marble")):
            video.with_suffix(".srt").write_text(text)
            TextExtraction(held).extract(Subtitles(), VideoFile("v", video, duration=20.0))
        found = [
            line.line.text
            for line in held.text.search(
                text_evidence.planner.plan("marble granite").query, _everything()
            )
        ]
        assert found == ["with marble in 1847."] and held.check.verify() == []


def _everything() -> Any:
    from memory.text.bm25 import LineFilter

    return LineFilter()


def test_a_missing_extractor_is_named_once_and_the_rest_works(
    film, tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    qa, source = parts(film, tmp_path / "bank", "text=[ocr,subtitles]")
    with qa.bank:
        assert qa.ingest(source).text_lines == {"subtitles": 3}
        assert qa.ask(Question("What is the code?", source.info.video_id)).text
    assert (
        caplog.text.count(
            "warning: text=ocr is left out: rapidocr and onnxruntime are not installed; say "
            "`pip install 'reelbank[ocr]'`"
        )
        == 1
    )


def test_the_words_of_a_part_are_those_of_the_part() -> None:
    part = video_file(replace(info("0123456789abcdef-from-5.5-to-9"), path="x.mp4"))
    assert (part.begin, part.end) == (5.5, 9.0) and video_file(info("0123456789abcdef")).end is None


def test_a_video_that_is_gone_does_not_stop_the_others(run, bank, film, tmp_path) -> None:
    import shutil

    shutil.copytree(bank, tmp_path / "bank")
    with MemoryBank.open(
        tmp_path / "bank", None, UniformRetriever(), recent_frames=0, create=False
    ) as held:
        held.record_video(replace(info("0" * 16), path="gone.mp4"), 1.0, finished=True)
    code, out, _ = run("ingest", f"bank={tmp_path / 'bank'}", "text=subtitles")
    assert code == 0 and "gone.mp4 is not there" in out and "3 lines by subtitles" in out


def test_captions_are_written_once_and_are_another_kind(film, tmp_path, monkeypatch) -> None:
    """The model says the same about each segment."""
    common = [
        f"video={film}",
        f"bank={tmp_path / 'bank'}",
        *toy_parts(says="red star"),
        "question=-",
    ]
    config = compose("ask", [*common, "text=[captions,subtitles]"])
    backbone = build_backbone(config)
    qa, source = build_qa(config, backbone), build_source(config, backbone)
    with qa.bank:
        assert qa.ingest(source).text_lines == {"captions": 3, "subtitles": 3}
        found = Finder(qa.bank, ("caption",)).find("star")
        assert {line.text for m in found for line in m.lines} == {"red star"} and found[
            0
        ].channels == ("caption",)
        lines = [line for m in found for line in m.lines]
        stretches = [
            (row.start, row.end, row.end) for row in qa.bank.catalog.segments(source.info.video_id)
        ]
        assert sorted((line.start, line.end, line.known) for line in lines) == stretches
        assert Finder(qa.bank, ("subtitle", "ocr", "speech")).find("star") == []
        monkeypatch.setattr(type(qa.answerer.reader), "read", None)  # it is not asked again
        assert (
            qa.ingest(source).text_lines == {"captions": 3, "subtitles": 3}
            and qa.bank.check.verify() == []
        )


def test_captions_of_a_bank_need_its_video(run, bank) -> None:
    code, out, err = run("ingest", f"bank={bank}", "text=captions")
    assert (code, out) == (2, "")
    sentence(err, "text=captions", "video=FILE")


# ---- answers


def test_lines_stand_before_the_question_in_time_order_within_their_budget(bank, film) -> None:
    qa, source = parts(film, bank)
    question = Question("What is said of bread, granite and the harbour?", source.info.video_id)
    with qa.bank:
        found = text_evidence.find(qa.bank, question, {question.video_id: SECONDS})
        assert {one.line.text.split()[0] for one in found} >= {"The", "with"}
        lines = text_evidence.select_lines(found, qa.answerer.reader.count_tokens, 1000)
        assert [line.start for line in lines] == sorted(one.line.start for one in found)
        text = text_evidence.prompt(lines, "Why?")
        assert text.startswith(
            "[00:02] said: The harbour was rebuilt\n[00:04] said: with granite in 1847.\n"
        )
        # no token with a meaning of its own
        assert text.endswith("Why?") and "<" not in text and "|" not in text
        tokens = len(qa.backbone.prompt.ids(text_evidence.prompt_line(lines[0])))
        few = text_evidence.select_lines(found, qa.answerer.reader.count_tokens, tokens)
        assert (
            len(few) == 1
            and text_evidence.select_lines(found, qa.answerer.reader.count_tokens, 0) == ()
        )
        answer = qa.ask(question)
        assert {line.channel for line in answer.lines} == {"subtitle"} and all(
            line.read for line in answer.lines
        )
        aside = replace(qa.answerer, read_text_tokens=0).ask(question)
        assert [line.text for line in aside.lines] == [line.text for line in answer.lines]
        assert not any(line.read for line in aside.lines)


@pytest.mark.parametrize("reader", ["kv", "tokens"])
def test_what_is_read_changes_with_lines_and_only_with_lines(bank, film, reader) -> None:
    """Logits with words equal those of the longer question; without words, those of a bank that
    has none."""
    qa, source = parts(film, bank, f"reader={reader}")
    with qa.bank:
        question = Question("granite?", source.info.video_id)
        lines = text_evidence.select_lines(
            text_evidence.find(qa.bank, question, {question.video_id: SECONDS}),
            qa.answerer.reader.count_tokens,
            100,
        )
        assert lines
        longer = replace(question, text=text_evidence.prompt(lines, question.text))
        read, told, plain = (
            qa.answerer.reader.logits(
                qa.bank.recall(asked, read_tokens=1000, lines=given), StageTimer()
            )
            for asked, given in ((question, lines), (longer, ()), (question, ()))
        )
        assert (read == told).all() and len(read) > len(plain)


def test_an_answer_at_a_moment_cites_nothing_later(bank, film) -> None:
    qa, source = parts(film, bank)
    with qa.bank:
        for at, words, count in (
            (3.9, "harbour", 0),
            (4.0, "harbour", 1),
            (5.9, "granite", 0),
            (6.0, "granite", 1),
        ):
            answer = qa.ask(Question(words, source.info.video_id, at))
            assert len(answer.lines) == count and all(line.end <= at for line in answer.lines)


def test_frames_where_words_were_found_are_recalled(bank, film) -> None:
    """In a budget of three frames, one of them the newest."""
    qa, source = parts(film, bank, "retriever=uniform", "recent_frames=1", "read_tokens=12")
    with qa.bank:
        video_id = source.info.video_id
        near = [VideoSpan(video_id, 12.0, 14.0)]
        evidence = qa.bank.recall(Question("x", video_id), read_tokens=12, near=near)
        assert 13 in {ordinal for run in evidence.runs for ordinal in run.ordinals}


# ---- questions whose answer is only spoken


def test_what_is_only_spoken_is_found_through_the_subtitles(tmp_path: Path) -> None:
    """100 questions over five talks: the right moment is among the first five in at least 98."""
    rng = np.random.default_rng(5)
    asked = talks(tmp_path, 5, rng)
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
    ) as held:
        for number in range(5):
            path = tmp_path / f"talk{number}.mp4"
            held.record_video(
                replace(info(f"talk{number}"), path=str(path), duration=1200.0), 1.0, finished=True
            )
            TextExtraction(held).extract(
                Subtitles(tracks=False), VideoFile(f"talk{number}", path, duration=1200.0)
            )
        finder = Finder(held, ("subtitle",))
        chosen = [asked[i] for i in rng.choice(len(asked), 100, replace=False)]
        ranks = []
        for question, video_id, at in chosen:
            found = finder.find(question, top=5)
            right = (
                rank
                for rank, m in enumerate(found, 1)
                if m.video_id == video_id and m.start <= at + 3 and m.end > at
            )
            ranks.append(next(right, 0))
        print(
            f"\n{sum(1 for r in ranks if r)} of 100 among the first five, {ranks.count(1)} first "
            f"({len(asked)} facts)"
        )
        assert sum(1 for rank in ranks if rank) >= 98


def test_quotes_around_the_whole_query_make_a_phrase(run, bank) -> None:
    """They are the user's, not the grammar's: the words have to stand there in that order."""
    find = ("find", f"bank={bank}", WORDS)
    code, out, _ = run(*find, 'query="was rebuilt"')
    assert code == 0 and "was rebuilt" in out
    for query in ('"rebuilt was"', "\u201crebuilt was\u201d", 'say "rebuilt was"'):
        code, out, _ = run(*find, f"query={query}")
        assert (code, out) == (0, "nothing found\n"), query
    code, out, _ = run(*find, "query=rebuilt was")
    assert code == 0 and "was rebuilt" in out


@pytest.mark.slow  # seconds of CPU
def test_a_time_in_the_question_limits_what_an_answer_reads(run, bank, film) -> None:
    ask = ("ask", f"video={film}", f"bank={bank}", *toy_parts(), "format=json")
    code, out, _ = run(*ask, "question=Who rebuilt the harbour in the first half?")
    answer = json.loads(out)
    assert code == 0 and answer["warning"] == (
        'The words "in the first half" limit what was read to 00:00-00:10.'
    )
    assert answer["lines"] and answer["recalled"][-1][1] == SECONDS / 2
    assert answer["question"] == "Who rebuilt the harbour in the first half?"
    code, out, _ = run(*ask, "question=Who rebuilt the harbour at the end?")
    answer = json.loads(out)
    assert code == 0 and answer["recalled"][-1][1] == SECONDS
    assert answer["warning"].endswith("but not the pictures; end= and asked_at= limit both.")
    code, out, error = run(*ask, "question=Who rebuilt the harbour after 12:30?")
    assert (code, out) == (2, "") and "name a time that no video here has" in error
    code, out, _ = run(*ask, "question=Who rebuilt the harbour?")
    assert code == 0 and json.loads(out)["warning"] == ""
