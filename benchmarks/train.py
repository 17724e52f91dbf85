"""A whole training step with augmentation, MobileNetV2 at 224 pixels in batches of 32, against Keras on TensorFlow.

    pip install '.[train]' -r benchmarks/requirements.txt
    python benchmarks/train.py

Also the data pipeline: an epoch against the same steps on one constant batch.
"""

from __future__ import annotations

import os

import numpy as np
import torch

from retigrade.training.cpu import fast_arithmetic
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.device import open_fabric
from retigrade.training.loop import Start, Trainer
from retigrade.training.losses import training_loss
from retigrade.training.recipe import BEST
from timing import in_turn, machine, show

BATCH, SIZE = 32, 224


def main() -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (4 * BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    grades = np.arange(len(photos)) % 5
    ours, constant = our_steps(photos, grades)
    seconds = in_turn(
        {"Retigrade": ours, "Retigrade, one constant batch": constant, "Keras": keras_step(photos, grades)}, rounds=8
    )
    print(machine())
    show(seconds)
    print(f"Keras / Retigrade: {seconds['Keras'] / seconds['Retigrade']:.2f}")
    print(f"step / step on a constant batch: {seconds['Retigrade'] / seconds['Retigrade, one constant batch']:.3f}")


def our_steps(photos, grades):
    data = TrainingData(
        photos=photos,
        grades=grades,
        targets=soft_targets(grades, (), label_smoothing=0.06),
        subsets=np.zeros(len(photos), np.int64),
        rejected=np.zeros(len(photos), bool),
        train=np.arange(len(photos)),
        validation=np.arange(BATCH),
        fingerprint="drawn",
    )
    start = Start(backbone="mobilenetv2_100", pretrained=False, seed=0)
    run = Trainer(data, BEST, start, fabric=open_fabric())
    run.network.train()
    generator = torch.Generator().manual_seed(0)
    positions = np.arange(BATCH)
    x, targets = run.batch(positions, size=SIZE, rng=np.random.default_rng(0), generator=generator)

    @fast_arithmetic()
    def learn(x, targets):
        run.fabric.backward(training_loss(run.network(x), targets, BEST))
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)

    def step():
        learn(*run.batch(positions, size=SIZE, rng=np.random.default_rng(0), generator=generator))

    return step, lambda: learn(x, targets)


def keras_step(photos, grades):
    """What a Keras user would write: the same augmentation as layers, float32, train_on_batch."""
    import keras
    from keras import layers

    augment = keras.Sequential(
        [
            layers.RandomRotation(0.5),
            layers.RandomZoom(0.1),
            layers.RandomTranslation(0.03, 0.03),
            layers.RandomFlip(),
            layers.RandomBrightness(0.3, value_range=(0, 255)),
            layers.RandomContrast(0.25),
        ]
    )
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), pooling="avg")
    inputs = layers.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(augment(inputs))
    model = keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.Dropout(0.2)(base(x))))
    model.compile(optimizer=keras.optimizers.AdamW(5e-4), loss="sparse_categorical_crossentropy")
    batch, target = photos[:BATCH].astype(np.float32), grades[:BATCH]
    return lambda: model.train_on_batch(batch, target)


if __name__ == "__main__":
    main()
