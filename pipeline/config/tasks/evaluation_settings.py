"""The settings of tasks with many questions: batches and benchmarks."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.settings import Form, PartSettings, mandatory, setting
from pipeline.config.tasks.pipeline_settings import PipelineSettings


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
    attention: bool = setting(
        False,
        "Measures the share of the attention over all frames that the frames which are read hold; "
        "a pass over the whole film for each question.",
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
