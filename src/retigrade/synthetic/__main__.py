"""`python -m retigrade.synthetic FOLDER` writes the built-in eyes into FOLDER.

With a number, `python -m retigrade.synthetic FOLDER PHOTOS`, it writes a labelled data set of so many drawn eyes, in
class folders, to try training and measuring on; networks that learn from drawings say nothing about photographs.
Folders of one name get the same eyes, of other names others.
"""

import sys
import zlib
from pathlib import Path

from retigrade.errors import RetigradeError
from retigrade.synthetic import write_eyes, write_labelled_eyes

_, *arguments = sys.argv
if len(arguments) not in (1, 2) or not all(number.isdecimal() for number in arguments[1:]):
    sys.exit("usage: python -m retigrade.synthetic FOLDER [PHOTOS]")
try:
    if len(arguments) == 2:
        folder = Path(arguments[0])
        write_labelled_eyes(folder, photos=int(arguments[1]), seed=zlib.crc32(folder.name.encode()))
    else:
        write_eyes(Path(arguments[0]))
except RetigradeError as error:
    sys.exit(f"retigrade: {error}")
