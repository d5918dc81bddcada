"""The second part: files, index, retrievers, the reader's own overhead, questions at once and long banks, each measured alone.

Shapes are those of the configured backbone. Cold: after the files were pushed out of the page cache (a disk or a host may still
have them). Builds what it needs from the configuration; no baseline.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from encoders.models.llava_onevision import LlavaOneVision
from encoders.schema import Frames, Segment, VideoInfo
from memory.schema import Question, Retriever, SegmentIndex
from memory.storage.catalog import VideoRow
from memory.store import DiskStore
from pipeline.build import build_qa
from pipeline.config.parts import call, part
from pipeline.evaluation.speed import footage, frame_index
from pipeline.evaluation.speed.against_transformers import Recompose
from pipeline.evaluation.speed.clocks import middle, quantile, watch
from pipeline.evaluation.speed.frame_index import HITS
from pipeline.evaluation.speed.long_banks import grow
from pipeline.evaluation.speed.ours import TO_FIRST
from pipeline.evaluation.speed.rounds import question
from pipeline.evaluation.speed.schema import Row, Table
from pipeline.evaluation.throughput import forget, read_frames, read_plainly
from pipeline.qa import VideoQA
from pipeline.query.batched import Ahead, TextAhead
from pipeline.runtime.run_ahead import one_thread
from pipeline.runtime.stage_timer import Clock

_SEGMENT = 8  # frames of a made-up segment, about what the segmenter makes
_CHUNK = 8192  # made-up rows at a time


def measure(
    config: DictConfig, backbone: LlavaOneVision, recompose: Recompose, work: Path, rows: list[Row]
) -> None:
    """Everything of this part, into `rows` as it comes."""
    own = recompose([])
    own.bank = str(work / "short")
    frames = footage.noise(max(config.lengths), config.fps, backbone.frame_size, video_id="short")
    qa = build_qa(own, backbone)
    with qa.bank:
        qa.ingest(footage.ReadyFrames(frames, config.fps))
        pattern = [qa.bank.segment("short", row.number) for row in qa.bank.segments("short")]
        rows += _at_once(config, qa)
        rows += _overhead(config, qa)
        provenance = dict(qa.bank.provenance)
        clip = qa.clip
    whole = [segment for segment in pattern if len(segment) == len(pattern[0])]
    rows += _files(config, whole, work)
    rows += frame_index.measure(config, clip)
    rows += _retrievers(config, backbone, recompose, whole[0])
    rows += _long_banks(config, backbone, recompose, whole, provenance, work)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Of the rows."""
    made = [
        _files_table,
        frame_index.table,
        _retrievers_table,
        _at_once_table,
        _overhead_table,
        _long_table,
        _append_table,
    ]
    return [table for table in (make(rows) for make in made) if table.rows]


# ---- questions at once, and the decoder's own step


def _at_once(config: DictConfig, qa: VideoQA) -> list[Row]:
    rows: list[Row] = []
    for number in range(-1, config.rounds):  # the first round warms up
        texts = [
            question((number + 1) * (config.together + 1) + i) for i in range(config.together + 1)
        ]
        with watch() as one:
            qa.ask(Question(texts[0], "short"))
        with watch() as many:
            qa.ask_all([Question(text, "short") for text in texts[1:]])
        if number >= 0:
            rows.append(
                {"kind": "together", "round": number, "one_s": one.wall_s, "many_s": many.wall_s}
            )
            rows[-1] |= {
                "one_cpu_s": one.cpu_s,
                "many_cpu_s": many.cpu_s,
                "questions": config.together,
            }
    return rows


def _overhead(config: DictConfig, qa: VideoQA) -> list[Row]:
    """Seconds a token of an answer, and of the bare decoder steps with logits and argmax over the same context."""
    rows: list[Row] = []
    steps = config.new_tokens - 1
    if steps < 1:
        return rows
    evidence = qa.bank.recall(
        Question(question(0), "short"), read_tokens=qa.read_tokens, kv=qa.reader.needs_kv
    )
    for number in range(-1, config.rounds):
        clock = Clock()
        qa.reader.read(evidence, clock)
        with one_thread(qa.backbone.is_narrow):  # as reading does
            bare = _bare_steps(qa, evidence, steps)
        if number >= 0:
            rows.append(
                {
                    "kind": "overhead",
                    "round": number,
                    "ours_s": clock.seconds["decode"] / steps,
                    "bare_s": bare / steps,
                }
            )
    return rows


@torch.inference_mode()
def _bare_steps(qa: VideoQA, evidence: Any, steps: int) -> float:
    """Seconds of the decoder alone: embeddings and positions at hand, nobody listens, no text."""
    backbone = qa.backbone
    tail = qa.reader.tail(evidence.question.text)
    with qa.reader.context(evidence, len(tail) + steps + 1, Clock()) as (cache, _):
        backbone.advance(tail, cache)
        first = cache.cursor.next
        # [n, 1, 1, D]
        embeds = backbone.embed(list(range(steps)))[:, None, None].to(backbone.dtype)
        # [n, 1, 1]
        places = torch.arange(first, first + steps, device=backbone.device)[:, None, None]
        began = time.perf_counter()
        for embed, place in zip(embeds, places, strict=True):
            hidden = backbone.decoder(
                inputs_embeds=embed, position_ids=place, past_key_values=cache, use_cache=True
            ).last_hidden_state
            int(backbone.model.lm_head(hidden)[0, -1].argmax())
        return time.perf_counter() - began


# ---- files


def _files(config: DictConfig, pattern: Sequence[Segment], work: Path) -> list[Row]:
    """Writing segments durably, reading frames spread over them."""
    root, rows = work / "files", list[Row]()
    store = DiskStore(root)
    store.record(VideoRow(VideoInfo("files", "in memory", 0.0, "none"), 1.0 / config.fps, False))
    start = 0.0
    for number in range(max(len(pattern), 16)):
        segment = pattern[number % len(pattern)]
        seen = replace(segment.tokens, times=segment.tokens.times + start - segment.start)
        end = segment.end + start - segment.start
        made = replace(segment, video_id="files", number=number, start=start, end=end, tokens=seen)
        with watch() as took:
            row = store.put(made)
        start = end
        rows.append(
            {
                "kind": "write",
                "wall_s": took.wall_s,
                "cpu_s": took.cpu_s,
                "bytes": row.nbytes,
                "frames": row.frames,
            }
        )
    store.close()
    files = sorted((root / "segments").rglob("*.safetensors"))
    each = sum(row["bytes"] for row in rows) / sum(row["frames"] for row in rows)
    for number in range(config.rounds):
        for temperature in ("cold", "warm"):
            if temperature == "cold":
                forget(files)
            else:
                read_plainly(files)
            found, seconds = read_frames(root, config.read_frames)
            rows.append(
                {
                    "kind": "read",
                    "temperature": temperature,
                    "round": number,
                    "wall_s": seconds,
                    "frames": found,
                }
            )
            rows[-1]["bytes"] = found * each
    return rows


# ---- retrievers


def _made_rows(count: int, width: int, seed: int) -> np.ndarray:
    """[count, width] float32 unit rows: scenes of 30 frames that resemble each other, as frames of a film do."""
    rng = np.random.default_rng(seed)
    scenes = rng.standard_normal((count // 30 + 1, width), dtype=np.float32)
    rows = np.repeat(scenes, 30, axis=0)[:count]
    for a in range(0, count, _CHUNK):
        part_ = rows[a : a + _CHUNK]
        part_ += 0.6 * rng.standard_normal(part_.shape, dtype=np.float32)
        part_ /= np.linalg.norm(part_, axis=1, keepdims=True)
    return rows


def _retrievers(
    config: DictConfig, backbone: LlavaOneVision, recompose: Recompose, like: Segment
) -> list[Row]:
    """Each retriever over so many frames, as a question asks it."""
    found: list[Row] = []
    for name in ("uniform", "clip", "kv", "fused"):
        own = recompose([f"retriever={name}"])
        for count in config.retriever_rows:
            partners = {
                "embedder": TextAhead(part(own, "clip")),
                "queries": Ahead(backbone.queries_of),
            }
            retriever: Retriever = call("retriever", part(own, "retriever"), **partners)
            _feed(retriever, count, like, config.seed)
            times = []
            for number in range(config.asked + 2):
                with watch() as took:
                    retriever.search(Question(question(number), "made"), HITS, count)
                if number >= 2:
                    times.append(took.wall_s)
            row: Row = {
                "kind": "retriever",
                "retriever": name,
                "rows": count,
                "bytes": retriever.nbytes,
            }
            found.append(
                row
                | {
                    "p50_s": quantile(times, 0.5),
                    "p95_s": quantile(times, 0.95),
                    "queries": len(times),
                }
            )
            retriever.forget("made")
    return found


def _feed(retriever: Retriever, count: int, like: Segment, seed: int) -> None:
    """Let a retriever take in made-up frames of the shapes of a real segment."""
    clip = torch.from_numpy(_made_rows(count, like.clip.shape[1], seed))
    for first in range(0, count, _SEGMENT):
        stop = min(first + _SEGMENT, count)
        means = None
        if like.key_means is not None:
            generator = torch.Generator().manual_seed(first)
            means = torch.randn((stop - first, *like.key_means.shape[1:]), generator=generator)
        times = torch.arange(first, stop, dtype=torch.float64)
        retriever.add(
            SegmentIndex("made", first // _SEGMENT, first, times, clip[first:stop], means)
        )


# ---- long banks


def _long_banks(
    config: DictConfig,
    backbone: LlavaOneVision,
    recompose: Recompose,
    pattern: Sequence[Segment],
    provenance: dict[str, str | int | float | None],
    work: Path,
) -> list[Row]:
    """Questions over banks of different lengths in turn, cold and warm, then encoding on at their ends, in turn."""
    rows: list[Row] = []
    banks: dict[float, tuple[Path, int]] = {}
    for hours in config.hours:
        root = work / f"{hours:g}-hours"
        with watch() as took:
            info = VideoInfo(f"long-{hours:g}", "in memory", 3600 * hours, "none")
            frames = grow(root, provenance, pattern, info, 3600 * hours, 1.0 / config.fps)
        banks[hours] = root, frames
        with watch() as taking:  # the search rows are saved when the bank is closed
            _ask_once(config, backbone, recompose, root, hours, 0, [])
        nbytes = sum(path.stat().st_size for path in (root / "segments").rglob("*.safetensors"))
        rows.append(
            {
                "kind": "long",
                "hours": hours,
                "frames": frames,
                "bytes": nbytes,
                "making_s": took.wall_s,
            }
        )
        rows[-1]["taking_in_s"] = taking.wall_s
    for number in range(config.rounds):
        for hours in config.hours if number % 2 == 0 else reversed(config.hours):
            # warm: the same question, its files read a moment ago, nothing of them in the bank's RAM
            for temperature in ("cold", "warm"):
                cold = (
                    list((banks[hours][0] / "segments").rglob("*.safetensors"))
                    if temperature == "cold"
                    else []
                )
                told = _ask_once(config, backbone, recompose, banks[hours][0], hours, number, cold)
                rows.append(
                    {
                        "kind": "long_ask",
                        "hours": hours,
                        "round": number,
                        "temperature": temperature,
                    }
                    | told
                )
    for number in range(config.rounds if banks else 0):
        for hours in config.hours if number % 2 == 0 else reversed(config.hours):
            each, cpu, tokens = _append(config, backbone, recompose, banks[hours][0], hours)
            rows.append(
                {
                    "kind": "append",
                    "hours": hours,
                    "round": number,
                    "frame_s": each,
                    "frame_cpu_s": cpu,
                }
            )
            rows[-1] |= {"frames": banks[hours][1], "tokens": tokens}
    return rows


def _opened(backbone: LlavaOneVision, recompose: Recompose, root: Path) -> VideoQA:
    own = recompose([])
    own.bank = str(root)
    return build_qa(own, backbone)


def _ask_once(
    config: DictConfig,
    backbone: LlavaOneVision,
    recompose: Recompose,
    root: Path,
    hours: float,
    number: int,
    cold: list[Path],
) -> Row:
    """Open the bank, let it take the video in with one question, and time the next one. cold: files to push out before it."""
    qa = _opened(backbone, recompose, root)
    with qa.bank:
        with watch() as first:
            qa.ask(Question(question(1000 + number), f"long-{hours:g}"))
        forget(cold)
        with watch() as took:
            answer = qa.ask(Question(question(number), f"long-{hours:g}"))
    stages = {name: seconds for name, seconds in answer.seconds.items() if name != "total"}
    until = sum(stages.get(name, 0.0) for name in TO_FIRST)
    return {
        "wall_s": took.wall_s,
        "cpu_s": took.cpu_s,
        "first_s": first.wall_s,
        "first_token_s": until,
        "stages": stages,
    }


def _append(
    config: DictConfig, backbone: LlavaOneVision, recompose: Recompose, root: Path, hours: float
) -> tuple[float, float, float]:
    """(seconds, CPU seconds, tokens) a frame of encoding on at the end of a bank; what it costs to begin with is not in it."""
    qa = _opened(backbone, recompose, root)
    video_id = f"long-{hours:g}"
    marks: list[tuple[float, float, float]] = []
    with qa.bank:
        _, start = qa.bank.next(video_id)
        more = footage.noise(
            config.more_frames,
            config.fps,
            backbone.frame_size,
            first=round(start * config.fps),
            video_id=video_id,
        )
        source = footage.ReadyFrames(Frames(video_id, more.pixels, more.times), config.fps)
        number, _ = qa.bank.next(video_id)
        last = number + sum(1 for _ in qa.segmenter.segments(source.frames())) - 1

        def mark(seconds: float, nbytes: int) -> None:
            marks.append((seconds, time.perf_counter(), time.process_time()))

        qa.ingest(source, mark, until=last)  # the video stays unfinished
        made = qa.bank.segment(video_id, last)
    tokens = (made.tokens.offsets if made.kv is None else made.kv.offsets)[-1].item() / len(made)
    frames = (marks[-1][0] - marks[0][0]) * config.fps
    return (marks[-1][1] - marks[0][1]) / frames, (marks[-1][2] - marks[0][2]) / frames, tokens


# ---- tables


def _files_table(rows: Sequence[Row]) -> Table:
    lines = []
    written = [row for row in rows if row["kind"] == "write"]
    if written:
        wall, cpu = (middle([row[key] for row in written], 2, 1e3) for key in ("wall_s", "cpu_s"))
        rates = middle([row["bytes"] / row["wall_s"] / 1e6 for row in written], 0)
        lines.append(
            [f"write a segment of {written[0]['frames']} frames, durable", wall, cpu, rates]
        )
    for temperature in ("cold", "warm"):
        own = [row for row in rows if row["kind"] == "read" and row["temperature"] == temperature]
        if own:
            rates = middle([row["bytes"] / row["wall_s"] / 1e6 for row in own], 0)
            wall = middle([row["wall_s"] for row in own], 2, 1e3)
            lines.append([f"read {own[0]['frames']} spread frames, {temperature}", wall, "", rates])
    return Table("Files", "Real segments through the store.", ["", "ms", "CPU ms", "MB/s"], lines)


def _retrievers_table(rows: Sequence[Row]) -> Table:
    lines = [
        [
            row["retriever"],
            f"{row['rows']:,}",
            f"{1e3 * row['p50_s']:.2f}",
            f"{1e3 * row['p95_s']:.2f}",
            f"{row['bytes'] / 1e6:.1f}",
        ]
        for row in rows
        if row["kind"] == "retriever"
    ]
    words = f"From the question's text to {HITS} frames, embedding or queries included, none of it kept between questions."
    return Table(
        "Retrievers", words, ["retriever", "frames", "p50 ms", "p95 ms", "MB of rows"], lines
    )


def _at_once_table(rows: Sequence[Row]) -> Table:
    own = [row for row in rows if row["kind"] == "together"]
    if not own:
        return Table("Questions at once", "", [], [])
    ratios = (
        middle([row["many_s"] / row["one_s"] for row in own], 2),
        middle([row["many_cpu_s"] / row["one_cpu_s"] for row in own], 2),
    )
    times = (
        middle([row["one_s"] for row in own], 0, 1e3),
        middle([row["many_s"] for row in own], 0, 1e3),
    )
    count = own[0]["questions"]
    head = ["one, ms", f"{count} at once, ms", "times one, of each round", "the same in CPU time"]
    return Table(
        "Questions at once",
        "Over one bank, in rounds; no question twice.",
        head,
        [[*times, *ratios]],
    )


def _overhead_table(rows: Sequence[Row]) -> Table:
    own = [row for row in rows if row["kind"] == "overhead"]
    if not own:
        return Table("A token", "", [], [])
    times = (
        middle([row["ours_s"] for row in own], 3, 1e3),
        middle([row["bare_s"] for row in own], 3, 1e3),
    )
    above = middle([row["ours_s"] / row["bare_s"] - 1 for row in own], 1, 100)
    words = "Seconds of decoding, and of the decoder's own steps with logits and argmax in the same cache, in rounds."
    return Table(
        "A token", words, ["ours, ms a token", "bare step, ms", "above it, %"], [[*times, above]]
    )


def _long_table(rows: Sequence[Row]) -> Table:
    lines = []
    about = [row for row in rows if row["kind"] == "long"]
    for row in about:
        for temperature in ("cold", "warm"):
            asked = _long_asks(rows, row["hours"], temperature)
            least = _long_asks(rows, about[0]["hours"], temperature)
            ratios = [
                middle([own[key] / other[key] for own, other in zip(asked, least, strict=True)], 2)
                for key in ("wall_s", "cpu_s")
            ]
            keys = ("wall_s", "cpu_s", "first_token_s", "first_s")
            columns = [middle([one[key] for one in asked], 0, 1e3) for key in keys]
            size = f"{row['frames']:,}", f"{row['bytes'] / 1e9:.2f}"
            lines.append([f"{row['hours']:g} h", *size, temperature, *columns, *ratios])
    words = (
        "Real files of the shapes that encoding writes. The bank is opened, a first question takes its search rows in, the "
        "next one is timed; the ratio is to the shortest bank in the same round."
    )
    head = [
        "bank",
        "frames",
        "GB",
        "page cache",
        "question ms",
        "CPU ms",
        "first token ms",
        "first question after opening ms",
    ]
    return Table("Long banks", words, [*head, "times the shortest", "the same in CPU time"], lines)


def _long_asks(rows: Sequence[Row], hours: float, temperature: str) -> list[Row]:
    return [
        row
        for row in rows
        if row["kind"] == "long_ask" and row["hours"] == hours and row["temperature"] == temperature
    ]


def _append_table(rows: Sequence[Row]) -> Table:
    lines = []
    own = [row for row in rows if row["kind"] == "append"]
    lengths = sorted({row["hours"] for row in own})
    for hours in lengths:
        mine, least = (
            [row for row in own if row["hours"] == wanted] for wanted in (hours, lengths[0])
        )
        ratios = [a["frame_s"] / b["frame_s"] for a, b in zip(mine, least, strict=True)]
        used = [a["frame_cpu_s"] / b["frame_cpu_s"] for a, b in zip(mine, least, strict=True)]
        times = (
            middle([row["frame_s"] for row in mine], 2, 1e3),
            middle([row["frame_cpu_s"] for row in mine], 2, 1e3),
        )
        lines.append(
            [
                f"{mine[0]['frames']:,}",
                *times,
                middle(ratios, 3),
                middle(used, 3),
                f"{mine[-1]['tokens']:.1f}",
            ]
        )
    head = [
        "frames in the bank",
        "ms a frame",
        "CPU ms a frame",
        "times the shortest",
        "the same in CPU time",
        "tokens a frame",
    ]
    words = "In each round some more frames; ratios within a round. Tokens with the time tag, which is longer for later frames."
    return Table("Encoding on at the end of a bank", words, head, lines)
