"""Makes every model of this package known to the Auto classes of `transformers`, without importing any of them.

The Auto mappings are filled when they are first asked, so that `import tts_models` costs nothing. If `transformers`
defines a model type of the same name itself, ours wins in the Auto classes (and says so once); the native classes stay
importable from `transformers`, and ours from `tts_models`.
"""

import importlib
import importlib.abc
import importlib.machinery
import logging
import sys
import threading
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from types import ModuleType
from typing import Any


logger = logging.getLogger(__name__)

# Model type -> Auto class -> our class. Every model folder under `models/` has an entry.
REGISTERED_MODELS: dict[str, dict[str, str]] = {
    "campplus": {
        "AutoConfig": "CAMPPlusConfig",
        "AutoModel": "CAMPPlusModel",
        "AutoProcessor": "CAMPPlusFeatureExtractor",
        "AutoFeatureExtractor": "CAMPPlusFeatureExtractor",
    },
    "chatterbox": {
        "AutoConfig": "ChatterboxConfig",
        "AutoModel": "ChatterboxForConditionalGeneration",
        "AutoModelForTextToWaveform": "ChatterboxForConditionalGeneration",
        "AutoProcessor": "ChatterboxProcessor",
        "AutoFeatureExtractor": "ChatterboxFeatureExtractor",
    },
    "deepfilternet": {
        "AutoConfig": "DeepFilterNetConfig",
        "AutoModel": "DeepFilterNetModel",
        "AutoProcessor": "DeepFilterNetFeatureExtractor",
        "AutoFeatureExtractor": "DeepFilterNetFeatureExtractor",
    },
    "hiftnet": {
        "AutoConfig": "HiFTNetConfig",
        "AutoModel": "HiFTNetModel",
        "AutoProcessor": "HiFTNetFeatureExtractor",
        "AutoFeatureExtractor": "HiFTNetFeatureExtractor",
    },
    "maya1": {
        "AutoConfig": "Maya1Config",
        "AutoModel": "Maya1ForConditionalGeneration",
        "AutoModelForTextToWaveform": "Maya1ForConditionalGeneration",
        "AutoProcessor": "Maya1Processor",
        "AutoFeatureExtractor": "SnacFeatureExtractor",
    },
    "megatts3": {
        "AutoConfig": "MegaTTS3Config",
        "AutoModel": "MegaTTS3ForConditionalGeneration",
        "AutoModelForTextToWaveform": "MegaTTS3ForConditionalGeneration",
        "AutoProcessor": "MegaTTS3Processor",
        "AutoFeatureExtractor": "MegaTTS3FeatureExtractor",
    },
    "metavoice": {
        "AutoConfig": "MetaVoiceConfig",
        "AutoModel": "MetaVoiceForConditionalGeneration",
        "AutoModelForTextToWaveform": "MetaVoiceForConditionalGeneration",
        "AutoProcessor": "MetaVoiceProcessor",
        "AutoFeatureExtractor": "MetaVoiceFeatureExtractor",
    },
    "qwen3_tts": {
        "AutoConfig": "Qwen3TTSConfig",
        "AutoModel": "Qwen3TTSForConditionalGeneration",
        "AutoModelForTextToWaveform": "Qwen3TTSForConditionalGeneration",
        "AutoProcessor": "Qwen3TTSProcessor",
        "AutoFeatureExtractor": "Qwen3TTSFeatureExtractor",
    },
    "qwen3_tts_tokenizer_12hz": {
        "AutoConfig": "Qwen3TTSTokenizerConfig",
        "AutoModel": "Qwen3TTSTokenizerModel",
        "AutoProcessor": "Qwen3TTSTokenizerFeatureExtractor",
        "AutoFeatureExtractor": "Qwen3TTSTokenizerFeatureExtractor",
    },
    "s3gen": {
        "AutoConfig": "S3GenConfig",
        "AutoModel": "S3GenModel",
        "AutoProcessor": "S3GenProcessor",
    },
    "s3_tokenizer": {
        "AutoConfig": "S3TokenizerConfig",
        "AutoModel": "S3TokenizerModel",
        "AutoProcessor": "S3TokenizerFeatureExtractor",
        "AutoFeatureExtractor": "S3TokenizerFeatureExtractor",
    },
    "snac": {
        "AutoConfig": "SnacConfig",
        "AutoModel": "SnacModel",
        "AutoProcessor": "SnacFeatureExtractor",
        "AutoFeatureExtractor": "SnacFeatureExtractor",
    },
}
# Model types that released configurations spell differently from our folder: model type -> folder.
MODEL_FOLDERS: dict[str, str] = {"qwen3_tts_tokenizer_12hz": "qwen3_tts_tokenizer"}

_AUTO_PACKAGE = "transformers.models.auto"
# Module of the Auto package -> its Auto classes, each with the mapping that backs it.
_AUTO_MODULES: dict[str, dict[str, str]] = {
    "configuration_auto": {"AutoConfig": "CONFIG_MAPPING"},
    "modeling_auto": {
        "AutoModel": "MODEL_MAPPING",
        "AutoModelForTextToWaveform": "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING",
    },
    "processing_auto": {"AutoProcessor": "PROCESSOR_MAPPING"},
    "feature_extraction_auto": {"AutoFeatureExtractor": "FEATURE_EXTRACTOR_MAPPING"},
}
# Native tables in which a class is searched by its name alone, before the registered classes.
_NAME_TABLES = {
    "processing_auto": "PROCESSOR_MAPPING_NAMES",
    "feature_extraction_auto": "FEATURE_EXTRACTOR_MAPPING_NAMES",
}
_announced: set[str] = set()


class LazyEntries(dict):
    """The registered part of one Auto mapping, whose entries of ours are imported when they are first looked up.

    Args:
        registrations: Name of a key (a model type, or the name of a configuration class) -> the call registering it.
        content: What was registered in the mapping before.
    """

    def __init__(self, registrations: dict[str, Callable[[], None]], content: dict[Any, Any]) -> None:
        super().__init__(content)
        self._registrations = dict(registrations)
        self._lock = threading.RLock()

    def _resolve(self, name: str | None) -> None:
        if name not in self._registrations:
            return
        with self._lock:
            register = self._registrations.pop(name, None)
            if register is None:
                return
            try:
                register()
            except BaseException:
                self._registrations[name] = register
                raise

    def _resolve_all(self) -> None:
        for name in list(self._registrations):
            self._resolve(name)

    def __contains__(self, key: object) -> bool:
        self._resolve(key if isinstance(key, str) else getattr(key, "__name__", None))
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        if key not in self:
            raise KeyError(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default

    def __len__(self) -> int:
        self._resolve_all()
        return super().__len__()

    def __iter__(self) -> Iterator[Any]:
        self._resolve_all()
        return super().__iter__()

    def keys(self) -> KeysView[Any]:
        self._resolve_all()
        return super().keys()

    def values(self) -> ValuesView[Any]:
        self._resolve_all()
        return super().values()

    def items(self) -> ItemsView[Any, Any]:
        self._resolve_all()
        return super().items()


def _class_named(name: str) -> type:
    return getattr(importlib.import_module("tts_models"), name)


def _announce_taken(model_type: str) -> None:
    if model_type in _announced:
        return
    _announced.add(model_type)
    logger.warning(
        "transformers has a model type %r of its own: with `tts_models` imported, the Auto classes load ours. "
        "The native classes can still be imported from `transformers` by name.",
        model_type,
    )


def _registration(auto_class: type, model_type: str, class_name: str) -> Callable[[], None]:
    """The call that registers our class `class_name` with `auto_class`, whether or not the name is taken."""

    def register() -> None:
        from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES

        if model_type in CONFIG_MAPPING_NAMES:
            _announce_taken(model_type)
        config_class = _class_named(REGISTERED_MODELS[model_type]["AutoConfig"])
        key = model_type if auto_class.__name__ == "AutoConfig" else config_class
        auto_class.register(key, _class_named(class_name), exist_ok=True)

    return register


def _registrations(auto_class: type) -> dict[str, Callable[[], None]]:
    is_config = auto_class.__name__ == "AutoConfig"
    return {
        model_type if is_config else classes["AutoConfig"]: _registration(
            auto_class, model_type, classes[auto_class.__name__]
        )
        for model_type, classes in REGISTERED_MODELS.items()
        if auto_class.__name__ in classes
    }


def _extend_auto_module(module: ModuleType) -> None:
    """Adds our entries to the mappings of one module of `transformers.models.auto`."""
    short_name = module.__name__.rpartition(".")[2]
    for auto_name, mapping_name in _AUTO_MODULES[short_name].items():
        mapping = getattr(module, mapping_name)
        if not isinstance(mapping._extra_content, LazyEntries):
            mapping._extra_content = LazyEntries(_registrations(getattr(module, auto_name)), mapping._extra_content)
    if short_name in _NAME_TABLES:
        table = getattr(module, _NAME_TABLES[short_name])
        for model_type in REGISTERED_MODELS:
            table.pop(model_type, None)


class _AutoModuleFinder(importlib.abc.MetaPathFinder):
    """Extends the Auto modules as soon as something imports them."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, short_name = fullname.rpartition(".")
        if package != _AUTO_PACKAGE or short_name not in _AUTO_MODULES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _extend_auto_module(module)

            spec.loader.exec_module = exec_module
        return spec


def register_models() -> None:
    """Registers every model with the Auto classes: now where their modules are loaded, else when they get loaded.

    Called once by `import tts_models`; calling it again changes nothing.
    """
    for short_name in _AUTO_MODULES:
        module = sys.modules.get(f"{_AUTO_PACKAGE}.{short_name}")
        if module is not None:
            _extend_auto_module(module)
    if not any(isinstance(finder, _AutoModuleFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AutoModuleFinder())


__all__ = ["MODEL_FOLDERS", "REGISTERED_MODELS", "register_models"]
