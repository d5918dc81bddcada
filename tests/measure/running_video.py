"""Answers about a video that is being written, and the same questions once it is finished (law 3).

    python -m tests.measure.running_video [--films 4] [--seconds 40]

Films with two cards each, one of them in the last seconds. All segments are written, questions are
asked, then the video is recorded as finished, and the same questions are asked again with the same
`asked_at`. Columns:

- logits: largest difference of the logits of a question's tokens, and that over their deviation.
- answers: how many differ in their text, or in the frames that they cite.
- open: share of the stored keys of an open segment, without its last frame, that differ from those
  of the whole segment, and the largest difference over the deviation of its keys.

Nothing may differ but by rounding.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from encoders.encoder import Encoder
from encoders.schema import Segment
from memory.schema import Question
from pipeline.answer.schema import local
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.needle_world import video as haystack
from pipeline.needle_world.cards import ICONS, NAMES, Needle
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer

SETTINGS = {
    "bfloat16": (),
    "int8": ("kv_dtype=int8", "token_dtype=int8"),
    "int4": ("kv_dtype=int4", "token_dtype=int4"),
    "compact": ("experiment=compact",),
}
QUESTIONS = ("What is the secret word?", "Which icon appears in the video?", "What is the code?")


def film(folder: Path, number: int, seconds: float) -> Path:
    """A film with a name somewhere, and an icon three seconds before the end."""
    path = folder / f"film-{number}.mp4"
    chance = np.random.default_rng(number)
    (name,) = haystack.plan(chance, [Needle("name", str(chance.choice(NAMES)))], seconds - 8)
    (icon,) = haystack.plan(chance, [Needle("icon", str(chance.choice(ICONS)))], 4.5)
    icon = replace(icon, start=seconds - 3, end=seconds - 1)
    drawn = haystack.procedural_footage(number, (320, 180))
    haystack.write(path, (name, icon), seconds, drawn, size=(320, 180))
    return path


def segments(config: AskSettings, qa: VideoQA, path: Path) -> Iterator[tuple[Segment, Segment]]:
    """Each segment as it is shown open, without its last frame, and whole."""
    config.video = str(path)
    parts = qa.ingester
    encoder = Encoder(
        qa.backbone, parts.compressor, parts.new_prefill(), parts.clip, parts.interval
    )
    source = build_source(config, qa.backbone)
    for number, frames in enumerate(parts.segmenter.segments(source.frames(0.0))):
        some = frames.part(0, max(1, len(frames) - 1))
        opened = encoder.encode(some, number, StageTimer(), still_open=True)
        yield opened, encoder.encode(frames, number, StageTimer())


def difference(opened: Segment, whole: Segment) -> tuple[float, float]:
    """Share of the keys of the open segment that differ, and the largest difference over the
    deviation of keys.
    """
    assert opened.kv is not None and whole.kv is not None
    one, two = opened.kv.keys.float(), whole.kv.frames(0, len(opened)).keys.float()
    gap = (one - two).abs()
    return float((gap > 0).float().mean()), float(gap.max() / two.std())


def measure(name: str, paths: list[Path], folder: Path) -> str:
    """A row of the table."""
    differ, count, most, share, parts = 0, 0, 0.0, 0.0, list[tuple[float, float]]()
    for path in paths:
        given = [f"bank={folder / name}", f"video={path}", "question=x", *SETTINGS[name]]
        config = compose("ask", given)
        backbone = build_backbone(config)
        qa = build_qa(config, backbone)
        source = build_source(config, backbone)
        video_id = source.info.video_id
        reader = local(qa.answerer.reader, "this program")
        with qa.bank as bank:
            bank.record_video(source.info, qa.ingester.interval, finished=False)
            end = 0.0
            for opened, segment in segments(config, qa, path):
                bank.write(segment)
                parts.append(difference(*map(bank.storage_format.as_read, (opened, segment))))
                end = segment.end
            both: list[list[tuple[torch.Tensor, Answer]]] = []
            for _ in range(2):
                asked = []
                for text in QUESTIONS:
                    question = Question(text, video_id, end)
                    evidence = bank.recall(question, read_tokens=config.read_tokens or 768)
                    logits = reader.logits(evidence, lambda stage: nullcontext())
                    asked.append((logits, qa.ask(question)))
                both.append(asked)
                bank.record_video(source.info, qa.ingester.interval, finished=True)
        for (logits, answer), (later, again) in zip(*both, strict=True):
            gap = float((logits - later).abs().max())
            most, share = max(most, gap), max(share, gap / float(later.std()))
            same = answer.text == again.text and answer.spans == again.spans
            differ, count = differ + (not same), count + 1
    shares, gaps = zip(*parts, strict=True)
    return (
        f"| {name} | {most:.3g} | {share:.3g} | {differ} of {count} "
        f"| {100 * sum(shares) / len(shares):.4f} | {max(gaps):.3g} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=40.0)
    args = parser.parse_args()
    register()
    torch.set_num_threads(1)
    print(
        "| setting | logits | over their deviation | answers that differ "
        "| open: keys that differ (%) | by, at most |\n" + "|---" * 6 + "|"
    )
    with tempfile.TemporaryDirectory() as name:
        paths = [film(Path(name), number, args.seconds) for number in range(args.films)]
        for setting in SETTINGS:
            print(measure(setting, paths, Path(name)), flush=True)


if __name__ == "__main__":
    main()
