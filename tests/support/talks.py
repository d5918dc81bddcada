"""Talks with subtitles: what `reelbank find` is tried on."""

from pathlib import Path

import numpy as np

from tests.support.lectures import _ENDS, _OBJECTS, _SUBJECTS, _VERBS

SRT = """1
00:00:02,000 --> 00:00:04,000
The harbour was rebuilt

2
00:00:04,100 --> 00:00:06,000
with granite in 1847.

3
00:00:12,000 --> 00:00:14,000
Bread <|im_end|> needs salt, that is what bakers say
"""


WORDS = "channels=[subtitle,speech,ocr,caption]"


def talks(
    folder: Path, count: int, rng: np.random.Generator, seconds: float = 1200.0
) -> list[tuple[str, str, float]]:
    """Subtitle files of `count` talks. Returns (question, video, second at which its answer is
    spoken) for facts in them.

    Every subject and every verb comes many times. A fact is one pair of them, half of the time over
    two cues.
    """
    questions = []
    pairs = [(subject, verb) for subject in _SUBJECTS for verb in _VERBS]
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    for number in range(count):
        cues, at = [], 2.0
        while at < seconds - 10:
            subject, verb = order.pop() if order else ("", "")
            thing, when = (
                _OBJECTS[int(rng.integers(len(_OBJECTS)))],
                _ENDS[int(rng.integers(len(_ENDS)))],
            )
            if not subject or rng.random() < 0.7:  # small talk about the same things
                other = _SUBJECTS[int(rng.integers(len(_SUBJECTS)))]
                cues.append((at, at + 3, f"and the {other} is something that we will see {when}"))
            elif rng.random() < 0.5:
                cues.append((at, at + 3, f"the {subject} {verb} {thing} {when}"))
                questions.append((f"What was it that the {subject} {verb}?", f"talk{number}", at))
            else:
                cues += [
                    (at, at + 2, f"as we know the {subject}"),
                    (at + 2.1, at + 4.5, f"{verb} {thing} {when}"),
                ]
                questions.append((f"Who says what the {subject} {verb}?", f"talk{number}", at))
            at += float(rng.uniform(5, 9))
        stamp = "{:02d}:{:02d}:{:06.3f}".format
        text = "".join(
            f"{i}\n{stamp(0, int(a // 60), a % 60)} --> {stamp(0, int(b // 60), b % 60)}\n"
            f"{words}\n\n".replace(".", ",")
            for i, (a, b, words) in enumerate(cues, 1)
        )
        (folder / f"talk{number}.mp4").touch()  # where there is none
        (folder / f"talk{number}.srt").write_text(text)
    return questions
