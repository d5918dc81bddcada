"""Words and pictures belong to the bytes that a bank was made of, not to a path.

Real files and commands; made-up records of pictures.
"""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from PIL import Image

import reelbank
from encoders.schema import join_frames
from encoders.sources.container import fingerprint
from encoders.sources.file import FileSource
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from tests.support.console import sentence
from tests.support.records import make_segment
from tests.support.talks import WORDS
from tests.support.videos import numbered, read_number, write_video

SUBTITLE = "1\n00:00:01,000 --> 00:00:02,000\n{}\n"


def recording(path: Path, words: str, first: int) -> Path:
    """A film of 3 s whose pictures count from `first`, with one subtitle beside it."""
    path.parent.mkdir(exist_ok=True)
    write_video(path, 3, 5, paint=lambda number, _: numbered(first + number, (64, 64)))
    path.with_suffix(".srt").write_text(SUBTITLE.format(words))
    return path


def ingest(bank: Path, video: Path | str, *, keep: str = "none") -> None:
    """What `reelbank ingest` stores of a film."""
    source = FileSource(video, width=64, height=64, keep=keep)
    info, frames = source.info, join_frames(list(source.frames()))
    with MemoryBank.open(bank, {"model": "m"}, UniformRetriever(), recent_frames=0) as held:
        held.record_video(info, 1.0, finished=False)
        segment = make_segment(info.video_id, frames=3)
        held.write(replace(segment, thumbnails=frames.thumbnails))
        held.record_video(info, 1.0, finished=True)


def found(run, bank: Path, query: str, *arguments: str) -> list[dict]:
    code, out, _ = run("find", f"bank={bank}", f"query={query}", WORDS, "format=json", *arguments)
    assert code == 0
    return json.loads(out)["moments"]


def test_another_folders_file_of_the_same_name_lends_no_words(run, tmp_path, monkeypatch) -> None:
    """Cameras number their files alike in every folder."""
    first = recording(tmp_path / "card1" / "clip.mp4", "a harbour", 0)
    recording(tmp_path / "card2" / "clip.mp4", "a zebra", 500)
    bank = tmp_path / "bank"
    monkeypatch.chdir(first.parent)
    ingest(bank, "clip.mp4")
    monkeypatch.chdir(tmp_path / "card2")
    code, out, _ = run("ingest", f"bank={bank}", "text=subtitles")
    assert code == 0 and "1 lines by subtitles" in out
    assert found(run, bank, "zebra") == []
    (moment,) = found(run, bank, "harbour", "thumbnails=true")
    assert moment["path"] == str(first) and moment["thumbnail"]
    code, out, err = run("bank", "action=ls", f"bank={bank}", f"video={first}")
    assert (code, err) == (0, "") and str(first) in out
    code, _, err = run("bank", "action=ls", f"bank={bank}", "video=clip.mp4")
    assert code == 2
    sentence(err, "video=clip.mp4 is not in bank")


def test_a_relative_path_of_an_old_bank_counts_only_for_the_same_bytes(
    run, tmp_path, monkeypatch
) -> None:
    first = recording(tmp_path / "card1" / "clip.mp4", "a harbour", 0)
    recording(tmp_path / "card2" / "clip.mp4", "a zebra", 500)
    bank = tmp_path / "bank"
    ingest(bank, first)
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0, create=False) as held:
        (row,) = held.catalog.videos()
        held.record_video(replace(row.info, path="clip.mp4"), row.interval, finished=True)
    monkeypatch.chdir(tmp_path / "card2")
    code, out, _ = run("ingest", f"bank={bank}", "text=subtitles")
    assert code == 0 and "clip.mp4 is not the video that it was, so text=subtitles" in out
    assert found(run, bank, "zebra") == []
    monkeypatch.chdir(tmp_path / "card1")
    assert run("ingest", f"bank={bank}", "text=subtitles")[0] == 0
    assert len(found(run, bank, "harbour")) == 1


def test_a_file_that_was_written_again_lends_nothing_to_what_it_was(run, tmp_path) -> None:
    """A recorder writes latest.mp4 again and again; the bank holds two of its recordings."""
    bank, latest = tmp_path / "bank", recording(tmp_path / "latest.mp4", "a harbour", 0)
    ingest(bank, latest)
    before = fingerprint(latest)
    recording(latest, "a zebra", 500)
    ingest(bank, latest)
    code, out, _ = run("ingest", f"bank={bank}", "text=subtitles")
    assert code == 0 and out.count(f"{latest} is not the video that it was") == 1
    (moment,) = found(run, bank, "zebra")
    assert moment["video_id"] == fingerprint(latest) != before
    # a path means what is there now
    code, out, err = run("bank", "action=ls", f"bank={bank}", f"video={latest}")
    assert (code, err) == (0, "") and fingerprint(latest) in out and before not in out
    recording(latest, "a third", 900)
    code, _, err = run("bank", "action=ls", f"bank={bank}", f"video={latest}")
    assert code == 2
    sentence(err, "is not the video that it was", before)


def test_thumbnails_of_another_file_are_left_out_with_a_warning(run, tmp_path) -> None:
    bank, film = tmp_path / "bank", recording(tmp_path / "film.mp4", "a harbour", 0)
    ingest(bank, film)
    assert run("ingest", f"bank={bank}", "text=subtitles")[0] == 0
    arguments = ("find", f"bank={bank}", "query=harbour", WORDS)
    recording(film, "a zebra", 500)
    for format, more in (("json", "thumbnails=true"), ("html", f"out={tmp_path / 'a.html'}")):
        code, out, err = run(*arguments, f"format={format}", more)
        assert code == 0 and f"no thumbnails, as {film} is not the video that it was" in err
        assert format == "html" or json.loads(out)["moments"][0]["thumbnail"] is None
    assert "image/jpeg" not in (tmp_path / "a.html").read_text()
    film.unlink()
    code, out, err = run(*arguments, "format=json", "thumbnails=true")
    assert code == 0 and err.count(f"no thumbnails, as {film} is not there") == 1
    code, out, _ = run("bank", "action=ls", f"bank={bank}", f"video={film}")
    assert code == 0 and str(film) in out  # it can mean nothing else


def test_stored_thumbnails_stand_for_a_film_that_is_gone(run, tmp_path) -> None:
    bank, film = tmp_path / "bank", recording(tmp_path / "film.mp4", "a harbour", 7)
    ingest(bank, film, keep="jpeg")
    assert run("ingest", f"bank={bank}", "text=subtitles")[0] == 0
    film.unlink()
    arguments = ("find", f"bank={bank}", "query=harbour", WORDS)
    code, out, err = run(*arguments, "format=json", "thumbnails=true")
    (moment,) = json.loads(out)["moments"]
    jpeg = base64.b64decode(moment["thumbnail"])
    picture = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert code == 0 and read_number(picture) == 7 + 5 * int(moment["frame_at"])
    assert err.count(f"thumbnails are those that the bank stores, as {film} is not there") == 1
    page = tmp_path / "a.html"
    assert run(*arguments, "format=html", f"out={page}")[0] == 0
    assert page.read_text().count("data:image/jpeg") == 1
    with reelbank.open(bank) as opened:
        (hit,) = opened.find("harbour", channels=("subtitle",))
        assert read_number(np.asarray(hit.image())) == read_number(picture)
        assert hit.image(longest_side=32).size == (32, 32)


def test_one_subtitle_file_is_not_given_to_several_videos(run, tmp_path) -> None:
    bank, first = tmp_path / "bank", recording(tmp_path / "1.mp4", "a harbour", 0)
    ingest(bank, first)
    option = f"text.subtitles.path={first.with_suffix('.srt')}"
    assert run("ingest", f"bank={bank}", "text=subtitles", option)[0] == 0
    ingest(bank, recording(tmp_path / "2.mp4", "a zebra", 500))
    code, _, err = run("ingest", f"bank={bank}", "text=subtitles", option)
    assert code == 2
    sentence(err, "belongs to one video", "has 2", "video=FILE")


def playlist(folder: Path, first: int) -> Path:
    """A recording of HLS in two segments."""
    folder.mkdir()
    film = folder / "film.mp4"
    write_video(film, 4, 5, paint=lambda number, _: numbered(first + number, (64, 64)))
    path = folder / "index.m3u8"
    with (
        av.open(str(film)) as source,
        av.open(str(path), "w", format="hls", options={"hls_time": "2"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    film.unlink()
    return path


def test_two_playlists_with_the_same_text_are_two_videos(tmp_path) -> None:
    """Recorders give their segments the same names and lengths every time."""
    first, second = playlist(tmp_path / "a", 0), playlist(tmp_path / "b", 500)
    assert first.read_text() == second.read_text()
    assert fingerprint(first) != fingerprint(second)
    # through a master playlist as well
    for path in (first, second):
        master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nindex.m3u8\n"
        (path.parent / "master.m3u8").write_text(master)
    assert fingerprint(first.parent / "master.m3u8") != fingerprint(second.parent / "master.m3u8")
    for path in (first, second):  # and through a list of FFmpeg's
        (path.parent / "list").write_text("ffconcat version 1.0\nfile 'index0.ts'\n")
    assert fingerprint(first.parent / "list") != fingerprint(second.parent / "list")
    copy = tmp_path / "c"
    first.parent.rename(copy)
    recorded = fingerprint(copy / first.name)
    (copy / "index0.ts").write_bytes((second.parent / "index0.ts").read_bytes())
    assert fingerprint(copy / first.name) != recorded
