"""The examples of the pages, run as a reader would, in the current directory.

Blocks marked `python` stand on their own; blocks marked `py` need the checkpoint and the recordings that their page
speaks of.
"""

import re
from pathlib import Path

import soundfile


ROOT = Path(__file__).resolve().parents[2]
_AUDIO_FILE = re.compile(r"\w+\.wav\b")


def code_blocks(page: Path, mark: str) -> list[str]:
    """The blocks of a page that are marked so, in its order."""
    pattern = rf"^```{mark}\n(.*?)^```$"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def page_examples(model: str) -> list[str]:
    """The blocks of the page of `model` that need a checkpoint; at least one."""
    examples = code_blocks(ROOT / f"docs/source/model_doc/{model}.md", "py")
    assert examples, f"{model}.md has no example"
    return examples


def run_example(code: str) -> None:
    """Run an example in the current directory; the audio files that it names then hold samples."""
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})
    for name in set(_AUDIO_FILE.findall(code)):
        assert soundfile.info(name).frames, name
