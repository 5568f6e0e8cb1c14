"""A function over fixed tensors, recorded once as a CUDA graph and replayed with a single launch."""

from collections.abc import Callable

import torch


# Libraries allocate their workspaces, and compiled code is compiled, before anything may be recorded.
_WARM_UP_CALLS = 3


class CapturedCall:
    """Replays `function`, which takes nothing, returns nothing, and works on tensors that keep their place.

    It runs a few times while it is recorded: give its tensors their values afterwards.

    Args:
        function: Never reads a value back from the device, and has the same shapes every time.
        device: A CUDA device.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self.function, self.graph = function, torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device), torch.cuda.stream(stream):
            for _ in range(_WARM_UP_CALLS):
                function()
        torch.cuda.current_stream(device).wait_stream(stream)
        with torch.cuda.device(device), torch.cuda.graph(self.graph):
            function()

    def __call__(self) -> None:
        self.graph.replay()


__all__ = ["CapturedCall"]
