"""Segments by video time and by wall-clock time.

The query equals a scan of every row, uses an index, and reads nothing else. Catalogs from before
these times still work.
"""

import random
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from memory.bank import MemoryBank
from memory.rebuild import damage_of
from memory.retrieval.uniform import UniformRetriever
from memory.storage.catalog import Catalog, Pruned, SegmentRow, VideoRow, overviews
from memory.storage.catalog_writer import CatalogWriter
from memory.storage.database import CatalogDamagedError, Database, row_sum
from tests.support.records import info, make_segment, make_video, write_video

NOON = 1_795_000_000.25
# as the tables were before wall-clock times and prune
OLD = """
CREATE TABLE videos (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, duration REAL NOT NULL, decoder TEXT NOT NULL,
    broke_at REAL,
    note TEXT NOT NULL, interval REAL NOT NULL, finished INTEGER NOT NULL, sum TEXT NOT NULL
);
CREATE TABLE segments (
    video_id TEXT NOT NULL, number INTEGER NOT NULL, start REAL NOT NULL, "end" REAL NOT NULL,
    frames INTEGER NOT NULL, first_ordinal INTEGER NOT NULL, bytes INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    times BLOB NOT NULL, tokens BLOB NOT NULL, sum TEXT NOT NULL, PRIMARY KEY (video_id, number)
);
"""


def row(video_id: str, number: int, start: float, end: float, wall: float | None) -> SegmentRow:
    times = np.linspace(start, end, 4, endpoint=False)
    return SegmentRow(
        video_id, number, start, end, 4, 4 * number, 1000, "seal", times, np.ones(4, np.int32), wall
    )


def made_up(seed: int) -> list[SegmentRow]:
    """Videos of uneven segments. Some have no wall-clock time, and some have two sessions with
    hours between them.
    """
    chance = random.Random(seed)
    rows = []
    for video_id in "abc":
        at, began = 0.0, NOON + chance.choice([0, 30, 5000])
        for number in range(chance.randint(0, 30)):
            end = at + chance.choice([0.5, 2.0, 8.0, 40.0])
            began += chance.choice([0] * 20 + [7200])
            rows.append(row(video_id, number, at, end, None if video_id == "c" else began + at))
            at = end
    return rows


def filled(path: Path, rows: list[SegmentRow]) -> Catalog:
    database = Database(path)
    CatalogWriter(database).add_all(
        [VideoRow(info(video_id), 1.0, True) for video_id in "abc"], rows
    )
    return Catalog(database)


@pytest.mark.parametrize("seed", range(5))
def test_a_range_of_time_is_what_a_look_at_every_row_finds(tmp_path, seed):
    rows, chance = made_up(seed), random.Random(seed)
    catalog = filled(tmp_path / "c.sqlite", rows)
    edges = [row.start for row in rows] + [row.end for row in rows] + [-5.0, 13.3, 1e6]
    walls = [row.wall for row in rows if row.wall is not None] + [NOON - 9, NOON + 7222.2]
    found = 0
    for _ in range(200):
        start, end = (chance.choice([None, *edges]) for _ in range(2))
        since, until = (chance.choice([None, None, *walls]) for _ in range(2))
        video_id = chance.choice([None, "a", "b", "c", "d"])
        expected = [
            (each.video_id, each.number)
            for each in rows
            if video_id in (None, each.video_id)
            and (start is None or each.end > start)
            and (end is None or each.start < end)
            and (
                since is None
                or (each.wall is not None and each.wall + (each.end - each.start) > since)
            )
            and (until is None or (each.wall is not None and each.wall < until))
        ]
        got = catalog.overlapping(video_id, start=start, end=end, since=since, until=until)
        assert [(each.video_id, each.number) for each in got] == expected
        found += len(expected)
    assert found > 30
    catalog._database.close()


@pytest.mark.parametrize("video_id", [None, "a"])
@pytest.mark.parametrize(
    ("times", "index"),
    [
        ({"start": 10.0, "end": 60.0}, "segments_by_start"),
        ({"since": NOON, "until": NOON + 60}, "segments_by_wall"),
    ],
)
def test_a_range_of_time_takes_an_index(tmp_path, video_id, times, index):
    catalog = filled(tmp_path / "c.sqlite", made_up(0))
    query, *values = catalog._overlapping(
        video_id, *(times.get(key) for key in ("start", "end", "since", "until"))
    )
    plan = [
        text for *_, text in catalog._database._db.execute(f"EXPLAIN QUERY PLAN {query}", values)
    ]
    column = index.rpartition("_")[2]
    assert any(
        f"USING INDEX {index} (video_id=? AND {column}>? AND {column}<?)" in text for text in plan
    ), plan
    assert not any("SCAN segments" in text for text in plan), plan
    query = 'SELECT "end" - start FROM segments ORDER BY "end" - start DESC LIMIT 1'
    plan = [text for *_, text in catalog._database._db.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert (
        plan == ["SCAN segments USING COVERING INDEX segments_by_length"]
        or "segments_by_length" in plan[0]
    )
    assert not any("TEMP B-TREE" in text for text in plan), plan
    catalog._database.close()


@pytest.mark.slow  # seconds of CPU
def test_a_hundred_thousand_segments(tmp_path):
    """A search for ten minutes in nine days of video takes far less time than reading all rows."""
    catalog = Catalog(Database(tmp_path / "c.sqlite"))
    count = 100_000
    rows = (
        row("v", number, 8.0 * number, 8.0 * number + 8, NOON + 8 * number)
        for number in range(count)
    )
    CatalogWriter(catalog._database).add_all([VideoRow(info("v"), 1.0, True)], rows)

    def seconds(**times: float) -> float:
        begun = time.perf_counter()
        assert (
            len(catalog.overlapping("v", **times)) == 75 and len(catalog.overlapping(**times)) == 75
        )
        return time.perf_counter() - begun

    some = [seconds(start=8.0 * at, end=8.0 * at + 600) for at in range(0, 99_000, 9000)]
    some += [
        seconds(since=NOON + 8.0 * at, until=NOON + 8.0 * at + 600) for at in range(0, 99_000, 9000)
    ]
    begun = time.perf_counter()
    assert len(catalog.segments("v")) == count
    everything = time.perf_counter() - begun
    print(
        f"\ntwice ten minutes in {count} segments: {1e3 * np.median(some):.1f} ms; all of them: "
        f"{1e3 * everything:.0f} ms"
    )
    assert np.median(some) < everything / 20
    catalog._database.close()


def test_wall_clock_and_prune_are_in_the_sums_of_rows(tmp_path):
    for change in (
        "segments SET wall = wall + 1",
        "videos SET pruned_first = 3",
        "videos SET pruned_first = NULL",
    ):
        path = tmp_path / f"{len(change)}.sqlite"
        catalog = filled(
            path,
            [
                row("a", number, 8.0 * number, 8.0 * number + 8, NOON + 8 * number)
                for number in range(4)
            ],
        )
        with catalog._database.transaction() as db:
            CatalogWriter.forget_before(db, VideoRow(info("a"), 1.0, True, Pruned(2, 16.0)))
        assert damage_of(catalog._database) == [] and catalog.gaps("a") == []
        db = sqlite3.connect(path)
        db.execute(f"UPDATE {change}")
        db.commit()
        db.close()
        assert "not as it was written" in damage_of(catalog._database)[0], change
        with pytest.raises(CatalogDamagedError):
            catalog.overlapping("a")
            catalog.gaps("a")
        catalog._database.close()


def test_an_older_catalog_goes_on(tmp_path, monkeypatch):
    """Rows without what came later: the same bank, and its sums hold."""
    with MemoryBank.open(tmp_path, {"model": "m"}, UniformRetriever(), recent_frames=1) as bank:
        write_video(bank, make_video("v", 3))
    path = tmp_path / "catalog.sqlite"
    new = sqlite3.connect(path)
    old = sqlite3.connect(tmp_path / "old.sqlite")
    old.executescript(OLD)
    for table, columns in (("videos", 9), ("segments", 11)):
        for values in new.execute(f"SELECT * FROM {table}"):
            # what came later: nothing, or the checksum of `finished`
            assert set(values[columns:]) <= {None, row_sum("v", 0)} and len(values) > columns
            old.execute(
                f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})", values[:columns]
            )
    old.commit()
    old.close()
    new.close()
    path.unlink()
    (tmp_path / "old.sqlite").rename(path)

    with monkeypatch.context() as patch:  # as on a read-only disk, where no column can be added
        patch.setattr("os.access", lambda *_: False)
        before = path.read_bytes()
        catalog = Catalog(Database(path))
        assert [each.wall for each in catalog.segments("v")] == [None] * 3 and catalog.gaps(
            "v"
        ) == []
        assert (
            len(catalog.overlapping(start=0, end=5)) == 2 and catalog.overlapping(since=NOON) == []
        )
        catalog._database.close()
        assert path.read_bytes() == before
    with MemoryBank.open(tmp_path, None, UniformRetriever(), recent_frames=1) as bank:
        bank.write(make_segment("v", 3))
        assert (
            bank.check.verify() == []
            and [each.wall for each in bank.catalog.segments("v")] == [None] * 4
        )


def test_an_overview_of_all_videos_is_what_their_rows_say(tmp_path):
    """Some miss segments, one lost its beginning on purpose, one has none yet."""
    rows = [each for each in made_up(1) if each.video_id != "a" or each.number != 2]
    rows += [row("d", 3, 24.0, 32.0, None), row("d", 4, 32.0, 40.0, None)]
    catalog = filled(tmp_path / "c.sqlite", rows)
    writer = CatalogWriter(catalog._database)
    writer.put_video(VideoRow(info("d"), 1.0, True, Pruned(3, 24.0)))
    writer.put_video(VideoRow(info("e"), 1.0, False))
    every = overviews(catalog)
    assert list(every) == list("abcde")
    assert [every[each].is_complete for each in "abcde"] == [False, True, True, True, False]
    for video_id, overview in every.items():
        sessions = catalog.sessions(video_id)
        assert overview.row == catalog.video(video_id)
        assert overview.end == catalog.next(video_id)[1]
        assert overview.is_complete == (overview.row.finished and not catalog.gaps(video_id))
        assert overview.began == (sessions[0].began if sessions else None)
        assert overviews(catalog, video_id) == {video_id: overview}
    assert overviews(catalog, "nobody") == {} and every["a"].began is not None
