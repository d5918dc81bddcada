"""The settings of tasks that ask: ask, find and summary."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pipeline.config.settings import Form, PartSettings, Settings, mandatory, setting
from pipeline.config.tasks.pipeline_settings import (
    ALSO_BANKS,
    BANK,
    MESSAGES,
    IngestSettings,
    Messages,
)


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


_HISTORY_TOKENS = (
    "Visual tokens of read_tokens that the frames cited by earlier answers may take; older rounds "
    "lose frames first. 0: none come along."
)

_FOLLOW_UP = "Writes a question in full that points back at earlier ones."

_TELL_ROUNDS = "Earlier questions and answers that the model reads before a question."

_CLIPS = "Folder that gets a clip of each moment, and clips.json, their list. Empty: none."

_EXACT_CLIPS = (
    "Clips begin and end with the moment, and not at keyframes; some pictures are encoded."
)

EXPORT = (
    "File of the moments: .csv, .json, .vtt, .edl, .otio, .fcpxml, or a contact sheet: .jpg, .png, "
    ".webp. Empty: none."
)


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
    export: str = setting("", EXPORT, form=Form.PATH)


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

    query: str = setting(
        "",
        'Words, "quoted words", and a time if wanted: in the first half, after 12:30.',
        heading="What to find",
    )
    image: str = setting(
        "", "File of a picture, or of a short clip, that moments look like.", form=Form.PATH
    )
    like: str = setting(
        "",
        "Moment of a film of the bank that others look like: FILM@0:31, FILM@0:31-0:45, or @2: "
        "hit 2 of the last search.",
    )
    picture_weight: float = setting(
        0.5, "Share of the picture beside query=, 0 to 1, in what image= and like= search for."
    )
    bank: str = setting("", BANK, form=Form.PATH)
    also_banks: list[str] = setting([], ALSO_BANKS, form=Form.PATH)
    video: str = setting("", "Id or path of one video. Empty: the whole bank.", form=Form.PATH)
    also: list[str] = setting(
        [], "Further videos to search, beside that of video=: paths, or ids.", form=Form.PATH
    )
    encode: bool = setting(False, "Encodes the files of video= and also= that the bank lacks.")
    channels: list[str] = setting(
        ["subtitle", "speech", "ocr", "detection", "object", "label", "caption", "picture"],
        "Where to search: subtitle, speech, ocr, detection, object, label, caption, picture, kv.",
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
    export: str = setting("", EXPORT, form=Form.PATH)
    messages: Messages = setting(Messages.progress, MESSAGES)
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
    line_scan: PartSettings = mandatory("Finds lines by reading all of them; empty: no.")
    text: dict[str, PartSettings] | None = setting(
        None, "Extractors of text for encode=true. null: as in `reelbank ingest`."
    )
    planner: PartSettings = mandatory("Says how much each channel counts.")
    backbone: PartSettings = mandatory(
        "Loaded for channels=[...,kv], which needs that of the bank, for planner=model, for "
        "line_scan=attention, and for encode=true."
    )
