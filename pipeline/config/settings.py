"""The typed dials of every command, so that a wrong key or a wrong type is refused before anything is loaded.

Hydra's structured configs: conf/TASK.yaml begins with the task's dataclass. Knows no part.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

WEIGHTS = Path(__file__).parents[1] / "embedded" / "weights"


@dataclass
class Dials:
    """What most runs turn; everything else belongs to a part."""

    bank: str = "reelbank-bank"  # folder
    fps: float = 1.0  # sampled frames per second of video
    # visual tokens that an answer may read; None = 24 uncompressed frames'
    read_tokens: int | None = None
    # tokens of recalled words in the prompt; None = 512, of the embedded model 0
    read_text_tokens: int | None = None
    recent_frames: int = 4  # newest frames that every answer reads
    # keys and values at rest: bfloat16, int8 or int4; None = prefill.dtype
    kv_dtype: str | None = None
    # visual tokens at rest: bfloat16, int8 or int4; None = as the model makes them
    token_dtype: str | None = None
    # RAM of the bank: search rows, and frames that were read before (10^6 bytes each)
    ram_mb: int = 1024
    device_mb: int = 1024  # the same frames in a GPU's memory; nothing on a CPU
    prefetch_frames: int = 16  # neighbours of what was recalled, read ahead after an answer
    cite_share: float = 0.4  # cite frames with at least this share of the heaviest frame's weight
    seed: int = 0
    # torch threads; 0 = as many as there are cores; 1 = one core, and nothing is computed beside anything
    threads: int = 0
    # freed memory that the process may keep; None = 1024 for a wide model on a CPU, else 0
    keep_freed_mb: int | None = None
    format: str = "text"  # or json
    backbone: Any = MISSING
    clip: Any = MISSING
    source: Any = MISSING
    segmenter: Any = MISSING
    compressor: Any = MISSING
    prefill: Any = MISSING
    retriever: Any = MISSING
    reader: Any = MISSING
    text: Any = MISSING
    dense: Any = MISSING


@dataclass
class Ingest(Dials):
    """reelbank ingest."""

    video: str = MISSING
    start: float = 0.0  # seconds of the video to begin at
    end: float | None = None  # seconds to stop at; None = the end of the video
    # when second 0 of the video was, such as 2026-11-20T12:00:00+01:00; "" = nobody knows
    began: str = ""


@dataclass
class Ask(Ingest):
    """reelbank ask."""

    question: str = MISSING
    asked_at: float | None = None  # seconds; nothing after it is seen


@dataclass
class Find:
    """reelbank find."""

    # words, "quoted words", and perhaps a time: in the first half, after 12:30
    query: str = MISSING
    bank: str = "reelbank-bank"
    video: str = ""  # id or path of one video; "" = the whole bank
    # and kv
    channels: list[str] = field(
        default_factory=lambda: ["subtitle", "speech", "ocr", "caption", "picture"]
    )
    start: float | None = None  # only moments from these seconds of video time on
    end: float | None = None
    asked_at: float | None = None  # seconds; with video=: nothing after it is seen
    top: int = 10  # moments
    widen: float = 0.0  # seconds of neighbourhood on each side of a moment
    format: str = "text"  # or json, or html
    out: str = "find.html"  # format=html: the page
    thumbnails: bool = False  # format=json: a small JPEG of each moment, as base64
    fps: float = 1.0  # the bank's: some backbones want to know
    # with dense=: so many of the best lines are compared with the query token by token; 0 = none
    late_lines: int = 0
    clip: Any = MISSING
    dense: Any = MISSING  # lines that mean the same in other words; the bank's
    planner: Any = MISSING  # who says how much each channel counts
    # loaded for channels=[...,kv], which needs the bank's, and for planner=model
    backbone: Any = MISSING


@dataclass
class Bank:
    """reelbank bank."""

    bank: str = "reelbank-bank"
    action: str = "ls"
    format: str = "text"
    video: str = ""  # id or path of one video; "" = all
    start: float | None = None  # ls: segments from these seconds of video time on
    end: float | None = None
    # ls: segments from this moment on, such as 2026-11-20T12:00 (local time) or with an offset
    since: str = ""
    until: str = ""
    older_than: str = ""  # prune: segments that were over so long ago: 7d, 12h, 30m, 90s
    max_bytes: str = ""  # prune: the oldest segments, until the rest takes no more: 10GB, 500MB
    dry_run: bool = False  # prune: only say what would go


@dataclass
class Backbones:
    """reelbank backbones."""

    fps: float = 1.0  # sampled frames per second of video, for the bytes per hour
    format: str = "text"
    backbone: Any = None  # one of them alone, perhaps with a path; None = all
    prefill: Any = MISSING  # its dtype is the bank's


@dataclass
class Repair(Ingest):
    """reelbank bank action=repair."""

    video: str = ""  # the bank knows where its videos were
    action: str = "repair"


@dataclass
class Needle(Dials):
    """reelbank needle."""

    action: str = "all"  # make, run, score, or all of them
    out: str = "runs/needle"  # folder: films, items, rows, report
    minutes: list[float] = MISSING  # lengths of films
    depths: list[float] = MISSING  # per cent of the film, of needles that are asked for alone
    tasks: list[str] = MISSING
    films: list[int] = MISSING  # of each task: one number for each length, or one for all
    # card, subtitle, fullscreen, picture, object: each needle has one of them
    looks: list[str] = MISSING
    needle_seconds: float = 2.0
    spliced: bool = False  # footage stops while a needle shows; False: it goes on underneath
    haystack: list[str] = MISSING  # files, or a folder of them; [] = procedural footage
    # write films as H.264 and read those; False: frames are rendered while they stream
    files: bool = False
    width: int = 192  # of films, in pixels
    height: int = 108
    arms: dict[str, list[str]] = MISSING  # name -> overrides
    controls: list[str] = MISSING
    # longer films have no haystack_only control: it costs encoding them twice
    twin_minutes: float = 60.0
    full_tokens: int = 4096  # films with more visual tokens have no full control
    # or letters: ask four times as VNBench does; the embedded model was never taught letters
    answers: str = "words"
    # True: a film stays in the bank after its questions; 0.2 GB an hour of the embedded model
    keep_banks: bool = False
    # with action=score: a file of results in one of VNBench's forms, scored by its rules
    predictions: str = ""
    # the command line itself, for the arms; filled in by the command
    given: list[str] = field(default_factory=list)


@dataclass
class Batch(Dials):
    """reelbank batch."""

    jobs: str = MISSING  # JSONL, JSON, CSV, TSV or Parquet; what its columns mean is annotations=
    out: str = MISSING  # folder of answers, tables and run.json; the same folder again goes on
    videos: str = ""  # where relative paths of videos begin; "" = beside the job file
    downloads: str = ""  # where videos from URLs are kept; "" = out/videos
    shard: str = ""  # K/N: only the videos of this part, each with an out and a bank of its own
    strict: bool = False  # true: a row that cannot be used stops the run before it begins
    unlabelled: bool = False  # true: take questions with options whose right one is not told
    # questions about one video in one pass of the model; each takes the memory of what an answer reads
    at_once: int = 8
    action: str = "run"  # or compare, or join: the runs of shards into one
    # folders: two with action=compare, two or more with action=join
    runs: list[str] = field(default_factory=list)
    annotations: Any = MISSING
    choice: Any = MISSING
    compute: Any = MISSING


@dataclass
class Listen(Dials):
    """What `serve` and `demo` have in common."""

    # address to listen at; 0.0.0.0 = all of this machine's, for everybody who can reach it
    host: str = "127.0.0.1"
    port: int = 8321  # 0 = any that is free
    # names under which others reach it, beside localhost and IP addresses
    names: list[str] = field(default_factory=list)
    files: str = ""  # folder of the videos that are handed in; "" = BANK-files
    # from which videos are fetched, or streams taken (docs/guides/serve.md)
    hosts: list[str] = field(default_factory=list)
    running: int = 2  # questions that are answered at once
    upload_mb: int = 4096  # of one video
    files_gb: float = 50.0  # of all videos that were handed in
    body_seconds: float = 600.0  # that a request may take to come in


@dataclass
class Serve(Listen):
    """reelbank serve."""

    api_key: str = ""  # "" = that of the environment variable REELBANK_API_KEY, or none
    model: str = "reelbank"  # the name that clients ask for
    private: bool = False  # true: videos are also fetched from addresses that are not public
    # questions that may wait, and videos that may wait to be encoded; more are refused with 429
    waiting: int = 16
    seconds: float = 300.0  # that a question may take, encoding included
    request_mb: int = 64  # of a chat request, with videos in base64
    letters: int = 2000  # of a question


@dataclass
class Demo(Listen):
    """reelbank demo."""

    port: int = 7860
    # NAME:PASSWORD; "" = that of the environment variable REELBANK_AUTH, or no login
    auth: str = ""


@dataclass
class Bench(Dials):
    """reelbank bench."""

    part: str = "arms"  # beside transformers alone; or store: the bank's parts alone
    out: str = "runs/bench"  # folder: bench.json, bench.md, figures
    work: str = ""  # folder for banks and made models while it runs; "" = inside out
    video: str = ""  # its frames, decoded once; "" = frames and a film made on the spot
    start: float = 0.0  # seconds of the video to begin at
    end: float | None = None
    # sizes of a random model made on the spot (vision, text); None = the backbone as it is configured
    made: Any = None
    rounds: int = 5
    new_tokens: int = 32  # of every answer, no more and no less
    read_frames: int = 64  # that an answer reads; read_tokens follows from it
    lengths: list[int] = MISSING  # frames
    questions: int = 2  # in each round, every arm the same ones
    ours: dict[str, list[str]] = MISSING  # name -> overrides
    plain: list[str] = MISSING  # which baselines: kv_kept, whole_prompt
    # what the baseline that keeps its cache may take at once; the fastest one is used
    chunk_frames: list[int] = MISSING
    tune_frames: int = 600  # on which that is found out
    # an arm with a slower call is measured once, and not at all over longer videos
    round_seconds: float = 300.0
    memory_mb: int = 8000  # an arm that would grow by more is left out (10^6 bytes)
    matmul_side: int = 2048  # of the matrices whose product says what the machine can do
    film_seconds: float = 60.0  # of the film that is encoded from a file; 0 = none
    film_width: int = 1280
    film_height: int = 720
    # store: banks of so long a video at one frame a second, shortest first
    hours: list[float] = MISSING
    index_rows: list[int] = MISSING  # store: rows of the frame index
    # store: what they are like
    index_kinds: list[str] = field(default_factory=lambda: ["film", "random"])
    index_frames: int = 4096  # store: frames that are embedded for rows like a film's
    retriever_rows: list[int] = MISSING  # store: frames that the retrievers search
    more_frames: int = 128  # store: that are encoded at the end of a long bank, in each round
    asked: int = 40  # store: queries of each search
    together: int = 8  # store: questions at once
    # the command line itself, for the arms; filled in by the command
    given: list[str] = field(default_factory=list)


def register() -> None:
    """Make the nodes and the ${weights:...} resolver known to Hydra; may be called again."""
    store = ConfigStore.instance()
    schemas = {
        "ask_schema": Ask,
        "ingest_schema": Ingest,
        "bank_schema": Bank,
        "find_schema": Find,
        "repair_schema": Repair,
        "backbones_schema": Backbones,
        "needle_schema": Needle,
        "batch_schema": Batch,
        "serve_schema": Serve,
        "demo_schema": Demo,
        "bench_schema": Bench,
    }
    for name, node in schemas.items():
        store.store(name=name, node=node)
    OmegaConf.register_new_resolver("weights", lambda name: str(WEIGHTS / name), replace=True)
