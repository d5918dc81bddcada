"""An ingester that leaves the encoding to questions. Knows the bank's part that has it done."""

from dataclasses import replace

from encoders.models.backbone import Backbone
from memory.encoded.encoded_store import IN_BLOCKS, NAME
from memory.union.bank_union import BankUnion
from pipeline.ingest.ingester import Ingester
from pipeline.ingest.on_demand_encoder import OnDemandEncoder, OpenFilm


def with_on_demand(
    ingester: Ingester,
    backbone: Backbone,
    open_film: OpenFilm,
) -> Ingester:
    """The same ingester, which leaves the encoding to questions; and its bank, which has it done.

    open_film: the frames of a film as they were sampled when it was added.
    """
    bank = ingester.bank
    encoder = OnDemandEncoder(
        bank,
        backbone,
        ingester.compressor,
        ingester.new_prefill,
        open_film,
        in_blocks=bank.provenance.get(NAME) == IN_BLOCKS,
    )
    if not isinstance(bank, BankUnion):  # nothing is written into several
        bank.encoding.encode = encoder
    return replace(ingester, on_demand=encoder)
