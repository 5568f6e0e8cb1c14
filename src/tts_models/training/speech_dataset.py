"""Recordings and their texts as training examples of a language model that writes codec tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from ..audio import load_audio
from ..files import write_tensors
from .audio_dataset import Recording


AudioCodes = tuple[torch.Tensor, ...]


@torch.no_grad()
def encode_recordings(
    codec: PreTrainedModel,
    recordings: Sequence[Recording],
    cache: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[AudioCodes]:
    r"""
    Codes of every recording, whole: one 1-D int64 tensor per quantizer.

    Args:
        codec ([`PreTrainedModel`]): A codec whose `encode` returns `audio_codes` and `code_lengths`.
        recordings: What to encode; each is resampled to the codec's rate.
        cache (`str` or `Path`, *optional*): Safetensors file that keeps the codes between runs. Recordings that are
            not in it are encoded and added.
        progress: Called with the number of recordings done.
    """
    cache = None if cache is None else Path(cache)
    known = load_file(cache) if cache is not None and cache.is_file() else {}
    results, added = [], False
    for number, recording in enumerate(recordings, start=1):
        keys = [f"{recording.path.resolve()}#{level}" for level in range(codec.config.num_codebooks)]
        if keys[0] not in known:
            audio, _ = load_audio(recording.path, codec.config.sampling_rate)
            encoded = codec.encode(torch.from_numpy(audio)[None, None].to(codec.device, codec.dtype), return_dict=True)
            known.update(
                {key: codes[0].to("cpu", torch.int32) for key, codes in zip(keys, encoded.audio_codes, strict=True)}
            )
            added = True
        results.append(tuple(known[key].long() for key in keys))
        if progress is not None:
            progress(number)
    if cache is not None and added:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(cache, known)
    return results


class SpeechTokenDataset(Dataset):
    r"""
    Training examples made by a processor's `encode_training_example` from texts, voices and codes.

    Args:
        processor: The model's processor.
        recordings: Text and voice of every example.
        audio_codes: The codes of every example, as [`encode_recordings`] returns them.
        max_length (`int`, *optional*): Examples of more tokens are left out.
        phoneme_ends (`Sequence[Sequence[float]]`, *optional*): For checkpoints with aligned text: the time in seconds
            at which every phoneme of each example ends.
        code_noise (`float`): Share of the audio tokens that are replaced, at every reading, by another code of the
            same slot in `input_ids` (never in `labels`). A model whose past is not quite reliable learns to listen to
            the text, and to go on after a mistake of its own.
    """

    def __init__(
        self,
        processor,
        recordings: Sequence[Recording],
        audio_codes: Sequence[AudioCodes],
        max_length: int | None = None,
        phoneme_ends: Sequence[Sequence[float]] | None = None,
        code_noise: float = 0.0,
    ):
        self.processor, self.code_noise, self.examples = processor, code_noise, []
        ends = [None] * len(recordings) if phoneme_ends is None else phoneme_ends
        for recording, codes, times in zip(recordings, audio_codes, ends, strict=True):
            timing = {} if times is None else {"unit_ends": times}
            example = processor.encode_training_example(recording.text, recording.voice, codes, **timing)
            if max_length is None or len(example["input_ids"]) <= max_length:
                self.examples.append(example)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, item: int) -> dict[str, list[int]]:
        example = self.examples[item]
        return self._disturb(example) if self.code_noise else example

    def _disturb(self, example: dict[str, list[int]]) -> dict[str, list[int]]:
        layout = self.processor.audio_token_layout
        ids, labels = torch.tensor(example["input_ids"]), torch.tensor(example["labels"])
        is_audio = (labels == ids) & (ids >= layout.offset) & (ids < layout.offset + layout.num_ids)
        chosen = is_audio & (torch.rand(len(ids)) < self.code_noise)
        first_of_slot = ids - (ids - layout.offset) % layout.codebook_size
        others = first_of_slot + torch.randint(layout.codebook_size, (len(ids),))
        return example | {"input_ids": torch.where(chosen, others, ids).tolist()}


@dataclass
class SpeechTokenCollator:
    """Pads examples on the right: ids with `pad_token_id`, labels with -100.

    Returns `input_ids`, `attention_mask` and `labels`, int64 `(batch, length)`, and `constrain_slots` where it is set,
    which makes the model score each label among the ids that its slot allows.
    """

    pad_token_id: int
    constrain_slots: bool = False

    def __call__(self, examples: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        length = max(len(example["input_ids"]) for example in examples)

        def pad(name: str, value: int) -> torch.Tensor:
            return torch.tensor([example[name] + [value] * (length - len(example[name])) for example in examples])

        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        batch = {
            "input_ids": pad("input_ids", self.pad_token_id),
            "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
            "labels": pad("labels", -100),
        }
        return batch | {"constrain_slots": True} if self.constrain_slots else batch
