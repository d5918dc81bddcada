"""The records that leave the system. Knows nothing of models or disks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CitedFrame:
    """A frame that an answer rests on."""

    ordinal: int  # of the frame in its video
    segment: int
    time: float  # seconds of video time at which its stretch begins
    end: float  # seconds at which the next frame is sampled
    weight: float  # share of the reader's attention on recalled frames while it answered, 0..1
    score: float | None  # of the retriever; None when the frame was there as one of the newest


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with what it rests on."""

    question: str
    text: str
    shown: bool  # False: the answer is that the video does not show it; then nothing is cited
    spans: tuple[tuple[float, float], ...]  # seconds, half open, rising: unions of cited frames
    cited: tuple[CitedFrame, ...]  # heaviest first
    video_id: str
    asked_at: float | None  # seconds of video time; None = the whole video
    frames_read: int
    visual_tokens: int
    seconds: dict[str, float]  # per stage: search, load, lay_out, first_token, decode, total
    warning: str = ""  # what the user must know about the source, such as that it broke off
    recalled: tuple[tuple[float, float], ...] = ()  # seconds, half open, rising: unions of all frames that were read


@dataclass(frozen=True, slots=True)
class Ingested:
    """What encoding a video came to."""

    video_id: str
    video_seconds: float  # encoded up to here
    segments: int
    frames: int
    new_segments: int  # encoded by this call; 0 when the bank had them all
    nbytes: int  # of the segment files that this call wrote
    seconds: dict[str, float]
    warning: str = ""
