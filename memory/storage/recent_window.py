"""The recent window of a video that is being written, as it was made: what its encoder goes on with, also after a crash.

Knows blocks and files; nothing of the catalog. Where keys and values are quantised at rest, the encoder must not attend to
what the quantiser left of them, and a resumed encoder has to see the same window as one that was never stopped (law 4).
Layout:  <bank>/window/<video_id>/<number:06d>.safetensors: keys and values of one segment
A segment's block is durable before its row in the catalog is, goes when the segment has left the window, and the last ones
go when the video is finished: nobody encodes on from there. Until then a question reads the newest frames from here.
Blocks of segments that were never acknowledged are deleted by the next writer.

Guarantee: keys and values that come from here are those that were made, bit by bit. Every block carries sums of its tensors
by frame (memory/storage/tensor_file.py), and says which segment it is of; every read compares those of what it hands out.
A damaged block is never used and never passed over: encoding and questions that need it are refused with the file's name,
`verify` lists it, `repair` puts what the segment stores in its place and says so.
A missing block is listed by `verify`, too. Whoever needs it takes what the segment stores, which is checked as well: a
question loses what quantising loses; later segments may get other bytes than in an uninterrupted run, and `ingest` warns.
"""

import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.schema import KVBlock
from memory.storage import tensor_file
from memory.storage.atomic import make_folder, write_atomically
from memory.storage.tensor_file import DamagedError, TensorFile


class RecentWindow:
    """Blocks of the newest segments of each unfinished video."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, video_id: str, number: int) -> Path:
        return self.root / video_id / f"{number:06d}.safetensors"

    def put(self, video_id: str, number: int, block: KVBlock) -> None:
        """Keep a segment's block. When this returns, it is durable."""
        path = self.path(video_id, number)
        make_folder(path.parent)
        tensors = {"keys": block.keys, "values": block.values, "kv_offsets": block.offsets}
        if block.pos is not None:
            tensors["kv_pos"] = block.pos
        write_atomically(path, tensor_file.pack(tensors, {"video_id": video_id, "number": number}))

    def frames(self, video_id: str, number: int, first: int, stop: int) -> KVBlock | None:
        """Frames first..stop-1 of a segment; None when it is not (or no longer) in the window. DamagedError."""
        try:
            with self._open(video_id, number) as file:
                offsets = file.offsets("kv_offsets")[first : stop + 1]
                keys, values = (file.frames(name, offsets, first) for name in ("keys", "values"))
                pos = file.load_optional("kv_pos")
                pos = None if pos is None else pos[int(offsets[0]) : int(offsets[-1])]
                return KVBlock(keys, values, offsets - offsets[0], pos)
        except FileNotFoundError:
            return None

    def has(self, video_id: str, number: int) -> bool:
        return self.path(video_id, number).is_file()

    def problem(self, video_id: str, number: int) -> str | None:
        """What is wrong with a block that should be there, after reading all of it; None when it is sound."""
        try:
            with self._open(video_id, number) as file:
                file.verify()
        except FileNotFoundError:
            return "missing"
        except (OSError, DamagedError) as error:
            return f"damaged ({error})"
        return None

    def keep_only(self, video_id: str, numbers: Container[int]) -> None:
        """Delete the blocks of all other segments of a video, and what a crash left of a write."""
        for path in self.files(video_id):
            if not (
                path.suffix == ".safetensors"
                and path.stem.isdecimal()
                and int(path.stem) in numbers
            ):
                path.unlink(missing_ok=True)

    def discard(self, video_id: str, number: int) -> None:
        """Delete one block."""
        self.path(video_id, number).unlink(missing_ok=True)

    def drop(self, video_id: str) -> None:
        """Delete all blocks of a video. What a crash leaves, the next writer deletes."""
        shutil.rmtree(self.root / video_id, ignore_errors=True)

    def videos(self) -> list[str]:
        """Videos that have a window."""
        return (
            sorted(path.name for path in self.root.iterdir() if path.is_dir())
            if self.root.is_dir()
            else []
        )

    def files(self, video_id: str) -> list[Path]:
        """Whatever lies in the window of a video."""
        folder = self.root / video_id
        return sorted(folder.iterdir()) if folder.is_dir() else []

    @contextmanager
    def _open(self, video_id: str, number: int) -> Iterator[TensorFile]:
        with tensor_file.open_file(self.path(video_id, number)) as file:
            # no seal in the catalog: what the header says is compared with where the file lies and what is in it
            if (file.metadata["video_id"], file.metadata["number"], set(file.sums)) != (
                video_id,
                number,
                file.names,
            ):
                raise DamagedError("its header is not the one that was written")
            yield file
