"""The recent window of a video that is being written: the exact keys and values its encoder needs.

Knows blocks and files; nothing of the catalog. In a quantized bank, the encoder must not attend to
dequantized keys and values, and a resumed encoder must see the same window as an uninterrupted one
(law 4).
Layout:  <bank>/window/<video_id>/<number:06d>.safetensors: keys and values of one segment
A segment's block is durable before the segment's row in the catalog. It is deleted when the segment
leaves the window, and when the video is finished. Only the encoder reads it: an answer reads what
the segments store, so that it is the same before and after that (law 3). The next writer deletes
blocks of segments that were never acknowledged.

Guarantee: keys and values from here are exactly those that the encoder produced, bit by bit. Every
block holds checksums of its tensors per frame (memory/storage/segments/tensor_file.py) and names
its segment; every read checks what it returns.
A damaged block is never used and never skipped: encoding that needs it fails with the file's name,
`verify` lists it, `repair` replaces it by what the segment stores and says so. `verify` lists
missing blocks too. The encoder then takes what the segment stores, which is also checked; later
segments may differ from an uninterrupted run, and `ingest` warns.
"""

import os
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.schema import KVBlock
from memory.storage.atomic import make_folder, remove_file, write_atomically
from memory.storage.file_access import reason
from memory.storage.segments import tensor_file
from memory.storage.segments.tensor_file import DamagedError, TensorFile


class RecentWindow:
    """Blocks of the newest segments of each unfinished video."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, video_id: str, number: int) -> Path:
        return self.root / video_id / f"{number:06d}.safetensors"

    def put(self, video_id: str, number: int, block: KVBlock) -> str:
        """Store a segment's block; durable on return. Returns its seal."""
        path = self.path(video_id, number)
        make_folder(path.parent)
        tensors = {"keys": block.keys, "values": block.values, "kv_offsets": block.offsets}
        if block.pos is not None:
            tensors["kv_pos"] = block.pos
        data = tensor_file.pack(tensors, {"video_id": video_id, "number": number})
        write_atomically(path, data)
        return tensor_file.seal(data)

    def frames(
        self, video_id: str, number: int, first: int, stop: int, expected_seal: str | None = None
    ) -> KVBlock | None:
        """Frames first..stop-1 of a segment; None if the window does not have it. DamagedError if
        its bytes differ from those that were written. expected_seal: None if it is not recorded."""
        try:
            with self._open(video_id, number, expected_seal) as file:
                offsets = file.offsets("kv_offsets")[first : stop + 1]
                keys, values = (file.frames(name, offsets, first) for name in ("keys", "values"))
                pos = file.load_optional("kv_pos")
                pos = None if pos is None else pos[int(offsets[0]) : int(offsets[-1])]
                return KVBlock(keys, values, offsets - offsets[0], pos)
        except FileNotFoundError:
            return None

    def has(self, video_id: str, number: int) -> bool:
        """True if something has the name of the block: damage is for `frames` to find."""
        return os.path.lexists(self.path(video_id, number))

    def problem(self, video_id: str, number: int, expected_seal: str | None = None) -> str | None:
        """Read a whole block. Returns "missing" or the damage; None if it is intact."""
        try:
            with self._open(video_id, number, expected_seal) as file:
                file.verify()
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"damaged ({reason(error)})"
        except DamagedError as error:
            return f"damaged ({error})"
        return None

    def seal(self, video_id: str, number: int) -> str | None:
        """The seal of an intact block; None if it is missing or damaged."""
        if self.problem(video_id, number) is not None:
            return None
        return tensor_file.read_seal(self.path(video_id, number))

    def keep_only(self, video_id: str, numbers: Container[int]) -> None:
        """Delete the blocks of all other segments of a video, and temporaries of a crash."""
        for path in self.files(video_id):
            if not (
                path.suffix == ".safetensors"
                and path.stem.isdecimal()
                and int(path.stem) in numbers
            ):
                remove_file(path)

    def discard(self, video_id: str, number: int) -> None:
        """Delete one block."""
        remove_file(self.path(video_id, number))

    def drop(self, video_id: str) -> None:
        """Delete all blocks of a video. After a crash, the next writer deletes the rest."""
        shutil.rmtree(self.root / video_id, ignore_errors=True)

    def videos(self) -> list[str]:
        """Videos that have a window."""
        return (
            sorted(path.name for path in self.root.iterdir() if path.is_dir())
            if self.root.is_dir()
            else []
        )

    def files(self, video_id: str) -> list[Path]:
        """All files in the window of a video."""
        folder = self.root / video_id
        return sorted(folder.iterdir()) if folder.is_dir() else []

    @contextmanager
    def _open(self, video_id: str, number: int, expected_seal: str | None) -> Iterator[TensorFile]:
        with tensor_file.open_file(self.path(video_id, number), expected_seal) as file:
            # catalogs of before hold no seal of a block: compare the header with the path and the
            # tensors
            if (file.metadata["video_id"], file.metadata["number"], set(file.sums)) != (
                video_id,
                number,
                file.names,
            ):
                raise DamagedError("its header is not the one that was written")
            yield file
