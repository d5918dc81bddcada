"""Law 3, no look-ahead: a question at time t sees nothing after t, even while the writer runs."""

import threading
import time

import pytest
import torch

from pipeline.answer.reader import KVReader, TokenReader
from tests.support.qa import TEXT, ask, opened, with_reader
from tests.support.toys import toy_backbone

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


# fused asks clip and kv
@pytest.mark.parametrize(
    "retriever",
    [*(pytest.param(one, marks=pytest.mark.slow) for one in ("uniform", "clip", "kv")), "fused"],
)
def test_an_answer_at_t_equals_that_of_a_bank_that_ends_at_t(film, tmp_path_factory, retriever):
    banks = tmp_path_factory.getbasetemp() / "look-ahead"
    ends_at_t(film, banks, (*EXACT, f"retriever={retriever}"), (0.0, 5.4, 14.0))


@pytest.mark.parametrize("kv_dtype", [pytest.param("int8", marks=pytest.mark.slow), "int4"])
def test_a_quantized_answer_at_t_equals_that_of_a_bank_that_ends_at_t(film, tmp_path, kv_dtype):
    """Scales of a group of frames used to depend on later frames."""
    options = (*EXACT, "retriever=kv", f"kv_dtype={kv_dtype}", "token_dtype=int8")
    ends_at_t(film, tmp_path, options, (5.4,))


def ends_at_t(film, banks, options, moments):
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
    """Between two segments the encoder waits for an answer, so that there is one beside each."""
    with opened(film, tmp_path / "alone", *EXACT) as (qa, source):
        qa.ingest(source)
        expected = ask(qa, source, asked_at=6.0)
    with opened(film, tmp_path / "both", *EXACT) as (qa, source):
        is_third, answered = threading.Event(), threading.Semaphore(0)

        def progress(seconds: float, nbytes: int) -> None:
            if seconds >= 12.0:
                is_third.set()
                answered.acquire()

        def stored_until() -> float:
            rows = qa.bank.catalog.segments(source.info.video_id)
            return rows[-1].end if rows else 0.0

        writer = threading.Thread(target=qa.ingest, args=(source, progress))
        writer.start()
        try:
            # a segment is handed to a thread that writes it, and the question needs the second
            while writer.is_alive() and not (is_third.is_set() and stored_until() >= 8.0):
                time.sleep(0.01)
            answers = []
            while writer.is_alive():
                answers.append(ask(qa, source, asked_at=6.0))
                answered.release()
        finally:
            answered.release(9)
            writer.join()
        assert len(answers) >= 3  # segments of 4 s end at 12, 16 and 20
        assert all(answer == expected for answer in answers)
        assert stored_until() == 20.0


def test_a_question_hears_nothing_of_another_thread():
    """Threads share the model. Here the other thread runs it exactly while the question's queries
    are taken.
    """
    backbone = toy_backbone()
    model = backbone.language_model
    (alone,) = model.queries_of([TEXT])
    asker, others = threading.get_ident(), []

    def meanwhile(*_: object) -> None:
        if threading.get_ident() == asker:
            video = model.embed(list(range(50)))
            other = threading.Thread(
                target=lambda: others.append(model.forward(video, model.cache(50)))
            )
            other.start()
            other.join()

    hook = backbone.decoder.layers[1].register_forward_pre_hook(meanwhile)
    try:
        assert torch.equal(model.queries_of([TEXT])[0], alone)
    finally:
        hook.remove()
    assert len(others) == 1
