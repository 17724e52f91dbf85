"""Weights that a training starts from: a safetensors file, its notes, and how it is laid into a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from retigrade.errors import UsageError
from retigrade.files import write_whole
from retigrade.training.warm_start import BundleWeights, present_name


@dataclass(frozen=True, slots=True)
class StartingWeights:
    """A file of weights and its notes; `architecture` and `input` of the notes are kept when they are saved again."""

    path: Path
    notes: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> StartingWeights:
        """Read the notes; UsageError where the file is neither a safetensors file nor a bundle that can be used."""
        if path.suffix == ".onnx":
            return cls(path, BundleWeights(path).notes)
        try:
            with safe_open(path, "pt") as file:
                return cls(path, dict(file.metadata() or {}))
        except (OSError, SafetensorError) as error:
            raise UsageError(f"cannot read the weights {path}: need a safetensors file") from error

    @property
    def origin(self) -> str:
        """Where they come from, in words."""
        return self.notes.get("origin", self.path.name)

    @property
    def same_padding(self) -> bool:
        """Whether the network was trained with TensorFlow's padding."""
        return "pad_type='same'" in self.notes.get("architecture", "")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor in the file."""
        with safe_open(self.path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)

    def load_into(self, network: nn.Module, backbone: nn.Module) -> None:
        """Lay the weights into a whole network of ours where they are one, else into its backbone.

        Raises UsageError where fewer than half of the backbone's tensors fit.
        """
        if self.path.suffix == ".onnx":
            BundleWeights(self.path).load_into(network)
            return
        with safe_open(self.path, "pt") as file:
            state: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if "classify.weight" in state:
            try:
                own = network.state_dict()
                fresh = {name: value for name, value in own.items() if name.startswith("lesion_heads.")}
                network.load_state_dict(fresh | {present_name(name): value for name, value in state.items()})
            except RuntimeError as error:
                raise UsageError(
                    f"{self.path.name} is a network of another backbone or recipe; give weights of the same network"
                ) from error
            return
        own = backbone.state_dict()
        fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
        if len(fitting) < len(own) // 2:
            raise UsageError(
                f"{self.path.name} holds {len(fitting)} of the {len(own)} tensors of this backbone; "
                "give weights of the same network, in timm's layout"
            )
        backbone.load_state_dict(fitting, strict=False)


def write_weights(path: Path, network: nn.Module, *, notes: Mapping[str, str], without: str | None = None) -> None:
    """Write a network's weights as safetensors, with notes beside them, whole or not at all.

    without: leave out tensors whose names begin so.
    """
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in network.state_dict().items()
        if without is None or not name.startswith(without)
    }
    write_whole(path, save(state, metadata={"format": "pt", **notes}))


def colour_statistics(described: str, usual: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of colours in 0..1 that weights were trained with: as their file says, else as timm does."""
    if "x/127.5-1" in described:
        return (0.5,) * 3, (0.5,) * 3
    numbers = [float(number) for number in re.findall(r"\.\d+", described)]
    if "mean" in described and "std" in described and len(numbers) == 6:
        return numbers[:3], numbers[3:]
    return usual["mean"], usual["std"]
