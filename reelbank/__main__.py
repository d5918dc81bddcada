"""The command `reelbank`, also as `python -m reelbank`.

Importing the package first refuses other packages of our names, with the folder that is in the way.
"""

import reelbank  # noqa: F401
from pipeline.cli import main

if __name__ == "__main__":
    main()
