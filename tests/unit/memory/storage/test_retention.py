"""Wall-clock times, and deletion on purpose; tests/commands/test_prune.py has the command line.

The beginning of a video goes and does not count as missing afterwards. A crash at any step of it
leaves a whole bank. Encoders are real where bytes are compared; elsewhere records are made up.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encoders.errors import UserError
from encoders.schema import FrameSource, Segment
from memory.bank import MemoryBank
from memory.schema import Question
from memory.storage.retention import Cut, Piece, Rule, plan, window_frames
from memory.storage.segments import segment_file
from memory.store import DiskStore
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.qa import VideoQA
from tests.support.banks import ordinals
from tests.support.children import prune, receive_all, start
from tests.support.console import tree
from tests.support.damage import content, flip, no_catalog, segments
from tests.support.pruning import NOON, OPTIONS, PROVENANCE, SECONDS, WHEN, opened
from tests.support.records import files, info, make_video, same, write_video
from tests.support.retrievers import NEEDLE, built
from tests.support.toys import toy_parts
from tests.support.videos import write_video as write_film


def walled(video_id: str, count: int, began: float = NOON, **options: Any) -> list[Segment]:
    """Segments of four seconds with wall-clock times."""
    return [
        replace(segment, wall=began + segment.start)
        for segment in make_video(video_id, count, **options)
    ]


def finish(bank: MemoryBank, video_id: str) -> None:
    bank.record_video(info(video_id), 1.0, finished=True)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_film(path, SECONDS, 5)
    return path


@contextmanager
def parts(film: Path, bank: Path, *overrides: str) -> Iterator[tuple[VideoQA, FrameSource]]:
    """The parts of `reelbank ingest` and the video's source."""
    config = compose("ingest", [f"video={film}", f"bank={bank}", *toy_parts(), *overrides])
    backbone = build_backbone(config)
    source, qa = build_source(config, backbone), build_qa(config, backbone)
    with qa.bank:
        yield qa, source


# ---- what a rule names


def pieces(*moments: float, nbytes: int = 10) -> list[Piece]:
    return [
        Piece(number, 4.0 * number, 4.0 * number + 4, nbytes, moment)
        for number, moment in enumerate(moments)
    ]


VIDEOS = {"v": pieces(10, 20, 30, 40), "w": pieces(15, 25, nbytes=100)}
TABLE = [
    (Rule(), {}, {}),
    (Rule("v"), {}, {"v": 4}),
    (Rule("v"), {"v": 2}, {"v": 4}),  # all of it, whatever is being written
    (Rule(before=10), {}, {}),
    (Rule(before=26), {}, {"v": 2, "w": 2}),
    (Rule("v", before=26), {}, {"v": 2}),
    (Rule(before=1000), {}, {"v": 4, "w": 2}),
    (Rule(before=1000), {"v": 3, "w": 0}, {"v": 3}),
    (Rule(max_bytes=240), {}, {}),
    (Rule(max_bytes=239), {}, {"v": 1}),
    (Rule(max_bytes=229), {}, {"v": 1, "w": 1}),
    (Rule(max_bytes=130), {}, {"v": 1, "w": 1}),
    (Rule(max_bytes=120), {}, {"v": 2, "w": 1}),
    (Rule(max_bytes=0), {}, {"v": 4, "w": 2}),
    (Rule(max_bytes=0), {"v": 1, "w": 1}, {"v": 1, "w": 1}),
    (Rule("v", max_bytes=215), {}, {"v": 3}),  # the bank's files, of which only this video's may go
    (Rule("v", max_bytes=50), {}, {"v": 4}),
    (Rule("v", max_bytes=50, counts_alone=True), {}, {}),
    (Rule("v", max_bytes=25, counts_alone=True), {}, {"v": 2}),
    (Rule(before=21, max_bytes=139), {}, {"v": 2, "w": 1}),
    (Rule(before=21, max_bytes=1000), {}, {"v": 2, "w": 1}),
]


@pytest.mark.parametrize(("rule", "kept", "gone"), TABLE)
def test_what_a_rule_names(rule, kept, gone):
    cuts = plan(rule, VIDEOS, kept)
    assert {cut.video_id: cut.segments for cut in cuts} == gone
    for cut in cuts:
        whole = cut.segments == len(VIDEOS[cut.video_id])
        nbytes = cut.segments * VIDEOS[cut.video_id][0].nbytes
        assert cut == Cut(
            cut.video_id, None if whole else cut.segments, cut.segments, 4.0 * cut.segments, nbytes
        )


def test_words_count_and_go_with_the_last_segment_of_their_video():
    words = {"v": 7, "w": 50}
    assert plan(Rule(max_bytes=297), VIDEOS, {}, words) == []
    assert [(cut.video_id, cut.nbytes) for cut in plan(Rule(max_bytes=296), VIDEOS, {}, words)] == [
        ("v", 10)
    ]
    (cut,) = plan(Rule("w", max_bytes=47), VIDEOS, {}, words)
    assert (cut.first, cut.nbytes) == (None, 250)
    assert [cut.segments for cut in plan(Rule("w", max_bytes=147), VIDEOS, {}, words)] == [2]
    alone = plan(Rule("w", max_bytes=150, counts_alone=True), VIDEOS, {}, words)
    assert [cut.segments for cut in alone] == [1]
    assert plan(Rule("w"), VIDEOS, {}, words)[0].nbytes == 250


def test_a_mended_segment_is_as_old_as_those_around_it():
    assert [cut.first for cut in plan(Rule(before=31), {"v": pieces(10, 99, 30, 40)}, {})] == [3]
    assert plan(Rule(before=9), {"v": pieces(99, 99, 10, 40)}, {}) == []


def test_the_window_is_read_from_the_provenance():
    assert window_frames(PROVENANCE) == 6
    assert window_frames({"prefill": "NoPrefill()"}) == window_frames({}) == 0


# ---- a bank


def test_a_beginning_goes_and_is_not_missing(tmp_path):
    """Questions work on the rest: in this bank object, in one that was open, and after the catalog
    was lost.
    """
    video = walled("v", 6, needle=9, tokens=[2] * 4)
    rule = Rule(before=NOON + 16)  # segment 3 is over at that very moment
    with opened(tmp_path, built("fused")) as bank, opened(tmp_path, built("fused")) as other:
        write_video(bank, video)
        write_video(bank, walled("w", 2, NOON + 100))
        finish(bank, "v")
        for each in (bank, other):
            assert (
                9 in ordinals(each.recall(NEEDLE, read_tokens=8))
                and each.catalog.video("v").pruned is None
            )
        before = tree(tmp_path)
        told = bank.prune(rule, dry_run=True)
        assert tree(tmp_path) == before
        assert told == [
            Cut("v", 3, 3, 12.0, sum(row.nbytes for row in bank.catalog.segments("v")[:3]))
        ]
        revision = bank._store.database.revision()
        assert bank.prune(rule) == told and bank._store.database.revision() > revision
        assert (
            bank.check.verify() == []
            and bank.catalog.gaps("v") == []
            and bank.catalog.next("v") == (6, 24.0)
        )
        assert [path.name for path in sorted((tmp_path / "segments/v").iterdir())] == [
            *(f"{number:06d}.safetensors" for number in (3, 4, 5)),
            "video.json",
        ]
        for each in (bank, other):
            assert [(row.number, row.first) for row in each.catalog.segments("v")] == [
                (3, 0),
                (4, 4),
                (5, 8),
            ]
            evidence = each.recall(NEEDLE, read_tokens=1000)
            assert [(run.segment, run.first) for run in evidence.runs] == [
                (3 + o // 4, o) for o in range(12)
            ]
            assert all(
                same(run.tokens, video[3].tokens.frames(o, o + 1))
                for o, run in enumerate(evidence.runs[:4])
            )
            assert each.recall(Question("needle", "v", 11.0), read_tokens=1000).frame_count == 0
            assert each.recall(Question("needle", "v", 12.0), read_tokens=1000).frame_count == 1
        assert bank.prune(rule) == []
    no_catalog(tmp_path)
    with opened(tmp_path) as bank:
        row = bank.catalog.video("v")
        assert (
            row is not None
            and row.pruned is not None
            and (row.pruned.first, row.pruned.start) == (3, 12.0)
        )
        assert bank.check.verify() == [] and [each.wall for each in bank.catalog.segments("v")] == [
            NOON + 12,
            NOON + 16,
            NOON + 20,
        ]
        finish(bank, "v")
        assert bank.catalog.video("v").pruned == row.pruned and bank.check.verify() == []


def test_the_needle_is_found_after_its_ordinal_has_moved(tmp_path):
    with opened(tmp_path, built("fused")) as bank:
        write_video(bank, walled("v", 6, needle=17, tokens=[2] * 4))
        bank.recall(NEEDLE, read_tokens=8)
        bank.prune(Rule(before=NOON + 9))
        assert 17 - 8 in ordinals(bank.recall(NEEDLE, read_tokens=8))


def test_an_index_never_outlives_its_frames(tmp_path):
    """All of its files; and not one that would fit again by its number of rows."""
    with opened(tmp_path, built("fused")) as bank:
        write_video(bank, walled("v", 4, tokens=[2] * 4))
        bank.recall(NEEDLE, read_tokens=8)
    index = tmp_path / "index"
    assert any(path.name.startswith("v") for path in index.iterdir())
    assert list((index / "v").rglob("*.npy"))
    (index / "v" / "part").write_text("x")
    (index / "vv").mkdir()  # of another video
    with opened(tmp_path, built("fused")) as bank:
        bank.prune(Rule(before=NOON + 5))
        assert [path.name for path in index.iterdir()] == ["vv"]
        bank.write(walled("v", 5, needle=17, tokens=[2] * 4)[4])
        assert 17 - 4 in ordinals(bank.recall(NEEDLE, read_tokens=8))


def test_a_finished_video_goes_whole_and_an_unfinished_one_keeps_its_window(tmp_path):
    with opened(tmp_path) as bank:
        for name in "vw":
            write_video(bank, walled(name, 5))
        finish(bank, "v")
        cuts = bank.prune(Rule(before=NOON + 1000))
        assert [(cut.video_id, cut.first, cut.segments) for cut in cuts] == [
            ("v", None, 5),
            ("w", 3, 3),
        ]
        assert [row.info.video_id for row in bank.catalog.videos()] == [
            "w"
        ] and bank.check.verify() == []
        assert sum(
            len(run.tokens.times) for run in bank.window.segments("w", 6)
        ) >= 6 and bank.window.is_exact("w", 6)
        assert not bank.window.is_exact("w", 9)  # 8 frames are left
        assert [(cut.first, cut.segments) for cut in bank.prune(Rule("w"))] == [(None, 2)]
        assert bank.catalog.videos() == [] and bank.check.verify() == []
    assert list((tmp_path / "segments").iterdir()) == []


def test_age_is_that_of_the_file_where_nobody_knows_better(tmp_path):
    with opened(tmp_path) as bank:
        write_video(bank, make_video("v", 4))
        finish(bank, "v")
        for number, path in enumerate(segments(tmp_path)):
            os.utime(path, (NOON + number, NOON + number))
        assert bank.prune(Rule(before=NOON), dry_run=True) == []
        assert [cut.first for cut in bank.prune(Rule(before=NOON + 1.5), dry_run=True)] == [2]
        segments(tmp_path)[0].unlink()  # who knows: it goes first
        assert [cut.first for cut in bank.prune(Rule(before=NOON - 1))] == [1]
        assert bank.check.verify() == []


def test_what_is_damaged_or_missing_within_what_is_pruned(tmp_path):
    with opened(tmp_path) as bank:
        write_video(bank, walled("v", 8))
        flip(segments(tmp_path)[0])
        bank.discard("v", [2, 3])
        assert [problem.kind for problem in bank.check.verify()] == ["checksum", "gap"]
        bank.prune(Rule(before=NOON + 9))
        assert (
            bank.check.verify() == []
            and bank.catalog.gaps("v") == []
            and bank.catalog.video("v").pruned.first == 4
        )
        # nothing is left: encoding goes on where what was pruned ends
        bank.discard("v", [4, 5, 6, 7])
        assert bank.catalog.next("v") == (4, 16.0)
        bank.write(walled("v", 5)[4])
        assert bank.check.verify() == [] and bank.catalog.segments("v")[0].first == 0


def test_a_segment_that_goes_while_it_is_read_is_told(tmp_path):
    with opened(tmp_path) as bank:
        store = DiskStore(tmp_path)
        write_video(bank, walled("v", 4))
        bank.prune(Rule(before=NOON + 5))
        with pytest.raises(
            UserError, match=r"segment 0 of video v was pruned .* meanwhile; ask again"
        ):
            store.frames("v", 0, 0, 1)
    store.close()


# ---- kill -9

KILL_RULE = Rule(before=NOON + 9)


@pytest.fixture(scope="module")
def to_kill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of which the rule deletes one video whole, of two others the beginning."""
    root = tmp_path_factory.mktemp("kill") / "bank"
    with opened(root, built("clip")) as bank:
        for name, count in (("u", 5), ("v", 2), ("w", 5)):
            write_video(bank, walled(name, count))
            bank.recall(Question("needle", name), read_tokens=100)
            if name != "u":
                finish(bank, name)
    return root


def pruned(root: Path, die_at: int = 0) -> tuple[int, list[str]]:
    process, told = start(prune, root, KILL_RULE, die_at)
    steps = receive_all(told)
    process.join()
    return int(process.exitcode), steps


def check(root: Path, whole: dict[str, bytes]) -> None:
    """The bank opens and verifies clean, apart from files that the next writer deletes. Every
    segment is whole or pruned.
    """
    with opened(root, provenance=None) as bank:
        assert [problem for problem in bank.check.verify() if not problem.harmless] == []
        for video in bank.catalog.videos():
            rows = bank.catalog.segments(video.info.video_id)
            assert bank.catalog.gaps(video.info.video_id) == []
            assert [row.number for row in rows] in ([0, 1, 2, 3, 4], [2, 3, 4], [0, 1])
            assert (video.pruned is not None) == (rows[0].number > 0)
            for row in rows:
                name = f"segments/{row.video_id}/{row.number:06d}.safetensors"
                assert (root / name).read_bytes() == whole[name]
            assert bank.recall(
                Question("needle", video.info.video_id), read_tokens=1000
            ).frame_count == 4 * len(rows)


@pytest.mark.slow
def test_killed_at_every_step_of_a_prune(to_kill, tmp_path):
    kill(to_kill, tmp_path, every=False)


@pytest.mark.slow
def test_killed_at_every_step_of_every_video_of_a_prune(to_kill, tmp_path):
    print(
        f"\n{kill(to_kill, tmp_path, every=True)} kills, one at every step of a prune of three "
        "videos"
    )


def kill(to_kill: Path, tmp_path: Path, every: bool) -> int:
    """The bank is whole at once, also if the catalog is lost, and ends as if nothing had killed it.
    every: also kill at a step that came before for another video.
    """
    whole = files(to_kill)
    shutil.copytree(to_kill, tmp_path / "done")
    code, steps = pruned(tmp_path / "done")
    assert code == 0 and {
        "index",
        "rename",
        "rows",
        "rows commit",
        "file",
        "video dropped",
        "folder renamed",
    } < set(steps)
    check(tmp_path / "done", whole)
    done = content(tmp_path / "done")
    counts = [at + 1 for at, step in enumerate(steps) if every or step not in steps[:at]]
    for count in counts:
        bank, lost = tmp_path / "bank", tmp_path / "lost"
        for path in (bank, lost):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(to_kill, bank)
        assert pruned(bank, count)[0] == -signal.SIGKILL, steps[count - 1]
        shutil.copytree(bank, lost)
        check(bank, whole)
        no_catalog(lost)
        check(lost, whole)
        with opened(lost, provenance=None) as opened_again:
            opened_again.begin_writing()  # cleans up
            assert opened_again.check.verify() == [], steps[count - 1]
        with opened(bank, provenance=None) as opened_again:
            opened_again.begin_writing()
            assert opened_again.check.verify() == [], steps[count - 1]
            opened_again.prune(KILL_RULE)
            assert opened_again.check.verify() == []
        assert content(bank) == done, (count, steps[count - 1])
    return len(counts)


# ---- encoders, and times on the wall


SCENES = ("segmenter=scene", "segmenter.memory=6", "segmenter.warm_up=2", "segmenter.max_seconds=3")
WAYS = {
    "window": OPTIONS,
    "scene": (*SCENES, "prefill.window_frames=5"),
    "int8": (*OPTIONS, "kv_dtype=int8"),
    "tokens": ("segmenter.seconds=2", "prefill=none", "retriever=clip"),
}


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[] if way == "int8" else [pytest.mark.slow]) for way in WAYS]
)
def test_encoding_goes_on_with_the_same_bytes_behind_what_was_pruned(film, tmp_path, way):
    """And with the wall-clock of the session that was stopped, though nobody says it again."""
    with parts(film, tmp_path / "whole", *WAYS[way], f"began={WHEN}") as (qa, source):
        qa.ingest(source)
        video_id = source.info.video_id
        rows = qa.bank.catalog.segments(video_id)
        assert len(rows) > 4 and [row.wall for row in rows] == [NOON + row.start for row in rows]
    with parts(film, tmp_path / "bank", *WAYS[way], f"began={WHEN}") as (qa, source):
        qa.ingest(source, until=len(rows) - 2)
        (cut,) = qa.bank.prune(Rule(before=NOON + 1e6))
        assert cut.first is not None and 0 < cut.first < len(rows) - 1
    with parts(film, tmp_path / "bank", *WAYS[way]) as (qa, source):
        done = qa.ingest(source)
        assert (done.new_segments, done.warning) == (1, "") and qa.bank.check.verify() == []
        assert qa.ingest(source).new_segments == 0
    whole, left = files(tmp_path / "whole"), files(tmp_path / "bank")
    assert list(left) == list(whole)[cut.first :] and all(
        left[name] == whole[name] for name in left
    )


@pytest.mark.slow  # seconds of CPU
def test_sessions_with_times_of_their_own(film, tmp_path):
    """A video stops and continues hours later, in a bank with another video. Both kinds of time
    find the right segments. Repaired segments keep their times, and so does a rebuilt catalog.
    """
    bank, later = tmp_path / "bank", "2026-11-18T20:26:40+01:00"  # eight hours
    with parts(film, bank, *OPTIONS, f"began={WHEN}") as (qa, source):
        qa.ingest(source, until=3)
        write_video(qa.bank, make_video("other", 3))
    with parts(film, bank, *OPTIONS, f"began={later}") as (qa, source):
        qa.ingest(source)
        video_id = source.info.video_id
    walls = [NOON + start for start in (0, 2, 4, 6)] + [
        NOON + 8 * 3600 + start for start in (8, 10, 12, 14)
    ]
    whole = files(bank)
    for lose in (False, True):
        if lose:
            no_catalog(bank)
        with opened(bank, provenance=None) as held:
            assert [row.wall for row in held.catalog.segments(video_id)] == walls
            assert all(
                held.catalog.read_segment(video_id, number).wall == wall
                for number, wall in enumerate(walls)
            )
            assert [row.wall for row in held.catalog.segments("other")] == [None] * 3

            def numbers(held: MemoryBank = held, **times: Any) -> list[tuple[str, int]]:
                return [(row.video_id[:5], row.number) for row in held.catalog.overlapping(**times)]

            mine = video_id[:5]
            assert sorted(numbers(start=3.0, end=5.0)) == sorted(
                [(mine, 1), (mine, 2), ("other", 0), ("other", 1)]
            )
            assert numbers(since=NOON + 3, until=NOON + 5) == [(mine, 1), (mine, 2)]
            assert numbers(since=NOON + 7) == [
                (mine, 3),
                *((mine, number) for number in (4, 5, 6, 7)),
            ]
            assert numbers(since=NOON + 7, until=NOON + 8 * 3600 + 9) == [(mine, 3), (mine, 4)]
            assert numbers(since=NOON + 8, until=NOON + 8 * 3600 + 8) == []
            assert numbers(start=0.0, end=9.0, since=NOON + 9) == [(mine, 4)]
            if not lose:
                held.discard(video_id, [0, 2, 5, 7])
        with parts(film, bank, *OPTIONS) as (qa, source):
            assert qa.ingest(source).new_segments == (0 if lose else 4)
        assert files(bank) == whole


def test_gaps_behind_what_was_pruned_are_filled_and_told(film, tmp_path):
    """Segments begin where they did and have their frames. The window that one was encoded behind
    is gone, and the next ones have that segment in theirs. Their bytes can differ, and the report
    says so.
    """
    with parts(film, tmp_path / "bank", *OPTIONS, f"began={WHEN}") as (qa, source):
        qa.ingest(source)
        video_id = source.info.video_id
        rows = qa.bank.catalog.segments(video_id)
        qa.bank.prune(Rule(before=NOON + 7))
        qa.bank.discard(video_id, [3, 5])
        done = qa.ingest(source)
        told = "2 segments from number 3 on were encoded behind what the bank still has"
        assert done.new_segments == 2 and done.warning.startswith(told)
        again = qa.bank.catalog.segments(video_id)
        assert [row.number for row in again] == [3, 4, 5, 6, 7] and qa.bank.check.verify() == []
        for row in again:
            before = rows[row.number]
            assert (row.start, row.end, row.wall) == (before.start, before.end, before.wall)
            assert row.times.tolist() == before.times.tolist()
            assert (row.checksum == before.checksum) == (row.number not in (3, 5))


def test_segments_without_a_wall_clock_stay_as_they_are(tmp_path):
    segment = make_video("v", 1)[0]
    bare, timed = segment_file.pack(segment), segment_file.pack(replace(segment, wall=NOON))
    assert b"wall" not in bare and b"wall" in timed
    (tmp_path / "a").write_bytes(timed)
    assert (
        segment_file.read_head(tmp_path / "a").wall
        == segment_file.read(tmp_path / "a").wall
        == NOON
    )
    at = timed.index(b"1795001200")
    (tmp_path / "a").write_bytes(timed[: at + 3] + b"0" + timed[at + 4 :])
    with pytest.raises(segment_file.DamagedError, match="header is not the one"):
        segment_file.read(tmp_path / "a", segment_file.seal(timed))
