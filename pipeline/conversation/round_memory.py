"""The newest rounds of all clients: what their answers cited, which a chat request does not repeat.

A client sends the texts of earlier rounds again. The spans and frames behind an answer are found
here by the video and both texts. What was forgotten, or answered by another process, has its texts
alone.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from encoders.models.backbone import VideoModel
from pipeline.conversation.history import MAX_ROUNDS, History
from pipeline.conversation.rewriter import Rewriter
from pipeline.conversation.round import Round
from pipeline.schema import Answer

_MOST = 4096  # rounds; the least recently used one is forgotten first

Texts = tuple[str, str]  # of the user and of the assistant


class RoundMemory:
    """Threads: any."""

    def __init__(
        self,
        backbone: VideoModel,
        *,
        history_tokens: int = 0,
        tell_rounds: int = 0,
        rewriter: Rewriter | None = None,
    ) -> None:
        """As `History`, whose UserError it raises."""
        self._backbone, self._bounds = backbone, (history_tokens, tell_rounds)
        self._rewriter = rewriter
        # by video, words of the client, and answer
        self._rounds: OrderedDict[tuple[str, str, str], Round] = OrderedDict()
        self._lock = threading.Lock()
        self.history("", ())

    @property
    def is_read(self) -> bool:
        """Whether a model reads something of earlier rounds."""
        return any(self._bounds)

    def add(self, video_id: str, asked: str, answer: Answer) -> None:
        """Remember a complete answer. asked: the words of the client."""
        key = video_id, asked, answer.text
        with self._lock:
            self._rounds[key] = Round.of(answer)
            self._rounds.move_to_end(key)
            while len(self._rounds) > _MOST:
                self._rounds.popitem(last=False)

    def history(self, video_id: str, texts: Sequence[Texts]) -> History:
        """The history of a conversation about a video. texts: of its rounds, in order."""
        history = History(self._backbone, *self._bounds, self._rewriter)
        for asked, answered in texts[-MAX_ROUNDS:]:
            history.add(self._find(video_id, asked, answered) or Round(asked, answered, (), ()))
        return history

    def _find(self, video_id: str, asked: str, answered: str) -> Round | None:
        # behind an answer stand its citations, where the client wanted them in the text
        alone = answered.rpartition("\n\n")[0]
        with self._lock:
            keys = [(video_id, asked, text) for text in (answered, alone)]
            return next((self._rounds[key] for key in keys if key in self._rounds), None)
