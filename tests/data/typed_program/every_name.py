"""A program of somebody else that uses the whole of the Python API; mypy --strict accepts it."""

from collections.abc import Callable
from pathlib import Path
from typing import assert_type

from PIL.Image import Image

import reelbank


def show(done: reelbank.Progress) -> None:
    assert_type(done.share, float)
    print(f"{done.path} {done.seconds:.0f}/{done.duration:.0f} s, {done.nbytes} bytes")


def add_all(folder: Path) -> list[reelbank.Report]:
    with reelbank.open(folder / "bank", model="embedded", fps=1, options=["text=none"]) as bank:
        assert_type(bank, reelbank.Bank)
        reports = [bank.add(path, progress=show) for path in folder.glob("*.mp4")]
        part = bank.add("talk.mp4", start=10, end=20.5)
        assert_type(part.video.duration, float)
        assert_type(part.lines, dict[str, int])
        return reports


def ask(bank: reelbank.Bank, emit: Callable[[str], None]) -> str:
    answer = bank.ask("What?", video=bank.videos[0], at=12.5, on_token=emit)
    assert_type(answer.spans, tuple[reelbank.Span, ...])
    assert_type(answer.at, float | None)
    for evidence in answer.evidence:
        assert_type(evidence.weight, float)
        print(evidence.kind, evidence.timecode, evidence.text, evidence.was_read)
        evidence.image(longest_side=320).save("frame.jpg")
    return answer.text if answer.is_shown else answer.warning


def find(bank: reelbank.Bank) -> dict[str, reelbank.Clip]:
    hits = bank.find("a red star", k=3, video="talk.mp4", channels=("picture",), start=1, end=9)
    assert_type(hits, reelbank.Hits)
    assert_type(hits[0], reelbank.Hit)
    assert_type(hits[:2], tuple[reelbank.Hit, ...])
    assert_type(hits[0].image(), Image)
    assert_type(hits.notes, tuple[str, ...])
    moments: list[reelbank.Moment] = [*hits]
    print(len(hits), hits[0].score + hits[0].start + hits[0].picture_at, hits[0].words)
    return {each.timecode: each.clip(Path(f"{each.start}.mkv")) for each in moments}


def summarize(bank: reelbank.Bank) -> Path:
    summary = bank.summary("talk.mp4", when="in the first half", sentences=5)
    assert_type(summary, reelbank.Summary)
    chapters: tuple[reelbank.Chapter, ...] = summary.chapters
    sentences: tuple[reelbank.Sentence, ...] = summary.sentences
    print(summary.title, summary.videos, summary.notes, [each.title for each in chapters])
    print([f"{each.timecode} {each.text} {each.channel} {each.is_quoted}" for each in sentences])
    assert_type(chapters[0].image(), Image)
    summary.write_chapters("chapters.vtt")
    return summary.write(Path("report.html"))


def watch(bank: reelbank.Bank) -> float:
    with bank.stream("rtsp://camera/stream", name="door") as stream:
        assert_type(stream, reelbank.Stream)
        stream.wait(timeout=5)
        answer = stream.ask("Who?", since=1.0, until=stream.now)
        assert_type(answer, reelbank.Answer)
        return stream.seen_until if stream.join(1.0) else answer.seconds


def main() -> None:
    try:
        bank = reelbank.open()
    except reelbank.Error as error:
        print(str(error))
        return
    print(bank.path, watch(bank), find(bank), ask(bank, print), add_all(Path()), summarize(bank))
    bank.close()
