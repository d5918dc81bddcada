"""clip=auto: which frame embedder a backbone gets, and that the embedded one never ranks frames for
another backbone.

Toy checkpoints; the hub's cache is a folder of the test.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import pytest
import torch

from encoders.conse.conse_encoder import ConseEncoder
from encoders.conse.required_packages import missing_packages
from encoders.errors import UserError
from encoders.models import clip as clip_module
from encoders.models.clip import ClipEncoder, NoFrameEmbedder, clip_fingerprint
from encoders.schema import Frames
from memory.retrieval.fused import FusedRetriever
from pipeline import cli, frame_embedder
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import WEIGHTS
from pipeline.engine import Engine
from pipeline.frame_embedder import build_clip, clip_options
from tests.support.toys import toy_checkpoint, toy_parts
from tests.support.videos import write_video

EMBEDDED = f"local-dir:{WEIGHTS / 'clip'}"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 6, 5)
    return path


def overrides(film: Path, bank: Path, *more: str) -> list[str]:
    """A published backbone with the toy's weights, and no word about clip."""
    return [
        f"video={film}", f"bank={bank}", "question=What is there?", "backbone=llava_ov_0p5b",
        f"backbone.path={toy_checkpoint()}", "backbone.dtype=float32", "reader.max_new_tokens=4",
        *more,
    ]  # fmt: skip


def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither b32 nor conse is on this machine."""
    monkeypatch.setattr(frame_embedder, "has_weights", lambda *_: False)
    monkeypatch.setattr(frame_embedder, "missing_packages", lambda: "a package is missing")


def settings(film: Path, bank: Path, *more: str):
    return compose("ask", overrides(film, bank, *more))


def test_the_embedded_model_keeps_its_embedder(tmp_path, caplog):
    own = compose("ask", ["video=a.mp4", "question=x", f"bank={tmp_path / 'bank'}"])
    found = build_clip(own)
    assert isinstance(found, ClipEncoder) and found.name == EMBEDDED and caplog.records == []
    assert found.fingerprint() == clip_fingerprint(EMBEDDED, None, "float32")
    # as banks have recorded it since the first version
    assert build_clip(own.changed(clip=own.clip | {"model": EMBEDDED})).fingerprint() == (
        found.fingerprint()
    )


@pytest.mark.slow
def test_without_an_embedder_keys_are_searched_until_one_is_added(film, tmp_path):
    plain = [f"bank={tmp_path / 'bank'}", *toy_parts(), "retriever=fused"]
    own = [each for each in plain if not each.startswith("clip")]
    with Engine.compose([*own, "clip=none"]) as engine:
        assert engine.add(str(film)).frames == 6
        assert engine.ask("What is the code?", str(film)).frames_read == 6
        with pytest.raises(UserError, match="have no embeddings"):
            engine.find("x", channels=["picture"])
    with Engine.compose([*own, "clip=[none,embedded]"]) as engine:
        report = engine.add(str(film))
        assert report.new_segments == 0 and report.pictures == {"embedded": 6}
        assert len(engine.find("x", channels=["picture"]).moments) > 0
    with pytest.raises(UserError, match="retriever=clip needs a frame embedder"):
        engine_of = Engine.compose([*own, "clip=none", "retriever=clip", f"bank={tmp_path / 'b'}"])
        engine_of.ask("What is the code?", str(film))


def test_another_backbone_without_weights_of_b32_finds_frames_by_their_keys(
    film, tmp_path, caplog, monkeypatch
):
    without_weights(monkeypatch)
    own = settings(film, tmp_path / "bank", "token_dtype=int8", "read_tokens=20")
    with caplog.at_level(logging.WARNING):
        backbone = build_backbone(own)
        qa = build_qa(own, backbone)
    said = [record.getMessage() for record in caplog.records if "clip" in record.getMessage()]
    assert len(said) == 1 and "clip=b32 fetches" in said[0]
    assert "pip install 'reelbank[pictures]'" in said[0]
    with qa.bank:
        retriever = qa.bank._recall._searchable.retriever
        assert isinstance(retriever, FusedRetriever) and set(retriever.parts) == {"kv"}
        source = build_source(own, backbone)
        assert qa.ingest(source).frames == 6
        assert qa.bank.check.verify() == []
    assert json.loads((tmp_path / "bank" / "bank.json").read_text())["provenance"]["clip"] == "none"
    # another process, and one where the weights have come in between
    monkeypatch.setattr(frame_embedder, "has_weights", lambda *_: True)
    caplog.clear()
    assert isinstance(build_clip(own), NoFrameEmbedder) and caplog.records == []


def test_another_backbone_gets_b32_where_its_weights_are(film, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(frame_embedder, "has_weights", lambda *_: True)
    made = []
    monkeypatch.setattr(frame_embedder, "instantiate", lambda group, node: made.append(node))
    with caplog.at_level(logging.WARNING):
        build_clip(settings(film, tmp_path / "bank", "clip.device=cpu", "clip.dtype=bfloat16"))
    (node,) = made
    assert (node["model"], node["pretrained"]) == ("ViT-B-32", "laion2b_s34b_b79k")
    assert (node["device"], node["dtype"]) == ("cpu", "bfloat16")
    assert "clip=b32" in caplog.text


@pytest.mark.skipif(bool(missing_packages()), reason="the packages of clip=conse are not installed")
@pytest.mark.parametrize("backbone", [(), ("backbone=endpoint", "backbone.model=m")])
def test_without_b32_it_gets_conse_where_that_is(tmp_path, caplog, monkeypatch, backbone):
    monkeypatch.setattr(frame_embedder, "has_weights", lambda *_: False)
    chosen = backbone or ("backbone=llava_ov_0p5b", f"backbone.path={toy_checkpoint()}")
    bank = tmp_path / "bank"
    common = [f"bank={bank}", "clip.dtype=bfloat16"]
    own = compose("ask", ["video=a.mp4", "question=x", *common, *chosen])
    with caplog.at_level(logging.WARNING):
        found = build_clip(own)
    assert isinstance(found, ConseEncoder) and "clip=conse" in caplog.text
    # a bank keeps it, also where b32 comes later, and for a search with the embedded model
    bank.mkdir()
    (bank / "bank.json").write_text(json.dumps({"provenance": {"clip": found.fingerprint()}}))
    monkeypatch.setattr(frame_embedder, "has_weights", lambda *_: True)
    caplog.clear()
    assert isinstance(build_clip(own), ConseEncoder)
    later = compose("find", ["query=x", *common])
    assert isinstance(build_clip(later), ConseEncoder) and caplog.records == []


def test_weights_are_looked_for_in_the_hubs_cache(monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *names: asked.append(names) or "/a/file"
    )
    assert clip_module.has_weights("ViT-B-32", "laion2b_s34b_b79k")
    assert asked[0][0] == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *names: None)
    assert not clip_module.has_weights("ViT-B-32", "laion2b_s34b_b79k")


@pytest.mark.slow  # seconds of CPU
def test_a_bank_of_before_opens_and_its_toy_embeddings_rank_nothing(film, tmp_path, caplog):
    """Until now the default embedded the frames of every backbone with the embedded embedder."""
    bank = tmp_path / "bank"
    assert cli.run("ingest", [one for one in overrides(film, bank, "clip=embedded")
                              if not one.startswith(("question=", "reader."))]) == 0  # fmt: skip
    own = settings(film, bank)
    with caplog.at_level(logging.WARNING):
        qa = build_qa(own, build_backbone(own))
    with qa.bank:
        retriever = qa.bank._recall._searchable.retriever
        assert isinstance(retriever, FusedRetriever) and set(retriever.parts) == {"kv"}
    assert "frames by their keys alone" in caplog.text
    chosen = settings(film, bank, "clip=embedded")
    qa = build_qa(chosen, build_backbone(chosen))
    with qa.bank:
        retriever = qa.bank._recall._searchable.retriever
        assert isinstance(retriever, FusedRetriever) and set(retriever.parts) == {"clip", "kv"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("retriever=clip", "retriever=clip needs a frame embedder"),
        ("segmenter=scene", "segmenter=scene needs a frame embedder"),
    ],
)
def test_parts_that_need_an_embedder_are_refused_before_encoding(
    film, tmp_path, monkeypatch, more, words
):
    without_weights(monkeypatch)
    own = settings(film, tmp_path / "bank", more)
    with pytest.raises(UserError, match=rf"{words}.*clip=b32"):
        build_qa(own, build_backbone(own))
    assert not (tmp_path / "bank").exists()


class TwoNumbers:
    """An embedder in place of b32, whose weights are not here."""

    def embed_frames(self, frames: Frames) -> torch.Tensor:
        return torch.ones(len(frames), 2) / 2**0.5

    def embed_text(self, text: str) -> torch.Tensor:
        return torch.ones(2) / 2**0.5

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.ones(len(texts), 2) / 2**0.5

    def fingerprint(self) -> str:
        return "two"


@pytest.mark.parametrize("embedder", [None, TwoNumbers()])
def test_the_advice_without_keys_leads_to_no_second_refusal(film, tmp_path, monkeypatch, embedder):
    without_weights(monkeypatch)
    advice = "retriever=clip" if embedder else "retriever=clip clip=b32"
    own = settings(film, tmp_path / "bank", "prefill=none", "reader=tokens")
    backbone = build_backbone(own)
    with pytest.raises(UserError, match=f"use {advice}, retriever=uniform, or prefill=window"):
        build_qa(own, backbone, embedder)
    assert not (tmp_path / "bank").exists()
    taken = settings(film, tmp_path / "bank", "prefill=none", "reader=tokens", *advice.split())
    with build_qa(taken, backbone, embedder or TwoNumbers()).bank as bank:
        assert bank.provenance["clip"] == "two"


@pytest.mark.slow  # seconds of CPU
def test_the_device_follows_the_backbone_and_can_be_chosen(tmp_path):
    common = ["video=a.mp4", "question=x"]
    for option in clip_options():
        found = compose("ask", [*common, f"clip={option}", "backbone.device=cuda:1"])
        assert found.clip["device"] == "cuda:1"
    chosen = compose("ask", [*common, "backbone.device=cuda:1", "clip.device=nix"])
    with pytest.raises(UserError, match=r"clip\.device=nix is not available here; use one of cpu"):
        build_clip(chosen)
