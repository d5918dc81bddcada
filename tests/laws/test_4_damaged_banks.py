"""Law 4: a damaged bank. `verify` names what changes an answer, `repair` mends what can be made
again, a writer deletes nothing that is whole, and nobody sees a traceback.

The slow test draws the damage by chance, with fixed seeds. The others are cases that were found so.
"""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.storage import manifest
from memory.text.bm25 import LineFilter
from memory.text.tokenizer import query
from pipeline.commands import bank as bank_command
from pipeline.config.tasks.bank_settings import BankSettings, RepairSettings
from tests.support import mutants
from tests.support.children import receive_all, start
from tests.support.mutants import VIDEOS, Mutant, Template, faults_of, reads_of, segment_of
from tests.support.vectors import Directions

BLOCKS, SEEDS = 4, 65  # times two kinds of banks


@pytest.fixture(scope="module")
def templates() -> Iterator[list[Template]]:
    root = Path(tempfile.mkdtemp(prefix="reelbank-damage-"))
    root.chmod(0o755)  # a child without rights gets in
    yield mutants.make_banks(root)
    shutil.rmtree(root)


@pytest.fixture
def bank(templates: list[Template], tmp_path: Path) -> Path:
    return copy_of(templates[0].root / "own", tmp_path / "bank")


@pytest.fixture
def quantized(templates: list[Template], tmp_path: Path) -> Path:
    return copy_of(templates[1].root / "own", tmp_path / "bank")


def copy_of(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def verify(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = bank_command.run(BankSettings(bank=str(root), action="verify"))
    return code, capsys.readouterr().out


def repair(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = bank_command.run(RepairSettings(bank=str(root), action="repair"))
    return code, capsys.readouterr().out


def without(path: Path) -> Path:
    """The path, after what had this name is gone."""
    mutants.remove(path)
    return path


# ---- by chance


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_damage_by_chance(templates: list[Template], block: int) -> None:
    """520 mutants, each in a process of its own with limits on time and memory. No crash, no hang,
    no traceback. What `verify` calls whole is read as before, or says itself what it lacks. What
    `repair` calls whole is whole."""
    whole = {}
    for template in templates:
        root = copy_of(template.root / "own", template.root / f"read-{block}")
        whole[template.kind] = reads_of(root, template.kind)
    place = Path(tempfile.mkdtemp(prefix="reelbank-mutants-"))
    place.chmod(0o755)
    drawn = [
        Mutant(template, seed)
        for seed in range(block * SEEDS, (block + 1) * SEEDS)
        for template in templates
    ]
    process, connection = start(mutants.run_all, drawn, place)
    observed = receive_all(connection)
    process.join()
    shutil.rmtree(place, ignore_errors=True)
    assert len(observed) == len(drawn)
    faults = [
        fault
        for mutant, seen in zip(drawn, observed, strict=True)
        for fault in faults_of(seen, whole[mutant.template.kind])
    ]
    assert faults == []
    seen = [one for one in observed if not isinstance(one, str)]
    assert all(one.is_damaged for one in seen)
    named = [one for one in seen if one.verify != 0]
    mended = [one for one in named if one.verify_again == 0]
    print(f"\n{len(seen)} mutants: {len(named)} named by verify, {len(mended)} whole after repair")
    assert named and mended


def test_every_kind_of_damage_is_drawn(templates: list[Template]) -> None:
    """So that the test by chance leaves none out."""
    seeds = range(BLOCKS * SEEDS)
    left = mutants.all_kinds()
    for mutant in (Mutant(template, seed) for seed in seeds for template in templates):
        chance = np.random.default_rng(mutant.seed)
        left.discard(mutant.draw(mutant.template.root / "own", chance).kind)
        if not left:
            break
    assert left == set()


# ---- bank.json


def test_every_flipped_byte_of_the_manifest_is_named(bank: Path) -> None:
    path = bank / "bank.json"
    data = path.read_bytes()
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
        database = opened._store.database
        assert manifest.problems(bank, database) == []
        for at in range(len(data)):
            hurt = bytearray(data)
            hurt[at] ^= 1 << at % 8
            path.write_bytes(hurt)
            assert [place for place, _ in manifest.problems(bank, database)] == [path], at


@pytest.mark.parametrize(
    "how", ["flipped", "emptied", "cut by a byte", "deleted", "a folder", "another bank's"]
)
def test_a_damaged_manifest_is_named_and_restored(
    templates: list[Template], bank: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path = bank / "bank.json"
    data = path.read_bytes()
    if how == "another bank's":
        shutil.copyfile(templates[0].root / "foreign" / "bank.json", path)
    elif how == "cut by a byte":
        path.write_bytes(data[:-1])
    elif how in ("flipped", "emptied"):
        path.write_bytes(data.replace(b'"m"', b'"n"') if how == "flipped" else b"")
        assert path.read_bytes() != data
    else:
        without(path)
        if how == "a folder":
            path.mkdir()
    code, out = verify(bank, capsys)
    assert code == 1 and "bank.json" in out
    if how != "cut by a byte":  # then it says what it said
        with pytest.raises(UserError, match="bank"):
            MemoryBank.open(bank, mutants.provenance("plain"), UniformRetriever(), recent_frames=0)
    code, out = repair(bank, capsys)
    assert code == 0 and "bank.json" in out and "written again from the catalog" in out
    assert path.read_bytes() == data and verify(bank, capsys)[0] == 0


def test_a_manifest_of_before_opens_and_gets_its_checksum_from_the_next_writer(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bank / "bank.json"
    data = path.read_bytes()
    values = json.loads(data)
    del values["sum"]
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    db = sqlite3.connect(bank / "catalog.sqlite")
    db.execute("DROP TABLE manifest")
    db.commit()
    db.close()
    before = path.read_bytes()
    assert verify(bank, capsys)[0] == 0 and path.read_bytes() == before
    with MemoryBank.open(
        bank, mutants.provenance("plain"), UniformRetriever(), recent_frames=0
    ) as opened:
        opened.begin_writing()
    assert path.read_bytes() == data and verify(bank, capsys)[0] == 0


# ---- the catalog


@pytest.mark.parametrize("source", ["other", "foreign", "older"])
def test_a_catalog_of_another_bank_is_named_and_costs_nothing(
    templates: list[Template], bank: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    """The next writer used to delete every segment that such a catalog does not list."""
    whole = {path: path.read_bytes() for path in bank.rglob("*.safetensors")}
    shutil.copyfile(templates[0].root / source / "catalog.sqlite", bank / "catalog.sqlite")
    code, out = verify(bank, capsys)
    assert code == 1 and "another bank's" in out
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
        if source != "other":
            with pytest.raises(UserError, match="repair"):
                opened.begin_writing()
    code, out = repair(bank, capsys)
    assert code == 0 and "rebuilt from the segments" in out
    assert {path: path.read_bytes() for path in bank.rglob("*.safetensors")} == whole
    assert verify(bank, capsys)[0] == 0
    with MemoryBank.open(
        bank, mutants.provenance("plain"), UniformRetriever(), recent_frames=0
    ) as opened:
        assert [len(opened.catalog.segments(video_id)) for video_id in VIDEOS] == [5, 3]
        opened.write(segment_of("w", 3, ""))


def test_a_damaged_index_of_words_is_named_and_made_again(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite 3.40 does not look into it, and the catalog's other rows are whole."""

    def lines() -> list[str]:
        with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
            found = opened.text.search(query("harbour"), LineFilter())
            return [each.line.text for each in found]

    before = lines()
    db = sqlite3.connect(bank / "catalog.sqlite")
    (data,) = db.execute("SELECT block FROM text_index_data ORDER BY id DESC").fetchone()
    hurt = data.replace(b"arbour", b"arbouX")
    assert hurt != data
    db.execute("UPDATE text_index_data SET block = ? WHERE block = ?", (hurt, data))
    db.commit()
    finished = db.execute("SELECT id, finished FROM videos ORDER BY id").fetchall()
    db.close()
    assert len(before) == 6 and lines() != before
    code, out = verify(bank, capsys)
    assert code == 1 and "index of words" in out
    code, out = repair(bank, capsys)
    assert code == 0 and lines() == before and verify(bank, capsys)[0] == 0
    db = sqlite3.connect(bank / "catalog.sqlite")
    assert db.execute("SELECT id, finished FROM videos ORDER BY id").fetchall() == finished
    db.close()


def test_a_video_that_seems_finished_is_not_believed(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its end would be missing in silence. The other way round, the video is only looked at."""
    for video_id, finished in (("w", 1), ("v", 0)):
        db = sqlite3.connect(bank / "catalog.sqlite")
        db.execute("UPDATE videos SET finished = ? WHERE id = ?", (finished, video_id))
        db.commit()
        db.close()
        assert verify(bank, capsys)[0] == finished
        assert repair(bank, capsys)[0] == 0 and verify(bank, capsys)[0] == 0


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("thing", ["a folder", "a loop"])
def test_something_else_in_place_of_the_catalog(
    bank: Path, capsys: pytest.CaptureFixture[str], suffix: str, thing: str
) -> None:
    path = bank / f"catalog.sqlite{suffix}"
    path.unlink(missing_ok=True)
    path.mkdir() if thing == "a folder" else path.symlink_to(path.name)
    code, out = verify(bank, capsys)
    assert code == 1 and path.name in out and ("folder" in out or "link" in out)
    assert repair(bank, capsys)[0] == 0 and verify(bank, capsys)[0] == 0


# ---- small files


def made_with_changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"8", b"9"))


MODEL_NAMES: dict[str, Callable[[Path], object]] = {
    "changed": made_with_changed,
    "deleted": lambda path: path.unlink(),
    "a folder": lambda path: without(path).mkdir(),
    "a loop": lambda path: without(path).symlink_to(path.name),
    "not UTF-8": lambda path: path.write_bytes(b"caf\xe9"),
    "a pipe": lambda path: os.mkfifo(without(path)),
}


@pytest.mark.parametrize("how", MODEL_NAMES)
def test_a_damaged_name_of_the_model_of_vectors(
    bank: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path = bank / "vectors" / "made_with"
    before = path.read_bytes()
    MODEL_NAMES[how](path)
    code, out = verify(bank, capsys)
    assert code == 1 and str(path) in out
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
        if how == "deleted":
            opened.text.refuse_other_vectors(Directions.made_with)
        else:
            with pytest.raises(UserError, match="made_with is damaged"):
                opened.text.refuse_other_vectors(Directions.made_with)
    assert repair(bank, capsys)[0] == 0
    assert path.read_bytes() == before and verify(bank, capsys)[0] == 0


def test_vectors_of_other_lines_or_of_another_bank_are_not_taken(
    templates: list[Template], bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = reads_of(bank, "plain")
    one, two = sorted(bank.glob("vectors/v/*/*.vec"))[:2]
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    code, out = verify(bank, capsys)
    assert code == 1 and str(one) in out and str(two) in out
    swapped = reads_of(bank, "plain")
    assert swapped["lines with vectors"] != whole["lines with vectors"]
    code, out = repair(bank, capsys)
    assert code == 0 and verify(bank, capsys)[0] == 0


@pytest.mark.parametrize("thing", ["a folder", "a link", "a pipe"])
def test_something_else_in_place_of_the_lock(
    bank: Path, capsys: pytest.CaptureFixture[str], thing: str, tmp_path: Path
) -> None:
    """Through a link, the writer would empty a file of somebody else."""
    mine = tmp_path / "letter.txt"
    mine.write_text("dear")
    path = without(bank / "writer.lock")
    if thing == "a folder":
        path.mkdir()
    elif thing == "a link":
        path.symlink_to(mine)
    else:
        os.mkfifo(path)
    code, out = verify(bank, capsys)
    assert code == 1 and "writer.lock" in out
    with (
        MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened,
        pytest.raises(UserError, match=r"writer\.lock is damaged"),
    ):
        opened.begin_writing()
    assert repair(bank, capsys)[0] == 0 and verify(bank, capsys)[0] == 0
    assert mine.read_text() == "dear"


def test_search_rows_of_another_bank_are_not_read(templates: list[Template], bank: Path) -> None:
    """They fit by their number, and only a ranking would show it."""
    whole = reads_of(bank, "plain")
    shutil.rmtree(bank / "index")
    shutil.copytree(templates[0].root / "other" / "index", bank / "index")
    assert reads_of(bank, "plain") == whole


def test_a_window_of_another_bank_is_named(
    templates: list[Template], quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer reads no window, so it is the same."""
    name, before = "window/w/000002.safetensors", reads_of(quantized, "int8")["frames of w"]
    shutil.copyfile(templates[1].root / "other" / name, quantized / name)
    code, out = verify(quantized, capsys)
    assert code == 1 and name in out
    assert reads_of(quantized, "int8")["frames of w"] == before
    assert repair(quantized, capsys)[0] == 0 and verify(quantized, capsys)[0] == 0


@pytest.mark.parametrize("thing", ["a folder", "a loop", "a pipe", "endless"])
@pytest.mark.parametrize(
    "name",
    ["segments/v/000001.safetensors", "segments/v/video.json", "text/v/subtitles/000001.jsonl"],
)
def test_something_else_in_place_of_a_file(
    bank: Path, capsys: pytest.CaptureFixture[str], name: str, thing: str
) -> None:
    path = without(bank / name)
    if thing == "a folder":
        path.mkdir()
        (path / "note.txt").write_text("x")
    elif thing == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path.name if thing == "a loop" else "/dev/zero")
    code, out = verify(bank, capsys)
    assert code == 1 and str(path) in out
    code, out = repair(bank, capsys)
    lost = path.suffix == ".safetensors"  # the film is not there
    assert code == int(lost) and path.name.removesuffix(".safetensors").lstrip("0") in out
    code, out = verify(bank, capsys)
    assert code == int(lost) and (not lost or "segment 1 is missing" in out)


@pytest.mark.parametrize("folder", ["segments/v", "text/v/subtitles", "vectors", "window"])
def test_a_file_in_place_of_a_folder(
    bank: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    path = bank / folder
    if path.exists():
        without(path)
    path.write_text("x")
    assert verify(bank, capsys)[0] == 1
    code, out = repair(bank, capsys)
    assert code == int(folder == "segments/v") and folder.rpartition("/")[2] in out
    code, out = verify(bank, capsys)
    assert code == 0 or "missing" in out


def test_a_folder_on_a_disk_that_is_not_there_is_not_dropped(
    bank: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    away = tmp_path / "disk"
    shutil.move(bank / "segments", away)
    (bank / "segments").symlink_to(away)
    assert verify(bank, capsys)[0] == 0
    away.rename(tmp_path / "unmounted")
    for settings in (
        BankSettings(bank=str(bank), action="verify"),
        RepairSettings(bank=str(bank), action="repair"),
    ):
        with pytest.raises(UserError, match="segments"):
            bank_command.run(settings)
    (tmp_path / "unmounted").rename(away)
    assert verify(bank, capsys)[0] == 0


# ---- rights


def without_rights(root: Path, connection: object) -> None:
    """Verify, ask and repair as a user who may not read a folder and a file."""
    if os.getuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    said: list[tuple[str, str, int | str]] = []
    for name in ("segments/v", "text/v/subtitles/000001.jsonl", "segments/w/000001.safetensors"):
        path = root / name
        mode = path.stat().st_mode
        path.chmod(0)
        for action in ("verify", "repair"):
            kind = BankSettings if action == "verify" else RepairSettings
            try:
                said.append((name, action, bank_command.run(kind(bank=str(root), action=action))))
            except UserError as error:
                said.append((name, action, str(error)))
            except Exception as error:
                said.append((name, action, repr(error)))
        reads_of(root, "plain")
        path.chmod(mode)
    connection.send(said)  # type: ignore[attr-defined]


def test_what_may_not_be_read_is_named_and_not_dropped(templates: list[Template]) -> None:
    place = Path(tempfile.mkdtemp(prefix="reelbank-rights-"))
    place.chmod(0o755)
    bank = copy_of(templates[0].root / "own", place / "bank")
    whole = {path: path.read_bytes() for path in bank.rglob("*.*") if "index" not in path.parts}
    process, connection = start(without_rights, bank)
    said = receive_all(connection)
    process.join()
    after = {path: path.read_bytes() for path in bank.rglob("*.*") if "index" not in path.parts}
    differ = {str(path.relative_to(bank)) for path in whole if after.get(path) != whole[path]}
    shutil.rmtree(place)
    assert len(said) == 1 and len(said[0]) == 6, said
    for name, action, outcome in said[0]:
        if action == "verify":
            assert outcome == 1 or "permission denied" in outcome, (name, outcome)
        else:
            assert "permission denied" in str(outcome), (name, outcome)
    of_sqlite = ("catalog.sqlite", "writer.lock")
    assert {name for name in differ if not name.startswith(of_sqlite)} == set()


def test_a_merged_bank_takes_in_the_segments_that_were_copied_into_it(
    templates: list[Template], bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A video whose folder somebody copied from another bank used to be deleted in silence."""
    with MemoryBank.open(
        bank.parent / "third", mutants.provenance("plain"), UniformRetriever(), recent_frames=0
    ) as third:
        third.record_video(replace(mutants.info("v"), video_id="x"), 1.0, finished=False)
        for number in range(2):
            third.write(replace(segment_of("v", number, "x"), video_id="x"))
    shutil.copytree(bank.parent / "third" / "segments" / "x", bank / "segments" / "x")
    assert verify(bank, capsys)[0] == 1
    assert repair(bank, capsys)[0] == 0 and verify(bank, capsys)[0] == 0
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
        assert len(opened.catalog.segments("x")) == 2
