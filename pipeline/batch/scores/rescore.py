"""Score the answers of a finished run again: no question is asked, and no model is loaded.

Knows rows and run.json. Writes scores.jsonl, answers.parquet and the figures of run.json.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from encoders.errors import UserError
from pipeline.batch import run_folder, summary
from pipeline.batch.run_folder import RunFolder
from pipeline.batch.scores import score_rows
from pipeline.config.compose import options
from pipeline.config.settings import PartSettings


def rescore(folder: RunFolder, score: Mapping[str, PartSettings] | None) -> dict[str, Any]:
    """Write the scores of a folder and return its figures.

    score: settings of scorers by name; None: those of the run. UserError when there is no run.
    """
    record = folder.read_record()
    rows = sorted(folder.read_answers(), key=lambda row: str(row["id"]))
    nodes = dict(scorers_of(record) if score is None else score)
    scorers = score_rows.build_scorers(nodes)
    with folder.lock():
        scored = score_rows.score_rows(summary.own_rows(rows), scorers)
        figures = summary.summary(rows, record["asked"], len(record["refused"]), scored, scorers)
        figures["failures"] = summary.failures(rows)
        score_rows.write_scores(folder.scores, scored)
        run_folder.write_parquet(folder.answers_parquet, score_rows.with_metrics(rows, scored))
        folder.write_record(record | figures | {"score": nodes})
    return figures


def scorers_of(record: Mapping[str, Any]) -> dict[str, PartSettings]:
    """The settings of a run's scorers, as its run.json says; none in runs of earlier versions.

    UserError where it names a class that no option of score= names: run.json may be a stranger's.
    """
    nodes = recorded_scorers(record)
    unknown = sorted({*_targets(nodes)} - {*_targets(options("score", {}))})
    if unknown:
        raise UserError(
            f"run.json names {unknown[0]}, which no option of score= does; choose the scorers, as "
            "in score=[choice,f1]"
        )
    return nodes


def recorded_scorers(record: Mapping[str, Any]) -> dict[str, PartSettings]:
    """The same as they stand in run.json, unchecked: to compare, not to build."""
    configuration = record.get("configuration") or {}
    return dict(record.get("score") or configuration.get("score") or {})


def _targets(node: Any) -> Iterator[str]:
    """Every class that settings name, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)
