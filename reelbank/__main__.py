"""`python -m reelbank`: the same as the command `reelbank`."""

import reelbank  # noqa: F401  refuses other packages of our names first
from pipeline.cli import main

if __name__ == "__main__":
    main()
