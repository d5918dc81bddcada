"""Law 2, encode once: a second question runs no vision tower and no prefill of video tokens."""

from tests.support.qa import TEXT, ask, opened
from tests.support.records import files
from tests.support.toys import FRAME_TOKENS


def test_a_second_question_runs_no_tower_and_prefills_no_video(film, tmp_path):
    with opened(film, tmp_path / "bank") as (qa, source):
        qa.ingest(source)
        tower, images, decoded = [], [], []
        hooks = [
            qa.backbone.model.model.vision_tower.register_forward_hook(lambda *_: tower.append(1)),
            qa.ingester.clip.clip.visual.register_forward_hook(lambda *_: images.append(1)),
            qa.backbone.decoder.layers[0].register_forward_hook(
                lambda _m, _a, out: decoded.append(1), always_call=True
            ),
            qa.backbone.decoder.layers[0].self_attn.q_proj.register_forward_hook(
                lambda _m, _a, out: decoded.append(out.shape[1])
            ),
        ]
        fresh = [ask(qa, source) for _ in range(2)]
        assert qa.ingest(source).new_segments == 0
        for hook in hooks:
            hook.remove()
        assert tower == [] and images == []
        tail, sink = (
            len(qa.backbone.prompt.suffix_ids(TEXT)) + 1,
            len(qa.backbone.prompt.preamble_ids()),
        )
        answer = qa.answerer.reader.max_new_tokens
        # Each question runs once for the retriever's queries and once for the reader, and then
        # decodes the answer. No video token runs.
        assert sum(n for n in decoded if n > 1) <= 2 * 2 * (sink + tail) + sink
        assert sum(n == 1 for n in decoded) <= 2 * 2 * answer + len(decoded)
        assert max(decoded) <= sink + tail < fresh[0]["visual_tokens"]
        assert fresh[0] == fresh[1] and fresh[0]["frames_read"] == 20


def test_the_token_reader_pays_for_every_question(film, tmp_path):
    """The other side of the trade, and proof that the count above can see a prefill."""
    with opened(film, tmp_path / "bank", "reader=tokens") as (qa, source):
        qa.ingest(source)
        lengths: list[int] = []
        hook = qa.backbone.decoder.layers[0].self_attn.q_proj.register_forward_hook(
            lambda _m, _a, out: lengths.append(out.shape[1])
        )
        ask(qa, source)
        hook.remove()
        assert max(lengths) >= 20 * FRAME_TOKENS


def test_a_known_video_encodes_nothing_in_another_run(film, tmp_path):
    with opened(film, tmp_path / "bank") as (qa, source):
        assert qa.ingest(source).new_segments == 3
        first = ask(qa, source)
    before = files(tmp_path / "bank")
    copy = tmp_path / "another name.mp4"
    copy.write_bytes(film.read_bytes())
    with opened(copy, tmp_path / "bank") as (qa, source):
        calls: list[int] = []
        modules = [qa.backbone.model.model.vision_tower, qa.ingester.clip.clip.visual]
        hooks = [module.register_forward_hook(lambda *_: calls.append(1)) for module in modules]
        done = qa.ingest(source)
        again = ask(qa, source)
        for hook in hooks:
            hook.remove()
        assert (done.new_segments, done.nbytes, calls) == (0, 0, []) and again == first
    assert files(tmp_path / "bank") == before
