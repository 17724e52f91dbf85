"""One 12-megapixel photograph to grade and map, warm and cold, against Keras on TensorFlow.

    pip install . -r benchmarks/requirements.txt
    python benchmarks/grade.py [PHOTO]

Warm: grading and mapping against its own parts (the scaled decode and one inference), and against Pillow's full
decode followed by a Keras MobileNetV2. Cold: whole processes. Without PHOTO a synthetic eye of 4288 x 2848 is drawn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from retigrade import load
from retigrade.fundus.crop import crop, decode_side
from retigrade.fundus.decode import decode
from retigrade.fundus.field import find_field
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from timing import in_turn, machine, show

KERAS = """
import sys
import numpy as np
from PIL import Image
import keras
model = keras.applications.MobileNetV2(weights=None, classes=5)
photo = np.asarray(Image.open(sys.argv[1]).convert("RGB").resize((224, 224)), "float32")[None] / 127.5 - 1
print(model.predict(photo, verbose=0).argmax())
"""


def main() -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else draw(Path(folder, "eye.jpg"))
        print(machine())
        warm(path)
        cold(path, Path(folder))


def draw(path: Path) -> Path:
    eye = draw_eye(grade=Grade.MODERATE, size=2848, aspect=4288 / 2848, rng=np.random.default_rng(0))
    cv2.imwrite(str(path), cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def warm(path: Path) -> None:
    import keras
    from PIL import Image

    grader = load()
    size = grader.bundle.metadata.input_size
    photo = decode(path, min_side=decode_side(size))
    canonical = crop(photo, find_field(photo), size=size)[None]
    network = keras.applications.MobileNetV2(weights=None, classes=5)

    def keras_predict() -> object:
        with Image.open(path) as opened:
            small = np.asarray(opened.convert("RGB").resize((224, 224)), np.float32)
        return network.predict(small[None] / 127.5 - 1, verbose=0)

    seconds = in_turn(
        {
            "scaled decode": lambda: decode(path, min_side=decode_side(size)),
            "one inference": lambda: grader.bundle.run(canonical),
            "grade": lambda: grader.grade(path, heat=False),
            "grade and map": lambda: grader.grade(path),
            "grade and map in 12 megapixels": lambda: grader.grade(path).heat,
            "Pillow full decode + Keras predict": keras_predict,
        },
        rounds=30,
    )
    print(f"warm, in process: {path.name}, {photo.width} x {photo.height}")
    show(seconds)
    parts = seconds["scaled decode"] + seconds["one inference"]
    print(f"grade and map / (scaled decode + one inference): {seconds['grade and map'] / parts:.2f}")
    print(f"... with the map in every pixel of the photograph: {seconds['grade and map in 12 megapixels'] / parts:.2f}")
    print(f"Keras / grade and map: {seconds['Pillow full decode + Keras predict'] / seconds['grade and map']:.1f}")


def cold(path: Path, folder: Path) -> None:
    script = folder / "with_keras.py"
    script.write_text(KERAS)
    retigrade = Path(sys.executable).with_name("retigrade")

    def call(*command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True)

    seconds = in_turn(
        {
            "retigrade grade one.jpg": lambda: call(retigrade, "grade", path),
            "a script with Keras": lambda: call(sys.executable, script, path),
        },
        rounds=5,
        warm=1,
    )
    print("cold, whole process")
    show(seconds)
    print(f"Keras / retigrade: {seconds['a script with Keras'] / seconds['retigrade grade one.jpg']:.1f}")


if __name__ == "__main__":
    main()
