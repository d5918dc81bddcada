"""Frames on their way between disk, RAM and a device: rates, budgets, and that no bit changes.

For tests/measure/gpu.py, which says what is covered. On a CPU the shapes are cut, and the device is
RAM as well.
"""

from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from encoders.schema import KVBlock, Segment, VisualTokens
from memory.bank import MemoryBank
from memory.cache.tiers import FrameKey, FrameTiers, Lease
from memory.retrieval.uniform import UniformRetriever
from pipeline.runtime.background_writer import BackgroundWriter
from tests.measure.gpu_models import Rows, Run, timed
from tests.support.records import info

_FRAMES, _SEGMENTS = 8, 8
# layers, KV heads, tokens a frame, head width, model width: LLaVA-OneVision 7B, and a cut one
_LARGE, _CUT = (28, 4, 196, 128, 3584), (2, 2, 4, 16, 64)


def _segment(run: Run, number: int) -> Segment:
    """A segment of random numbers, bfloat16."""
    layers, heads, each, width, model = _CUT if run.is_cut else _LARGE
    generator = torch.Generator().manual_seed(number)
    count = _FRAMES * each

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(torch.bfloat16)

    pos = torch.zeros(count, 3, dtype=torch.int32)
    pos[:, 0] = torch.arange(_FRAMES).repeat_interleave(each)
    offsets = torch.arange(_FRAMES + 1) * each
    times = torch.arange(_FRAMES).double() + _FRAMES * number
    shape = (layers, heads, count, width)
    return Segment(
        "film", number, float(times[0]), float(times[-1]) + 1,
        tokens=VisualTokens(random(count, model), pos, offsets, times),
        clip=torch.nn.functional.normalize(random(_FRAMES, 64).float(), dim=1),
        kv=KVBlock(random(*shape), random(*shape), offsets),
        key_means=None,
    )  # fmt: skip


def copies(run: Run) -> Rows:
    """A segment's keys to the device and back, from and to plain and page-locked memory. The writer
    gets them by the plain way back today.
    """
    block = _segment(run, 0).kv
    assert block is not None
    plain = block.keys
    is_gpu = run.device.type == "cuda"
    there = plain.to(run.device)
    ways: dict[str, Callable[[], Tensor]] = {
        "to the device": lambda: plain.to(run.device, copy=True),
        "back, as the writer gets keys": lambda: there.to("cpu", copy=True),
    }
    if is_gpu:
        locked = plain.pin_memory()
        landing = torch.empty_like(plain, pin_memory=True)
        ways |= {
            "to the device, page-locked": lambda: locked.to(run.device, non_blocking=True),
            "to the device, page-locked on the way": lambda: plain.pin_memory().to(
                run.device, non_blocking=True
            ),
            "back, page-locked": lambda: landing.copy_(there, non_blocking=True),
        }
    rows: Rows = [("a segment's keys", f"{plain.nbytes / 1e6:.1f} MB")]
    for name, copy in ways.items():
        seconds = []
        for _ in range(7):
            with timed() as took:
                moved = copy()
            seconds.append(took[0])
            if not torch.equal(moved.cpu(), plain):
                raise RuntimeError(f"{name}: other numbers")
        rows.append((name, f"{plain.nbytes / median(seconds) / 1e9:.2f} GB/s"))
    if not is_gpu:
        rows.append(("page-locked memory", "left out: there is no GPU"))
    return rows


def tiers(run: Run) -> Rows:
    """Segments through the background writer onto the disk, and frames from there through RAM to
    the device, within budgets.
    """
    segments = [_segment(run, number) for number in range(_SEGMENTS)]
    nbytes = sum(one.kv.nbytes + one.tokens.tokens.nbytes for one in segments if one.kv)
    made_with = {"model": "random", "quantisation": "none"}
    root = run.work / "bank"
    rows: Rows = []
    with MemoryBank.open(root, made_with, UniformRetriever(), recent_frames=0) as bank:
        bank.begin_writing()
        bank.record_video(info("film"), 1.0, finished=False)
        with timed() as took, BackgroundWriter(bank.write) as writer:
            for one in segments:
                writer.put(_copied(one, run))
            writer.flush()
        rows.append(
            ("segments from the device to the disk", f"{nbytes / took[0] / 1e6:.0f} MB/s, durable")
        )
        store = bank._store
        kept = FrameTiers(nbytes // 2, nbytes // 4, None if run.is_cut else run.device)
        keys = [
            FrameKey("film", one.number, frame, True)
            for one in segments
            for frame in range(_FRAMES)
        ]

        def read(first: FrameKey, count: int) -> tuple[VisualTokens, KVBlock | None]:
            return store.frames("film", first.segment, first.frame, first.frame + count)

        few = keys[: len(keys) // 8]
        for name, chosen in (("all frames", keys), ("an eighth", few), ("the same again", few)):
            with timed() as took:
                frames, lease = kept.take(chosen, read)
            size = sum(frame.nbytes for frame in frames)
            came = ", ".join(f"{n} from {place}" for place, n in lease.came_from.items() if n)
            rows.append((name, f"{size / took[0] / 1e6:.0f} MB/s, {came}"))
            _compare(chosen, frames, segments)
            _release(kept, lease)
        used = kept.nbytes()
        if used["ram"] > nbytes // 2 or used["device"] > nbytes // 4:
            raise RuntimeError(f"budgets are exceeded: {used}")
        rows.append(("in RAM and on the device, within budgets", f"{used} bytes"))
    return rows


def _copied(segment: Segment, run: Run) -> Segment:
    """As the encoder hands it over: its keys and values come back from the device."""
    if segment.kv is None or run.is_cut:
        return segment
    kv = segment.kv
    on_device = kv.keys.to(run.device), kv.values.to(run.device)
    block = KVBlock(on_device[0].cpu(), on_device[1].cpu(), kv.offsets, kv.pos)
    return Segment(
        segment.video_id, segment.number, segment.start, segment.end, segment.tokens, segment.clip,
        block, segment.key_means,
    )  # fmt: skip


def _release(kept: FrameTiers, lease: Lease) -> None:
    kept.end(lease)
    kept.nbytes()  # unpins what has ended


def _compare(keys: Sequence[FrameKey], frames: Sequence[object], segments: list[Segment]) -> None:
    """RuntimeError if a frame is not the one that was written."""
    for key, frame in zip(keys, frames, strict=True):
        kv = segments[key.segment].kv
        assert kv is not None
        wanted = kv.frames(key.frame, key.frame + 1)
        own = frame.kv  # type: ignore[attr-defined]
        if not (own.keys.cpu().equal(wanted.keys) and own.values.cpu().equal(wanted.values)):
            raise RuntimeError(f"frame {key.frame} of segment {key.segment} has other numbers")
