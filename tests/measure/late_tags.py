"""What time tags of late frames do to answers, without films of many hours.

    .venv/bin/python -m pipeline.cli needle preset=small minutes=[1] films=[24] seed=5 \\
        tasks=[order,count,confuser,retrieve] '~arms.clip' '~arms.rekv' controls=[oracle] \\
        backbone._target_=tests.measure.late_tags.LateTags +backbone.times=300 out=runs/late

Every frame carries a later time than it has. The result is compared with that of times=1. The
backbone knows no question.
"""

from typing import Unpack

from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.models.video_llm import LoadOptions


class LateTags(LlavaOneVision):
    """Tags frames a second apart as if `times` seconds lay between them: 300 makes five hours of a
    minute.
    """

    def __init__(
        self,
        path: str,
        *,
        times: float,
        time_tags: bool = True,
        **options: Unpack[LoadOptions],
    ) -> None:
        super().__init__(path, time_tags=time_tags, **options)
        self.times = times

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        return super().frame_text_ids(start * self.times, end * self.times)

    def fingerprint(self) -> str:
        return f"{super().fingerprint()}-times-{self.times:g}"
