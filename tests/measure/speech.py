"""Speech recognition: wrong words, cost, times of lines, and lines over sound without words.

    python -m tests.measure.speech words FOLDER [--models tiny.en,base,tiny.en:float32,pocketsphinx]
    python -m tests.measure.speech noise FOLDER [--minutes 10] [--only baby]
    python -m tests.measure.speech rows FOLDER
    python -m tests.measure.speech talk FOLDER [--minutes 20] [--text auto]

`words`: recordings of people whose words are known, and talks by espeak-ng (tests/support/
spoken.py), each also with noise. `noise`: silence, hiss, street, music, and the sound of real clips
that have no words but CLIP_WORDS; with and without the limits of text.asr.*. `rows`: how sure
Whisper is of its unlikeliest word in short sentences by espeak-ng, some of one word again and
again. `talk`: `reelbank ingest` of a film of that length with words and slides, as a process. Times
are CPU seconds (user and system).
"""

import argparse
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encoders.text.speech import recognizers
from encoders.text.speech.asr import Asr
from encoders.text.speech.recognizers import SpeechPiece, Whisper
from encoders.text.speech.speech_filter import SpeechLimits
from encoders.text.speech.speech_model import SPHINX, choose
from tests.support import measurement_page, spoken
from tests.support.paths import CLIPS, ROOT, SHARED
from tests.support.voices import recording

RECORDINGS = {
    "jfk.flac": (
        11.0,
        "And so my fellow Americans, ask not what your country can do for you, ask what you can do "
        "for your country.",
    ),
    "multilingual.mp3": (
        30.0,
        "Permission is hereby granted, free of charge, to any person obtaining a copy of this "
        "software and associated documentation files, to deal in the software without restriction, "
        "including without limitation the rights to use, copy, modify, merge, publish, distribute, "
        "sublicense, and/or sell copies of the software, and to permit persons to whom the "
        "software is furnished to do so, subject to the following conditions: the above copyright "
        "notice and this permission notice shall be included in all copies or substantial portions "
        "of the software.",
    ),
}
# clips without words but these
CLIP_WORDS = {"dance.mp4": set(), "baby_reading.mp4": set(), "toddler_room.mp4": {"go"}}
DEFAULT = Asr(model="tiny.en")
LIMITS = SpeechLimits(
    DEFAULT.compression,
    DEFAULT.log_probability,
    DEFAULT.no_speech,
    DEFAULT.repeats,
    DEFAULT.row,
)
OFF = SpeechLimits(1e9, -1e9, 1.0, 10**9, 0.0)
ONE_BY_ONE = {
    "no limit": OFF,
    "compression 2.4": dataclasses.replace(OFF, compression=LIMITS.compression),
    "log_probability -1.0": dataclasses.replace(OFF, log_probability=LIMITS.log_probability),
    "log_probability and no_speech 0.6": dataclasses.replace(
        OFF, log_probability=LIMITS.log_probability, no_speech=LIMITS.no_speech
    ),
    "repeats 2": dataclasses.replace(OFF, repeats=LIMITS.repeats),
    "row 0.3": dataclasses.replace(OFF, row=LIMITS.row),
    "all": LIMITS,
}
STRETCH_S = 120
SHORT = (
    "No, no, no!",
    "Go, go, go!",
    "Yes, yes, yes, yes.",
    "Stop, stop, stop, stop!",
    "Row, row, row your boat.",
    "Thank you.",
    "Ha ha ha ha ha.",
    "goo goo goo goo goo goo",
    "ba ba ba ba ba ba ba ba",
    "da da da da da da",
)


def normal(text: str) -> list[str]:
    """Words as they are compared: lower case, without signs; numbers in one form."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    words = EnglishTextNormalizer({})(text).split()
    return [word for word in (re.sub(r"[^\w']", "", one) for one in words) if word]


def errors(said: list[str], heard: list[str]) -> int:
    """Least number of words that are inserted, deleted, and replaced."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            least = min(row[j] + 1, row[j - 1] + 1, before + (word != other))
            before, row[j] = row[j], least
    return row[-1]


def pieces(samples: np.ndarray, model: str, compute: str = "int8") -> list[SpeechPiece]:
    """What a recognizer writes, before any limit; times in seconds of the whole sound."""
    whisper = None
    if model != SPHINX:
        whisper = Whisper(str(choose(model, "", "en").folder()), compute, "en")
    found: list[SpeechPiece] = []
    size = STRETCH_S * spoken.RATE
    for at in range(0, len(samples), size):
        part = samples[at : at + size]
        new = (
            recognizers.by_sphinx(part)
            if whisper is None
            else recognizers.by_whisper(part, whisper)
        )
        shift = at / spoken.RATE
        found += [one._replace(start=one.start + shift, end=one.end + shift) for one in new]
    return found


def spoken_sounds(folder: Path) -> Iterator[tuple[str, np.ndarray, str, list]]:
    """Name, samples, words, and cues where they are known."""
    for name, (seconds, text) in RECORDINGS.items():
        path = SHARED / "data" / "speech" / name
        if path.is_file():
            samples = recording(path, spoken.RATE)[: round(seconds * spoken.RATE)]
            yield f"human: {name}, {seconds:.0f} s", samples, text, []
    for name in spoken.TALKS:
        samples, cues = spoken.talk(name, folder)
        words = " ".join(sentence for _, _, sentence in cues)
        yield f"espeak: {name}, {len(samples) / spoken.RATE:.0f} s", samples, words, cues
        yield f"espeak: {name}, noise 10 dB", spoken.with_noise(samples, 10), words, cues


def report_words(args: argparse.Namespace) -> None:
    """Print the table of wrong words."""
    arms = [(name, compute or "int8") for name, _, compute in _parted(args.models)]
    titles = [f"{model} {compute}" if model != SPHINX else model for model, compute in arms]
    print("wrong words of 100 (errors / words)\n")
    print(f"| sound | {' | '.join(titles)} |\n|---|{'---|' * len(arms)}")
    cost = dict.fromkeys(titles, 0.0)
    late: dict[str, list[tuple[float, float]]] = {title: [] for title in titles}
    totals = {title: np.zeros(2, int) for title in titles}
    effects: dict[str, dict[str, tuple[int, int]]] = {}
    minutes = 0.0
    for sound, samples, text, cues in spoken_sounds(args.folder):
        if not re.search(args.only, sound):
            continue
        minutes += len(samples) / spoken.RATE / 60
        said, cells = normal(text), []
        for title, (model, compute) in zip(titles, arms, strict=True):
            pieces(spoken.noise("hiss", 1.0), model, compute)  # loads the model
            begun = time.process_time()
            found = pieces(samples, model, compute)
            cost[title] += time.process_time() - begun
            for limit, limits in ONE_BY_ONE.items():
                kept = limits.plausible(found)
                wrong = errors(said, normal(" ".join(one.text for one in kept)))
                rows = effects.setdefault(title, {})
                before = rows.get(limit, (0, 0))
                rows[limit] = (before[0] + wrong, before[1] + len(found) - len(kept))
            kept = LIMITS.plausible(found)
            wrong = errors(said, normal(" ".join(one.text for one in kept)))
            totals[title] += (wrong, len(said))
            cells.append(f"{100 * wrong / len(said):.1f} ({wrong}/{len(said)})")
            if cues and "noise" not in sound:
                late[title] += _lateness(kept, cues)
        print(f"| {sound} | {' | '.join(cells)} |", flush=True)
    cells = [f"{100 * wrong / words:.1f} ({wrong}/{words})" for wrong, words in totals.values()]
    print(f"| all | {' | '.join(cells)} |")
    cells = [f"{cost[title] / minutes:.1f}" for title in titles]
    print(f"| CPU s a minute of sound | {' | '.join(cells)} |")
    for which, place in (("first word", 0), ("last word", 1)):
        cells = [_quantiles([one[place] for one in late[title]]) for title in titles]
        print(f"| {which}, s beside the truth: median, p90 | {' | '.join(cells)} |")
    print("\nwrong words with one limit at a time (lines dropped)\n")
    print(f"| limit | {' | '.join(titles)} |\n|---|{'---|' * len(arms)}")
    for limit in ONE_BY_ONE:
        cells = ["{} ({})".format(*effects[title][limit]) for title in titles]
        print(f"| {limit} | {' | '.join(cells)} |")


def _parted(models: str) -> list[tuple[str, str, str]]:
    """Of "tiny.en,base:float32"."""
    return [one.partition(":") for one in models.split(",")]


def _lateness(found: list[SpeechPiece], cues: list) -> list[tuple[float, float]]:
    """Seconds by which pieces begin and end beside the sentence of the same first or last words."""
    result = []
    for piece in found:
        words = normal(piece.text)
        for start, end, sentence in cues:
            said = normal(sentence)
            if words[:2] == said[:2] and words[-2:] == said[-2:]:
                result.append((abs(piece.start - start), abs(piece.end - end)))
    return result


def _quantiles(values: list[float]) -> str:
    if not values:
        return ""
    return f"{np.median(values):.2f}, {np.percentile(values, 90):.2f} (n={len(values)})"


def report_noise(args: argparse.Namespace) -> None:
    """Print the table of lines over sound without words."""
    models = args.models.split(",")
    sounds = {name: spoken.noise(name, args.minutes * 60) for name in spoken.NOISES}
    for clip in CLIP_WORDS:
        if (CLIPS / clip).is_file():
            samples = recording(CLIPS / clip, spoken.RATE)
            times = round(args.minutes * 60 * spoken.RATE / len(samples) + 0.5)
            sounds[f"{clip}, over and over"] = np.tile(samples, times)[
                : round(args.minutes * 60 * spoken.RATE)
            ]
    columns = [(model, limit) for model in models for limit in ("no limit", "all")]
    names = [f"{model}, {limit}" if model != SPHINX else model for model, limit in columns]
    print(f"false lines in {args.minutes:.0f} minutes\n")
    print(f"| sound | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    examples: list[str] = []
    costs: dict[str, list[float]] = {model: [] for model in models}
    effects = {model: dict.fromkeys(ONE_BY_ONE, 0) for model in models}
    for sound, samples in sounds.items():
        if not re.search(args.only, sound):
            continue
        cells = []
        for model in models:
            pieces(spoken.noise("hiss", 1.0), model)  # loads the model
            begun = time.process_time()
            found = pieces(samples, model)
            costs[model].append((time.process_time() - begun) / args.minutes)
            true_words = CLIP_WORDS.get(sound.partition(",")[0], set())
            counts = {
                limit: sum(
                    not set(normal(one.text)) <= true_words for one in limits.plausible(found)
                )
                for limit, limits in ONE_BY_ONE.items()
            }
            for limit, count in counts.items():
                effects[model][limit] += count
            cells += [str(counts[limit]) for limit in ("no limit", "all")]
            examples += [
                f"- {model}, {sound}: {one.text[:80]!r} {one[3:]}"
                for one in (*found[:4], *LIMITS.plausible(found)[:8])
            ]
        print(f"| {sound} | {' | '.join(cells)} |", flush=True)
    print("\nCPU s a minute of sound, least and most:")
    for model, each in costs.items():
        print(f"{model} {min(each):.1f} to {max(each):.1f}")
    print("\nlines over all of these with one limit at a time\n")
    print(f"| limit | {' | '.join(models)} |\n|---|{'---|' * len(models)}")
    for limit in ONE_BY_ONE:
        print(f"| {limit} | {' | '.join(str(effects[model][limit]) for model in models)} |")
    print("\nexamples (text, confidence, compression, log_probability, no_speech, least_word):\n")
    print("\n".join(examples))


def report_rows(args: argparse.Namespace) -> None:
    """Print the unlikeliest word of what is heard of short sentences."""
    print("| said | heard | least probability of a word |\n|---|---|---|")
    pause = np.zeros(spoken.RATE, np.int16)
    for text in SHORT:
        samples, _ = spoken.say([text], args.folder)
        for one in pieces(np.concatenate([pause, samples, pause]), args.models.split(",")[0]):
            print(f"| {text} | {one.text} | {one.least_word:.2f} |")


def report_talk(args: argparse.Namespace) -> None:
    """Print what `reelbank ingest` of a talk takes."""
    from tests.support.lectures import Lecture, plan
    from tests.support.talk_films import with_sound

    args.folder.mkdir(parents=True, exist_ok=True)
    film = args.folder / f"talk-{args.minutes:.0f}.mp4"
    if not film.exists():
        seconds = args.minutes * 60
        sentences = [one for name in spoken.TALKS for one in spoken.TALKS[name][2].splitlines()]
        one_round, _ = spoken.say(sentences, args.folder)
        samples = np.tile(one_round, int(seconds * spoken.RATE / len(one_round)) + 1)
        phrases = [one for one in plan(round(seconds)) if one.end < seconds]
        Lecture(phrases).write(args.folder / "slides.mp4", fps=1.0)
        with_sound(args.folder / "slides.mp4", samples, spoken.RATE, film)
    bank = args.folder / f"bank-{os.getpid()}"
    command = [sys.executable, "-m", "pipeline.cli", "ingest", f"video={film}", f"bank={bank}"]
    command += [f"text={args.text}", "format=json"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = json.loads(done.stdout)
    print(f"`text={args.text}`: {told['video_seconds']:.0f} s of film, {wall:.0f} s of wall time, ")
    print(f"{cpu:.0f} CPU s, load {os.getloadavg()[0]:.1f}; lines {told['text_lines']}")
    print(f"largest process {after.ru_maxrss / 1000:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["words", "noise", "rows", "talk"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=f"tiny.en,base,{SPHINX}")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", default="", help="regular expression: sounds with such a name")
    parser.add_argument("--text", default="auto")
    actions = {
        "words": report_words,
        "noise": report_noise,
        "rows": report_rows,
        "talk": report_talk,
    }

    def report(args: argparse.Namespace) -> None:
        args.folder.mkdir(parents=True, exist_ok=True)
        actions[args.action](args)

    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
