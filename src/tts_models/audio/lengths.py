"""How many frames of a padded batch are signal: said by lengths or by a mask."""

import torch


def length_mask(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """Boolean `(batch, steps)`, true where a row is valid."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def frame_lengths(
    features: torch.Tensor,
    frames: int,
    lengths: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    name: str = "lengths",
    minimum: int = 1,
) -> torch.LongTensor:
    """Valid frames per row, int64 `(batch,)` on the device of `features`.

    Args:
        features: The batch, first axis the rows.
        frames: Its frames, padding included.
        lengths: Valid frames per row, or `None`.
        attention_mask: `(batch, frames)`, 1 for frames and 0 for padding on the right, used where `lengths` is `None`.
        name: The name of `lengths` in an error.
        minimum: The fewest frames of a row.

    Raises:
        ValueError: a length or a mask does not fit the batch.
    """
    batch_size, device = features.shape[0], features.device
    if lengths is None and attention_mask is not None:
        lengths = attention_mask.to(device).long().sum(-1)
        if attention_mask.shape != (batch_size, frames) or not torch.equal(
            attention_mask.to(device).bool(), length_mask(lengths, frames)
        ):
            raise ValueError(
                f"`attention_mask` must have shape {(batch_size, frames)} and be padded on the right, got shape "
                f"{tuple(attention_mask.shape)}."
            )
    if lengths is None:
        return torch.full((batch_size,), frames, device=device)
    lengths = torch.as_tensor(lengths, device=device).long()
    if lengths.shape != (batch_size,) or int(lengths.min()) < minimum or int(lengths.max()) > frames:
        raise ValueError(f"`{name}` must hold {batch_size} numbers in {minimum} … {frames}, got {lengths.tolist()}.")
    return lengths


__all__ = ["frame_lengths", "length_mask"]
