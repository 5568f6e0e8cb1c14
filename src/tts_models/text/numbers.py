"""Numbers in running English text, spelled out."""

import re


_NUMBER = re.compile(r"(?P<currency>[$£€])?(?P<number>\d[\d,]*(?:\.\d+)?)(?P<suffix>st|nd|rd|th|%)?")
_CURRENCIES = {"$": "dollars", "£": "pounds", "€": "euros"}


def spell_out_numbers(text: str) -> str:
    """Replace digits by words: cardinals, ordinals, decimals, per cent and the currencies $, £ and €.

    Years and telephone numbers are read as cardinals; write them as words to have them read otherwise.
    """
    return _NUMBER.sub(_spell_out, text)


def _spell_out(match: re.Match) -> str:
    import inflect

    engine = inflect.engine()
    number = match["number"].replace(",", "")
    ordinal = match["suffix"] in ("st", "nd", "rd", "th")
    words = engine.number_to_words(number + match["suffix"] if ordinal else number).replace(",", "")
    parts = [words, _CURRENCIES.get(match["currency"], ""), "percent" if match["suffix"] == "%" else ""]
    comma = "," if match["number"].endswith(",") else ""
    return " ".join(part for part in parts if part) + comma
