"""The settings of every task by its name, and how Hydra gets them.

A wrong key or a wrong type is refused before anything loads. Imports no Hydra before it registers
anything, so that the command line knows the keys of a task at once.
"""

import functools
from pathlib import Path

from pipeline.config.settings import Settings
from pipeline.config.tasks.bank_settings import (
    BackbonesSettings,
    BankSettings,
    DoctorSettings,
    PullSettings,
    RepairSettings,
)
from pipeline.config.tasks.evaluation_settings import BatchSettings, BenchSettings, NeedleSettings
from pipeline.config.tasks.file_settings import (
    ClipSettings,
    ExportSettings,
    ImportSettings,
    SheetSettings,
    WatchSettings,
)
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.config.tasks.question_settings import AskSettings, FindSettings, SummarySettings
from pipeline.config.tasks.server_settings import DemoSettings, McpSettings, ServeSettings

# keys of earlier versions, in the tasks that have the new key
RENAMED = {
    "at_once": "batch_size",
    "together": "batch_size",
    "asked": "queries",
    "more_frames": "appended_frames",
    "choice": "option_choice",
}

# keys of earlier versions that have no successor: what to write instead
REMOVED = {("demo", "auth"): "set api_key=, a key that the page asks for"}

WEIGHTS = Path(__file__).parents[1] / "embedded" / "weights"

# by the name of conf/NAME.yaml; `reelbank bank action=repair` has settings of its own
TASK_SETTINGS: dict[str, type[Settings]] = {
    "ask": AskSettings,
    "ingest": IngestSettings,
    "bank": BankSettings,
    "find": FindSettings,
    "summary": SummarySettings,
    "watch": WatchSettings,
    "mcp": McpSettings,
    "import": ImportSettings,
    "clip": ClipSettings,
    "export": ExportSettings,
    "sheet": SheetSettings,
    "repair": RepairSettings,
    "backbones": BackbonesSettings,
    "needle": NeedleSettings,
    "batch": BatchSettings,
    "serve": ServeSettings,
    "demo": DemoSettings,
    "bench": BenchSettings,
    "doctor": DoctorSettings,
    "pull": PullSettings,
}


@functools.cache
def register() -> None:
    """Make the ${weights:...} resolver known to OmegaConf; may be called again."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("weights", lambda name: str(WEIGHTS / name), replace=True)


@functools.cache
def register_schema(name: str) -> None:
    """Make the settings that conf/NAME.yaml begins with known to Hydra; may be called again.

    One task at a time: Hydra copies all that it knows whenever it composes, and storing the
    settings of every task takes 0.1 s.
    """
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name=f"{name}_schema", node=TASK_SETTINGS[name])
