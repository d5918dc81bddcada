"""Laws 1, 2, 4, 5 and 6 in banks that encode what a question reads.

Exactness is that of bytes: what a question had encoded is the file that a bank which encodes at
once has.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from encoders.errors import UserError
from encoders.schema import FrameSource
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from pipeline.engine import Engine
from pipeline.qa import VideoQA
from pipeline.runtime.cancel import Cancelled
from tests.support import qa as films
from tests.support.children import ask_on_demand, receive_all, start
from tests.support.families import FAMILIES
from tests.support.kv_policies import toy_codebook
from tests.support.qa import ask, scenes
from tests.support.toys import toy_clip, toy_parts
from tests.support.videos import write_video

LATER, BLOCKS = "visual_tokens=on_demand", "visual_tokens=on_demand_blocks"
# pictures alone are searched, as a bank that encodes on demand has no keys to search
BY_CLIP = "retriever=clip"
TOKENS = ("prefill=none", "reader=tokens", BY_CLIP)
SHORT = ("segmenter.seconds=2", BY_CLIP)
WINDOW = (BY_CLIP, "prefill.window_frames=16")
SEGMENTS = 5


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 2 * SEGMENTS, 5)
    return path


@contextmanager
def opened(film: Path, bank: Path, *options: str) -> Iterator[tuple[VideoQA, FrameSource]]:
    with films.opened(film, bank, *options) as (qa, source):
        yield qa, cast(FrameSource, source)


def encode(qa: VideoQA, video_id: str, numbers: Sequence[int]) -> None:
    """As a question does that reads these segments."""
    assert qa.bank.encoding.encode is not None
    qa.bank.encoding.encode(video_id, numbers, lambda done, of: None)


def encoded(bank: Path) -> dict[str, bytes]:
    """The files of segments that a question had encoded, by number."""
    return {path.stem: path.read_bytes() for path in bank.glob("encoded/*/*/*.safetensors")}


def segments(bank: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in bank.glob("segments/*/*.safetensors")}


def full(film: Path, bank: Path, *options: str) -> tuple[dict[str, bytes], dict]:
    """The segments of a bank that encodes at once, and its answer."""
    with opened(film, bank, *options) as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
    return segments(bank), answer


def without_scores(answer: dict) -> dict:
    """Frames that are searched before they are encoded have embeddings that are not quantized."""
    return answer | {"cited": [each | {"score": None} for each in answer["cited"]]}


def towers(qa: VideoQA) -> list[int]:
    """Grows with each call of the vision tower."""
    calls: list[int] = []
    model: Any = cast(Any, qa.backbone).model
    model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(TOKENS, id="tokens", marks=pytest.mark.slow),
        pytest.param(WINDOW, id="keys and values"),
        pytest.param(
            (*WINDOW, "kv_dtype=int8", "compressor=framediff"),
            id="quantized and compressed",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (*WINDOW, "kv_policy=product_quantization", f"kv_policy.codebook={toy_codebook()}"),
            id="codebook",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_a_question_had_encoded_is_what_encoding_at_once_stores(
    film: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    options = ("segmenter.seconds=2", *options)
    whole, expected = full(film, tmp_path / "full", *options)
    bank = tmp_path / "bank"
    with opened(film, bank, LATER, *options) as (qa, source):
        calls = towers(qa)
        report = qa.ingest(source)
        assert (report.new_segments, calls) == (SEGMENTS, []) and not encoded(bank)
        before = segments(bank)
        answer = ask(qa, source)
        assert encoded(bank) == whole
        done = len(calls)
        # encode once: the second question, and the first one of another opening, run no tower
        assert ask(qa, source) == answer and len(calls) == done > 0
        assert segments(bank) == before
        assert qa.bank.check.verify() == []
    assert without_scores(answer) == without_scores(expected)
    with opened(film, bank, *options) as (qa, source):
        calls = towers(qa)
        assert qa.ingest(source).new_segments == 0
        assert ask(qa, source) == answer and calls == []


@pytest.mark.slow
def test_only_what_is_read_is_encoded_and_order_changes_no_byte(film: Path, tmp_path: Path) -> None:
    """A window of two frames: the segment before. Encoded in another order, or alone, a segment has
    the same bytes; they are those of a film that begins where its window does."""
    options = (*SHORT, "prefill.window_frames=2", "recent_frames=0", "read_tokens=8")
    with opened(film, tmp_path / "bank", LATER, *options) as (qa, source):
        qa.ingest(source)
        video_id = source.info.video_id
        ask(qa, source, "What is the code?")
        chosen = encoded(tmp_path / "bank")
        assert 0 < len(chosen) < SEGMENTS
        encode(qa, video_id, qa.bank.encoding.missing(video_id))
        every = encoded(tmp_path / "bank")
        assert len(every) == SEGMENTS and chosen.items() <= every.items()
    for name in ("alone", "again"):
        with opened(film, tmp_path / name, LATER, *options) as (qa, source):
            qa.ingest(source)
            for number in [3] if name == "alone" else [4, 3, 2, 1, 0]:
                encode(qa, video_id, [number])
        assert encoded(tmp_path / name).items() <= every.items()
    with opened(film, tmp_path / "from 4", "start=4", *options) as (qa, source):
        qa.ingest(source)
        part = qa.bank.catalog.read_segment(source.info.video_id, 1)
    with opened(film, tmp_path / "again", LATER, *options) as (qa, _):
        tokens, block = qa.bank._store.frames(video_id, 3, 0, 2)
    assert block is not None and part.kv is not None
    assert tokens.tokens.equal(part.tokens.tokens)
    assert block.keys.equal(part.kv.keys) and block.values.equal(part.kv.values)


@pytest.mark.slow
def test_in_blocks_a_window_begins_with_four_segments(film: Path, tmp_path: Path) -> None:
    """Of the first block it is what encoding at once stores, and of the next one what that stores
    of a film which begins there. In any order; what lies before in a block is stored with it."""
    options = (*SHORT, "prefill.window_frames=4")
    whole, _ = full(film, tmp_path / "full", *SHORT, "prefill.window_frames=16")
    full(film, tmp_path / "later", *options, "start=8")
    with opened(film, tmp_path / "bank", BLOCKS, *options) as (qa, source):
        qa.ingest(source)
        video_id = source.info.video_id
        calls = towers(qa)
        encode(qa, video_id, [2])
        assert sorted(encoded(tmp_path / "bank")) == ["000000", "000001", "000002"]
        done = len(calls)
        encode(qa, video_id, [3, 4])  # the tokens of 0 to 2 are read from the bank
        assert 0 < len(calls) - done <= done
        (tokens, block), (first, own) = (
            qa.bank._store.frames(video_id, number, 0, 2) for number in (4, 0)
        )
    every = encoded(tmp_path / "bank")
    assert len(every) == SEGMENTS
    for name in ("000000", "000001"):  # a window of four frames holds all that lies before
        assert every[name] == whole[name]
    with opened(film, tmp_path / "later", *options, "start=8") as (qa, source):
        there, expected = qa.bank._store.frames(source.info.video_id, 0, 0, 2)
    assert block is not None and expected is not None and own is not None
    assert tokens.tokens.equal(there.tokens) and not first.tokens.equal(there.tokens)
    assert block.keys.equal(expected.keys) and block.values.equal(expected.values)
    with opened(film, tmp_path / "again", BLOCKS, *options) as (qa, _):
        pass
    with opened(film, tmp_path / "again", *options) as (qa, source):
        qa.ingest(source)
        for number in (4, 1, 3):
            encode(qa, video_id, [number])
    assert encoded(tmp_path / "again") == every
    message = "encodes on demand otherwise"
    with (
        pytest.raises(UserError, match=message),
        opened(film, tmp_path / "bank", LATER, *options),
    ):
        pass


def test_a_question_that_is_cancelled_keeps_what_is_encoded(film: Path, tmp_path: Path) -> None:
    bank, cancelled, told = tmp_path / "bank", threading.Event(), list[tuple[int, int]]()

    def watch(done: int, of: int) -> None:
        told.append((done, of))
        if done == 2:
            cancelled.set()

    with opened(film, bank, LATER, *SHORT) as (qa, source):
        qa.ingest(source)
        question = Question("What is the code?", source.info.video_id)
        with qa.bank.encoding.watched(watch), pytest.raises(Cancelled):
            qa.ask(question, cancelled=cancelled)
        assert told == [(number, SEGMENTS) for number in range(3)]
        before = encoded(bank)
        assert len(before) == 2 and qa.bank.check.verify() == []
        told.clear()
        with qa.bank.encoding.watched(lambda *step: told.append(step)):
            qa.ask(question)
        assert told == [(number, 3) for number in range(4)]
        assert len(encoded(bank)) == SEGMENTS and before.items() <= encoded(bank).items()


@pytest.mark.slow
def test_a_compressor_leaves_room_for_more_frames(tmp_path: Path) -> None:
    """Nearly as many as with encoding at once, whatever was encoded for other questions."""
    film = tmp_path / "long.mp4"
    write_video(film, 24, 5)
    options = (*SHORT, "compressor=shrink", "recent_frames=0", "read_tokens=24")
    _, expected = full(film, tmp_path / "full", *options)
    answers = []
    for name in ("first", "later"):
        with opened(film, tmp_path / name, LATER, *options) as (qa, source):
            qa.ingest(source)
            if name == "later":
                ask(qa, source, "What is the code?")
                encode(qa, source.info.video_id, [0, 5, 11])
            answers.append(ask(qa, source))
    assert answers[0] == answers[1] and 0 < len(encoded(tmp_path / "first")) < 12
    each = source_tokens(film, tmp_path)
    # what is left of the budget may hold less than a frame that is not looked at yet
    assert expected["frames_read"] - each < answers[0]["frames_read"] <= expected["frames_read"]
    assert answers[0]["frames_read"] > 24 // each


def source_tokens(film: Path, tmp_path: Path) -> int:
    """Tokens of a frame before compression, with its time tag."""
    with opened(film, tmp_path / "plain", *SHORT) as (qa, source):
        qa.ingest(source)
        segment = qa.bank.catalog.read_segment(source.info.video_id, 0)
    return int(segment.tokens.offsets[1])


def test_a_film_that_is_gone(film: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(film.read_bytes())
    with opened(copy, tmp_path / "bank", LATER, *SHORT) as (qa, source):
        qa.ingest(source)
        copy.unlink()
        with pytest.raises(UserError, match=r"still to be encoded .* is not there; bring the film"):
            ask(qa, source)
        copy.write_bytes(film.read_bytes())
        assert ask(qa, source)["frames_read"] == 2 * SEGMENTS
        copy.unlink()
        assert ask(qa, source)["frames_read"] == 2 * SEGMENTS


@pytest.mark.slow
def test_a_bank_says_how_it_encodes(film: Path, tmp_path: Path) -> None:
    """Settings that do not fit are refused, and what is stored decides where nothing is said."""
    with opened(film, tmp_path / "bank", LATER, *SHORT) as (qa, _):
        assert qa.bank.encoding.is_on_demand
    with opened(film, tmp_path / "bank", *SHORT) as (qa, _):
        assert qa.bank.encoding.is_on_demand
    with opened(film, tmp_path / "full", *SHORT) as (qa, _):
        assert not qa.bank.encoding.is_on_demand
    for bank, options, message in (
        ("full", (LATER, *SHORT), "encodes every film at once"),
        ("bank", ("retriever=kv",), "retriever=kv searches keys"),
        ("bank", ("visual_tokens=soon",), "visual_tokens=soon is not known"),
    ):
        with pytest.raises(UserError, match=message), opened(film, tmp_path / bank, *options):
            pass


@pytest.mark.slow
def test_killed_while_a_question_encodes(film: Path, tmp_path: Path) -> None:
    """Law 4: at each step of a commit. Nothing is damaged, and the next question goes on."""
    whole, _ = full(film, tmp_path / "full", *SHORT, "prefill.window_frames=16")
    bank = tmp_path / "bank"
    overrides = [
        f"video={film}", f"bank={bank}", "question=x", LATER, *toy_parts(), *SHORT,
        "prefill.window_frames=16",
    ]  # fmt: skip
    steps = ("sync", "rename", "encoded row", "encoded commit")
    counts = []
    for step in (*steps, None):
        process, told = start(ask_on_demand, overrides, step)
        receive_all(told)
        process.join()
        assert (process.exitcode == 0) == (step is None)
        with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as there:
            assert [one for one in there.check.verify() if not one.harmless] == []
            video_id = there.catalog.videos()[0].info.video_id
            counts.append(SEGMENTS - len(there.encoding.missing(video_id)))
        assert all(whole[name] == data for name, data in encoded(bank).items())
    assert counts == [0, 0, 0, 1, SEGMENTS]


@pytest.mark.slow
def test_a_lost_catalog_is_rebuilt_with_what_is_encoded(film: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    with opened(film, bank, LATER, *SHORT) as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
    for path in bank.glob("catalog.sqlite*"):
        path.unlink()
    with opened(film, bank, *SHORT) as (qa, source):
        calls = towers(qa)
        assert qa.bank.encoding.missing(source.info.video_id) == []
        assert ask(qa, source) == answer and calls == []


@pytest.mark.slow
def test_a_damaged_file_is_named_and_encoded_again(film: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    with opened(film, bank, LATER, *SHORT) as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
        path = sorted(bank.glob("encoded/*/*/*.safetensors"))[2]
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with opened(film, bank, *SHORT) as (qa, source):
        assert [problem.path for problem in qa.bank.check.verify()] == [path]
        with pytest.raises(UserError, match="damaged"):
            ask(qa, source)
        assert [problem.path for problem in qa.bank.check.clear_encoded()] == [path]
        qa.bank.end_writing()
        assert ask(qa, source) == answer and path.read_bytes() == data


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_vl", "internvl"])
def test_other_families(name: str, film: Path, tmp_path: Path) -> None:
    """Temporal patches of two frames in the shape of the film, and single frames."""
    option = {"qwen3_vl": "qwen3_vl_8b", "internvl": "internvl3_8b"}[name]
    options = [
        f"video={film}", f"backbone={option}", f"backbone.path={FAMILIES[name].make()}",
        "backbone.dtype=float32", f"clip.model=local-dir:{toy_clip()}", "segmenter.seconds=2",
        "reader.max_new_tokens=4", BY_CLIP, "prefill.window_frames=16", "text=none",
    ]  # fmt: skip
    with Engine.compose([*options, f"bank={tmp_path / 'full'}"]) as engine:
        engine.add(str(film))
    bank = tmp_path / "bank"
    with Engine.compose([*options, f"bank={bank}", LATER]) as engine:
        engine.add(str(film))
        # no weight was read
        assert engine._parts._backbone is None and engine._parts._shell is not None
        assert not encoded(bank) and engine.find("x", channels=["picture"]).moments
    with Engine.compose([*options, f"bank={bank}"]) as engine:
        engine.ask("What happens?", str(film))
    assert encoded(bank) == segments(tmp_path / "full")


@pytest.mark.slow
def test_several_films_and_several_banks(film: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.mp4"
    write_video(other, 4, 5, paint=scenes)
    roots = [tmp_path / "one", tmp_path / "two"]
    for root, path in zip(roots, (film, other), strict=True):
        with Engine.compose([f"bank={root}", LATER, *toy_parts(), *SHORT]) as engine:
            engine.add(str(path))
    both = [f"bank={roots[0]}", f"also_banks=[{roots[1]}]", *toy_parts(), *SHORT]
    with Engine.compose(both) as engine:
        assert {each.video_id for each in engine.find("x", channels=["picture"]).moments}
        with pytest.raises(UserError, match="bank alone first"):
            engine.ask("What is the code?")
    with Engine.compose([f"bank={roots[0]}", *toy_parts(), *SHORT]) as engine:
        engine.add(str(other))
        answer = engine.ask("What is the code?", [str(film), str(other)])
        assert len(answer.videos) == 2
    with Engine.compose(
        [f"bank={roots[1]}", *toy_parts(), *SHORT, "visual_tokens=at_once"]
    ) as engine:
        engine.add(str(other))
        assert not engine.qa.bank.encoding.missing(engine.videos()[0].info.video_id)
    with Engine.compose(both) as engine:
        assert engine.ask("What is the code?").text == answer.text
