"""An ingester that leaves the encoding to questions. Knows the bank's part that has it done."""

from collections.abc import Callable
from dataclasses import replace

from encoders.models.backbone import Backbone
from encoders.schema import FrameSource
from memory.union.bank_union import BankUnion
from pipeline.ingest.ingester import Ingester
from pipeline.ingest.on_demand_encoder import OnDemandEncoder


def with_on_demand(
    ingester: Ingester,
    backbone: Backbone,
    open_film: Callable[[str, float, float | None], FrameSource],
) -> Ingester:
    """The same ingester, which leaves the encoding to questions; and its bank, which has it done.

    open_film: the frames of a film as they were sampled when it was added.
    """
    bank = ingester.bank
    encoder = OnDemandEncoder(bank, backbone, ingester.compressor, ingester.new_prefill, open_film)
    if not isinstance(bank, BankUnion):  # nothing is written into several
        bank.encoding.encode = encoder
    return replace(ingester, on_demand=encoder)
