"""The records that leave the system, and what an answer or a question means. Knows nothing of
models or disks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from encoders.errors import UserError
from encoders.schema import VideoInfo
from memory.schema import FrameName, VideoSpan

# attention: of the model while it answered. model: the frames that its answer names. search: the
# best frames of the search, because the answer names none
# "quote": the lines that the answer quotes. "finding": what the model said of each segment
CitedBy = Literal["attention", "model", "search", "quote", "finding"]


@dataclass(frozen=True, slots=True)
class CitedFrame:
    """A frame that an answer rests on."""

    video_id: str
    ordinal: int  # of the frame in its video
    segment: int
    time: float  # seconds of video time at which the frame's span begins
    end: float  # seconds at which the next frame is sampled
    weight: float  # 0..1: share of what the citations come from, see Answer.cited_by
    score: float | None  # of the retriever; None for a frame that was read as one of the newest


@dataclass(frozen=True, slots=True)
class CitedVideo:
    """What an answer cites and read of one video, of several."""

    video_id: str
    path: str
    # seconds, half open, rising: unions of cited frames, and of all frames that the model read
    spans: tuple[tuple[float, float], ...]
    recalled: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class CitedLine:
    """A line of text in the video that belongs to an answer."""

    start: float  # seconds
    end: float
    channel: str  # subtitle, ocr, speech, object, label or caption (a model's description)
    text: str
    coverage: float  # 0..1: share of the question's words in the line and near it
    # True: the model read it, or the answer quotes it; False: it was found beside the answer
    read: bool
    video_id: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server counted for an answer."""

    prompt_tokens: int
    answer_tokens: int
    cost: float | None = None  # in the currency of the prices that were set; None: no prices


def total_usage(usages: Iterable[Usage | None]) -> Usage | None:
    """The sum of what was counted; None where nothing was. No cost where one of them has none."""
    counted = [usage for usage in usages if usage is not None]
    if not counted:
        return None
    costs = [usage.cost for usage in counted if usage.cost is not None]
    return Usage(
        sum(usage.prompt_tokens for usage in counted),
        sum(usage.answer_tokens for usage in counted),
        sum(costs) if len(costs) == len(counted) else None,
    )


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One pass of the model for an answer. It may read several contexts side by side."""

    step: str  # what the pass was for, such as "answer", "map" or "reduce"
    contexts: int  # read side by side
    frames: int  # of all contexts
    visual_tokens: int  # of all contexts
    longest: int  # visual tokens of the longest context
    text_tokens: int  # of the questions and of the lines before them
    answer_tokens: int
    seconds: float
    usage: Usage | None = None  # of all contexts, as a server counted; None: the model is here


@dataclass(frozen=True, slots=True)
class Basis:
    """What a sentence of an answer rests on."""

    text: str  # the sentence, or the item of a list
    # seconds of the answer's video_id, half open, rising; () where nothing of it is cited
    spans: tuple[tuple[float, float], ...]
    videos: tuple[VideoSpan, ...] = ()  # the spans of all videos, if several were read


@dataclass(frozen=True, slots=True)
class Trace:
    """How an answer came about: which strategy answered, why, and what it did."""

    strategy: str  # of conf/answer/, by name
    why: str  # one sentence
    calls: tuple[ModelCall, ...] = ()  # in order
    basis: tuple[Basis, ...] = ()  # of each sentence or item
    reused: int = 0  # findings that the bank had, each in place of a context
    notes: tuple[str, ...] = ()  # such as where pictures and words disagree

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of all calls."""
        return sum(call.visual_tokens for call in self.calls)

    @property
    def usage(self) -> Usage | None:
        """What a server counted for all calls."""
        return total_usage(call.usage for call in self.calls)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with what it rests on."""

    question: str
    text: str
    shown: bool  # False: the answer says that the video does not show it; then nothing is cited
    # seconds, half open, rising: unions of cited frames, or of the lines that the answer quotes
    spans: tuple[tuple[float, float], ...]
    cited: tuple[CitedFrame, ...]  # heaviest first
    video_id: str  # that the spans are of: of several, the one that the answer rests on most
    asked_at: float | None  # seconds of video time; None = the whole video
    frames_read: int
    visual_tokens: int
    # by stage: search_text (where there is text), search, load, lay_out, first_token, decode, cite,
    # total
    seconds: dict[str, float]
    warning: str = ""  # what the user must know about the source, such as that the file breaks off
    lines: tuple[CitedLine, ...] = ()  # text of the video, best first
    # seconds, half open, rising: unions of all frames that the model read
    recalled: tuple[tuple[float, float], ...] = ()
    cited_by: CitedBy = "attention"  # what the citations come from
    usage: Usage | None = None  # None: the model runs in this process
    # where the answer comes from: "picture" (the model, from frames and what it read with them),
    # the channel of the quoted lines, or "" where nothing answers
    channel: str = ""
    # 0..1: that the film says it in the best line, also where that is too little for an answer; of
    # a model's answer, that the frames show it, where abstention= measures that; else None
    confidence: float | None = None
    trace: Trace | None = None  # None for an answer about pictures that are in no bank
    videos: tuple[CitedVideo, ...] = ()  # all that were read, in the prompt's order, if several
    # Unix seconds of each span; () where the bank does not know when the video was
    wall_clock: tuple[tuple[float, float], ...] = ()
    is_cut: bool = False  # the text ends where no more tokens were allowed
    is_stopped: bool = False  # a stop text of the question ended it; the text may be empty

    def __post_init__(self) -> None:
        """ValueError on an answer that says nothing, or that cites beside "not shown"."""
        if not self.text.strip() and not self.is_stopped:
            raise ValueError("an answer without text")
        if not self.shown and (self.spans or self.cited or self.lines):
            raise ValueError("an answer that cites what it does not show")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader returns."""

    text: str
    # frame -> share of the attention on frames during the answer; sums to 1 (or empty)
    weights: dict[FrameName, float]
    cited_by: CitedBy = "attention"  # what the weights come from
    usage: Usage | None = None
    warning: str = ""  # what the user must know about this answer
    frames_read: int | None = None  # None: all frames of the evidence
    # 0..1: that the frames do not show what is asked; None: not measured (conf/abstention)
    absence: float | None = None
    is_cut: bool = False  # the text ends where no more tokens were allowed
    is_stopped: bool = False  # a stop text of the question ended it; the text may be empty
    answer_tokens: int | None = None  # None: nobody counted; the text tells

    @property
    def is_blank(self) -> bool:
        """Whether the model said nothing, though no stop text kept it from that."""
        return not self.text.strip() and not self.is_stopped


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What the bank has of a video after encoding, and what the encoding took."""

    video_id: str
    video_seconds: float  # encoded up to here
    segments: int
    frames: int
    new_segments: int  # encoded by this call; 0 when the bank had them all
    nbytes: int  # of the segment files that this call wrote
    seconds: dict[str, float]  # by stage
    warning: str = ""
    text_lines: dict[str, int] = field(default_factory=dict)  # extractor -> lines in the bank
    # extractor -> seconds of wall time that this call took for it
    text_seconds: dict[str, float] = field(default_factory=dict)
    thumbnail_bytes: int = 0  # of nbytes: JPEGs of the frames (source.keep=)
    new_seconds: float = 0.0  # of video time, encoded by this call
    # further frame embedder -> frames in the bank that it embedded
    pictures: dict[str, int] = field(default_factory=dict)


NOT_SHOWN = "not in the video"
NOT_SAID = "not said in the film"
NOT_SEEN = "not seen in the film"
PICTURE = "picture"  # the channel of an answer from frames
# how words of a channel reach the viewer
CHANNEL_WORDS = {
    "subtitle": "said",
    "speech": "said",
    "ocr": "on screen",
    "detection": "seen",
    "object": "seen",
    "label": "seen",
    "caption": "described",
    "finding": "found",
    PICTURE: "seen",
}


def is_shown(text: str) -> bool:
    """False when the answer says that the video does not show it."""
    return NOT_SHOWN not in text.lower()


def source_warning(info: VideoInfo) -> str:
    """What a user must know about the file; "" where there is nothing. A second decoder alone is no
    reason to warn."""
    if info.broke_at is None:
        # how it was decoded, or that the catalog was written anew, changes nothing for the user
        silent = ("PyAV was used as", "the catalog was lost")
        text = "; ".join(note for note in info.note.split("; ") if not note.startswith(silent))
        return f"{text[:1].upper()}{text[1:]}." if text else ""
    return f"The file breaks at {info.broke_at:.1f} s; only what comes before is used."


def check_question(
    text: str, remedy: str = 'give one, such as question="What is the code on the card?"'
) -> None:
    """Raise UserError when a question is empty. remedy: what to do, in the interface's words."""
    if not text.strip():
        raise UserError(f"The question is empty; {remedy}.")
