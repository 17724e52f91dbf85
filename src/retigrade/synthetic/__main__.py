"""`python -m retigrade.synthetic FOLDER` writes the built-in eyes into FOLDER."""

import sys
from pathlib import Path

from retigrade.synthetic import write_eyes

if len(sys.argv) != 2:
    sys.exit("usage: python -m retigrade.synthetic FOLDER")
write_eyes(Path(sys.argv[1]))
