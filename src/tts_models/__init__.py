"""Open text-to-speech models with the conventions of transformers.

Importing this package is cheap (no torch) and makes `AutoConfig`, `AutoModel`, `AutoModelForTextToWaveform`,
`AutoProcessor`, `AutoFeatureExtractor` and `pipeline("text-to-speech")` know every model in it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .registration import register_models


__version__ = "0.1.0"

# Module -> the public names it defines, imported at first use.
_PUBLIC_NAMES = {
    "models.campplus": [
        "CAMPPlusConfig",
        "CAMPPlusFeatureExtractor",
        "CAMPPlusModel",
        "CAMPPlusOutput",
        "CAMPPlusPreTrainedModel",
    ],
    "models.chatterbox": [
        "ChatterboxConfig",
        "ChatterboxFeatureExtractor",
        "ChatterboxForConditionalGeneration",
        "ChatterboxOutput",
        "ChatterboxPreTrainedModel",
        "ChatterboxProcessor",
        "ChatterboxT3Config",
        "ChatterboxT3Model",
        "ChatterboxVoice",
        "ChatterboxVoiceEncoder",
        "ChatterboxVoiceEncoderConfig",
    ],
    "models.hiftnet": [
        "HiFTNetConfig",
        "HiFTNetFeatureExtractor",
        "HiFTNetModel",
        "HiFTNetOutput",
        "HiFTNetPreTrainedModel",
        "HiFTNetStream",
    ],
    "models.maya1": ["Maya1Config", "Maya1ForConditionalGeneration", "Maya1PreTrainedModel", "Maya1Processor"],
    "models.megatts3": [
        "MegaTTS3AlignerConfig",
        "MegaTTS3AlignerForConditionalGeneration",
        "MegaTTS3Config",
        "MegaTTS3DurationConfig",
        "MegaTTS3DurationModel",
        "MegaTTS3FeatureExtractor",
        "MegaTTS3ForConditionalGeneration",
        "MegaTTS3PreTrainedModel",
        "MegaTTS3Processor",
        "MegaTTS3TextEncoderConfig",
        "MegaTTS3TransformerConfig",
        "MegaTTS3TransformerModel",
        "MegaTTS3VAEConfig",
        "MegaTTS3VAEModel",
        "MegaTTS3Voice",
    ],
    "models.qwen3_tts": [
        "Qwen3TTSCodePredictor",
        "Qwen3TTSCodePredictorConfig",
        "Qwen3TTSConfig",
        "Qwen3TTSFeatureExtractor",
        "Qwen3TTSForConditionalGeneration",
        "Qwen3TTSPreTrainedModel",
        "Qwen3TTSProcessor",
        "Qwen3TTSSpeakerEncoder",
        "Qwen3TTSSpeakerEncoderConfig",
        "Qwen3TTSTalker",
        "Qwen3TTSTalkerConfig",
        "Qwen3TTSVoice",
    ],
    "models.qwen3_tts_tokenizer": [
        "Qwen3TTSTokenizerConfig",
        "Qwen3TTSTokenizerDecoder",
        "Qwen3TTSTokenizerDecoderConfig",
        "Qwen3TTSTokenizerDecoderOutput",
        "Qwen3TTSTokenizerDecoderStream",
        "Qwen3TTSTokenizerEncoder",
        "Qwen3TTSTokenizerEncoderConfig",
        "Qwen3TTSTokenizerEncoderOutput",
        "Qwen3TTSTokenizerFeatureExtractor",
        "Qwen3TTSTokenizerModel",
        "Qwen3TTSTokenizerOutput",
        "Qwen3TTSTokenizerPreTrainedModel",
    ],
    "models.s3gen": [
        "S3GenChunks",
        "S3GenConfig",
        "S3GenModel",
        "S3GenOutput",
        "S3GenPreTrainedModel",
        "S3GenProcessor",
        "S3GenStream",
        "drop_invalid_tokens",
        "load_s3gen_reference",
        "save_s3gen_reference",
    ],
    "models.s3_tokenizer": [
        "S3TokenizerConfig",
        "S3TokenizerFeatureExtractor",
        "S3TokenizerModel",
        "S3TokenizerOutput",
        "S3TokenizerPreTrainedModel",
    ],
    "models.snac": [
        "SnacConfig",
        "SnacDecoderOutput",
        "SnacEncoderOutput",
        "SnacFeatureExtractor",
        "SnacModel",
        "SnacOutput",
        "SnacPreTrainedModel",
    ],
    "speech_generation": ["SpeechChunk", "SpeechOutput"],
    "voices": ["DEFAULT_VOICE", "default_voice"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC_NAMES.items() for name in names}

if TYPE_CHECKING:
    from .models.campplus import (
        CAMPPlusConfig,
        CAMPPlusFeatureExtractor,
        CAMPPlusModel,
        CAMPPlusOutput,
        CAMPPlusPreTrainedModel,
    )
    from .models.chatterbox import (
        ChatterboxConfig,
        ChatterboxFeatureExtractor,
        ChatterboxForConditionalGeneration,
        ChatterboxOutput,
        ChatterboxPreTrainedModel,
        ChatterboxProcessor,
        ChatterboxT3Config,
        ChatterboxT3Model,
        ChatterboxVoice,
        ChatterboxVoiceEncoder,
        ChatterboxVoiceEncoderConfig,
    )
    from .models.hiftnet import (
        HiFTNetConfig,
        HiFTNetFeatureExtractor,
        HiFTNetModel,
        HiFTNetOutput,
        HiFTNetPreTrainedModel,
        HiFTNetStream,
    )
    from .models.maya1 import Maya1Config, Maya1ForConditionalGeneration, Maya1PreTrainedModel, Maya1Processor
    from .models.megatts3 import (
        MegaTTS3AlignerConfig,
        MegaTTS3AlignerForConditionalGeneration,
        MegaTTS3Config,
        MegaTTS3DurationConfig,
        MegaTTS3DurationModel,
        MegaTTS3FeatureExtractor,
        MegaTTS3ForConditionalGeneration,
        MegaTTS3PreTrainedModel,
        MegaTTS3Processor,
        MegaTTS3TextEncoderConfig,
        MegaTTS3TransformerConfig,
        MegaTTS3TransformerModel,
        MegaTTS3VAEConfig,
        MegaTTS3VAEModel,
        MegaTTS3Voice,
    )
    from .models.qwen3_tts import (
        Qwen3TTSCodePredictor,
        Qwen3TTSCodePredictorConfig,
        Qwen3TTSConfig,
        Qwen3TTSFeatureExtractor,
        Qwen3TTSForConditionalGeneration,
        Qwen3TTSPreTrainedModel,
        Qwen3TTSProcessor,
        Qwen3TTSSpeakerEncoder,
        Qwen3TTSSpeakerEncoderConfig,
        Qwen3TTSTalker,
        Qwen3TTSTalkerConfig,
        Qwen3TTSVoice,
    )
    from .models.qwen3_tts_tokenizer import (
        Qwen3TTSTokenizerConfig,
        Qwen3TTSTokenizerDecoder,
        Qwen3TTSTokenizerDecoderConfig,
        Qwen3TTSTokenizerDecoderOutput,
        Qwen3TTSTokenizerDecoderStream,
        Qwen3TTSTokenizerEncoder,
        Qwen3TTSTokenizerEncoderConfig,
        Qwen3TTSTokenizerEncoderOutput,
        Qwen3TTSTokenizerFeatureExtractor,
        Qwen3TTSTokenizerModel,
        Qwen3TTSTokenizerOutput,
        Qwen3TTSTokenizerPreTrainedModel,
    )
    from .models.s3_tokenizer import (
        S3TokenizerConfig,
        S3TokenizerFeatureExtractor,
        S3TokenizerModel,
        S3TokenizerOutput,
        S3TokenizerPreTrainedModel,
    )
    from .models.s3gen import (
        S3GenChunks,
        S3GenConfig,
        S3GenModel,
        S3GenOutput,
        S3GenPreTrainedModel,
        S3GenProcessor,
        S3GenStream,
        drop_invalid_tokens,
        load_s3gen_reference,
        save_s3gen_reference,
    )
    from .models.snac import (
        SnacConfig,
        SnacDecoderOutput,
        SnacEncoderOutput,
        SnacFeatureExtractor,
        SnacModel,
        SnacOutput,
        SnacPreTrainedModel,
    )
    from .speech_generation import SpeechChunk, SpeechOutput
    from .voices import DEFAULT_VOICE, default_voice


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})


register_models()

__all__ = [
    "CAMPPlusConfig",
    "CAMPPlusFeatureExtractor",
    "CAMPPlusModel",
    "CAMPPlusOutput",
    "CAMPPlusPreTrainedModel",
    "ChatterboxConfig",
    "ChatterboxFeatureExtractor",
    "ChatterboxForConditionalGeneration",
    "ChatterboxOutput",
    "ChatterboxPreTrainedModel",
    "ChatterboxProcessor",
    "ChatterboxT3Config",
    "ChatterboxT3Model",
    "ChatterboxVoice",
    "ChatterboxVoiceEncoder",
    "ChatterboxVoiceEncoderConfig",
    "DEFAULT_VOICE",
    "HiFTNetConfig",
    "HiFTNetFeatureExtractor",
    "HiFTNetModel",
    "HiFTNetOutput",
    "HiFTNetPreTrainedModel",
    "HiFTNetStream",
    "Maya1Config",
    "Maya1ForConditionalGeneration",
    "Maya1PreTrainedModel",
    "Maya1Processor",
    "MegaTTS3AlignerConfig",
    "MegaTTS3AlignerForConditionalGeneration",
    "MegaTTS3Config",
    "MegaTTS3DurationConfig",
    "MegaTTS3DurationModel",
    "MegaTTS3FeatureExtractor",
    "MegaTTS3ForConditionalGeneration",
    "MegaTTS3PreTrainedModel",
    "MegaTTS3Processor",
    "MegaTTS3TextEncoderConfig",
    "MegaTTS3TransformerConfig",
    "MegaTTS3TransformerModel",
    "MegaTTS3VAEConfig",
    "MegaTTS3VAEModel",
    "MegaTTS3Voice",
    "Qwen3TTSCodePredictor",
    "Qwen3TTSCodePredictorConfig",
    "Qwen3TTSConfig",
    "Qwen3TTSFeatureExtractor",
    "Qwen3TTSForConditionalGeneration",
    "Qwen3TTSPreTrainedModel",
    "Qwen3TTSProcessor",
    "Qwen3TTSSpeakerEncoder",
    "Qwen3TTSSpeakerEncoderConfig",
    "Qwen3TTSTalker",
    "Qwen3TTSTalkerConfig",
    "Qwen3TTSTokenizerConfig",
    "Qwen3TTSTokenizerDecoder",
    "Qwen3TTSTokenizerDecoderConfig",
    "Qwen3TTSTokenizerDecoderOutput",
    "Qwen3TTSTokenizerDecoderStream",
    "Qwen3TTSTokenizerEncoder",
    "Qwen3TTSTokenizerEncoderConfig",
    "Qwen3TTSTokenizerEncoderOutput",
    "Qwen3TTSTokenizerFeatureExtractor",
    "Qwen3TTSTokenizerModel",
    "Qwen3TTSTokenizerOutput",
    "Qwen3TTSTokenizerPreTrainedModel",
    "Qwen3TTSVoice",
    "S3GenChunks",
    "S3GenConfig",
    "S3GenModel",
    "S3GenOutput",
    "S3GenPreTrainedModel",
    "S3GenProcessor",
    "S3GenStream",
    "drop_invalid_tokens",
    "load_s3gen_reference",
    "save_s3gen_reference",
    "S3TokenizerConfig",
    "S3TokenizerFeatureExtractor",
    "S3TokenizerModel",
    "S3TokenizerOutput",
    "S3TokenizerPreTrainedModel",
    "SnacConfig",
    "SnacDecoderOutput",
    "SnacEncoderOutput",
    "SnacFeatureExtractor",
    "SnacModel",
    "SnacOutput",
    "SnacPreTrainedModel",
    "SpeechChunk",
    "SpeechOutput",
    "default_voice",
]
