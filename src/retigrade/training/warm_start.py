"""The network of a bundle, taken apart into weights to start another training from.

An exported network has its batch norms folded into the convolutions before them. They are put back here: each gets the
statistics that its inputs have on the photographs to learn from, and the scale and shift that leave the function as it
was. The whole is then compared with the bundle's own answers, so that a network that was laid back wrongly is an error.

Of a bundle that counts lesions it is the network alone, without the counts; its answers are not the bundle's then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from retigrade.arrays import Integers, Pixels
from retigrade.bundle import Bundle, strip
from retigrade.errors import UsageError
from retigrade.training.halving import colours_of, weights_before

_EARLIER_NAMES = (("fine.", "high_resolution."), ("high_resolution.look.", "high_resolution.reduce."))
_FOLDED = "_bias"  # the exporter's ending for the bias that a folded batch norm leaves beside a weight
_PREFIX = "network."
_BESIDE_FINDERS = "network.network."  # of a bundle that counts lesions
_HALF = ".half"  # the ending of weights that are kept as float16
_SQUARES, _CELLS = ".squares.", ".cells."  # of a first convolution that makes photos smaller
_LARGEST_DIFFERENCE = 1e-2  # of logits, relative to the largest; float32 through some fifty layers
_BATCH = 32
_SETTLED = 256  # photos whose statistics the batch norms get


class BundleWeights:
    """The weights of a bundle's network by their names in torch."""

    def __init__(self, path: Path) -> None:
        """Raises BundleError where the bundle cannot be used, UsageError where it is an ensemble."""
        self.path, self.bundle = path, Bundle.load(path)
        model = onnx.load_model_from_string(strip(path.read_bytes()))
        self._arrays = {
            value.name.removesuffix(_HALF): np.asarray(numpy_helper.to_array(value))
            for value in model.graph.initializer
        }
        self._nodes = model.graph.node
        self._counts = any(name.startswith(_BESIDE_FINDERS) for name in self._arrays)
        if any(name.startswith((f"{_PREFIX}networks.", "member0.")) for name in self._arrays):
            raise UsageError(
                f"{path}: is an ensemble; start from one of its members, or from a run's network.safetensors"
            )

    @property
    def notes(self) -> dict[str, str]:
        """What `StartingWeights` reads of a file: origin, padding and scaling of colours, in words."""
        mean, deviation = self._halved_colours() or [self._operand(kind) for kind in ("Sub", "Div")]
        notes = {"origin": f"the bundle {self.bundle.identity}"}
        if self._pads_as_tensorflow():
            notes["architecture"] = "pad_type='same'"
        if np.allclose([*mean, *deviation], 127.5):
            notes["input"] = "x/127.5-1"
        else:
            words = (" ".join(f"{value / 255:.6f}".lstrip("0") for value in values) for values in (mean, deviation))
            notes["input"] = "mean {} std {}".format(*words)
        return notes

    def load_into(self, network: nn.Module) -> None:
        """Lay the weights into a network of the same architecture, batch norms for now without statistics.

        Raises UsageError where a tensor is missing or of another shape.
        """
        arrays = self._named(network)
        followers = batch_norm_after(network, size=self.bundle.metadata.input_size)
        state = network.state_dict()
        filled = {name for name in state if name.endswith("num_batches_tracked")} | {"mean", "deviation"}
        for name in state:
            if name in arrays:
                state[name] = self._fitting(name, arrays[name], state[name])
                filled.add(name)
        for convolution, norm in followers.items():
            weight = arrays.get(f"{convolution}.weight")
            if weight is None:
                continue
            # A bias that is nothing is not exported.
            folded = arrays.get(f"{convolution}.weight{_FOLDED}", np.zeros(len(weight), np.float32))
            epsilon = network.get_submodule(norm).eps
            values: dict[str, float | Tensor] = {"weight": 1.0, "running_mean": 0.0}
            values["bias"] = torch.from_numpy(folded.copy())
            values["running_var"] = 1.0 - float(epsilon)  # type: ignore[arg-type]
            for part, value in values.items():
                key = f"{norm}.{part}"
                state[key] = value if isinstance(value, Tensor) else torch.full_like(state[key], value)
                filled.add(key)
        if missing := sorted(set(state) - filled):
            raise UsageError(
                f"{self.path}: {len(missing)} of {len(state)} tensors of {self.bundle.metadata.backbone} are not in it "
                f"by name, such as {missing[0]}; start from the network.safetensors beside the bundle in its run folder"
            )
        network.load_state_dict(state)

    def settle(self, network: nn.Module, photos: Pixels) -> None:
        """Give the batch norms the statistics of some photos, uint8 (n, S, S, 3), without changing what they answer.

        Raises UsageError where the network answers otherwise than the bundle.
        """
        settle_batch_norms(network, photos)
        own = self.bundle.metadata.input_size
        if self._counts or photos.shape[1] != own:
            return  # there is nothing to compare with
        some = np.ascontiguousarray(photos[:_BATCH])
        expected = self.bundle.run(some).logits
        with torch.inference_mode():
            logits = network.eval()(torch.from_numpy(some).permute(0, 3, 1, 2).float()).logits.float().numpy()
        difference = float(np.abs(logits - expected).max())
        if difference > _LARGEST_DIFFERENCE * max(1.0, float(np.abs(expected).max())):
            raise UsageError(
                f"{self.path}: its network, laid back, answers otherwise by {difference:.2g}; start from the "
                "network.safetensors beside the bundle in its run folder"
            )

    def _named(self, network: nn.Module) -> dict[str, Any]:
        """The arrays by their names in a network; a first convolution that makes photos smaller as it was before."""
        prefix = _BESIDE_FINDERS if self._counts else _PREFIX
        arrays = {present_name(name.removeprefix(prefix)): array for name, array in self._arrays.items()}
        for name in [name for name in arrays if f"{_CELLS}weight" in name]:
            array = arrays.pop(name)
            first, _, ending = name.rpartition(_CELLS)
            convolution = network.get_submodule(first)
            if ending == "weight" and isinstance(convolution, nn.Conv2d):
                array = weights_before(torch.from_numpy(array.astype(np.float32)), convolution).numpy()
            arrays[f"{first}.{ending}"] = array
        return arrays

    def _halved_colours(self) -> list[list[float]] | None:
        """Mean and deviation where the first convolution makes photos smaller."""
        found = {
            name.rpartition(_SQUARES)[2]: torch.from_numpy(value.astype(np.float32))
            for name, value in self._arrays.items()
            if name.startswith(_BESIDE_FINDERS) and _SQUARES in name
        }
        return [each.tolist() for each in colours_of(found["weight"], found["bias"])] if found else None

    def _operand(self, kind: str) -> list[float]:
        """The constants of the first node of a kind: three colours."""
        for node in self._nodes:
            if node.op_type == kind and node.input[1] in self._arrays:
                values = np.asarray(self._arrays[node.input[1]], np.float64).ravel()
                return np.broadcast_to(values, 3).tolist() if values.size in (1, 3) else [float("nan")] * 3
        raise UsageError(f"{self.path}: its network does not scale colours as networks of Retigrade do")

    def _pads_as_tensorflow(self) -> bool:
        """Whether any padding is wider at the end."""
        for node in self._nodes:
            pads = next((list(each.ints) for each in node.attribute if each.name == "pads"), [])
            half = len(pads) // 2
            if node.op_type == "Pad" or any(end > begin for begin, end in zip(pads[:half], pads[half:], strict=True)):
                return True
        return False

    def _fitting(self, name: str, array: Any, own: Tensor) -> Tensor:
        if tuple(array.shape) != tuple(own.shape):
            raise UsageError(
                f"{self.path}: is of another network or recipe: {name} is {tuple(array.shape)}, here {tuple(own.shape)}"
            )
        return torch.from_numpy(array.astype(np.float32))


def settle_from_bundle(network: nn.Module, path: Path, photos: Pixels, train: Integers) -> None:
    """Settle a network that was started from the bundle at `path` on some of the photos that it is to learn from.

    photos: uint8 (N, S, S, 3); train: int64 (n,), their indices. Raises as `BundleWeights.settle`.
    """
    chosen = train[np.linspace(0, len(train) - 1, min(_SETTLED, len(train))).astype(np.int64)]
    BundleWeights(path).settle(network, np.ascontiguousarray(photos[chosen]))


def batch_norm_after(network: nn.Module, *, size: int) -> Mapping[str, str]:
    """The name of the batch norm that reads each convolution's output, by the convolution's name; found by a trial."""
    made: dict[int, str] = {}
    held: list[Tensor] = []  # so that no address is used twice
    followers: dict[str, str] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):

            def remember(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                made[id(output)] = name
                held.append(output)

            hooks.append(module.register_forward_hook(remember))
        elif isinstance(module, nn.BatchNorm2d):

            def recall(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                if id(inputs[0]) in made:
                    followers[made[id(inputs[0])]] = name

            hooks.append(module.register_forward_pre_hook(recall))
    was_training = network.training
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, size, size))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return followers


def settle_batch_norms(network: nn.Module, photos: Pixels) -> None:
    """Set every batch norm's running statistics to those of some photos, and its scale and shift so that in evaluation
    mode the network answers as before; photos: uint8 (n, S, S, 3).
    """
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):

            def watch(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                values = inputs[0].double()
                total, squares = values.sum((0, 2, 3)), values.square().sum((0, 2, 3))
                count = values.numel() // values.shape[1]
                if name in sums:
                    before = sums[name]
                    total, squares, count = total + before[0], squares + before[1], count + before[2]
                sums[name] = (total, squares, count)

            hooks.append(module.register_forward_pre_hook(watch))
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for begin in range(0, len(photos), _BATCH):
            network(torch.from_numpy(photos[begin : begin + _BATCH]).permute(0, 3, 1, 2).float())
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    for name, (total, squares, count) in sums.items():
        norm = network.get_submodule(name)
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
            continue
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(1e-10)
        with torch.no_grad():
            slope = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            offset = norm.bias.double() - slope * norm.running_mean.double()
            norm.weight.copy_(slope * (variance + norm.eps).sqrt())
            norm.bias.copy_(offset + slope * mean)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


def present_name(name: str) -> str:
    """A tensor's name today, of files written before the heads were named by what they are."""
    for earlier, present in _EARLIER_NAMES:
        if name.startswith(earlier):
            name = present + name.removeprefix(earlier)
    return name
