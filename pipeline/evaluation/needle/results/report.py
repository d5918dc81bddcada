"""The report of a benchmark in one folder: report.md, three PNGs and an HTML page with failures.

A failure shows the question, the truth, the answer, what was read and cited, and the frames of
both. Knows rows, plans and scores; renders frames from plans and runs no model.
"""

import base64
import html
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.commands.output import html_page
from pipeline.config.units import format_time
from pipeline.evaluation.needle.films import vnbench
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.evaluation.needle.films.schema import Film, Item
from pipeline.evaluation.needle.results import (
    differences,
    plots,
    score,
    thresholds,
    turns,
    vnbench_score,
)
from pipeline.evaluation.needle.results.rows import RECENT_FRAMES
from pipeline.evaluation.needle.results.score import ResultRow

FAILURES = 40  # that the page shows, spread over tasks
THUMB = (192, 108)
_STYLE = """
body{font:15px system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;
background:#fafafa;color:#1b1b1b}
h2{margin-top:2.2rem}
table{border-collapse:collapse;font-size:13px;margin:.6rem 0;display:block;overflow-x:auto}
td,th{border:1px solid #ddd;padding:.25rem .5rem;white-space:nowrap}th{background:#f0f0f0}
img.plot{max-width:100%}
section{background:#fff;border-left:6px solid #c92a2a;border-radius:6px;padding:.5rem 1rem;
margin:1rem 0}
section.missed{border-color:#e67700}h3{font-size:1rem;margin:.2rem 0}
figure{display:inline-block;margin:.3rem .5rem .3rem 0}
figure img{width:160px;display:block;border-radius:3px}
figcaption{font-size:.8rem;color:#555}figure.truth img{outline:3px solid #2b8a3e}
"""


def sections(
    rows: Sequence[ResultRow],
    items: Sequence[Item],
    films: Sequence[Film],
    encodings: Sequence[ResultRow],
) -> list[tuple[str, str, list[str]]]:
    """(title, explanation, Markdown table) of every part of the report."""
    by_name = {film.name: film for film in films}
    tries = [
        row for item in items if item.options for row in vnbench.rows(item, by_name[item.film])
    ]
    parts = [
        *_answer_sections(rows),
        (
            "Thresholds of abstention",
            "What an answer would be if `abstention.threshold` were this; rows of arms that "
            "measure absence. A false refusal is of a question that the film answers. Choose a "
            "threshold on films of one seed, and report it on those of another.",
            thresholds.table(rows),
        ),
        ("VNBench's rules", _vnbench_words(rows), _vnbench_table(rows)),
        (
            "Rules over the text of the options alone",
            "The best rule of each kind in hindsight, so a little above 25; far above 25 would be "
            "a leak.",
            score.markdown(
                ["rule", "% right"],
                ([name, f"{100 * v:.1f}"] for name, v in vnbench_score.blind_rules(tries).items()),
            )
            if tries
            else [],
        ),
        (
            "What an answer costs",
            "Medians. Bytes are of keys and values (or tokens) that were read.",
            score.cost_table(rows),
        ),
        (
            "Turn by turn",
            "One film, one encoding, its questions in turn. Right: per cent, with questions about "
            "what is not shown. Times are medians; the last column shares the encoding of the film "
            "among the questions so far.",
            turns.table(rows, encodings),
        ),
        (
            "What encoding costs",
            "Films that were encoded in one go, without those of controls.",
            score.encoding_table([row for row in encodings if row["film"] in by_name]),
        ),
    ]
    return [section for section in parts if section[2]]


def _answer_sections(rows: Sequence[ResultRow]) -> list[tuple[str, str, list[str]]]:
    """Answers and evidence over all tasks, then two tasks by length."""
    parts = [
        (
            "Free answers, % right",
            "Exact up to case. Intervals: 95 %, resampling films. Controls stand below the "
            "configurations.",
            score.by_task(rows, score.accuracy),
        ),
        ("The option meant, of four, % right", "Chance is 25.", score.by_task(rows, score.choice)),
        (
            "Perception and backward, % right",
            f"Perception: the last {RECENT_FRAMES} frames of the film show every needle of the "
            "answer, so no memory is needed. Backward: they do not.",
            differences.by_kind(rows),
        ),
        (
            "Differences in pairs, points",
            "The first less the second, free answers to the same questions. Intervals: 95 %, "
            "resampling films. An interval without 0 is a difference.",
            differences.table(rows),
        ),
        (
            "Evidence",
            "needles read: a frame that shows the needle was among those read, or a line that has "
            "its words. @k: among the first k of the ranking. seconds read: the share of the "
            "needles' seconds that was read. Citations and IoU are of right answers, as "
            "`score=[citation,iou]` of a batch counts them.",
            score.evidence_table(rows),
        ),
    ]
    for task in score.by(score.answerable(rows), "task"):
        if task in ("retrieve", "confuser"):
            parts.append(
                (f"{task} by length", "% right and % of needles read.", score.by_length(rows, task))
            )
    return parts


def _vnbench_words(rows: Sequence[ResultRow]) -> str:
    if rows and rows[0]["answers"] == "letters":
        return (
            "Every question is asked four times; a question counts when all four tries are right."
        )
    return (
        "The model answers in words, which four orders of the options cannot change: "
        "four tries count as one."
    )


def _vnbench_table(rows: Sequence[ResultRow]) -> list[str]:
    lines, groups = [], []
    for arm, own in score.by(rows, "arm").items():
        results = [
            {"video": row["item"], "type": row["type"], "try": i, "pred": pred, "gt": gt}
            for row in own
            for i, (pred, gt) in enumerate(zip(row["preds"], row["gt"], strict=True))
            if row["type"].startswith(vnbench_score.GROUPS)
        ]
        if results:
            done = vnbench_score.score(results)
            groups = list(done.groups)
            lines.append(
                [
                    arm,
                    *(f"{100 * a:.1f}" for a in (*done.groups.values(), done.overall, done.single)),
                ]
            )
    return (
        score.markdown(["", *groups, "overall, four tries", "single try"], lines) if lines else []
    )


def heading(rows: Sequence[ResultRow], films: Sequence[Film]) -> str:
    """What was measured, and on which machine."""
    questions = len({row["item"] for row in rows})
    kinds = {"procedural" if not film.footage else "files" for film in films}
    return (
        f"{questions} questions about {len(films)} films, {len(rows)} answers; footage: "
        f"{', '.join(sorted(kinds))}. Machine: "
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}."
    )


def write(
    rows: Sequence[ResultRow],
    items: Sequence[Item],
    films: Sequence[Film],
    encodings: Sequence[ResultRow],
    depths: Sequence[float],
    out: Path,
) -> None:
    """Write report.md, the figures and report.html; places.png where the task places is there."""
    parts, head = sections(rows, items, films, encodings), heading(rows, films)
    lines = ["# Needle report", "", head, ""]
    for title, words, table in parts:
        lines += [f"## {title}", "", words, "", *table, ""]
    (out / "report.md").write_text("\n".join(lines), encoding="utf-8")
    first = rows[0]["arm"]
    main = [row for row in rows if row["arm"] == first]
    tasks = list(score.by(score.answerable(rows), "task"))
    task = "retrieve" if "retrieve" in tasks else tasks[0]
    plots.heat_map(
        [row for row in main if row["task"] == task],
        depths,
        out / "heatmap.png",
        f"{task}, {first}",
    )
    on_frame = placed(main)
    if on_frame:
        plots.place_map(on_frame, out / "places.png", f"{on_frame[0]['task']}, {first}")
    plots.length_curves(rows, task, out / "length.png")
    plots.recall_curves(rows, out / "recall.png")
    (out / "report.html").write_text(_page(head, parts, main, films, out), encoding="utf-8")


def placed(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows of the task whose needles are small enough to have a place on the frame."""
    return [row for row in score.answerable(rows) if row["task"] == "places" and row.get("place")]


def failures(rows: Sequence[ResultRow], most: int = FAILURES) -> list[ResultRow]:
    """Wrong answers, taken in turn from every task."""
    wrong = [[row for row in own if not row["right"]] for own in score.by(rows, "task").values()]
    depth = max(map(len, wrong), default=0)
    return [own[i] for i in range(depth) for own in wrong if i < len(own)][:most]


def _page(
    head: str,
    parts: Sequence[tuple[str, str, list[str]]],
    main: Sequence[ResultRow],
    films: Sequence[Film],
    out: Path,
) -> str:
    by_name = {film.name: film for film in films}
    body = [f"<h1>Needle report</h1><p>{html.escape(head)}</p>"]
    for name, words in (
        ("heatmap", "Depth and length"),
        ("length", "Accuracy against length; dashed: controls"),
        ("recall", "Evidence recall"),
        *([("places", "Place on the frame")] if placed(main) else []),
    ):
        data = base64.b64encode((out / f"{name}.png").read_bytes()).decode()
        body.append(f"<h2>{words}</h2>{image_html(data, 'png', words, 'plot')}")
    for title, words, table in parts:
        body.append(f"<h2>{html.escape(title)}</h2><p>{html.escape(words)}</p>{table_html(table)}")
    wrong = [row for row in main if not row["right"]]
    body.append(
        f"<h2>Failures of {html.escape(str(main[0]['arm']))}</h2><p>{len(wrong)} of {len(main)} "
        "answers are wrong; here are "
        f"{len(failures(main))}. Red: the needles were read and the answer is wrong; orange: a "
        "needle was not read. "
        "Green frames: what had to be found; the others: what was ranked first.</p>"
    )
    body += [_failure(row, by_name[row["film"]]) for row in failures(main)]
    return html_page.page("Needle report", _STYLE, "".join(body))


def _failure(row: ResultRow, film: Film) -> str:
    kind = "" if all(row["found"]) else "missed"
    times = [(start + min(0.5, (end - start) / 2), "truth") for start, end in row["needles"][:6]]
    times += [(t, "") for t in row["ranked"][:5]]
    pictures = "".join(_frame(film, t, css) for t, css in times)
    cited = ", ".join(f"{format_time(a)}-{format_time(b)}" for a, b in row["cited"]) or "nothing"
    evidence = (
        f"{sum(row['found'])} of {len(row['found'])} needles read"
        if row["found"]
        else "nothing to find"
    )
    options = f"; options: {' | '.join(row['options'])}" if row["options"] else ""
    return (
        f'<section class="{kind}"><h3>{html.escape(row["question"])}</h3>'
        f"<p><b>{html.escape(row['text'])}</b> (truth: "
        f"{html.escape(row['truth'])}{html.escape(options)})<br>{html.escape(row['task'])}, "
        f"{html.escape(row['film'])}; {evidence} among {row['frames_read']} frames; cited: "
        f"{cited}</p>{pictures}</section>"
    )


def _frame(film: Film, second: float, css: str) -> str:
    """The picture of a film at one moment, as HTML."""
    width, height = THUMB
    source = FilmSource(film, 1000.0, width=width, height=height, batch=1)
    frames = next(iter(source.frames(min(second, film.seconds - 0.01))))
    label = format_time(second)
    data = html_page.jpeg_base64(Image.fromarray(np.asarray(frames.pixels[0])))
    image = image_html(data, "jpeg", f"film at {label}", "")
    return f'<figure class="{css}">{image}<figcaption>{label}</figcaption></figure>'


def image_html(data: str, kind: str, words: str, css: str) -> str:
    """A picture in the page. data: base64."""
    alt = html.escape(words)
    return f'<img class="{css}" alt="{alt}" src="data:image/{kind};base64,{data}">'


def table_html(lines: Sequence[str]) -> str:
    """A Markdown table as HTML; code and emphasis as plain text."""
    head, *rest = [
        [html.escape(cell.strip(" `*")) for cell in line.split("|")[1:-1]]
        for line in lines
        if not line.startswith("|---")
    ]
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in rest)
    return f"<table><tr>{cells}</tr>{body}</table>"
