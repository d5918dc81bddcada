"""What is refused before anything loads: values out of range, and parts that do not go together."""

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from memory.schema import Retriever
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.config import units
from pipeline.config.parts import PartSettings
from pipeline.config.tasks.pipeline_settings import IngestSettings, PipelineSettings

_NOT_NEGATIVE = (
    "recent_frames",
    "read_text_tokens",
    "cite_share",
    "threads",
    "ram_mb",
    "device_mb",
    "prefetch_frames",
    "keep_freed_mb",
)
_MOST = {
    "threads": 1024,  # OpenMP reserves memory for each and ends the process where there is none
    "prefetch_frames": 100_000,  # a search counts them one by one
}


def check_ranges(settings: PipelineSettings) -> None:
    """UserError on a value outside its range."""
    minimum_of = {"fps": 1e-3, "read_tokens": 1, "seed": -(2**63)} | dict.fromkeys(_NOT_NEGATIVE, 0)
    for name, minimum in minimum_of.items():
        value = getattr(settings, name)
        if value is not None and not value >= minimum:  # refuses nan as well
            raise UserError(f"{name}={value} is too small; use {minimum:g} or more.")
    maximum_of = dict.fromkeys(("seed", *_NOT_NEGATIVE), 2**63 - 1) | _MOST
    for name, maximum in maximum_of.items():
        value = getattr(settings, name)
        if value is not None and value > maximum:
            raise UserError(f"{name}={value} is too large; use {maximum} or less.")
    if settings.cite_share > 1:
        raise UserError(f"cite_share={settings.cite_share} is too large; use a share from 0 to 1.")
    StorageFormat(settings.kv_dtype, settings.token_dtype)  # refuses types that it does not know
    began_at(settings)


def began_at(settings: PipelineSettings) -> float | None:
    """Unix seconds of second 0 of the video; None where the task has no began=, or it is empty.

    UserError on what is no moment.
    """
    if not isinstance(settings, IngestSettings) or not settings.began:
        return None
    return units.parse_moment("began", settings.began)


def is_endpoint(backbone: PartSettings) -> bool:
    """Whether the model of a run is behind an address (pipeline/endpoint/)."""
    return str(backbone["_target_"]).endswith(".Endpoint")


def check_parts(
    settings: PipelineSettings,
    *,
    keeps_kv: bool,
    retriever: Retriever,
    reader_needs_kv: bool,
    has_frame_embedder: bool,
    backbone: Backbone | None,
) -> None:
    """UserError on parts that each work but not together: before an hour of video is encoded.

    keeps_kv: of the prefill. backbone: None for a model that is not in this process.
    """
    if not keeps_kv and not retriever.reads.isdisjoint({"key_means", "keys"}):
        raise UserError(
            "prefill=none keeps no keys and values, which "
            f"{type(retriever).__name__} searches; use retriever=clip"
            f"{'' if has_frame_embedder else ' clip=b32'}, retriever=uniform, or prefill=window."
        )
    if not keeps_kv and settings.kv_dtype is not None:
        raise UserError(
            f"kv_dtype={settings.kv_dtype} has no effect with prefill=none, which keeps no keys "
            "and values; leave it out."
        )
    if not keeps_kv and not is_no_policy(settings.kv_policy):
        raise UserError(
            "kv_policy= has no effect with prefill=none, which keeps no keys and values; leave it "
            "out."
        )
    if not keeps_kv and scales_positions(settings.encode_position):
        raise UserError(
            "position@encode_position= has no effect with prefill=none, which encodes no keys and "
            "values; leave it out."
        )
    if not settings.answers_questions:
        return  # a task that only encodes leaves the reader open
    if not keeps_kv and reader_needs_kv:
        raise UserError(
            "prefill=none keeps no keys and values, which reader=kv reads; use reader=tokens, or "
            "prefill=window."
        )
    if reader_needs_kv and not str(settings.sparsity["_target_"]).endswith(".NoSparsity"):
        raise UserError(
            "sparsity= has no effect with reader=kv, which prefills no frames; use reader=tokens, "
            "or prefill=xattention or prefill=sample while frames are encoded."
        )
    if backbone is not None:
        _refuse_long_reads(settings, backbone)
    for own, what in (("per_layer", "layers"), ("per_head", "heads")):
        if settings.retriever.get("parts", {}).get("kv", {}).get(own):
            raise UserError(
                f"retriever.parts.kv.{own}=true has no effect in retriever=fused, which makes one "
                f"ranking for all {what}; use retriever=kv retriever.{own}=true."
            )
        if settings.retriever.get(own) and not reader_needs_kv:
            raise UserError(f"retriever.{own}=true needs reader=kv: visual tokens have no {what}.")
    if reader_needs_kv and pools_frames(settings.resolution):
        raise UserError(
            "resolution= pools visual tokens when they are read, and stored keys and values have "
            "no mean; use reader=tokens, or leave resolution= out."
        )
    in_time = str(settings.frame_order["_target_"]).endswith(".TimeOrder")
    if settings.retriever.get("per_layer") and not in_time:
        raise UserError(
            "retriever.per_layer=true reads frames in time order; use frame_order=time, or another "
            "retriever."
        )


def pools_frames(resolution: PartSettings) -> bool:
    """Whether a part of conf/resolution/ reads any frame with fewer tokens than are stored."""
    is_uniform = str(resolution["_target_"]).endswith(".UniformResolution")
    return not (is_uniform and resolution.get("ratio", 1) == 1)


def scales_positions(position: PartSettings) -> bool:
    """Whether a part of conf/position/ changes anything by its kind."""
    return not str(position["_target_"]).endswith(".NoScaling")


def is_no_policy(policy: PartSettings) -> bool:
    """Whether a part of conf/kv_policy/ changes nothing by its kind."""
    return str(policy["_target_"]).endswith(".NoPolicy")


def _refuse_long_reads(settings: PipelineSettings, backbone: Backbone) -> None:
    """UserError if read_tokens= alone exceeds the positions of the model. With three axes a token
    takes less than a position, so a read that is too long is refused when it is laid out.
    """
    most = backbone.language_model.max_positions
    if (
        settings.read_tokens is not None
        and most is not None
        and backbone.language_model.positions.axes == 1
        and not scales_positions(settings.position)
        and settings.read_tokens > most
    ):
        raise UserError(
            f"read_tokens={settings.read_tokens} is more than the {most} positions that the model "
            "was made for (max_position_embeddings); use less."
        )
