"""A stream is the offline waveform in pieces."""

import pytest
import torch

from .comparing import assert_close
from .model_tester import ModelTester


ATOL = 1e-5


class StreamingTests:
    """Mixin: inherit it and provide a `tester` fixture."""

    @torch.no_grad()
    def test_stream_equals_offline(self, tester: ModelTester) -> None:
        compared = 0
        for label, offline, streamed in tester.streams(tester.model()):
            assert_close(streamed, offline, ATOL, label)
            compared += 1
        if not compared:
            pytest.skip("the family does not stream")
