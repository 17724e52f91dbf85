"""`python -m retigrade.synthetic FOLDER` writes the built-in eyes into FOLDER."""

import sys
from pathlib import Path

from retigrade.synthetic.demo import write_demo

if len(sys.argv) != 2:
    sys.exit("usage: python -m retigrade.synthetic FOLDER")
write_demo(Path(sys.argv[1]))
