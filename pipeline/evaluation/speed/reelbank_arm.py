"""Reelbank as an arm: encoded through `ingest` and asked through `ask`, as in every command.

The benchmark adds two things: answers never stop early, and the writer's own seconds stand beside
the time that encoding waits for it. Knows no baseline.
"""

import functools
import shutil
from pathlib import Path

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.schema import DualEncoder, Frames, FrameSource, Segment
from memory.schema import Question
from pipeline.build import build_backbone, build_clip, build_qa
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed.clocks import stopwatch
from pipeline.evaluation.speed.ready_frames import ReadyFrames
from pipeline.evaluation.speed.schema import Timed
from pipeline.qa import VideoQA

# Stage names as the other arms have them. Decoding runs in a thread of its own. So do tower and
# embedding where more than one core serves them (`overlaps_compute`); encoding waits for them.
_DECODING = {"decode": "decode, beside"}
_ONE_CORE = _DECODING | {"look": "tower"}
_MANY_CORES = _DECODING | {
    "look": "tower, beside",
    "compress": "compress, beside",
    "clip": "clip, beside",
}
FIRST_TOKEN_STAGES = ("search", "load", "lay_out", "first_token")


def load_backbone(config: BenchSettings) -> LlavaOneVision:
    """The model, with answers that never stop early.

    UserError for another family than LLaVA-OneVision: the baselines are written for that one.
    """
    backbone = build_backbone(config)
    if not isinstance(backbone, LlavaOneVision):
        raise UserError(
            "bench compares models of LLaVA-OneVision; use backbone=embedded, llava_ov_0p5b or "
            "llava_ov_7b."
        )
    backbone.prompt.stop_ids = set  # type: ignore[method-assign]
    # takes seconds for a large model
    backbone.fingerprint = functools.cache(backbone.fingerprint)  # type: ignore[method-assign]
    return backbone


def time_writes(qa: VideoQA) -> dict[str, float]:
    """Seconds that `bank.write` takes in the writer's thread from now on, as "write, beside"."""
    spent = {"write, beside": 0.0}
    write = qa.bank.write

    def timed(segment: Segment) -> int:
        with stopwatch() as took:
            nbytes = write(segment)
        spent["write, beside"] += took.wall_s
        return nbytes

    qa.bank.write = timed  # type: ignore[method-assign]
    return spent


class ReelbankArm:
    """One configuration of parts and settings.

    Arms with the same encoding share a bank, which the first of them encodes.
    """

    def __init__(
        self,
        name: str,
        config: BenchSettings,
        backbone: LlavaOneVision,
        bank: Path,
        leader: "ReelbankArm | None" = None,
    ) -> None:
        """config: read_tokens and reader.max_new_tokens are those of every arm.

        leader: the arm that encodes the bank; None = this one.
        """
        self.name, self._config, self._backbone, self._leader = name, config, backbone, leader
        self._bank = bank
        config.bank = str(bank)
        self._clip: DualEncoder | None = None
        self._qa: VideoQA | None = None
        self._video_id = ""

    @property
    def keeps_cache(self) -> bool:
        return self._leader is None

    @property
    def encoded_by(self) -> str:
        return self.name if self._leader is None else self._leader.name

    def encode(self, frames: Frames) -> Timed:
        """Encode into a new bank; every segment is durable on return."""
        self.drop()
        if self._leader is not None:
            self._video_id = frames.video_id
            return Timed(0.0, 0.0)
        shutil.rmtree(self._bank, ignore_errors=True)
        return self.ingest(ReadyFrames(frames, self._config.fps))

    def ingest(self, source: FrameSource) -> Timed:
        """Encode a source into the bank."""
        qa = self._open_qa()
        spent = time_writes(qa)
        with stopwatch() as took:
            done = qa.ingest(source)
        self._video_id = source.info.video_id
        names = _MANY_CORES if qa.ingester.overlaps_compute else _ONE_CORE
        stages = {
            names.get(name, name): seconds
            for name, seconds in (done.seconds | spent).items()
            if name != "total"
        }
        stages["other"] = took.wall_s - sum(
            seconds for name, seconds in stages.items() if not name.endswith("beside")
        )
        facts = {"bytes": done.nbytes, "segments": done.segments, "frames": done.frames}
        return Timed(took.wall_s, took.cpu_s, stages, facts=facts)

    def ask(self, question: str) -> Timed:
        """Ask the bank.

        The first question after encoding may also load the video, which the warm-up covers.
        """
        qa = self._open_qa()
        with stopwatch() as took:
            answer = qa.ask(Question(question, self._video_id))
        stages = {name: seconds for name, seconds in answer.seconds.items() if name != "total"}
        stages["other"] = took.wall_s - sum(stages.values())
        new_tokens = self._config.reader["max_new_tokens"]
        first = sum(stages.get(name, 0.0) for name in FIRST_TOKEN_STAGES)
        each = stages["decode"] / max(new_tokens - 1, 1)
        return Timed(
            took.wall_s, took.cpu_s, stages, first, each, facts={"frames_read": answer.frames_read}
        )

    def drop(self) -> None:
        if self._qa is not None:
            self._qa.bank.close()
            self._qa = None

    def _open_qa(self) -> VideoQA:
        if self._qa is None:
            self._clip = self._clip or build_clip(self._config)
            self._qa = build_qa(self._config, self._backbone, self._clip)
        return self._qa
