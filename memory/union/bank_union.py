"""Several banks of one model as one, for reading: `open_banks`.

A question about two banks together has the answer of one bank into which the films of the first one
were added, then those of the second. Nothing is written but caches (saved search rows, findings),
each into the bank of its video; another process may write to any of them. A video that several
banks have comes from the first of these alone.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Unpack

from encoders.errors import UserError
from memory.bank import BankOptions, MemoryBank, of_before, open_store
from memory.schema import Retriever
from memory.storage.manifest import Provenance, Values, differences, open_manifest
from memory.storage.os_errors import as_user_errors
from memory.storage.segments.codebook import Codebook
from memory.store import DiskStore, root_of
from memory.text.findings import FindingStore
from memory.union.store_union import StoreUnion


class BankUnion(MemoryBank):
    """Reads several banks; every writing method raises UserError."""

    def __init__(
        self,
        store: StoreUnion,
        provenance: Values,
        retriever: Retriever,
        *,
        roots: Sequence[Path],
        **options: Unpack[BankOptions],
    ) -> None:
        """Only for `open_banks`. roots: of the stores, in order. options: as of MemoryBank."""
        super().__init__(store, provenance, retriever, **options)
        self.name = ", ".join(map(str, roots))
        self.findings = FindingStore(*roots, place=store.places.of)

    def begin_writing(self) -> None:
        """UserError: nobody says into which bank."""
        raise UserError(
            f"banks {self.name} are read as one, and nothing is written to them together; name one "
            "bank to write to"
        )


def open_banks(
    roots: Sequence[str | Path],
    provenance: Provenance | None,
    retriever: Retriever,
    *,
    create: bool = True,
    codebook: Codebook | None = None,
    **options: Unpack[BankOptions],
) -> MemoryBank:
    """The bank of one folder, as `MemoryBank.open`, or those of several as one, which must exist.

    UserError also for a bank that is named twice, and for banks that do not fit together.
    """
    folders = [Path(root) for root in roots]
    if len(folders) == 1:
        return MemoryBank.open(
            folders[0], provenance, retriever, create=create, codebook=codebook, **options
        )
    recorded = refuse_unfit(folders)
    if provenance is not None:
        open_manifest(folders[0], provenance, create=False, older=of_before(provenance))
    with ExitStack() as stack:
        stores: list[DiskStore] = []
        for folder in folders:
            with as_user_errors(folder):
                stores.append(open_store(folder, None, create=False)[1])
            stack.callback(stores[-1].close)
        union = BankUnion(StoreUnion(stores), recorded, retriever, roots=folders, **options)
        stack.pop_all()
        return union


def refuse_unfit(roots: Sequence[str | Path]) -> Values:
    """UserError for banks that cannot be read as one. Returns what all of them record.

    Opens none of them, so it can come before a model is loaded.
    """
    seen, first = set[str](), Path(roots[0])
    recorded: Values | None = None
    for folder in map(Path, roots):
        if os.path.realpath(folder) in seen:
            raise UserError(f"bank {folder} is named twice; name each bank once")
        seen.add(os.path.realpath(folder))
        values = open_manifest(folder, None, create=False)
        recorded = values if recorded is None else recorded
        if values != recorded:
            what = differences(recorded, values, str(folder))
            raise UserError(
                f"banks {first} and {folder} cannot be read as one, because {first} was made with "
                f"{what}; ask each by itself"
            )
    assert recorded is not None
    return recorded


def folder_of(bank: MemoryBank, video_id: str) -> Path:
    """The folder of the bank that has a video."""
    return root_of(bank._store, video_id)
