"""Real footage for training: a folder of clips -> one .npz of small frames. The footage itself is never committed.

    python -m pipeline.tiny.footage CLIPS_FOLDER OUT.npz

One third of the clips is held out by name and is not written: accuracy is measured on those.
"""

import sys
from pathlib import Path

import av
import numpy as np

HELD_OUT = frozenset({"dog", "dance", "outdoor_3fps_b", "pancake"})
UNUSABLE = frozenset({"corrupted", "video_90"})


def clips(folder: Path, *, held_out: bool) -> list[Path]:
    """The usable clips of one side of the split, by name."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".mp4", ".mkv", ".mov"))
    return [p for p in files if p.stem not in UNUSABLE and (p.stem in HELD_OUT) == held_out]


def frames(path: Path, per_second: float = 3.0, width: int = 224) -> np.ndarray:
    """[T, height, width, 3] uint8, sampled by timestamp."""
    out: list[np.ndarray] = []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        due = 0.0
        for frame in file.decode(stream):
            if frame.time is None or frame.time < due:
                continue
            due = frame.time + 1 / per_second
            height = round(frame.height * width / frame.width / 2) * 2
            out.append(frame.reformat(width=width, height=height, format="rgb24").to_ndarray())
    return np.stack(out)


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    kept = clips(folder, held_out=False)
    np.savez(target, **{path.stem: frames(path) for path in kept})  # type: ignore[arg-type]
    print(f"{len(kept)} clips -> {target}; held out: {', '.join(sorted(HELD_OUT))}")


if __name__ == "__main__":
    main()
