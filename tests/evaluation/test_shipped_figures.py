"""The shipped bundle's figures are the same numbers wherever they stand."""

from __future__ import annotations

from pathlib import Path

from retigrade.bundle import bundle_file, read_metadata, shipped_bundle

ROOT = Path(__file__).resolve().parents[2]
IN_README = ("accuracy", "quadratic_kappa", "referable_auroc", "any_auroc")


def test_the_card_of_the_bundle_beside_it_holds_its_figures() -> None:
    figures = read_metadata(bundle_file("thorough").read_bytes()).figures
    card = (ROOT / "docs/bundle/thorough/MODEL_CARD.md").read_text(encoding="utf-8")
    assert figures
    assert all(str(figure.estimate) in card for figure in figures)


def test_the_readme_and_the_model_card_hold_the_bundles_figures() -> None:
    figures = read_metadata(shipped_bundle().read_bytes()).figures
    readme, card = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "MODEL_CARD.md"))
    assert figures
    for figure in figures:
        assert str(figure.estimate) in card, f"MODEL_CARD.md lacks the {figure.title} of {figure.set}"
        if figure.metric in IN_README and not figure.set.startswith("all photographs"):
            assert str(figure.estimate) in readme, f"README.md lacks the {figure.title} of {figure.set}"
