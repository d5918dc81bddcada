"""The models and the opened banks of one engine, each loaded when it is first needed, and kept."""

import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from pipeline.engine_parts.engine_settings import EngineSettings

if TYPE_CHECKING:
    from encoders.schema import DualEncoder
    from memory.bank import MemoryBank
    from memory.schema import Retriever
    from pipeline.build import AnyModel
    from pipeline.ingest.ingester import Ingester
    from pipeline.qa import VideoQA


class LoadedParts:
    """Backbone, encoder and answers, embedder of frames, and the bank to look at.

    Threads: any. Every property raises UserError once the parts are closed.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self._is_closed = False
        self._backbone: AnyModel | None = None
        # what adds films to a bank that encodes on demand: a model without its weights
        self._shell: AnyModel | None = None
        self._indexer: VideoQA | None = None
        self._qa: VideoQA | None = None
        self._clip: DualEncoder | None = None
        self._plain: MemoryBank | None = None  # to look at; it searches nothing

    def refuse_closed(self) -> None:
        """UserError once the parts are closed."""
        if self._is_closed:
            raise UserError(f"bank {self.settings.bank} was closed; open it again")

    def close(self) -> None:
        """Save the indexes and free the models."""
        with self.lock:
            self._is_closed = True
            banks = [self._plain] if self._plain is not None else []
            banks += [self._qa.bank] if self._qa is not None else []
            banks += [self._indexer.bank] if self._indexer is not None else []
            for bank in banks:
                bank.close()
            self._plain, self._qa, self._backbone = None, None, None
            self._shell = self._indexer = None

    @property
    def backbone(self) -> "AnyModel":
        """The video-LLM; loaded at the first use."""
        with self.lock:
            self.refuse_closed()
            if self._backbone is None:
                from pipeline.build import build_backbone

                self._backbone = build_backbone(self.settings.asking)
            return self._backbone

    @property
    def qa(self) -> "VideoQA":
        """Encoder and answers over the bank, which is made if it is not there."""
        with self.lock:
            self.refuse_closed()
            if self._qa is None:
                from pipeline.build import build_qa
                from pipeline.frame_embedder import build_clip

                settings = self.settings.asking
                # the embedded model has an embedder of its own, whatever a search found with
                is_own = settings.backbone.get("questions") is not None
                backbone = self.backbone
                if is_own or self._clip is None:
                    self._clip = build_clip(settings)
                self._qa = build_qa(settings, backbone, self._clip)
                settle_collector()
            return self._qa

    @property
    def adding_model(self) -> "AnyModel":
        """The model that films are added with. A bank that encodes on demand needs none of its
        weights for that, unless they are loaded anyway."""
        from pipeline.config.checks import is_endpoint
        from pipeline.config.on_demand import encodes_on_demand
        from pipeline.config.tasks.pipeline_settings import AT_ONCE

        with self.lock:
            self.refuse_closed()
            settings = self.settings.asking
            needs_weights = settings.visual_tokens == AT_ONCE or is_endpoint(settings.backbone)
            if self._backbone is not None or needs_weights or not encodes_on_demand(settings):
                return self.backbone
            if self._shell is None:
                from pipeline.build import build_backbone

                self._shell = build_backbone(settings, weights=False)
            return self._shell

    @property
    def ingester(self) -> "Ingester":
        """What adds films."""
        with self.lock:
            model = self.adding_model
            if model is self._backbone:
                return self.qa.ingester
            if self._indexer is None:
                from pipeline.build import build_qa

                self._indexer = build_qa(self.settings.asking, model)
                settle_collector()
            return self._indexer.ingester

    @property
    def reader(self) -> "MemoryBank":
        """The bank, to look at. UserError if it is not there."""
        with self.lock:
            self.refuse_closed()
            if self._qa is not None:
                return self._qa.bank
            if self._indexer is not None:
                return self._indexer.bank
            if self._plain is None:
                from memory.retrieval.uniform import UniformRetriever

                self._plain = self.open(UniformRetriever())
            return self._plain

    def open(self, retriever: "Retriever") -> "MemoryBank":
        """The bank once more, which searches with this retriever and is never written."""
        from memory.union.bank_union import open_banks

        return open_banks(self.settings.roots, None, retriever, recent_frames=0, create=False)

    def is_there(self) -> bool:
        """Whether the folder of the bank has anything in it. Several must be there."""
        roots = self.settings.roots
        folder = Path(roots[0])
        is_empty = folder.is_dir() and not any(folder.iterdir())
        return len(roots) > 1 or (folder.exists() and not is_empty)

    def search_clip(self, recorded: object) -> "DualEncoder":
        """The primary frame embedder of searches. recorded: fingerprint of the bank's own one."""
        from pipeline.frame_embedder import build_clip

        if self._clip is None or self._clip.fingerprint() != recorded:
            self._clip = build_clip(self.settings.finding)
        return self._clip


def settle_collector() -> None:
    """Where a command switched the collector off to import faster: what was loaded stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
