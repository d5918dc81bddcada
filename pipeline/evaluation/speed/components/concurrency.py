"""Questions at once, and the cost of our own code per token."""

import time
from collections.abc import Sequence

import torch

from encoders.models.video_llm import VideoLLM
from memory.schema import Evidence, Question
from pipeline.answer.schema import local
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed.clocks import median_range, stopwatch
from pipeline.evaluation.speed.rounds import question
from pipeline.evaluation.speed.schema import BenchRow, Table
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import StageTimer
from pipeline.runtime.torch_threads import one_thread


def measure_batch(config: BenchSettings, qa: VideoQA) -> list[BenchRow]:
    """Seconds of one question, and of a batch of questions, in rounds."""
    rows: list[BenchRow] = []
    for number in range(-1, config.rounds):  # the first round warms up
        texts = [
            question((number + 1) * (config.batch_size + 1) + i)
            for i in range(config.batch_size + 1)
        ]
        with stopwatch() as one:
            qa.ask(Question(texts[0], "short"))
        with stopwatch() as many:
            qa.ask_all([Question(text, "short") for text in texts[1:]])
        if number >= 0:
            rows.append(
                {"kind": "together", "round": number, "one_s": one.wall_s, "many_s": many.wall_s}
            )
            rows[-1] |= {
                "one_cpu_s": one.cpu_s,
                "many_cpu_s": many.cpu_s,
                "questions": config.batch_size,
            }
    return rows


def measure_overhead(config: BenchSettings, qa: VideoQA) -> list[BenchRow]:
    """Seconds a token of an answer, and of bare decoder steps over the same context."""
    rows: list[BenchRow] = []
    steps = config.new_tokens - 1
    if steps < 1:
        return rows
    evidence = qa.bank.recall(
        Question(question(0), "short"),
        read_tokens=qa.answerer.read_tokens,
        kv=qa.answerer.reader.needs_kv,
    )
    for number in range(-1, config.rounds):
        clock = StageTimer()
        qa.answerer.reader.read(evidence, clock)
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
def _bare_steps(qa: VideoQA, evidence: Evidence, steps: int) -> float:
    """Seconds of the decoder's steps alone: embeddings and positions are ready, no text."""
    backbone = qa.backbone
    assert isinstance(backbone, VideoLLM)  # transformers' own modules are called below
    reader = local(qa.answerer.reader, "reelbank bench")
    tail = reader.prompt_suffix(evidence.question.text)
    with reader.context(evidence, len(tail) + steps + 1, StageTimer()) as (cache, _):
        backbone.language_model.forward(tail, cache)
        first = cache.cursor.next
        # [n, 1, 1, D]
        embeds = backbone.language_model.embed(list(range(steps)))[:, None, None].to(backbone.dtype)
        # [n, 1, 1]
        places = torch.arange(first, first + steps, device=backbone.device)[:, None, None]
        began = time.perf_counter()
        for embed, place in zip(embeds, places, strict=True):
            hidden = backbone.decoder(
                inputs_embeds=embed, position_ids=place, past_key_values=cache, use_cache=True
            ).last_hidden_state
            int(backbone.model.lm_head(hidden)[0, -1].argmax())
        return time.perf_counter() - began


def batch_table(rows: Sequence[BenchRow]) -> Table:
    own = [row for row in rows if row["kind"] == "together"]
    if not own:
        return Table("Questions at once", "", [], [])
    ratios = (
        median_range([row["many_s"] / row["one_s"] for row in own], 2),
        median_range([row["many_cpu_s"] / row["one_cpu_s"] for row in own], 2),
    )
    times = (
        median_range([row["one_s"] for row in own], 0, 1e3),
        median_range([row["many_s"] for row in own], 0, 1e3),
    )
    count = own[0]["questions"]
    head = ["one, ms", f"{count} at once, ms", "times one, of each round", "the same in CPU time"]
    return Table(
        "Questions at once",
        "Over one bank, in rounds; no question twice.",
        head,
        [[*times, *ratios]],
    )


def overhead_table(rows: Sequence[BenchRow]) -> Table:
    own = [row for row in rows if row["kind"] == "overhead"]
    if not own:
        return Table("A token", "", [], [])
    times = (
        median_range([row["ours_s"] for row in own], 3, 1e3),
        median_range([row["bare_s"] for row in own], 3, 1e3),
    )
    above = median_range([row["ours_s"] / row["bare_s"] - 1 for row in own], 1, 100)
    words = (
        "Seconds of decoding, and of the decoder's own steps with logits and argmax in the same "
        "cache, in rounds."
    )
    return Table(
        "A token", words, ["ours, ms a token", "bare step, ms", "above it, %"], [[*times, above]]
    )
