"""A finder of few layers learns what microaneurysms look like, from annotated photographs and from a teacher's maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retigrade.errors import UsageError
from retigrade.metrics.classification import auroc
from retigrade.training.device import open_fabric
from retigrade.training.finder import ARCHITECTURE, Finder, fit_finder
from retigrade.training.lesion_maps import SIDE, find_lesions
from retigrade.training.segmentation import Annotated
from retigrade.training.weights import StartingWeights


def dotted(numbers: range) -> Annotated:
    """Smooth grounds with dark dots of 5 pixels, which are lesions, and light ones, which are not."""
    photos, masks = [], []
    for number in numbers:
        rng = np.random.default_rng(number)
        photo = np.full((SIDE, SIDE, 3), rng.integers(110, 150, 3), np.uint8)
        mask = np.zeros((SIDE, SIDE, 1), np.uint8)
        for place, (top, left) in enumerate(rng.integers(40, SIDE - 40, (80, 2))):
            here = np.s_[top : top + 5, left : left + 5]
            photo[here] = photo[here] - 45 if place % 2 else photo[here] + 45
            mask[here] = 255 * (place % 2)
        photos.append(photo)
        masks.append(mask)
    taken = np.stack(photos)
    return Annotated(taken, np.stack(masks), taken[:0])


def test_a_saved_finder_answers_alike_in_cells_of_eight_pixels(tmp_path: Path) -> None:
    torch.manual_seed(1)
    finder, file, x = Finder().eval(), tmp_path / "finder.safetensors", torch.rand(2, 3, 96, 96) * 255
    finder.save(file)
    assert finder(x).shape == (2, 1, 12, 12)
    assert torch.equal(Finder.read(file)(x), finder(x))
    assert StartingWeights.open(file).notes["architecture"] == ARCHITECTURE


def test_other_weights_are_refused_in_a_sentence(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"classify.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="is no microaneurysm finder of this version; teach it anew"):
        Finder.read(tmp_path / "other.safetensors")


@pytest.mark.slow
def test_it_learns_to_tell_dark_dots_from_light_ones() -> None:
    fabric, unseen = open_fabric(accelerator="cpu"), dotted(range(20, 22))
    finder = fit_finder(dotted(range(4)), dotted(range(4, 10)), steps=150, seed=1, fabric=fabric)
    found = find_lesions(finder, unseen.photos, fabric=fabric)[..., 0]
    cells = SIDE // found.shape[1]
    truth = unseen.masks.reshape(2, found.shape[1], cells, found.shape[2], cells).max((2, 4)) > 0
    assert auroc(found[truth | (found > 0)].astype(float), truth[truth | (found > 0)]) > 0.8
    assert auroc(found.ravel().astype(float), truth.ravel()) > 0.95
