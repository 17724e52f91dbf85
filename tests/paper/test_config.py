from __future__ import annotations

from typing import Any

import pytest

from retigrade.errors import UsageError
from retigrade.paper.config import (
    ExperimentConfig,
    Preparation,
    Protocol,
    TrainingRun,
    printed_name,
    recipe_for,
    spread,
)

NETWORKS = ("mobilenetv2_100", "resnetv2_50", "vgg16")


def settings(**changes: Any) -> ExperimentConfig:
    plain: dict[str, Any] = {
        "networks": NETWORKS,
        "folds": (3, 3, 3),
        "epochs": (100, 100, 100),
        "preparations": tuple(Preparation),
        "protocols": tuple(Protocol),
    }
    return ExperimentConfig(**(plain | changes))


def test_the_whole_protocol_is_nine_trainings_a_preparation_and_three_honest_ones() -> None:
    jobs = settings().runs()
    assert len({job.name for job in jobs}) == len(jobs) == 3 * 3 * 2 + 3
    honest = [job for job in jobs if job.protocol is Protocol.HONEST]
    assert {(job.network, job.preparation) for job in honest} == {("mobilenetv2_100", Preparation.COLOUR)}
    assert not any(job.protocol is Protocol.LEAKING for job in jobs)  # it judges what published trains
    assert settings().shortfalls({}) == ()


def test_what_compares_the_protocols_is_trained_first_and_the_other_preparation_last() -> None:
    jobs = [(job.preparation, job.network, job.protocol) for job in settings(folds=(1, 1, 1)).runs()]
    colour, gaussian = Preparation.COLOUR, Preparation.GAUSSIAN
    assert jobs[:2] == [(colour, NETWORKS[0], Protocol.PUBLISHED), (colour, NETWORKS[0], Protocol.HONEST)]
    assert jobs[2:] == [
        *((colour, network, Protocol.PUBLISHED) for network in NETWORKS[1:]),
        *((gaussian, network, Protocol.PUBLISHED) for network in NETWORKS),
    ]


def test_leaking_alone_trains_what_it_judges_and_honest_alone_no_more() -> None:
    assert {job.protocol for job in settings(protocols=(Protocol.LEAKING,)).runs()} == {Protocol.PUBLISHED}
    assert {job.protocol for job in settings(protocols=(Protocol.HONEST,)).runs()} == {Protocol.HONEST}


def test_folds_and_epochs_may_differ_by_network() -> None:
    jobs = settings(folds=(3, 1, 1), epochs=(12, 2, 1), protocols=(Protocol.PUBLISHED,)).runs()
    counts = {network: sum(job.network == network for job in jobs) for network in NETWORKS}
    assert counts == {"mobilenetv2_100": 6, "resnetv2_50": 2, "vgg16": 2}
    assert {job.epochs for job in jobs if job.network == "vgg16"} == {1}


def test_what_is_scaled_down_is_said() -> None:
    less = settings(
        networks=("mobilenetv2_100", "resnetv2_50"),
        folds=(3, 1),
        epochs=(12, 100),
        preparations=(Preparation.COLOUR,),
        protocols=(Protocol.PUBLISHED,),
        size=128,
    )
    assert less.shortfalls({"resnetv2_50": "random weights"}) == (
        "MobileNetV2 with 12 of 100 epochs",
        "ResNet50V2 with 1 of 3 folds from random weights",
        "without VGG-16",
        "not gaussian nor leaking nor honest",
        "at 128 of 224 pixels",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"networks": (), "folds": (), "epochs": ()}, "--networks"),
        ({"networks": ("vgg16",) * 3}, "--networks"),
        ({"preparations": ()}, "--preparation "),
        ({"folds": (3, 3)}, "--folds needs one number, or one for each of the 3 networks; got 2"),
        ({"folds": (3, 0, 3)}, "--folds must be 1 or more, got 0"),
        ({"epochs": (0, 1, 1)}, "--epochs must be 1 or more, got 0"),
        ({"size": 8}, "--size must be 32 or more, got 8"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings(**changes)


def test_one_number_is_for_all() -> None:
    assert spread((5,), NETWORKS) == (5, 5, 5)
    assert spread((1, 2, 3), NETWORKS) == (1, 2, 3)


def test_the_recipe_is_table_3_and_only_the_honest_one_is_cut() -> None:
    job = TrainingRun(protocol=Protocol.PUBLISHED, preparation=Preparation.COLOUR, network="vgg16", fold=1, epochs=7)
    recipe = recipe_for(job, size=64)
    assert (recipe.batch, recipe.lr, recipe.optimizer, recipe.epochs) == (20, 1e-4, "adam", 7)
    assert (recipe.class_balance, recipe.size, recipe.small_size, recipe.match_crops) == (1.0, 64, 64, False)
    honest = TrainingRun(protocol=Protocol.HONEST, preparation=Preparation.COLOUR, network="resnet18", fold=1, epochs=7)
    assert recipe_for(honest, size=64).match_crops
    assert recipe_for(honest, size=64).batch == 32
    assert printed_name("vgg16") == "VGG-16"
    assert printed_name("resnet18") == "resnet18"
