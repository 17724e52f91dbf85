"""A network beside finders, networks that find lesions in photos of twice its size, whose finds are counted.

Stages are defined by lesions: by microaneurysms alone, by how many haemorrhages there are (Wilkinson et al.,
"Proposed International Clinical Diabetic Retinopathy and Diabetic Macular Edema Disease Severity Scales",
Ophthalmology 2003). What a network makes of a whole eye is of the cameras and clinics that it learned from; a count is
less so. What is small is seen at twice the size, at many times the cost.

Ten lesions more matter where there are few and not where there are many, so evidence grows with the logarithm of the
count. It is laid out over the places that were counted, each having its share, so that its map is exact: the mean over
all places is what is added to the logits.

A photograph that was enlarged shows nothing more at twice the size, and that no microaneurysm is seen there says
nothing. So counts are evidence as far as there is fine detail.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from retigrade.arrays import Floats, Pixels, Reals
from retigrade.errors import UsageError
from retigrade.icdr import GRADES
from retigrade.training.cells import Detail, cells_of
from retigrade.training.finder import Finder
from retigrade.training.network import Network, NetworkOutput
from retigrade.training.segmentation import SegmentationNetwork, lesions_in_cells

ENLARGED = 2
"""How many times as large as the network's the photos are that lesions are found in."""
_SURE = (0.3, 0.6)  # how surely a lesion is in a cell that is counted


def lesion_counts(maps: Pixels) -> Floats:
    """What is counted in maps of k kinds of lesions, uint8 (n, s, s, k), of 255: float32 (n, 3 k).

    Of each kind the sum of probabilities over cells, then the cells where one is likely, then where it is more so; of
    all the logarithm of one more.
    """
    cells = maps.reshape(len(maps), -1, maps.shape[-1]).astype(np.float32) / 255
    counts = [here.sum(axis=1, dtype=np.float32) for here in (cells, *(cells > sure for sure in _SURE))]
    return np.asarray(np.log1p(np.concatenate(counts, axis=1)), np.float32)


def counted(kinds: int) -> int:
    """How many numbers `lesion_counts` gives of so many kinds of lesions."""
    return kinds * (1 + len(_SURE))


def shares_of_count(here: Tensor) -> Tensor:
    """Each place's share of the logarithm of one more than the count, which is their mean: (N, k, s, s).

    here: how much of a lesion of each kind is at each place, 0..1, (N, k, s, s).
    """
    number = here.sum((2, 3), keepdim=True)
    places = here.shape[2] * here.shape[3]
    return here * (places * number.log1p() / number.clamp(min=1e-6))


class CountingNetwork(nn.Module):
    """Photos, float (N, 3, 2 S, 2 S) of 0..255 RGB, to the `NetworkOutput` of a network of S with lesions counted."""

    def __init__(
        self,
        network: Network,
        finders: Sequence[Finder | SegmentationNetwork],
        *,
        kinds: Sequence[str],
        receptive_field_offset: tuple[float, float],
    ) -> None:
        """finders: at least one; the mean of what they count is taken. kinds: of lesions, that are counted.

        receptive_field_offset: of the network's maps, as its bundle says; that of the whole is the middle, (0.5, 0.5).
        The network itself takes photos of that size from now on. Counts are no evidence yet. Raises UsageError where a
        finder does not know one of the kinds, and as `Network.halve_photos` does.
        """
        super().__init__()
        network.halve_photos()
        self.network, self.finders = network, nn.ModuleList(finders)
        self._kinds = [places_of(kinds, known=finder.kinds) for finder in finders]
        self._offset = receptive_field_offset
        self._detail: Detail | None = None
        self.classify = nn.Conv2d(counted(len(kinds)), len(GRADES), 1)
        self.weigh(np.zeros((len(GRADES), counted(len(kinds)) + 1)))

    def weigh(self, weights: Reals, detail: Detail | None = None) -> None:
        """Set how much evidence for each grade counts are, and in the last column its offset: (5, 3 k + 1).

        detail: where it is given, they are evidence as far as a photo is likely not to have been enlarged.
        """
        given = torch.from_numpy(weights).float()
        with torch.no_grad():
            self.classify.weight.copy_(given[:, :-1, None, None])
            self.get_parameter("classify.bias").copy_(given[:, -1])
        self._detail = detail

    def forward(self, photos: Tensor) -> NetworkOutput:
        """Answer for a batch of photos."""
        output: NetworkOutput = self.network(photos)
        cells, shares = cells_of(photos), []
        for finder, kinds in zip(self.finders, self._kinds, strict=True):
            found = lesions_in_cells(finder, photos, cells.retina)[:, kinds]
            shares.append(shares_of_count(torch.cat([found, *((found > sure).to(found.dtype) for sure in _SURE)], 1)))
        evidence = self.classify(sum(shares[1:], shares[0]) / len(shares))
        if self._detail is not None:
            evidence = evidence * self._detail.likely(cells.fine_detail)[:, None, None, None]
        return output._replace(
            logits=output.logits + evidence.mean((2, 3)),
            maps=placed(output.maps, receptive_field_offset=self._offset, side=evidence.shape[-1]) + evidence,
        )


def placed(maps: Tensor, *, receptive_field_offset: tuple[float, float], side: int) -> Tensor:
    """Evidence, (N, 5, s, s), in cells of another size, each where the network looks; its mean stays.

    receptive_field_offset: where in its cell that is, across and down.
    """
    across, down = (_between(maps.shape[-1], side, offset=offset) for offset in receptive_field_offset)
    moved = down @ maps @ across.T
    return moved + (maps.mean((2, 3)) - moved.mean((2, 3)))[:, :, None, None]


def _between(cells: int, side: int, *, offset: float) -> Tensor:
    """What each cell gives to the middle of each of `side` others by linear interpolation: (side, cells)."""
    place = (torch.arange(side) + 0.5) / side * cells - offset
    return (1 - (place.clamp(0, cells - 1)[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def places_of(kinds: Sequence[str], *, known: Sequence[str]) -> list[int]:
    """Where these kinds of lesions stand among those that are known; UsageError where one does not."""
    if unknown := sorted(set(kinds) - set(known)):
        raise UsageError(f"no lesion is called {unknown[0]!r}: count of {', '.join(map(repr, known))}")
    return [list(known).index(kind) for kind in kinds]
