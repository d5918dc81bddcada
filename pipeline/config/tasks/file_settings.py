"""The settings of tasks about files: a watched folder, records of other programs, clips, and files
of moments."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pipeline.config.settings import Form, PartSettings, Settings, mandatory, setting
from pipeline.config.tasks.pipeline_settings import BANK, IngestSettings, OutputFormat
from pipeline.config.tasks.question_settings import EXPORT


class DeletedFilms(StrEnum):
    """What a watched folder's bank does with a film whose file is deleted."""

    keep = "keep"
    drop = "drop"


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
class ImportSettings(Settings):
    """reelbank import."""

    task: ClassVar[str] = "import"

    video: str = mandatory(
        "Path or id of a film of the bank.", heading="What to import", form=Form.PATH
    )
    file: str = mandatory(
        "File of records: JSON, JSONL, COCO's detections, Whisper's JSON, .vtt or .srt.",
        form=Form.PATH,
    )
    bank: str = setting("", BANK, form=Form.PATH)
    name: str = setting(
        "",
        "Name of the records in the bank; an import replaces those of its name. Empty: the file's.",
    )
    kind: str = setting("", "Kind of rows that name none: detection, ocr or speech.")
    min_score: float | None = setting(
        None, "Rows with a lower score are left out. null: 0.5 for detections, 0 for words."
    )
    frame_rate: float = setting(0.0, "Frames per second, for rows that count frames. 0: none do.")
    first_frame: int = setting(0, "Number of the frame at second 0 of the film.")
    remove: bool = setting(False, "Removes what was imported under this name.")
    format: OutputFormat = setting(OutputFormat.text, "What the command prints.", heading="Output")
    dense: PartSettings = mandatory("Encodes lines of text by meaning; empty: by words alone.")


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

    out: str = mandatory(EXPORT.removesuffix(" Empty: none."), heading="File", form=Form.PATH)
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
