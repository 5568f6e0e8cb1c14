# Copyright 2026 The tts_models authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""MetaVoice's tokenizer: a fast byte-level BPE made of a checkpoint's merge ranks."""

from collections.abc import Mapping

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast


def byte_characters() -> dict[int, str]:
    """The visible character that byte-level tokenizers write for each of the 256 bytes."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def split_by_ranks(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, ...]:
    """What `token` is made of by the merges that come before its own."""
    parts, limit = [token[place : place + 1] for place in range(len(token))], ranks[token]
    while len(parts) > 1:
        pairs = [ranks.get(left + right, limit) for left, right in zip(parts, parts[1:], strict=False)]
        best = min(pairs)
        if best >= limit:
            break
        place = pairs.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return tuple(parts)


def build_tokenizer(
    pattern: str, ranks: Mapping[bytes, int], special_tokens: Mapping[str, int]
) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint: it ends every text with the special token, and adds no offset.

    A special token that is written in a text is read as the characters that it is written with.

    Args:
        pattern: Regular expression of the pieces in which a text is split first.
        ranks: Bytes of every token to its id, which is the rank of its merge too.
        special_tokens: The end of text and its id.

    Raises:
        ValueError: a byte or an id is missing, a token cannot be merged from two others, or there is not exactly one
            special token.
    """
    if len(special_tokens) != 1:
        raise ValueError(f"`special_tokens` must hold the end of text alone; got {sorted(special_tokens)}.")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    ids = sorted([*ranks.values(), *special_tokens.values()])
    if missing or ids != list(range(len(ids))):
        raise ValueError(f"`ranks` must hold all 256 bytes and every id once; {len(missing)} bytes are missing.")
    characters = byte_characters()

    def spell(token: bytes) -> str:
        return "".join(characters[byte] for byte in token)

    merges = []
    for token in sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__):
        parts = split_by_ranks(token, ranks)
        if len(parts) != 2:
            raise ValueError(f"`ranks` holds {token!r}, which is not two tokens of lower rank: {parts}.")
        merges.append(tuple(map(spell, parts)))
    ((end, end_id),) = special_tokens.items()
    vocabulary = {spell(token): rank for token, rank in ranks.items()} | {end: end_id}
    # A piece that is a token as a whole is taken as such, whatever the merges say.
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, end_id)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=end,
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


__all__ = ["build_tokenizer"]
