"""Annotation files of benchmarks, written by hand in their published forms, with rows that are
right and rows that are broken. No data set is needed.

A form is that of the address in the option's YAML file. What the rows say is invented.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.job_files import write

Row = dict[str, Any]
OPTIONS = ["A. Red", "B. Blue", "C. Green", "D. White"]
PLAIN = ["Red", "Blue", "Green", "White"]


@dataclass(frozen=True)
class Annotation:
    """A file of a benchmark, and what comes of it."""

    option: str  # of annotations=
    file: str  # as it is published
    right: Row
    wanted: list[Row]  # fields of the jobs that the right row gives
    broken: list[tuple[Row, str]] = field(default_factory=list)  # with words of the refusal
    # rows -> the content of the .json file; None: the rows, as the ending of the file says
    whole: Callable[[list[Row]], Any] | None = None

    def write(self, folder: Path, rows: list[Row]) -> Path:
        """The file with these rows."""
        path = folder / self.file
        if self.whole is None:
            return write(path, rows)
        path.write_text(json.dumps(self.whole(rows)))
        return path


def without(row: Row, name: str) -> Row:
    """A row that lacks a field."""
    return {key: value for key, value in row.items() if key != name}


VIDEO_MME: Row = {
    "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Art",
    "url": "u", "videoID": "fFj", "question_id": "001-1", "task_type": "Counting",
    "question": "How?", "options": OPTIONS, "answer": "C",
}  # fmt: skip
LONG_VIDEO_BENCH: Row = {
    "video_id": "x", "question": "What does the man in the red hat hold?",
    "question_wo_referring_query": "What does the man hold?",
    "candidates": ["a", "b", "c"], "correct_choice": 2, "position": [120],
    "topic_category": "NP-News-Programs", "question_category": "S2E", "level": "L1-Perception",
    "id": "x_0", "video_path": "x.mp4", "subtitle_path": "x_en.json", "duration_group": 600,
    "starting_timestamp_for_subtitles": 30.5, "duration": 300.0, "view_count": 9,
}  # fmt: skip
CG_BENCH: Row = {
    "qid": 14, "video_uid": "3Zp", "question": "Colour?", "answer": "White",
    "choices": ["Grey", "Blue", "White"], "right_answer": "C",
    "clue_intervals": [[8, 11], [20, 22]], "domain": "Art", "sub_category": "Entity",
    "duration": 2741,
}  # fmt: skip
FRIENDS_QA: Row = {
    "id": 1, "vid": "S01E01", "scenes": [2], "question": "Who comes in?", "choices": PLAIN,
    "GT": "Blue", "option": "B", "topic": "CL", "gemini_check": ["True", "Blue"],
    "claude_check": ["True", "Blue"], "attribution": "perception", "characters": ["Ann"],
    "locations": ["Café"], "times": ["00:49-01:16", "17:31-18:37"],
}  # fmt: skip
INFINI_BENCH: Row = {
    "question_id": "g_1", "skill_name": "global_appearance", "split": "dev",
    "question": "In what order?", "options": "[['red coat', 'gown'], ['gown'], \"I don't know\"]",
    "answer_idx": "0", "answer": "",
    "video_path_mp4": "TV_shows/videos/castle/season_1/episode_2.mp4",
    "video_subtitles": "TV_shows/subtitles/castle/season_1/episode_2.srt",
}  # fmt: skip
LV_BENCH_QA: Row = {
    "uid": "7", "question": "What is on the table?\n(A) Red\n(B) Blue\n(C) Green\n(D) White",
    "answer": "D", "question_type": ["entity recognition", "reasoning"],
    "time_reference": "75:10-1:16:02",
}  # fmt: skip
LV_BENCH: Row = {
    "key": "Cm7", "type": "cartoon", "qa": [LV_BENCH_QA],
    "video_info": {"duration_minutes": 90, "fps": 24.0},
}  # fmt: skip
TVQA: Row = {
    "qid": 122, "q": "Who sits?", "a0": "Ann", "a1": "Ben", "a2": "Cem", "a3": "Dan", "a4": "Eve",
    "answer_idx": 1, "show_name": "Friends", "ts": "2.5-9",
    "vid_name": "friends_s01e02_seg02_clip_16",
}  # fmt: skip
EGO_LIFE: Row = {
    "ID": "1", "query_time": {"date": "DAY2", "time": "11210217"}, "type": "EntityLog",
    "need_audio": False, "need_name": True, "last_time": False, "trigger": "Tools on a table",
    "question": "Who took the drill?", "choice_a": "Ann", "choice_b": "Ben", "choice_c": "Cem",
    "choice_d": "Dan", "answer": "B", "target_time": {"date": "DAY1", "time": "11152408"},
    "keywords": "take drill", "reason": "seen",
}  # fmt: skip
X_LE_BENCH: Row = {
    "query_metadata": {
        "video_uid": "0a8f-11", "query_range": {"start_time": "08:30", "end_time": "08:52"},
    },
    "queries": [
        {"query": "Where was the cup?", "template": "Objects: where", "video_uid": "0a8f-11",
         "response_start_time_sec": 30612.5, "response_end_time_sec": 30615}
    ],
}  # fmt: skip
VUE_TR: Row = {
    "query_id": 3, "video_id": "h2j", "duration": 56.5, "query": "silver car",
    "gt": [[14, 18], [22, 23.5]], "task": "temporal_retrieval", "duration_category": "ultra-short",
    "query_format": "keyword", "query_modality": "vision",
}  # fmt: skip
REKV: Row = {
    "video_id": "v", "video_path": "data/v.mp4", "duration": 480,
    "conversations": [
        {"question": "Where?", "choices": ["In", "Out"], "answer": "Out",
         "temporal_windows": [[3, 5.5]], "question_type": "mc", "end_time": 9}
    ],
}  # fmt: skip
RVS: Row = {
    "video_id": "v", "video_path": "data/v.mp4",
    "conversations": [
        {"question": "Where?", "answer": "In the yard", "answer_type": "scene", "start_time": 0,
         "end_time": 61.5}
    ],
}  # fmt: skip
STREAMING: Row = {
    "time": "[0:00:00 - 0:00:10]", "video_categories": "x", "video_path": "./videos/s.mp4",
    "questions": [
        {"task_type": "Clips Summarize", "question": "Q?", "time_stamp": "00:01:31", "answer": "B",
         "options": OPTIONS, "required_ability": "episodic memory"}
    ],
}  # fmt: skip
PROACTIVE: Row = {
    "time": "[0:00:00 - 0:00:30]", "video_categories": "x", "video_path": "./videos/p.mp4",
    "questions": [
        {"task_type": "Proactive Output", "question": 'When the score is 3, output "3".',
         "time_stamp": "00:00:20", "ground_truth_time_stamp": "00:00:29",
         "ground_truth_output": "3", "required_ability": "working memory"}
    ],
}  # fmt: skip
MOMENT_SEEKER: Row = {
    "qry_text": "A man runs", "qry_img_path": "images/1.png", "qry_video_path": "",
    "candidate_video_list": [
        {"output_path": "/share/clips/movie_16/0.00_3.00.mp4", "frame_path": "/share/0.png"},
        {"output_path": "/share/clips/other_2/0.00_3.00.mp4", "frame_path": "/share/1.png"},
        {"output_path": "/share/clips/movie_16/3.00_7.50.mp4", "frame_path": "/share/2.png"},
    ],
    "gt_indices": [2],
}  # fmt: skip
OVO: Row = {
    "id": 0, "task": "EPM", "video": "Ego4D/clips/e.mp4", "realtime": 215, "question": "Who?",
    "answer": "a person", "options": ["a dog", "a cat", "a person"], "gt": 2,
}  # fmt: skip
OVO_REC: Row = {
    "id": 1558, "task": "REC", "video": "r.mp4", "activity": "break something",
    "start_times": [6], "end_times": [17],
    "test_info": [{"realtime": 5, "count": 0}, {"realtime": 17.5, "count": 1}],
}  # fmt: skip
OVO_SSR: Row = {
    "id": 1516, "task": "SSR", "video": "s.mp4", "tutorial": "PutOnHairExtensions",
    "all_steps": ["comb"], "start_time": [25], "end_time": [30],
    "test_info": [{"realtime": 27, "step": "comb", "type": 1},
                  {"realtime": 40, "step": "comb", "type": 0}],
}  # fmt: skip
OVO_CRR: Row = {
    "id": 1468, "task": "CRR", "video": "c.mp4", "question": "What does she pass?",
    "answer": "A car.", "ask_time": 297, "clue_time": 308,
    "test_info": [{"realtime": 297, "type": 0}, {"realtime": 310, "type": 1}],
}  # fmt: skip
VNBENCH: Row = {
    "video": "./VNBench/v_Pk_ord_insert2.mp4", "question": "What is the order?", "gt": "cow, car",
    "options": ["car, cow", "cow, car", "cow, bus", "bus, car"], "gt_option": "B",
    "needle_time": [12, 25.5], "length": 95, "type": "ord_insert2", "try": 3,
}  # fmt: skip
MLVU: Row = {
    "video": "movie_1.mp4", "duration": 480.0, "question": "What?", "candidates": PLAIN,
    "answer": "Blue", "question_type": "plotQA",
}  # fmt: skip
EGO_SCHEMA: Row = {
    "question_idx": "q7", "question": "Why?", "video_idx": "0a0", "option": [*OPTIONS, "E. Black"],
    "answer": "4",
}  # fmt: skip
MF2: Row = {"movie_id": "12", "true_claim": "She leaves.", "false_claim": "She stays."}


def _turns(row: Row, name: str, **changes: Any) -> Row:
    """The row with another value in each object of its list."""
    return row | {name: [turn | changes for turn in row[name]]}


def _turns_without(row: Row, name: str, field_name: str) -> Row:
    return row | {name: [without(turn, field_name) for turn in row[name]]}


ANNOTATIONS: list[Annotation] = [
    Annotation(
        "video_mme", "test-00000-of-00001.parquet", VIDEO_MME,
        [{"id": "001-1", "video": "data/fFj.mp4", "options": tuple(PLAIN), "letter": "C",
          "task": "Counting", "duration": "short", "subtitles": "subtitle/fFj.srt"}],
        [(VIDEO_MME | {"videoID": None, "answer": "G"}, "answer='G' is neither"),
         (VIDEO_MME | {"question": " "}, "the column question is empty")],
    ),
    Annotation(
        "video_mme", "video_mme.json", VIDEO_MME, [{"letter": "C"}],
        [(without(VIDEO_MME, "options"), "the field options is missing"),
         (without(VIDEO_MME, "videoID"), "the field videoID, which names the video, is missing"),
         (VIDEO_MME | {"options": 4}, "the field options is no list of options")],
    ),
    Annotation(
        "mlvu", "1_plotQA.json", MLVU,
        [{"video": "movie_1.mp4", "letter": "B", "answer": "Blue", "task": "plotQA",
          "question": "What?"}],
        [(without(MLVU, "question_type"), "the field question_type is missing"),
         (MLVU | {"answer": "Pink"}, "answer='Pink' is neither")],
    ),
    Annotation(
        "mlvu", "mlvu_dev.parquet",
        {"video_name": "ego_1.mp4", "question": "What?\n(A) Red\n(B) Blue\n(C) Green",
         "answer": "C", "task_type": "ego"},
        [{"video": "ego_1.mp4", "options": ("Red", "Blue", "Green"), "letter": "C", "task": "ego",
          "question": "What?"}],
        [({"video_name": "v", "question": "q", "answer": "A", "task_type": "ego"},
          "holds no options")],
    ),
    Annotation(
        "long_video_bench", "lvb_val.json", LONG_VIDEO_BENCH,
        [{"id": "x_0", "video": "videos/x.mp4", "letter": "C", "task": "S2E", "duration": "600",
          "query": "in the red hat", "subtitles": "subtitles/x_en.json", "subtitles_from": 30.5}],
        [(LONG_VIDEO_BENCH | {"correct_choice": "b"}, "correct_choice='b' is no number of an"),
         (LONG_VIDEO_BENCH | {"starting_timestamp_for_subtitles": "soon"}, "no number of at least"),
         (without(LONG_VIDEO_BENCH, "video_path"), "field video_path, which names the video")],
    ),
    Annotation(
        "long_video_bench", "validation.parquet",
        {"question": "Who?", "option0": "a", "option1": "b", "option2": "N/A", "correct_choice": 0,
         "id": "y", "question_category": "", "video_path": "y.mp4", "duration_group": 15},
        [{"options": ("a", "b"), "letter": "A", "query": "", "subtitles": ""}],
    ),
    Annotation(
        "egoschema", "subset.parquet", EGO_SCHEMA,
        [{"id": "q7", "video": "videos/0a0.mp4", "letter": "E", "answer": "Black"}],
        [(EGO_SCHEMA | {"answer": "first"}, "no number of an option"),
         (EGO_SCHEMA | {"option": []}, "2 to 26 texts")],
    ),
    Annotation(
        "cg_bench", "cgbench_mini.json", CG_BENCH,
        [{"id": "14", "video": "3Zp.mp4", "letter": "C", "evidence": ((8.0, 11.0), (20.0, 22.0)),
          "task": "Entity", "subtitles": "cg_subtitles/3Zp.srt"}],
        [(without(CG_BENCH, "video_uid"), "the field video_uid, which names the video, is missing"),
         (CG_BENCH | {"clue_intervals": [[8, "x"]]}, "is no span of time"),
         (CG_BENCH | {"clue_intervals": [[2740, 2760]]}, "outside of a video of 2741 s"),
         (CG_BENCH | {"clue_intervals": [[11, 8]]}, "ends before it begins")],
    ),
    Annotation(
        "friends_qa", "friendsqa_single.json", FRIENDS_QA,
        [{"id": "1", "video": "S01E01.mp4", "letter": "B", "task": "CL",
          "evidence": ((49.0, 76.0), (1051.0, 1117.0))}],
        [(FRIENDS_QA | {"times": ["soon"]}, "times='soon' is no span of time"),
         (FRIENDS_QA | {"option": None}, "options without an answer"),
         (without(FRIENDS_QA, "vid"), "the field vid, which names the video, is missing")],
    ),
    Annotation(
        "friends_qa", "friendsqa_cross.json", FRIENDS_QA | {"vid": ["S01E01", "S01E02"]},
        # the times of several episodes count over all of them together
        [{"video": "S01E01.mp4", "also": ("S01E02.mp4",), "letter": "B", "evidence": ()}],
        [(FRIENDS_QA | {"vid": []}, "must be one video or more")],
    ),
    Annotation(
        "infini_bench", "validation.csv", INFINI_BENCH,
        [{"id": "g_1", "video": "TV_shows/videos/castle/season_1/episode_2.mp4", "letter": "A",
          "options": ("red coat, gown", "gown", "I don't know"), "task": "global_appearance",
          "subtitles": "TV_shows/subtitles/castle/season_1/episode_2.srt"}],
        [(INFINI_BENCH | {"answer_idx": "three"}, "answer_idx='three' is no number of an option"),
         (INFINI_BENCH | {"options": "red or gown"}, "the field options is no list of options"),
         (INFINI_BENCH | {"answer_idx": ""}, "options without an answer")],
    ),
    Annotation(
        "infini_bench", "validation.csv",
        INFINI_BENCH | {"skill_name": "summarization", "options": "", "answer_idx": "",
                        "answer": "They meet.", "question": "What happens?"},
        [{"options": (), "answer": "They meet.", "letter": None, "task": "summarization"}],
    ),
    Annotation(
        "lv_bench", "video_info.meta.jsonl", LV_BENCH,
        [{"id": "7", "video": "all_videos/Cm7.mp4", "question": "What is on the table?",
          "letter": "D", "answer": "White", "task": "entity recognition, reasoning",
          "evidence": ((4510.0, 4562.0),)}],
        [(LV_BENCH | {"qa": "none"}, "the field qa is no list of objects"),
         (LV_BENCH | {"qa": [7]}, "not an object with named values"),
         (_turns_without(LV_BENCH, "qa", "answer"), "the field answer is missing"),
         (_turns(LV_BENCH, "qa", time_reference="late"), "time_reference='late' is no span"),
         (_turns(LV_BENCH, "qa", question="What?"), "holds no options (A) ...")],
    ),
    Annotation(
        "tvqa_long", "tvqa_val_edited.json", TVQA,
        [{"id": "122", "video": "Friends/season_1/episode_2.mp4", "letter": "B", "answer": "Ben",
          "task": "Friends", "evidence": ()}],
        [(without(TVQA, "a3"), "the field a3 is missing"),
         (TVQA | {"vid_name": "trailer"}, "vid_name=trailer names no episode"),
         (TVQA | {"answer_idx": 30}, "answer_idx=30 is no number of an option")],
        lambda rows: {
            "Friends": {"season_1": {"episode_2": {"questions": rows, "clips": ["friends_s01e02"]}}}
        },
    ),
    Annotation("tvqa_long", "tvqa_val.jsonl", TVQA, [{"letter": "B"}]),
    Annotation(
        "x_le_bench", "simulation_7_annotations.json", X_LE_BENCH,
        [{"video": "0a8f-11.mp4", "question": "Where was the cup?", "evidence": ((12.5, 15.0),),
          "task": "objects_retrieval", "options": ()}],
        [(X_LE_BENCH | {"query_metadata": {"video_uid": "a"}}, "query_range=None is no object"),
         (X_LE_BENCH | {"query_metadata": X_LE_BENCH["query_metadata"]
                        | {"query_range": {"start_time": "early"}}}, "'early' is no time of a day"),
         (_turns(X_LE_BENCH, "queries", response_start_time_sec=30599), "does not follow the"),
         (_turns(X_LE_BENCH, "queries", response_end_time_sec=""), "end_time_sec is empty"),
         (_turns_without(X_LE_BENCH, "queries", "query"), "the field query is missing"),
         (X_LE_BENCH | {"queries": 4}, "the field queries is no list of objects")],
        lambda rows: {
            "metadata": {"persona_id": 7}, "simulations": [],
            "tasks": {"objects_retrieval": {"query_list": rows}, "counting": []},
        },
    ),
    Annotation(
        "vue_tr", "VUE-TR_ground_truth.json", VUE_TR,
        [{"id": "3", "video": "h2j.mp4", "question": "silver car", "task": "vision",
          "evidence": ((14.0, 18.0), (22.0, 23.5)), "duration": "ultra-short", "options": ()}],
        [(without(VUE_TR, "gt"), "the field gt is missing"),
         (VUE_TR | {"gt": [[14]]}, "is no span of time"),
         (VUE_TR | {"gt": [[50, 58.5]]}, "outside of a video of 56.5 s"),
         (VUE_TR | {"query": ""}, "the column question is missing")],
    ),
    Annotation(
        "mf2", "metadata.csv", MF2,
        [{"video": "12.mp4", "options": ("TRUE", "FALSE"), "letter": "A",
          "pair": "12: She leaves. | She stays."},
         {"video": "12.mp4", "letter": "B", "pair": "12: She leaves. | She stays."}],
        [(MF2 | {"false_claim": ""}, "the column false_claim is empty")],
    ),
    Annotation(
        "qaego4d_mc", "test_mc.json", REKV,
        [{"video": "data/v.mp4", "letter": "B", "evidence": ((3.0, 5.5),), "asked_at": None}],
        [(REKV | {"conversations": "none"}, "no list of objects"),
         (_turns(REKV, "conversations", temporal_windows=[3]), "is no span of time")],
    ),
    Annotation(
        "rvs", "ego4d_oe.json", RVS,
        [{"video": "data/v.mp4", "question": "Where?", "answer": "In the yard", "asked_at": 61.5,
          "task": "scene", "options": ()}],
        [(_turns_without(RVS, "conversations", "end_time"), "the field end_time is missing"),
         (_turns(RVS, "conversations", end_time="shot_12"), "asked_at='shot_12' is no time"),
         (without(RVS, "video_path"), "field video_path, which names the video, is missing")],
    ),
    Annotation(
        "streaming_bench", "questions_real.json", STREAMING,
        [{"video": "./videos/s.mp4", "letter": "B", "asked_at": 91.0, "task": "Clips Summarize"}],
        [(_turns(STREAMING, "questions", time_stamp="later"), "asked_at='later' is no time"),
         (_turns_without(STREAMING, "questions", "options"), "the field options is missing")],
    ),
    Annotation(
        "streaming_bench_proactive", "questions_proactive.json", PROACTIVE,
        [{"video": "./videos/p.mp4", "asked_at": 20.0, "answer": "3", "rule": "contains",
          "query": 'When the score is 3, output "3".', "task": "Proactive Output"}],
        [(_turns(PROACTIVE, "questions", ground_truth_time_stamp="00:00:10"),
          "asked_at=20.0, watch.due=10.0 and watch.until=14.0 must come in this order"),
         (_turns(PROACTIVE, "questions", ground_truth_time_stamp="soon"), "due='soon' is no time"),
         (_turns_without(PROACTIVE, "questions", "ground_truth_time_stamp"), "is missing"),
         (STREAMING, "the field ground_truth_output is missing")],
    ),
    Annotation(
        "moment_seeker", "t2v_ms.json", MOMENT_SEEKER,
        [{"video": "movie_16.mp4", "question": "A man runs", "picture": "images/1.png",
          "candidates": ((0.0, 3.0), (3.0, 7.5)), "evidence": ((3.0, 7.5),),
          "task": "text and image"}],
        [(without(MOMENT_SEEKER, "candidate_video_list"), "candidate_video_list is no list of"),
         (MOMENT_SEEKER | {"gt_indices": [3]}, "gt_indices holds 3, which is none of the 3"),
         (MOMENT_SEEKER | {"gt_indices": 2}, "gt_indices=2 is no list of numbers"),
         (MOMENT_SEEKER | {"gt_indices": [1, 2]}, "gt_indices are clips of 2 videos"),
         (MOMENT_SEEKER | {"candidate_video_list": [{"output_path": "a/b.mp4"}]}, "is no clip"),
         (without(MOMENT_SEEKER, "qry_text"), "the field qry_text is missing")],
    ),
    Annotation(
        "moment_seeker", "t2v_ca.json", MOMENT_SEEKER | {"qry_img_path": ""},
        [{"picture": "", "task": "text"}],
    ),
    Annotation(
        "moment_seeker", "tv2v.json",
        MOMENT_SEEKER | {"qry_img_path": "", "qry_video_path": "clips/q.mp4"},
        [{"picture": "clips/q.mp4", "task": "text and clip"}],
    ),
    Annotation(
        "ovo_bench", "ovo_bench_new.json", OVO,
        [{"id": "0", "video": "Ego4D/clips/e.mp4", "letter": "C", "asked_at": 215.0,
          "task": "EPM"}],
        [(OVO | {"task": "NIX"}, "task=NIX is none of EPM"),
         (OVO | {"gt": "c"}, "gt='c' is no number of an option"),
         (without(OVO, "realtime"), "the field realtime is missing")],
    ),
    Annotation(
        "ovo_bench", "ovo_bench_new.json", OVO_REC,
        [{"id": "1558_0", "asked_at": 5.0, "answer": "0", "rule": "number", "options": (),
          "task": "REC", "query": "break something"},
         {"id": "1558_1", "asked_at": 17.5, "answer": "1"}],
        [(without(OVO_REC, "activity"), "the field activity is missing"),
         (OVO_REC | {"test_info": 5}, "the field test_info is no list of objects")],
    ),
    Annotation(
        "ovo_bench", "ovo_bench_new.json", OVO_SSR,
        [{"id": "1516_0", "options": ("Yes", "No"), "letter": "A", "asked_at": 27.0, "task": "SSR",
          "prompt": "{question}"},
         {"id": "1516_1", "letter": "B", "asked_at": 40.0}],
        [(_turns(OVO_SSR, "test_info", type=2), "type=2 of SSR is neither 0 nor 1")],
    ),
    Annotation(
        "ovo_bench", "ovo_bench_new.json", OVO_CRR,
        [{"letter": "B", "query": "What does she pass?"}, {"letter": "A", "asked_at": 310.0}],
        [(_turns_without(OVO_CRR, "test_info", "realtime"), "the column realtime is missing")],
    ),
    Annotation(
        "vnbench", "VNBench-main-4try.json", VNBENCH,
        [{"id": "v_Pk_ord_insert2_3", "video": "VNBench/v_Pk_ord_insert2.mp4", "letter": "B",
          "group": "v_Pk_ord_insert2", "task": "ord_insert2",
          "evidence": ((12.0, 13.0), (25.5, 26.5))}],
        [(VNBENCH | {"needle_time": 3}, "no list of seconds")],
    ),
]  # fmt: skip
