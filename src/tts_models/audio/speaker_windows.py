"""Speaker encoders that hear a recording in windows (GE2E, Wan et al., 2018): what they share."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class SpeakerWindowsMixin:
    """For a model with an `lstm` (batch first) and a `projection` of its last state: windows to a recording's vector.

    The vectors have no negative entries, and length 1.
    """

    lstm: nn.LSTM
    projection: nn.Linear

    def embed_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """Frames `(windows, window_frames, bands)` to vectors `(windows, width)`."""
        _, (hidden_states, _) = self.lstm(windows)
        return F.normalize(torch.relu(self.projection(hidden_states[-1])), dim=-1)

    def embed_recordings(self, windows: Sequence[torch.Tensor]) -> torch.Tensor:
        """The windows of several recordings, each `(windows, window_frames, bands)`, to vectors `(batch, width)`."""
        vectors = self.embed_windows(torch.cat(list(windows)).to(self.projection.weight))
        means = torch.stack([rows.mean(0) for rows in vectors.split([len(each) for each in windows])])
        return F.normalize(means, dim=-1)


__all__ = ["SpeakerWindowsMixin"]
