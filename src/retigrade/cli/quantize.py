"""`retigrade quantize`: a bundle in eight bits, if it is as good."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from retigrade.cli.command import Command, Jobs, notice

if TYPE_CHECKING:
    from retigrade.training.quantize import Quantized


@dataclass(frozen=True, kw_only=True)
class Quantize(Command):
    """Write a bundle in eight bits, smaller and on many processors quicker, unless it grades worse.

    It is refused, and nothing written, where on validation photographs quadratic weighted kappa falls by more than
    0.005, or an operating point loses more than 0.01 of sensitivity or specificity. Thresholds are fitted again.
    """

    bundle: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE", help_behavior_hint="")]
    """The bundle to start from."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files: what it learned from, and validation photographs."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
    """The new bundle."""

    splits: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A split of the photographs: train calibrates, validation compares, test gives the new figures."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out photographs that are missing or unreadable."""

    jobs: Jobs = None
    """Photographs at work at once."""

    def run(self) -> int:
        """Quantize, compare and write."""
        from retigrade.bundle import cpu_count
        from retigrade.errors import UsageError, needs_extra

        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs must be 1 or more, got {self.jobs}")
        with needs_extra("train"):
            from retigrade.training.quantize import quantize
        quantized = quantize(
            self.bundle,
            self.data,
            out=self.out,
            splits=self.splits,
            skip_unreadable=self.skip_unreadable,
            jobs=self.jobs or cpu_count(),
        )
        _print(quantized)
        notice(f"bundle: {self.out}")
        notice("research use only, not a medical device")
        return 0


def _print(quantized: Quantized) -> None:
    (before, after), (slow, quick) = quantized.bytes, quantized.milliseconds
    kappa, kappa_after = quantized.kappa
    print(f"size       {before / 1e6:.1f} MB to {after / 1e6:.1f} MB")
    print(f"inference  {slow:.1f} ms to {quick:.1f} ms on one core, {quantized.speedup:.2f} times as fast")
    print(f"QWK        {kappa:.3f} to {kappa_after:.3f} on {quantized.photographs} photographs")
    print(f"agreement  {quantized.agreement:.1%} of them have the same grade")
    for point in quantized.points:
        print(
            f"{point.name:<10} threshold {point.threshold[0]:.4g} to {point.threshold[1]:.4g}, sensitivity "
            f"{point.sensitivity[0]:.3f} to {point.sensitivity[1]:.3f}, specificity {point.specificity[0]:.3f} to "
            f"{point.specificity[1]:.3f}"
        )
    if not quantized.measured:
        notice("the new bundle has no figures of its own: name a split with a part test")
