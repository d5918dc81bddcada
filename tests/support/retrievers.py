"""Every retriever of conf/retriever, built with toy partners."""

import functools
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from memory.schema import Question, Stretch
from tests.support.paths import CONF
from tests.support.records import Words, token_queries

NAMES = sorted(path.stem for path in (CONF / "retriever").glob("*.yaml"))


# retriever=kv with every other option of the groups that it refers to
BY_KEYS = [
    f"kv {group}={path.stem}"
    for group in ("block_score", "query_pool", "key_index")
    for path in sorted((CONF / group).glob("*.yaml"))
]

BY_KEYS.append("kv retriever.per_head=true retriever.top=4")

PER_LAYER = "kv retriever.per_layer=true"  # the one dial that changes what comes out


NEEDLE = Question("needle", "v")


def upto(stop: int, first: int = 0, video_id: str = "v") -> list[Stretch]:
    """These frames of one video, as a search takes them."""
    return [Stretch(video_id, first, stop)]


def built(choice: str) -> Any:
    """The retriever of a YAML file, with further overrides behind its name, as pipeline/build.py
    builds it.
    """
    return instantiate(_node(choice))(embedder=Words(), queries=token_queries)


@functools.cache  # composing takes 0.1 s, and a contract builds each of them dozens of times
def _node(choice: str) -> Any:
    name, *overrides = choice.split()
    # the groups that conf/retriever/kv.yaml refers to
    parts = {"block_score": "mean_key", "query_pool": "mean", "key_index": "none"}
    parts |= dict(each.split("=") for each in overrides if each.partition("=")[0] in parts)
    others = [each for each in overrides if each.partition("=")[0] not in parts]
    groups = [f"+{group}={option}" for group, option in (parts | {"retriever": name}).items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose(overrides=[*groups, *others]).retriever
    return OmegaConf.to_container(node, resolve=True)
