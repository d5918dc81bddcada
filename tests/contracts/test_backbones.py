"""The table of backbones: its facts agree with the models, and its promises with the exactness
tests.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_object

from encoders.models.kv_cache import KVShape
from pipeline import cli
from pipeline.commands import backbones
from tests.support.families import FAMILIES, STATED, backbone_of, folder
from tests.support.more_families import MORE
from tests.support.paths import ROOT
from tests.support.toys import toy_backbone

# a model behind an address has no checkpoint
NAMES = {path.stem for path in (ROOT / "conf" / "backbone").glob("*.yaml")} - {"endpoint"}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in an empty folder: exit code, stdout, stderr. Nothing may be made."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main(["backbones", *overrides])
        assert list(tmp_path.iterdir()) == []
        return int(str(done.value.code)), *capfd.readouterr()

    return call


def adapters_under_test() -> set[str]:
    """The adapters that the exactness tests compare: all of tests/support/families.py, and the toy
    of tests/support/toys.py.
    """
    kinds: list[Any] = [family.adapter for family in (*FAMILIES.values(), *MORE.values())]
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in [*kinds, type(toy_backbone())]}


def test_a_model_behind_an_address_has_no_row(run):
    code, out, err = run("backbone=endpoint")
    assert code == 2 and out == "" and "its server knows" in err


def test_every_config_is_in_the_table(run):
    code, out, err = run("format=json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert {row["name"] for row in rows} == NAMES and rows[0]["name"] == "embedded"
    assert (
        all(row["source"] == "published" for row in rows[1:]) and rows[0]["source"] == "config.json"
    )
    for row in rows[1:]:
        assert (row["layers"], row["kv_heads"], row["head_width"]) == STATED[row["name"]][:3]
        # three of four layers of Qwen3.5 keep no keys
        keeps_kv = not row["family"].startswith("qwen3_5")
        assert row["kv_bytes_per_token"] == keeps_kv * (
            2 * 2 * row["layers"] * row["kv_heads"] * row["head_width"]
        )
        per_hour = (
            row["kv_bytes_per_token"]
            * row["tokens_per_frame"]
            * 3600
            // row["sampled_frames_per_frame"]
        )
        assert row["kv_bytes_per_hour"] == per_hour
        assert row["readers"] == (["kv", "tokens"] if keeps_kv else ["tokens"])


def test_yes_means_tested(run):
    """A config says that its logits were compared if, and only if, the exactness tests compare
    them.
    """
    tested = adapters_under_test()
    rows = {row["name"]: row["checked_equal"] for row in json.loads(run("format=json")[1])}
    nodes = backbones.nodes(1.0)
    assert rows == {name: nodes[name]["_target_"] in tested for name in nodes}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_facts_agree_with_the_loaded_model(name):
    family = FAMILIES[name]
    if needed := getattr(family, "needs", ""):
        pytest.importorskip(needed)
    backbone = backbone_of(name)
    kind: Any = family.adapter
    node = {
        "_target_": f"{kind.__module__}.{kind.__qualname__}",
        "path": str(folder(name)),
        **family.settings,
    }
    row = backbones.facts(node, 1.0, "float32")
    shape = backbone.language_model.kv_shape
    assert (row.layers, row.kv_heads, row.head_width) == (shape.layers, shape.heads, shape.width)
    assert row.kv_bytes_per_token == shape.nbytes(torch.float32)
    assert row.tokens_per_frame == backbone.tokens_per_frame
    assert row.sampled_frames_per_frame == backbone.temporal_patch
    assert (row.checked_equal, row.source, row.family) == (
        True,
        "config.json",
        backbone.config.model_type,
    )
    assert row.readers == ("kv", "tokens")


def test_facts_of_the_toy_agree_too():
    toy = toy_backbone()
    node = {
        "_target_": "encoders.models.families.llava_onevision.LlavaOneVision",
        "path": toy.path,
        "time_tags": True,
    }
    row = backbones.facts(node, 1.0, "bfloat16")
    assert (
        row.tokens_per_frame == toy.tokens_per_frame
        and row.kv_bytes_per_token == toy.language_model.kv_shape.nbytes(torch.bfloat16)
    )


@pytest.mark.parametrize("name", sorted(STATED))
def test_published_sizes_have_the_published_number_of_parameters(name):
    """Sizes typed in wrong make another number. On the meta device nothing is allocated."""
    node = backbones.nodes(1.0)[name]
    adapter = get_object(node["_target_"])
    config = adapter.published_config(node["path"])
    assert type(config) is adapter.model_class.config_class
    with torch.device("meta"):
        model: Any = adapter.model_class(config)
    # tied weights come once
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    assert round(count, 2) == STATED[name][3]
    assert (
        tuple(getattr(KVShape.of(config), part) for part in ("layers", "heads", "width"))
        == STATED[name][:3]
    )


def test_tokens_of_a_frame_as_the_configs_comments_say(run):
    rows = {row["name"]: row["tokens_per_frame"] for row in json.loads(run("format=json")[1])}
    for name in STATED:
        assert (
            f" {rows[name]} tokens a "
            in (ROOT / "conf" / "backbone" / f"{name}.yaml").read_text().splitlines()[0]
        )


def test_every_published_size_has_a_config_and_a_rule_for_tokens():
    nodes = [node for name, node in backbones.nodes(1.0).items() if name != "embedded"]
    adapters = {get_object(node["_target_"]) for node in nodes}
    published = [(adapter, path) for adapter in adapters for path in adapter.published]
    # further sizes of a family go by backbone.path
    assert {path for _, path in published} > {node["path"] for node in nodes}
    for adapter, path in published:
        assert adapter.frame_tokens(adapter.published_config(path), 448, 448) > 0


def test_one_backbone_and_its_frame_size_dtype_and_rate(run):
    small = json.loads(run("backbone=qwen3_vl_2b", "format=json")[1])
    large = json.loads(
        run(
            "backbone=qwen3_vl_2b",
            "backbone.width=1024",
            "prefill.dtype=float32",
            "fps=2",
            "format=json",
        )[1]
    )
    assert len(small) == len(large) == 1 and small[0]["name"] == "qwen3_vl_2b"
    assert large[0]["tokens_per_frame"] == 2 * small[0]["tokens_per_frame"]
    assert large[0]["kv_bytes_per_token"] == 2 * small[0]["kv_bytes_per_token"]
    assert large[0]["kv_bytes_per_hour"] == 8 * small[0]["kv_bytes_per_hour"]
    none = json.loads(run("backbone=qwen3_vl_2b", "prefill=none", "format=json")[1])
    assert none[0]["kv_bytes_per_token"] == 0 and none[0]["readers"] == ["tokens"]


def test_a_local_checkpoint_speaks_for_itself(run):
    path = folder("qwen3_vl")
    row = json.loads(run("backbone=qwen3_vl_8b", f"backbone.path={path}", "format=json")[1])[0]
    assert (row["name"], row["layers"], row["kv_heads"], row["source"]) == (
        path.name,
        3,
        2,
        "config.json",
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["backbone=qwen2_vl_2b", "backbone.path={qwen3}"], "of type qwen3_vl, not qwen2_vl"),
        (["backbone=qwen2_vl_2b", "backbone.path=./gone"], "no folder ./gone"),
        (["backbone=qwen2_vl_2b", "backbone.path=some/thing"], "Nothing is known of some/thing"),
        (["backbone=nix"], "use one of embedded, endpoint, glm4_1v_9b"),
        (["backbone=qwen2_vl_2b", "backbone.width=x"], "backbone.width=x"),
        (["fps=0"], "fps=0"),
        (["prefill.dtype=int3"], "prefill.dtype=int3"),
        (["format=xml"], "format=xml"),
    ],
)
def test_mistakes_are_one_line(run, overrides, words):
    code, out, err = run(
        *(override.replace("{qwen3}", str(folder("qwen3_vl"))) for override in overrides)
    )
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err


def test_plain_when_not_a_terminal_and_the_reference_shows_it(run):
    code, out, err = run()
    lines = out.splitlines()
    assert (code, err) == (0, "") and len(
        [line for line in lines if line.startswith("| ")]
    ) == 2 + len(NAMES)
    assert "\x1b" not in out and "as published" not in out
    text = (ROOT / "docs" / "reference" / "backbones.md").read_text()
    assert "reelbank backbones" in text
    nodes, tested = backbones.nodes(1.0), adapters_under_test()
    for line in (line for line in lines if line.startswith("| ")):
        name = line.split("|")[1].strip()
        # its adapter is not here; the page tells of all
        if name in nodes and nodes[name]["_target_"] not in tested:
            line = line.removesuffix(" no |")
        assert line in text, (
            "the table of docs/reference/backbones.md is not what the command prints"
        )
