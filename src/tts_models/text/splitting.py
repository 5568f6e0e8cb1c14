"""Cuts long text into parts that one pass of a model can speak, at the places where a reader would pause."""

import re


# A word with everything up to the next blank; a `<…>` tag is one unit even when it holds blanks.
_UNIT = re.compile(r"(?:<[^<>]*>|[^\s<]|<)+")
_TAGS_ONLY = re.compile(r"(?:<[^<>]*>\s*)+")
_CLOSERS = "\"'”’»)]}*_"
_OPENERS = "“‘«([{\"'"
_SENTENCE_END = re.compile(rf"[.!?…。！？]+[{re.escape(_CLOSERS)}]*$")
_WIDE_END = re.compile(rf"([。！？]+[{re.escape(_CLOSERS)}」』]*)(?=\S)")
_CLAUSE_END = re.compile(rf"[,;:—–、，；：][{re.escape(_CLOSERS)}]*$|^[—–-]+$")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st mt rev gen col capt lt sgt hon gov sen rep pres vs etc vol fig e.g i.e cf approx "
    "dept est inc ltd co corp jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s u.k".split()
)
_INITIAL = re.compile(r"^[A-Z](\.[A-Z])*$")


def _ends_sentence(word: str, following: str) -> bool:
    """Whether the sentence ends after `word`, given the word that follows."""
    if not _SENTENCE_END.search(word):
        return False
    stem = word.strip(_CLOSERS + _OPENERS)
    following = following.lstrip(_OPENERS)
    if not stem.endswith(".") or stem.endswith(".."):
        # "Really?" he said · well… fine
        return not (following[:1].islower() and (stem != word or stem.endswith(("…", ".."))))
    stem = stem[:-1].lower()
    if stem == "no":
        return not following[:1].isdigit()
    return not (stem in _ABBREVIATIONS or _INITIAL.match(word.strip(_CLOSERS + _OPENERS)[:-1]))


def _join(pieces: list[str]) -> str:
    return " ".join(pieces)


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, in order, blanks inside them collapsed to one space.

    A sentence ends after `.`, `!`, `?` or `…` (with closing quotes) before a blank, after their full-width forms, and
    where a paragraph ends (an empty line). Abbreviations, initials and decimal points do not end one. A `<…>` tag
    opens the sentence it stands before; at the end of a paragraph it closes the last one.
    """
    sentences: list[str] = []
    for paragraph in re.split(r"\n\s*\n|\r\n\s*\r\n", text):
        sentences.extend(_paragraph_sentences(_WIDE_END.sub(r"\1 ", paragraph)))
    return sentences


def _paragraph_sentences(paragraph: str) -> list[str]:
    words = _UNIT.findall(paragraph)
    sentences: list[str] = []
    current: list[str] = []
    for word, following in zip(words, words[1:] + [""], strict=False):
        current.append(word)
        if _ends_sentence(word, following):
            sentences.append(_join(current))
            current = []
    if current:
        sentences.append(_join(current))
    return _attach_wordless(sentences)


def _attach_wordless(sentences: list[str]) -> list[str]:
    """Pieces of nothing but punctuation or closing tags join the sentence before them."""
    attached: list[str] = []
    for index, sentence in enumerate(sentences):
        closing_tags = index == len(sentences) - 1 and _TAGS_ONLY.fullmatch(sentence)
        if attached and (closing_tags or not any(c.isalnum() for c in sentence)):
            attached[-1] += f" {sentence}"
        else:
            attached.append(sentence)
    return attached


def _cut_word(word: str, max_characters: int) -> list[str]:
    """A single over-long word in pieces, tags kept whole (a tag longer than the limit stays one piece)."""
    pieces: list[str] = []
    for atom in re.findall(r"<[^<>]*>|[^<]+|<", word):
        is_tag = atom.startswith("<") and atom.endswith(">")
        chunks = [atom] if is_tag else [atom[i : i + max_characters] for i in range(0, len(atom), max_characters)]
        for chunk in chunks:
            if pieces and len(pieces[-1]) + len(chunk) <= max_characters:
                pieces[-1] += chunk
            else:
                pieces.append(chunk)
    return pieces


def _merge(pieces: list[str], max_characters: int) -> list[str]:
    """Neighbouring pieces joined by a space while they stay within `max_characters`."""
    merged: list[str] = []
    for piece in pieces:
        if merged and len(merged[-1]) + 1 + len(piece) <= max_characters:
            merged[-1] += f" {piece}"
        else:
            merged.append(piece)
    return merged


def _split_long_sentence(sentence: str, max_characters: int) -> list[str]:
    """An over-long sentence at its clauses, clauses at their words, words wherever they must be cut."""
    clauses: list[list[str]] = [[]]
    for word in _UNIT.findall(sentence):
        clauses[-1].append(word)
        if _CLAUSE_END.search(word):
            clauses.append([])
    pieces: list[str] = []
    for words in clauses:
        clause = _join(words)
        if len(clause) <= max_characters:
            pieces.extend([clause] if clause else [])
        else:
            cut = [part for word in words for part in _cut_word(word, max_characters)]
            pieces.extend(_merge(cut, max_characters))
    return _merge(pieces, max_characters)


def split_text(text: str, max_characters: int = 280) -> list[str]:
    """`text` in parts of at most `max_characters`, cut at sentence ends where possible.

    Sentences are joined up to the limit; a sentence longer than the limit is cut after commas and dashes, then between
    words, then inside a word, but never inside a `<…>` tag.

    Args:
        text: Text to speak; line breaks and runs of blanks count as one blank.
        max_characters: Largest part, in characters; 200 to 300 suits most models.

    Returns:
        The parts in order; empty for blank text.

    Raises:
        ValueError: `max_characters` is not positive.
    """
    if max_characters < 1:
        raise ValueError(f"`max_characters` must be at least 1; got {max_characters}.")
    pieces: list[str] = []
    for sentence in split_sentences(text):
        if len(sentence) <= max_characters:
            pieces.append(sentence)
        else:
            pieces.extend(_split_long_sentence(sentence, max_characters))
    return _merge(pieces, max_characters)


__all__ = ["split_sentences", "split_text"]
