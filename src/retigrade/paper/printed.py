"""What the publication printed: its Tables 1-4 and the figures in its text, as data and unchanged.

Stages run from grade 0 to 4. Nothing here is computed or corrected; `retigrade.paper.audit` does the sums.
"""

from __future__ import annotations

from dataclasses import dataclass

PerGrade = tuple[int, int, int, int, int]
Network = str

STAGES = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate DR")
NETWORKS: tuple[Network, ...] = ("MobileNetV2", "ResNet50V2", "VGG-16")


@dataclass(frozen=True, slots=True)
class DataTable:
    """Table 1: photographs of each stage by part."""

    training: PerGrade
    validation: PerGrade
    testing: PerGrade
    total: PerGrade


TABLE_1 = DataTable(
    training=(1805, 370, 999, 193, 295),
    validation=(302, 187, 256, 104, 115),
    testing=(302, 187, 256, 104, 115),
    total=(2409, 744, 1511, 401, 525),
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of Table 2.

    kind: as printed. filter: height, width, then channels (in and out, or one for a depthwise layer); of a fully
    connected layer, in and out; of pooling, height and width. input: height, width, channels. repeats: the printed
    "5x" stands before the first of the two rows that it covers.
    """

    kind: str
    stride: int
    filter: tuple[int, ...]
    input: tuple[int, int, int]
    repeats: int = 1


TABLE_2 = (
    Layer("Conv", 2, (3, 3, 3, 32), (224, 224, 3)),
    Layer("Conv dw", 1, (3, 3, 32), (112, 112, 32)),
    Layer("Conv", 1, (1, 1, 32, 64), (112, 112, 32)),
    Layer("Conv dw", 2, (3, 3, 64), (112, 112, 64)),
    Layer("Conv", 1, (1, 1, 64, 128), (56, 56, 64)),
    Layer("Conv dw", 1, (3, 3, 128), (56, 56, 128)),
    Layer("Conv", 1, (1, 1, 128, 128), (56, 56, 128)),
    Layer("Conv dw", 2, (3, 3, 128), (56, 56, 128)),
    Layer("Conv", 1, (1, 1, 128, 256), (28, 28, 128)),
    Layer("Conv dw", 1, (3, 3, 256), (28, 28, 256)),
    Layer("Conv", 1, (1, 1, 256, 256), (28, 28, 256)),
    Layer("Conv dw", 2, (3, 3, 256), (28, 28, 256)),
    Layer("Conv", 1, (1, 1, 256, 512), (14, 14, 256)),
    Layer("Conv dw", 1, (3, 3, 512), (14, 14, 512), repeats=5),
    Layer("Conv", 1, (1, 1, 512, 512), (14, 14, 512), repeats=5),
    Layer("Conv dw", 2, (3, 3, 512), (14, 14, 512)),
    Layer("Conv", 1, (1, 1, 512, 1024), (7, 7, 512)),
    Layer("Conv dw", 2, (3, 3, 1024), (7, 7, 1024)),
    Layer("Conv", 1, (1, 1, 1024, 1024), (7, 7, 1024)),
    Layer("Avg Pool", 1, (7, 7), (7, 7, 1024)),
    Layer("FC", 1, (1024, 1000), (5, 5, 1024)),
    Layer("Softmax", 1, (), (5, 5, 1024)),
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row of Table 3: a training parameter and its value for each of `NETWORKS`; empty where none is printed."""

    name: str
    values: tuple[str, str, str]


TABLE_3 = (
    Parameter("Input shape", ("224 x 224 x 3", "224 x 224 x 3", "224 x 224 x 3")),
    Parameter("Batch size", ("32", "20", "20")),
    Parameter("Learning Rate", ("1e-4", "1e-4", "1e-4")),
    Parameter("Optimizer", ("Adam", "Adam", "Adam")),
    Parameter("Loss function", ("Cross Entropy", "Cross Entropy", "Cross Entropy")),
    Parameter("Epoch", ("100", "100", "100")),
    Parameter("Rescale", ("1/255", "1/255", "1/255")),
    Parameter("Horizontal flipping", ("", "Yes", "Yes")),
)


@dataclass(frozen=True, slots=True)
class PrintedScore:
    """One row of Table 4, as fractions with two decimals."""

    fold: int
    network: Network
    precision: float
    recall: float
    f1: float
    support: int


TABLE_4 = (
    PrintedScore(1, "MobileNetV2", 0.94, 0.91, 0.91, 2674),
    PrintedScore(1, "ResNet50V2", 0.88, 0.88, 0.87, 2674),
    PrintedScore(1, "VGG-16", 0.89, 0.88, 0.89, 2674),
    PrintedScore(2, "MobileNetV2", 0.93, 0.91, 0.89, 2674),
    PrintedScore(2, "ResNet50V2", 0.89, 0.89, 0.88, 2674),
    PrintedScore(2, "VGG-16", 0.90, 0.87, 0.88, 2674),
    PrintedScore(3, "MobileNetV2", 0.94, 0.93, 0.92, 2674),
    PrintedScore(3, "ResNet50V2", 0.87, 0.88, 0.85, 2674),
    PrintedScore(3, "VGG-16", 0.88, 0.84, 0.85, 2674),
)


@dataclass(frozen=True, slots=True)
class Average:
    """What section 4 quotes as one network's average over the folds, in whole per cent."""

    network: Network
    precision: int
    recall: int
    f1: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Figures that stand in the text; percentages in per cent."""

    photographs: int = 5590
    photographs_in_discussion: int = 5990
    split: tuple[int, int, int] = (60, 20, 20)
    cross_validation_split: tuple[int, int] = (80, 20)
    folds: int = 3
    epochs_in_all: int = 300
    accuracy: float = 93.89
    averages: tuple[Average, ...] = (
        Average("MobileNetV2", 94, 92, 90),
        Average("ResNet50V2", 88, 88, 87),
        Average("VGG-16", 89, 87, 87),
    )
    ranking: tuple[Network, ...] = ("MobileNetV2", "VGG-16", "ResNet50V2")
    ranking_on_imagenet: tuple[Network, ...] = ("MobileNetV2", "VGG-16", "ResNet50V2")
    validated: PerGrade = (1317, 288, 698, 151, 220)
    accuracy_over: PerGrade = (99, 75, 92, 60, 85)
    parameters: float = 3.3e6
    feature_map: tuple[int, int, int] = (7, 7, 1024)


CLAIMS = Claims()
