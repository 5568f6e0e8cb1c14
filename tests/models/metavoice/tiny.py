"""A MetaVoice of a few thousand parameters, and its tokenizer."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tts_models.models.metavoice.tokenization_metavoice import build_tokenizer


PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_MERGES = (b"th", b"he", b"in", b"the", b" the", b"er", b"an", b"and", b"on", b"re")
# Keywords of `MetaVoiceConfig`: 8 codes a codebook, 16 samples a frame; text begins at id 17, its end is the last.
TINY: dict[str, Any] = {
    "first_stage_config": {
        "vocab_size": 17 + 256 + len(_MERGES) + 1,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 192,
        "speaker_embed_size": 16,
        "num_codes": 8,
        "eos_token_id": 16,
        "pad_token_id": 16,
        "text_token_offset": 17,
        "end_of_text_token_id": 17 + 256 + len(_MERGES),
        "initializer_range": 0.2,
    },
    "second_stage_config": {
        "vocab_sizes": [9 + 256 + len(_MERGES) + 1, 9],
        "target_vocab_sizes": [9] * 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "speaker_embed_size": 16,
        "num_codes": 8,
        "pad_token_id": 8,
        "text_token_offset": 9,
        "end_of_text_token_id": 9 + 256 + len(_MERGES),
        "initializer_range": 0.2,
    },
    "speaker_encoder_config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "speaker_embed_size": 16,
    },
    "codec_config": {
        "target_bandwidths": [6.0],
        "sampling_rate": 24000,
        "num_filters": 4,
        "hidden_size": 16,
        "codebook_size": 8,
        "codebook_dim": 16,
        "upsampling_ratios": [8, 5, 4, 2],
        "num_lstm_layers": 1,
    },
}


def tiny_ranks() -> dict[bytes, int]:
    """All bytes and a few merges."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    return ranks | {token: 256 + place for place, token in enumerate(_MERGES)}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of these."""
    ranks = tiny_ranks()
    return build_tokenizer(PATTERN, ranks, {"<|endoftext|>": len(ranks)})


def tokenizer_from_table(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a reference table."""
    meta = json.loads(file.read_text(encoding="utf-8"))["meta"]
    ranks = {bytes.fromhex(token): rank for token, rank in meta["mergeable_ranks"].items()}
    return build_tokenizer(meta["pat_str"], ranks, meta["special_tokens"])
