"""The contract of every option in conf/answer/: a new YAML file there is tested without more work.

No look-ahead, bounded tokens, the same answer twice, a trace that adds up, and an end between two
passes of the model.
"""

import math
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

import pytest

from encoders.errors import UserError
from encoders.models.generation import Generation
from memory.schema import Question
from pipeline.answer.schema import local
from pipeline.answer.strategies.call_log import ROOM
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.cli.keys import options_of
from pipeline.config.compose import compose
from pipeline.runtime.cancel import Cancelled
from pipeline.schema import Answer
from tests.support.families import FAMILIES
from tests.support.qa import loaded_once
from tests.support.qa import opened as qa_of_toy
from tests.support.toy_evidence import arguments_for

READ_TOKENS = 24  # of 80 that the film has
TINY = 20  # tokens of a window that holds no context
T = 15.5  # the last frame before is the last of a segment
OPTIONS = ("prefill.dtype=float32", "recent_frames=2")
OTHERS = ("qwen2_5_vl", "internvl")  # families
FAMILY_TOKENS = 64  # of an answer of theirs
# one that rules reduce, one that the model answers from the findings
BRIEF = Generation(max_tokens=1)
INSIDE = ("map", "confirm", "shorten", "note", "route", "probe", "decide")  # no text of an answer
QUESTIONS = ("In what order did the star and the heart appear?", "What is this film about?")


@dataclass(frozen=True)
class Asked:
    """What one strategy answered to each of the questions."""

    answers: list[Answer]
    again: list[Answer]  # in the same process
    elsewhere: list[Answer]  # by a new process in a bank of its own
    early: list[Answer]  # asked at T
    of_part: list[Answer]  # in a bank that ends at T
    read_tokens: int
    window: int  # tokens that the model takes
    cancelled: Answer | None  # what became of a question that was cancelled before
    brief: Answer  # to the second question, with one token
    beyond: list[str]  # errors where the window of the model holds no question


@contextmanager
def opened(model, film, bank, *more, build=loaded_once):
    """The parts of `reelbank ask` over a tiny random model, and the video's source."""
    if model == "toy":
        tokens = f"read_tokens={READ_TOKENS}"
        with qa_of_toy(film, bank, *OPTIONS, tokens, *more, build=build) as parts:
            yield parts
        return
    pytest.importorskip(FAMILIES[model].needs or "torch")
    own = arguments_for(FAMILIES[model], film, bank, "fps=1", "text=subtitles", *OPTIONS, *more)
    config = compose("ask", [*own, f"read_tokens={FAMILY_TOKENS}"])
    backbone = build_backbone(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        yield qa, source


@pytest.fixture(
    scope="module",
    params=["toy", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)],
)
def model(request):
    return request.param


@pytest.fixture(scope="module")
def folder(film, model, tmp_path_factory):
    """Two banks of the film, and one of its first part."""
    root = tmp_path_factory.mktemp("banks")
    for name, more in (("a", ()), ("b", ()), ("part", (f"end={T}",))):
        with opened(model, film, root / name, *more) as (qa, source):
            qa.ingest(source)
    return root


@pytest.fixture(scope="module", params=options_of("answer"))
def asked(request, film, model, folder):
    strategy = f"answer={request.param}"

    def ask(asked_at=math.inf):
        return [qa.ask(Question(text, source.info.video_id, asked_at)) for text in QUESTIONS]

    with opened(model, film, folder / "a", strategy) as (qa, source):
        answers, again, early = ask(), ask(), ask(T)
        brief = qa.ask(Question(QUESTIONS[1], source.info.video_id, generation=BRIEF))
        read_tokens = qa.answerer.read_tokens
        window = local(qa.answerer.reader, "a test").backbone.language_model.max_positions
        ended = threading.Event()
        ended.set()
        cancelled = None
        with suppress(Cancelled):
            cancelled = qa.ask(Question(QUESTIONS[1], source.info.video_id), cancelled=ended)
    with opened(model, film, folder / "b", strategy, build=build_backbone) as (qa, source):
        elsewhere = ask()
        qa.bank.findings.forget(source.info.video_id)
        decoder = local(qa.answerer.reader, "a test").backbone.language_model
        decoder.max_positions, beyond = TINY, list[str]()
        for text in QUESTIONS:
            try:
                qa.ask(Question(text, source.info.video_id))
            except UserError as error:
                beyond.append(str(error))
        decoder.max_positions = window
        assert qa.bank.findings.nbytes() == 0
    with opened(model, film, folder / "part", strategy, f"end={T}") as (qa, source):
        of_part = ask()
    return Asked(
        answers, again, elsewhere, early, of_part, read_tokens, window, cancelled, brief, beyond
    )


def test_the_trace_adds_up_and_every_pass_is_bounded(asked):
    for answer in (*asked.answers, *asked.again, *asked.early):
        trace = answer.trace
        assert trace is not None and trace.why
        assert sum(call.visual_tokens for call in trace.calls) == answer.visual_tokens
        assert sum(call.frames for call in trace.calls) == answer.frames_read
        assert sum(call.seconds for call in trace.calls) <= answer.seconds["total"] + 1e-6
        most = asked.window - ROOM if trace.strategy == "full" else asked.read_tokens
        for call in trace.calls:
            assert call.longest <= most and call.visual_tokens <= call.contexts * call.longest
            assert call.text_tokens > 0
    assert all(answer.trace.calls or answer.trace.reused for answer in asked.elsewhere)


def test_every_sentence_rests_on_what_the_answer_cites(asked):
    for answer in asked.answers:
        said = " ".join(one.text for one in answer.trace.basis)
        assert not answer.shown or all(word in answer.text for word in said.split())
        spans = {span for one in answer.trace.basis for span in one.spans}
        assert all(any(a <= x and y <= b for a, b in answer.spans) for x, y in spans)


def test_the_same_question_gives_the_same(asked):
    """A second time, where findings are kept, and in another process."""

    def plain(answer: Answer) -> dict:
        return asdict(replace(answer, seconds={}, trace=None, frames_read=0, visual_tokens=0))

    first, *others = (
        [plain(answer) for answer in own] for own in (asked.answers, asked.again, asked.elsewhere)
    )
    assert all(own == first for own in others)


def test_an_answer_at_t_equals_that_of_a_bank_that_ends_at_t(asked):
    """Also where a question of later has kept its findings before."""
    for early, alone in zip(asked.early, asked.of_part, strict=True):
        assert all(end <= T + 0.5 for _, end in early.spans)
        assert (early.text, early.spans) == (alone.text, alone.spans)


def test_how_an_answer_is_written_is_for_the_pass_that_writes_it(asked):
    brief, whole = asked.brief, asked.again[1]
    assert brief.is_cut and len(brief.text) < len(whole.text), (brief.text, whole.text)
    if brief.trace.strategy == "latest":  # where it looks next depends on what an answer cites
        assert {call.answer_tokens for call in brief.trace.calls} == {1}
        return
    is_second = brief.trace.strategy == "second_look"
    for one, other in zip(brief.trace.calls, whole.trace.calls, strict=True):
        if one.step in INSIDE or (is_second and one.step == "look"):
            assert one.answer_tokens == other.answer_tokens
        else:
            assert one.answer_tokens == 1 < other.answer_tokens


def test_a_cancelled_question_ends(asked):
    assert asked.cancelled is None


def test_a_read_beyond_the_window_is_refused_in_one_sentence(asked):
    assert len(asked.beyond) == len(QUESTIONS)
    for said in asked.beyond:
        assert re.search(r"window|longer than the \d+|takes \d+ at once", said), said
        assert "\n" not in said and ("lower" in said or "use " in said)


def test_an_unknown_strategy_is_one_sentence(run, film, folder):
    code, out, err = run(
        "ask", str(film), "What is it?", "--bank", str(folder / "a"), "-a", "guess"
    )
    assert code == 2 and not out
    assert "guess" in err and "map_reduce" in err and len(err.strip().splitlines()) == 1
