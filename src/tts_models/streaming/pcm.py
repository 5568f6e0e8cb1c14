"""A stream of speech as bytes, for pipes, sockets and sound cards."""

from collections.abc import Iterable, Iterator

from ..speech_generation import SpeechChunk


def pcm_chunks(chunks: Iterable[SpeechChunk], row: int = 0) -> Iterator[bytes]:
    """Little-endian signed 16-bit mono samples of one row, as they are generated; empty chunks are left out.

    Args:
        chunks: What `generate_stream` yields.
        row: Which row of the batch.
    """
    from ..audio import pcm16

    for chunk in chunks:
        length = int(chunk.audio_lengths[row])
        if length:
            yield pcm16(chunk.audio[row, :length].detach().cpu().float().numpy())


__all__ = ["pcm_chunks"]
