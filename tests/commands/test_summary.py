"""`reelbank summary` and `bank.summary`: real films, real subtitles, real vectors of the lines.

The film is three talks in a row, so the borders of its chapters are known. The page opens in
Chromium.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import reelbank
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline import cli
from pipeline.config import units
from tests.support.console import sentence
from tests.support.quoted_films import QuotedFilm, films, joined
from tests.support.records import files
from tests.support.toys import toy_parts
from tests.support.videos import write_video

CHROMIUM = Path("/usr/bin/chromium")
NAMES = ("lighthouse", "coffee", "sewing")
NEAR_S = 5.0
FPS = "fps=0.2"  # the pictures hardly matter
QUOTES = "method=extractive"
WHEN = "2026-11-18T12:00:00+00:00"


@pytest.fixture(scope="module")
def talk() -> tuple[QuotedFilm, list[float]]:
    talks = {film.name: film for film in films("calibration")}
    return joined([talks[name] for name in NAMES])


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, talk) -> Path:
    """The picture changes with the talk."""
    path = tmp_path_factory.mktemp("film") / "three <talks> & more.mp4"
    told, borders = talk

    def paint(number: int, seconds: float) -> np.ndarray:
        tone = 60 + 60 * sum(seconds >= border for border in borders)
        return np.full((72, 96, 3), tone, np.uint8)

    write_video(path, told.seconds, 2, size=(96, 72), paint=paint)
    path.with_suffix(".srt").write_text(told.srt(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bank(film: Path) -> Path:
    root = film.parent / "bank"
    parts = [*toy_parts(), FPS, "text=subtitles", "dense=minilm", f"began={WHEN}"]
    assert cli.run("ingest", [f"video={film}", f"bank={root}", *parts]) == 0
    return root


@pytest.fixture(scope="module")
def summary(bank: Path, film: Path) -> Iterator[reelbank.Summary]:
    with reelbank.open(bank, options=toy_parts()) as opened:
        yield opened.summary(film, method="extractive")


def summarized(run, bank: Path, *arguments: str) -> dict[str, Any]:
    code, out, err = run("summary", f"bank={bank}", *toy_parts(), QUOTES, "format=json", *arguments)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.slow
def test_chapters_begin_where_the_talks_do(summary: reelbank.Summary, talk) -> None:
    starts = [chapter.start for chapter in summary.chapters]
    assert starts[0] == 0.0 and summary.chapters[-1].end == pytest.approx(talk[0].seconds, abs=1)
    assert [chapter.end for chapter in summary.chapters[:-1]] == starts[1:]
    for border in talk[1]:
        assert min(abs(start - border) for start in starts) <= NEAR_S, (starts, talk[1])
    assert len(starts) == 3


def test_every_sentence_and_title_is_verbatim_in_its_span(summary, bank) -> None:
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as stored:
        (row,) = stored.catalog.videos()
        every = [*summary.sentences, *(s for c in summary.chapters for s in c.sentences)]
        assert len(every) == 9
        for each in every:
            lines = stored.text.during(row.info.video_id, each.start, each.end)
            assert each.text in " ".join(line.text for line in lines) and each.is_quoted
            assert min(line.start for line in lines) == each.start
        for chapter in summary.chapters:
            lines = stored.text.during(row.info.video_id, chapter.start, chapter.end)
            for phrase in chapter.title.split(", "):
                assert any(phrase in line.text for line in lines), phrase
            assert all(chapter.start <= s.start < chapter.end for s in chapter.sentences)
    starts = [each.start for each in summary.sentences]
    assert starts == sorted(starts)


def test_the_command_says_the_same_again_and_writes_nothing_into_the_bank(
    run, bank, film, summary
) -> None:
    before = files(bank)
    first = run("summary", str(film), f"bank={bank}", *toy_parts(), QUOTES)
    assert first == run("summary", str(film), f"bank={bank}", *toy_parts(), QUOTES)
    code, out, err = first
    assert (code, err) == (0, "") and files(bank) == before
    assert out.startswith('# three \\<talks> & more.mp4\n\n## Summary\n\n- "')
    for chapter in summary.chapters:
        assert chapter.title in out
    assert summary.sentences[0].text in out and str(summary) in str(summary)


@pytest.mark.slow  # seconds of CPU
def test_without_vectors_words_make_the_chapters(run, film, tmp_path) -> None:
    parts = [*toy_parts(), FPS, "text=subtitles", "dense=none"]
    assert cli.run("ingest", [f"video={film}", f"bank={tmp_path / 'bank'}", *parts]) == 0
    found = summarized(run, tmp_path / "bank", f"video={film}", "dense=none")
    (video,) = found["videos"]
    assert video["has_words"] and video["chapters"] and len(found["sentences"]) >= 1


def test_a_stretch_and_words_of_time_limit_the_summary(run, bank, film, talk) -> None:
    first, _ = talk[1]
    found = summarized(run, bank, f"video={film}", f"end={first:.0f}")
    (video,) = found["videos"]
    assert len(video["chapters"]) == 1 and video["chapters"][0]["end"] == round(first)
    said = found["sentences"][0]
    assert said["end"] <= first and "T12:" in units.format_moment(video["chapters"][0]["wall"])
    half = summarized(run, bank, "when=in the second half")
    assert half["videos"][0]["start"] == pytest.approx(talk[0].seconds / 2, abs=1.0)
    assert half["title"].endswith(": in the second half")
    clock = summarized(run, bank, "when=between 12:01 and 12:02")["videos"][0]
    local = units.parse_moment("began", WHEN)
    if units.format_moment(local).endswith("+00:00"):  # phrases mean local time
        assert (clock["start"], clock["end"]) == (60.0, 120.0)


@pytest.mark.slow
def test_a_day_is_told_in_the_order_of_the_clock(run, tmp_path) -> None:
    """Two films of yesterday, the later one first by its name, and one of another day."""
    midnight = datetime.combine(date.today() - timedelta(days=1), time())
    begins = {"c": timedelta(hours=9), "b": timedelta(hours=15), "a": timedelta(days=-2)}
    root = tmp_path / "bank"
    for name, after in begins.items():
        path = tmp_path / f"{name}.mp4"
        write_video(path, 16.0 + ord(name) - ord("a"), 2, size=(64, 48))  # no two are the same
        path.with_suffix(".srt").write_text(
            f"1\n00:00:02,000 --> 00:00:05,000\nThe camera {name} looks at a quiet harbour.\n"
        )
        began = (midnight + after).astimezone().isoformat()
        parts = [*toy_parts(), FPS, "text=subtitles", "dense=none", f"began={began}"]
        assert cli.run("ingest", [f"video={path}", f"bank={root}", *parts]) == 0
    found = summarized(run, root, "when=yesterday")
    assert [Path(each["path"]).name for each in found["videos"]] == ["c.mp4", "b.mp4"]
    assert [each["text"] for each in found["sentences"]] == [
        "The camera c looks at a quiet harbour.",
        "The camera b looks at a quiet harbour.",
    ]
    walls = [each["chapters"][0]["wall"] for each in found["videos"]]
    assert walls == [(midnight + begins[name]).timestamp() for name in "cb"]
    code, out, _ = run("summary", f"bank={root}", "when=yesterday", *toy_parts(), QUOTES)
    assert code == 0 and "T09:00:00" in out and out.index("c.mp4") < out.index("b.mp4")
    code, _, err = run("summary", f"bank={root}", "when=today", *toy_parts(), QUOTES)
    assert code == 2
    sentence(err, 'anything of "today"')


def test_a_search_result_becomes_a_report(run, bank) -> None:
    found = summarized(run, bank, "query=What was the cow called?", "top=1", "chapter_sentences=1")
    (chapter,) = found["videos"][0]["chapters"]
    assert "Duchess" in chapter["sentences"][0]["text"]
    assert chapter["end"] - chapter["start"] < 30


def test_a_film_without_words_has_chapters_of_scenes(run, tmp_path) -> None:
    def paint(number: int, seconds: float) -> np.ndarray:
        rng = np.random.default_rng(int(seconds // 20))
        return np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8)

    path = tmp_path / "silent.mp4"
    write_video(path, 60.0, 1, size=(96, 72), paint=paint)
    code, out, err = run(
        "summary", str(path), f"bank={tmp_path / 'bank'}", *toy_parts(), QUOTES, "text=none",
        "format=json", "shortest_chapter=15", FPS, "--out", str(tmp_path / "r.html"),
    )  # fmt: skip
    assert code == 0 and "no words were found in silent.mp4" in err
    (video,) = json.loads(out)["videos"]
    assert not video["has_words"]
    assert [chapter["start"] for chapter in video["chapters"]] == [0.0, 20.0, 40.0]
    assert [chapter["title"] for chapter in video["chapters"]] == ["Part 1", "Part 2", "Part 3"]
    page = (tmp_path / "r.html").read_text()
    assert page.count("<img ") >= 3 and "No words were found here." in page


@pytest.mark.slow
def test_print_of_real_slides_titles_the_chapters(run, tmp_path) -> None:
    """Real OCR of drawn slides, beside real subtitles."""
    lectures = {film.name: film for film in films("test")}
    told, borders = joined([lectures["volcanoes_lecture"], lectures["sleep_lecture"]])
    path = tmp_path / "lectures.mp4"
    told.write(path)
    found = summarized(run, tmp_path / "bank", f"video={path}", "text=[subtitles,ocr]")
    (video,) = found["videos"]
    starts = [chapter["start"] for chapter in video["chapters"]]
    assert min(abs(start - borders[0]) for start in starts) <= NEAR_S
    printed = {line.text for line in told.lines if line.kind == "ocr"}
    titles = [chapter["title"] for chapter in video["chapters"]]
    assert titles[0] == "Volcanoes: an introduction" and set(titles) & printed
    said = " ".join(line.text for line in told.lines if line.kind == "subtitle")
    assert all(each["text"] in said for each in found["sentences"])


HEART = "A red heart"


@pytest.fixture(scope="module")
def described(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank whose model says the same of everything."""
    root = tmp_path_factory.mktemp("described") / "bank"
    parts = [*toy_parts(HEART), FPS, "text=subtitles", "dense=none"]
    assert cli.run("ingest", [f"video={film}", f"bank={root}", *parts]) == 0
    return root


@pytest.mark.slow
def test_a_model_writes_once_and_later_questions_reuse_what_it_said(run, film, described) -> None:
    line = ("summary", f"bank={described}", f"video={film}", *toy_parts(HEART), FPS)
    code, out, err = run(*line, "format=json", "dense=none")
    first = json.loads(out)
    assert (code, err) == (0, "") and first["model"]
    (video,) = first["videos"]
    chapters = video["chapters"]
    with MemoryBank.open(described, None, UniformRetriever(), recent_frames=0) as stored:
        segments = [row.number for row in stored.catalog.segments(video["video_id"])]
    # 8 segments in a pass, and blocks of 16; a pass for each chapter
    assert len(segments) == 34 and first["calls"] == 2 + 2 + 1 + len(chapters)
    for chapter in chapters:
        (said,) = chapter["sentences"]
        assert (said["text"], said["channel"], said["is_quoted"]) == (HEART, "finding", False)
        assert said["parents"] and set(said["parents"]) <= set(segments)
        starts = [start for start, _ in said["sources"]]
        assert len(starts) > 10 and starts == sorted(starts)
        assert all(chapter["start"] - 8 < start < chapter["end"] for start in starts)
    again = json.loads(run(*line, "format=json", "dense=none")[1])
    assert again == first | {"calls": 0}
    # a question of what the film is about takes the same findings
    code, out, err = run(
        "ask", str(film), "What is the film about?", "-b", str(described), *toy_parts(HEART), FPS,
        "answer=map_reduce", "dense=none", "format=json",
    )  # fmt: skip
    trace = json.loads(out)["trace"]
    assert trace["reused"] == len(segments)
    assert {call["step"] for call in trace["calls"]} == {"reduce"}


def test_an_interrupted_summary_goes_on_where_it_stopped(run, film, described) -> None:
    line = ("summary", f"bank={described}", f"video={film}", *toy_parts(HEART), FPS, "dense=none")
    whole = json.loads(run(*line, "format=json")[1])
    chapters = len(whole["videos"][0]["chapters"])
    blocks = sorted((described / "findings").rglob("*.jsonl"))
    before = {path: path.read_bytes() for path in blocks}
    assert len(blocks) == 3 + chapters
    (later,) = [path.parent for path in blocks if path.name == "000001.jsonl"]
    for path in blocks:
        if path != later / "000000.jsonl":  # what is there after the first block of segments
            path.unlink()
    resumed = json.loads(run(*line, "format=json")[1])
    assert resumed["calls"] == 2 + 1 + chapters
    assert resumed | {"calls": 0} == whole | {"calls": 0}
    assert {path: path.read_bytes() for path in blocks} == before


def test_the_embedded_model_writes_nothing(run, film, bank) -> None:
    code, _, err = run("summary", str(film), "-b", str(bank), "method=abstractive")
    assert code == 2
    sentence(err, "method=abstractive needs a model that reads text")


def test_reports_and_chapters_are_files_that_stand_alone(summary, tmp_path) -> None:
    page = summary.write(tmp_path / "r.html").read_text()
    assert not re.search(r"<script|https?://|src=\"(?!data:)|@import|url\(", page)
    assert "<title>three &lt;talks&gt; &amp; more.mp4</title>" in page
    assert page.count("data:image/jpeg;base64,") == 3
    text = summary.write(tmp_path / "r.md").read_text()
    assert text.count("](data:image/jpeg;base64,") == 3 and text.startswith("# three \\<talks>")
    with av.open(str(summary.write_chapters(tmp_path / "c.ffmeta")), format="ffmetadata") as file:
        titles = [chapter["metadata"]["title"] for chapter in file.chapters()]
    assert titles == [chapter.title for chapter in summary.chapters]
    assert summary.notes == ()


def test_the_command_writes_its_files(run, bank, film, tmp_path) -> None:
    code, out, err = run(
        "summary", str(film), "-b", str(bank), *toy_parts(), QUOTES, "-o", str(tmp_path / "r.md"),
        "--chapters", str(tmp_path / "c.txt"),
    )  # fmt: skip
    assert (code, err) == (0, "") and out == f"3 chapters, 3 sentences: {tmp_path / 'r.md'}\n"
    assert (tmp_path / "c.txt").read_text().startswith("00:00 ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.txt", "r.md"]
    short = ("start=0", "end=8", "sentences=1", "-o", str(tmp_path / "r.md"))
    code, out, err = run("summary", str(film), "-b", str(bank), *toy_parts(), QUOTES, *short)
    assert (code, out) == (0, f"1 chapter, 1 sentence: {tmp_path / 'r.md'}\n"), err


MISTAKES = [
    (["nowhere.mp4"], "nowhere.mp4"),
    (["{film}", "--start", "90:00"], "outside of"),
    (["{film}", "--start", "20", "--end", "10"], "is empty"),
    (["{film}", "--when", "soon"], "names no time"),
    (["{film}", "--when", "after 50:00"], 'anything of "after 50:00"'),
    (["{film}", "-o", "{folder}/r.pdf"], "r.pdf is no name for a report"),
    (["{film}", "-o", "{folder}/no/r.html"], "not there"),
    (["{film}", "-o", "{folder}"], "no name for a report"),
    (["{film}", "--chapters", "{folder}/c.srt"], "no name for a file of chapters"),
    (["{film}", "top=0"], "top=0"),
    (["{film}", "shortest_chapter=0"], "shortest_chapter=0"),
    (["{film}", "sentences=-1"], "fewer than 0"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    run, bank, film, tmp_path, arguments: list[str], words: str
) -> None:
    filled = [each.format(film=film, folder=tmp_path) for each in arguments]
    code, out, err = run("summary", *filled, "--bank", str(bank), *toy_parts())
    assert (code, out) == (2, "")
    sentence(err, words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_writable_is_refused_before_anything_is_read(run, tmp_path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, _, err = run("summary", "nowhere.mp4", "-o", str(tmp_path / "r.html"))
    assert code == 2
    sentence(err, "not writable")


def test_an_empty_bank_is_said(run, tmp_path) -> None:
    code, _, err = run("summary", "--bank", str(tmp_path / "none"), "--when", "yesterday")
    assert code == 2
    sentence(err, "has no video yet")


@pytest.mark.slow
def test_several_films_are_summarized_together(run, tmp_path, film) -> None:
    write_video(tmp_path / "b.mp4", 10, 2)
    both = tmp_path / "both"
    for path in (film, tmp_path / "b.mp4"):
        words = [f"video={path}", f"bank={both}", *toy_parts(), FPS, "text=none"]
        assert cli.run("ingest", words) == 0
    code, _, err = run("summary", "--bank", str(both), *toy_parts())
    assert code == 2
    sentence(err, "has 2 videos")
    target = tmp_path / "c.vtt"
    code, _, err = run(
        "summary", "--bank", str(both), "--when", "in the first half", "--chapters", str(target),
        *toy_parts(), QUOTES,
    )  # fmt: skip
    assert code == 2 and not target.exists()
    sentence(err, "belongs to one film")
    whole = summarized(run, both, "when=in the first half")
    paths = [each["path"] for each in whole["videos"]]
    assert paths == sorted([str(tmp_path / "b.mp4"), str(film)])


# ---- the page


@pytest.fixture(scope="module")
def page(summary, tmp_path_factory) -> Iterator[Any]:
    """Opens the report at a size. Fails when the page asks any server for anything."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}; install the system's Chromium to look at the page")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    path = summary.write(tmp_path_factory.mktemp("page") / "report.html")
    outside: list[str] = []
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])

        def open_at(width: int, scheme: str = "light") -> Any:
            context = chromium.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme
            )
            tab = context.new_page()
            tab.on("request", lambda request: outside.append(request.url))
            tab.goto(path.as_uri())
            return tab

        yield open_at
        chromium.close()
    assert [url for url in outside if not url.startswith(("file:", "data:"))] == []


CONTRASTS = """() => {
  const luminance = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (color !== 'rgba(0, 0, 0, 0)') return color;
    }
    return 'rgb(255, 255, 255)';
  };
  return [...document.querySelectorAll('h1,h2,h3,p,li,a,time,bdi,.when')].map(e => {
    const both = [luminance(getComputedStyle(e).color), luminance(behind(e))];
    const [a, b] = both.sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_and_fits_a_telephone(page, scheme: str) -> None:
    tab = page(390, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    contrasts = tab.evaluate(CONTRASTS)
    assert len(contrasts) > 20 and min(contrasts) >= 4.5  # WCAG AA
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(21, 23, 26)") == (scheme == "dark")
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_the_page_has_headings_alternatives_and_keys(page) -> None:
    tab = page(1200)
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => h.tagName)")
    assert levels == ["H1", "H2", "H2", "H2", "H3", "H3", "H3"]
    alternatives = tab.evaluate("[...document.images].map(i => i.alt)")
    assert len(alternatives) == 3 and all(text.startswith("The film at 0") for text in alternatives)
    assert tab.evaluate("document.documentElement.lang") == "en"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "To the chapters"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    for _ in range(4):  # behind the three sentences of the overview
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.evaluate("location.hash") == "#chapter-1"
