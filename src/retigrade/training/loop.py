"""The training loop: one straight pass after another, saved after each, resumable to the same result."""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.data.crop_matching import CropMatching
from retigrade.errors import UsageError
from retigrade.icdr import GRADES
from retigrade.metrics.classification import accuracy, quadratic_kappa
from retigrade.metrics.decision import softmax
from retigrade.training.augment import apply, draw
from retigrade.training.cpu import fast_arithmetic, keep_memory
from retigrade.training.dataset import TrainingData, order, sampling_weights
from retigrade.training.losses import loss_of, optimizer_of, schedule_of
from retigrade.training.network import Network
from retigrade.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
_SLOW_START = 10  # steps after which the moving average forgets as slowly as the recipe says


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the log: number from 1, mean training loss, validation accuracy and kappa, seconds."""

    epoch: int
    loss: float
    accuracy: float
    kappa: float
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained network in evaluation mode on its device, its log, and the epoch that it stands at."""

    network: Network
    history: tuple[Epoch, ...]
    epoch: int


class Progress(Protocol):
    """Told how a training goes."""

    def step(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        """Hear of one step's running mean loss."""

    def epoch(self, done: Epoch) -> None:
        """Hear of one pass."""


def open_fabric(*, accelerator: str = "auto") -> Fabric:
    """Return the device to train on, calculating in bfloat16; under torchrun, this process's share of all."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    machines = int(os.environ.get("WORLD_SIZE", "1")) // here
    # Some backbones carry layers that the pooled head passes by.
    strategy = "ddp_find_unused_parameters_true" if here * machines > 1 else "auto"
    fabric = Fabric(
        accelerator=accelerator, devices=here, num_nodes=machines, strategy=strategy, precision="bf16-mixed"
    )
    if fabric.device.type == "cpu":
        keep_memory()
    fabric.launch()
    return fabric


def fit(
    lesson: TrainingData,
    recipe: Recipe,
    *,
    backbone: str,
    weights: Path | None,
    seed: int,
    fabric: Fabric,
    folder: Path,
    start: bool = True,
    progress: Progress | None = None,
    pick: Literal["last", "best"] = "last",
) -> Fitted:
    """Train to the recipe's last epoch, from the checkpoint in `folder` if there is one.

    weights, start: as for `Network`. pick: the network after the last epoch, or at the best validation kappa.
    Raises UsageError where the checkpoint is of another network, recipe, seed or data set, or cannot be written.
    """
    run = Run(lesson, recipe, backbone=backbone, weights=weights, start=start, seed=seed, fabric=fabric)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        run.resume(checkpoint)
    while len(run.history) < recipe.epochs:
        done = run.epoch(progress)
        run.save(checkpoint)
        if progress:
            progress.epoch(done)
    network = run.network_at(pick)
    network.eval()
    return Fitted(network, tuple(run.history), run.best_epoch if pick == "best" else len(run.history))


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


class Run:
    """One training under way: network, moving average, optimizer, schedule and log."""

    @fast_arithmetic()  # here already, for the threads that start here keep it
    def __init__(
        self,
        lesson: TrainingData,
        recipe: Recipe,
        *,
        backbone: str,
        weights: Path | None,
        seed: int,
        fabric: Fabric,
        start: bool = True,
    ) -> None:
        """Arguments as for `fit`."""
        torch.manual_seed(seed)
        self.lesson, self.recipe, self.backbone, self.seed, self.fabric = lesson, recipe, backbone, seed, fabric
        network = Network(backbone, dropout=recipe.dropout, fine=recipe.fine > 0, weights=weights, start=start)
        network = network.to(memory_format=torch.channels_last)
        self.steps = max(1, len(lesson.train) // recipe.batch)
        self.network, self.optimizer = fabric.setup(network, optimizer_of(network, recipe))
        self.schedule = schedule_of(self.optimizer, recipe, self.steps)
        self.average = copy.deepcopy(self._plain).eval() if recipe.average else None
        own_grades = lesson.grades[lesson.train]
        photos = (lesson.photos[i] for i in lesson.train)
        self.crop_matching = CropMatching.of_photos(photos, own_grades) if recipe.cuts else None
        self.sampling_weights = sampling_weights(lesson, recipe)
        self.history: list[Epoch] = []
        self._best: dict[str, Tensor] = {}
        # On a GPU the photographs live in its memory, and every batch is cut, turned and coloured there.
        self.held = torch.from_numpy(lesson.photos[:]).to(fabric.device) if fabric.device.type == "cuda" else None

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the highest validation kappa; the first of equals."""
        return 1 + max(range(len(self.history)), key=lambda number: (self.history[number].kappa, -number))

    def network_at(self, pick: Literal["last", "best"]) -> Network:
        """The network to grade with: the averaged one where there is an average."""
        network = self.average if self.average is not None else self._plain
        if pick == "best":
            network.load_state_dict(self._best)
        return network

    @fast_arithmetic()
    def epoch(self, progress: Progress | None = None) -> Epoch:
        """Train for one pass and validate."""
        started, number, recipe = perf_counter(), len(self.history), self.recipe
        torch.manual_seed(self.seed * 100_003 + number)
        rng = np.random.default_rng([self.seed, number])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        size = recipe.small_size if number < recipe.small_share * recipe.epochs else recipe.size
        drawn = order(self.sampling_weights, draws=self.steps * recipe.batch, rng=rng)
        self.network.train()
        total = torch.zeros((), device=self.fabric.device)
        for step in range(self.steps):
            positions = drawn[step * recipe.batch : (step + 1) * recipe.batch]
            x, targets = self.batch(positions, size=size, rng=rng, generator=generator)
            loss = loss_of(self.network(x), targets, recipe)
            self.fabric.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.schedule.step()
            self._move_average()
            total += loss.detach()
            if progress and (step % 10 == 0 or step + 1 == self.steps):  # reading the loss waits for the device
                progress.step(epoch=number + 1, step=step + 1, steps=self.steps, loss=float(total) / (step + 1))
        mean = cast(Tensor, self.fabric.all_reduce(total, reduce_op="mean"))
        self.history.append(self._validated(number + 1, float(mean) / self.steps, started))
        if self.best_epoch == number + 1:
            self._best = {name: value.clone() for name, value in self.network_at("last").state_dict().items()}
        return self.history[-1]

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically; raises UsageError where it cannot be written."""
        state = {
            "identity": self._identity(),
            "network": self._plain.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best": self._best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
        }
        if self.fabric.is_global_zero:
            part = path.with_suffix(".tmp")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save(state, part)
                part.replace(path)
            except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
                with suppress(OSError):
                    part.unlink()
                raise UsageError(f"cannot write the checkpoint {path}: {error}; make room, then --resume") from error
        self.fabric.barrier()

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint; raises UsageError where it is damaged or of another run."""
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.fabric.device, weights_only=True)
            found = state["identity"]
        except (OSError, RuntimeError, KeyError, EOFError, ValueError) as error:
            raise UsageError(f"cannot read the checkpoint {path}; delete it to start again") from error
        for key, own in self._identity().items():
            if found.get(key) != own:
                raise UsageError(f"{path} is of another {key}: {found.get(key)}, this run has {own}; use another --out")
        self._plain.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self._best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    @property
    def _plain(self) -> Network:
        module = self.network.module
        found: Network = module if isinstance(module, Network) else module.module  # the latter among several processes
        return found

    def batch(
        self, positions: Integers, *, size: int, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """This process's share of a batch; all draw for the whole batch, so that their number changes nothing."""
        lesson, device = self.lesson, self.fabric.device
        cut = self.crop_matching.draw(positions, rng) if self.crop_matching else np.zeros((len(positions), 2))
        drawn = draw(torch.from_numpy(cut).float(), self.recipe.strength, generator)
        share = slice(self.fabric.global_rank, None, self.fabric.world_size)
        indices = lesson.train[positions][share]
        if self.held is not None:
            photos = self.held[torch.from_numpy(indices).to(device)]
        else:
            photos = torch.from_numpy(lesson.photos[indices])
        x = apply(photos, drawn.share(share).to(device), size=size)
        return x, torch.from_numpy(lesson.targets[indices]).to(device)

    def _validated(self, number: int, loss: float, started: float) -> Epoch:
        lesson = self.lesson
        logits = predict(self.network_at("last"), lesson.photos, lesson.validation, fabric=self.fabric)
        predicted, target = softmax(logits).argmax(axis=1), lesson.grades[lesson.validation]
        kappa = quadratic_kappa(target, predicted)
        # A constant answer to photographs of one grade has no kappa; it is no better than chance.
        return Epoch(
            number, loss, accuracy(target, predicted), 0.0 if np.isnan(kappa) else kappa, perf_counter() - started
        )

    def _move_average(self) -> None:
        if self.average is None:
            return
        done = self.schedule.last_epoch
        decay = min(self.recipe.average, (1 + done) / (_SLOW_START + done))
        with torch.no_grad():
            pairs = zip(self.average.state_dict().values(), self._plain.state_dict().values(), strict=True)
            for mean, value in pairs:
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)

    def _identity(self) -> dict[str, str]:
        own = {"backbone": self.backbone, "recipe": repr(self.recipe), "data set": self.lesson.fingerprint}
        return {**own, "seed": str(self.seed)}
