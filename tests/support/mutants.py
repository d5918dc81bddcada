"""Banks that are damaged in every way that a disk, a user or a copy can damage them, and what each
command makes of them.

`make_banks` writes small banks with everything that a bank can hold; no model is loaded. `mutate`
damages one, by a seed. `observe` runs what users run and returns plain data: exit codes, messages,
tracebacks and digests of what questions read.
"""

import contextlib
import hashlib
import io
import os
import pickle
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from encoders.errors import UserError
from encoders.prefill import key_means
from encoders.schema import Segment
from memory.bank import MemoryBank
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.kv import KVRetriever
from memory.schema import Question, Retriever
from memory.text.bm25 import LineFilter
from memory.text.tokenizer import query
from pipeline.commands import bank as bank_command
from pipeline.config.tasks.bank_settings import BankSettings, RepairSettings
from tests.support.records import Words, info, make_segment, token_queries
from tests.support.text_blocks import block, line
from tests.support.vectors import Directions

KINDS: dict[str, str] = {"plain": "none", "int8": "kv=int8, keys=causal, tokens=int8, window=6"}
VIDEOS = {"v": 5, "w": 3}  # id -> segments; v is finished
SECONDS_EACH = 20.0  # a mutant that takes longer hangs
MEGABYTES_EACH = 3000  # of address space beyond what the process had
_NOBODY = 65534


def provenance(kind: str, model: str = "m") -> dict[str, str | int | float | None]:
    return {"model": model, "fps": 1.0, "quantisation": KINDS[kind]}


def retriever() -> FusedRetriever:
    parts: dict[str, Callable[..., Retriever]] = {"clip": ClipRetriever, "kv": KVRetriever}
    return FusedRetriever(parts, embedder=Words(), queries=token_queries)


def segment_of(video_id: str, number: int, world: str) -> Segment:
    """A segment whose numbers depend on the world; its times and sizes do not."""
    own = make_segment(video_id, number, tokens=[2, 3, 1, 2])
    if world:
        other = make_segment(video_id + world, number, tokens=[2, 3, 1, 2])
        own = replace(other, video_id=video_id)
    assert own.kv is not None
    return replace(own, key_means=key_means(own.kv))


def make_bank(root: Path, kind: str, world: str = "", model: str = "m", fewer: int = 0) -> None:
    """A bank with two videos, lines, vectors and saved search rows.

    world: another one has other numbers and words under the same names. fewer: segments that each
    video lacks, as in an older copy.
    """
    with MemoryBank.open(root, provenance(kind, model), retriever(), recent_frames=2) as bank:
        for video_id, count in VIDEOS.items():
            bank.record_video(info(video_id), 1.0, finished=False)
            for number in range(count - fewer):
                bank.write(segment_of(video_id, number, world))
            if video_id == "v" and not fewer:
                bank.record_video(info(video_id), 1.0, finished=True)
            for number in range(3 - min(fewer, 2)):
                words = (
                    line(10.0 * number + 1, f"the {world} harbour was rebuilt", video_id),
                    line(10.0 * number + 4, f"bread number {number} needs {world} salt", video_id),
                )
                bank.text.write(block(number, *words, video_id=video_id, last=number == 2))
            for run, row in list(bank.text.missing_vectors(video_id)):
                rows = Directions().embed([one.text for one in bank.text.lines(run, row)])
                bank.text.write_vectors(run, row, rows.numpy(), Directions.made_with)
            bank.recall(Question("needle", video_id), read_tokens=8)  # so that rows are saved


@dataclass(frozen=True, slots=True)
class Template:
    """A whole bank, and those that its mutants borrow from."""

    kind: str
    root: Path  # holds "own", "other" (same settings), "foreign" (other settings), "older"


def make_banks(root: Path) -> list[Template]:
    templates = []
    for kind in KINDS:
        folder = root / kind
        make_bank(folder / "own", kind)
        make_bank(folder / "other", kind, world="x")
        make_bank(folder / "foreign", kind, world="y", model="another")
        make_bank(folder / "older", kind, fewer=2)
        templates.append(Template(kind, folder))
    return templates


# ---- mutations


class Mutation(Protocol):
    """Damages a path. double: the same path in another bank; it may be missing."""

    __name__: str

    def __call__(self, path: Path, double: Path, chance: np.random.Generator, /) -> None: ...


def _data(path: Path, change: Callable[[bytearray], None]) -> None:
    data = bytearray(path.read_bytes())
    if data:
        change(data)
    path.write_bytes(data)


def flip(path: Path, double: Path, chance: np.random.Generator) -> None:
    def change(data: bytearray) -> None:
        data[int(chance.integers(len(data)))] ^= 1 << int(chance.integers(8))

    _data(path, change)


def scribble(path: Path, double: Path, chance: np.random.Generator) -> None:
    """A stretch of random bytes, or of zeros."""

    def change(data: bytearray) -> None:
        size = int(chance.integers(1, min(len(data), 600) + 1))
        at = int(chance.integers(len(data) - size + 1))
        data[at : at + size] = bytes(size) if chance.integers(2) else chance.bytes(size)

    _data(path, change)


def cut_one(path: Path, double: Path, chance: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut(path: Path, double: Path, chance: np.random.Generator) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(chance.integers(len(data) + 1))])


def grow(path: Path, double: Path, chance: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes() + chance.bytes(int(chance.integers(1, 5000))))


def not_utf8(path: Path, double: Path, chance: np.random.Generator) -> None:
    path.write_bytes(b"\xff\xfe caf\xe9 \xc3")


def other_json(path: Path, double: Path, chance: np.random.Generator) -> None:
    texts = ("[]", "null", "7", '"x"', "{}", "[" * 100_000, '{"format": 3}', '{"head": []}', "\0")
    path.write_text(texts[int(chance.integers(len(texts)))])


def delete(path: Path, double: Path, chance: np.random.Generator) -> None:
    path.unlink()


def delete_folder(path: Path, double: Path, chance: np.random.Generator) -> None:
    shutil.rmtree(path)


def folder_instead(path: Path, double: Path, chance: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()
    if chance.integers(2):
        (path / "note.txt").write_text("x")


def loop_instead(path: Path, double: Path, chance: np.random.Generator) -> None:
    remove(path)
    path.symlink_to(path.name)


def dangling_instead(path: Path, double: Path, chance: np.random.Generator) -> None:
    remove(path)
    path.symlink_to("/nowhere/at/all")


def pipe_instead(path: Path, double: Path, chance: np.random.Generator) -> None:
    remove(path)
    os.mkfifo(path)


def endless_instead(path: Path, double: Path, chance: np.random.Generator) -> None:
    remove(path)
    path.symlink_to("/dev/zero")


def double_instead(path: Path, double: Path, chance: np.random.Generator) -> None:
    """The file of the same name in another bank."""
    remove(path)
    if double.is_dir():
        shutil.copytree(double, path)
    elif double.exists():
        shutil.copyfile(double, path)


def swap(path: Path, double: Path, chance: np.random.Generator) -> None:
    """Two files of one kind change places."""
    bank = next(parent for parent in path.parents if (parent / "segments").exists())
    same = [one for one in files_of(bank) if one.suffix == path.suffix and one != path]
    if not same:
        return
    other = same[int(chance.integers(len(same)))]
    mine = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(mine)


def no_rights(path: Path, double: Path, chance: np.random.Generator) -> None:
    path.chmod(0)


def read_only(path: Path, double: Path, chance: np.random.Generator) -> None:
    path.chmod(0o555 if path.is_dir() else 0o444)


def copy_beside(path: Path, double: Path, chance: np.random.Generator) -> None:
    names = (f"{path.stem} (copy){path.suffix}", "notes.txt", "a\udce9.txt", "000009.safetensors")
    target = path.with_name(names[int(chance.integers(len(names)))])
    shutil.copyfile(path, target)


def file_instead(path: Path, double: Path, chance: np.random.Generator) -> None:
    remove(path)
    path.write_text("x")


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


OF_FILES: tuple[tuple[Mutation, int], ...] = (
    (flip, 10),
    (scribble, 4),
    (cut_one, 3),
    (cut, 3),
    (grow, 2),
    (not_utf8, 2),
    (other_json, 3),
    (delete, 3),
    (folder_instead, 3),
    (loop_instead, 2),
    (dangling_instead, 1),
    (pipe_instead, 1),
    (endless_instead, 1),
    (double_instead, 6),
    (swap, 4),
    (no_rights, 2),
    (read_only, 1),
    (copy_beside, 2),
)
OF_FOLDERS: tuple[tuple[Mutation, int], ...] = (
    (double_instead, 4),
    (delete_folder, 3),
    (file_instead, 3),
    (loop_instead, 2),
    (dangling_instead, 1),
    (no_rights, 3),
    (read_only, 2),
)
NEED_RIGHTS = (no_rights, read_only)


def files_of(bank: Path) -> list[Path]:
    return sorted(path for path in bank.rglob("*") if path.is_file())


def _group(bank: Path, path: Path) -> str:
    """Files of one kind are drawn together, so that many segments do not crowd out bank.json."""
    parts = path.relative_to(bank).parts
    return parts[0] if len(parts) == 1 else f"{parts[0]}/{path.suffix or path.name}"


def state_of(bank: Path) -> dict[str, tuple[int, str | bytes | None]]:
    """Mode and content of everything in a bank: bytes of a file, target of a link."""

    def content(path: Path) -> str | bytes | None:
        if path.is_symlink():
            return os.readlink(path)
        with contextlib.suppress(PermissionError):
            return path.read_bytes() if path.is_file() else None
        return None

    paths = sorted(bank.rglob("*"))
    return {str(path.relative_to(bank)): (path.lstat().st_mode, content(path)) for path in paths}


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to one path of a bank."""

    mutation: Mutation
    path: Path
    source: Path  # the bank that has the double

    @property
    def kind(self) -> str:
        table = "folder" if self.path.is_dir() else "file"
        return f"{table}: {self.mutation.__name__}"

    def apply(self, bank: Path, chance: np.random.Generator) -> None:
        self.mutation(self.path, self.source / self.path.relative_to(bank), chance)


def all_kinds() -> set[str]:
    tables = {"file": OF_FILES, "folder": OF_FOLDERS}
    return {f"{name}: {one.__name__}" for name, table in tables.items() for one, _ in table}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One damage, named by its seed."""

    template: Template
    seed: int

    def draw(self, bank: Path, chance: np.random.Generator) -> Damage:
        """The damage to a copy of the template's bank."""
        source = self.template.root / ("other", "foreign", "older")[int(chance.integers(3))]
        if chance.integers(6) == 0:
            folders = sorted(path for path in bank.rglob("*") if path.is_dir())
            path, table = folders[int(chance.integers(len(folders)))], OF_FOLDERS
        else:
            groups: dict[str, list[Path]] = {}
            for each in files_of(bank):
                groups.setdefault(_group(bank, each), []).append(each)
            names = sorted(groups)
            # the small files and the catalog hold the rest together
            names += [name for name in names if "/" not in name or "made_with" in name] * 3
            group = groups[names[int(chance.integers(len(names)))]]
            path, table = group[int(chance.integers(len(group)))], OF_FILES
        weights = np.array([weight for _, weight in table], float)
        mutation = table[int(chance.choice(len(table), p=weights / weights.sum()))][0]
        return Damage(mutation, path, source)

    def apply(self, bank: Path) -> str:
        """Damage a copy of the template's bank; says how. A damage that changes nothing, such as
        two equal files that change places, is drawn again."""
        chance, before = np.random.default_rng(self.seed), state_of(bank)
        while True:
            damage = self.draw(bank, chance)
            name, place = damage.mutation.__name__, damage.path.relative_to(bank)
            damage.apply(bank, chance)
            if state_of(bank) != before:
                break
        of = f" of {damage.source.name}" if damage.mutation is double_instead else ""
        return f"{self.template.kind} {self.seed}: {name}{of} {place}"


# ---- what commands make of it


@dataclass(slots=True)
class Observed:
    """What happened to one mutant."""

    name: str
    is_damaged: bool = False  # the bank differs from the template's
    verify: int | None = None  # exit code, before any repair
    reads: dict[str, str] = field(default_factory=dict)  # digest, or "refused: ..."
    repair: int | None = None
    verify_again: int | None = None
    left: str = ""  # what verify still lists
    reads_again: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)  # files of segments that a writer deleted
    said: list[str] = field(default_factory=list)  # every message
    traces: list[str] = field(default_factory=list)
    seconds: float = 0.0


def reads_of(root: Path, kind: str) -> dict[str, str]:
    """What questions read, as digests; a refusal counts as "refused: <sentence>"."""
    found: dict[str, str] = {}

    def take(name: str, read: Callable[[], Any]) -> None:
        try:
            found[name] = _digest(read())
        except UserError as error:
            found[name] = f"refused: {error}"

    try:
        bank = MemoryBank.open(root, provenance(kind), retriever(), recent_frames=2, create=False)
    except UserError as error:
        return {"open": f"refused: {error}"}
    found["open"] = "done"
    with bank:
        for video_id in VIDEOS:
            question = Question("needle", video_id)
            recall = partial(bank.recall, question, read_tokens=9)
            take(f"frames of {video_id}", recall)
            take(f"tokens of {video_id}", partial(recall, kv=False))
            take(f"ranks of {video_id}", partial(bank.rank_frames, "star", video_id, most=5))
            take(f"video {video_id}", partial(_facts, bank, video_id))
            take(f"finished {video_id}", partial(_finished, bank, video_id))
        take("lines", lambda: bank.text.search(query("harbour bread salt"), LineFilter()))
        near = Directions().embed(["bread number 1 needs  salt"]).numpy()[0]
        take("near lines", lambda: bank.text.nearest(near, LineFilter()))
        take("lines with vectors", bank.text.count_vectors)
        take("model of lines", lambda: bank.text.refuse_other_vectors(Directions.made_with))
    return found


def _facts(bank: MemoryBank, video_id: str) -> Any:
    """Not whether it is finished: an unfinished video is looked at again (`_finished`)."""
    video = bank.catalog.require_video(video_id)
    rows = [(row.number, row.start, row.end) for row in bank.catalog.segments(video_id)]
    return video.info, video.interval, video.pruned, rows


def _finished(bank: MemoryBank, video_id: str) -> Any:
    return bank.catalog.require_video(video_id).finished or None


def _digest(value: Any) -> str:
    """Of everything that a reader sees: not of seconds, nor of where frames came from."""
    state = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            part = part.contiguous()
            state.update(repr((part.dtype, part.shape)).encode())
            state.update(part.view(torch.uint8).numpy().tobytes() if part.numel() else b"")
        elif isinstance(part, np.ndarray):
            state.update(part.tobytes())
        elif isinstance(part, tuple | list):
            state.update(str(len(part)).encode())
            for each in part:
                add(each)
        elif hasattr(part, "__dataclass_fields__"):
            for name in part.__dataclass_fields__:
                if name not in ("seconds", "came_from", "__weakref__"):
                    add(getattr(part, name))
        else:
            state.update(repr(part).encode())

    add(value)
    return state.hexdigest()


def observe(mutant: Mutant, whole: dict[str, bytes], folder: Path) -> Observed:
    """Damage two copies of the bank. One is verified, listed, asked, and repaired; the other gets
    the next segment from a writer."""
    began = time.monotonic()
    bank, written = folder / "bank", folder / "written"
    for copy in (bank, written):
        shutil.copytree(mutant.template.root / "own", copy)
    if os.getuid() == 0:  # rights mean nothing to root
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY)
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    os.umask(0o022)
    whole_state = state_of(bank)
    seen = Observed(mutant.apply(bank))
    seen.is_damaged = state_of(bank) != whole_state
    mutant.apply(written)
    seen.verify, _ = _command(seen, BankSettings(bank=str(bank), action="verify"))
    _command(seen, BankSettings(bank=str(bank), action="ls"))
    seen.reads = _guarded(seen, lambda: reads_of(bank, mutant.template.kind), {})
    kind = mutant.template.kind
    for number in (VIDEOS["w"], VIDEOS["w"] + 1):
        _guarded(seen, partial(_write, written, kind, number), None)
    seen.lost = [name for name, data in whole.items() if _was_deleted(seen, written, name, data)]
    seen.repair, _ = _command(seen, RepairSettings(bank=str(bank), action="repair"))
    seen.verify_again, seen.left = _command(seen, BankSettings(bank=str(bank), action="verify"))
    seen.reads_again = _guarded(seen, lambda: reads_of(bank, kind), {})
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):
            path.chmod(0o755)  # so that it can be deleted
    seen.seconds = time.monotonic() - began
    return seen


def _was_deleted(seen: Observed, bank: Path, name: str, data: bytes) -> bool:
    """Whether a whole file that the damage did not touch is gone."""
    damaged = seen.name.rsplit(" ", 1)[-1]
    if name == damaged or name.startswith(f"{damaged}/") or " swap " in f" {seen.name} ":
        return False
    try:
        return (bank / name).read_bytes() != data
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _write(root: Path, kind: str, number: int) -> None:
    """What a writer does that goes on."""
    with MemoryBank.open(
        root, provenance(kind), retriever(), recent_frames=2, create=False
    ) as bank:
        bank.begin_writing()
        if bank.catalog.next("w")[0] == number:
            bank.write(segment_of("w", number, ""))


def _guarded(seen: Observed, call: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return call()
    except UserError as error:
        seen.said.append(str(error))
    except Exception:
        seen.traces.append(traceback.format_exc())
    return otherwise


def _command(seen: Observed, settings: BankSettings | RepairSettings) -> tuple[int, str]:
    """Exit code and output, as `reelbank bank` gives them."""
    out = io.StringIO()
    code = 2
    with contextlib.redirect_stdout(out):
        try:
            code = bank_command.run(settings)
        except UserError as error:
            print(error)
        except Exception:
            seen.traces.append(traceback.format_exc())
            code = -1
    seen.said.append(out.getvalue())
    return code, out.getvalue()


def run_all(mutants: list[Mutant], folder: Path, connection: Connection) -> None:
    """Observe mutants, each in a process of its own with limits; send what was observed, or why
    there is nothing."""
    torch.set_num_threads(1)
    whole = {
        mutant.template.kind: {
            str(path.relative_to(mutant.template.root / "own")): path.read_bytes()
            for path in sorted((mutant.template.root / "own" / "segments").rglob("*.safetensors"))
        }
        for mutant in mutants
    }
    for mutant in mutants:
        place = folder / f"{mutant.template.kind}-{mutant.seed}"
        place.mkdir()
        connection.send(_in_child(mutant, whole[mutant.template.kind], place))
        shutil.rmtree(place, ignore_errors=True)


def _in_child(mutant: Mutant, whole: dict[str, bytes], place: Path) -> Observed | str:
    """What one mutant does in a fork of this process; a text when it crashed or hung."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            _limit()
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(observe(mutant, whole, place), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with _alarm(child), os.fdopen(read, "rb") as pipe:
        data = pipe.read()
        _, status = os.waitpid(child, 0)
    if status:
        return f"{mutant.template.kind} {mutant.seed}: status {status}"
    observed: Observed = pickle.loads(data)
    return observed


def _limit() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEGABYTES_EACH * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@contextlib.contextmanager
def _alarm(child: int) -> Iterator[None]:
    """Kill the child when it takes too long."""
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, SECONDS_EACH)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_told(name: str, reads: dict[str, str], whole: dict[str, str]) -> bool:
    """Whether users learn of a difference without `verify`: an unfinished video is looked at again,
    and a search says how many lines have no vectors."""
    if name.startswith("finished"):
        return reads.get(name) == _digest(None)
    counts = "lines with vectors"
    return name in ("near lines", counts) and reads.get(counts) not in (None, whole[counts])


def faults_of(seen: Observed | str, whole: dict[str, str]) -> list[str]:
    """What must not be. whole: what questions read from the bank before it was damaged."""
    if isinstance(seen, str):
        return [f"crash or hang: {seen}"]
    faults = [f"traceback: {seen.name}\n{trace}" for trace in seen.traces]
    differs = [
        name
        for name, digest in whole.items()
        if seen.reads.get(name) != digest and not _is_told(name, seen.reads, whole)
    ]
    if seen.verify == 0 and differs:
        what = {name: seen.reads.get(name) for name in differs}
        faults.append(f"silent: {seen.name}: {what}")
    faults += [f"deleted by a writer: {seen.name}: {name}" for name in seen.lost[:1]]
    if seen.repair == 0 and seen.verify_again != 0:
        faults.append(f"not mended: {seen.name}: {seen.left}")
    if seen.repair not in (0, 1, 2):
        faults.append(f"repair: {seen.name}: {seen.repair}")
    return faults
