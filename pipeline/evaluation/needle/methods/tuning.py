"""Tunes the dials of arms (dials.py) on a film that nobody asks about, and remembers the values.

Values go to dials.jsonl, so that a run which continues has the same arms. Knows no question.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from encoders.errors import UserError
from memory.storage.json_lines import JsonLines
from pipeline.build import AnyModel, build_qa
from pipeline.config.tasks.evaluation_settings import NeedleSettings
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.evaluation.needle.films.make import Grid, make
from pipeline.evaluation.needle.films.schema import Film
from pipeline.evaluation.needle.methods.dials import Dial, tune
from pipeline.evaluation.needle.results.arms import settings_of
from pipeline.ingest.text import TextExtraction

MINUTES = 1.0  # of the tuning film

Compose = Callable[[Sequence[str]], NeedleSettings]
Parts = Callable[[NeedleSettings], AnyModel]


def tuned_arms(
    config: NeedleSettings,
    grid: Grid,
    compose: Compose,
    parts: Parts,
    report: Callable[[str], None],
) -> dict[str, list[str]]:
    """The overrides of every arm, with those of its dial.

    report: gets a line for each dial that is tuned now. UserError on a dial of no arm.
    """
    unknown = sorted(config.dials.keys() - config.arms.keys())
    if unknown:
        raise UserError(f"dials has {unknown[0]!r}, which is no arm; name one of arms.")
    every = {str(name): list(overrides or []) for name, overrides in config.arms.items()}
    if not config.dials or not config.bank_mb:
        return every
    film = _tuning_film(grid)
    with closing(JsonLines(Path(config.out) / "dials.jsonl", ascii_only=True)) as settings:
        known = {row["key"]: row for row in settings.rows}
        for name, text in config.dials.items():
            dial, overrides = Dial.parse(text), every[name]
            key = _key(compose(overrides), text, config.bank_mb)
            if key not in known:
                report(f"tuning {name} ({text})")
                setting = tune(
                    dial,
                    1e6 * config.bank_mb,
                    lambda override, overrides=overrides: _bytes_per_hour(  # type: ignore[misc]
                        compose([*overrides, override]), parts, film
                    ),
                )
                known[key] = {"key": key, "arm": name, "dial": text} | asdict(setting)
                settings.append(known[key])
            every[name] = [*overrides, str(known[key]["override"])]
    return every


def _key(config: NeedleSettings, dial: str, bank_mb: float) -> str:
    values = [settings_of(config), dial, bank_mb]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _tuning_film(grid: Grid) -> Film:
    """A film of another seed over the same footage."""
    other = replace(
        grid, minutes=(MINUTES,), films=(1,), tasks=grid.tasks[:1], seed=grid.seed + 1_000_000
    )
    return make(other)[0][0]


def _bytes_per_hour(config: NeedleSettings, parts: Parts, film: Film) -> float:
    """What an hour of such film takes in a bank of this configuration."""
    with TemporaryDirectory() as folder:
        qa = build_qa(config.changed(bank=str(Path(folder) / "bank")), parts(config))
        width, height = qa.backbone.frame_size
        source = FilmSource(film, config.fps, width=width, height=height)
        with qa.bank:
            ingested = replace(qa.ingester, text=TextExtraction(qa.bank)).ingest(source)
    return 3600 * ingested.nbytes / ingested.video_seconds
