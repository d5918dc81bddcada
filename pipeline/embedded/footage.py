"""Real footage for training: folders of clips and photographs -> one .npz of small frames.

    python -m pipeline.embedded.footage FOLDER [FOLDER ...] OUT.npz

The .npz is never committed. A third of the clips is held out by name and not written: accuracy is
measured on those. Photographs (wallpaper packages, say) help: with seven clips alone the tower saw
cards in 2 % of the frames of other clips.
"""

import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image

from encoders.sources.ffmpeg_name import ffmpeg_name

HELD_OUT = frozenset({"dog", "dance", "outdoor_3fps_b", "pancake"})
UNUSABLE = frozenset({"corrupted", "video_90"})


def clips(folder: Path, *, held_out: bool) -> list[Path]:
    """The usable clips on one side of the split, by name."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".mp4", ".mkv", ".mov", ".avi"))
    return [p for p in files if p.stem not in UNUSABLE and (p.stem in HELD_OUT) == held_out]


def frames(path: Path, per_second: float = 3.0, width: int = 224) -> np.ndarray:
    """[T, height, width, 3] uint8, sampled by timestamp."""
    out: list[np.ndarray] = []
    with av.open(ffmpeg_name(path)) as file:
        stream = file.streams.video[0]
        due = 0.0
        for frame in file.decode(stream):
            if frame.time is None or frame.time < due:
                continue
            due = frame.time + 1 / per_second
            height = round(frame.height * width / frame.width / 2) * 2
            out.append(frame.reformat(width=width, height=height, format="rgb24").to_ndarray())
    return np.stack(out)


def photographs(folder: Path, width: int = 448, least_bytes: int = 20_000) -> dict[str, np.ndarray]:
    """Name -> [1, height, width, 3] uint8 of every picture below the folder.

    Each name comes once; thumbnails, links and files below `least_bytes` are left out.
    """
    pictures: dict[str, np.ndarray] = {}
    for path in sorted(folder.rglob("*")):
        usable = path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") and path.is_file()
        if (
            not usable
            or path.is_symlink()
            or path.stem == "screenshot"
            or path.stat().st_size < least_bytes
        ):
            continue
        picture = Image.open(path).convert("RGB")
        small = picture.resize(
            (width, max(64, round(picture.height * width / picture.width))), Image.Resampling.BOX
        )
        pictures["-".join(path.relative_to(folder).with_suffix("").parts)] = np.asarray(small)[None]
    return pictures


def main() -> None:
    """Read the folders named on the command line and write the .npz."""
    *folders, target = map(Path, sys.argv[1:])
    material: dict[str, np.ndarray] = {}
    for folder in folders:
        material |= {path.stem: frames(path) for path in clips(folder, held_out=False)}
        material |= photographs(folder)
    np.savez(target, **material)  # type: ignore[arg-type]
    moving = sum(len(clip) > 1 for clip in material.values())
    print(
        f"{moving} clips, {len(material) - moving} photographs -> {target}; held out: "
        f"{', '.join(sorted(HELD_OUT))}"
    )


if __name__ == "__main__":
    main()
