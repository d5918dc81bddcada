"""What the tasks of the command line do and print. Knows no error format: mistakes are UserErrors."""

import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from encoders.errors import UserError
from pipeline.config import units
from pipeline.schema import Answer, CitedLine, Ingested

# these bring torch: loaded when a task needs them, not for a mistake on the command line
if TYPE_CHECKING:
    from memory.bank import MemoryBank
    from memory.store import Problem
    from pipeline.qa import Progress as Report
    from pipeline.qa import VideoQA


def clock_time(seconds: float) -> str:
    """ "02:05" or "1:02:05"."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return (
        f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
        if hours
        else f"{rest // 60:02d}:{rest % 60:02d}"
    )


@contextmanager
def progress_bar(name: str, duration: float) -> Iterator["Report"]:
    """A bar on stderr with video time, speed against real time and bytes; one line in ten seconds when not a terminal."""
    began, console = time.perf_counter(), Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[video]}  {task.fields[speed]}  {task.fields[size]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        job = bar.add_task(
            f"encoding {name}", total=max(duration, 1e-6), video="00:00", speed="", size=""
        )
        told = began

        def report(seconds: float, nbytes: int) -> None:
            nonlocal told
            now = time.perf_counter()
            speed = f"{seconds / max(now - began, 1e-6):.1f}x real time"
            video = f"{clock_time(seconds)} / {clock_time(duration)}"
            size = f"{nbytes / 1e6:.1f} MB"
            bar.update(job, completed=min(seconds, duration), video=video, speed=speed, size=size)
            if not console.is_terminal and now - told > 10:
                told = now
                print(f"encoding {name}: {video}, {speed}, {size}", file=sys.stderr, flush=True)

        yield report


@contextmanager
def _opened(config: DictConfig) -> Iterator[tuple["VideoQA", Any]]:
    """The parts and the video's source; closes the bank."""
    from encoders.sources.container import check_file

    # before torch and a model are loaded: a wrong path is told at once
    check_file(Path(config.video))
    from pipeline.build import build_backbone, build_qa, build_source

    backbone = build_backbone(config)
    # before the bank is opened: a file that is no video creates nothing
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    gc.freeze()  # what was imported and loaded stays; see cli.main
    gc.enable()
    try:
        yield qa, source
    finally:
        qa.bank.close()


def _encode(config: DictConfig, qa: "VideoQA", source: Any) -> Ingested:
    known = qa.bank.video(source.info.video_id)
    if known is not None and qa.began is not None:
        _refuse_other_began(config, qa, source.info.video_id)
    if known is not None and known.finished:
        return qa.ingest(source)
    with progress_bar(Path(config.video).name, source.info.duration) as report:
        return qa.ingest(source, report)


def _refuse_other_began(config: DictConfig, qa: "VideoQA", video_id: str) -> None:
    """UserError when the bank says otherwise when a file began: it did so once."""
    began = qa.bank.began(video_id, qa.bank.next(video_id)[0])
    if began != qa.began and qa.bank.segments(video_id):
        stored = "without began=" if began is None else f"with began={units.written(began)}"
        raise UserError(
            f"began={config.began} does not fit: {config.video} is in bank {config.bank} {stored}; leave began= out, or encode "
            "into another bank=DIR"
        )


def ask(config: DictConfig) -> int:
    """reelbank ask."""
    if not str(config.question).strip():
        raise UserError(
            'The question is empty; give one, such as question="What is the code on the card?".'
        )
    asked_at = float("inf") if config.asked_at is None else config.asked_at
    if not asked_at >= 0:
        raise UserError(
            f"asked_at={asked_at:g} is before the video begins; give seconds of video time, 0 or more."
        )
    with _opened(config) as (qa, source):
        from memory.schema import Question

        encoded = _encode(config, qa, source)
        live = config.format == "text" and sys.stdout.isatty()
        emit = (lambda text: print(text, end="", flush=True)) if live else (lambda text: None)
        answer = qa.ask(Question(config.question, source.info.video_id, asked_at), emit)
        # what is said of the file is in both
        more = encoded.warning.removeprefix(answer.warning).strip()
        answer = replace(answer, warning=" ".join(filter(None, [answer.warning, more])))
    if config.format == "json":
        print(json.dumps(asdict(answer)))
    else:
        print("" if live else answer.text)
        print(told(answer))
    return 0


def told(answer: Answer) -> str:
    """Citations, warning and figures as text."""
    if answer.spans:
        lines = [
            "seen at "
            + ", ".join(
                f"{clock_time(a)}-{clock_time(b)} ({a:.1f}-{b:.1f} s)" for a, b in answer.spans
            )
        ]
    else:
        lines = [
            "no moment of the video shows it" if not answer.shown else "no single moment stands out"
        ]
    lines += [
        f"{_channel(line)} at {clock_time(line.start)} ({line.start:.1f} s): {line.text}"
        for line in answer.lines[:3]
    ]
    lines += [f"warning: {answer.warning}"] if answer.warning else []
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in answer.seconds.items())
    lines.append(
        f"{answer.frames_read} frames, {answer.visual_tokens} visual tokens; seconds: {stages}"
    )
    return "\n".join(lines)


def _channel(line: CitedLine) -> str:
    """ "subtitle", or with a hint that the answer does not rest on it."""
    return line.channel if line.read else f"beside it, {line.channel}"


def ingest(config: DictConfig) -> int:
    """reelbank ingest."""
    if OmegaConf.is_missing(config, "video") and (config.text or config.dense):
        return _words_alone(config)
    with _opened(config) as (qa, source):
        done = _encode(config, qa, source)
    if config.format == "json":
        print(json.dumps(asdict(done)))
        return 0
    new = (
        f"{done.new_segments} new segments, {done.nbytes / 1e6:.1f} MB"
        if done.new_segments
        else "nothing new"
    )
    print(
        f"{config.video}: {clock_time(done.video_seconds)} in {done.segments} segments, {done.frames} frames ({new}, "
        f"{done.seconds['total']:.1f} s) in bank {config.bank}"
    )
    if done.text_lines:
        print(
            "words: "
            + ", ".join(f"{count} lines by {name}" for name, count in done.text_lines.items())
        )
    if done.warning:
        print(f"warning: {done.warning}")
    return 0


def _words_alone(config: DictConfig) -> int:
    """The words of all videos of a bank; their pictures stay as they are."""
    from memory.bank import MemoryBank
    from memory.retrieval.clip import UniformRetriever
    from pipeline.build import check_format
    from pipeline.ingest import text as words

    check_format(config)
    if "captions" in config.text:
        raise UserError(
            "text=captions asks the model about the encoded video; give video=FILE as well"
        )
    found, sentences = words.extractors(config), words.sentence_encoder(config)
    names = [extractor.name for extractor in found]
    table: list[dict[str, Any]] = []
    with MemoryBank.open(
        config.bank, None, UniformRetriever(), recent_frames=0, create=False
    ) as held:
        held.begin_writing()
        if sentences is not None:
            held.refuse_other_vectors(sentences.made_with)
        for video in held.videos():
            failed = ""
            try:
                with words.Beside(held, found, words.video_file(video.info), sentences):
                    pass
            except UserError as error:  # its file is gone, say; the other videos go on
                failed = str(error)
            texts = held.texts(video.info.video_id)
            lines = {
                run.extractor: run.lines for run in texts if run.extractor in names or not names
            }
            note = failed or words.notes(held, video.info.video_id, names)
            table.append(
                {
                    "video_id": video.info.video_id,
                    "path": video.info.path,
                    "text_lines": lines,
                    "warning": note,
                }
            )
    if config.format == "json":
        print(json.dumps({"bank": config.bank, "videos": table}))
        return 0
    for row in table:
        counts = (
            ", ".join(f"{count} lines by {name}" for name, count in row["text_lines"].items())
            or "no words"
        )
        print(
            f"{row['video_id']}  {counts}  {row['path']}"
            + (f"\nwarning: {row['warning']}" if row["warning"] else "")
        )
    if not table:
        print("no video yet; `reelbank ingest video=FILE` adds one")
    return 0


def backbones(config: DictConfig) -> int:
    """reelbank backbones."""
    from pipeline.build import check_format
    from pipeline.commands.backbones import HEADS, all_facts, as_row, facts, legend
    from pipeline.config.parts import check

    check_format(config)
    for group in ("prefill",) if config.backbone is None else ("backbone", "prefill"):
        check(config, group)
    dtype = config.prefill.get("dtype")
    if config.backbone is None:
        rows = all_facts(config.fps, dtype)
    else:
        node: Any = OmegaConf.to_container(config.backbone, resolve=True)
        rows = [facts(node, config.fps, dtype)]
    if config.format == "json":
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    console = Console()
    if console.is_terminal:
        table = Table()
        for head in HEADS:
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*as_row(row))
        console.print(table)
    else:  # as Markdown: to read, to paste and to cut by column
        for cells in (HEADS, ("---",) * len(HEADS), *(as_row(row) for row in rows)):
            print("| " + " | ".join(cells) + " |")
        print()
    print(legend(config.fps, dtype, rows))
    return 0


def bank(config: DictConfig) -> int:
    """reelbank bank."""
    from memory.bank import MemoryBank
    from memory.retrieval.clip import UniformRetriever
    from memory.storage.catalog import CatalogDamagedError
    from memory.store import Problem
    from pipeline.build import check_format
    from pipeline.commands.ask import bank as keeping

    check_format(config)
    if config.action not in ("ls", "verify", "repair", "prune"):
        raise UserError(f"action={config.action} is not known; use ls, verify, repair or prune.")
    if config.action == "repair":
        return _repair(config)
    keeping.check(config)
    try:
        with MemoryBank.open(
            config.bank, None, UniformRetriever(), recent_frames=0, create=False
        ) as held:
            if config.action == "prune":
                return keeping.prune(config, held)
            if config.action == "ls":
                return (
                    keeping.list_segments(config, held)
                    if keeping.is_of_segments(config)
                    else _list(config, held)
                )
            return _verified(
                config,
                held.verify(),
                sum(len(held.segments(video.info.video_id)) for video in held.videos()),
            )
    except CatalogDamagedError as error:
        if config.action != "verify":
            raise
        return _verified(
            config, [Problem("catalog", Path(config.bank) / "catalog.sqlite", str(error))], 0
        )


def _list(config: DictConfig, held: "MemoryBank") -> int:
    table: list[dict[str, Any]] = []
    for video in held.videos():
        rows = held.segments(video.info.video_id)
        table.append(
            {
                "video_id": video.info.video_id,
                "path": video.info.path,
                "seconds": rows[-1].end if rows else 0.0,
                "segments": len(rows),
                "frames": rows[-1].stop if rows else 0,
                "nbytes": sum(row.nbytes for row in rows),
                "text_nbytes": held.text_bytes(video.info.video_id),
                "finished": video.finished,
                "gaps": [[gap.start, gap.end] for gap in held.gaps(video.info.video_id)],
                "pruned_before": None if video.pruned is None else video.pruned.start,
                "broke_at": video.info.broke_at,
                "note": video.info.note,
                "text": [
                    {
                        "extractor": run.extractor,
                        "lines": run.lines,
                        "until": run.until,
                        "finished": run.finished,
                    }
                    for run in held.texts(video.info.video_id)
                ],
            }
        )
    if config.format == "json":
        print(json.dumps({"bank": config.bank, "made_with": held.provenance, "videos": table}))
        return 0
    print(
        f"{config.bank}: " + ", ".join(f"{key}={value}" for key, value in held.provenance.items())
    )
    for row in table:
        state = "complete" if row["finished"] else "unfinished"
        if row["broke_at"] is not None:
            state = f"file breaks at {row['broke_at']:.1f} s"
        if row["gaps"]:
            state = "missing " + ", ".join(f"{a:.1f}-{b:.1f} s" for a, b in row["gaps"])
        if row["pruned_before"] is not None:
            state += f", pruned before {units.on_the_clock(row['pruned_before'])}"
        words = f" and {row['text_nbytes'] / 1e6:.3f} MB of words" if row["text_nbytes"] else ""
        print(
            f"{row['video_id']}  {clock_time(row['seconds'])}  {row['segments']} segments  {row['frames']} frames  "
            f"{row['nbytes'] / 1e6:.1f} MB{words}  {state}  {row['path']}"
        )
        for text in row["text"]:
            until = "" if text["finished"] else f", up to {units.on_the_clock(text['until'])}"
            print(f"  {text['extractor']}: {text['lines']} lines{until}")
    if not table:
        print("no video yet; `reelbank ingest video=FILE` adds one")
    return 0


def _verified(config: DictConfig, problems: "Sequence[Problem]", count: int) -> int:
    if config.format == "json":
        print(json.dumps([asdict(problem) | {"path": str(problem.path)} for problem in problems]))
    elif problems:
        print("\n".join(str(problem) for problem in problems))
    else:
        print(f"{config.bank}: all {count} segments are whole")
    return 1 if problems else 0


def _repair(config: DictConfig) -> int:
    from pipeline.commands.repair import mend

    done = mend(config)
    if config.format == "json":
        print(json.dumps([asdict(each) for each in done]))
    else:
        print(
            "\n".join(
                [
                    *(str(each) for each in done),
                    f"{config.bank}: {_tally([each.whole for each in done])}",
                ]
            )
        )
    return 0 if all(each.whole for each in done) else 1


def _tally(whole: Sequence[bool]) -> str:
    if not whole:
        return "nothing was damaged"
    return f"{sum(whole)} mended" + (
        f", {len(whole) - sum(whole)} missing" if not all(whole) else ", all is whole"
    )
