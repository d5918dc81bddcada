"""Every command of `reelbank`: one entry each. To add a command, add an entry to COMMANDS.

Imports nothing that a command needs: help and completion answer at once.
"""

from dataclasses import replace

from pipeline.cli.command import Command, Option, Slot

# task -> module:function; the function takes the settings of the task and returns its exit code
TASKS = {
    "ask": "pipeline.commands.ask:run",
    "ingest": "pipeline.commands.ingest:run",
    "batch": "pipeline.batch.command:run",
    "find": "pipeline.commands.find:run",
    "summary": "pipeline.commands.summary:run",
    "watch": "pipeline.watch.command:run",
    "import": "pipeline.commands.files.records:run",
    "clip": "pipeline.commands.files.clip:run",
    "sheet": "pipeline.commands.files.sheet:run",
    "export": "pipeline.commands.files.export:run",
    "bank": "pipeline.commands.bank:run",
    "needle": "pipeline.evaluation.needle.command:run",
    "serve": "pipeline.resident.served:run",
    "mcp": "pipeline.agents.command:run",
    "demo": "pipeline.demo.command:run",
    "bench": "pipeline.evaluation.speed.command:run",
    "backbones": "pipeline.commands.backbones:run",
    "pull": "pipeline.commands.machine.pull:run",
    "doctor": "pipeline.commands.machine.doctor:run",
}

BANK = Option(
    ("-b", "--bank"),
    "bank",
    "folder of the bank (default: REELBANK_BANK, or ~/.local/share/reelbank)",
    metavar="DIR",
    is_path=True,
    once="works with one bank",
)
# of the commands that only read
BANKS = replace(
    BANK,
    help=f"{BANK.help}; given again: banks of one model that are read as one",
    more="also_banks",
    once="",
)
JSON = Option(("--json",), "format=json", "print JSON, and nothing else, on stdout")
FPS = Option(("--fps",), "fps", "frames sampled per second of video (default: 1)", metavar="N")
MODEL = Option(
    ("-m", "--model"),
    "backbone",
    "a video-LLM by its name in `reelbank models`, or the address of a server",
    metavar="NAME",
    group="backbone",
)
MODEL_NAME = Option(
    ("--model-name",),
    "backbone.model",
    "the model at the address of --model",
    metavar="NAME",
    needs="backbone=endpoint",
    remedy="names a model at an address; give that too, as in --model http://localhost:8000/v1",
)
ANSWER = Option(
    ("-a", "--answer"),
    "answer",
    "how a question is answered: retrieve (default), route, map_reduce, or another of conf/answer",
    metavar="STRATEGY",
    group="answer",
)
RESIDENT = Option(
    ("--resident",), "resident", "keep the models loaded for ten minutes, for the next command"
)
START = Option(("--start",), "start", "first second: 90, 1:30 or 0:01:30", metavar="TIME")
END = Option(("--end",), "end", "second at which to stop", metavar="TIME")
AT = Option(
    ("--at",), "asked_at", "second of the question; nothing after it counts", metavar="TIME"
)
VIDEO = Option(("--video",), "video", "a film, in place of FILM", metavar="FILM", is_path=True)
OUT = Option(("--out",), "out", "folder of the results; -o DIR does as well", "DIR", is_path=True)
PORT = Option(("--port",), "port", "port to listen at; 0 is any free one", metavar="N")
CLIPS = Option(
    ("--clips",), "clips", "folder that gets a clip of each moment, and their list", "DIR",
    is_path=True,
)  # fmt: skip
EXACT_CLIPS = Option(
    ("--exact",), "exact_clips=true", "clips begin and end with the moment, not at keyframes"
)
EXPORT = Option(
    ("--export",), "export", "file of the moments: .csv, .json, .vtt, .edl, .otio, .fcpxml, .jpg",
    "FILE", is_path=True,
)  # fmt: skip
HOST = Option(("--host",), "host", "address to listen at", metavar="HOST")

FILM = Slot("FILM", "video", "a video file", is_film=True)
FILMS = replace(FILM, help="one video file or several", more="also")

_FILMS, _MANY, _MODELS = "Your films", "Many films, and programs", "Models and measurements"

_NAME = Slot("NAME", "backbone", "one model alone", is_optional=True, group="backbone")

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(
            "ask",
            "answer a question about a film, and say where in the film it shows",
            'reelbank ask talk.mp4 "What was the total?"',
            task="ask",
            slots=(
                FILMS,
                Slot("QUESTION", "question", "the question", is_optional=True, is_text=True),
            ),
            options=(
                BANKS,
                Option(("--all",), "video=*", "ask about all films of the bank, in place of FILM"),
                MODEL, MODEL_NAME, ANSWER, FPS, AT, START, END, VIDEO,
                Option(("--clip",), "clips=.", "write a clip of each moment to this folder"),
                CLIPS, EXACT_CLIPS, EXPORT, RESIDENT, JSON,
            ),
            details="A film that the bank does not have yet is encoded first. "
            'Without a question, a prompt opens. `ask a.mp4 b.mp4 "QUESTION"` asks about both. '
            "With --all, most strategies search all films first; caption and chain read one film "
            "after another, 64 at most.",
            heading=_FILMS,
        ),
        Command(
            "find",
            "find where something is said, written or shown, or what looks alike",
            'reelbank find talk.mp4 "the slide with the budget"',
            task="find",
            slots=(
                Slot(
                    "FILM", "video", "a video file or several, or the id of a video",
                    is_optional=True, is_film=True, implies="encode=true", more="also",
                ),
                Slot("QUERY", "query", "what to find; one word is always the query", is_text=True),
            ),
            options=(
                BANKS,
                Option(("--image",), "image", "a picture, or a short clip, that moments look like",
                       "FILE", is_path=True, closes="query"),
                Option(("--like",), "like", "a moment that others look like: FILM@0:31, "
                       "FILM@0:31-0:45, or @2", "MOMENT", closes="query"),
                Option(("--and",), "query", "words beside --image or --like", "WORDS"),
                Option(("-k", "--top"), "top", "moments in the result (default: 10)", "N"),
                MODEL, MODEL_NAME, FPS, AT, START, END, VIDEO, CLIPS, EXACT_CLIPS, EXPORT,
                RESIDENT, JSON,
            ),
            details="`find QUERY` searches the whole bank, `find FILM... QUERY` these films. "
            "A film that the bank does not have yet is encoded first.",
            heading=_FILMS,
        ),
        Command(
            "summary",
            "chapters of a film, and a summary whose every sentence names its moment",
            "reelbank summary talk.mp4 -o report.html",
            task="summary",
            slots=(
                Slot("FILM", "video", "a video file, or the id of a video", is_optional=True,
                     is_film=True),
                Slot("WHEN", "when", 'words of time, such as "in the first half"',
                     is_optional=True, is_text=True),
            ),
            options=(
                Option(("--out",), "out", "file of the report, .html or .md; -o FILE does as well",
                       "FILE", is_path=True),
                Option(("--chapters",), "chapters", "file of the chapters: .vtt, .ffmeta or .txt",
                       "FILE", is_path=True),
                Option(("--when",), "when", "words of time, such as yesterday", "WORDS"),
                Option(("--query",), "query", "words to find; the moments are the chapters",
                       "WORDS"),
                BANKS, MODEL, MODEL_NAME, FPS, START, END, VIDEO, JSON,
            ),
            details="A film that the bank does not have yet is encoded first. Without FILM, "
            "--when or --query chooses among all videos of the bank.",
            heading=_FILMS,
        ),
        Command(
            "clip",
            "cut a moment out of a film: a file of its own, a GIF or a WebP",
            "reelbank clip talk.mp4 0:31-0:45 -o budget.mp4",
            task="clip",
            slots=(
                Slot("FILM", "video", "a video file, or @2: hit 2 of the last find or ask",
                     is_film=True),
                Slot("SPAN", "span", "the moment, such as 0:31-0:45", is_optional=True,
                     is_text=True),
            ),
            options=(
                Option(("--out",), "out", "file to write, .mp4, .mov, .mkv, .gif or .webp; "
                       "-o FILE does as well", "FILE", is_path=True),
                Option(("--exact",), "exact=true",
                       "begin and end with the moment, not at keyframes"),
                Option(("--widen",), "widen", "seconds of context on each side", "N"),
                Option(("-f", "--overwrite"), "overwrite=true", "replace a file that is there"),
                Option(("--fps",), "fps", "pictures per second of a .gif or .webp (default: 10)",
                       "N"),
                JSON,
            ),
            details="Nothing is encoded again, so a clip begins at the keyframe before the "
            "moment; --exact encodes the pictures up to the next one.",
            heading=_FILMS,
        ),
        Command(
            "sheet",
            "a contact sheet: pictures of a film, or of the hits, with their times",
            "reelbank sheet talk.mp4 -o talk.jpg",
            task="sheet",
            slots=(
                Slot("FILM", "video", "a video file, or @: the hits of the last find or ask",
                     is_film=True),
            ),
            options=(
                Option(("--out",), "out", "file to write, .jpg, .png or .webp; -o FILE does as "
                       "well", "FILE", is_path=True),
                Option(("--count",), "count", "pictures of a film (default: 24)", "N"),
                Option(("--columns",), "columns", "pictures in a row (default: 4)", "N"),
                START, END, JSON,
            ),
            details="The film is cut where its pictures change most. No bank is needed.",
            heading=_FILMS,
        ),
        Command(
            "export",
            "the hits of the last find or ask as a table or a timeline",
            "reelbank export -o hits.edl",
            task="export",
            options=(
                Option(("--out",), "out", "file to write, .csv, .json, .vtt, .edl, .otio, .fcpxml "
                       "or .jpg; -o FILE does as well", "FILE", is_path=True),
                JSON,
            ),
            details="`find --export FILE` and `ask --export FILE` write the same at once.",
            heading=_FILMS,
        ),
        Command(
            "add",
            "encode films into the bank; resumes where it stopped",
            "reelbank add *.mp4 --bank films",
            task="ingest",
            slots=(Slot("FILM", "video", "video files", is_film=True, many=True),),
            options=(BANK, MODEL, MODEL_NAME, FPS, START, END, JSON),
            heading=_FILMS,
        ),
        Command(
            "watch",
            "take up the films of a folder as they come, one line each",
            "reelbank watch recordings --bank films",
            task="watch",
            slots=(Slot("DIR", "folder", "the folder"),),
            options=(
                BANK, MODEL, MODEL_NAME, FPS,
                Option(("--settle",), "settle", "seconds for which a film must stand still", "N"),
                Option(("--drop",), "deleted=drop", "a film that is deleted leaves the bank too"),
                Option(("--once",), "once=true", "end when all films that are there are taken up"),
            ),
            details="Films that are still copied are left until they stand still. Films that fail "
            "are told once and tried again. It may be killed at any time.",
            heading=_FILMS,
        ),
        Command(
            "import",
            "take over what a detector, OCR or a recogniser found in a film",
            "reelbank import talk.mp4 boxes.jsonl --bank films",
            task="import",
            slots=(
                Slot("FILM", "video", "a film of the bank, or the id of a video", is_film=True),
                Slot("FILE", "file", "JSON, JSONL, COCO's or Whisper's JSON, .vtt or .srt",
                     is_film=True),
            ),
            options=(
                BANK,
                Option(("--kind",), "kind", "of rows that name none: detection, ocr or speech",
                       "KIND"),
                Option(("--score",), "min_score",
                       "least score of a row (default: 0.5 for detections, 0 for words)", "N"),
                Option(("--fps",), "frame_rate", "frames per second, where rows count frames",
                       "N"),
                Option(("--name",), "name", "of the records in the bank (default: the file's)",
                       "NAME"),
                Option(("--remove",), "remove=true", "remove what was imported under this name"),
                JSON,
            ),
            details="All rows are imported, or none. Importing a file again replaces what it "
            "wrote before.",
            heading=_FILMS,
        ),
        Command(
            "ingest",
            "the same as add",
            "reelbank ingest talk.mp4 --bank films",
            task="ingest",
            slots=(Slot("FILM", "video", "video files", is_film=True, many=True),),
            options=(BANK, MODEL, MODEL_NAME, FPS, START, END, VIDEO, JSON),
        ),
        Command(
            "bank",
            "look after a bank: ls, verify, prune, compact or repair",
            "reelbank bank ls --bank films",
            task="bank",
            slots=(
                Slot(
                    "ACTION", "action", "ls, verify, prune, compact or repair (default: ls)",
                    is_optional=True, choices=("ls", "verify", "prune", "compact", "repair"),
                ),
                Slot("FILM", "video", "one video by its file or id", is_optional=True,
                     is_film=True),
            ),
            options=(
                BANK, START, END,
                Option(("--since",), "since", "ls: segments from this moment on", "MOMENT"),
                Option(("--until",), "until", "ls: segments before this moment", "MOMENT"),
                Option(("--older-than",), "older_than",
                       "prune, compact: what is older, such as 7d", "AGE"),
                Option(("--max-bytes",), "max_bytes", "prune: down to a size, such as 10GB",
                       "SIZE"),
                Option(("-n", "--dry-run"), "dry_run=true",
                       "prune, compact: only say what it would do"),
                VIDEO, JSON,
            ),
            heading=_FILMS,
        ),
        Command(
            "batch",
            "many questions about many films, from a file; resumes",
            "reelbank batch jobs.jsonl -o answers",
            task="batch",
            slots=(
                Slot("JOBS", "jobs", "questions: JSONL, JSON, CSV, TSV or Parquet",
                     is_optional=True, is_film=True),
            ),
            options=(OUT, BANKS, MODEL, MODEL_NAME, FPS, JSON),
            details="action=compare and action=join runs=[A,B] work on finished runs.",
            heading=_MANY,
        ),
        Command(
            "prompt",
            "the prompt, also for the lines of a script",
            "reelbank prompt talk.mp4 < questions.txt",
            function="pipeline.cli.prompt:run_command",
            slots=(replace(FILM, is_optional=True),),
            options=(BANKS, MODEL, MODEL_NAME, FPS),
            details="Each line is a question, or a command such as /find WORDS; /help lists them.",
            heading=_FILMS,
        ),
        Command(
            "serve",
            "answer over HTTP as OpenAI's API does",
            "reelbank serve --port 8321",
            task="serve",
            options=(BANKS, MODEL, MODEL_NAME, FPS, HOST, PORT),
            heading=_MANY,
        ),
        Command(
            "mcp",
            "tools for agents, over the Model Context Protocol",
            "reelbank mcp --root films --clips clips",
            task="mcp",
            options=(
                BANK, MODEL, MODEL_NAME, ANSWER, FPS,
                Option(("--root",), "root", "folder whose films may be added; may be repeated",
                       "DIR", is_path=True, more="also_roots"),
                Option(("--clips",), "clips", "folder that gets the clips", "DIR", is_path=True),
                Option(("--http",), "transport=http", "listen at an address, in place of stdio"),
                HOST, PORT,
            ),
            details="Without --root, clients see the films of the bank alone. A key of "
            "REELBANK_API_KEY is asked for over --http.",
            heading=_MANY,
        ),
        Command(
            "skill",
            "a SKILL.md that teaches an agent these commands",
            "reelbank skill -o .claude/skills/reelbank/SKILL.md",
            function="pipeline.agents.skill:run",
            options=(
                Option(("-o", "--out"), "out", "file to write, in place of stdout", "FILE",
                       is_path=True),
            ),
            heading=_MANY,
        ),
        Command(
            "demo",
            "serve, with its page opened: films, live streams, and questions",
            "reelbank demo --port 7860",
            task="demo",
            options=(BANKS, MODEL, MODEL_NAME, FPS, HOST, PORT),
            heading=_MANY,
        ),
        Command(
            "models",
            "the models to choose from, and what an hour of film costs",
            "reelbank models qwen3_vl_2b",
            task="backbones",
            slots=(_NAME,),
            options=(FPS, JSON),
            heading=_MODELS,
        ),
        Command(
            "backbones",
            "the same as models",
            "reelbank backbones",
            task="backbones",
            slots=(_NAME,),
            options=(FPS, JSON),
        ),
        Command(
            "pull",
            "fetch a model; says its size first, and resumes",
            "reelbank pull qwen3_vl_2b",
            task="pull",
            slots=(
                Slot("NAME", "name", "a name in `reelbank models`, b32 for pictures, or ORG/NAME"),
            ),
            options=(
                Option(("-y", "--yes"), "yes=true", "do not ask, however large it is"), JSON,
            ),
            heading=_MODELS,
        ),
        Command(
            "resident",
            "the process that `--resident` leaves behind: status or stop",
            "reelbank resident stop",
            function="pipeline.resident.control:run",
            slots=(
                Slot(
                    "ACTION", "action", "status or stop (default: status)", is_optional=True,
                    choices=("status", "stop"),
                ),
            ),
            options=(BANK,),
            details="It ends by itself ten minutes after the last command.",
        ),
        Command(
            "keys",
            "the keys of a server: make one, list them, or revoke one",
            "reelbank keys add laptop --rights ask,add",
            function="pipeline.server.access.control:run",
            slots=(
                Slot("ACTION", "action", "ls, add or revoke (default: ls)", is_optional=True,
                     choices=("ls", "add", "revoke")),
                Slot("NAME", "name", "of the key", is_optional=True),
            ),
            options=(
                BANK,
                Option(("--keys",), "keys", "file of the keys (default: BANK-keys.json)", "FILE",
                       is_path=True),
                Option(("--rights",), "rights", "ask, add, delete or admin, with commas between "
                       "(default: ask)", "LIST"),
                Option(("--banks",), "banks", "folders of the banks that it may see, with commas "
                       "between (default: all of the server)", "LIST"),
                Option(("--rate",), "rate", "requests a minute (default: no limit)", "N"),
                JSON,
            ),
            details="The key is shown once; the file keeps its SHA-256. A server that runs takes "
            "changes up with the next request.",
            heading=_MANY,
        ),
        Command(
            "doctor",
            "what is installed, what this machine has, and which models fit it",
            "reelbank doctor",
            task="doctor",
            options=(BANK, JSON),
            heading=_MODELS,
        ),
        Command(
            "needle",
            "needle benchmark: make films, ask, score, report; resumes",
            "reelbank needle small -o runs/needle",
            task="needle",
            slots=(
                Slot("PRESET", "preset", "smoke, small, tasks, methods, or another of conf/preset",
                     is_optional=True, group="preset"),
            ),
            options=(OUT, MODEL, MODEL_NAME, FPS, JSON),
            heading=_MODELS,
        ),
        Command(
            "bench",
            "speed beside transformers alone, and of the parts of a bank",
            "reelbank bench smoke -o runs/bench",
            task="bench",
            slots=(
                Slot("PRESET", "bench_preset", "embedded, store, small or smoke",
                     is_optional=True, group="bench_preset"),
            ),
            options=(OUT, VIDEO, MODEL, MODEL_NAME, FPS, JSON),
            heading=_MODELS,
        ),
    )
}  # fmt: skip
