"""Rows of a batch do not know of each other, and padding changes nothing."""

from typing import Any

import pytest
import torch

from .comparing import assert_all_close, assert_outputs_equal
from .model_tester import Inputs, ModelTester


ATOL = 1e-5


def row_of(inputs: Inputs, row: int) -> Inputs:
    """The arguments of one row alone."""

    def pick(value: Any) -> Any:
        if isinstance(value, tuple | list):
            picked = [pick(item) for item in value]
            return tuple(picked) if isinstance(value, tuple) else picked[row : row + 1]
        return value[row : row + 1] if isinstance(value, torch.Tensor) else value

    return {name: pick(value) for name, value in inputs.items()}


class BatchingTests:
    """Mixin: inherit it and provide a `tester` fixture."""

    @torch.no_grad()
    def test_forward_is_deterministic(self, tester: ModelTester) -> None:
        model = tester.model()
        assert_outputs_equal(model(**tester.inputs()), model(**tester.inputs()))

    @torch.no_grad()
    def test_tuple_output_equals_dictionary_output(self, tester: ModelTester) -> None:
        model = tester.model()
        as_dictionary = model(**tester.inputs())
        as_tuple = model(**(tester.inputs() | {"return_dict": False}))
        assert isinstance(as_tuple, tuple)
        tensors = [value for value in as_tuple if isinstance(value, torch.Tensor)]
        expected = [value for value in as_dictionary.values() if isinstance(value, torch.Tensor)]
        assert_all_close(tensors, expected, 0.0)

    @torch.no_grad()
    def test_batch_equals_single_rows(self, tester: ModelTester) -> None:
        model, inputs = tester.model(), tester.inputs(batch_size=3)
        batched = model(**inputs)
        for row in range(3):
            alone_inputs = row_of(inputs, row)
            alone = tester.valid(model(**alone_inputs), alone_inputs, 0)
            assert_all_close(tester.valid(batched, inputs, row), alone, ATOL)

    @torch.no_grad()
    def test_padding_changes_nothing(self, tester: ModelTester) -> None:
        if not tester.padding_sides:
            pytest.skip("the family takes no padded batches")
        model = tester.model()
        for side in tester.padding_sides:
            inputs, alone_inputs = tester.ragged_inputs(side)
            batched = model(**inputs)
            for row, single in enumerate(alone_inputs):
                alone = tester.valid(model(**single), single, 0)
                assert_all_close(tester.valid(batched, inputs, row), alone, ATOL)
