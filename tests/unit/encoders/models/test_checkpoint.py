"""Loading a checkpoint: how a bad one is refused.

The refusal is one line with exit code 2, comes at once, and leaves nothing behind. Code and pickles
of a checkpoint never run. Tests use this process for speed, and another one where memory or the
network is taken away.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders import memory_limits
from encoders.errors import UserError
from encoders.models.attention import ATTENTIONS, Listener
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.models.loading import checkpoint
from encoders.prefill import WindowPrefill
from memory.schema import Evidence, Hits, Question, Run
from pipeline import cli
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.reader import KVReader, TokenReader
from tests.support.console import sentence, tree
from tests.support.families import folder
from tests.support.far_device import far_device
from tests.support.toys import toy_backbone, toy_checkpoint, toy_frames, toy_parts
from tests.support.videos import write_video

from transformers import LlavaOnevisionForConditionalGeneration  # isort: skip
from tests.support.paths import ROOT

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 4, 5)
    return path


@pytest.fixture
def ask(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
):
    """`reelbank ask` with these overrides, which must fail: what it says. Nothing may be made."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(*overrides: str) -> str:
        parts = toy_parts()  # writes a checkpoint the first time, and says so
        if any(one.startswith("backbone=") for one in overrides):  # its YAML states no traits
            parts = [one for one in parts if not one.startswith(("backbone.reads", "backbone.qu"))]
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main(["ask", f"video={film}", "question=What is the code?", *parts, *overrides])
        out, err = capfd.readouterr()
        assert (done.value.code, out) == (2, ""), err
        assert tree(work) == {}
        return err

    return call


def copied(tmp_path: Path, *leave_out: str) -> Path:
    """A copy of the toy checkpoint without these files."""
    return Path(
        shutil.copytree(
            toy_checkpoint(), tmp_path / "copy", ignore=shutil.ignore_patterns(*leave_out)
        )
    )


def sharded(tmp_path: Path) -> Path:
    target = copied(tmp_path, "*.safetensors")
    LlavaOnevisionForConditionalGeneration.from_pretrained(toy_checkpoint()).save_pretrained(
        target, max_shard_size="200KB"
    )
    assert len(list(target.glob("*.safetensors"))) > 2
    return target


def test_shards_load_like_one_file(tmp_path):
    found = LlavaOneVision(str(sharded(tmp_path)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(found.model.parameters(), toy_backbone().model.parameters(), strict=True)
    )


def test_missing_shard(ask, tmp_path):
    target = sharded(tmp_path)
    gone = sorted(target.glob("*.safetensors"))[1]
    gone.unlink()
    sentence(
        ask(f"backbone.path={target}"),
        str(target),
        "model.safetensors.index.json",
        gone.name,
        "copy it again",
    )
    (target / "model.safetensors.index.json").write_text("{")
    sentence(ask(f"backbone.path={target}"), "index.json is damaged")


def test_truncated_weights(ask, tmp_path):
    target = copied(tmp_path)
    (target / WEIGHTS).write_bytes((target / WEIGHTS).read_bytes()[:-1000])
    sentence(ask(f"backbone.path={target}"), "Cannot load the weights", str(target))


def test_missing_weights_are_never_made_up(ask, tmp_path):
    """transformers fills gaps with random numbers and a warning."""
    from safetensors.torch import load_file, save_file

    target = copied(tmp_path)
    tensors = load_file(target / WEIGHTS)
    lost = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors.pop(lost)
    save_file(tensors, target / WEIGHTS, {"format": "pt"})
    sentence(ask(f"backbone.path={target}"), "lacks 1 of the model's weights", "q_proj.weight")


class Bomb:
    """Unpickling it makes a file."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_pickles_are_refused_and_not_read(ask, tmp_path):
    target = copied(tmp_path, "*.safetensors")
    torch.save({"a": Bomb()}, target / "pytorch_model.bin")
    sentence(
        ask(f"backbone.path={target}"), "pickled weights only (pytorch_model.bin)", "safetensors"
    )
    (target / "pytorch_model.bin").unlink()
    sentence(ask(f"backbone.path={target}"), "no weights", str(target))


def test_code_of_a_checkpoint_is_never_run(ask, tmp_path):
    target = copied(tmp_path)
    config = json.loads((target / "config.json").read_text())
    config |= {
        "model_type": "internvl_chat",
        "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"},
    }
    (target / "config.json").write_text(json.dumps(config))
    (target / "code.py").write_text("from pathlib import Path\nPath('exploded').touch()\n")
    sentence(ask(f"backbone.path={target}"), "internvl_chat", "never run", "-hf")


def test_code_beside_a_known_model_is_not_run_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = copied(tmp_path)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(
        json.dumps(config | {"auto_map": {"AutoConfig": "code.Config"}})
    )
    (target / "code.py").write_text("from pathlib import Path\nPath('exploded').touch()\n")
    assert (
        LlavaOneVision(str(target)).language_model.kv_shape
        == toy_backbone().language_model.kv_shape
    )
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("backbone", "checkpoint_of", "words"),
    [
        ("qwen2_5_vl_3b", "qwen2_vl", ("of type qwen2_vl, not qwen2_5_vl",)),
        ("qwen3_vl_2b", "llava", ("of type llava_onevision, not qwen3_vl",)),
        ("embedded", "qwen3_vl", ("of type qwen3_vl, not llava_onevision",)),
    ],
)
def test_wrong_family(ask, backbone, checkpoint_of, words):
    path = toy_checkpoint() if checkpoint_of == "llava" else folder(checkpoint_of)
    sentence(ask(f"backbone={backbone}", f"backbone.path={path}"), str(path), *words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["backbone.attention=flash_nix"], ("backbone.attention=flash_nix", "sdpa, eager")),
        (["backbone.dtype=int3"], ("backbone.dtype=int3", "bfloat16")),
        (["backbone.device=nix"], ("backbone.device=nix", "use one of cpu")),
        (["backbone.device=meta"], ("backbone.device=meta",)),
        (["backbone.device=cuda:7"], ("backbone.device=cuda:7", "cpu")),
        (
            ["backbone=qwen3_vl_2b", "backbone.width=500"],
            ("backbone.width=500", "multiples of 32", "512"),
        ),
    ],
)
def test_settings_that_are_not_there(ask, overrides, words):
    path = folder("qwen3_vl") if overrides[0].startswith("backbone=") else toy_checkpoint()
    sentence(ask(*overrides, f"backbone.path={path}"), *words)


def test_eager_attention_answers_like_sdpa():
    def heard(backbone: LlavaOneVision) -> tuple[torch.Tensor, int]:
        calls: list[int] = []
        listener: Listener = lambda layer, query, key, scaling: calls.append(layer)  # noqa: E731
        seen = backbone.frame_embeds(backbone.encode_frames(toy_frames(3)))
        model = backbone.language_model
        return model.logits(model.forward(seen, model.cache(64), listener)), len(calls)

    assert set(ATTENTIONS) == {"sdpa", "eager"}
    (fused, first), (plain, second) = (
        heard(toy_backbone()),
        heard(LlavaOneVision(str(toy_checkpoint()), attention="eager", time_tags=True)),
    )
    assert torch.allclose(fused, plain, atol=1e-4) and first == second == 3


# -- memory ----------------------------------------------------------------------------------------


def test_more_weights_than_memory_are_refused_before_they_are_read(ask, monkeypatch):
    """Linux grants memory that does not exist and kills the process that uses it, so sizes are
    compared first.
    """
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 100 if name == "SC_PHYS_PAGES" else real(name))
    sentence(
        ask(),
        "does not fit",
        "float32",
        "choose a smaller backbone=",
        "backbone.dtype=bfloat16",
        "backbone.device=cuda",
    )


MEMORY = {
    "free memory": ("MEMINFO", "MemTotal: 9000000 kB\nMemAvailable: 100 kB\nSwapFree: 50 kB\n"),
    "container, version 2": ("CGROUP_LIMITS", "150000\n"),
}


@pytest.mark.parametrize("kind", MEMORY)
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_free_memory_of_the_host_is_what_counts(monkeypatch, tmp_path, kind, device):
    """Also with a device, because weights reach it through the host's memory."""
    name, text = MEMORY[kind]
    (tmp_path / "limit").write_text(text)
    place = tmp_path / "limit"
    monkeypatch.setattr(memory_limits, name, place if name == "MEMINFO" else (place,))
    assert memory_limits.host_memory() in (150 * 1024, 150_000)
    through = "through which they reach cuda:0" if device == "cuda:0" else "backbone.device=cuda"
    with far_device(), pytest.raises(UserError, match=f"memory of cpu in float32 .*{through}"):
        LlavaOneVision(str(toy_checkpoint()), device=device)
    (tmp_path / "limit").write_text("max\n")  # no limit, or a system that says nothing
    assert (memory_limits.host_memory() or 1 << 40) > 1 << 30


def test_free_memory_of_the_device_is_checked_before_weights_are_read(monkeypatch):
    monkeypatch.setattr(LlavaOneVision, "_load", lambda *_args, **_settings: pytest.fail("read"))
    with (
        far_device(free_bytes=100_000),
        pytest.raises(UserError, match=r"memory of cuda:0 .* backbone\.device=cpu"),
    ):
        LlavaOneVision(str(toy_checkpoint()), device="cuda:0")


def test_weights_that_go_straight_to_a_device_need_little_of_the_host(monkeypatch, tmp_path):
    """File by file, as transformers loads with accelerate."""
    place = tmp_path / "limit"
    place.write_text("150000\n")
    monkeypatch.setattr(memory_limits, "CGROUP_LIMITS", (place,))
    path, far = str(toy_checkpoint()), torch.device("cuda:0")
    largest = checkpoint.largest_file(path, None)
    assert largest == (toy_checkpoint() / WEIGHTS).stat().st_size > 150_000
    with far_device(free_bytes=10**9):
        checkpoint.check_memory(path, 10**8, torch.float32, far, through_host=100_000)
        for through in (None, largest):
            with pytest.raises(UserError, match=r"memory of cpu .*through which they reach cuda:0"):
                checkpoint.check_memory(path, 10**8, torch.float32, far, through_host=through)
    assert checkpoint.straight_to(torch.device("cpu")) == {}


def test_weights_that_are_not_on_the_disk_yet_are_counted_by_their_configuration(monkeypatch):
    """Before a download of 16 GB, not after it."""
    backbone = toy_backbone()
    size = (toy_checkpoint() / WEIGHTS).stat().st_size
    assert 0.9 * size < backbone._weight_bytes(backbone.config, None) <= size
    monkeypatch.setattr(backbone, "path", "nobody/has-this")
    assert 0.9 * size < backbone._weight_bytes(backbone.config, None) <= size


def test_advice_about_tied_weights_is_hidden_and_other_warnings_are_not(caplog):
    logger = logging.getLogger("transformers.modeling_utils")
    advice = "The tied weights mapping and config for this model specifies to tie a to b"
    monkeyed, logger.propagate = logger.propagate, True
    try:
        with checkpoint.quiet_loading(True):
            logger.warning(advice)
            logger.warning("something else")
        logger.warning("behind it")
    finally:
        logger.propagate = monkeyed
    assert [record.getMessage() for record in caplog.records] == ["something else", "behind it"]


# -- positions -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_sighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with 60 positions."""
    target = Path(shutil.copytree(toy_checkpoint(), tmp_path_factory.mktemp("short") / "toy"))
    config = json.loads((target / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 60
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_more_read_tokens_than_positions_are_refused_before_encoding(ask, short_sighted):
    said = ask(f"backbone.path={short_sighted}", "read_tokens=61", "reader.max_new_tokens=8")
    sentence(said, "read_tokens=61", "60 positions", "max_position_embeddings")


def with_positions(path: Path, frames: int, text: int) -> LlavaOneVision:
    """The toy, made for a context of so many frames and so many tokens of text behind them."""
    backbone = LlavaOneVision(str(path))
    before = len(backbone.prompt.preamble_ids())
    each = backbone.tokens_per_frame + backbone.frame_text_length()
    backbone.language_model.max_positions = before + frames * each + text
    return backbone


@pytest.mark.parametrize("reader_class", [KVReader, TokenReader])
def test_a_context_beyond_the_positions_is_refused(short_sighted, reader_class):
    """Two frames, the question and the answer fit; with three frames they do not. A batch of two is
    refused like one.
    """
    suffix = reader_class(toy_backbone()).prompt_suffix("Which code?")
    backbone = with_positions(short_sighted, 2, len(suffix) + 8)
    prefill = WindowPrefill(backbone, window_frames=0)
    seen = [backbone.encode_frames(toy_frames(4, first=4.0 * i)) for i in range(2)]
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))

    def evidence(frames: int) -> Evidence:
        run = Run("toy", 0, 0, seen[0].frames(0, frames), prefill(seen[0]).frames(0, frames))
        return Evidence(Question("Which code?", "toy"), (run,), none, 0, 1.0)

    silent = lambda stage: nullcontext()  # noqa: E731
    reader = reader_class(backbone, max_new_tokens=8)
    assert reader.read(evidence(2), silent).text is not None
    several = BatchedReader(reader)
    assert len(several.read([evidence(2)] * 2, silent)) == 2
    for read in (
        lambda: reader.read(evidence(3), silent),
        lambda: several.read([evidence(2), evidence(3)], silent),
    ):
        with pytest.raises(UserError, match=r"positions is longer .*lower read_tokens="):
            read()


def test_a_window_beyond_the_positions_is_refused_while_encoding(short_sighted):
    backbone = with_positions(short_sighted, 7, 0)
    prefill = WindowPrefill(backbone, window_frames=8)
    prefill(backbone.encode_frames(toy_frames(4)))
    with pytest.raises(UserError, match=r"lower .* prefill.window_frames="):
        prefill(backbone.encode_frames(toy_frames(4, first=4.0)))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you "
            "tried to allocate"
        ),
        OSError("Cannot allocate memory (os error 12)"),
    ],
)
def test_every_way_to_run_out_of_memory_is_told(ask, monkeypatch, error):
    def fail(*_args, **_settings):
        raise error

    monkeypatch.setattr(LlavaOnevisionForConditionalGeneration, "from_pretrained", fail)
    sentence(ask(), "does not fit", "choose a smaller backbone=", "backbone.device=")


def test_other_errors_are_not_taken_for_it():
    assert not checkpoint.out_of_memory(RuntimeError("size mismatch for lm_head.weight"))
    with (
        pytest.raises(RuntimeError, match="size"),
        checkpoint.memory_errors_as_user_errors("x", torch.float32, torch.device("cpu")),
    ):
        raise RuntimeError("size mismatch")


LIMITED = """
import resource, sys
import encoders.models.torchvision_ops
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.models.video_llm import *
from pipeline import build, cli, qa
used = 4096 * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.RLIM_INFINITY))
cli.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS and /proc")
def test_a_process_without_memory_says_so(film, tmp_path):
    """A real model of 0.9 GB in a process that may take 0.3 GB more than its libraries did."""
    from transformers import AutoConfig

    target = copied(tmp_path, "*.safetensors")
    config = AutoConfig.from_pretrained(target)
    config.text_config.hidden_size, config.text_config.intermediate_size = 1024, 16384
    config.text_config.num_hidden_layers = config.text_config.max_window_layers = 4
    config.text_config.layer_types = None
    config = AutoConfig.for_model(
        **{**config.to_dict(), "text_config": config.text_config.to_dict()}
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(target)
    parts = [part for part in toy_parts() if not part.startswith("backbone.path")]
    command = [
        sys.executable,
        "-c",
        LIMITED,
        "ask",
        f"video={film}",
        "question=x",
        "bank=b",
        f"backbone.path={target}",
        *parts,
    ]
    (tmp_path / "work").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    sentence(done.stderr, "does not fit", "choose a smaller backbone=", "backbone.dtype=bfloat16")
    assert tree(tmp_path / "work") == {}


# -- the hub ---------------------------------------------------------------------------------------


@pytest.mark.slow  # a process each
@pytest.mark.parametrize("network", ["none", "switched off"])
def test_a_hub_id_without_a_network_is_told_at_once(film, tmp_path, network):
    """The hub's own client knocks five times, for 23 seconds, and says each time that it does."""
    empty = (
        {"HF_HUB_OFFLINE": "1"}
        if network == "switched off"
        else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hub"), **empty}
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "ask",
        f"video={film}",
        "question=x",
        "backbone=qwen3_vl_2b",
    ]
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    sentence(done.stderr, "hub cannot be reached", "Qwen/Qwen3-VL-2B-Instruct", "backbone.path=DIR")
    assert tree(tmp_path / "work") == {}


def test_one_knock_decides(monkeypatch):
    """A host that swallows packets costs one time-out, not five at every file."""
    asked: list[float] = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append(timeout)
            raise OSError("no route")

    monkeypatch.setattr(checkpoint, "get_session", Session)
    monkeypatch.setattr(checkpoint.constants, "is_offline_mode", lambda: False)
    assert checkpoint.is_offline("Qwen/Qwen3-VL-2B-Instruct") and asked == [checkpoint.HUB_SECONDS]
    assert not checkpoint.is_offline(str(toy_checkpoint())) and len(asked) == 1
    with pytest.raises(UserError, match="not in its cache"):
        checkpoint.read_config("Qwen/Nix", "qwen3_vl", local_only=True)
