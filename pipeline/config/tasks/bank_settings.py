"""The settings of tasks that look after a bank, a model or the machine."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.settings import Form, PartSettings, Settings, mandatory, setting
from pipeline.config.tasks.pipeline_settings import BANK, IngestSettings, OutputFormat


@dataclass
class BankSettings(Settings):
    """reelbank bank."""

    task: ClassVar[str] = "bank"

    bank: str = setting("", BANK, heading="What to do", form=Form.PATH)
    action: str = setting("ls", "ls, verify, prune, compact or repair.")
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
        "Deletes or compacts segments that ended longer ago than this: 7d, 12h, 30m, 90s.",
        heading="action=prune, action=compact",
    )
    max_bytes: str = setting(
        "", "Deletes the oldest segments until the rest takes no more than this: 10GB, 500MB."
    )
    dry_run: bool = setting(False, "Says what would be done, and changes nothing.")
    kv_dtype: str | None = setting(
        None,
        "Type in which compacted segments keep keys and values: bfloat16, int8 or int4. "
        "null: int4.",
        heading="action=compact",
    )
    token_dtype: str | None = setting(
        None, "The same for visual tokens: bfloat16, int8 or int4. null: int4."
    )


@dataclass
class RepairSettings(IngestSettings):
    """reelbank bank action=repair."""

    task: ClassVar[str] = "bank"

    video: str = setting("", "Unused: the bank knows where its videos are.", form=Form.PATH)
    action: str = setting("repair", "Always repair.")


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

    bank: str = setting("", BANK, heading="What to look at", form=Form.PATH)
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
