"""Times upstream's Qwen3-TTS and prints the result as JSON; `qwen3_tts.py` runs it in upstream's own environment.

The environment has `qwen-tts` 0.1.1 and the `transformers` 4.57.3 that it pins. What upstream imports for its 25 Hz
tokenizer and for reading audio, and this never calls, may be missing: empty modules then stand in.
"""

import argparse
import json

import torch
from qwen3_tts_common import Stopwatch, codec_config, forbid_end, model_config, prompt_ids, time_frames
from seeded_weights import build
from upstream_modules import stand_in_for_missing_modules


_UNUSED = ("librosa", "librosa.filters", "torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi")
_UNUSED += ("sox", "onnxruntime", "einops", "soundfile")


def main() -> None:
    """Frames, what comes before them, and the codec's decoding of a whole line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--line_frames", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    stand_in_for_missing_modules(_UNUSED)
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration
    from qwen_tts.core.tokenizer_12hz.modeling_qwen3_tts_tokenizer_v2 import (
        Qwen3TTSTokenizerV2Config,
        Qwen3TTSTokenizerV2Model,
    )

    config, dtype = Qwen3TTSConfig(**model_config(options.size)), getattr(torch, options.dtype)
    model = build(lambda: Qwen3TTSForConditionalGeneration(config)).to(options.device, dtype)
    forbid_end(model)
    ids = prompt_ids().to(options.device)

    def speak(frames: int) -> list[torch.Tensor]:
        codes, _ = model.generate(
            input_ids=[ids], languages=["auto"], non_streaming_mode=True, max_new_tokens=frames + 1
        )
        assert codes[0].shape == (frames, config.talker_config.num_code_groups)
        return codes

    result = time_frames(speak, options.frames, options.device)
    with torch.no_grad():
        codec = build(lambda: Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**codec_config())))
        codec = codec.to(options.device)
        codes = torch.randint(2048, (1, options.line_frames, 16), device=options.device)
        codec.decode(codes[:, :2])
        watch = Stopwatch(options.device)
        codec.decode(codes)
        result["codec"] = watch.read()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
