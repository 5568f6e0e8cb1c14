"""What both sides of `qwen3_tts.py` share: sizes, the prompt, the calls that are timed. Imports neither package."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


FIXTURES = Path(__file__).parents[1] / "tests/fixtures"
SIZES = {"0.6b": "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice", "1.7b": "Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice"}
FRAMES_PER_SECOND = 12.5
# Of the text table two rows per token are read: its size changes memory alone, so that it is made small here.
TEXT_ROWS = 1024
SPECIAL = ("im_start", "im_end", "tts_pad", "tts_bos", "tts_eos")
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16}
END = 2150


def model_config(size: str) -> dict[str, Any]:
    """The released configuration of a size with a small text table; `"tiny"` is the 0.6B with small layers."""
    released = json.loads((FIXTURES / "qwen3_tts/released.json").read_text())["_configs"]
    config = released[f"{SIZES.get(size, SIZES['0.6b'])}/config.json"]
    config["talker_config"]["text_vocab_size"] = TEXT_ROWS
    config |= {f"{name}_token_id": number for number, name in enumerate(SPECIAL)}
    if size == "tiny":
        config["talker_config"] |= TINY | {"num_key_value_heads": 2}
        config["talker_config"]["code_predictor_config"] |= TINY | {"num_key_value_heads": 2}
    return config


def codec_config() -> dict[str, Any]:
    """The released configuration of the codec."""
    return json.loads((FIXTURES / "qwen3_tts_tokenizer/released.json").read_text())["config"]


def prompt_ids() -> torch.LongTensor:
    """A turn with 20 tokens of text, about five seconds of speech, `(1, 28)`."""
    return torch.randint(10, TEXT_ROWS, (1, 28), generator=torch.Generator().manual_seed(0))


def forbid_end(model: torch.nn.Module) -> None:
    """A score of zero for the end: never among the fifty best, so that every run has the frames it was asked for."""
    with torch.no_grad():
        model.talker.codec_head.weight[END] = 0.0


class Stopwatch:
    """Seconds by the clock and of the processor (all threads), since it was made.

    On a machine that does other work as well, the processor's seconds are what a call would take without it.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.started = self._now()

    def _now(self) -> tuple[float, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Seconds so far."""
        wall, processor = (now - then for now, then in zip(self._now(), self.started, strict=True))
        return {"wall": wall, "cpu": processor}


def time_frames(speak: Callable[[int], Any], frames: int, device: torch.device | str) -> dict[str, dict[str, float]]:
    """Seconds per frame, and before the first, from a short and a longer call of `speak(frames)`."""
    speak(2)
    readings = []
    for count in (2, 2 + frames):
        watch = Stopwatch(device)
        speak(count)
        readings.append(watch.read())
    per_frame = {clock: (readings[1][clock] - readings[0][clock]) / frames for clock in readings[0]}
    start = {clock: max(readings[0][clock] - 2 * per_frame[clock], 0.0) for clock in readings[0]}
    return {"frame": per_frame, "start": start}


def time_call(call: Callable[[], Any], device: torch.device | str, repeats: int = 3) -> dict[str, float]:
    """The fastest of a few calls after a first one that is not counted."""
    call()
    readings = []
    for _ in range(repeats):
        watch = Stopwatch(device)
        call()
        readings.append(watch.read())
    return {clock: min(reading[clock] for reading in readings) for clock in ("wall", "cpu")}
