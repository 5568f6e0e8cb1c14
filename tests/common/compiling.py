"""The step that a fast loop repeats compiles into one graph."""

import pytest
import torch

from .model_tester import ModelTester


class CompilingTests:
    """Mixin: inherit it and provide a `tester` fixture."""

    @torch.no_grad()
    def test_decode_step_compiles_into_one_graph(self, tester: ModelTester) -> None:
        step = tester.decode_step(tester.model())
        if step is None:
            pytest.skip("the family has no decode step of its own")
        function, make_arguments = step
        expected = function(*make_arguments())
        torch.compiler.reset()
        # What can break a graph is the tracing; generating machine code as well would take minutes on one core.
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(*make_arguments()), expected, atol=1e-5, rtol=1e-4)
        torch.compiler.reset()
