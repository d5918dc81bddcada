"""Laws 2 to 8 of the design, end to end: real video files, the bank on disk, real model classes with random weights.

Law 1 is in test_exactness.py, law 5 in test_cli.py.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory.schema import Evidence, Hits, Question
from pipeline.answer.citations import cite, cited_spans
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.schema import Answer, CitedFrame, is_shown
from tests.support.paths import ROOT
from tests.support.qa import SHORT, TEXT, ask, opened, scenes, with_reader
from tests.support.records import files
from tests.support.toys import FRAME_TOKENS, toy_backbone, toy_parts
from tests.support.videos import write_video


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s, every picture another."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 20, 5)
    return path


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 s of scenes with a variable frame rate, so that sampled frames are not evenly spaced."""
    path = tmp_path_factory.mktemp("film") / "long.mp4"
    times = np.cumsum(np.random.default_rng(0).uniform(0.1, 0.35, 400))
    write_video(path, 42, times=[0.0, *times[times < 42].round(3).tolist()], paint=scenes)
    return path


# ---- law 2: encode once


def test_a_second_question_runs_no_tower_and_prefills_no_video(film, tmp_path):
    with opened(film, tmp_path / "bank") as (qa, source):
        qa.ingest(source)
        tower, images, decoded = [], [], []
        hooks = [
            qa.backbone.model.model.vision_tower.register_forward_hook(lambda *_: tower.append(1)),
            qa.ingester.clip.clip.visual.register_forward_hook(lambda *_: images.append(1)),
            qa.backbone.decoder.layers[0].register_forward_hook(
                lambda _m, _a, out: decoded.append(1), always_call=True
            ),
            qa.backbone.decoder.layers[0].self_attn.q_proj.register_forward_hook(
                lambda _m, _a, out: decoded.append(out.shape[1])
            ),
        ]
        fresh = [ask(qa, source) for _ in range(2)]
        assert qa.ingest(source).new_segments == 0
        for hook in hooks:
            hook.remove()
        assert tower == [] and images == []
        tail, sink = len(qa.backbone.suffix_ids(TEXT)) + 1, len(qa.backbone.preamble_ids())
        answer = qa.answerer.reader.max_new_tokens
        # of each question: once for the retriever's queries, once for the reader, then the answer; video tokens: none
        assert sum(n for n in decoded if n > 1) <= 2 * 2 * (sink + tail) + sink
        assert sum(n == 1 for n in decoded) <= 2 * 2 * answer + len(decoded)
        assert max(decoded) <= sink + tail < fresh[0]["visual_tokens"]
        assert fresh[0] == fresh[1] and fresh[0]["frames_read"] == 20


def test_the_token_reader_pays_for_every_question(film, tmp_path):
    """The other side of the trade, and proof that the count above can see a prefill."""
    with opened(film, tmp_path / "bank", "reader=tokens") as (qa, source):
        qa.ingest(source)
        lengths: list[int] = []
        hook = qa.backbone.decoder.layers[0].self_attn.q_proj.register_forward_hook(
            lambda _m, _a, out: lengths.append(out.shape[1])
        )
        ask(qa, source)
        hook.remove()
        assert max(lengths) >= 20 * FRAME_TOKENS


def test_a_known_video_encodes_nothing_in_another_run(film, tmp_path):
    with opened(film, tmp_path / "bank") as (qa, source):
        assert qa.ingest(source).new_segments == 3
        first = ask(qa, source)
    before = files(tmp_path / "bank")
    copy = tmp_path / "another name.mp4"
    copy.write_bytes(film.read_bytes())
    with opened(copy, tmp_path / "bank") as (qa, source):
        calls: list[int] = []
        modules = [qa.backbone.model.model.vision_tower, qa.ingester.clip.clip.visual]
        hooks = [module.register_forward_hook(lambda *_: calls.append(1)) for module in modules]
        done = qa.ingest(source)
        again = ask(qa, source)
        for hook in hooks:
            hook.remove()
        assert (done.new_segments, done.nbytes, calls) == (0, 0, []) and again == first
    assert files(tmp_path / "bank") == before


# ---- law 3: no look-ahead

EXACT = (
    "prefill.dtype=float32",
    "cite_share=0",
    "read_tokens=24",
    "recent_frames=2",
    "segmenter.seconds=4",
)


def same_answer(a: dict, b: dict) -> None:
    """Equal up to rounding: a shorter segment is another shape for the matrix products."""
    assert a["text"] == b["text"] and a["spans"] == b["spans"]
    assert (a["frames_read"], a["visual_tokens"]) == (b["frames_read"], b["visual_tokens"])
    left, right = ({f["ordinal"]: f for f in each["cited"]} for each in (a, b))
    assert left.keys() == right.keys()
    for ordinal, frame in left.items():
        assert frame["time"] == right[ordinal]["time"]
        assert frame["weight"] == pytest.approx(right[ordinal]["weight"], abs=1e-4)
        assert frame["score"] == pytest.approx(right[ordinal]["score"], abs=1e-3)


@pytest.mark.parametrize("retriever", ["uniform", "clip", "kv", "fused"])
def test_an_answer_at_t_equals_that_of_a_bank_that_ends_at_t(film, tmp_path_factory, retriever):
    banks = tmp_path_factory.getbasetemp() / "look-ahead"
    options = (*EXACT, f"retriever={retriever}")
    moments = (0.0, 5.4, 14.0)
    with opened(film, banks / "whole", *options) as (qa, source):
        qa.ingest(source)
        both = [with_reader(qa, reader) for reader in (KVReader, TokenReader)]
        later = [ask(each, source) for each in both]
        asked = {t: [ask(each, source, asked_at=t) for each in both] for t in moments}
    for t in moments:
        with opened(film, banks / f"to-{t}", *options, f"end={t + 1e-3}") as (qa, part):
            qa.ingest(part)
            for i, reader in enumerate((KVReader, TokenReader)):
                got = asked[t][i]
                assert got["spans"] and all(end <= int(t) + 1 for _, end in got["spans"])
                same_answer(got, ask(with_reader(qa, reader), part))
                assert got["cited"] != later[i]["cited"]


def test_no_look_ahead_while_the_writer_runs(film, tmp_path):
    with opened(film, tmp_path / "alone", *EXACT) as (qa, source):
        qa.ingest(source)
        expected = ask(qa, source, asked_at=6.0)
    with opened(film, tmp_path / "both", *EXACT) as (qa, source):
        second, go_on = threading.Event(), threading.Event()

        def progress(seconds: float, nbytes: int) -> None:
            time.sleep(0.02)
            if seconds == 12.0:
                second.set()
                go_on.wait(30)

        writer = threading.Thread(target=qa.ingest, args=(source, progress))
        writer.start()
        try:
            assert second.wait(30)
            go_on.set()
            answers = []
            while writer.is_alive() or not answers:
                answers.append(ask(qa, source, asked_at=6.0))
        finally:
            go_on.set()
            writer.join()
        assert all(answer == expected for answer in answers), len(answers)
        assert qa.bank.catalog.segments(source.info.video_id)[-1].end == 20.0


def test_a_question_hears_nothing_of_another_thread():
    """The model is shared: here the other thread runs through it exactly while the question's queries are taken."""
    backbone = toy_backbone()
    alone = backbone.queries(TEXT)
    asker, others = threading.get_ident(), []

    def meanwhile(*_: object) -> None:
        if threading.get_ident() == asker:
            video = backbone.embed(list(range(50)))
            other = threading.Thread(
                target=lambda: others.append(backbone.forward(video, backbone.cache(50)))
            )
            other.start()
            other.join()

    hook = backbone.decoder.layers[1].register_forward_pre_hook(meanwhile)
    try:
        assert torch.equal(backbone.queries(TEXT), alone)
    finally:
        hook.remove()
    assert len(others) == 1


# ---- law 4: durable, and resumed with the same bytes

MIDDLE = 3  # segments after which encoding is stopped
STOPPED = f"""
import os, signal, sys
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
config = compose("ask", sys.argv[1:])
backbone = build_backbone(config)
source = build_source(config, backbone)
qa = build_qa(config, backbone)
write = qa.bank.write
def and_die(segment):
    nbytes = write(segment)
    if segment.number == {MIDDLE - 1}:
        os.kill(os.getpid(), signal.SIGKILL)
    return nbytes
qa.bank.write = and_die
qa.ingest(source)
"""
WAYS = {
    "window": ("prefill.dtype=bfloat16", "prefill.window_frames=11", "segmenter.seconds=6"),
    "scene": (
        "prefill.dtype=bfloat16",
        "segmenter=scene",
        "segmenter.memory=24",
        "segmenter.warm_up=4",
    ),
    "int8": (
        "kv_dtype=int8",
        "token_dtype=int8",
        "prefill.window_frames=11",
        "segmenter.seconds=6",
    ),
    "int4": (
        "kv_dtype=int4",
        "token_dtype=int8",
        "prefill.window_frames=11",
        "segmenter.seconds=6",
        "compressor=merge",
    ),
}


@pytest.fixture(scope="module")
def uninterrupted(long_film, tmp_path_factory):
    """Segment files of a whole pass, for each way."""
    made: dict[str, dict[str, bytes]] = {}
    for name, options in WAYS.items():
        bank = tmp_path_factory.mktemp("whole") / "bank"
        with opened(long_film, bank, *options) as (qa, source):
            done = qa.ingest(source)
        made[name] = files(bank)
        assert done.segments == len(made[name]) > MIDDLE + 1 and done.frames == 42
    return made


@pytest.mark.parametrize("way", WAYS)
def test_resume_after_sigkill_gives_the_same_bytes(long_film, tmp_path, uninterrupted, way):
    bank = tmp_path / "bank"
    overrides = [f"video={long_film}", f"bank={bank}", "question=x", *toy_parts(), *WAYS[way]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, *overrides], cwd=tmp_path, env=environment, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    with opened(long_film, bank, *WAYS[way]) as (qa, source):
        acknowledged = len(qa.bank.catalog.segments(source.info.video_id))
        assert MIDDLE <= acknowledged < len(uninterrupted[way])
        assert qa.ingest(source).new_segments == len(uninterrupted[way]) - acknowledged
        assert qa.bank.check.verify() == []
    assert files(bank) == uninterrupted[way]


class Stop(Exception):
    """Something went wrong in the middle."""


@pytest.mark.parametrize("way", WAYS)
def test_resume_after_any_segment_gives_the_same_bytes(long_film, tmp_path, uninterrupted, way):
    """Stopped again and again: each run adds a segment or two."""

    def progress(seconds: float, nbytes: int) -> None:
        raise Stop

    runs = 0
    while True:
        with opened(long_film, tmp_path / "bank", *WAYS[way]) as (qa, source):
            if runs == len(uninterrupted[way]):
                assert qa.ingest(source).new_segments == 0
                break
            with pytest.raises(Stop):
                qa.ingest(source, progress)
            runs += 1
            # what was put is there, though it failed
            assert len(qa.bank.catalog.segments(source.info.video_id)) == runs
    assert files(tmp_path / "bank") == uninterrupted[way]


def test_a_write_that_fails_is_told_and_can_be_resumed(film, tmp_path):
    with opened(film, tmp_path / "whole") as (qa, source):
        qa.ingest(source)
    with opened(film, tmp_path / "bank") as (qa, source):
        write = qa.bank.write

        def full(segment) -> int:
            if segment.number == 1:
                raise OSError(28, "No space left on device")
            return write(segment)

        qa.bank.write = full
        with pytest.raises(OSError, match="No space left"):
            qa.ingest(source)
        assert not qa.bank.catalog.video(source.info.video_id).finished
    with opened(film, tmp_path / "bank") as (qa, source):
        assert qa.ingest(source).new_segments == 2
    assert files(tmp_path / "bank") == files(tmp_path / "whole")


# ---- law 6: bounded


@pytest.mark.parametrize("reader", ["kv", "tokens"])
@pytest.mark.parametrize("budget", [4, 23, 40])
def test_no_answer_reads_more_than_its_budget(film, long_film, tmp_path_factory, reader, budget):
    banks = tmp_path_factory.getbasetemp() / "bounded"
    for path, seconds in ((film, 20), (long_film, 42)):
        options = (f"read_tokens={budget}", "recent_frames=3", f"reader={reader}")
        with opened(path, banks / path.stem, *options) as (qa, source):
            qa.ingest(source)
            answer = ask(qa, source)
            assert answer["visual_tokens"] == budget // FRAME_TOKENS * FRAME_TOKENS
            assert answer["frames_read"] == budget // FRAME_TOKENS < seconds
            assert len(answer["cited"]) <= answer["frames_read"]


def test_per_layer_recall_keeps_the_budget(long_film, tmp_path_factory):
    bank = tmp_path_factory.getbasetemp() / "bounded" / "per-layer"
    with opened(long_film, bank, "retriever=kv", "retriever.per_layer=true", "read_tokens=40") as (
        qa,
        source,
    ):
        qa.ingest(source)
        assert 0 < ask(qa, source)["visual_tokens"] <= 40


# ---- law 7: honest evidence


def test_cited_frames_were_read(long_film, tmp_path):
    with opened(
        long_film, tmp_path / "bank", "read_tokens=40", "recent_frames=2", "cite_share=0.1"
    ) as (qa, source):
        qa.ingest(source)
        for asked_at in (math.inf, 31.5):
            question = Question(TEXT, source.info.video_id, asked_at)
            evidence = qa.bank.recall(question, read_tokens=40)
            read = {
                o: t
                for run in evidence.runs
                for o, t in zip(run.ordinals, run.tokens.times.tolist(), strict=True)
            }
            answer = qa.ask(question)
            assert answer.cited and answer.shown
            assert all(read[frame.ordinal] == frame.time for frame in answer.cited)
            assert [f.weight for f in answer.cited] == sorted(
                (f.weight for f in answer.cited), reverse=True
            )
            times = [frame.time for frame in answer.cited]
            for a, b in answer.spans:  # each begins and ends with a frame that was read and cited
                assert (
                    min(abs(a - t) for t in times) < 1e-3
                    and min(abs(b - 1 - t) for t in times) < 1e-3
                )
                assert max(read.values()) + 1 >= b - 1e-3
            assert all(any(a - 1e-3 <= t < b for a, b in answer.spans) for t in times)


def test_not_in_the_video_cites_nothing(film, tmp_path):
    with opened(film, tmp_path / "bank", says="not in the video") as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
        assert (answer["text"], answer["shown"], answer["spans"], answer["cited"]) == (
            "not in the video",
            False,
            (),
            (),
        )
        assert answer["frames_read"] == 20
    with opened(film, tmp_path / "other", says="star, circle") as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
        assert (answer["text"], answer["shown"]) == ("star, circle", True)


def test_what_counts_as_not_shown():
    assert not is_shown("not in the video") and not is_shown("It is Not in the Video.")
    assert is_shown("4821") and is_shown("")


def frame_at(ordinal: int, time_: float, interval: float = 1.0) -> CitedFrame:
    return CitedFrame(ordinal, 0, time_, time_ + interval, 0.5, None)


@pytest.mark.parametrize(
    ("times", "interval", "expected"),
    [
        ([], 1.0, ()),
        ([3.0], 1.0, ((3.0, 4.0),)),
        ([3.0, 4.0, 5.0], 1.0, ((3.0, 6.0),)),
        ([5.0, 3.0, 4.0], 1.0, ((3.0, 6.0),)),
        ([3.0, 5.0], 1.0, ((3.0, 4.0), (5.0, 6.0))),
        ([3.0, 4.04], 1.0, ((3.0, 5.04),)),  # uneven frame times are still neighbours
        ([3.0, 3.5, 4.5], 0.5, ((3.0, 4.0), (4.5, 5.0))),
        ([0.1 * i for i in range(5)], 0.1, ((0.0, 0.5),)),
    ],
)
def test_neighbouring_frames_become_one_span(times, interval, expected):
    assert (
        cited_spans(tuple(frame_at(i, t, interval) for i, t in enumerate(times)), interval)
        == expected
    )


@given(st.sets(st.integers(0, 60)))
def test_spans_cover_exactly_the_cited_seconds(seconds):
    found = cited_spans(tuple(frame_at(s, float(s)) for s in seconds), 1.0)
    assert {s for a, b in found for s in range(int(a), int(b))} == seconds
    assert all(b < c for (_, b), (c, _) in pairwise(found))


def test_which_frames_are_cited(film, tmp_path):
    with opened(film, tmp_path / "bank") as (qa, source):
        qa.ingest(source)
        evidence = qa.bank.recall(Question(TEXT, source.info.video_id), read_tokens=1000)
    hits = Hits(torch.tensor([4, 2]), torch.tensor([0.9, 0.5]))
    evidence = replace(evidence, hits=hits)
    weights = dict.fromkeys(range(20), 0.01) | {4: 0.5, 7: 0.2, 2: 0.12}
    cited = cite(evidence, weights, share=0.25)
    assert [(f.ordinal, f.time, f.segment) for f in cited] == [(4, 4.0, 0), (7, 7.0, 0)]
    assert cited[0].score == pytest.approx(0.9) and cited[1].score is None
    assert [f.ordinal for f in cite(evidence, weights, share=0.2)] == [4, 7, 2]
    assert cite(evidence, {}, share=0.25) == ()
    even = dict.fromkeys(range(20), 1 / 20)
    assert len(cite(evidence, even, share=0.25)) == 20  # nothing stands out, nothing is hidden
    assert isinstance(evidence, Evidence)


# ---- law 8: deterministic


def test_two_runs_give_the_same_bytes_and_answers(film, tmp_path):
    results: list[tuple[dict[str, bytes], list[dict]]] = []
    for name in ("one", "two"):
        with opened(film, tmp_path / name) as (qa, source):
            qa.ingest(source)
            answers = [ask(qa, source, text) for text in (TEXT, "What is the code?")]
        results.append((files(tmp_path / name), answers))
    assert results[0] == results[1] and len(results[0][0]) == 3
    assert json.dumps(results[0][1]) == json.dumps(results[1][1])


def test_another_process_gives_the_same_bytes_and_answers(film, tmp_path):
    with opened(film, tmp_path / "here") as (qa, source):
        qa.ingest(source)
        here = ask(qa, source)
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "ask",
        f"video={film}",
        f"bank={tmp_path / 'there'}",
    ]
    done = subprocess.run(
        [*command, f"question={TEXT}", "format=json", *toy_parts(), *SHORT],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    there = json.loads(done.stdout)
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert all(there[key] == json.loads(json.dumps(value)) for key, value in here.items())
    assert Answer.__dataclass_fields__.keys() == there.keys()
