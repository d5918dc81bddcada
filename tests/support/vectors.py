"""An encoder of text without a model, and a process that ends while it writes vectors."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from encoders.text.lines import WordVectors
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.storage import crash_points


class Directions:
    """An encoder that gives every text a direction of its own."""

    made_with = "directions 8 1"

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [
            torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, text))))
            for text in texts
        ]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    def tokens(self, texts: Sequence[str]) -> Iterator[torch.Tensor]:
        """One row per word: the direction of the word alone."""
        return (self.embed(text.split()) for text in texts)

    def words(self, texts: Sequence[str]) -> Iterator[WordVectors]:
        """The same rows, and the direction of the text."""
        for text, rows in zip(texts, self.tokens(texts), strict=True):
            yield WordVectors(tuple(text.split()), rows, self.embed([text])[0])


def die(root: str, name: str, connection: Any) -> None:
    """Make all vectors of video v and end at a step."""

    def reached(step: str) -> None:
        connection.send(step)
        if step == name:
            os.kill(os.getpid(), signal.SIGKILL)

    with MemoryBank.open(Path(root), {"model": "m"}, UniformRetriever(), recent_frames=1) as bank:
        bank.begin_writing()
        crash_points.hook = reached
        for run, row in list(bank.text.missing_vectors("v")):
            rows = Directions().embed([line.text for line in bank.text.lines(run, row)])
            bank.text.write_vectors(run, row, rows.numpy(), Directions.made_with)
