"""All that an answer of the model depends on beside what it sees: the key of findings and notes
that a bank keeps. Knows the answerer; no strategy by name."""

from typing import TYPE_CHECKING

from pipeline.answer.schema import is_local

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


def finding_key(answerer: "Answerer", maker: str, *settings: str) -> str:
    """maker: what makes the findings, with the version of its rules. settings: its own."""
    bank, reader = answerer.bank.provenance, answerer.reader
    model = reader.model_name or f"{bank.get('model')} {bank.get('weights')}"
    parts = [model, type(reader).__name__, f"read_tokens={answerer.read_tokens}"]
    if is_local(reader):
        said = reader.abstention
        parts.append(f"max_new_tokens={reader.max_new_tokens}")
        # findings of earlier versions name no place of lines
        parts += [] if reader.lines == "behind" else [f"lines={reader.lines}"]
        parts.append(f"{said.instruction!r} {said.check_prompt!r} {said.threshold}")
    return f"{maker}({', '.join([*parts, *settings])})"
