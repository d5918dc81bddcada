"""The engine: each part is built when it is needed and kept; threads and processes beside it."""

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline.commands import ask, find
from pipeline.config.compose import compose
from pipeline.engine import Engine
from pipeline.runtime.cancel import Cancelled
from tests.support.talks import WORDS
from tests.support.toys import toy_parts
from tests.support.videos import write_video

NAMES = tuple(WORDS.removeprefix("channels=[").removesuffix("]").split(","))


def engine_on(bank: Path, *overrides: str) -> Engine:
    return Engine.compose([f"bank={bank}", *toy_parts(), *overrides])


@contextmanager
def at_each_segment(call: Any) -> Iterator[Any]:
    yield call


def test_parts_are_built_once_and_a_search_loads_no_backbone(
    bank: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = LlavaOneVision.__init__

    @functools.wraps(load)
    def count(self: LlavaOneVision, path: str, **options: Any) -> None:
        loads.append(path)
        load(self, path, **options)

    monkeypatch.setattr(LlavaOneVision, "__init__", count)
    with engine_on(bank) as engine:
        for video in ("", str(film), engine.video(str(film)).info.video_id):
            result = engine.find("harbour", video, channels=NAMES)
            assert [moment.start for moment in result.moments] == [2.0]
            assert engine.find("harbour", video, encode=bool(video)).moments
        assert loads == []
        answers = {engine.ask("What is the code?", str(film)).text for _ in range(3)}
        assert len(answers) == 1 and len(loads) == 1
        assert engine.find("harbour", channels=["kv"]).moments and len(loads) == 1


def test_a_film_that_the_bank_lacks_is_encoded_before_it_is_searched(tmp_path: Path) -> None:
    film, root = tmp_path / "new.mp4", tmp_path / "bank"
    write_video(film, 12, 5)
    with engine_on(root) as engine:
        assert engine.videos() == [] and not root.exists()
        with pytest.raises(UserError, match="There is no file"):
            engine.find("x", str(tmp_path / "typo.mp4"), encode=True)
        with pytest.raises(UserError, match="there is no bank"):
            engine.find("x", str(film))
        seconds: list[float] = []
        result = engine.find(
            "x",
            str(film),
            encode=True,
            show_progress=lambda info: at_each_segment(lambda at, nbytes: seconds.append(at)),
        )
        assert seconds[-1] == 12.0 and result.moments
        film.unlink()
        # by its former path, and by its id
        row = engine.video(str(film))
        assert engine.ask("What?", str(film)).video_id == row.info.video_id
        assert engine.ask("What?", row.info.video_id).frames_read == 12


def test_a_film_that_has_moved_is_recorded_where_it_is(tmp_path: Path) -> None:
    film, root = tmp_path / "film.mp4", tmp_path / "bank"
    write_video(film, 3, 5)
    with engine_on(root) as engine:
        engine.add(str(film))
        copy = shutil.copy(film, str(tmp_path / "copy.mp4"))
        engine.add(copy)  # the file that is known is still there
        assert [row.info.path for row in engine.videos()] == [str(film)]
        film.unlink()
        with MemoryBank.open(root, None, UniformRetriever(), recent_frames=0) as other:
            other.begin_writing()
            assert engine.ask("What?", copy).frames_read == 3  # not recorded, and no error
        assert engine.videos()[0].info.path == str(film)
        assert engine.add(copy).frames == 3
        assert [row.info.path for row in engine.videos()] == [copy] and engine.videos()[0].finished
        moved = tmp_path / "moved.mp4"
        Path(copy).rename(moved)
        write_video(film, 4, 5)  # another film under the first name
        Path(copy).write_bytes(film.read_bytes())
        engine.ask("What?", str(moved))
        assert [row.info.path for row in engine.videos()] == [str(moved)]


def test_another_process_may_write_whenever_nothing_is_encoded(tmp_path: Path) -> None:
    film, root = tmp_path / "new.mp4", tmp_path / "bank"
    write_video(film, 12, 5)

    def write() -> None:
        other = MemoryBank.open(root, None, UniformRetriever(), recent_frames=0)
        with other:
            other.begin_writing()

    with engine_on(root) as engine:
        refused: list[str] = []

        def try_to_write(at: float, nbytes: int) -> None:
            try:
                write()
            except UserError as error:
                refused.append(str(error))

        engine.add(str(film), lambda info: at_each_segment(try_to_write))
        assert refused and "is being written by another process" in refused[0]
        write()
        assert engine.ask("What?", str(film)).frames_read == 12


@pytest.mark.slow
def test_threads_ask_and_find_while_one_encodes(bank: Path, film: Path, tmp_path: Path) -> None:
    root, new = tmp_path / "bank", tmp_path / "new.mp4"
    shutil.copytree(bank, root)
    write_video(new, 24, 5)
    with engine_on(root) as engine:
        expected = engine.ask("What is the code?", str(film)).text
        during: list[bool] = []
        errors: list[BaseException] = []
        ends = threading.Event()

        def ask_and_find() -> None:
            try:
                while not ends.is_set():
                    assert engine.ask("What is the code?", video_id).text == expected
                    assert engine.find("harbour", video_id, channels=NAMES).moments
                    during.append(True)
            except BaseException as error:
                errors.append(error)

        video_id = engine.video(str(film)).info.video_id
        threads = [threading.Thread(target=ask_and_find) for _ in range(2)]

        def wait_for_answers(at: float, nbytes: int) -> None:
            before = len(during)
            for _ in range(2000):
                if len(during) > before or errors:
                    return
                threading.Event().wait(0.01)

        def show(info: Any) -> Any:
            for thread in threads:
                thread.start()
            return at_each_segment(wait_for_answers)

        report = engine.add(str(new), show)
        ends.set()
        for thread in threads:
            thread.join()
        assert errors == [] and len(during) >= report.new_segments == 3


def test_a_cancelled_encoding_goes_on_where_it_stopped(tmp_path: Path) -> None:
    film, root = tmp_path / "new.mp4", tmp_path / "bank"
    write_video(film, 24, 5)
    cancelled = threading.Event()
    with engine_on(root) as engine:
        with pytest.raises(Cancelled):
            engine.add(
                str(film),
                lambda info: at_each_segment(lambda at, nbytes: cancelled.set()),
                cancelled=cancelled,
            )
        with pytest.raises(Cancelled):
            engine.ask("What?", str(film), cancelled=cancelled)
        report = engine.add(str(film))
        assert 0 < report.new_segments < report.segments == 3


def test_overrides_go_to_the_task_that_has_the_key(tmp_path: Path) -> None:
    options = ["retriever=clip", "late_lines=0", "channels=[picture]", "+prefill.dtype=float32"]
    options[3] = options[3].lstrip("+")
    engine = Engine.compose([f"bank={tmp_path}/a, b", "fps=2", *options])
    assert engine.bank == engine.search_settings.bank == f"{tmp_path}/a, b"
    assert engine.settings.fps == engine.search_settings.fps == 2
    assert engine.settings.retriever["_target_"].endswith("ClipRetriever")
    assert engine.settings.prefill["dtype"] == "float32"
    assert engine.search_settings.channels == ["picture"]
    with pytest.raises(UserError, match="nonsense= is no setting of `reelbank ask`"):
        Engine.compose(["nonsense=1"])


def test_the_settings_of_a_command_give_those_of_the_others(tmp_path: Path) -> None:
    finding = compose("find", ["query=x", f"bank={tmp_path}", "fps=2", "text=ocr", *toy_parts()])
    encoding = Engine.of(finding).settings
    assert (encoding.bank, encoding.fps, list(encoding.text)) == (str(tmp_path), 2, ["ocr"])
    assert encoding.backbone == finding.backbone and encoding.clip == finding.clip
    again = Engine.of(encoding).search_settings
    assert (again.bank, again.fps, again.backbone) == (str(tmp_path), 2, finding.backbone)


def test_commands_print_the_same_with_an_engine_that_is_kept(
    bank: Path, film: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = [f"bank={bank}", f"video={film}", *toy_parts(), "format=json"]
    finding = compose("find", [*common, "query=harbour"])
    asking = compose("ask", [*common, "question=What is the code?"])
    with Engine.of(asking) as engine:
        outputs = []
        for kept in (None, engine, engine):
            find.run(finding, kept)
            moments = capfd.readouterr()
            ask.run(asking, kept)
            outputs.append((moments, _without_seconds(capfd.readouterr().out)))
    assert outputs[0] == outputs[1] == outputs[2]


def _without_seconds(text: str) -> str:
    answer = json.loads(text)
    for part in (answer, *answer["trace"]["calls"]):
        del part["seconds"]
    return json.dumps(answer)


def test_a_closed_engine_refuses(bank: Path, film: Path) -> None:
    engine = engine_on(bank)
    assert engine.find("harbour", channels=NAMES).moments
    engine.close()
    engine.close()
    for call in (
        lambda: engine.find("harbour", channels=NAMES),
        lambda: engine.ask("What?", str(film)),
        lambda: engine.add(str(film)),
        engine.videos,
    ):
        with pytest.raises(UserError, match="was closed"):
            call()
