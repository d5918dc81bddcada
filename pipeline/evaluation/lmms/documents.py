"""Folders -> the documents of our tasks: plain dicts with texts, numbers and the video's path.

A needle folder is what `reelbank needle files=true` writes. VNBench is its annotation file and a
folder of videos. Knows no lmms-eval and no scores.
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from pipeline.evaluation.needle.films import vnbench
from pipeline.evaluation.needle.films.schema import read_films, read_items

Document = dict[str, Any]


@functools.cache  # lmms-eval loads a task's functions one by one
def needle(folder: Path) -> list[Document]:
    """A document for each question: {id, video, film, task, family, question, options, answer}.

    Questions about what is not shown have no options. UserError when the films are not files.
    """
    files = {film.name: film.file for film in read_films(folder / "films.jsonl")}
    documents = []
    for item in read_items(folder / "items.jsonl"):
        if not files.get(item.film):
            raise UserError(
                f"{folder} has no file of film {item.film}; run `reelbank needle action=make "
                f"files=true out={folder}`."
            )
        documents.append(
            {
                "id": item.id,
                "video": str(folder / files[item.film]),
                "film": item.film,
                "task": item.task,
                "family": item.family,
                "question": item.question,
                "options": list(item.options),
                "answer": item.answer,
            }
        )
    return _check_files(documents, folder)


@functools.cache
def four_tries(annotation: Path, videos: Path) -> list[Document]:
    """A document for each try, as lmms-eval's tasks read it.

    {id, video, film, type, try, question, options, prompt, answer, letter}. `id` is the
    annotation's video, which its four tries share; `film` is the file, which several questions may
    share. UserError on a wrong row.
    """
    documents = []
    for row in vnbench.read(annotation):
        path = videos / row["video"]
        # the folder may be the inner one
        path = path if path.is_file() else videos / Path(row["video"]).name
        documents.append(
            {
                "id": row["video"],
                "video": str(path),
                "film": path.resolve().name,
                "type": row["type"],
                "try": row["try"],
                "question": row["question"],
                "options": row["options"],
                "prompt": vnbench.prompt(row),
                "answer": row["gt"],
                "letter": row["gt_option"],
            }
        )
    return _check_files(documents, videos)


def _check_files(documents: list[Document], folder: Path) -> list[Document]:
    """The documents. UserError when videos are missing, as they would count as wrong answers."""
    missing = _missing(document["video"] for document in documents)
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of the videos, such as {missing[0]}; name the folder "
            "that has all of them."
        )
    return documents


def _missing(paths: Iterable[str]) -> list[str]:
    return [path for path in dict.fromkeys(paths) if not Path(path).is_file()]
