"""Every model is known to the Auto classes, in whatever order things are imported, and even if its name is taken."""

import importlib
import subprocess
import sys

import pytest
import transformers

import tts_models
from tts_models.registration import REGISTERED_MODELS, LazyEntries, register_models


CASES = [(model_type, auto) for model_type, classes in REGISTERED_MODELS.items() for auto in classes]


def run_python(code: str) -> subprocess.CompletedProcess:
    """What `code` printed, run by a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def registered_class(model_type: str, auto: str) -> type:
    """The class that an Auto class has for a model type."""
    config_class = transformers.AutoConfig.for_model(model_type).__class__
    if auto == "AutoConfig":
        return config_class
    mappings = {
        "AutoModel": ("modeling_auto", "MODEL_MAPPING"),
        "AutoModelForTextToWaveform": ("modeling_auto", "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING"),
        "AutoProcessor": ("processing_auto", "PROCESSOR_MAPPING"),
        "AutoFeatureExtractor": ("feature_extraction_auto", "FEATURE_EXTRACTOR_MAPPING"),
    }
    module, mapping = mappings[auto]
    return getattr(importlib.import_module(f"transformers.models.auto.{module}"), mapping)[config_class]


@pytest.mark.parametrize(("model_type", "auto"), CASES)
def test_auto_class_knows_the_model(model_type: str, auto: str) -> None:
    assert registered_class(model_type, auto) is getattr(tts_models, REGISTERED_MODELS[model_type][auto])


def test_registering_again_changes_nothing() -> None:
    finders = len(sys.meta_path)
    register_models()
    assert len(sys.meta_path) == finders
    assert registered_class("snac", "AutoModel") is tts_models.SnacModel


def test_native_models_stay_as_they_are() -> None:
    mapping = transformers.MODEL_MAPPING
    assert mapping[transformers.LlamaConfig] is transformers.LlamaModel
    assert tts_models.SnacConfig in mapping.keys()


@pytest.mark.parametrize(
    "imports",
    [
        "import tts_models\nfrom transformers import AutoModel",
        "from transformers import AutoModel\nimport tts_models",
        "import tts_models\nfrom transformers import LlamaForCausalLM, pipeline\nfrom transformers import AutoModel",
    ],
)
def test_order_of_imports_does_not_matter(imports: str) -> None:
    code = f"{imports}\nprint(AutoModel._model_mapping[tts_models.SnacConfig].__module__)"
    assert run_python(code).stdout.strip() == "tts_models.models.snac.modeling_snac"


# As if a release of transformers had brought a `snac` of its own, with classes of the same names.
TAKEN = """
import sys, types
import transformers
from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel
from transformers.models.auto import auto_mappings
class SnacConfig(EncodecConfig):
    model_type = "snac"
class SnacModel(EncodecModel):
    config_class = SnacConfig
class SnacFeatureExtractor(EncodecFeatureExtractor):
    pass
native = types.ModuleType("transformers.models.snac")
native.SnacConfig, native.SnacModel, native.SnacFeatureExtractor = SnacConfig, SnacModel, SnacFeatureExtractor
sys.modules["transformers.models.snac"] = native
for module in ("auto_mappings", "configuration_auto", "feature_extraction_auto", "processing_auto"):
    module = __import__(f"transformers.models.auto.{module}", fromlist=["x"])
    for table, name in (
        ("CONFIG_MAPPING_NAMES", "SnacConfig"),
        ("FEATURE_EXTRACTOR_MAPPING_NAMES", "SnacFeatureExtractor"),
        ("PROCESSOR_MAPPING_NAMES", "SnacFeatureExtractor"),
    ):
        if hasattr(module, table):
            getattr(module, table)["snac"] = name
from transformers.models.auto import modeling_auto
modeling_auto.MODEL_MAPPING_NAMES["snac"] = "SnacModel"
modeling_auto.MODEL_MAPPING._reverse_config_mapping["SnacConfig"] = "snac"
import tts_models
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
config = AutoConfig.for_model("snac", encoder_hidden_size=4, decoder_hidden_size=32)
model = AutoModel.from_config(config)
from transformers.models.auto.feature_extraction_auto import feature_extractor_class_from_name
by_name = feature_extractor_class_from_name("SnacFeatureExtractor")
print(type(config).__module__, type(model).__module__, by_name.__module__)
print(type(model) is tts_models.SnacModel, modeling_auto.MODEL_MAPPING[SnacConfig] is SnacModel)
"""


def test_ours_wins_over_a_native_model_of_the_same_name_and_says_so_once() -> None:
    result = run_python(TAKEN)
    modules, flags = result.stdout.strip().splitlines()[-2:]
    assert all(module.startswith("tts_models.models.snac.") for module in modules.split())
    assert flags == "True True"
    assert result.stderr.count("has a model type 'snac' of its own") == 1


def test_failed_registration_is_tried_again() -> None:
    calls = []

    def register() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ImportError("broken for now")
        dict.__setitem__(entries, "example", int)

    entries = LazyEntries({"example": register}, {"other": str})
    assert entries["other"] is str and not calls
    with pytest.raises(ImportError):
        _ = "example" in entries
    assert entries["example"] is int
    assert set(entries) == {"other", "example"}
