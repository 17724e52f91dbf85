import math

import numpy as np
import pytest
from pydantic import ValidationError

from retigrade.metrics.estimate import Estimate, wilson


def test_it_reads_well_with_any_number_of_decimals():
    estimate = Estimate.of(0.9123, 0.8871, 0.9339)
    assert str(estimate) == f"{estimate}" == "0.912 (0.887-0.934)"
    assert f"{estimate:.1f}" == "0.9 (0.9-0.9)"
    assert str(Estimate.of(0.5)) == "0.500"
    assert str(Estimate.of(math.nan)) == "not defined"


def test_nan_is_none_and_json_has_neither():
    undefined = Estimate.of(math.nan, 0.1, 0.2)
    assert (undefined.value, undefined.low, undefined.high) == (None, None, None)
    assert math.isnan(undefined.number)
    assert undefined.model_dump_json() == '{"value":null,"low":null,"high":null}'
    assert Estimate.model_validate_json('{"value":0.5,"low":0.4,"high":0.6}') == Estimate.of(0.5, 0.4, 0.6)


@pytest.mark.parametrize("numbers", [(0.5, 0.6, 0.7), (0.5, None, 0.7), (None, 0.1, 0.2), (0.5, 0.1, math.inf)])
def test_an_interval_has_two_ends_and_its_value_between_them(numbers):
    with pytest.raises(ValidationError):
        Estimate(value=numbers[0], low=numbers[1], high=numbers[2])


def test_a_proportion_has_wilsons_interval():
    low, high = wilson(np.array([8.0]), np.array([10]))
    assert Estimate.proportion(0.8, 10) == Estimate.of(0.8, low[0], high[0])
    assert Estimate.proportion(1.0, 20).high == 1.0
    assert Estimate.proportion(0.5, 0) == Estimate.of(math.nan)
