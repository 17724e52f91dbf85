"""The high-resolution head is taught where annotated lesions are, and the grade stays what it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from retigrade.data.annotations import AnnotatedPhoto
from retigrade.errors import UsageError
from retigrade.fundus.decode import Photo
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from retigrade.synthetic.lesions import LESIONS
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.lesion_supervision import prepare_lesions, supervise_lesions, without_eyes_of
from retigrade.training.network import Network

SIZE = 96


def annotated(folder: Path, number: int) -> AnnotatedPhoto:
    eye = draw_eye(grade=Grade.SEVERE, size=200, rng=np.random.default_rng(number))
    path = folder / f"{number}.png"
    cv2.imwrite(str(path), cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    height, width = eye.pixels.shape[:2]
    lesions = np.any([eye.masks[name] for name in LESIONS], axis=0)
    return AnnotatedPhoto(path, Photo(eye.pixels, width, height, digest), lesions)


def training_data(photos: np.ndarray) -> TrainingData:
    grades = 1 + np.arange(len(photos)) % 4
    return TrainingData(
        photos=photos,
        grades=grades,
        targets=soft_targets(grades, (), label_smoothing=0.0),
        subsets=np.zeros(len(photos), np.int64),
        rejected=np.zeros(len(photos), bool),
        train=np.arange(len(photos)),
        validation=np.arange(1),
        fingerprint="drawn",
    )


def test_evidence_moves_into_lesions_and_logits_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.training.lesion_supervision._STEPS", 60)
    torch.manual_seed(0)
    network = Network("test_efficientnet", pretrained=False, high_resolution=True).eval()
    lesions = prepare_lesions([annotated(tmp_path, number) for number in range(4)], size=SIZE)
    assert lesions.photos.shape == (4, SIZE, SIZE, 3)
    assert lesions.lesions.max() == 1
    assert (lesions.margins >= lesions.lesions - 1e-6).all()
    photos = torch.from_numpy(lesions.photos).permute(0, 3, 1, 2).float()

    def inside_and_outside() -> tuple[float, float, torch.Tensor]:
        with torch.inference_mode():
            output = network(photos)
        maps = (output.maps[:, 1:].mean(1) - output.maps[:, 0]).numpy()
        side = maps.shape[1]
        touched = np.stack([cv2.resize(m, (side, side), interpolation=cv2.INTER_AREA) for m in lesions.lesions]) > 0.05
        retina = np.stack([cv2.resize(m, (side, side), interpolation=cv2.INTER_AREA) for m in lesions.retina]) > 0.5
        return float(maps[touched].mean()), float(maps[retina & ~touched].mean()), output.logits

    before_in, before_out, before = inside_and_outside()
    others = {
        name: value.clone()
        for name, value in network.state_dict().items()
        if not name.startswith(("high_resolution.", "classify."))
    }
    supervise_lesions(network, training_data(lesions.photos), lesions, seed=1, device=torch.device("cpu"))
    inside, outside, after = inside_and_outside()
    assert inside - outside > before_in - before_out + 0.5
    assert (after - before).abs().max() < 0.3
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in others.items())
    assert not network.training


def test_the_last_head_takes_back_what_the_taught_one_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retigrade.training.lesion_supervision._STEPS", 40)
    monkeypatch.setattr("retigrade.training.lesion_supervision._PULL", 1e-4)
    lesions = prepare_lesions([annotated(tmp_path, number) for number in range(4)], size=SIZE)
    photos = torch.from_numpy(lesions.photos).permute(0, 3, 1, 2).float()
    moved = []
    for taken_back in (True, False):
        if not taken_back:
            monkeypatch.setattr("retigrade.training.lesion_supervision._take_back", lambda *_, **__: None)
        torch.manual_seed(0)
        network = Network("test_efficientnet", pretrained=False, high_resolution=True).eval()
        with torch.inference_mode():
            before = network(photos).logits
        supervise_lesions(network, training_data(lesions.photos), lesions, seed=1, device=torch.device("cpu"))
        with torch.inference_mode():
            output = network(photos)
        torch.testing.assert_close(output.maps.mean((2, 3)), output.logits, atol=1e-4, rtol=1e-4)
        moved.append(float((output.logits - before).abs().mean()))
    assert moved[0] < 0.2 * moved[1]


def test_an_eye_that_must_stay_unseen_is_left_out(tmp_path: Path) -> None:
    first, second = annotated(tmp_path, 1), annotated(tmp_path, 2)
    copy = tmp_path / "copy.jpg"
    cv2.imwrite(str(copy), cv2.imread(str(first.path)))
    assert without_eyes_of([copy], [first, second]) == [second]
    assert without_eyes_of([], [first, second]) == [first, second]


def test_a_network_without_the_head_is_refused() -> None:
    network = Network("test_efficientnet", pretrained=False)
    with pytest.raises(UsageError, match="needs a high-resolution head"):
        supervise_lesions(network, None, None, seed=0, device=torch.device("cpu"))  # type: ignore[arg-type]
