"""Seven simulated days of a stream: does a question find the right day, and the newest value?

    python -m tests.measure.week_of_streams runs/week --seeds 31 32 33 [--minutes 2]

A camera runs three times a day for a week, and every time cards change. The pictures are made up,
the clock on the wall is simulated, and all else is real: the ingester, the bank, the embedded
model. Each seed has two banks. In `camera`, one stream is taken up again and again. In `files`,
each recording is a video of its own, made of the same segments, and a question is about all of
them.
What is there is not encoded again, and rows that are there are not asked again.

The plan of a week is drawn from the seed. A row counts as right if the text is that of the card and
a citation touches the seconds in which it shows; where nothing shows, if it says so; where
nothing ran, if it is an error of one sentence. The arm `untimed` asks the same without the words of
time and of the present, as a control: what a bank says that knows no time.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from encoders.errors import UserError
from encoders.schema import VideoInfo
from memory.bank import MemoryBank
from memory.schema import Question
from memory.storage import json_lines
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.needle_world.cards import Needle, draw, random_needle
from pipeline.needle_world.video import PlacedNeedle, plan, procedural_footage
from pipeline.qa import VideoQA
from pipeline.schema import Answer, is_shown
from pipeline.scoring import cell, is_right
from tests.support import measurement_page
from tests.support.dated_streams import DatedStream

MONDAY = datetime(2026, 3, 9)
PARTS = {"morning": 9, "afternoon": 14, "evening": 20}  # hour at which the camera starts
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ASKS = {
    "code": ("What was the code?", "What is the code?"),
    "name": ("What name was on the card?", "What name is on the card?"),
    "icon": ("What was the icon on the card?", "What is the icon on the card?"),
}
CARD_S = 3.0
PLAIN = ("video=x", "question=x", "text=none", "dense=none")


@dataclass(frozen=True)
class Recording:
    """One run of the camera."""

    day: int  # 0: Monday
    part: str
    video_second: float  # of the stream, where it begins
    cards: tuple[PlacedNeedle, ...]  # seconds since it began

    @property
    def name(self) -> str:
        return f"{DAYS[self.day].lower()}-{self.part}"

    @property
    def wall(self) -> float:
        """Unix seconds at which it begins."""
        return (MONDAY + timedelta(days=self.day, hours=PARTS[self.part])).timestamp()

    def last(self, kind: str) -> PlacedNeedle | None:
        """The newest card of a kind."""
        own = [each for each in self.cards if each.needle.kind == kind]
        return own[-1] if own else None


@dataclass(frozen=True)
class Asked:
    """A question with its right answer."""

    kind: str  # of question
    text: str
    untimed: str  # without words of time
    answer: str  # "": no card answers; "error": nothing ran
    recording: int  # index of the one whose card answers; -1: none
    shown: tuple[float, float]  # seconds since the recording began
    asked_at: float | None = None  # seconds of the stream; None: at its end


def week(seed: int, minutes: float) -> list[Recording]:
    """21 recordings; one of seven shows no card of a kind, one of three changes a card while it
    runs, and two are left out."""
    rng = np.random.default_rng(seed)
    seconds, recordings, at = 60 * minutes, [], 0.0
    left_out = {(2, "afternoon"), (5, "morning")}
    used: set[str] = set()
    for day in range(7):
        for part in PARTS:
            if (day, part) in left_out:
                continue
            kinds = [kind for kind in ASKS if rng.random() > 1 / 7]
            if rng.random() < 1 / 3 and kinds:
                kinds.append(str(rng.choice(kinds)))
            needles = [_fresh(rng, kind, used) for kind in rng.permutation(kinds)]
            cards = plan(rng, needles, seconds, CARD_S, gap=20.0)
            recordings.append(Recording(day, part, at, cards))
            at += seconds
    return recordings


def _fresh(rng: np.random.Generator, kind: Any, used: set[str]) -> Needle:
    """A card; the latest ones of its kind show something else."""
    needle = random_needle(rng, kind)
    while needle.text in used:
        needle = random_needle(rng, kind)
    used.add(needle.text)
    if kind != "code" and len([each for each in used if not each.isdigit()]) > 5:
        used.difference_update(each for each in used.copy() if not each.isdigit())
        used.add(needle.text)
    return needle


def questions(recordings: Sequence[Recording], seconds: float, seed: int) -> list[Asked]:
    """All questions about a week, asked on Sunday evening where nothing else is said."""
    rng, asked = np.random.default_rng(seed + 1), list[Asked]()
    places = {(each.day, each.part): number for number, each in enumerate(recordings)}

    def add(kind: str, text: str, card: str, number: int, asked_at: float | None = None) -> None:
        found = recordings[number].last(card) if number >= 0 else None
        untimed = ASKS[card][1]
        if found is None:
            asked.append(Asked(kind, text, untimed, "", -1, (0, 0), asked_at))
        else:
            span = (found.start, found.end)
            asked.append(Asked(kind, text, untimed, found.needle.text, number, span, asked_at))

    def before(card: str, number: int) -> int:
        """The newest recording up to this one that shows such a card."""
        return next((n for n in range(number, -1, -1) if recordings[n].last(card)), -1)

    last = len(recordings) - 1
    for card, (was, present) in ASKS.items():
        stem, now = was.rstrip("?"), present.rstrip("?")
        alone = [n for n, each in enumerate(recordings[:-1]) if _count(each, card) == 1]
        for number in rng.choice(alone, 4, replace=False):
            own = recordings[number]
            add("part of a day", f"{stem} on {DAYS[own.day]} {own.part}?", card, int(number))
        for number in rng.choice(alone, 3, replace=False):
            own, hour = recordings[number], PARTS[recordings[number].part]
            text = f"{stem} on {DAYS[own.day]} between {hour}:00 and {hour + 1}:00?"
            add("clock", text, card, int(number))
        yesterday = [n for n in alone if recordings[n].day == 5]
        for number in yesterday[:1]:
            add("yesterday", f"{stem} yesterday {recordings[number].part}?", card, number)
        absent = [n for n, each in enumerate(recordings[:-1]) if _count(each, card) == 0]
        for number in rng.permutation(absent)[:2]:
            own = recordings[number]
            add("not shown then", f"{stem} on {DAYS[own.day]} {own.part}?", card, int(number))
        add("now", f"{now} now?", card, before(card, last))
        latest = re.sub(" the (?=(icon|code))", " the latest ", f"{now}?") if card != "name" else ""
        add("now", latest or f"At the moment, {now[0].lower()}{now[1:]}?", card, before(card, last))
        for day in rng.choice(6, 3, replace=False):
            number = max(n for n in places.values() if recordings[n].day == day)
            text = f"As of {DAYS[day]}, {now[0].lower()}{now[1:]}?"
            add("as of a day", text, card, before(card, number))
        for number in rng.choice(np.arange(3, last), 3, replace=False):
            end = recordings[number].video_second + seconds - 1
            add("now, asked then", f"{now} now?", card, before(card, int(number)), float(end))
        for day, part in ((2, "afternoon"), (5, "morning")):
            text = f"{stem} on {DAYS[day]} {part}?"
            asked.append(Asked("nothing ran", text, present, "error", -1, (0, 0)))
        night = f"{stem} on {DAYS[int(rng.integers(1, 6))]} at 3 am?"
        asked.append(Asked("nothing ran", night, present, "error", -1, (0, 0)))
    return asked


def _count(recording: Recording, kind: str) -> int:
    return sum(each.needle.kind == kind for each in recording.cards)


def painter(own: Recording, seed: int, size: tuple[int, int]) -> Callable[[float], np.ndarray]:
    """The pictures of a recording."""
    footage = procedural_footage(1000 * seed + 10 * own.day + len(own.part), size)

    def paint(at: float) -> np.ndarray:
        picture = footage(at)
        for card in own.cards:
            if card.start <= at < card.end:
                draw(picture, card.needle, card.place)
        return np.asarray(picture)

    return paint


def fill(qa: VideoQA, recordings: Sequence[Recording], seconds: float, seed: int) -> None:
    """Encode what the bank of the stream lacks."""
    size = qa.backbone.frame_size
    for number, own in enumerate(recordings):
        stored = qa.bank.catalog.next("camera")[1] if qa.bank.catalog.video("camera") else 0.0
        if stored < (number + 1) * seconds - 2:
            qa.follow(DatedStream("camera", painter(own, seed, size), int(seconds), own.wall, size))
    qa.bank.end_writing()


def copy(camera: MemoryBank, files: MemoryBank, recordings: Sequence[Recording]) -> None:
    """The segments of each recording as a video of its own."""
    sessions = camera.catalog.sessions("camera")
    for own, session in zip(recordings, sessions, strict=True):
        if files.catalog.video(own.name) is not None:
            continue
        info = VideoInfo(own.name, f"{own.name}.mp4", session.end - session.start, "simulated")
        rows = camera.catalog.overlapping("camera", start=session.start, end=session.end)
        files.record_video(info, 1.0, finished=False)
        for number, row in enumerate(rows):
            whole = camera.catalog.read_segment("camera", row.number)
            tokens = replace(whole.tokens, times=whole.tokens.times - session.start)
            start, end = whole.start - session.start, whole.end - session.start
            files.write(
                replace(
                    whole, video_id=own.name, number=number, start=start, end=end, tokens=tokens
                )
            )
        files.record_video(info, 1.0, finished=True)
    files.end_writing()


def ask(qa: VideoQA, form: str, arm: str, one: Asked, recordings: Sequence[Recording]) -> dict:
    """One row."""
    catalog = qa.bank.catalog
    if form == "camera":
        end = catalog.next("camera")[1]
        question = Question(one.text, "camera", end if one.asked_at is None else one.asked_at)
    else:
        ids = [each.name for each in recordings]
        wall = _wall(one, recordings)
        moments = {
            each.name: min(wall - each.wall, catalog.next(each.name)[1]) for each in recordings
        }
        question = Question(one.text, ids, moments=moments)
    if arm == "untimed":
        question = replace(question, text=one.untimed)
    began = time.process_time()
    try:
        answer = qa.ask(question)
    except UserError as error:
        is_sentence = str(error).strip().count("\n") == 0 and "running" in str(error)
        return _row(one, str(error), one.answer == "error" and is_sentence, began)
    if not one.answer or one.answer == "error":
        is_no = not answer.shown and not answer.spans
        return _row(one, answer.text, is_no and one.answer == "", began, answer)
    is_text = is_shown(answer.text) and is_right(answer.text, one.answer)
    cites = _cites(answer, form, recordings[one.recording], one.shown)
    row = _row(one, answer.text, is_text and cites, began, answer)
    return row | {"text right": is_text, "cites it": cites}


def _wall(one: Asked, recordings: Sequence[Recording]) -> float:
    """Unix seconds at which a question is asked."""
    if one.asked_at is None:
        return recordings[-1].wall + 86400.0 / 8
    own = [each for each in recordings if each.video_second <= one.asked_at][-1]
    return own.wall + one.asked_at - own.video_second


def _cites(answer: Answer, form: str, own: Recording, shown: tuple[float, float]) -> bool:
    offset = own.video_second if form == "camera" else 0.0
    is_video = answer.video_id == ("camera" if form == "camera" else own.name)
    low, high = shown[0] + offset - 1, shown[1] + offset + 1
    return is_video and any(start < high and end > low for start, end in answer.spans)


def _row(one: Asked, text: str, right: bool, began: float, answer: Answer | None = None) -> dict:
    calls = () if answer is None or answer.trace is None else answer.trace.calls
    return {
        "kind": one.kind,
        "question": one.text,
        "answer": one.answer,
        "text": text,
        "right": right,
        "calls": len(calls),
        "visual_tokens": 0 if answer is None else answer.visual_tokens,
        "cpu_seconds": round(time.process_time() - began, 3),
        "spans": [] if answer is None else list(answer.spans),
        "strategy": "" if answer is None or answer.trace is None else answer.trace.strategy,
    }


def run_seed(root: Path, seed: int, minutes: float, backbone: Any, *, asks: bool) -> None:
    """Encode and ask what is missing."""
    recordings, seconds = week(seed, minutes), 60 * minutes
    rows_file = root / f"rows-{seed}.jsonl"
    rows = json_lines.read(rows_file) if rows_file.exists() else []
    done = {(row["form"], row["arm"], row["number"]) for row in rows}
    parts = {}
    for form in ("camera", "files"):
        options = [f"bank={root / f'{form}-{seed}'}", *PLAIN]
        parts[form] = build_qa(compose("ask", options), backbone)
    with parts["camera"].bank as camera, parts["files"].bank as files:
        fill(parts["camera"], recordings, seconds, seed)
        copy(camera, files, recordings)
        print(f"<!-- seed {seed}: encoded -->", flush=True)
        for form, qa in parts.items() if asks else ():
            for number, one in enumerate(questions(recordings, seconds, seed)):
                for arm in ("timed", "untimed"):
                    if (form, arm, number) in done or (arm, one.answer) == ("untimed", "error"):
                        continue
                    row = ask(qa, form, arm, one, recordings)
                    row |= {"seed": seed, "form": form, "arm": arm, "number": number}
                    row["cluster"] = f"{seed}-{one.recording if one.recording >= 0 else number}"
                    with rows_file.open("a") as file:
                        file.write(json.dumps(row) + "\n")


def tables(rows: Sequence[dict]) -> None:
    """Per kind of question, form and arm."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    columns = [("camera", "timed"), ("files", "timed"), ("camera", "untimed"), ("files", "untimed")]
    print("\n| kind of question | " + " | ".join(f"{f}, {a}" for f, a in columns) + " |")
    print("|" + "---|" * (len(columns) + 1))
    for kind in [*kinds, "all"]:
        cells = []
        for form, arm in columns:
            own = [
                (row["cluster"], float(row["right"]))
                for row in rows
                if kind in (row["kind"], "all") and (row["form"], row["arm"]) == (form, arm)
            ]
            cells.append(cell(own))
        print(f"| {kind} | {' | '.join(cells)} |")
    print("\n| kind of question | n | passes | visual tokens | CPU s (camera) | CPU s (files) |")
    print("|---|---|---|---|---|---|")
    for kind in [*kinds, "all"]:
        timed = [r for r in rows if kind in (r["kind"], "all") and r["arm"] == "timed"]
        camera, files = (
            np.mean([row["cpu_seconds"] for row in timed if row["form"] == form])
            for form in ("camera", "files")
        )
        calls, tokens = (np.mean([r[name] for r in timed]) for name in ("calls", "visual_tokens"))
        print(
            f"| {kind} | {len(timed)} | {calls:.1f} | {tokens:,.0f} | {camera:.2f} | {files:.2f} |"
        )
    print("\nWrong, of the arm `timed`:\n")
    for row in rows:
        if row["arm"] == "timed" and not row["right"]:
            said = re.sub(r"\s+", " ", row["text"])[:90]
            print(
                f"- {row['form']} {row['seed']}, {row['kind']}: {row['question']} "
                f"expected {row['answer'] or 'not in the video'}, got {said!r} {row['spans'][:2]}"
            )


def report(arguments: argparse.Namespace) -> None:
    """Encode, ask, and print."""
    root: Path = arguments.folder
    root.mkdir(parents=True, exist_ok=True)
    backbone = build_backbone(compose("ask", [f"bank={root / 'x'}", *PLAIN]))
    for seed in arguments.seeds:
        run_seed(root, seed, arguments.minutes, backbone, asks=not arguments.encode)
    if arguments.encode:
        return
    rows = [row for seed in arguments.seeds for row in json_lines.read(root / f"rows-{seed}.jsonl")]
    print(
        f"{len(rows)} answers, seeds {arguments.seeds}, {arguments.minutes:g} minutes a recording"
    )
    tables(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33])
    parser.add_argument("--minutes", type=float, default=2.0, help="of a recording")
    parser.add_argument("--encode", action="store_true", help="ask nothing yet")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
