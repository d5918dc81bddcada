"""How many of a question's nearest keys an index finds, and how many keys it compares.

    python -m tests.measure.key_index [--films 5] [--seconds 60] [--nearest 32]
        [--out runs/key-index] [SETTING=VALUE ...]

All keys of drawn films, before rotary embedding, in an index for each layer and KV head. Queries
are the mean queries of real questions about other films than those of the profile, one for each
query head. Exact inner products are the truth. Columns:

- lists of keys: an index of clusters of keys, as FAISS trains it; HNSW: a graph of keys.
- drawn, questions: key_index=query_lists without a profile, and with one of 4 other films.
- compared: per cent of the keys that a query is compared with, mean over layers, heads and queries.
- recall: per cent of the truly nearest keys that are found; "keys as queries" asks with keys of the
  index in place of questions, which says what an index is usually tested with.

Intervals of 95 % are bootstrapped over the questions' films.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from memory.retrieval.key_index.query_lists import QueryLists
from pipeline.build import build_local, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.evaluation.attention_recall import films, texts
from pipeline.evaluation.profiles.channel_profile import keys_and_queries
from pipeline.evaluation.profiles.profile_program import Calibration
from pipeline.evaluation.profiles.query_profile import directions
from pipeline.scoring import cell

FIRST, CALIBRATION, CALIBRATING = 4000, 1000, 4  # first films, and how many calibrate
LISTS = 64
PROBES = (2, 4, 8, 16, 64)
Search = Callable[[np.ndarray, int], tuple[np.ndarray, float]]  # ids, and the share compared


def all_keys(paths: list[Path], settings: list[str], bank: Path) -> np.ndarray:
    """[L, H, M, Dh] float32 of all films."""
    common = [f"bank={bank}", "video=-", "question=-", "text=none", "clip=embedded"]
    config = compose("ask", [*common, *settings])
    backbone, parts = build_local(config), []
    for path in paths:
        config.video = str(path)
        qa = build_qa(config, backbone)
        with qa.bank as opened:
            source = build_source(config, backbone)
            qa.ingest(source)
            video_id = source.info.video_id
            for row in opened.catalog.segments(video_id):
                kv = opened.catalog.read_segment(video_id, row.number).kv
                assert kv is not None
                parts.append(kv.keys.float())
    keys: np.ndarray = torch.cat(parts, 2).numpy()
    return keys


def inverted(index: "faiss.IndexIVF", probes: int) -> Search:
    """A search of some lists, which counts the keys in them."""

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
        index.nprobe = probes
        _, lists = index.quantizer.search(queries, probes)
        inside = index.invlists
        assert inside is not None
        sizes = np.array([inside.list_size(i) for i in range(index.nlist)])
        compared = sizes[lists].sum(1).mean() / index.ntotal
        return index.search(queries, k)[1], float(compared)

    return search


def graph(keys: np.ndarray, width: int) -> Search:
    """HNSW of 16 neighbors with inner products."""
    index = faiss.IndexHNSWFlat(keys.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.add(keys)
    index.hnsw.efSearch = width

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
        counts: Any = faiss.cvar  # its numbers have no stubs
        counts.hnsw_stats.reset()
        found = index.search(queries, k)[1]
        return found, counts.hnsw_stats.ndis / len(queries) / len(keys)

    return search


def searches(
    keys: np.ndarray, drawn: QueryLists, asked: QueryLists, at: tuple[int, int]
) -> dict[str, Search]:
    """Name -> search, of one layer and KV head. keys: [M, Dh]."""
    width = keys.shape[1]
    trained = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, LISTS, faiss.METRIC_INNER_PRODUCT)
    trained.train(keys)
    trained.add(keys)
    layer, head = at
    kinds: dict[str, Any] = {"lists of keys": trained}
    for name, index in (("drawn", drawn), ("questions", asked)):
        kinds[name] = index._indexes["v"][layer][head]
    made = {
        f"{name}, {probes} of {LISTS} lists": inverted(index, probes)
        for name, index in kinds.items()
        for probes in PROBES
    }
    return made | {f"HNSW, width {width}": graph(keys, width) for width in (32, 128)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a film")
    parser.add_argument("--nearest", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/key-index"))
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask")
    args = parser.parse_intermixed_args()
    register()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    bank = args.out / "bank"
    own = list(films(args.films, args.seconds, [], args.out, first=FIRST))
    keys = all_keys(own, args.settings, bank)
    layers, heads = keys.shape[:2]
    numbers = [FIRST + number for number in range(args.films)]
    questions = [
        (number, each)
        for number, (_, queries) in zip(
            numbers, keys_and_queries(Calibration(own, numbers, args.settings, bank)), strict=True
        )
        for each in queries
    ]
    others = [CALIBRATION + number for number in range(CALIBRATING)]
    paths = list(films(CALIBRATING, args.seconds, [], args.out, first=CALIBRATION))
    found = list(keys_and_queries(Calibration(paths, others, args.settings, bank)))
    known = {text for number in others for text in texts(number)}
    with tempfile.TemporaryDirectory() as name:
        profile = Path(name) / "profile.npz"
        np.savez(
            profile,
            directions=directions([q for _, each in found for q in each], heads, LISTS).numpy(),
            common=torch.cat([each for each, _ in found]).mean(0).numpy(),
        )
        indexes = [QueryLists(lists=LISTS), QueryLists(lists=LISTS, profile=str(profile))]
    for index in indexes:
        index.add("v", keys.transpose(2, 0, 1, 3)[:, :, :, None])
    recalls: dict[str, list[tuple[str, float]]] = {}
    compared: dict[str, list[float]] = {}
    by_keys: dict[str, list[float]] = {}
    for layer in range(layers):
        for head in range(heads):
            alone = np.ascontiguousarray(keys[layer, head])
            made = searches(alone, indexes[0], indexes[1], (layer, head))
            asked = [
                (number, each.mean(0)[layer].unflatten(0, (heads, -1))[head].numpy())
                for number, each in questions
            ]
            rows = np.ascontiguousarray(np.concatenate([each for _, each in asked]))
            owners = [number for number, each in asked for _ in each]
            some = alone[:: max(1, len(alone) // 200)]
            for kind, queries in (("questions", rows), ("keys", some)):
                truth = np.argsort(-(queries @ alone.T), 1)[:, : args.nearest]
                for way, search in made.items():
                    ids, share = search(np.ascontiguousarray(queries), args.nearest)
                    hit = [
                        len(np.intersect1d(a, b)) / args.nearest
                        for a, b in zip(truth, ids, strict=True)
                    ]
                    if kind == "keys":
                        by_keys.setdefault(way, []).append(float(np.mean(hit)))
                        continue
                    compared.setdefault(way, []).append(share)
                    recalls.setdefault(way, []).extend(
                        (str(owner), one) for owner, one in zip(owners, hit, strict=True)
                    )
    new = sum(text not in known for number in numbers for text in texts(number))
    print(
        f"{keys.shape[2]} keys in each of {layers * heads} indexes; {len(questions)} questions "
        f"about {args.films} films, {new} of them with words that no film of the profile has"
    )
    print("\n| index | compared (%) | recall of the nearest (%) | keys as queries (%) |")
    print("|---" * 4 + "|")
    for way, results in recalls.items():
        cells = (
            way,
            f"{100 * np.mean(compared[way]):.1f}",
            cell(results),
            f"{100 * np.mean(by_keys[way]):.1f}",
        )
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
