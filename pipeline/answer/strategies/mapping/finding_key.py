"""All that an answer of the model depends on beside what it sees: the key of findings and notes
that a bank keeps. Knows the answerer; no strategy by name."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


def finding_key(answerer: "Answerer", maker: str, *settings: str) -> str:
    """maker: what makes the findings, with the version of its rules. settings: its own."""
    bank, reader = answerer.bank.provenance, answerer.reader
    model = reader.model_name or f"{bank.get('model')} {bank.get('weights')}"
    parts = [model, reader.settings, f"read_tokens={answerer.read_tokens}"]
    # a slice is read whole, so elsewhere the search changes nothing
    parts += [f"ranked by {answerer.ranked_by}"] if reader.reads_ranking else []
    resolution = answerer.bank.resolution
    parts += [] if resolution.is_whole else [str(resolution)]
    return f"{maker}({', '.join([*parts, *settings])})"
