"""`make demo`: a ten-minute video with ten needles, encoded once, asked eleven questions, checked;
then a talk with slides, whose words answer five questions.

    python -m pipeline.evaluation.tour [--seed 7] [--minutes 10] [--out tour]

Makes a real H.264 file, encodes it with a progress bar, asks ten questions of all kinds and one
about something that never shows, prints the answers beside the truth, and writes tour/index.html
with the picture of each cited moment. The talk (pipeline/evaluation/tour_talk.py) is heard and read
on the way into the bank, and its lines are quoted. Where the extra pictures is installed, what the
talk shows is found among all frames of both films. Knows no model: it takes the way of `reelbank
ask`.
"""

import argparse
import base64
import html
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from encoders.conse.required_packages import missing_packages
from encoders.sources.still import still
from memory.schema import Question
from pipeline.build import AnyModel, build_backbone, build_qa, build_source
from pipeline.commands.output import html_page
from pipeline.commands.output.encoding_messages import progress_bar
from pipeline.config.compose import compose
from pipeline.config.units import format_time
from pipeline.engine import Engine
from pipeline.evaluation.tour_talk import QUESTIONS, SHOWN, TalkQuestion, make_talk, photograph
from pipeline.needle_world import video as needle_video
from pipeline.needle_world.questions import NeedleQuestion
from pipeline.needle_world.scenes import demo_scene
from pipeline.needle_world.scoring import cites_all
from pipeline.needle_world.video import PlacedNeedle
from pipeline.schema import NOT_SAID, Answer
from pipeline.scoring import is_right


@dataclass(frozen=True, slots=True)
class Result:
    """A question with its answer."""

    question: NeedleQuestion
    answer: Answer
    needles: tuple[PlacedNeedle, ...]  # that the right answer rests on
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the answer is the right one."""
        return is_right(self.answer.text, self.question.answer)

    @property
    def shown_at(self) -> str:
        """When the needles show, as text."""
        return when(tuple((needle.start, needle.end) for needle in self.needles))


@dataclass(frozen=True, slots=True)
class TalkResult:
    """A question about the talk with its answer."""

    question: TalkQuestion
    answer: Answer
    seconds: float

    @property
    def truth(self) -> str:
        """What the answer must have."""
        return self.question.answer or NOT_SAID

    @property
    def right(self) -> bool:
        """Whether the answer is right: the words say it, or it is refused and not said."""
        return self.truth.casefold() in self.answer.text.partition(" ")[2].casefold() or (
            self.answer.text == self.truth
        )


_STYLE = (
    "body{font:16px system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;"
    "background:#fafafa;color:#1b1b1b}"
    "section{background:#fff;border-left:6px solid #2b8a3e;border-radius:6px;padding:.6rem 1rem;"
    "margin:1rem 0;box-shadow:0 1px 3px #0002}section.wrong{border-color:#c92a2a}"
    "h2{font-size:1.05rem;margin:.2rem 0}"
    "figure{display:inline-block;margin:.3rem .6rem .3rem 0}"
    "figure img{width:240px;height:auto;border-radius:4px;display:block}"
    "figcaption{font-size:.85rem;color:#555}"
)


def make_video(path: Path, placed: tuple[PlacedNeedle, ...], seconds: float, seed: int) -> None:
    """Write the demo video, with a progress bar."""
    size = (480, 270)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        job = bar.add_task("making the video", total=seconds)
        needle_video.write(
            path,
            placed,
            seconds,
            needle_video.procedural_footage(seed, size),
            size=size,
            progress=lambda t: bar.update(job, completed=t),
        )


def when(spans: tuple[tuple[float, float], ...]) -> str:
    """ "02:05-02:07, 04:11-04:13", or a dash."""
    return ", ".join(f"{format_time(a)}-{format_time(b)}" for a, b in spans) or "-"


def show(results: list[Result]) -> None:
    """Print the answers about cards on the terminal."""
    table = _table("cited", "shown at")
    for one in results:
        cells = (one.question.answer, _verdict(one.right), when(one.answer.spans), one.shown_at)
        table.add_row(one.question.text, one.answer.text, *cells, f"{one.seconds:.2f}")
    Console(width=150).print(table)


def show_talk(results: list[TalkResult]) -> None:
    """Print the answers about the talk on the terminal."""
    table = _table("channel", "confidence")
    for one in results:
        channel, confidence = one.answer.channel or "-", f"{one.answer.confidence or 0:.2f}"
        cells = (one.truth, _verdict(one.right), channel, confidence)
        table.add_row(one.question.text, one.answer.text, *cells, f"{one.seconds:.2f}")
    Console(width=150).print(table)


def _table(*columns: str) -> Table:
    """An empty table of answers; columns: between the verdict and the seconds."""
    table = Table(show_lines=False)
    for name in ("question", "answer", "truth", "", *columns, "s"):
        table.add_column(name, overflow="fold")
    return table


def _verdict(is_right: bool) -> str:
    return "right" if is_right else "WRONG"


def frame_embedders() -> list[str]:
    """Settings: beside the embedder of cards one of the world, where its packages are installed."""
    return [] if missing_packages() else ["clip=[embedded,conse]"]


def ask_talk(folder: Path, backbone: AnyModel) -> tuple[Path, list[TalkResult], str]:
    """Make the talk, put it into the bank, and ask. Returns the film, results and a sentence."""
    film = folder / "talk.mp4"
    if not film.exists():
        make_talk(film)
    common = [f"bank={folder / 'bank'}", *frame_embedders()]
    settings = compose("ask", [f"video={film}", "question=-", *common])
    source, qa = build_source(settings, backbone), build_qa(settings, backbone)
    results = []
    with qa.bank:
        with progress_bar(source.info) as report:
            lines = qa.ingest(source, report).text_lines
        for one in QUESTIONS:
            start = time.perf_counter()
            answer = qa.ask(Question(one.text, source.info.video_id))
            results.append(TalkResult(one, answer, time.perf_counter() - start))
    words = ", ".join(f"{count} lines by {name}" for name, count in lines.items())
    right = sum(one.right for one in results)
    return film, results, f"the talk: {right} of {len(results)} answers right; {words}"


def find_shown(folder: Path, film: Path) -> str:
    """Look for what the talk shows, in all films of the bank; a sentence about the best moment."""
    absent = missing_packages() or ("" if photograph() else "matplotlib is not installed")
    if absent:
        return f"not searched by what a film shows: {absent}"
    bank = folder / "bank"
    with Engine.of(compose("find", [f"query={SHOWN}", f"bank={bank}"])) as engine:
        result = engine.find(SHOWN, top=1, channels=["picture"])
    best = result.moments[0]
    name = Path(result.paths[best.video_id]).name
    verdict = "right" if name == film.name else "WRONG"
    command = f'reelbank find "{SHOWN}" --bank {bank} channels=[picture]'
    return f"`{command}` finds {name} at {format_time(best.start)}: {verdict}"


def page(
    results: list[Result], video: Path, talk: list[TalkResult], film: Path, summary: str
) -> str:
    """One self-contained HTML page: a card per question with the pictures of its cited moments."""
    cards = []
    for one in results:
        answer = one.answer
        moments = []
        for a, b in answer.spans:
            heaviest = max((f for f in answer.cited if a <= f.time < b), key=lambda f: f.weight)
            moments.append((heaviest.time, (a, b)))
        about = (
            f"(truth: {html.escape(one.question.answer)}; shown at {one.shown_at}; "
            f"{one.seconds:.2f} s)"
        )
        cards.append(_card(one.question.text, answer, one.right, about, video, moments))
    cards.append("<h1>A talk, answered by its words</h1>")
    for each in talk:
        about = f"(truth: {html.escape(each.truth)}; {each.answer.channel or 'no channel'})"
        moments = [((a + b) / 2, (a, b)) for a, b in each.answer.spans]
        cards.append(_card(each.question.text, each.answer, each.right, about, film, moments))
    body = f"<h1>Reelbank demo</h1><p>{html.escape(summary)}</p>" + "".join(cards)
    return html_page.page("Reelbank demo", _STYLE, body)


def _card(
    question: str,
    answer: Answer,
    right: bool,
    about: str,
    film: Path,
    moments: list[tuple[float, tuple[float, float]]],
) -> str:
    """A section. moments: the second of a picture, and its span, in seconds."""
    pictures = []
    for moment, (a, b) in moments:
        jpeg = still(str(film), moment)
        assert jpeg is not None  # the film was just encoded
        data = base64.b64encode(jpeg).decode()
        label = f"{format_time(a)}-{format_time(b)}"
        image = f'<img src="data:image/jpeg;base64,{data}" alt="video at {label}">'
        pictures.append(f"<figure>{image}<figcaption>{label}</figcaption></figure>")
    return (
        f'<section class="{"right" if right else "wrong"}">'
        f"<h2>{html.escape(question)}</h2><p><b>{html.escape(answer.text)}</b> {about}</p>"
        f"<div>{''.join(pictures) or '<p>nothing cited</p>'}</div></section>"
    )


def main() -> None:
    """Make the video, encode it, ask, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("tour"))
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")  # what extracting words tells
    began, seconds = time.perf_counter(), 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((20_261_121, args.seed))
    needles, questions = demo_scene(rng)
    placed = needle_video.plan(rng, needles, seconds)
    video = args.out / f"demo-{args.seed}-{args.minutes:g}min.mp4"
    if not video.exists():
        make_video(video, placed, seconds, args.seed)
    common = [f"bank={args.out / 'bank'}", *frame_embedders()]
    config = compose("ask", [f"video={video}", "question=-", "text=none", *common])
    backbone = build_backbone(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        with progress_bar(source.info) as report:
            done = qa.ingest(source, report)
        results: list[Result] = []
        for one in questions:
            start = time.perf_counter()
            answer = qa.ask(Question(one.text, source.info.video_id))
            truth = tuple(placed[i] for i in one.needles)
            results.append(Result(one, answer, truth, time.perf_counter() - start))
    show(results)
    film, talk, talk_summary = ask_talk(args.out, backbone)
    show_talk(talk)
    cited = [
        cites_all(one.answer.spans, one.needles) for one in results if one.right and one.needles
    ]
    summary = (
        f"{sum(one.right for one in results)} of {len(results)} answers right, "
        f"{sum(map(bool, cited))} of {len(cited)} right answers cite every needle they rest on; "
        f"{done.frames} frames of a {args.minutes:g}-minute video, "
        f"{done.nbytes / 1e6:.0f} MB written now, "
        f"{np.mean([one.seconds for one in results]):.2f} s a question, "
        f"{time.perf_counter() - began:.0f} s in all"
    )
    target = args.out / "index.html"
    target.write_text(page(results, video, talk, film, summary), encoding="utf-8")
    print(talk_summary)
    print(find_shown(args.out, film))
    print(summary)
    print(f"pictures of the cited moments: {target}")


if __name__ == "__main__":
    main()
