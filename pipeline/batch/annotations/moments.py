"""Benchmarks of moment retrieval: which seconds of a long video fit a query."""

import re
from pathlib import PurePosixPath

from pipeline.batch.annotations.benchmark import Benchmark
from pipeline.batch.annotations.fields import Seconds, Values, is_empty, objects, select
from pipeline.batch.schema import RowError

_CLIP = re.compile(r"(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)")  # the name of a clip: start_end


class MomentSeeker(Benchmark):
    """qry_text, qry_img_path and qry_video_path ("" without one), candidate_video_list, gt_indices.

    A candidate is a clip whose path ends in VIDEO/START_END.mp4, in seconds. Clips of the right
    ones' video are ranked, and no others, as in the benchmark's own code. {video} is its name.
    """

    def __init__(self, *, video: str, prompt: str, picture: str) -> None:
        """picture: path template of the query's picture or clip, with {path}."""
        super().__init__(video=video, prompt=prompt)
        self.picture = picture

    def __call__(self, values: Values) -> list[Values]:
        row = select(values, question="qry_text")
        clips = [_clip(one) for one in objects(values, "candidate_video_list")]
        right = [clips[number] for number in _numbers(values, len(clips))]
        videos = sorted({video for video, _ in right})
        if len(videos) != 1:
            raise RowError(f"gt_indices are clips of {len(videos)} videos; they must be of one")
        picture = values.get("qry_img_path") or values.get("qry_video_path")
        row |= {
            "task": self._kind(values),
            "evidence": [span for _, span in right],
            "candidates": sorted(span for video, span in clips if video == videos[0]),
        }
        if picture:
            row["picture"] = self.picture.format(path=str(picture))
        return [row | self._files({"video": videos[0]})]

    def _kind(self, values: Values) -> str:
        """What the query is made of, as a task."""
        if not is_empty(values.get("qry_img_path")):
            return "text and image"
        return "text" if is_empty(values.get("qry_video_path")) else "text and clip"


def _clip(candidate: Values) -> tuple[str, Seconds]:
    """The video of a clip, and its start and end in seconds."""
    path = PurePosixPath(str(candidate.get("output_path", "")))
    times = _CLIP.fullmatch(path.stem)
    if times is None or not path.parent.name:
        raise RowError(
            f"output_path={str(path)!r} of a candidate is no clip, such as video/0.00_3.00.mp4"
        )
    return path.parent.name, [float(times[1]), float(times[2])]


def _numbers(values: Values, count: int) -> list[int]:
    """The numbers of the right clips."""
    found = values.get("gt_indices")
    if not isinstance(found, list) or not found:
        raise RowError(f"gt_indices={found!r} is no list of numbers")
    for number in found:
        if type(number) is not int or not 0 <= number < count:
            raise RowError(f"gt_indices holds {number!r}, which is none of the {count} candidates")
    return found
