"""Whether the bank of a run encodes on demand. Knows settings and the manifest of a bank."""

from pathlib import Path

from encoders.errors import UserError
from memory.encoded import encoded_store
from memory.encoded.encoded_store import IN_BLOCKS, NAME
from memory.storage import manifest
from pipeline.config.checks import is_endpoint
from pipeline.config.tasks.pipeline_settings import (
    AT_ONCE,
    ON_DEMAND,
    ON_DEMAND_BLOCKS,
    PipelineSettings,
)

# visual_tokens= -> what bank.json has of it
_RECORDS = {ON_DEMAND: encoded_store.ON_DEMAND, ON_DEMAND_BLOCKS: IN_BLOCKS}


def encodes_on_demand(settings: PipelineSettings) -> bool:
    """Whether the bank of a run encodes what questions read, and nothing before: a bank that
    exists says so itself, and a new one is as `visual_tokens` says."""
    return bool(provenance_of_encoding(settings))


def provenance_of_encoding(settings: PipelineSettings) -> dict[str, str]:
    """What bank.json has of it; nothing where a bank encodes at once."""
    record: object = _RECORDS.get(settings.visual_tokens or AT_ONCE)
    if (Path(settings.bank) / manifest.NAME).is_file():
        record = manifest.read(Path(settings.bank)).get(NAME)
    return {NAME: str(record)} if record in _RECORDS.values() else {}


def check_on_demand(settings: PipelineSettings) -> bool:
    """Whether questions of the run encode what they read.

    UserError where visual_tokens= does not fit, or not to the bank or other parts.
    """
    chosen = settings.visual_tokens
    if chosen not in (None, AT_ONCE, *_RECORDS):
        raise UserError(
            f"visual_tokens={chosen} is not known; use {AT_ONCE}, {ON_DEMAND} or "
            f"{ON_DEMAND_BLOCKS}."
        )
    record = provenance_of_encoding(settings).get(NAME)
    is_later = record is not None
    if chosen in _RECORDS and record != _RECORDS[chosen]:
        how = "on demand otherwise" if is_later else "every film at once"
        raise UserError(
            f"bank {settings.bank} encodes {how}, as it was made without "
            f"visual_tokens={chosen}; leave that out, or use another bank=DIR"
        )
    if not is_later:
        return False
    if is_endpoint(settings.backbone):
        if chosen is not None:
            raise UserError(
                f"visual_tokens={chosen} has no effect with backbone=endpoint, which makes none; "
                "leave it out"
            )
        return False
    if str(settings.retriever["_target_"]).endswith(".KVRetriever"):
        raise UserError(
            f"retriever=kv searches keys, which a bank with visual_tokens={ON_DEMAND} has only of "
            "what was asked about; use retriever=fused or retriever=clip"
        )
    if str(settings.compressor["_target_"]).endswith(".CarriedMerge"):
        raise UserError(
            "compressor=carry carries frames from segment to segment, and "
            f"visual_tokens={ON_DEMAND} encodes single ones; use compressor=merge"
        )
    if "captions" in settings.text:
        raise UserError(
            f"text=captions reads every segment, so visual_tokens={ON_DEMAND} would save nothing; "
            "leave one of them out"
        )
    return True
