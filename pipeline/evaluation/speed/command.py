"""`reelbank bench`: speed beside what a user would take instead, and of the bank's parts alone.

    reelbank bench                         # the shipped model: bench_preset=embedded
    reelbank bench bench_preset=small      # a random model of 0.6 B parameters, made on the spot
    reelbank bench bench_preset=store      # files, index, retrievers, long banks
    reelbank bench bench_preset=smoke      # does everything run? toy sizes

Writes bench.json (every row), bench.md (the tables) and figures into `out`. Knows the order of
these steps, and the errors before any of them.
"""

import copy
import functools
import gc
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.errors import UserError
from encoders.extras import require_extra
from memory.storage.atomic import replacing
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed.schema import BASELINES
from pipeline.runtime.malloc import retained_bytes

if TYPE_CHECKING:  # it brings torch
    from pipeline.evaluation.speed.schema import BenchRow

UNFINISHED = "bench.unfinished.json"
PARTS = ("arms", "store", "all")
INDEX_KINDS = ("film", "random", "clip512", "siglip768")
_SMALLEST = {
    "rounds": 1,
    "new_tokens": 2,
    "read_frames": 1,
    "questions": 1,
    "matmul_side": 16,
    "queries": 1,
    "batch_size": 1,
    "index_frames": 2,
    "appended_frames": 1,
    "memory_mb": 1,
    "round_seconds": 0,
    "film_seconds": 0,
    "tune_frames": 1,
}


def run(config: BenchSettings) -> int:
    """Check, measure, write the report; 0 when done. UserError on bad settings."""
    require_extra("bench", "reelbank bench")
    check(config)
    # for all arms alike, waiting OpenMP threads sleep instead of spinning; read when torch loads
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    work = Path(config.work) if config.work else out
    work.mkdir(parents=True, exist_ok=True)
    # not /tmp by default: it may be no disk
    with tempfile.TemporaryDirectory(prefix="bench-", dir=work) as folder:
        rows: list[BenchRow] = []
        try:
            facts = _measure(config, Path(folder), rows)
        except BaseException:
            if rows:  # they may have taken hours
                _dump(
                    {"config": config.to_dict(), "stopped": True},
                    rows,
                    out / UNFINISHED,
                )
                print(
                    f"bench: what was measured is in {out / UNFINISHED}; a run begins anew.",
                    file=sys.stderr,
                )
            raise
    facts["load_at_end"] = [round(value, 2) for value in os.getloadavg()]
    _write(config, facts, rows, out)
    if config.format == "json":
        print(json.dumps({"facts": facts, "rows": rows}))
    else:
        print((out / "bench.md").read_text(encoding="utf-8"))
        print(f"all rows and figures: {out}")
    return 0


def check(config: BenchSettings) -> None:
    """UserError on a setting that does not fit, before anything is loaded or written."""
    if config.part not in PARTS:
        raise UserError(f"part={config.part} is not known; use one of {', '.join(PARTS)}.")
    _check_numbers(config)
    for kind in config.index_kinds:
        if kind not in INDEX_KINDS:
            raise UserError(
                f"index_kinds= has {kind!r}, which is not known; use {', '.join(INDEX_KINDS)}."
            )
    if not config.lengths:
        raise UserError(
            "lengths=[] leaves nothing to encode; give one number of frames or more, such as "
            "lengths=[64]."
        )
    for name in config.plain:
        if name not in BASELINES:
            raise UserError(f"plain= has no baseline {name!r}; use some of {', '.join(BASELINES)}.")
    if "kv_kept" in config.plain and not config.chunk_frames:
        raise UserError(
            "chunk_frames=[] leaves the baseline nothing to choose from; give one number of frames "
            "or more."
        )
    if config.part != "store" and not config.ours and not config.plain:
        raise UserError("ours= and plain= are both empty; give at least one arm.")
    if min(config.film_width, config.film_height) < 32:
        raise UserError(
            f"film_width={config.film_width} film_height={config.film_height} is too small; use 32 "
            "pixels or more."
        )
    if config.video:
        from encoders.sources.container import check_file

        check_file(Path(config.video))


def _check_numbers(config: BenchSettings) -> None:
    for name, smallest in _SMALLEST.items():
        value = getattr(config, name)
        if not value >= smallest:
            raise UserError(f"{name}={value} is too small; use {smallest} or more.")
    for name in ("lengths", "index_rows", "retriever_rows", "chunk_frames", "hours"):
        if any(not value > 0 for value in getattr(config, name)):
            raise UserError(
                f"{name}={getattr(config, name)} has a number that is not above 0; leave it out."
            )


def _measure(config: BenchSettings, folder: Path, rows: "list[BenchRow]") -> dict[str, Any]:
    """Measure; rows are added to `rows` as they come. -> facts about the machine and the model."""
    from encoders.models.acceleration.onednn_linear import count_weights
    from pipeline.config.compose import compose
    from pipeline.evaluation.speed import against_transformers, machine
    from pipeline.evaluation.speed.components import component_suite
    from pipeline.evaluation.speed.reelbank_arm import load_backbone

    if config.made is not None:
        from pipeline.evaluation.speed.model import make

        config.backbone["path"] = str(
            make(config.made, folder / "model", config.backbone["dtype"], config.seed)
        )
    backbone = load_backbone(config)
    if not gc.isenabled():  # as in every command, see pipeline.cli.entry
        gc.freeze()
        gc.enable()
    # composing takes a third of a second
    composed = functools.cache(lambda more: compose("bench", [*config.given, *more]))

    def recompose(more: Sequence[str]) -> BenchSettings:
        """An arm's configuration: the command line, its own overrides, and what all arms share."""
        own = copy.deepcopy(composed(tuple(more)))
        own.read_tokens = config.read_frames * backbone.tokens_per_frame
        own.reader["max_new_tokens"] = config.new_tokens
        own.backbone["path"] = config.backbone["path"]
        return own

    facts = machine.facts(backbone.device) | {
        "config": config.to_dict(),
        "keep_freed": f"{retained_bytes() / 10**6:.0f} MB"
        if retained_bytes()
        else "as the system does",
        "parameters": count_weights(backbone.model),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "tokens_per_frame": backbone.tokens_per_frame,
    }
    print(f"bench: {machine.sentence(facts)}", file=sys.stderr, flush=True)
    if config.part in ("arms", "all"):
        against_transformers.measure(config, backbone, recompose, folder, rows)
    if config.part in ("store", "all"):
        component_suite.measure(config, backbone, recompose, folder, rows)
    return facts


def _dump(facts: dict[str, Any], rows: "list[BenchRow]", path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1), encoding="utf-8")


def _write(config: BenchSettings, facts: dict[str, Any], rows: "list[BenchRow]", out: Path) -> None:
    """Write bench.json, bench.md and the figures."""
    from pipeline.evaluation.speed import against_transformers, machine, plots
    from pipeline.evaluation.speed.components import component_suite

    _dump(facts, rows, out / "bench.json")
    (out / UNFINISHED).unlink(missing_ok=True)
    model = (
        f"Model: {facts['parameters'] / 1e6:.1f} M "
        f"parameters{' with random weights' if config.made is not None else ''}, "
        f"{facts['dtype']}, {facts['tokens_per_frame']} tokens a frame; an answer reads "
        f"{config.read_frames} frames and has "
        f"{config.new_tokens} new tokens; {config.rounds} rounds."
    )
    chosen = [row for row in rows if row["kind"] == "chunk"]
    words = [
        f"The baseline that keeps its cache takes {row['chosen']} frames at once, the fastest of "
        + ", ".join(f"{chunk} ({seconds:.2f} s)" for chunk, seconds in row["seconds"].items())
        + "."
        for row in chosen
    ]
    lines = ["# Bench", "", machine.sentence(facts), "", " ".join([model, *words]), ""]
    for table in [*against_transformers.tables(rows), *component_suite.tables(rows)]:
        lines += [*table.lines(), ""]
    (out / "bench.md").write_text("\n".join(lines), encoding="utf-8")
    if any(row["kind"] == "warm_up" for row in rows):
        plots.cost(rows, "encode", out / "cost-per-frame.png")
        plots.cost(rows, "ask", out / "cost-per-question.png")
        plots.shares(rows, out / "stages.png")
