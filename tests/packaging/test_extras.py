"""Extras: the core imports nothing of them, and what is missing is one sentence."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from encoders.extras import EXTRAS, absent_modules, install_line, missing_line
from tests.support.paths import ROOT
from tests.support.project import CORE, PROJECT, requirements_of
from tests.support.project import EXTRAS as NAMED
from tests.support.videos import write_video

# folders and files that one extra is for; the rest is the core
OWNERS = {
    "pipeline/server": "serve",
    "pipeline/alerts": "alerts",
    "pipeline/answer/forms": "json",
    "pipeline/agents": "mcp",
    "pipeline/demo": "demo",
    "pipeline/batch": "ray",  # with batch in it
    "pipeline/endpoint": "endpoint",
    "pipeline/evaluation": "bench",
    "pipeline/export/lists/edit_list": "edit",
    "pipeline/embedded": "bench",
    "encoders/text/ocr": "ocr",
    "encoders/text/keyframe_selector": "objects",  # in ocr as well, behind rapidocr
    "encoders/text/sightings/": "objects",
    "encoders/text/speech/": "asr asr-rough",
    "encoders/sources/decoding/decord_reader": "decord",
    "encoders/models/families/smolvlm": "smolvlm",
}
# modules that come with a package whose name is another, or that is installed by hand
BROUGHT = {
    "cv2": "opencv-python-headless",
    "ftfy": "open-clip-torch",
    "regex": "open-clip-torch",
    "timm": "open-clip-torch",
    "yaml": "hydra-core",
    "omegaconf": "hydra-core",
    "tokenizers": "transformers",
    "starlette": "fastapi",
    "pydantic": "fastapi",
    "h11": "uvicorn",
}
# of lmms-eval's own environment (pipeline/evaluation/lmms/requirements.txt)
ELSEWHERE = {"lmms_eval", "datasets", "loguru", "tqdm"}
OURS = {"encoders", "memory", "pipeline", "conf", "reelbank"}


def third_party(path: Path) -> set[str]:
    """Top-level names that a file imports, on any line, and that are neither Python's nor ours."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names - sys.stdlib_module_names - OURS - {"_typeshed"}  # which type checkers alone have


def test_every_import_is_declared() -> None:
    by_module = packages_distributions()
    files = [path for folder in OURS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    undeclared = {}
    for path in files:
        place = path.relative_to(ROOT).as_posix()
        owner = next((extra for start, extra in OWNERS.items() if place.startswith(start)), "")
        allowed = [*CORE, *(one for extra in owner.split() for one in requirements_of(extra))]
        names = {canonicalize_name(one.name) for one in allowed}
        for module in third_party(path) - ELSEWHERE:
            own = [module, BROUGHT.get(module, ""), *by_module.get(module, [])]
            if names.isdisjoint(canonicalize_name(one) for one in own):
                undeclared[f"{place}: {module}"] = own
    assert undeclared == {}, "declare it in pyproject.toml, or import it where its extra is"


def test_the_sentences_know_what_pyproject_says() -> None:
    by_module = packages_distributions()
    assert set(EXTRAS) == set(NAMED) - {"all", "gpu", "docs", "dev"}
    for extra, modules in EXTRAS.items():
        brought = {canonicalize_name(one.name) for one in requirements_of(extra)}
        assert len(brought) == len(modules), extra
        for module in modules:
            if module in by_module:  # asr-base and asr-rough are not in `dev`
                names = {canonicalize_name(one) for one in by_module[module]}
                assert names & brought, f"{module} does not come with reelbank[{extra}]"


def test_all_and_dev_have_every_feature() -> None:
    """But other recognizers in place of the one of `asr`, which are large or rough."""
    features = {
        str(one)
        for extra in EXTRAS
        for one in requirements_of(extra)
        if extra not in ("asr-base", "asr-rough")
    }
    assert {str(one) for one in requirements_of("all")} == features
    assert features <= {str(one) for one in requirements_of("dev")}


def test_the_core_stays_small() -> None:
    names = {canonicalize_name(one.name) for one in CORE}
    assert len(names) <= 19
    for extra in EXTRAS:
        assert names.isdisjoint(canonicalize_name(one.name) for one in requirements_of(extra))
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


def reelbank(missing: tuple[str, ...], *arguments: str, cwd: Path) -> "subprocess.CompletedProcess":
    """The command, in an interpreter that finds none of these modules."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from pipeline.cli import main\n"
        "main(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": f"{cwd}-home"},
        capture_output=True,
        text=True,
        timeout=200,
    )


LINES = {
    "serve": ("fastapi", "serve port=0"),
    "demo": ("fastapi", "demo port=0"),
    "batch": ("pyarrow", "batch jobs=jobs.jsonl out=run"),
    "ray": ("ray", "batch jobs=jobs.jsonl out=run compute=ray"),
    "bench": ("matplotlib", "needle out=run"),
    "decord": ("decord", "ingest video=a.mp4 source.decoder=decord"),
}


# one in `make test`: each is a process without packages
@pytest.mark.parametrize(
    "extra",
    [pytest.param(one, marks=[] if one == "serve" else [pytest.mark.slow]) for one in LINES],
)
def test_a_missing_extra_is_one_sentence_and_leaves_nothing(extra: str, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 2)
    (tmp_path / "jobs.jsonl").write_text('{"video": "a.mp4", "question": "q"}\n')
    before = set(tmp_path.iterdir())
    module, line = LINES[extra]
    done = reelbank((module,), *line.split(), f"bank={tmp_path / 'bank'}", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("reelbank: ") and done.stderr.count("\n") == 1
    assert f"needs {module}, which is not installed; say `{install_line(extra)}`." in done.stderr
    assert done.stdout == "" and set(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_ask_and_find_need_no_extra(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 8)
    every = tuple(
        sorted({module for modules in EXTRAS.values() for module in modules} - {"fsspec"})
    )
    bank = f"bank={tmp_path / 'bank'}"
    asked = reelbank(
        every,
        "ask",
        f"video={tmp_path / 'a.mp4'}",
        "question=What is the code?",
        bank,
        cwd=tmp_path,
    )
    assert asked.returncode == 0, asked.stderr
    found = reelbank(every, "find", "query=a card", bank, cwd=tmp_path)
    assert found.returncode == 0 and "picture" in found.stdout, found.stderr


def test_missing_modules_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rapidocr", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    assert absent_modules("ocr") == ("rapidocr", "onnxruntime")
    assert missing_line("ocr", "rapidocr") == (
        "rapidocr is not installed; say `pip install 'reelbank[ocr]'`"
    )
    assert missing_line("serve", "fastapi") == ""
