"""The records that leave the system. Knows nothing of models or disks."""

from dataclasses import dataclass, field

from encoders.errors import UserError
from encoders.schema import VideoInfo


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
class CitedLine:
    """Words of the video that belong to an answer."""

    start: float  # seconds
    end: float
    channel: str  # subtitle, ocr, speech or caption (what a model wrote about the pictures)
    text: str
    coverage: float  # 0..1: how much of what the question asks for stands in it and near it
    read: bool  # whether the model read it; False: it was found beside the answer


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
    seconds: dict[
        str, float
    ]  # by stage: search_text (where there is text), search, load, lay_out, first_token, decode, cite, total
    warning: str = ""  # what the user must know about the source, such as that it broke off
    lines: tuple[CitedLine, ...] = ()  # words of the video, best first
    # seconds, half open, rising: unions of all frames that were read
    recalled: tuple[tuple[float, float], ...] = ()


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
    text_lines: dict[str, int] = field(default_factory=dict)  # extractor -> lines in the bank


NOT_SHOWN = "not in the video"


def is_shown(text: str) -> bool:
    """False when the answer is that the video does not show what was asked."""
    return NOT_SHOWN not in text.lower()


def source_warning(info: VideoInfo) -> str:
    """What a user must know about the file; a second decoder alone is no reason to worry."""
    if info.broke_at is None:
        return info.note if "could be decoded" in info.note else ""
    return f"The file breaks at {info.broke_at:.1f} s; only what comes before is used."


def check_question(
    text: str, remedy: str = 'give one, such as question="What is the code on the card?"'
) -> None:
    """Raise UserError when a question is empty. remedy: what to do, in the words of the interface."""
    if not text.strip():
        raise UserError(f"The question is empty; {remedy}.")
