"""Runs commands of one checkout in one process, with one JSON request and one JSON reply a line.

    PYTHONPATH=CHECKOUT python -P tests/support/command_runner.py

Start it by path, as above: of the checkout it knows only `pipeline.cli.main`, which every commit
has. Requests come on stdin, and replies go to stdout. Request: {"folder": working folder,
"arguments": [...]}. Reply: {"code": exit code, "output": stdout, "errors": stderr}. The first reply
has no request: {"package": path of the package that is in use}.
"""

import contextlib
import io
import json
import os
import sys


def main() -> None:
    """Answer requests until stdin ends."""
    import pipeline.cli

    replies = sys.stdout
    print(json.dumps({"package": os.path.dirname(pipeline.__file__)}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        os.chdir(request["folder"])
        output, errors, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                pipeline.cli.main(request["arguments"])
            except SystemExit as end:
                code = int(end.code or 0)
        reply = {"code": code, "output": output.getvalue(), "errors": errors.getvalue()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
