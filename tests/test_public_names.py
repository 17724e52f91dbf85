import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import retigrade
import retigrade.errors


def test_the_public_names() -> None:
    values = vars(retigrade.errors).items()
    errors = {name for name, value in values if isinstance(value, type) and issubclass(value, Exception)}
    assert set(retigrade.__all__) == {
        "Bundle",
        "Grade",
        "Grader",
        "Grading",
        "Status",
        "check",
        "compare",
        "ensemble",
        "load",
        "tune",
        "evaluate",
        "train",
        "write_eyes",
        *errors,
    }
    assert retigrade.__all__ == sorted(retigrade.__all__)
    assert set(dir(retigrade)) == {*retigrade.__all__, "__version__"}


@pytest.mark.parametrize("name", retigrade.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(retigrade, name).__doc__


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'retigrade' has no attribute 'Predictor'"):
        retigrade.Predictor  # noqa: B018


def test_the_version_is_the_projects() -> None:
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert retigrade.__version__ == tomllib.loads(project.read_text())["project"]["version"]


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after this code."""
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_is_cheap() -> None:
    assert not loaded_by("import retigrade") & {"numpy", "cv2", "onnxruntime", "pydantic", "torch"}
    assert not loaded_by("import retigrade.__main__") & {"numpy", "tyro", "typing", "dataclasses"}


def test_grading_needs_no_learning_libraries() -> None:
    learning = {"torch", "timm", "torchvision", "sklearn", "onnx", "matplotlib"}
    assert not loaded_by("import retigrade; retigrade.load") & learning
