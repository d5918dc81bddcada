"""What most tasks share: the parts of the pipeline, and the film that is encoded."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pipeline.config.settings import Form, PartSettings, Settings, mandatory, setting

# the key of text=auto beside its extractors (conf/text/auto.yaml)
AUTO_TEXT = "auto"


class OutputFormat(StrEnum):
    """What a command prints."""

    text = "text"
    json = "json"


class Messages(StrEnum):
    """What a command tells on stderr while it encodes."""

    none = "none"
    progress = "progress"
    summary = "summary"


MESSAGES = (
    "What stderr tells of encoding: none, progress, or summary: progress, then a line with time, "
    "speed and bytes, and a command to try next."
)

BANK = (
    "Folder of the bank. Empty: that of the variable REELBANK_BANK, or "
    "~/.local/share/reelbank (XDG_DATA_HOME)."
)

ALSO_BANKS = (
    "Further banks of the same model, which ask, find, batch, summary, and serve read as one with "
    "bank=."
)

AT_ONCE, ON_DEMAND, ON_DEMAND_BLOCKS = "at_once", "on_demand", "on_demand_blocks"
VISUAL_TOKENS = (
    "When the model's visual tokens are made: at_once, or on_demand, which only makes films "
    "searchable, and encodes what a question reads; on_demand_blocks encodes that with fewer "
    "frames before it. null: as the bank has it; a new one, at_once."
)

MADE_WITH = (
    "Checkpoint that the bank was made with, where backbone= has another language model behind the "
    "same vision tower: its keys and values fit no other, and its visual tokens are read "
    "(reader=tokens)."
)


@dataclass
class PipelineSettings(Settings):
    """What most tasks share; everything else belongs to a part."""

    bank: str = setting("", BANK, heading="Bank and video", form=Form.PATH)
    also_banks: list[str] = setting([], ALSO_BANKS, form=Form.PATH)
    fps: float = setting(1.0, "Frames sampled per second of video.")
    visual_tokens: str | None = setting(None, VISUAL_TOKENS)
    made_with: str = setting("", MADE_WITH, form=Form.PATH)

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
    kv_policy: PartSettings = mandatory(
        "What of keys and values is stored, and what of them each head reads."
    )
    eviction_score: PartSettings = mandatory(
        "What a token is worth to kv_policy=eviction, which keeps the best ones."
    )
    block_score: PartSettings = mandatory(
        "What retriever=kv keeps of a frame's keys, and how that scores."
    )
    query_pool: PartSettings = mandatory("Which queries of a question retriever=kv searches with.")
    key_index: PartSettings = mandatory("Which frames retriever=kv compares with the question.")
    retriever: PartSettings = mandatory("Finds the frames that an answer reads.")
    frame_order: PartSettings = mandatory("In which order the reader gets the frames.")
    resolution: PartSettings = mandatory(
        "How many visual tokens of each frame the reader gets; all by default."
    )
    position: PartSettings = mandatory(
        "How far apart the tokens stand that the reader reads, for rotary embedding."
    )
    encode_position: PartSettings = mandatory(
        "The same while frames are encoded; chosen by position@encode_position=."
    )
    sparsity: PartSettings = mandatory(
        "Which of the tokens before it a token of a frame reads that reader=tokens reads again."
    )
    reader: PartSettings = mandatory("Answers from the recalled frames.")
    abstention: PartSettings = mandatory(
        'When an answer is "not in the video", beside when the model says so by itself.'
    )
    answer: PartSettings = mandatory(
        "The strategy: what of a video is read for a question, and how."
    )
    text: dict[str, PartSettings] = mandatory("Extractors of text, by name; several at once.")
    dense: PartSettings = mandatory("Encodes lines of text by meaning; empty: by words alone.")
    line_scan: PartSettings = mandatory(
        "Finds lines by reading all of them, for each question; empty: no."
    )


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
    messages: Messages = setting(Messages.progress, MESSAGES)
