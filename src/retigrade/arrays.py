"""The names of the array types that cross modules; shapes and ranges stand in the docstrings that use them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""
Floats = npt.NDArray[np.float32]
Reals = npt.NDArray[np.floating]
"""Any floating-point type; results are float64."""
Integers = npt.NDArray[np.int64]
Grades = npt.NDArray[np.integer]
"""Any whole-number type, (N,), 0 to 4."""
Flags = npt.NDArray[np.bool_]
