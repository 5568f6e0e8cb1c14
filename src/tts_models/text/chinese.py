"""Chinese text: where it is, and how its numbers are read."""

import re


_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_DIGITS = "零一二三四五六七八九"
_UNITS = ("", "十", "百", "千")
_GROUPS = ("", "万", "亿", "万亿")
_NUMBER = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<percent>%)?")
MAX_READ_DIGITS = 16


def contains_chinese(text: str) -> bool:
    """Whether a character of `text` lies in U+4E00…U+9FFF."""
    return _CHINESE.search(text) is not None


def count_chinese(text: str) -> int:
    """Characters of `text` in U+4E00…U+9FFF."""
    return len(_CHINESE.findall(text))


def read_digits(digits: str) -> str:
    """Digits one after the other, as in a year: `"2024"` is 二零二四."""
    return "".join(_DIGITS[int(digit)] for digit in digits)


def read_integer(digits: str) -> str:
    """A whole number as words: `"70"` is 七十; one of more than 16 digits is read digit by digit."""
    if len(digits) > MAX_READ_DIGITS:
        return read_digits(digits)
    groups = [digits[max(end - 4, 0) : end] for end in range(len(digits), 0, -4)]
    spoken = ""
    for power, group in enumerate(groups):
        words = _read_group(group)
        # A gap between groups (1 0000 0001, or 1 0101) is one zero.
        has_gap = spoken and not spoken.startswith("零") and int(groups[power - 1]) < 1000
        spoken = (words + _GROUPS[power] if words else "") + ("零" if has_gap else "") + spoken
    spoken = re.sub("零+", "零", spoken).strip("零")
    return re.sub("^一十", "十", spoken) or "零"


def _read_group(group: str) -> str:
    """Up to four digits, without zeros at the ends."""
    words = ""
    for place, digit in enumerate(reversed(group)):
        words = (_DIGITS[int(digit)] + _UNITS[place] if digit != "0" else "零") + words
    return re.sub("零+", "零", words).strip("零")


def spell_out_chinese_numbers(text: str) -> str:
    """Replace whole numbers, decimals and per cents by words; 3.5 is 三点五, 60% is 百分之六十."""
    return _NUMBER.sub(_spell_out, text)


def _spell_out(match: re.Match) -> str:
    whole, _, fraction = match["number"].partition(".")
    words = read_integer(whole) + (f"点{read_digits(fraction)}" if fraction else "")
    return f"百分之{words}" if match["percent"] else words


__all__ = ["contains_chinese", "count_chinese", "read_digits", "read_integer", "spell_out_chinese_numbers"]
