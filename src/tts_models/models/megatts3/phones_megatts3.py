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
"""Phones and tones of MegaTTS3: their ids, the tokens that its language models write, and a notation for people."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import torch

from ...files import written_whole


RESERVED = ("<pad>", "<EOS>", "<UNK>")
# Finals and initials of Chinese (with a tone each), phones of English, silence, punctuation: ids from 3 on.
_CHINESE = (
    "a ai air an ang angr anr ao aor ar b c ch d e ei eir en eng engr enr er f g h i ia ian iang iangr ianr iao iaor "
    "iar ie ier ii iii iiir iir in ing ingr inr io iong iongr iou iour ir j k l m n ng o ong ongr or ou our p q r s "
    "sh t u ua uai uair uan uang uangr uanr uar uei ueir uen ueng uengr uenr uo uor ur v van vanr ve ver vn vnr vr x "
    "z zh ＿"
)
_ENGLISH = (
    "aa ae ah ao aw ax ay b ch d dh eh ehr er ey f g hh ih iy iyr jh k l m n ng oh ow oy p r s sh t th uh uw uwr v w "
    "y z zh"
)
_PUNCTUATION = "… 、 。 《 》 【 】 ！ ＂ ＃ ＄ ％ ＇ ＇＇ （ ） ＊ ， ： ； ？ ＼ ＾ ＿ ｀ ｛ ｝ ～"
PHONES = (
    *(f"C0{phone}" for phone in _CHINESE.split()),
    *(f"E0{phone}" for phone in _ENGLISH.split()),
    "sil",
    *_PUNCTUATION.split(),
)
TONES = tuple("0 1 10 11 12 13 15 17 2 3 4 5 6 7 8 9".split())

# A Chinese phone and its tone 1…6 are one token of the language models.
FIRST_CHINESE, LAST_CHINESE = 3, 100
TONED_TOKENS = range(200, 789)
PHONE_TOKENS = range(FIRST_CHINESE, 174)
TONE_NUMBERS = range(1, 7)
NO_TONE = 3
_TONE_IDS = {1: 4, 2: 11, 3: 12, 4: 13, 5: 14, 6: 15}
_TONE_NUMBERS = {tone_id: number for number, tone_id in _TONE_IDS.items()}
SILENCE = 145
SPOKEN_PHONES = range(3, SILENCE)


def phones_of_tokens(tokens: torch.LongTensor) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Phone ids and tone ids of the tokens that aligner and grapheme-to-phoneme model write.

    Args:
        tokens: int64 of any shape; those that are no toned Chinese phone are phone ids themselves.

    Returns:
        Two int64 tensors of the same shape.
    """
    is_toned = (tokens >= TONED_TOKENS.start) & (tokens < TONED_TOKENS.stop)
    place = tokens - TONED_TOKENS.start - 1
    number = place % 6 + 1
    phones = torch.where(is_toned, place.div(6, rounding_mode="floor") + FIRST_CHINESE, tokens)
    toned = torch.where(number == 1, _TONE_IDS[1], number + 9)
    return phones, torch.where(is_toned, toned, NO_TONE)


def tokens_of_phones(phone_ids: torch.LongTensor, tone_ids: torch.LongTensor) -> torch.LongTensor:
    """The tokens for phones with their tones, what [`phones_of_tokens`] undoes.

    Args:
        phone_ids: int64 of any shape.
        tone_ids: int64 of the same shape; they matter for Chinese phones only.
    """
    numbers = tone_ids.clone()
    for tone_id, number in _TONE_NUMBERS.items():
        numbers[tone_ids == tone_id] = number
    is_chinese = (phone_ids >= FIRST_CHINESE) & (phone_ids <= LAST_CHINESE)
    return torch.where(is_chinese, (phone_ids - FIRST_CHINESE) * 6 + TONED_TOKENS.start + numbers, phone_ids)


@dataclass(frozen=True)
class PhoneTable:
    """
    The symbols of a checkpoint; symbol number `i` has the id `i + 3`, after `<pad>`, `<EOS>` and `<UNK>`.

    Args:
        phones (`Sequence[str]`): Phones and punctuation; the released ones by default.
        tones (`Sequence[str]`): Tones; the released ones by default.
    """

    phones: Sequence[str] = PHONES
    tones: Sequence[str] = TONES
    phone_ids: dict[str, int] = field(init=False, repr=False, compare=False)
    tone_ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, symbols in (("phone_ids", self.phones), ("tone_ids", self.tones)):
            ids = {symbol: number for number, symbol in enumerate([*RESERVED, *symbols])}
            if len(ids) != len(RESERVED) + len(symbols):
                raise ValueError(f"`{name[:-4]}s` names a symbol twice.")
            object.__setattr__(self, name, ids)

    def read(self, phones: str | Sequence[str]) -> tuple[torch.LongTensor, torch.LongTensor]:
        """Phone ids and tone ids `(phones,)` of phones as people write them.

        Args:
            phones: Symbols between blanks, or a list of them, such as `"sil C0n/3 C0i/3 C0h/3 C0ao/3 。"`. A Chinese
                phone needs its tone, 1 to 6, after a slash; `C0` and `E0` stand before Chinese and English phones.

        Raises:
            ValueError: no phone at all, one that is not known, or a tone that is missing or not allowed.
        """
        symbols = phones.split() if isinstance(phones, str) else list(phones)
        if not symbols:
            raise ValueError("`phones` is empty: at least one phone is needed.")
        pairs = [self._read_symbol(symbol) for symbol in symbols]
        ids = torch.tensor(pairs, dtype=torch.long)
        return ids[:, 0], ids[:, 1]

    def _read_symbol(self, symbol: str) -> tuple[int, int]:
        name, slash, tone = symbol.partition("/")
        phone = self.phone_ids.get(name, 0)
        if phone < len(RESERVED):
            raise ValueError(f"`phones` holds {symbol!r}, which is none of the {len(self.phones)} known phones.")
        if not FIRST_CHINESE <= phone <= LAST_CHINESE:
            if slash:
                raise ValueError(f"`phones` holds {symbol!r}: only Chinese phones (`C0…`) have a tone.")
            return phone, NO_TONE
        if tone not in [str(number) for number in TONE_NUMBERS]:
            raise ValueError(f"`phones` holds {symbol!r}: a Chinese phone needs a tone 1 to 6, such as {name}/1.")
        return phone, _TONE_IDS[int(tone)]

    def write(self, phone_ids: torch.LongTensor, tone_ids: torch.LongTensor) -> str:
        """Phone ids and tone ids `(phones,)` as people write them, what [`PhoneTable.read`] undoes."""
        known = [*RESERVED, *self.phones]
        written = []
        for phone, tone in zip(phone_ids.tolist(), tone_ids.tolist(), strict=True):
            is_chinese = FIRST_CHINESE <= phone <= LAST_CHINESE and tone in _TONE_NUMBERS
            written.append(f"{known[phone]}/{_TONE_NUMBERS[tone]}" if is_chinese else known[phone])
        return " ".join(written)

    def save(self, path: str | PathLike) -> None:
        """Write the table to a JSON file."""
        content = {"phone": list(self.phones), "tone": list(self.tones)}
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike) -> "PhoneTable":
        """Read what `save` wrote, or upstream's `dict.json`.

        Raises:
            ValueError: the file holds something else.
        """
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        lists = [content.get(name) for name in ("phone", "tone")] if isinstance(content, dict) else [None]
        if not all(isinstance(each, list) and all(isinstance(symbol, str) for symbol in each) for each in lists):
            raise ValueError(f"`path` {str(path)!r} must hold the lists `phone` and `tone`.")
        return cls(*map(tuple, lists))


__all__ = ["PhoneTable", "phones_of_tokens", "tokens_of_phones"]
