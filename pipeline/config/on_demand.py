"""Whether the bank of a run encodes on demand. Knows settings and the manifest of a bank."""

from pathlib import Path

from encoders.errors import UserError
from memory.encoded import encoded_store
from memory.encoded.encoded_store import NAME
from memory.storage import manifest
from pipeline.config.checks import is_endpoint
from pipeline.config.tasks.pipeline_settings import AT_ONCE, ON_DEMAND, PipelineSettings


def encodes_on_demand(settings: PipelineSettings) -> bool:
    """Whether the bank of a run encodes what questions read, and nothing before: a bank that
    exists says so itself, and a new one is as `visual_tokens` says."""
    if (Path(settings.bank) / manifest.NAME).is_file():
        return manifest.read(Path(settings.bank)).get(NAME) == encoded_store.ON_DEMAND
    return settings.visual_tokens == ON_DEMAND


def provenance_of_encoding(settings: PipelineSettings) -> dict[str, str]:
    """What bank.json has of it; nothing where a bank encodes at once."""
    return {NAME: encoded_store.ON_DEMAND} if encodes_on_demand(settings) else {}


def check_on_demand(settings: PipelineSettings) -> bool:
    """Whether questions of the run encode what they read.

    UserError where visual_tokens= does not fit, or not to the bank or other parts.
    """
    chosen = settings.visual_tokens
    if chosen not in (None, AT_ONCE, ON_DEMAND):
        raise UserError(f"visual_tokens={chosen} is not known; use {AT_ONCE} or {ON_DEMAND}.")
    is_later = encodes_on_demand(settings)
    if chosen == ON_DEMAND and not is_later:
        raise UserError(
            f"bank {settings.bank} encodes every film at once, as it was made without "
            f"visual_tokens={ON_DEMAND}; leave that out, or use another bank=DIR"
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
    if "captions" in settings.text:
        raise UserError(
            f"text=captions reads every segment, so visual_tokens={ON_DEMAND} would save nothing; "
            "leave one of them out"
        )
    return True
