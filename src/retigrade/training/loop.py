"""The training loop: one epoch after another, a checkpoint after each, resumable to the same result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.data.crop_matching import CropMatching
from retigrade.errors import UsageError
from retigrade.icdr import GRADES, Grade
from retigrade.metrics.classification import accuracy, quadratic_kappa
from retigrade.metrics.decision import softmax
from retigrade.training.augment import Draw, Recompression, apply, draw, draw_recompressions, move, recompress
from retigrade.training.checkpoint import CHECKPOINT, check_identity, read_checkpoint, write_checkpoint
from retigrade.training.copy_paste import LesionBank
from retigrade.training.cpu import fast_arithmetic
from retigrade.training.dataset import TrainingData, graded_targets, sample_epoch, sampling_weights
from retigrade.training.log import TrainingLog
from retigrade.training.losses import lesion_loss, training_loss
from retigrade.training.network import Network
from retigrade.training.progress import EpochResult, Progress
from retigrade.training.recipe import Recipe
from retigrade.training.schedule import make_moving_average, make_optimizer, make_schedule
from retigrade.training.warm_start import settle_from_bundle

Pick = Literal["last", "best"]
"""Which network is kept: that after the last epoch, or at the best validation kappa."""
_LOOK_EVERY = 10  # steps; reading the loss waits for the device


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a network starts from: a backbone of timm by name; a file of weights, or without one timm's own or none."""

    backbone: str
    weights: Path | None = None
    pretrained: bool = True
    seed: int = 1


def starting_network(recipe: Recipe, start: Start) -> Network:
    """The network that a training with this recipe starts from; raises as `Network` does."""
    return Network(
        start.backbone,
        dropout=recipe.dropout,
        high_resolution=recipe.high_resolution > 0,
        lesion_heads=recipe.lesions > 0,
        weights=start.weights,
        pretrained=start.pretrained,
        size=recipe.size,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained network in evaluation mode on its device, its log, and the epoch that it stands at."""

    network: Network
    history: tuple[EpochResult, ...]
    epoch: int


def fit(
    data: TrainingData,
    recipe: Recipe,
    start: Start,
    *,
    fabric: Fabric,
    folder: Path,
    progress: Progress,
    pick: Pick = "last",
) -> Fitted:
    """Train to the recipe's last epoch, from the checkpoint in `folder` if there is one, and log each epoch there.

    Raises UsageError where the checkpoint is damaged or of another network, recipe, seed or data set, where it cannot
    be written, and where the loss is no longer a number: then the last good checkpoint is kept.
    """
    trainer = Trainer(data, recipe, start, fabric=fabric)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        trainer.resume(checkpoint)
    with TrainingLog(folder, enabled=fabric.is_global_zero) as log:
        log.write(trainer.history)
        while len(trainer.history) < recipe.epochs:
            result = trainer.epoch(progress)
            trainer.save(checkpoint)
            log.write(trainer.history)
            progress.epoch(result)
    network = trainer.network_at(pick)
    network.eval()
    epoch = trainer.best_epoch if pick == "best" else len(trainer.history)
    return Fitted(network, tuple(trainer.history), epoch)


def predict(network: nn.Module, photos: Pixels, indices: Integers, *, fabric: Fabric, batch: int = 64) -> Floats:
    """Logits of some photographs as grading would see them: float32 (n, 5)."""
    network.eval()
    logits = [np.empty((0, len(GRADES)), np.float32)]
    with torch.inference_mode():
        for begin in range(0, len(indices), batch):
            part = torch.from_numpy(photos[indices[begin : begin + batch]]).to(fabric.device)
            x = part.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)
            logits.append(network(x).logits.float().cpu().numpy())
    return np.concatenate(logits)


class _Batch(NamedTuple):
    """What the CPU makes ready of a batch: indices of its photographs, those changed one by one, and the draw.

    photos: uint8 (n, S, S, 3), on a GPU those at `places` alone, for it holds the others. targets: float32 (n, 5).
    """

    indices: Integers
    targets: Floats
    places: Integers
    photos: Pixels
    drawn: Draw


class _Learned(NamedTuple):
    """A batch on its device: photos and targets, and maps of the lesions, float32 (n, k, s, s), where there are any."""

    x: Tensor
    targets: Tensor
    lesion_maps: Tensor | None


class Trainer:
    """One training under way: network, moving average, optimizer, schedule and log."""

    @fast_arithmetic()  # here already, for the threads that start here keep it
    def __init__(self, data: TrainingData, recipe: Recipe, start: Start, *, fabric: Fabric) -> None:
        """Arguments as for `fit`."""
        torch.manual_seed(start.seed)
        self.data, self.recipe, self.start, self.fabric = data, recipe, start, fabric
        network = starting_network(recipe, start)
        if start.weights is not None and start.weights.suffix == ".onnx":
            settle_from_bundle(network, start.weights, data.photos, data.train)
        if recipe.frozen_stride:
            network.freeze(recipe.frozen_stride)
        network = network.to(memory_format=torch.channels_last)
        self.steps = max(1, len(data.train) // recipe.batch)
        self.network, self.optimizer = fabric.setup(network, make_optimizer(network, recipe))
        self.schedule = make_schedule(self.optimizer, recipe, steps=self.steps)
        self.average = make_moving_average(self._plain, recipe)
        photos = (data.photos[i] for i in data.train)
        self.crop_matching = CropMatching.of_photos(photos, data.grades[data.train]) if recipe.match_crops else None
        self.sampling_weights = sampling_weights(data, recipe)
        if recipe.augmentation.pasted_grades and data.lesions is None:
            raise ValueError(f"the recipe {recipe.name} pastes lesions, and the data have none to paste")
        if recipe.lesions and data.lesion_maps is None:
            raise ValueError(f"the recipe {recipe.name} learns places of lesions, and the data have none")
        self._lesions = data.lesions or LesionBank({})
        self._graded = graded_targets(np.arange(len(GRADES)), label_smoothing=recipe.label_smoothing)
        self.history: list[EpochResult] = []
        self._best: dict[str, Tensor] = {}
        # On a GPU the photographs live in its memory, and every batch is cut, turned and coloured there.
        on_gpu = fabric.device.type == "cuda"
        self._on_gpu = torch.from_numpy(data.photos[:]).to(fabric.device) if on_gpu else None

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the highest validation kappa; the first of equals."""
        return 1 + max(range(len(self.history)), key=lambda number: (self.history[number].kappa, -number))

    def network_at(self, pick: Pick) -> Network:
        """The network to grade with: the averaged one where there is an average."""
        averaged = self._plain if self.average is None else self.average.module
        network: Network = averaged
        if pick == "best":
            network.load_state_dict(self._best)
        return network

    @fast_arithmetic()
    def epoch(self, progress: Progress) -> EpochResult:
        """Train for one epoch and validate; UsageError where the loss is no longer a number."""
        started, number, recipe = perf_counter(), len(self.history), self.recipe
        torch.manual_seed(self.start.seed * 100_003 + number)
        rng = np.random.default_rng([self.start.seed, number])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        size = recipe.small_size if number < recipe.small_share * recipe.epochs else recipe.size
        drawn = sample_epoch(self.sampling_weights, draws=self.steps * recipe.batch, rng=rng)
        self.network.train()
        total = torch.zeros((), device=self.fabric.device)
        batches = self.batches(drawn, size=size, rng=rng, generator=generator)
        for step, batch in enumerate(batches):
            output = self.network(batch.x)
            loss = training_loss(output, batch.targets, recipe)
            if batch.lesion_maps is not None:
                loss = loss + recipe.lesions * lesion_loss(output.lesions, batch.lesion_maps)
            self.fabric.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.schedule.step()
            if self.average is not None:
                self.average.update(self._plain, step=self.schedule.last_epoch)
            total += loss.detach()
            if step % _LOOK_EVERY == 0 or step + 1 == self.steps:
                mean = float(total) / (step + 1)
                self._check_finite(mean, number + 1)
                progress.step(epoch=number + 1, step=step + 1, steps=self.steps, loss=mean)
        over_all = self.fabric.all_reduce(total, reduce_op="mean")
        self.history.append(self._validated(number + 1, float(over_all) / self.steps, started))  # type: ignore[arg-type]
        if self.best_epoch == number + 1:
            self._best = {name: value.clone() for name, value in self.network_at("last").state_dict().items()}
        return self.history[-1]

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically; raises UsageError where it cannot be written."""
        if self.fabric.is_global_zero:
            state = {
                "network": self._plain.state_dict(),
                "average": None if self.average is None else self.average.module.state_dict(),
                "best": self._best,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "history": [asdict(result) for result in self.history],
            }
            write_checkpoint(path, state, identity=self._identity())
        self.fabric.barrier()

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint; raises UsageError where it is damaged or of another run."""
        identity, state = read_checkpoint(path, device=self.fabric.device)
        check_identity(path, identity, expected=self._identity())
        self._plain.load_state_dict(state["network"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self._best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = [EpochResult(**result) for result in state["history"]]

    def batches(
        self, drawn: Integers, *, size: int, rng: np.random.Generator, generator: torch.Generator
    ) -> Iterator[_Learned]:
        """This process's share of each batch; what the CPU does for one is done while the network learns from another.

        drawn: positions among the training photographs, (steps * batch,).
        """
        steps = np.split(drawn, self.steps)
        with ThreadPoolExecutor(max_workers=1) as ahead:  # one, so that what is drawn at random is in order
            ready = ahead.submit(self._make_ready, steps[0], rng, generator)
            for following in (*steps[1:], None):
                batch = ready.result()
                if following is not None:
                    ready = ahead.submit(self._make_ready, following, rng, generator)
                yield self._on_device(batch, size=size)

    def _make_ready(self, positions: Integers, rng: np.random.Generator, generator: torch.Generator) -> _Batch:
        """All processes draw for the whole batch, so that their number changes nothing."""
        cut = self.crop_matching.draw(positions, rng) if self.crop_matching else np.zeros((len(positions), 2))
        drawn = draw(torch.from_numpy(cut).float(), self.recipe.augmentation, generator)
        share = slice(self.fabric.global_rank, None, self.fabric.world_size)
        indices = self.data.train[positions][share]
        changes: dict[int, Recompression] = {}
        pasted: dict[int, Grade] = {}
        augmentation = self.recipe.augmentation
        if augmentation.recompression or augmentation.pasted_grades:
            # A generator of its own, so that what is drawn after it does not depend on the number of processes.
            own = np.random.default_rng([int(rng.integers(2**62)), self.fabric.global_rank])
            changes = {each.place: each for each in draw_recompressions(len(indices), augmentation.recompression, own)}
            pasted = self._draw_pasted(indices, own)
        places = np.array(sorted(changes.keys() | pasted.keys()), np.int64)
        # A GPU holds the photographs already: it is given those alone that were changed.
        photos = self.data.photos[indices if self._on_gpu is None else indices[places]]
        targets = self.data.targets[indices]
        for number, place in enumerate(places.tolist()):
            here = place if self._on_gpu is None else number
            if place in pasted:
                side = None if self.data.sides is None else int(self.data.sides[indices[place]])
                photos[here] = self._lesions.paste(photos[here], pasted[place], own, side=side)
                targets[place] = self._graded[pasted[place]]
            if place in changes:
                photos[here] = recompress(photos[here], changes[place])
        return _Batch(indices, targets, places, photos, drawn.rows(share))

    def _draw_pasted(self, indices: Integers, rng: np.random.Generator) -> dict[int, Grade]:
        """Draw which healthy photographs of a batch are given lesions: their places, and the grades that these make."""
        shares = self.recipe.augmentation.pasted_grades
        drawn = np.searchsorted(np.cumsum(list(shares.values())), rng.random(len(indices)), side="right")
        given = (drawn < len(shares)) & (self.data.grades[indices] == Grade.NONE)
        return {place: tuple(shares)[drawn[place]] for place in np.flatnonzero(given).tolist()}

    def _on_device(self, batch: _Batch, *, size: int) -> _Learned:
        device, photos = self.fabric.device, torch.from_numpy(batch.photos)
        if self._on_gpu is not None:
            changed, photos = photos, self._on_gpu[torch.from_numpy(batch.indices).to(device)]
            photos[torch.from_numpy(batch.places).to(device)] = changed.to(device)
        drawn = batch.drawn.to(device)
        maps = None
        if self.data.lesion_maps is not None and self.recipe.lesions:
            found = torch.from_numpy(self.data.lesion_maps[batch.indices]).to(device)
            maps = move(found, drawn, size=found.shape[1])
        return _Learned(apply(photos, drawn, size=size), torch.from_numpy(batch.targets).to(device), maps)

    @property
    def _plain(self) -> Network:
        module = self.network.module
        plain: Network = module if isinstance(module, Network) else module.module  # the latter among several processes
        return plain

    def _validated(self, number: int, loss: float, started: float) -> EpochResult:
        data = self.data
        if not len(data.validation):  # a network that learns from all photographs
            return EpochResult(number, loss, math.nan, math.nan, perf_counter() - started)
        logits = predict(self.network_at("last"), data.photos, data.validation, fabric=self.fabric)
        self._check_finite(float(logits.sum()), number)
        predicted, target = softmax(logits).argmax(axis=1), data.grades[data.validation]
        kappa = quadratic_kappa(target, predicted)
        # A constant answer to photographs of one grade has no kappa; it is no better than chance.
        kappa = 0.0 if np.isnan(kappa) else kappa
        return EpochResult(number, loss, accuracy(target, predicted), kappa, perf_counter() - started)

    def _check_finite(self, value: float, epoch: int) -> None:
        if not math.isfinite(value):
            kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "no epoch was finished"
            raise UsageError(
                f"the loss is not a number in epoch {epoch}; training stopped and {kept}: "
                f"try a lower learning rate in another --out, such as --lr {self.recipe.lr / 10:g}"
            )

    def _identity(self) -> dict[str, str]:
        return {
            "backbone": self.start.backbone,
            "recipe": repr(self.recipe),
            "data set": self.data.fingerprint,
            "seed": str(self.start.seed),
        }
