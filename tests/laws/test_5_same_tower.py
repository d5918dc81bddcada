"""Law 5, provenance: keys and values of another language model are never read. Visual tokens of its
bank are, where both have the same vision tower and somebody says so (made_with=)."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders.errors import UserError
from encoders.models.loading.tower_digest import tower_digest
from memory.schema import Question
from pipeline.answer.schema import local
from tests.support.qa import TEXT, ask, opened
from tests.support.records import files
from tests.support.toy_evidence import silent
from tests.support.toys import toy_checkpoint
from tests.support.videos import write_video

TOKENS = ("reader=tokens", "retriever=uniform")


def changed(folder: Path, part: str) -> Path:
    """A copy of the toy whose tensors with this in their names are others."""
    shutil.copytree(toy_checkpoint(), folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    names = [name for name in tensors if part in name]
    assert names, sorted(tensors)
    chance = torch.Generator().manual_seed(1)
    for name in names:
        tensors[name] = tensors[name] + torch.randn(tensors[name].shape, generator=chance) * 0.1
    save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 6, 5)
    return path


def test_a_digest_is_of_all_outside_the_language_model(tmp_path):
    other, blind = (
        changed(tmp_path / name, part)
        for name, part in (("tuned", "language_model.model.layers"), ("blind", "vision_tower."))
    )
    assert tower_digest(str(toy_checkpoint())) == tower_digest(str(other))
    assert tower_digest(str(other)) != tower_digest(str(blind))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        tower_digest(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="in the cache"):
        tower_digest("nobody/nothing")


@pytest.mark.slow
def test_visual_tokens_of_the_same_tower_are_read_as_the_models_own(film, tmp_path):
    other, toy = changed(tmp_path / "tuned", "language_model.model.layers"), str(toy_checkpoint())
    bank, with_other = tmp_path / "bank", f"backbone.path={other}"
    with opened(film, bank, "kv_dtype=int8") as (qa, source):
        qa.ingest(source)
        video_id = source.info.video_id
    before = files(bank)
    with (
        pytest.raises(UserError, match=r"was made with model=.*, weights="),
        opened(film, bank, with_other, *TOKENS),
    ):
        pass
    question = Question(TEXT, video_id)
    with opened(film, tmp_path / "own", with_other, *TOKENS) as (qa, source):
        qa.ingest(source)
        evidence = qa.bank.recall(question, read_tokens=1000, kv=False)
        expected = local(qa.answerer.reader, "a test").logits(evidence, silent)
        own = ask(qa, source)
    with opened(film, bank, with_other, f"made_with={toy}", *TOKENS) as (qa, source):
        evidence = qa.bank.recall(question, read_tokens=1000, kv=False)
        found = local(qa.answerer.reader, "a test").logits(evidence, silent)
        assert torch.equal(found, expected) and qa.ingest(source).new_segments == 0
        assert ask(qa, source)["text"] == own["text"]
        more = tmp_path / "b.mp4"
        write_video(more, 3, 5)
    with (
        opened(more, bank, with_other, f"made_with={toy}", *TOKENS) as (qa, source),
        pytest.raises(UserError, match=r"made with another language model .* no video is added"),
    ):
        qa.ingest(source)
    assert files(bank) == before


@pytest.mark.slow
def test_what_is_not_the_banks_is_refused(film, tmp_path):
    other, toy = changed(tmp_path / "tuned", "language_model.model.layers"), str(toy_checkpoint())
    blind = changed(tmp_path / "blind", "vision_tower.")
    bank = tmp_path / "bank"
    with opened(film, bank) as (qa, source):
        qa.ingest(source, until=0)
    for overrides, words in (
        ((f"backbone.path={other}", f"made_with={toy}"), "made_with= reads the visual tokens"),
        (
            (f"backbone.path={other}", f"made_with={toy}", "reader=tokens", "retriever=kv"),
            "made_with= reads the visual tokens",
        ),
        ((f"backbone.path={blind}", f"made_with={toy}", *TOKENS), "has another vision tower"),
        ((f"backbone.path={other}", f"made_with={other}", *TOKENS), "name the checkpoint that it"),
    ):
        with pytest.raises(UserError, match=words), opened(film, bank, *overrides):
            pass
    absent = tmp_path / "absent"
    overrides = (f"backbone.path={other}", f"made_with={toy}", *TOKENS)
    with pytest.raises(UserError, match="there is none at"), opened(film, absent, *overrides):
        pass
    assert not absent.exists()
