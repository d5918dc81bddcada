"""Subtitle files and tracks: what a cue says and when, and every way in which a file can be bad."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from encoders.errors import UserError
from encoders.text.lines import MAX_CHARS, TextLine, TextSpan, VideoFile
from encoders.text.subtitles import Subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>The harbour</i> was
rebuilt

2
00:00:02,000 --> 00:00:04,000
{\\an8}with granite
"""
VTT = (
    "WEBVTT\n\n00:01.000 --> 00:02.500 align:start\nThe harbour was rebuilt\n\n"
    "00:02.000 --> 00:04.000\nwith granite\n"
)
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,The {\\b1}harbour{\\b0} was\\Nrebuilt
Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,not shown
Dialogue: 0,0:00:02.00,0:00:04.00,Default,,0,0,0,,with granite
"""
# what yt-dlp writes of YouTube's automatic captions: time tags in a line, and each line three times
ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:05.000 --> 00:00:07.510 align:start position:0%
 
so<00:00:05.320><c> today</c><00:00:05.560><c> we</c><00:00:05.800><c> rebuild</c>

00:00:07.510 --> 00:00:07.520 align:start position:0%
so today we rebuild
 

00:00:07.520 --> 00:00:10.000 align:start position:0%
so today we rebuild
the<00:00:07.760><c> granite</c><00:00:08.000><c> harbour</c>

00:00:10.000 --> 00:00:10.010 align:start position:0%
the granite harbour
 
"""
EXPECTED = [(1.0, 2.5, "The harbour was rebuilt"), (2.0, 4.0, "with granite")]


def read(
    folder: Path,
    data: str | bytes,
    name: str = "talk.srt",
    seconds: float = 60.0,
    **options: object,
) -> list[TextSpan]:
    """What is found for talk.mp4 with one file beside it; no track is looked for."""
    (folder / "talk.mp4").touch()
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    video = VideoFile("v", folder / "talk.mp4", duration=seconds)
    return list(Subtitles(tracks=False, **options).spans(video))  # type: ignore[arg-type]


def cues(spans: list[TextSpan]) -> list[tuple[float, float, str]]:
    return [(line.start, line.end, line.text) for span in spans for line in span.lines]


def note(spans: list[TextSpan]) -> str:
    return "; ".join(span.note for span in spans if span.note)


@pytest.mark.parametrize(
    ("name", "text"), [("talk.srt", SRT), ("talk.en.vtt", VTT), ("talk.ASS", ASS)]
)
def test_every_format_gives_the_same_lines(tmp_path: Path, name: str, text: str) -> None:
    (span,) = read(tmp_path, text, name)
    assert cues([span]) == EXPECTED and span.last and not span.note
    assert span.lines[0] == TextLine("v", 1.0, 2.5, "subtitle", "The harbour was rebuilt", 2.5)


def test_a_file_belongs_to_the_video_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "talk2.srt").write_text(SRT)
    assert "no subtitles are beside talk.mp4" in note(read(tmp_path, "x", "other.txt"))


def with_track(path: Path, text: str, kind: str = "srt", late_s: int = 0) -> VideoFile:
    """A film of 6 s with these subtitles inside. late_s: seconds of sound before the first
    picture.
    """
    beside = path.with_suffix("." + kind)
    beside.write_text(text)
    with av.open(str(beside)) as told, av.open(str(path), "w") as out:
        film = out.add_stream("libx264", rate=5)
        film.width = film.height = 64
        film.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", rate=16_000)
        words = out.add_stream_from_template(told.streams.subtitles[0])
        for start in range(0, 6 * 16_000, 1024):
            silence = np.zeros((1, 1024), dtype=np.float32)
            heard = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 16_000, start
            out.mux(sound.encode(heard))
        out.mux(sound.encode())
        for number in range(5 * late_s, 30):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts = number
            out.mux(film.encode(frame))
        out.mux(film.encode())
        for packet in told.demux():
            if packet.dts is not None:
                packet.stream = words
                out.mux(packet)
    beside.unlink()
    return VideoFile("v", path, duration=6.0)


def test_a_track_inside_the_video_is_read(tmp_path: Path) -> None:
    (span,) = Subtitles().spans(with_track(tmp_path / "talk.mkv", SRT))
    assert cues([span]) == EXPECTED


@pytest.mark.parametrize("late_s", [0, 2])
def test_words_inside_and_beside_a_video_come_at_the_same_time(tmp_path: Path, late_s: int) -> None:
    """Players count from what they show or play first, also if that is the sound."""
    video = with_track(tmp_path / "talk.mkv", SRT, late_s=late_s)
    inside = cues(list(Subtitles().spans(video)))
    (tmp_path / "talk.srt").write_text(SRT)
    assert cues(list(Subtitles().spans(video))) == inside == EXPECTED


@pytest.mark.parametrize(
    "shown",
    [
        "AT&amp;T &lt;3 it&#39;s here",
        "if a < b and c > d then",
        "<i>a</i> vector<int> of {1, 2}",
        "<font color=red>red</font> and so",
        "two\nlines",
    ],
)
@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_words_inside_and_beside_a_video_are_the_same(
    tmp_path: Path, shown: str, kind: str
) -> None:
    text = srt(("00:00:01,000", "00:00:02,000", shown))
    if kind == "vtt":
        text = "WEBVTT\n\n" + text.replace(",", ".", 2)
    video = with_track(tmp_path / "talk.mkv", text, kind)
    inside = cues(list(Subtitles().spans(video)))
    (tmp_path / f"talk.{kind}").write_text(text)
    assert cues(list(Subtitles().spans(video))) == inside != []


def test_rolling_captions_inside_the_video_give_each_line_once(tmp_path: Path) -> None:
    text = ROLLING.replace("granite", "gr&amp;nite")
    for seconds in (10, 7, 5):  # all of it 4 s earlier
        text = text.replace(f"00:00:{seconds:02d}", f"00:00:{seconds - 4:02d}")
    (span,) = Subtitles().spans(with_track(tmp_path / "talk.webm.mkv", text, "vtt"))
    assert [text for *_, text in cues([span])] == ["so today we rebuild", "the gr&nite harbour"]


def test_stretches_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    text = "".join(
        f"{i}\n{i // 60:02d}:{i % 60:02d}:59,500 --> {i // 60:02d}:{i % 60:02d}:59,900\nminute "
        f"{i}\n\n"
        for i in range(25)
    )
    (tmp_path / "talk.mp4").touch()
    (tmp_path / "talk.srt").write_text(text)
    video = VideoFile("v", tmp_path / "talk.mp4", duration=1500.0)
    whole = list(Subtitles(tracks=False).spans(video))
    assert [(s.start, s.end, s.last) for s in whole] == [
        (0, 600, False),
        (600, 1200, False),
        (1200, 1500, True),
    ]
    assert len(cues(whole)) == 25 and list(Subtitles(tracks=False).spans(video, 600.0)) == whole[1:]


def test_only_the_part_that_the_bank_holds_counts(tmp_path: Path) -> None:
    (tmp_path / "talk.mp4").touch()
    (tmp_path / "talk.srt").write_text(SRT)
    video = VideoFile("v", tmp_path / "talk.mp4", begin=1.5, end=3.0, duration=60.0)
    assert cues(list(Subtitles(tracks=False).spans(video))) == [(2.0, 3.0, "with granite")]


BAD_TIMES = """1
00:00:05,000 --> 00:00:02,000
ends before it begins

2
00:00:0x,000 --> 00:00:09,000
no time at all

3
00:00:10,000 --> 00:00:12,000
good

4
00:00:14,000 --> 00:00:14,000
takes no time
"""


def test_cues_with_times_that_make_no_sense_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, BAD_TIMES)
    assert cues(found) == [(10.0, 12.0, "good")]
    assert note(found) == "3 of 4 subtitles in talk.srt were left out, as their times make no sense"


def test_overlapping_and_unordered_cues_are_kept_in_time_order(tmp_path: Path) -> None:
    text = "1\n00:00:05,000 --> 00:00:09,000\nlate\n\n"
    text += "2\n00:00:01,000 --> 00:00:08,000\nearly\n\n3\n00:00:05,000 --> 00:00:06,000\nshort\n"
    assert cues(read(tmp_path, text)) == [
        (1.0, 8.0, "early"),
        (5.0, 6.0, "short"),
        (5.0, 9.0, "late"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text = SRT.replace("harbour", "Hafenstraße für").encode(encoding)
    found = read(tmp_path, text)
    assert cues(found)[0][2] == "The Hafenstraße für was rebuilt" and not note(found)


def test_another_encoding_is_guessed_and_said(tmp_path: Path) -> None:
    text = SRT.replace(
        "The harbour", "Die Straße führt über die Brücke und außerdem zurück"
    ).encode("cp1252")
    found = read(tmp_path, text)
    assert "Brücke" in cues(found)[0][2] and "not UTF-8" in note(found)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x00\x01\x02\x89PNG" * 50, "no text file"),
        (b"", "no subtitle in it"),
        (b"just some prose\n", "no subtitle in it"),
    ],
)
def test_what_is_no_subtitle_file_is_one_sentence(tmp_path: Path, data: bytes, words: str) -> None:
    found = read(tmp_path, data)
    assert cues(found) == [] and found[-1].last and words in note(found) and "\n" not in note(found)
    with pytest.raises(UserError, match=words):
        read(tmp_path, data, path=str(tmp_path / "talk.srt"))


def test_a_named_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.subtitles\.path=nowhere\.srt"):
        read(tmp_path, SRT, path="nowhere.srt")


JSON = [  # the two forms of LongVideoBench, and a cue that states no end
    {"timestamp": [11.0, 12.5], "text": "The harbour was <b>rebuilt</b>"},
    {"start": "00:00:12.000", "end": "00:00:14.000", "line": "with granite"},
    {"timestamp": [20.0, None], "text": "in a year"},
]


def test_a_list_in_json_is_read_from_the_second_at_which_the_video_begins(tmp_path: Path) -> None:
    text = json.dumps([{"timestamp": [2, 3], "text": "before it"}, *JSON])
    path = str(tmp_path / "talk_en.json")
    found = read(tmp_path, text, "talk_en.json", path=path, path_from=10.0)
    assert cues(found) == [*EXPECTED, (10.0, 15.0, "in a year")] and not note(found)
    # a file beside a film is one of the other kinds
    assert cues(read(tmp_path, text, "talk.json")) == []
    video = VideoFile("v", tmp_path / "talk.mp4", duration=60.0)
    made = [Subtitles(path, path_from=second).made_with(video) for second in (0.0, 10.0)]
    assert made[0] != made[1] and "from" not in made[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "no list of objects"),
        ("[", "cannot be read as subtitles"),
        ("[" * 100_000, "too deep"),
        ('[5, {"timestamp": [4, 2], "text": "x"}]', "2 of 2 subtitles in talk.json were left out"),
        ('[{"timestamp": ["a", 2], "text": "x"}]', "1 of 1 subtitles in talk.json were left out"),
    ],
)
def test_json_that_is_no_subtitles_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        read(tmp_path, text, "talk.json", path=str(tmp_path / "talk.json"))
    assert len(str(refused.value).splitlines()) == 1


def test_a_very_long_cue_becomes_several_lines_and_loses_nothing(tmp_path: Path) -> None:
    words = " ".join(f"word{i}" for i in range(1300))
    letters = "火" * 10_000
    for text in (words, letters):
        found = read(tmp_path, f"1\n00:00:01,000 --> 00:00:05,000\n{text}\n")
        lines = found[0].lines
        assert len(lines) >= 9 and all(
            len(line.text) <= MAX_CHARS and (line.start, line.end) == (1.0, 5.0) for line in lines
        )
        assert (" " if text is words else "").join(line.text for line in lines) == text


def test_marks_that_only_steer_drawing_go(tmp_path: Path) -> None:
    found = read(
        tmp_path, "1\n00:00:01,000 --> 00:00:02,000\n\u202bمرحبا\u202c \u200fבעולם\u0007\n"
    )
    assert cues(found)[0][2] == "مرحبا בעולם"


def test_cues_behind_the_end_are_left_out_and_said(tmp_path: Path) -> None:
    found = read(tmp_path, SRT, seconds=1.5)
    assert cues(found) == [(1.0, 1.5, "The harbour was rebuilt")]
    assert "1 of 2 subtitles come after the video's end" in note(found)


def test_an_edited_file_is_another_run(tmp_path: Path) -> None:
    read(tmp_path, SRT)
    video = VideoFile("v", tmp_path / "talk.mp4", duration=60.0)
    before = Subtitles().made_with(video)
    (tmp_path / "talk.srt").write_text(SRT.replace("granite", "marble"))
    assert Subtitles().made_with(video) != before


def test_rolling_captions_give_each_line_once_with_its_own_time(tmp_path: Path) -> None:
    assert cues(read(tmp_path, ROLLING, "talk.en.vtt")) == [
        (5.0, 7.51, "so today we rebuild"),
        (7.52, 10.0, "the granite harbour"),
    ]


def srt(*rows: tuple[str, str, str]) -> str:
    return "".join(f"{n}\n{a} --> {b}\n{text}\n\n" for n, (a, b, text) in enumerate(rows, 1))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        # three lines that roll, as of televisions
        (
            ["a b", "a b\nc d", "a b\nc d\ne f", "c d\ne f\ng h"],
            [(1, 2, "a b"), (2, 3, "c d"), (3, 4, "e f"), (4, 5, "g h")],
        ),
        # a line that grows word by word
        (["so", "so today", "so today we\nrebuild"], [(1, 4, "so today we rebuild")]),
        # a cue that only goes on
        (["la la", "la la"], [(1, 3, "la la")]),
        # no repetitions: words that begin alike, and a line that ends the next cue
        (["so", "some", "x\nsome"], [(1, 2, "so"), (2, 3, "some"), (3, 4, "x some")]),
    ],
)
def test_words_that_the_cue_before_has_shown_count_once(
    tmp_path: Path, shown: list[str], expected: list[tuple[float, float, str]]
) -> None:
    rows = [(f"00:00:0{n},000", f"00:00:0{n + 1},000", text) for n, text in enumerate(shown, 1)]
    assert cues(read(tmp_path, srt(*rows))) == expected


def test_words_that_come_again_after_a_pause_are_said_again(tmp_path: Path) -> None:
    text = srt(("00:00:01,000", "00:00:02,000", "yes"), ("00:00:05,000", "00:00:06,000", "yes"))
    assert cues(read(tmp_path, text)) == [(1, 2, "yes"), (5, 6, "yes")]


ONE = ("00:00:05,000", "00:00:07,000")


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("AT&amp;T &lt;3 it&#39;s here", "AT&T <3 it's here"),
        ("if a < b and c > d then", "if a < b and c > d then"),
        ("a vector<int> of {1, 2}", "a vector<int> of {1, 2}"),
        ("<font color=red>red</font> {\\an8}<I>and</I> so", "red and so"),
        ("born in\n1984", "born in 1984"),
        ("from a --> b", "from a --> b"),
        ("if a<b and c>d", "if a<b and c>d"),
        ("<v.loud Esme>so <c.colorCCCCCC>it</c> <lang en-GB>goes</lang></v>", "so it goes"),
        ("the net <b>works", "the net works"),
    ],
)
def test_marks_go_and_words_stay(tmp_path: Path, shown: str, words: str) -> None:
    text = srt((*ONE, shown), ("00:00:08,000", "00:00:09,000", "next"))
    assert cues(read(tmp_path, text)) == [(5, 7, words), (8, 9, "next")]


def test_comments_and_names_of_cues_are_no_words(tmp_path: Path) -> None:
    text = (
        "WEBVTT\n\nSTYLE\n::cue{}\n\nintro\n00:05.000 --> 00:07.000\n<v Roger Bingham>hello\n\n"
        "NOTE\nfor translators\n\nsecond\n00:07.000 --> 00:09.000\n<c.yellow.loud>there</c>\n"
    )
    assert cues(read(tmp_path, text, "talk.vtt")) == [(5, 7, "hello"), (7, 9, "there")]


def test_shapes_that_substation_draws_are_no_words(tmp_path: Path) -> None:
    shapes = "{\\p1}m 0 0 l 100 0 100 100 0 100{\\p0}"
    text = ASS.replace("with granite", f"{shapes}with granite").replace(
        "Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,not shown",
        f"Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{shapes}",
    )
    assert cues(read(tmp_path, text, "talk.ass")) == EXPECTED


def test_what_begins_before_the_video_begins_with_it(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        srt(
            ("-00:00:01,000", "00:00:07,000", "zebra"), ("-00:00:09,000", "-00:00:08,000", "never")
        ),
    )
    assert cues(found) == [(0, 7, "zebra")]
    assert note(found).startswith("1 of 2 subtitles in talk.srt were left out")


def test_times_without_hours_are_read(tmp_path: Path) -> None:
    assert cues(read(tmp_path, srt(("01:05,5", "01:07,25", "zebra")), seconds=90)) == [
        (65.5, 67.25, "zebra")
    ]


# one sentence or two of each, in the encoding of its Windows
LEGACY = {
    "cp1252": [
        "Ça n'a pas été facile, où étiez-vous ? À la forêt, près du château.",
        "Où es-tu ? Près de la forêt.",
        "Très bien, merci beaucoup",
        "O cão está no jardim, não há ninguém lá à noite. A construção do cais começou em março.",
        "¿Dónde está el niño? Mañana iremos a la montaña, y después veremos qué pasa aquí.",
        "Perché non è più così? La città è già là, però la verità verrà lunedì.",
        "Jag såg den när vi åkte över ån på väg till sjön, det är väldigt roligt.",
        "Jeg går på arbejde hver dag, og så får vi øl og rødgrød med fløde på en ø.",
        "“Hello,” he said – it’s a long day… and we don’t know why.",
    ],
    "cp1250": [
        "Poszedł do sklepu, żeby kupić chleb i masło, ale już wraca. Cześć, dziękuję bardzo.",
        "Kde je můj bratr? Šel do obchodu koupit chléb a máslo, ale už se vrací. Děkuji.",
        "Elment a boltba kenyeret és vajat venni, de már jön. Köszönöm, őrült nagy fű.",
    ],
    "iso8859-2": ["Kde je můj bratr? Šel do obchodu koupit chléb a máslo, ale už se vrací."],
    "koi8-r": ["Где мой брат? Он пошёл в магазин купить хлеб и масло."],
    "cp1251": ["Где мой брат? Он пошёл в магазин купить хлеб и масло, но уже возвращается."],
    "cp1253": ["Πού είναι ο αδερφός μου; Πήγε στο μαγαζί να αγοράσει ψωμί και βούτυρο."],
    "cp1254": ["Ekmek ve tereyağı almak için markete gitti ama şimdi dönüyor. Çok teşekkürler."],
    "cp1255": ["איפה אחי? הוא הלך לחנות לקנות לחם וחמאה, אבל הוא כבר חוזר."],
    "gb18030": ["我的哥哥在哪里？他去商店买面包和黄油了，但是他已经回来了。"],
    "shift_jis": ["兄はどこですか？パンとバターを買いに店へ行きましたが、もう帰ってきます。"],
    "utf-16-le": ["Où es-tu ? Près de la forêt.", "Где мой брат?"],
    "utf-16-be": ["Où es-tu ? Près de la forêt."],
}


@pytest.mark.parametrize(
    ("encoding", "words"), [(name, words) for name, texts in LEGACY.items() for words in texts]
)
def test_unmarked_encodings_are_guessed_by_their_language(
    tmp_path: Path, encoding: str, words: str
) -> None:
    found = read(tmp_path, srt((*ONE, words)).encode(encoding))
    assert cues(found) == [(5, 7, words)] and "not UTF-8" in note(found)


def test_letters_that_two_encodings_share_are_those_of_windows(tmp_path: Path) -> None:
    words = "Ça n'a pas été facile, où étiez-vous ? À la forêt, près du château."
    assert "was read as cp1252;" in note(read(tmp_path, srt((*ONE, words)).encode("iso8859-1")))
    found = read(tmp_path, srt((*ONE, words + " Ma sœur a 20 €.")).encode("iso8859-15"))
    assert cues(found)[0][2].endswith("Ma sœur a 20 €.")


def test_utf8_that_is_cut_within_a_letter_stays_utf8(tmp_path: Path) -> None:
    words = "Ça n'a pas été facile, où étiez-vous ? À la forêt, près du château. " * 3
    data = srt((*ONE, words), ("00:00:08,000", "00:00:09,000", "à")).encode().rstrip()[:-1]
    found = read(tmp_path, data)
    assert cues(found) == [(5, 7, words.strip()), (8, 9, "\ufffd")]
    assert "was read as UTF-8 with broken letters" in note(found)


def test_a_file_belongs_to_the_video_with_the_longest_name(tmp_path: Path) -> None:
    """lecture.2.srt is no language of lecture.mp4 if there is a lecture.2.mp4."""
    (tmp_path / "talk.2.srt").write_text(srt((*ONE, "second")))
    (tmp_path / "talk.2.en.srt").write_text(srt((*ONE, "second in English")))
    assert len(cues(read(tmp_path, srt((*ONE, "first"))))) == 3
    (tmp_path / "talk.2.MKV").touch()
    assert cues(read(tmp_path, srt((*ONE, "first")))) == [(5, 7, "first")]
    video = VideoFile("v", tmp_path / "talk.2.MKV", duration=60.0)
    assert cues(list(Subtitles(tracks=False).spans(video))) == [
        (5, 7, "second"),
        (5, 7, "second in English"),
    ]
