"""The settings of tasks that serve: HTTP, the page, and tools for agents."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pipeline.config.settings import Form, PartSettings, mandatory, setting
from pipeline.config.tasks.pipeline_settings import IngestSettings, PipelineSettings
from pipeline.config.tasks.question_settings import _FOLLOW_UP, _HISTORY_TOKENS, _TELL_ROUNDS


class AgentTransport(StrEnum):
    """How `reelbank mcp` and its clients talk."""

    stdio = "stdio"
    http = "http"


@dataclass
class ListenSettings(PipelineSettings):
    """What commands that listen share."""

    answers_questions: ClassVar[bool] = True
    encodes_the_world: ClassVar[bool] = True

    host: str = setting(
        "127.0.0.1",
        "Address to listen at. 0.0.0.0: all addresses, open to everybody who can reach them.",
        heading="Network",
    )
    port: int = setting(8321, "Port to listen at. 0: any free one.")
    names: list[str] = setting(
        [], "Host names of this server for its users, besides localhost and IP addresses."
    )
    files: str = setting("", "Folder of uploaded videos. Empty: BANK-files.", form=Form.PATH)
    hosts: list[str] = setting(
        [], "Hosts from which videos are fetched and streams are taken, such as *.example.org."
    )
    running: int = setting(2, "Questions that are answered at once.", heading="Limits")
    upload_mb: int = setting(4096, "Size limit of one uploaded video, in 10^6 bytes.")
    files_gb: float = setting(50.0, "Size limit of all uploaded videos, in 10^9 bytes.")
    body_seconds: float = setting(600.0, "Seconds that the body of a request may take to arrive.")
    uploads: int = setting(16, "Uploads that may arrive at once.")
    bodies: int = setting(128, "Bodies of other requests that may arrive at once.")
    bodies_mb: int = setting(
        256, "Size limit of all these bodies together, in 10^6 bytes of memory."
    )


@dataclass
class AlertSettings(ListenSettings):
    """What the commands that watch streams share."""

    trigger: PartSettings = mandatory("When an alert asks the model.", heading="Alerts")
    notify: dict[str, PartSettings] = mandatory(
        "Where notices go, by name; several at once, such as notify=[webhook,mqtt]."
    )
    notify_hours: float = setting(
        24.0,
        "Hours for which a notice is tried; then it goes to dead-letters.jsonl in alerts=.",
    )
    alerts: str = setting(
        "", "Folder of alerts and their notices. Empty: BANK-alerts.", form=Form.PATH
    )
    alert_window: float = setting(8.0, "Newest seconds that a check of an alert reads, at most.")
    alert_sure: float = setting(0.85, "Probability that notifies at once.")
    alert_fair: float = setting(0.6, "Probability that notifies when it comes twice in a row.")
    alert_rest: float = setting(
        3.0, "Seconds of a pause that belongs to the same event, which notifies once."
    )


@dataclass
class ServeSettings(AlertSettings):
    """reelbank serve."""

    task: ClassVar[str] = "serve"
    reads_several_banks: ClassVar[bool] = True

    api_key: str = setting(
        "",
        "Key that clients must send. Empty: that of the variable REELBANK_API_KEY, or none.",
        heading="Clients",
    )
    keys: str = setting(
        "",
        "File of named keys (`reelbank keys`). Empty: BANK-keys.json, if it is there.",
        form=Form.PATH,
    )
    audit: str = setting(
        "",
        "File of a line for each request. Empty: BANK-audit.log where keys are required, or none.",
        form=Form.PATH,
    )
    streams: str = setting(
        "", "File of the streams that are watched, such as streams.yaml.", form=Form.PATH
    )
    model: str = setting("reelbank", "Name of the model in the API.")
    whole_bank: bool = setting(
        False,
        "True: a second model, NAME-bank, answers from every video of the bank, whoever brought "
        "it.",
    )
    private: bool = setting(False, "True: videos are also fetched from private addresses.")
    waiting: int = setting(
        16,
        "Questions, and videos, that may wait; further ones are refused with status 429.",
        heading="Limits of requests",
    )
    seconds: float = setting(300.0, "Seconds that a question may take, encoding included.")
    request_mb: int = setting(
        64, "Size limit of a chat request with its base64 videos, in 10^6 bytes."
    )
    letters: int = setting(2000, "Length limit of a question, in characters.")
    answer_tokens: int = setting(
        4096, "Tokens of an answer that a client may ask for (max_tokens), at most."
    )
    history_tokens: int = setting(0, _HISTORY_TOKENS, heading="Conversation")
    tell_rounds: int | None = setting(
        None, f"{_TELL_ROUNDS} null: 8 for a model that reads text, else 0."
    )
    round_tokens: int = setting(
        1024, "Tokens of such rounds, at most; the newest one comes along at any length."
    )
    follow_up: PartSettings = mandatory(_FOLLOW_UP)


@dataclass
class DemoSettings(ServeSettings):
    """reelbank demo: serve, with its page opened."""

    task: ClassVar[str] = "demo"

    port: int = setting(7860, "Port to listen at. 0: any free one.")
    whole_bank: bool = setting(
        True,
        "True: the page shows every video of the bank, whoever brought it, and answers from all "
        "of them.",
    )
    browser: bool = setting(
        True, "True: the page is opened in a browser, where there is a screen.", heading="Page"
    )


@dataclass
class McpSettings(IngestSettings):
    """reelbank mcp."""

    task: ClassVar[str] = "mcp"
    answers_questions: ClassVar[bool] = True

    root: str = setting(
        "",
        "Folder whose films clients may add, links resolved. Empty: none may be added.",
        heading="What clients may reach",
        form=Form.PATH,
    )
    also_roots: list[str] = setting([], "Further folders of such films.", form=Form.PATH)
    clips: str = setting(
        "", "Folder that gets the clips that clients ask for. Empty: none are cut.", form=Form.PATH
    )
    transport: AgentTransport = setting(
        AgentTransport.stdio,
        "stdio: one client, which starts the command. http: many, at an address.",
        heading="Network",
    )
    host: str = setting("127.0.0.1", "Address to listen at. 0.0.0.0: all addresses.")
    port: int = setting(8322, "Port to listen at. 0: any free one.")
    names: list[str] = setting(
        [], "Host names of this server for its users, besides localhost and IP addresses."
    )
    api_key: str = setting(
        "", "Key that clients must send. Empty: that of the variable REELBANK_API_KEY, or none."
    )
    items: int = setting(50, "Moments, spans, or films in one reply, at most.", heading="Limits")
    letters: int = setting(20_000, "Characters of the words in one reply, at most.")
    pixels: int = setting(1280, "Longer side of a picture, at most.")
    clip_seconds: float = setting(600.0, "Seconds of a clip, at most.")
    waiting: int = setting(16, "Calls that may run or wait; further ones are refused.")
