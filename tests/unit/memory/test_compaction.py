"""Old segments in fewer bits: same frames, whole at every moment, whoever reads and whatever ends
the process."""

import functools
import math
import shutil
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from encoders.errors import UserError
from encoders.schema import Segment
from memory.bank import MemoryBank
from memory.encoded.encoded_store import IN_BLOCKS, NAME, ON_DEMAND
from memory.retrieval.kv import KVRetriever
from memory.schema import Question
from memory.storage import crash_points
from memory.storage.retention import Rule
from memory.storage.segments import segment_file
from memory.storage.segments.segment_codec import StorageFormat
from memory.storage.segments.segment_file import LOSSLESS
from tests.support.banks import ordinals
from tests.support.children import compact, receive_all, start
from tests.support.damage import content
from tests.support.pruning import PROVENANCE, opened
from tests.support.records import info, make_video, same, token_queries, write_video

ALL = Rule(before=math.inf)
SMALL = StorageFormat("int4", "int4")
SEGMENTS, FRAMES = 4, 3


@pytest.fixture(scope="module")
def video() -> list[Segment]:
    return make_video("v", SEGMENTS, frames=FRAMES, tokens=[24] * FRAMES, needle=4)


@pytest.fixture
def root(tmp_path: Path, video: list[Segment]) -> Path:
    """A bank of a finished video."""
    with opened(tmp_path / "bank") as bank:
        write_video(bank, video)
        bank.record_video(info("v"), 1.0, finished=True)
    return tmp_path / "bank"


@pytest.fixture(autouse=True)
def no_hook() -> Iterator[None]:
    yield
    crash_points.hook = None


@functools.cache
def small_of(number: int) -> Segment:
    """A segment of the video as the small format reads back."""
    own = make_video("v", SEGMENTS, frames=FRAMES, tokens=[24] * FRAMES, needle=4)[number]
    return SMALL.as_read(own)


def stored(bank: MemoryBank) -> list[Segment]:
    return [bank._store.get("v", number) for number in range(SEGMENTS)]


def check(bank: MemoryBank, video: list[Segment]) -> int:
    """Every segment is as it was written, or as the small format reads back. How many are small."""
    small = 0
    for got, own in zip(stored(bank), video, strict=True):
        assert got.times.tolist() == own.times.tolist()
        is_small = not same(got.tokens, own.tokens)
        expected = small_of(own.number) if is_small else own
        assert same(got.tokens, expected.tokens) and same(got.kv, expected.kv)
        small += is_small
    return small


def test_old_segments_take_fewer_bytes_and_still_answer(root: Path, video: list[Segment]) -> None:
    retriever = KVRetriever(queries=token_queries)
    question = Question("needle", "v")
    with opened(root, retriever) as bank:
        before = bank.recall(question, read_tokens=72)
        assert ordinals(before)[0] == 4
        (done,) = bank.compaction.run(ALL, SMALL)
        assert (done.segments, done.before) == (SEGMENTS, sum(_sizes(root, bank)[0]))
        assert done.nbytes == bank.catalog.nbytes() == sum(_sizes(root, bank)[1]) < done.before / 2
        after = bank.recall(question, read_tokens=72)  # the same bank, open all the time
        assert ordinals(after) == ordinals(before)
        assert check(bank, video) == SEGMENTS
        assert same(after.runs[0].tokens, SMALL.as_read(video[1]).tokens.frames(1, 2))
        assert bank.check.verify() == []
        assert bank.compaction.run(ALL, SMALL) == []  # nothing is rewritten twice
        head = segment_file.read_head(bank._store.path("v", 0))
        assert head.replaces == segment_file.seal(segment_file.pack(video[0]))
    with opened(root, KVRetriever(queries=token_queries)) as again:
        assert ordinals(again.recall(question, read_tokens=72)) == ordinals(before)


def _sizes(root: Path, bank: MemoryBank) -> tuple[list[int], list[int]]:
    """Of each segment as it was written, and as its file is now."""
    video = make_video("v", SEGMENTS, frames=FRAMES, tokens=[24] * FRAMES, needle=4)
    return [len(segment_file.pack(each)) for each in video], [
        bank._store.path("v", number).stat().st_size for number in range(SEGMENTS)
    ]


def test_the_same_format_rewrites_nothing(root: Path) -> None:
    whole = content(root)
    with opened(root) as bank:
        assert bank.compaction.run(ALL, LOSSLESS) == []
        assert bank.compaction.run(Rule(before=0.0), SMALL) == []  # nothing is that old
        (planned,) = bank.compaction.run(ALL, SMALL, dry_run=True)
        assert planned.segments == SEGMENTS
        with pytest.raises(UserError, match="older_than="):
            bank.compaction.run(Rule(), SMALL)
    segments = {name: data for name, data in whole.items() if name.startswith("segments/")}
    assert segments.items() <= content(root).items()


@pytest.mark.parametrize("how", [ON_DEMAND, IN_BLOCKS])
def test_a_bank_that_encodes_on_demand_is_refused(
    tmp_path: Path, video: list[Segment], how: str
) -> None:
    """What it has encoded names the bytes of its segments, and would have to be encoded again."""
    root = tmp_path / "bank"
    with opened(root, provenance={**PROVENANCE, NAME: how}) as bank:
        write_video(bank, video)
        bank.record_video(info("v"), 1.0, finished=True)
        whole = content(root)
        for dry_run in (True, False):
            with pytest.raises(UserError, match=f"bank {root} encodes on demand, .*; compact a"):
                bank.compaction.run(ALL, SMALL, dry_run=dry_run)
        assert content(root) == whole


def test_what_an_encoder_goes_on_with_stays(tmp_path: Path, video: list[Segment]) -> None:
    """The window of this bank has six frames: two segments of three."""
    with opened(tmp_path / "bank") as bank:
        bank.record_video(info("v"), 1.0, finished=False)
        for segment in video:
            bank.write(segment)
        (done,) = bank.compaction.run(ALL, SMALL)
        assert done.segments == SEGMENTS - 2
        for number in (2, 3):
            assert same(bank._store.get("v", number).kv, video[number].kv)


def test_readers_see_whole_segments_at_every_step(root: Path, video: list[Segment]) -> None:
    """Another process is reading, with rows that it read before and without."""
    small: list[int] = []
    with opened(root) as reader, opened(root) as bank:
        crash_points.hook = lambda name: small.append(check(reader, video))
        bank.compaction.run(ALL, SMALL)
        assert small == sorted(small) and {0, SEGMENTS} == set(small) and len(small) > 15


def test_a_refused_step_leaves_whole_segments(root: Path, video: list[Segment]) -> None:
    def full(name: str) -> None:
        if name == "replaced rows":
            raise OSError(28, "No space left on device")

    with opened(root) as bank:
        crash_points.hook = full
        with pytest.raises(UserError, match="no space left"):
            bank.compaction.run(ALL, SMALL)
        crash_points.hook = None
        assert check(bank, video) == 0
    with opened(root) as again:
        assert again.check.verify_catalog() == []
        assert {each.kind for each in again.check.verify()} == {"orphan"}
        assert again.compaction.run(ALL, SMALL)
        assert again.check.verify() == [] and check(again, video) == SEGMENTS


@pytest.mark.slow
def test_killed_at_every_step(root: Path, video: list[Segment], tmp_path: Path) -> None:
    """kill -9 at each step in turn, always from the whole bank; then the command again."""
    whole = tmp_path / "whole"
    shutil.copytree(root, whole)
    process, told = start(compact, whole, ALL, SMALL, 0)
    steps = receive_all(told)
    process.join()
    assert process.exitcode == 0 and {"replaced rows", "replaced rows commit", "replaced"} < {
        *steps
    }
    expected = content(whole)
    for die_at in count(1):
        killed = tmp_path / f"killed-{die_at}"
        shutil.copytree(root, killed)
        process, told = start(compact, killed, ALL, SMALL, die_at)
        receive_all(told)
        process.join()
        if process.exitcode == 0:
            assert die_at == len(steps) + 1
            break
        assert process.exitcode == -signal.SIGKILL
        with opened(killed) as bank:
            assert [each for each in bank.check.verify() if not each.harmless] == []
            check(bank, video)
            bank.compaction.run(ALL, SMALL)
            assert bank.check.verify() == [] and check(bank, video) == SEGMENTS
        names = {name for name in expected if name.startswith("segments/")}
        assert {name: content(killed)[name] for name in names} == {
            name: expected[name] for name in names
        }
        shutil.rmtree(killed)


def test_a_writer_goes_on_between_two_segments(tmp_path: Path) -> None:
    """Segments are added and pruned while others are rewritten; nothing is lost or comes back."""
    film = make_video("v", 6, frames=FRAMES, tokens=[24] * FRAMES)
    with opened(tmp_path / "bank") as bank:
        bank.record_video(info("v"), 1.0, finished=False)
        for segment in film[:4]:
            bank.write(segment)
        left = iter(film[4:])

        def is_stopped() -> bool:
            for segment in left:
                bank.write(segment)
                bank.prune(Rule("v", max_bytes=4 * bank.catalog.segments("v")[0].nbytes))
                break
            return False

        bank.compaction.run(ALL, SMALL, is_stopped=is_stopped)
        assert next(left, None) is None
        numbers = [row.number for row in bank.catalog.segments("v")]
        assert numbers == list(range(numbers[0], 6)) and numbers[0] > 0
        for number in numbers:
            own = film[number]
            got = bank._store.get("v", number)
            assert same(got.tokens, own.tokens) or same(got.tokens, SMALL.as_read(own).tokens)
        assert bank.check.verify() == []


def test_it_ends_when_it_is_told_to_and_goes_on_where_it_was(root: Path) -> None:
    with opened(root) as bank:
        answers = iter([False, False, True, True])
        (done,) = bank.compaction.run(ALL, SMALL, is_stopped=lambda: next(answers))
        assert done.segments == 2
        (done,) = bank.compaction.run(ALL, SMALL)
        assert done.segments == SEGMENTS - 2
        assert bank.compaction.run(ALL, SMALL) == []
    with opened(root) as again:
        assert again.compaction.run(ALL, SMALL) == [] and again.check.verify() == []
