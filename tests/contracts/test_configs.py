"""Every YAML of every group composes, fits its class, and answers a question about a real file.

Configurations that need a download are composed only. Pairs that cannot work are refused before
anything is encoded. The commands of README and docs compose.
"""

import functools
import inspect
import re
import shlex
from collections import Counter
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401  (first: open_clip imports torchvision)

import numpy as np
import open_clip
import pytest
import yaml
from huggingface_hub import constants
from hydra.utils import get_object

from encoders.conse.required_packages import missing_packages
from encoders.errors import UserError
from encoders.models.video_llm import VideoLLM
from memory.schema import Question
from pipeline import cli
from pipeline.build import GROUPS, build_qa, build_source
from pipeline.cli.arguments import parse
from pipeline.cli.commands import COMMANDS
from pipeline.config.compose import compose, options
from pipeline.config.parts import check, instantiate, settings_of
from pipeline.config.task_settings import TASK_SETTINGS
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.evaluation.needle.films.tasks.sheet import NeedleTask
from pipeline.schema import Answer
from tests.support.kv_policies import toy_settings
from tests.support.paths import ROOT
from tests.support.qa import loaded_once
from tests.support.toys import FRAME_TOKENS, toy_parts
from tests.support.videos import numbered, write_video

# what a benchmark makes, asks and compares: no part, see test_needle.py, test_bench.py
PRESETS = ("preset", "bench_preset")
# parts of a batch alone, see test_batch.py and its neighbours
BATCH = ("annotations", "option_choice", "compute")
CONTROLS = ("control",)  # of benchmarks, see test_controls.py
LINES = ("dense", "planner")  # of reelbank find, see test_dense.py and test_planner.py
NEEDLES = ("needle_task",)  # of the needle benchmark, see test_needle_films.py
ALERTS = ("trigger", "notify")  # of demo and serve, see unit/pipeline/alerts
CONVERSATION = ("follow_up",)  # of the prompt, serve and demo, see test_rewriter.py
# extractors of words, several at once; what they find is in test_subtitles.py and its neighbours
WORDS = "text"
SCORES = "score"  # of batch, several at once; what they say is in test_scorers.py
EVERY = sorted(
    (p.parent.name, p.stem)
    for p in (ROOT / "conf").glob("*/*.yaml")
    if p.parent.name not in PRESETS
)
EMPTY = {("line_scan", "none")}  # no part at all; lines are read in test_line_scans.py
OPTIONS = [
    (group, name)
    for group, name in EVERY
    if group not in (*BATCH, *CONTROLS, *LINES, *NEEDLES, *ALERTS, *CONVERSATION, WORDS, SCORES)
    and (group, name) not in EMPTY
]
PUBLISHED = ("b32", "mobileclip2", "siglip", "siglip2")  # frame embedders
DOWNLOADED = {("clip", name) for name in PUBLISHED} | {
    ("backbone", name) for group, name in OPTIONS if group == "backbone" and name != "embedded"
}
READS_LINES = {("answer", "caption")}  # which this film lacks: test_answer_strategies.py
# a model behind an address is no adapter: tests/commands/test_endpoint.py asks one
ADAPTERS = [option for group, option in OPTIONS if group == "backbone" and option != "endpoint"]
# works where the packages are that carry its weights
PACKAGED = {("clip", "conse"): missing_packages}
# here with the toy models in their place
SHIPPED = {("backbone", "embedded"), ("clip", "embedded")}
SECONDS = 10


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, SECONDS, 5)
    return path


def answer(film: Path, bank: Path, *overrides: str, parts: list[str] | None = None) -> Answer:
    """What `reelbank ask` does, without printing."""
    common = [
        f"video={film}",
        f"bank={bank}",
        "question=What is the code?",
        *(parts or toy_parts()),
    ]
    config = compose("ask", [*common, "reader.max_new_tokens=8", *overrides])
    return answer_of(config)


def answer_of(config: AskSettings) -> Answer:
    backbone = loaded_once(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        qa.ingest(source)
        return qa.ask(Question(config.question, source.info.video_id))


def skip_without_its_adapter(target: str) -> None:
    """A config may come before its adapter; once the file is there, everything is held to."""
    if find_spec(target.rpartition(".")[0]) is None:
        pytest.skip(f"{target} is not there yet")


def test_the_groups_are_those_that_are_built() -> None:
    assert {group for group, _ in OPTIONS} == {*GROUPS, "experiment"}


def _where_slow(task: str, group: str, option: str):
    """Both tasks compose the same groups, and an option that answers below composes there too.
    Files of backbones are read without composing in a quick test of their own.
    """
    others = {one for one in DOWNLOADED if one[0] != "backbone"} | READS_LINES
    is_quick = task == "ask" and (group, option) in others
    return pytest.param(task, group, option, marks=[] if is_quick else [pytest.mark.slow])


@pytest.mark.parametrize(
    ("task", "group", "option"),
    [_where_slow(task, *one) for task in ("ask", "ingest") for one in OPTIONS],
)
def test_every_option_composes_and_fits_its_class(task: str, group: str, option: str) -> None:
    config = compose(task, [f"{group}={option}"])
    for name in [group] if group in GROUPS else GROUPS:  # an experiment sets several
        node = getattr(config, name)
        skip_without_its_adapter(node["_target_"])
        check(name, node)
        assert callable(get_object(node["_target_"]))


@pytest.mark.parametrize(("group", "option"), [one for one in EVERY if one[0] in BATCH])
def test_every_option_of_a_batch_can_be_made(group: str, option: str) -> None:
    node = getattr(compose("batch", [f"{group}={option}"]), group)
    check(group, node)
    assert callable(instantiate(group, node))


@pytest.mark.parametrize(("group", "option"), [one for one in EVERY if one[0] in LINES])
def test_every_way_of_searching_lines_composes_and_fits(group: str, option: str) -> None:
    node = getattr(compose("find", [f"{group}={option}"]), group)
    check(group, node)
    assert not node or callable(get_object(node["_target_"]))


@pytest.mark.parametrize("option", [name for group, name in EVERY if group in NEEDLES])
def test_every_file_of_needle_tasks_is_in_the_benchmark(option: str) -> None:
    own = yaml.safe_load((ROOT / "conf" / "needle_task" / f"{option}.yaml").read_text())
    nodes = compose("needle", []).needle_task
    assert own.items() <= nodes.items()
    for name, node in own.items():
        check(name, node)
        assert isinstance(instantiate(name, node), NeedleTask)


@pytest.mark.parametrize("option", [name for group, name in EVERY if group == WORDS])
def test_every_extractor_of_words_can_be_made(option: str) -> None:
    config = compose("ingest", [f"text={option}"])
    check(WORDS, config.text)
    names = {"none": [], "auto": ["subtitles", "asr", "ocr", "auto"]}.get(option, [option])
    assert list(config.text) == names
    for name, node in config.text.items():
        if name == "auto":
            continue  # a mark beside the extractors that it stands for
        extractor = instantiate(name, node)
        assert extractor.name == name and isinstance(extractor.missing(), str)


@pytest.mark.parametrize("option", [name for group, name in EVERY if group == "annotations"])
def test_every_benchmark_chooses_scorers_and_the_user_has_the_last_word(option: str) -> None:
    chosen = compose("batch", [f"annotations={option}"]).score
    assert chosen and "judge" not in chosen  # a judge costs, and is off unless asked for
    for name, node in chosen.items():
        check(name, node)
    if option == "mlvu":  # one for all
        own = compose("batch", [f"annotations={option}", "score=[f1]"]).score
        assert list(own) == ["f1"]


def test_several_extractors_are_a_list() -> None:
    names = sorted(name for group, name in EVERY if group == WORDS and name not in ("none", "auto"))
    assert list(compose("ask", [f"text=[{','.join(names)}]"]).text) == names


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_backbone_is_a_video_llm_with_the_common_settings(name: str) -> None:
    """A new adapter is picked up from its YAML alone."""
    node = options("backbone", {"fps": 0.5})[name]
    skip_without_its_adapter(node["_target_"])
    check("backbone", node)
    adapter = get_object(node["_target_"])
    assert issubclass(adapter, VideoLLM)
    known = settings_of(adapter)
    assert {"path", "dtype", "device", "attention", "revision"} <= set(known)
    parameters = inspect.signature(adapter).parameters
    assert all(
        one.kind in (one.KEYWORD_ONLY, one.VAR_KEYWORD)
        for one in parameters.values()
        if one.name != "path"
    )
    assert "options" not in known  # a constructor that collects keywords names them all
    assert {"path", "dtype", "device", "attention"} <= set(node) and (
        name == "embedded" or "revision" in node
    )
    assert "fps" not in known or node["fps"] == 0.5  # the bank's, never a second one
    with pytest.raises(UserError, match=r"backbone\.nix"):
        check("backbone", node | {"nix": 1})
    for method in ("_encode", "frame_grid", "frame_size"):
        assert getattr(adapter, method) is not getattr(VideoLLM, method), (
            f"{name} has no {method} of its own"
        )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_frame_embedder_is_one_of_open_clip_and_is_refused_without_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = compose("ask", [f"clip={name}", "backbone.device=meta"]).clip
    assert (node["model"], node["pretrained"]) in open_clip.list_pretrained()
    assert node["device"] == "meta"  # the backbone's
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as refusal:
        instantiate("clip", node | {"device": "cpu"})
    sentence = str(refusal.value)
    assert node["model"] in sentence and "`reelbank pull`" in sentence and "\n" not in sentence
    assert caplog.records == []


@pytest.mark.parametrize(("group", "option"), EVERY)
def test_every_option_says_what_it_trades(group: str, option: str) -> None:
    assert (
        (ROOT / "conf" / group / f"{option}.yaml")
        .read_text()
        .startswith(("# ", "_target_", "defaults"))
    )
    assert "# " in (ROOT / "conf" / group / f"{option}.yaml").read_text()


@pytest.mark.parametrize("task", cli.TASKS)
def test_every_task_composes(task: str) -> None:
    assert compose(task, []).to_dict()["format"] == "text"


@pytest.mark.parametrize(
    ("group", "option"), [o for o in OPTIONS if o not in DOWNLOADED | READS_LINES]
)
def test_every_option_that_needs_no_download_answers(
    film: Path, tmp_path: Path, group: str, option: str
) -> None:
    if missing := PACKAGED.get((group, option), str)():
        pytest.skip(missing)
    extra = {
        ("prefill", "none"): ["reader=tokens", "retriever=clip"],
        ("clip", "none"): ["retriever=kv"],
        ("sparsity", "xattention"): ["reader=tokens"],
        ("sparsity", "sample"): ["reader=tokens"],
        # a random model may well say that its frames do not suffice
        ("abstention", "sufficiency"): ["abstention.threshold=1"],
        **{
            ("resolution", name): ["reader=tokens"]
            for name in ("high_low", "per_segment", "progressive", "round_decay", "context_token")
        },
    }.get((group, option), [])
    if group == "kv_policy":
        extra = toy_settings(option)
    parts = toy_parts()
    if (group, option) in {*PACKAGED, ("clip", "none")}:  # with its own weights, or without
        parts = [part for part in parts if not part.startswith(f"{group}.")]
    bank = tmp_path / "bank"
    if group in APART or extra:
        found = answer(film, bank, f"{group}={option}", *extra, parts=parts)
    else:
        number = [name for one, name in OPTIONS if one == group].index(option)
        node = getattr(composed_together(number), group)
        usual = compose("ask", [*parts, "reader.max_new_tokens=8"])
        given = {"video": str(film), "bank": str(bank), "question": "What is the code?"}
        found = answer_of(usual.changed(**given, **{group: node}))
    # latest looks in windows of its own, and second_look at twice the rate
    reads = found.frames_read if option in ("latest", "second_look") else SECONDS
    assert found.text and found.frames_read == reads >= SECONDS and found.spans


# toy_parts() sets keys of two, the third sets many groups, and the fourth refers to others
APART = ("backbone", "clip", "experiment", "retriever")


@functools.cache
def composed_together(number: int) -> AskSettings:
    """The options of this number of all other groups: a composition for each takes 0.3 s."""
    of_group = {group: [name for one, name in OPTIONS if one == group] for group, _ in OPTIONS}
    chosen = [
        f"{group}={names[number]}"
        for group, names in of_group.items()
        if group not in APART and number < len(names)
    ]
    return compose("ask", [*toy_parts(), "reader.max_new_tokens=8", *chosen])


PREFILLS = {"window": (), "none": ("prefill=none",)}
RETRIEVERS = {
    "uniform": ("retriever=uniform",),
    "clip": ("retriever=clip",),
    "kv": ("retriever=kv",),
    "per layer": ("retriever=kv", "retriever.per_layer=true"),
    "per head": ("retriever=kv", "retriever.per_head=true", "retriever.top=2"),
    "fused": ("retriever=fused",),
    "fused, clip alone": ("retriever=fused", "retriever.weights.kv=0"),
}
REFUSED = {  # prefill, retriever, reader
    ("none", "uniform", "kv"): "reader=kv",
    ("none", "clip", "kv"): "reader=kv",
    ("none", "kv", "kv"): "KVRetriever",
    ("none", "kv", "tokens"): "KVRetriever",
    ("none", "per layer", "kv"): "KVRetriever",
    ("none", "per layer", "tokens"): "KVRetriever",
    ("none", "per head", "kv"): "KVRetriever",
    ("none", "per head", "tokens"): "KVRetriever",
    ("window", "per head", "tokens"): "retriever.per_head=true needs reader=kv",
    ("none", "fused", "kv"): "FusedRetriever",
    ("none", "fused", "tokens"): "FusedRetriever",
    ("none", "fused, clip alone", "kv"): "FusedRetriever",
    ("none", "fused, clip alone", "tokens"): "FusedRetriever",
    ("window", "per layer", "tokens"): "retriever.per_layer=true needs reader=kv",
}


@pytest.mark.parametrize("reader", ["kv", "tokens"])
@pytest.mark.parametrize("retriever", RETRIEVERS)
@pytest.mark.parametrize("prefill", PREFILLS)
def test_retrievers_and_readers(film, tmp_path_factory, prefill, retriever, reader) -> None:
    """Banks are shared: neither the retriever nor the reader changes what is stored."""
    bank = tmp_path_factory.getbasetemp() / "matrix" / prefill
    options = [*PREFILLS[prefill], *RETRIEVERS[retriever], f"reader={reader}"]
    words = REFUSED.get((prefill, retriever, reader))
    budget = f"read_tokens={7 * FRAME_TOKENS}"
    if words is not None:
        fresh = bank / "never made"
        with pytest.raises(UserError, match=words):
            answer(film, fresh, *options, budget)
        assert not fresh.exists()
        return
    found = answer(film, bank, *options, budget, "recent_frames=2")
    assert found.text and 2 < found.frames_read <= 7
    assert found.visual_tokens == found.frames_read * FRAME_TOKENS


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pool_makes_size_by_size_tokens(film: Path, tmp_path: Path, size: int) -> None:
    options = ["compressor=pool", f"compressor.size={size}"]
    kept = min(size * size, FRAME_TOKENS)  # a grid smaller than `size` stays as it is
    # the default budget holds them all
    assert answer(film, tmp_path / "bank", *options).visual_tokens == SECONDS * kept
    found = answer(
        film, tmp_path / "bank", *options, "retriever=kv", "retriever.per_layer=true",
        f"read_tokens={4 * kept}"
    )  # fmt: skip
    assert 0 < found.visual_tokens <= 4 * kept


@pytest.mark.parametrize("reader", ["kv", "tokens"])
@pytest.mark.parametrize("options", [("compressor=framediff",), ("compressor=chain",)])
def test_frames_with_unequal_numbers_of_tokens(
    film: Path, tmp_path: Path, options: tuple[str], reader: str
) -> None:
    found = answer(film, tmp_path / "bank", *options, f"reader={reader}")
    assert found.frames_read == SECONDS <= found.visual_tokens <= SECONDS * FRAME_TOKENS


def test_per_layer_reads_frames_with_unequal_numbers_of_tokens(tmp_path: Path) -> None:
    """Layers that found smaller frames than others read the first tokens of further ones."""

    def paint(number: int, seconds: float) -> np.ndarray:
        return np.zeros((64, 64, 3), np.uint8) if seconds < 6 else numbered(number, (64, 64))

    write_video(tmp_path / "a.mp4", SECONDS, 5, paint=paint)
    options = [
        "compressor=framediff",
        "retriever=kv",
        "retriever.per_layer=true",
        "read_tokens=16",
        "recent_frames=1",
    ]
    found = answer(tmp_path / "a.mp4", tmp_path / "bank", *options)
    assert found.text and 0 < found.visual_tokens <= 16 and found.frames_read > 1


def test_a_setting_that_would_be_ignored_is_refused(film: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use retriever=kv"):
        answer(film, tmp_path / "bank", "retriever.parts.kv.per_layer=true")
    assert not (tmp_path / "bank").exists()


def test_encoding_alone_leaves_the_reader_open(film: Path, tmp_path: Path) -> None:
    common = [
        f"video={film}",
        f"bank={tmp_path / 'bank'}",
        *toy_parts(),
        "prefill=none",
        "retriever=clip",
    ]
    assert cli.run("ingest", common) == 0  # reader=kv, the default, is not asked for
    found = answer(film, tmp_path / "bank", "prefill=none", "retriever=clip", "reader=tokens")
    assert found.frames_read == SECONDS


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


def commands() -> list[tuple[str, str]]:
    """(page, command): the reelbank commands in the code blocks of README and docs/."""
    found = []
    for page in PAGES:
        blocks = re.findall(
            r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
        name = str(page.relative_to(ROOT))
        found += [
            (name, line.strip())
            for line in lines
            # "reelbank TASK key=value ..." is the head of the usage, not a command
            if re.match(r"\s*(\$ )?(\S*/)?reelbank\s(?!TASK )", line)
        ]
    return found


def options_made_on(page: str) -> set[str]:
    """Options such as compressor=thin whose YAML file a guide has its reader create."""
    text = (ROOT / page).read_text(encoding="utf-8")
    files = re.findall(r"^Create `conf/(\w+)/(\w+)\.yaml`", text, re.MULTILINE)
    return {f"{group}={option}" for group, option in files if (group, option) not in EVERY}


def test_pages_show_commands() -> None:
    shown = Counter(page for page, _ in commands())
    assert shown["README.md"] > 3 and len(shown) > 15


ALONE = ("preset", "bench_preset", "experiment")  # each of them sets several parts
FOLDERS = {p.name for p in (ROOT / "conf").iterdir() if p.is_dir()}


@dataclass
class Line:
    """Overrides of one command, or of several of a task of which none changes what another has."""

    task: str
    alone: tuple[str, ...]  # what is in one line only with its like
    chosen: dict[str, list[str]]  # part -> the options that are chosen of it, where it is named
    values: dict[str, str]
    shown_at: list[str]  # pages

    @classmethod
    def of(cls, page: str, line: str) -> "Line | None":
        """None for a command without settings."""
        _, name, *words = shlex.split(line.removeprefix("$ "), comments=True)
        if name.endswith(".mp4"):  # a film alone opens the prompt of `ask`
            name, words = "ask", [name, *words]
        if name.startswith("-") or "--help" in words or not COMMANDS[name].task:
            return None
        call = parse(COMMANDS[name], words)
        overrides = list(call.overrides)
        for option in options_made_on(page):  # the guide's reader has the file, this test has not
            group, name = option.split("=")
            overrides = [o for o in overrides if o != option and not o.startswith(f"{group}.")]
            overrides = [re.sub(rf"^({group}=\[.*?),?\b{name}\b", r"\1", o) for o in overrides]
        alone, chosen, values = list[str](), dict[str, list[str]](), dict[str, str]()
        for override in overrides:
            key, sign, value = override.partition("=")
            if override[0] in "+~" or key.split("@")[0] in ALONE or not sign or key in values:
                alone.append(override)
                continue
            part = re.split(r"[.@]", key)[0].replace("further_clips", "clip")
            chosen.setdefault(part, []).extend([override] if key.split("@")[0] in FOLDERS else [])
            values[key] = value
        return cls(call.command.task, tuple(alone), chosen, values, [page])

    def takes(self, other: "Line") -> bool:
        """Whether each of the two means the same beside the other, and adds it."""
        fits = (
            (self.task, self.alone) == (other.task, other.alone)
            and all(self.chosen.get(k, v) == v for k, v in other.chosen.items())
            and all(self.values.get(k, v) == v for k, v in self._settings(other).items())
        )
        if fits:
            self.chosen |= other.chosen
            self.values |= other.values
            self.shown_at += other.shown_at
        return fits

    def _settings(self, other: "Line") -> dict[str, str]:
        """Without texts, of which any will do."""
        texts = {one.name for one in fields(TASK_SETTINGS[self.task]) if one.type is str}
        return {key: value for key, value in other.values.items() if key not in texts}

    def overrides(self) -> list[str]:
        return [*self.alone, *(f"{key}={value}" for key, value in self.values.items())]


def _lines():
    """Guides' commands, several in a line. Those that were run for a measurement change with no
    guide: `make test-all` has them.
    """
    params = []
    for are_measured in (False, True):
        lines = list[Line]()
        for page, text in commands():
            if page.startswith("docs/measurements/") == are_measured:
                line = Line.of(page, text)
                if line is not None and not any(one.takes(line) for one in lines):
                    lines.append(line)
        marks = [pytest.mark.slow] if are_measured else []
        params += [pytest.param(one, marks=marks, id=" ".join(one.overrides())) for one in lines]
    return params


@pytest.mark.parametrize("line", _lines())
def test_commands_of_readme_and_docs_compose(line: Line) -> None:
    config = compose(line.task, line.overrides())
    for group in GROUPS if line.task in ("ask", "ingest") else ():
        check(group, getattr(config, group))


def test_every_command_of_readme_and_docs_is_in_a_line() -> None:
    have_settings = [page for page, text in commands() if Line.of(page, text) is not None]
    lines = [param.values[0] for param in _lines()]
    assert Counter(have_settings) == Counter(page for line in lines for page in line.shown_at)
    assert len(lines) < len(have_settings) / 2


def test_lines_that_would_change_one_another_stay_apart() -> None:
    def line(*words: str) -> Line:
        made = Line.of("README.md", shlex.join(["reelbank", "ask", "a.mp4", "What?", *words]))
        assert made is not None
        return made

    def fit(one: str, other: str) -> bool:
        return line("-o", one).takes(line("-o", other))

    assert fit("reader=tokens", "fps=2") and fit("retriever=kv", "retriever=kv")
    assert not fit("retriever=kv", "retriever.per_layer=true")  # of the default
    assert not fit("retriever.per_layer=true", "retriever=kv")
    assert not fit("fps=1", "fps=2") and not fit("experiment=compact", "fps=2")
    assert not fit("clip=[embedded,conse]", "further_clips.conse.device=cpu")


def test_the_page_of_options_names_every_option() -> None:
    """In the table of groups: `group` | option, option, ..."""
    text = (ROOT / "docs" / "reference" / "options.md").read_text(encoding="utf-8")
    told = {
        name: set(re.split(r",\s*", options))
        for name, options in re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.M)
    }
    for group in (*GROUPS, *BATCH, *LINES, WORDS, SCORES, "experiment"):
        if group != "source":  # what is left is the user's to choose
            assert told.get(group) == {option for g, option in EVERY if g == group}, group


@pytest.mark.parametrize("task", TASK_SETTINGS)
def test_every_setting_has_a_remark_in_a_sentence(task: str) -> None:
    """The reference page prints them, under the headings."""
    every = fields(TASK_SETTINGS[task])
    assert every[0].metadata["heading"]
    for one in every:
        assert re.fullmatch(r"[A-Za-z0-9].*\.", one.metadata["help"]), (task, one.name)


RENAMED = [
    ("batch", "at_once=3", "batch_size=3"),
    ("batch", "choice=parse", "option_choice=parse"),
    ("batch", "choice.prompt=x", "option_choice.prompt=x"),
    ("bench", "together=3", "batch_size=3"),
    ("bench", "asked=3", "queries=3"),
    ("bench", "more_frames=3", "appended_frames=3"),
]


@pytest.mark.parametrize(("task", "old", "new"), RENAMED)
def test_a_key_of_an_earlier_version_is_refused_with_the_new_one(
    task: str, old: str, new: str
) -> None:
    with pytest.raises(UserError, match=f"write {re.escape(new)}$"):
        compose(task, [old])
    compose(task, [new])


@pytest.mark.parametrize("override", ["nix=1", "+nix=1"])
def test_a_key_that_no_task_has_is_refused(override: str) -> None:
    with pytest.raises(UserError, match="nix= is no setting of `reelbank ask`"):
        compose("ask", [override])


def test_a_missing_setting_is_an_error_only_when_it_is_read() -> None:
    config = compose("ask", ["video=a"]).changed(bank="b")
    assert (config.video, config.bank, config.to_dict()["question"]) == ("a", "b", "???")
    assert config.is_missing("question") and not config.is_missing("video")
    with pytest.raises(UserError, match="question= is missing; say `reelbank ask question="):
        _ = config.question
