"""The typed settings of every task: a wrong key or a wrong type is refused before anything loads.

Hydra's structured configs: conf/TASK.yaml begins with the dataclass of the task. Every field has a
remark with its meaning and unit; the reference page of the docs prints these remarks under their
headings. Knows no part: a part is a node of conf/, such as conf/reader/kv.yaml. Imports no Hydra
before register(), so that the command line knows the keys of a task at once.
"""

import copy
import functools
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from encoders.errors import UserError

# A node of conf/: `_target_` names the class, `_partial_: true` leaves partners to build.py, and
# every other key is a parameter of the class. Plain values; parts may be nested.
PartSettings = dict[str, Any]

MISSING = "???"  # Hydra's mark for a setting that has no value yet

# keys of earlier versions, in the tasks that have the new key
RENAMED = {
    "at_once": "batch_size",
    "together": "batch_size",
    "asked": "queries",
    "more_frames": "appended_frames",
    "choice": "option_choice",
}

WEIGHTS = Path(__file__).parents[1] / "embedded" / "weights"


# the key of text=auto beside its extractors (conf/text/auto.yaml)
AUTO_TEXT = "auto"


class OutputFormat(StrEnum):
    """What a command prints."""

    text = "text"
    json = "json"


class MomentsFormat(StrEnum):
    """What `reelbank find` prints or writes."""

    text = "text"
    json = "json"
    html = "html"


class SummaryMethod(StrEnum):
    """Where the sentences of `reelbank summary` come from."""

    auto = "auto"
    extractive = "extractive"
    abstractive = "abstractive"


class DeletedFilms(StrEnum):
    """What a watched folder's bank does with a film whose file is deleted."""

    keep = "keep"
    drop = "drop"


class AgentTransport(StrEnum):
    """How `reelbank mcp` and its clients talk."""

    stdio = "stdio"
    http = "http"


class Messages(StrEnum):
    """What a command tells on stderr while it encodes."""

    none = "none"
    progress = "progress"
    summary = "summary"


class MissingSettingError(UserError, AttributeError):
    """A setting without a default is read, and nobody gave it a value."""


@dataclass(repr=False)
class Settings:
    """What the settings of all tasks have in common.

    A setting without a default that was not given is no attribute: to read it is a
    MissingSettingError, so a task needs no list of the settings that it reads.
    """

    task: ClassVar[str]  # the word behind `reelbank`
    answers_questions: ClassVar[bool] = False  # False: the task only encodes, or reads no frames
    reads_several_banks: ClassVar[bool] = False  # False: the task writes to its bank
    # True: the films are the user's own, so that clip=auto adds an embedder that knows the world
    encodes_the_world: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, str) and value == MISSING:
                delattr(self, name)

    if not TYPE_CHECKING:  # mypy would believe that there is every attribute

        def __getattr__(self, name: str) -> Any:
            if any(name == one.name for one in fields(self)):
                raise MissingSettingError(
                    f"{name}= is missing; say `reelbank {self.task} {name}=...`"
                )
            raise AttributeError(f"{type(self).__name__} has no setting {name!r}")

    def is_missing(self, name: str) -> bool:
        """True for a setting without a default that was not given."""
        return name not in vars(self)

    def changed(self, **values: Any) -> Self:
        """A deep copy with other values; what was missing may stay so."""
        own = copy.deepcopy(self)
        for name, value in values.items():
            assert any(name == one.name for one in fields(self)), name
            setattr(own, name, value)
        return own

    def to_dict(self) -> dict[str, Any]:
        """Plain values in the order of the fields, "???" where missing: for JSON and digests."""
        every = {one.name: vars(self).get(one.name, MISSING) for one in fields(self)}
        return {name: _plain(value) for name, value in every.items()}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Enum) else copy.deepcopy(value)


def revived(kind: type[Settings], values: dict[str, Any]) -> dict[str, Any]:
    """Values of JSON as those of the settings' types."""
    enums = {
        one.name: one.type
        for one in fields(kind)
        if isinstance(one.type, type) and issubclass(one.type, Enum)
    }
    return {name: enums[name](value) if name in enums else value for name, value in values.items()}


class Form(Enum):
    """What the text behind `key=` means, where its type does not say it."""

    PLAIN = "as the type says"
    PATH = "a file or folder, or a list of them: ~ is the home folder"
    SECONDS = "a time in a video: seconds, mm:ss or hh:mm:ss"


def setting(default: Any, help: str, *, heading: str = "", form: Form = Form.PLAIN) -> Any:
    """A field with a default. heading: the title of the group that begins with this field."""
    metadata = {"help": help, "heading": heading, "form": form}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def mandatory(help: str, *, heading: str = "", form: Form = Form.PLAIN) -> Any:
    """A field without a default: the user gives it, or a preset or a group of conf/ does."""
    # a factory leaves no attribute on the class, see Settings
    metadata = {"help": help, "heading": heading, "form": form}
    return field(default_factory=lambda: MISSING, metadata=metadata)


_HISTORY_TOKENS = (
    "Visual tokens of read_tokens that the frames cited by earlier answers may take; older rounds "
    "lose frames first. 0: none come along."
)
_FOLLOW_UP = "Writes a question in full that points back at earlier ones."
_TELL_ROUNDS = "Earlier questions and answers that the model reads before a question."
_MESSAGES = (
    "What stderr tells of encoding: none, progress, or summary: progress, then a line with time, "
    "speed and bytes, and a command to try next."
)
_CLIPS = "Folder that gets a clip of each moment, and clips.json, their list. Empty: none."
_EXACT_CLIPS = (
    "Clips begin and end with the moment, and not at keyframes; some pictures are encoded."
)
_EXPORT = (
    "File of the moments: .csv, .json, .vtt, .edl, .otio, .fcpxml, or a contact sheet: .jpg, .png, "
    ".webp. Empty: none."
)
_BANK = (
    "Folder of the bank. Empty: that of the variable REELBANK_BANK, or "
    "~/.local/share/reelbank (XDG_DATA_HOME)."
)


_ALSO_BANKS = (
    "Further banks of the same model, which ask, find, batch, summary, and serve read as one with "
    "bank=."
)


@dataclass
class PipelineSettings(Settings):
    """What most tasks share; everything else belongs to a part."""

    bank: str = setting("", _BANK, heading="Bank and video", form=Form.PATH)
    also_banks: list[str] = setting([], _ALSO_BANKS, form=Form.PATH)
    fps: float = setting(1.0, "Frames sampled per second of video.")

    read_tokens: int | None = setting(
        None,
        "Visual tokens that an answer may read. null: as many as 24 uncompressed frames have.",
        heading="What an answer reads and cites",
    )
    read_text_tokens: int | None = setting(
        None,
        "Tokens of recalled text in the prompt. null: 512, or 0 for a backbone that reads no text "
        "(reads_text=false).",
    )
    recent_frames: int = setting(4, "Newest frames that every answer reads.")

    kv_dtype: str | None = setting(
        None,
        "Stored type of keys and values: bfloat16, int8 or int4. null: prefill.dtype.",
        heading="Storage types",
    )
    token_dtype: str | None = setting(
        None,
        "Stored type of visual tokens: bfloat16, int8 or int4. null: the type of the model.",
    )

    ram_mb: int = setting(
        1024,
        "RAM of the bank in 10^6 bytes, once for search rows and once for frames read before.",
        heading="Memory and threads",
    )
    device_mb: int = setting(
        1024, "GPU memory for frames read before, in 10^6 bytes; unused on a CPU."
    )
    prefetch_frames: int = setting(
        16, "Neighbors of recalled frames that the bank reads ahead after an answer."
    )
    cite_share: float = setting(
        0.4,
        "Least weight of a cited frame, as a share of the heaviest frame's weight, 0 to 1.",
    )
    seed: int = setting(0, "Seed of all random numbers.")
    threads: int = setting(
        0,
        "Threads of torch. 0: one per core. 1: one core, and no stage runs beside another.",
    )
    keep_freed_mb: int | None = setting(
        None,
        "Freed memory that the process may keep, in 10^6 bytes. null: 1024 for a wide model on a "
        "CPU, else 0.",
    )

    format: OutputFormat = setting(OutputFormat.text, "What the command prints.", heading="Output")

    backbone: PartSettings = mandatory("The video language model.", heading="Parts")
    clip: PartSettings = mandatory("The frame embedder, or the primary one of several.")
    further_clips: dict[str, PartSettings] = setting(
        {},
        "Frame embedders beside clip, by name; clip=[embedded,conse] sets both, the primary one "
        "first.",
    )
    source: PartSettings = mandatory("Decodes the video.")
    segmenter: PartSettings = mandatory("Cuts the video into segments.")
    compressor: PartSettings = mandatory("Drops or merges visual tokens before they are stored.")
    prefill: PartSettings = mandatory("Computes keys and values of a segment.")
    retriever: PartSettings = mandatory("Finds the frames that an answer reads.")
    reader: PartSettings = mandatory("Answers from the recalled frames.")
    abstention: PartSettings = mandatory(
        'When an answer is "not in the video", beside when the model says so by itself.'
    )
    answer: PartSettings = mandatory(
        "The strategy: what of a video is read for a question, and how."
    )
    text: dict[str, PartSettings] = mandatory("Extractors of text, by name; several at once.")
    dense: PartSettings = mandatory("Encodes lines of text by meaning; empty: by words alone.")


@dataclass
class IngestSettings(PipelineSettings):
    """reelbank ingest."""

    task: ClassVar[str] = "ingest"
    encodes_the_world: ClassVar[bool] = True

    video: str = mandatory("Path of the video.", heading="Video", form=Form.PATH)
    start: float = setting(0.0, "Second of the video at which encoding begins.", form=Form.SECONDS)
    end: float | None = setting(
        None, "Second at which encoding stops. null: the end of the video.", form=Form.SECONDS
    )
    began: str = setting(
        "",
        "Wall-clock time of second 0 of the video, such as 2026-11-20T12:00:00+01:00. "
        "Empty: unknown.",
    )
    messages: Messages = setting(Messages.progress, _MESSAGES)


@dataclass
class WatchSettings(IngestSettings):
    """reelbank watch."""

    task: ClassVar[str] = "watch"

    folder: str = mandatory(
        "Folder whose films go into the bank.", heading="Folder", form=Form.PATH
    )
    recursive: bool = setting(True, "Takes films of the folders in it as well.")
    settle: float = setting(
        3.0, "Seconds for which size and time of a film must stand still before it is taken up."
    )
    every: float = setting(1.0, "Seconds between two looks at the folder.")
    deleted: DeletedFilms = setting(
        DeletedFilms.keep, "What the bank does with a film that is deleted: keep or drop."
    )
    once: bool = setting(False, "Ends when every film that is there is in the bank or has failed.")


@dataclass
class McpSettings(IngestSettings):
    """reelbank mcp."""

    task: ClassVar[str] = "mcp"
    answers_questions: ClassVar[bool] = True

    root: str = setting(
        "",
        "Folder whose films clients may add, links resolved. Empty: none may be added.",
        heading="What clients may reach",
        form=Form.PATH,
    )
    also_roots: list[str] = setting([], "Further folders of such films.", form=Form.PATH)
    clips: str = setting(
        "", "Folder that gets the clips that clients ask for. Empty: none are cut.", form=Form.PATH
    )
    transport: AgentTransport = setting(
        AgentTransport.stdio,
        "stdio: one client, which starts the command. http: many, at an address.",
        heading="Network",
    )
    host: str = setting("127.0.0.1", "Address to listen at. 0.0.0.0: all addresses.")
    port: int = setting(8322, "Port to listen at. 0: any free one.")
    names: list[str] = setting(
        [], "Host names of this server for its users, besides localhost and IP addresses."
    )
    api_key: str = setting(
        "", "Key that clients must send. Empty: that of the variable REELBANK_API_KEY, or none."
    )
    items: int = setting(50, "Moments, spans, or films in one reply, at most.", heading="Limits")
    letters: int = setting(20_000, "Characters of the words in one reply, at most.")
    pixels: int = setting(1280, "Longer side of a picture, at most.")
    clip_seconds: float = setting(600.0, "Seconds of a clip, at most.")
    waiting: int = setting(16, "Calls that may run or wait; further ones are refused.")


@dataclass
class AskSettings(IngestSettings):
    """reelbank ask."""

    task: ClassVar[str] = "ask"
    answers_questions: ClassVar[bool] = True
    reads_several_banks: ClassVar[bool] = True

    question: str = mandatory("The question.", heading="Question")
    also: list[str] = setting(
        [],
        "Further videos to ask about together: paths, or ids in the bank. With video=*: all.",
        form=Form.PATH,
    )
    asked_at: float | None = setting(
        None,
        "Second of the video at which the question is asked; the answer uses nothing after it. "
        "null: the end.",
        form=Form.SECONDS,
    )
    history_tokens: int = setting(0, f"In the prompt: {_HISTORY_TOKENS}", heading="Conversation")
    tell_rounds: int = setting(0, f"In the prompt: {_TELL_ROUNDS}")
    follow_up: PartSettings = mandatory(f"In the prompt: {_FOLLOW_UP}")
    clips: str = setting("", _CLIPS, heading="Files", form=Form.PATH)
    exact_clips: bool = setting(False, _EXACT_CLIPS)
    export: str = setting("", _EXPORT, form=Form.PATH)


@dataclass
class SummarySettings(IngestSettings):
    """reelbank summary."""

    task: ClassVar[str] = "summary"
    reads_several_banks: ClassVar[bool] = True

    video: str = setting(
        "",
        "File, or id of a video. Empty: all videos that when= or query= names, or the only one.",
        heading="What to summarize",
        form=Form.PATH,
    )
    start: float = setting(
        0.0, "Second of the film at which the summary begins.", form=Form.SECONDS
    )
    end: float | None = setting(
        None, "Second at which the summary ends. null: the end of the film.", form=Form.SECONDS
    )
    when: str = setting(
        "", "Words of time: in the first half, after 12:30, yesterday between 10:00 and 11:00."
    )
    query: str = setting("", "Words to find; the moments that fit are the chapters.")
    top: int = setting(10, "Moments that query= finds.")
    method: SummaryMethod = setting(
        SummaryMethod.auto,
        "extractive: sentences of the film; abstractive: the backbone writes one for each chapter; "
        "auto: abstractive with any backbone that reads text.",
    )
    sentences: int | None = setting(
        None,
        "Sentences of the overview. null: one for each chapter, from 3 to 12.",
        heading="Length",
    )
    chapter_sentences: int = setting(2, "Sentences of each chapter, at most.")
    shortest_chapter: float | None = setting(
        None, "Seconds of the shortest chapter. null: 1/20 of the stretch, and 30 or more."
    )
    out: str = setting(
        "",
        "File of the report: .html or .md. Empty: the summary is printed.",
        heading="Files",
        form=Form.PATH,
    )
    chapters: str = setting(
        "",
        "File of the chapters: .vtt (WebVTT), .ffmeta (FFmpeg) or .txt (YouTube).",
        form=Form.PATH,
    )


@dataclass
class FindSettings(Settings):
    """reelbank find."""

    task: ClassVar[str] = "find"
    reads_several_banks: ClassVar[bool] = True

    query: str = mandatory(
        'Words, "quoted words", and a time if wanted: in the first half, after 12:30.',
        heading="What to find",
    )
    bank: str = setting("", _BANK, form=Form.PATH)
    also_banks: list[str] = setting([], _ALSO_BANKS, form=Form.PATH)
    video: str = setting("", "Id or path of one video. Empty: the whole bank.", form=Form.PATH)
    also: list[str] = setting(
        [], "Further videos to search, beside that of video=: paths, or ids.", form=Form.PATH
    )
    encode: bool = setting(False, "Encodes the files of video= and also= that the bank lacks.")
    channels: list[str] = setting(
        ["subtitle", "speech", "ocr", "object", "label", "caption", "picture"],
        "Where to search: subtitle, speech, ocr, object, label, caption, picture, kv.",
    )
    start: float | None = setting(
        None, "Only moments from this second of video time on.", form=Form.SECONDS
    )
    end: float | None = setting(
        None, "Only moments before this second of video time.", form=Form.SECONDS
    )
    asked_at: float | None = setting(
        None,
        "Second of each video of video= and also= after which nothing is used. null: the end.",
        form=Form.SECONDS,
    )
    top: int = setting(10, "Moments in the result.", heading="Result")
    widen: float = setting(0.0, "Seconds of context on each side of a moment.")
    format: MomentsFormat = setting(MomentsFormat.text, "What the command prints or writes.")
    out: str = setting("find.html", "File of the page that format=html writes.", form=Form.PATH)
    clips: str = setting("", _CLIPS, form=Form.PATH)
    exact_clips: bool = setting(False, _EXACT_CLIPS)
    export: str = setting("", _EXPORT, form=Form.PATH)
    messages: Messages = setting(Messages.progress, _MESSAGES)
    thumbnails: bool = setting(False, "Adds a small base64 JPEG of each moment to format=json.")
    fps: float = setting(
        1.0, "Frames per second of the bank, which some backbones need.", heading="Parts"
    )
    late_lines: int = setting(
        0, "Best lines that dense= compares with the query token by token. 0: none."
    )
    clip: PartSettings = mandatory("The frame embedder of the bank, or the primary one.")
    further_clips: dict[str, PartSettings] = setting(
        {},
        "Frame embedders beside clip, by name; clip=[embedded,conse] sets both, the primary one "
        "first.",
    )
    dense: PartSettings = mandatory("Finds lines by meaning; the encoder of the bank.")
    text: dict[str, PartSettings] | None = setting(
        None, "Extractors of text for encode=true. null: as in `reelbank ingest`."
    )
    planner: PartSettings = mandatory("Says how much each channel counts.")
    backbone: PartSettings = mandatory(
        "Loaded for channels=[...,kv], which needs that of the bank, for planner=model, and for "
        "encode=true."
    )


@dataclass
class ClipSettings(Settings):
    """reelbank clip."""

    task: ClassVar[str] = "clip"

    video: str = mandatory(
        "File of the film, or @2: hit 2 of the last find or ask.", heading="What", form=Form.PATH
    )
    span: str = setting("", "The moment, such as 0:31-0:45. Empty: that of the hit.")
    widen: float = setting(0.0, "Seconds of context on each side of the moment.")
    out: str = setting(
        "",
        "File to write: .mp4, .mov, .mkv, .m4v, .gif or .webp. Empty: a name of the film and the "
        "second, in this folder.",
        heading="File",
        form=Form.PATH,
    )
    overwrite: bool = setting(False, "Replaces a file that is there already.")
    manifest: bool = setting(True, "Writes FILE.json beside it: film, moment, question, score.")
    exact: bool = setting(
        False,
        "Begins and ends with the moment; pictures next to its ends are encoded again. false: "
        "begins at the keyframe before, and nothing is encoded.",
        heading="Pictures",
    )
    fps: float = setting(10.0, "Pictures per second of a .gif or .webp.")
    longest_side: int = setting(480, "Pixels of a .gif or .webp, at most.")
    format: OutputFormat = setting(OutputFormat.text, "What the command prints.")


@dataclass
class ExportSettings(Settings):
    """reelbank export."""

    task: ClassVar[str] = "export"

    out: str = mandatory(_EXPORT.removesuffix(" Empty: none."), heading="File", form=Form.PATH)
    format: OutputFormat = setting(OutputFormat.text, "What the command prints.")


@dataclass
class SheetSettings(Settings):
    """reelbank sheet."""

    task: ClassVar[str] = "sheet"

    video: str = mandatory(
        "File of the film, or @: the hits of the last find or ask.", heading="What", form=Form.PATH
    )
    start: float = setting(0.0, "Second of the film at which the sheet begins.", form=Form.SECONDS)
    end: float | None = setting(
        None, "Second at which it ends. null: the end of the film.", form=Form.SECONDS
    )
    count: int = setting(24, "Pictures of a film, at most: one for each stretch that looks alike.")
    out: str = setting(
        "",
        "File to write: .jpg, .png or .webp. Empty: FILM_sheet.jpg in this folder.",
        heading="File",
        form=Form.PATH,
    )
    columns: int = setting(4, "Pictures in a row.")
    width: int = setting(320, "Pixels of each picture.")
    format: OutputFormat = setting(OutputFormat.text, "What the command prints.")


@dataclass
class BankSettings(Settings):
    """reelbank bank."""

    task: ClassVar[str] = "bank"

    bank: str = setting("", _BANK, heading="What to do", form=Form.PATH)
    action: str = setting("ls", "ls, verify, prune or repair.")
    format: OutputFormat = setting(OutputFormat.text, "What the command prints.")
    video: str = setting("", "Id or path of one video. Empty: all.", form=Form.PATH)
    start: float | None = setting(
        None,
        "Only segments from this second of video time on.",
        heading="action=ls",
        form=Form.SECONDS,
    )
    end: float | None = setting(
        None, "Only segments before this second of video time.", form=Form.SECONDS
    )
    since: str = setting(
        "",
        "Only segments from this moment on: 2026-11-20T12:00 in local time, or with an offset.",
    )
    until: str = setting("", "Only segments before this moment.")
    older_than: str = setting(
        "",
        "Deletes segments that ended longer ago than this: 7d, 12h, 30m, 90s.",
        heading="action=prune",
    )
    max_bytes: str = setting(
        "", "Deletes the oldest segments until the rest takes no more than this: 10GB, 500MB."
    )
    dry_run: bool = setting(False, "Says what would be deleted, and deletes nothing.")


@dataclass
class BackbonesSettings(Settings):
    """reelbank backbones."""

    task: ClassVar[str] = "backbones"

    fps: float = setting(
        1.0, "Frames sampled per second of video, for the bytes per hour.", heading="Table"
    )
    format: OutputFormat = setting(OutputFormat.text, "What the command prints.")
    backbone: PartSettings | None = setting(
        None, "One backbone alone, with a path if wanted. null: all of them."
    )
    prefill: PartSettings = mandatory("Its dtype is that of the stored keys and values.")


@dataclass
class DoctorSettings(Settings):
    """reelbank doctor."""

    task: ClassVar[str] = "doctor"

    bank: str = setting("", _BANK, heading="What to look at", form=Form.PATH)
    format: OutputFormat = setting(OutputFormat.text, "What the command prints.")


@dataclass
class PullSettings(Settings):
    """reelbank pull."""

    task: ClassVar[str] = "pull"

    name: str = mandatory(
        "A model of `reelbank models`, b32 for the frame embedder, or a repository as ORG/NAME.",
        heading="What to fetch",
    )
    yes: bool = setting(False, "Fetches without asking, however large.")
    ask_over: str = setting("1GB", "Size over which the command asks; without a terminal: refuses.")
    format: OutputFormat = setting(OutputFormat.text, "What the command prints.")


@dataclass
class RepairSettings(IngestSettings):
    """reelbank bank action=repair."""

    task: ClassVar[str] = "bank"

    video: str = setting("", "Unused: the bank knows where its videos are.", form=Form.PATH)
    action: str = setting("repair", "Always repair.")


@dataclass
class NeedleSettings(PipelineSettings):
    """reelbank needle."""

    task: ClassVar[str] = "needle"
    answers_questions: ClassVar[bool] = True

    action: str = setting("all", "make, run, score, or all of them.", heading="Run")
    out: str = setting(
        "runs/needle", "Folder of films, questions, rows and the report.", form=Form.PATH
    )

    minutes: list[float] = mandatory("Lengths of the films, in minutes.", heading="Films")
    tokens: list[int] = setting(
        [], "Lengths in tokens of the language model, in place of minutes: 8192, 16384, ..."
    )
    depths: list[float] = mandatory(
        "Positions of single needles, in percent of the length of the film."
    )
    tasks: list[str] = mandatory("Kinds of questions.")
    needle_task: dict[str, PartSettings] = mandatory("The tasks that tasks= can name.")
    needles: str = setting(
        "",
        "Folder of own needles: pictures and clips, with needles.csv, .json or .jsonl.",
        form=Form.PATH,
    )
    films: list[int] = mandatory("Films of each task: one number per length, or one for all.")
    looks: list[str] = mandatory(
        "Looks of needles: card, subtitle, fullscreen, picture, object; each needle has one."
    )
    needle_seconds: float = setting(2.0, "Seconds that a needle shows.")
    spliced: bool = setting(
        False, "True: the footage stops while a needle shows. False: it goes on underneath."
    )
    haystack: list[str] = mandatory(
        "Videos, or a folder of them. Empty: procedural footage.", form=Form.PATH
    )
    files: bool = setting(
        False, "True: films are H.264 files. False: frames are rendered while they stream."
    )
    width: int = setting(192, "Width of the films in pixels.")
    height: int = setting(108, "Height of the films in pixels.")

    arms: dict[str, list[str]] = mandatory("Arms: name and overrides.", heading="Arms")
    controls: list[str] = mandatory("Controls that say what a score is worth.")
    dials: dict[str, str] = setting(
        {},
        "Arm -> a setting and its range, such as fps=0.1..1.0, tuned until an hour takes bank_mb.",
    )
    bank_mb: float = setting(
        0.0, "Bytes of an hour in the bank, in 10^6, that dials are tuned to. 0: no dial is tuned."
    )
    papers: dict[str, str] = setting(
        {},
        "Arm -> what it is and its paper. Not empty: a leaderboard is written beside the report.",
    )
    twin_minutes: float = setting(
        60.0,
        "Longest film, in minutes, with the control haystack_only, which encodes it twice.",
    )
    full_tokens: int = setting(4096, "Most visual tokens of a film with the control full.")
    answers: str = setting(
        "words",
        "words, or letters: four tries as in VNBench. The embedded model knows no letters.",
    )
    keep_banks: bool = setting(
        False,
        "Keeps the bank of a film after its questions; 0.2 GB an hour of the embedded model.",
    )
    predictions: str = setting(
        "",
        "With action=score: a file of results in a form of VNBench, scored by its rules.",
        heading="Scores of other models",
        form=Form.PATH,
    )
    given: list[str] = setting([], "The command line itself; the command fills it in for the arms.")


@dataclass
class BatchSettings(PipelineSettings):
    """reelbank batch."""

    task: ClassVar[str] = "batch"
    answers_questions: ClassVar[bool] = True
    reads_several_banks: ClassVar[bool] = True

    jobs: str = mandatory(
        "Questions: JSONL, JSON, CSV, TSV or Parquet; annotations= says what the columns mean.",
        heading="Questions and answers",
        form=Form.PATH,
    )
    out: str = mandatory(
        "Folder of answers, tables and run.json; the same folder again resumes the run.",
        form=Form.PATH,
    )
    videos: str = setting(
        "",
        "Folder at which relative paths of videos begin. Empty: that of the job file.",
        form=Form.PATH,
    )
    downloads: str = setting("", "Folder for videos from URLs. Empty: out/videos.", form=Form.PATH)
    shard: str = setting(
        "", "K/N: only the videos of part K of N; each part needs an out= and a bank= of its own."
    )
    strict: bool = setting(False, "Stops before the run begins when one row cannot be used.")
    unlabelled: bool = setting(
        False, "Takes questions with options even where the right option is unknown."
    )
    batch_size: int = setting(
        8,
        "Questions about one video in one pass of the model; each takes the memory of one answer.",
    )
    controls: list[str] = setting(
        [],
        "Controls that say what a score is worth, such as [blind,last4,uniform,oracle]: each "
        "question is asked again in each, in rows of their own.",
    )
    full_tokens: int = setting(4096, "Most visual tokens of a video with the control full.")
    action: str = setting(
        "run",
        "run; retrieve, which ranks moments and answers nothing; score the answers in out= again; "
        "compare two runs; or join the runs of shards.",
        heading="Runs",
    )
    runs: list[str] = setting(
        [],
        "Folders of runs: two with action=compare, two or more with action=join.",
        form=Form.PATH,
    )
    annotations: PartSettings = mandatory("Reads the rows of a benchmark.", heading="Parts")
    option_choice: PartSettings = mandatory("Chooses an option of a multiple-choice question.")
    score: dict[str, PartSettings] = mandatory(
        "Scorers by name, several at once; annotations= chooses those of its benchmark."
    )
    compute: PartSettings = mandatory("Where the workers run.")
    given: list[str] = setting(
        [], "The command line itself; action=score finds there whether scorers were chosen."
    )


@dataclass
class ListenSettings(PipelineSettings):
    """What `serve` and `demo` share."""

    answers_questions: ClassVar[bool] = True
    encodes_the_world: ClassVar[bool] = True

    host: str = setting(
        "127.0.0.1",
        "Address to listen at. 0.0.0.0: all addresses, open to everybody who can reach them.",
        heading="Network",
    )
    port: int = setting(8321, "Port to listen at. 0: any free one.")
    names: list[str] = setting(
        [], "Host names of this server for its users, besides localhost and IP addresses."
    )
    files: str = setting("", "Folder of uploaded videos. Empty: BANK-files.", form=Form.PATH)
    hosts: list[str] = setting(
        [], "Hosts from which videos are fetched and streams are taken, such as *.example.org."
    )
    running: int = setting(2, "Questions that are answered at once.", heading="Limits")
    upload_mb: int = setting(4096, "Size limit of one uploaded video, in 10^6 bytes.")
    files_gb: float = setting(50.0, "Size limit of all uploaded videos, in 10^9 bytes.")
    body_seconds: float = setting(600.0, "Seconds that the body of a request may take to arrive.")
    uploads: int = setting(16, "Uploads that may arrive at once.")
    bodies: int = setting(128, "Bodies of other requests that may arrive at once.")
    bodies_mb: int = setting(
        256, "Size limit of all these bodies together, in 10^6 bytes of memory."
    )


@dataclass
class ServeSettings(ListenSettings):
    """reelbank serve."""

    task: ClassVar[str] = "serve"
    reads_several_banks: ClassVar[bool] = True

    api_key: str = setting(
        "",
        "Key that clients must send. Empty: that of the variable REELBANK_API_KEY, or none.",
        heading="Clients",
    )
    model: str = setting("reelbank", "Name of the model in the API.")
    whole_bank: bool = setting(
        False,
        "True: a second model, NAME-bank, answers from every video of the bank, whoever brought "
        "it.",
    )
    private: bool = setting(False, "True: videos are also fetched from private addresses.")
    waiting: int = setting(
        16,
        "Questions, and videos, that may wait; further ones are refused with status 429.",
        heading="Limits of requests",
    )
    seconds: float = setting(300.0, "Seconds that a question may take, encoding included.")
    request_mb: int = setting(
        64, "Size limit of a chat request with its base64 videos, in 10^6 bytes."
    )
    letters: int = setting(2000, "Length limit of a question, in characters.")
    history_tokens: int = setting(0, _HISTORY_TOKENS, heading="Conversation")
    tell_rounds: int = setting(0, _TELL_ROUNDS)
    follow_up: PartSettings = mandatory(_FOLLOW_UP)


@dataclass
class DemoSettings(ListenSettings):
    """reelbank demo."""

    task: ClassVar[str] = "demo"

    port: int = setting(7860, "Port to listen at. 0: any free one.")
    history_tokens: int = setting(0, _HISTORY_TOKENS, heading="Conversation")
    tell_rounds: int = setting(0, _TELL_ROUNDS)
    follow_up: PartSettings = mandatory(_FOLLOW_UP)
    auth: str = setting(
        "",
        "NAME:PASSWORD of the login. Empty: that of the variable REELBANK_AUTH, or no login.",
        heading="Login",
    )


@dataclass
class BenchSettings(PipelineSettings):
    """reelbank bench."""

    task: ClassVar[str] = "bench"

    part: str = setting(
        "arms",
        "arms: Reelbank beside transformers alone; store: the parts of the bank; all: both.",
        heading="Run",
    )
    out: str = setting("runs/bench", "Folder of bench.json, bench.md and figures.", form=Form.PATH)
    work: str = setting(
        "", "Folder for banks and models during the run. Empty: inside out.", form=Form.PATH
    )

    video: str = setting(
        "",
        "Video whose frames all arms encode. Empty: made-up frames and a film.",
        heading="Input",
        form=Form.PATH,
    )
    start: float = setting(0.0, "Second of the video at which encoding begins.", form=Form.SECONDS)
    end: float | None = setting(
        None, "Second at which encoding stops. null: the end of the video.", form=Form.SECONDS
    )
    made: dict[str, PartSettings] | None = setting(
        None,
        "Sizes of a random model (vision, text) in place of the weights of the backbone. null: "
        "the backbone as it is.",
    )

    rounds: int = setting(5, "Rounds that are measured.", heading="Comparison with transformers")
    new_tokens: int = setting(32, "Tokens of every answer, exactly.")
    read_frames: int = setting(64, "Frames that an answer reads; they set read_tokens.")
    lengths: list[int] = mandatory("Lengths of the video, in frames.")
    questions: int = setting(2, "Questions of each round; every arm answers the same ones.")
    ours: dict[str, list[str]] = mandatory("Arms of Reelbank: name and overrides.")
    plain: list[str] = mandatory("Baselines of transformers: kv_kept, whole_prompt.")
    chunk_frames: list[int] = mandatory(
        "Frames that the baseline kv_kept may encode at once; the run uses the fastest of these."
    )
    tune_frames: int = setting(600, "Frames on which the fastest chunk_frames is found.")
    round_seconds: float = setting(
        300.0,
        "Seconds of the slowest call that is repeated; a slower arm runs once, and not on longer "
        "videos.",
    )
    memory_mb: int = setting(
        8000, "Memory that an arm may add, in 10^6 bytes; an arm that needs more is left out."
    )
    matmul_side: int = setting(
        2048, "Side of the matrices whose product measures the speed of the machine."
    )
    film_seconds: float = setting(
        60.0, "Seconds of the film that is encoded from a file. 0: no film."
    )
    film_width: int = setting(1280, "Width of that film in pixels.")
    film_height: int = setting(720, "Height of that film in pixels.")

    hours: list[float] = mandatory(
        "Hours of video in the banks of the store part, at one frame a second, shortest first.",
        heading="Parts of the bank",
    )
    index_rows: list[int] = mandatory("Rows of the frame index.")
    index_kinds: list[str] = setting(
        ["film", "random"],
        "Rows: film, random, or as published of CLIP and SigLIP (clip512, siglip768).",
    )
    index_frames: int = setting(4096, "Frames that are embedded to make rows like those of a film.")
    retriever_rows: list[int] = mandatory("Frames that the retrievers search.")
    appended_frames: int = setting(128, "Frames that each round encodes at the end of a long bank.")
    queries: int = setting(40, "Queries of each search.")
    batch_size: int = setting(8, "Questions that one pass of the model answers.")
    given: list[str] = setting([], "The command line itself; the command fills it in for the arms.")


# by the name of conf/NAME.yaml; `reelbank bank action=repair` has settings of its own
TASK_SETTINGS: dict[str, type[Settings]] = {
    "ask": AskSettings,
    "ingest": IngestSettings,
    "bank": BankSettings,
    "find": FindSettings,
    "summary": SummarySettings,
    "watch": WatchSettings,
    "mcp": McpSettings,
    "clip": ClipSettings,
    "export": ExportSettings,
    "sheet": SheetSettings,
    "repair": RepairSettings,
    "backbones": BackbonesSettings,
    "needle": NeedleSettings,
    "batch": BatchSettings,
    "serve": ServeSettings,
    "demo": DemoSettings,
    "bench": BenchSettings,
    "doctor": DoctorSettings,
    "pull": PullSettings,
}


@functools.cache  # storing them takes 0.07 s, and a benchmark composes dozens of times
def register() -> None:
    """Make the settings and the ${weights:...} resolver known to Hydra; may be called again."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    for name, node in TASK_SETTINGS.items():
        store.store(name=f"{name}_schema", node=node)
    OmegaConf.register_new_resolver("weights", lambda name: str(WEIGHTS / name), replace=True)
