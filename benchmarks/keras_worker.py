"""A Keras user's program that does as it is told on standard input; run by the Python that has Keras (see page.py).

`one` and `batch` predict, `decode PATH` and `pipeline PATH` read a photograph as the publication's stack does. Each
answers with the seconds that it took.
"""

import os
import resource
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
from PIL import Image

model = keras.applications.MobileNetV2(weights=None, classes=5)
one, batch = np.zeros((1, 224, 224, 3), "float32"), np.zeros((32, 224, 224, 3), "float32")


def decode(path):
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB").resize((224, 224)), "float32")[None] / 127.5 - 1


for line in sys.stdin:
    command, _, path = line.strip().partition(" ")
    started = time.perf_counter()
    if command == "one":
        model.predict(one, verbose=0)
    elif command == "call":
        np.asarray(model(one, training=False))
    elif command == "batch":
        model.predict(batch, verbose=0)
    elif command == "decode":
        decode(path)
    elif command == "pipeline":
        model.predict(decode(path), verbose=0)
    elif command == "memory":
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
        continue
    print(time.perf_counter() - started, flush=True)
