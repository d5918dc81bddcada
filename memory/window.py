"""The recent window of a video that is being written, as it was made: what its encoder goes on with, also after a crash.

Knows blocks and files; nothing of the catalog. Where keys and values are quantised at rest, the encoder must not attend to
what the quantiser left of them, and a resumed encoder has to see the same window as one that was never stopped (law 4).
Layout:  <bank>/window/<video_id>/<number:06d>.safetensors: keys and values of one segment
A segment's block is durable before its row in the catalog is, goes when the segment has left the window, and the last ones
go when the video is finished: nobody encodes on from there. Until then a question reads the newest frames from here.
Blocks of segments that were never acknowledged are deleted by the next writer.
"""

import shutil
from collections.abc import Container
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from encoders.schema import KVBlock
from memory.atomic import make_folder, write_atomically


class RecentWindow:
    """Blocks of the newest segments of each unfinished video."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, video_id: str, number: int, block: KVBlock) -> None:
        """Keep a segment's block. When this returns, it is durable."""
        path = self._path(video_id, number)
        make_folder(path.parent)
        tensors = {"keys": block.keys, "values": block.values, "offsets": block.offsets}
        if block.pos is not None:
            tensors["pos"] = block.pos
        write_atomically(path, save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}))

    def frames(self, video_id: str, number: int, first: int, stop: int) -> KVBlock | None:
        """Frames first..stop-1 of a segment; None when it is not (or no longer) in the window."""
        try:
            with safe_open(self._path(video_id, number), "pt") as file:
                there = file.keys()
                offsets = file.get_tensor("offsets").clone()
                a, b = int(offsets[first]), int(offsets[stop])
                keys, values = (file.get_slice(name)[:, :, a:b].contiguous().clone() for name in ("keys", "values"))
                pos = file.get_slice("pos")[a:b].clone() if "pos" in there else None
                return KVBlock(keys, values, offsets[first : stop + 1] - a, pos)
        except (FileNotFoundError, SafetensorError):
            return None

    def keep(self, video_id: str, numbers: Container[int]) -> None:
        """Delete the blocks of all other segments of a video, and what a crash left of a write."""
        folder = self._path(video_id, 0).parent
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.suffix != ".safetensors" or int(path.stem) not in numbers:
                path.unlink(missing_ok=True)

    def drop(self, video_id: str) -> None:
        """Delete all blocks of a video."""
        shutil.rmtree(self._path(video_id, 0).parent, ignore_errors=True)

    def videos(self) -> list[str]:
        """Videos that have a window."""
        return sorted(path.name for path in self._root.iterdir()) if self._root.is_dir() else []

    def _path(self, video_id: str, number: int) -> Path:
        return self._root / video_id / f"{number:06d}.safetensors"
