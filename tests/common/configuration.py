"""Configurations survive every way of storing them, and refuse what makes no model."""

from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from .model_tester import ModelTester


class ConfigurationTests:
    """Mixin: inherit it and provide a `tester` fixture."""

    def test_dictionary_round_trip(self, tester: ModelTester) -> None:
        config = tester.config()
        assert tester.config_class(**config.to_dict()).to_dict() == config.to_dict()

    def test_saved_round_trip(self, tester: ModelTester, tmp_path: Path) -> None:
        config = tester.config()
        config.save_pretrained(tmp_path)
        reloaded = AutoConfig.from_pretrained(tmp_path)
        assert type(reloaded) is tester.config_class
        ignored = {"_name_or_path", "transformers_version"}
        assert {k: v for k, v in reloaded.to_dict().items() if k not in ignored} == {
            k: v for k, v in config.to_dict().items() if k not in ignored
        }

    def test_sub_configs_keep_their_type(self, tester: ModelTester, tmp_path: Path) -> None:
        config = tester.config()
        config.save_pretrained(tmp_path)
        reloaded = AutoConfig.from_pretrained(tmp_path)
        for name in tester.config_class.sub_configs:
            assert type(getattr(reloaded, name)) is type(getattr(config, name))

    def test_default_configuration_is_valid(self, tester: ModelTester) -> None:
        assert tester.config_class().model_type == tester.config_class.model_type

    def test_invalid_values_are_refused(self, tester: ModelTester) -> None:
        cases = tester.invalid_configs()
        if not cases:
            pytest.skip("the family lists no invalid configuration")
        for arguments in cases:
            # A field of the wrong type raises the library's own error, which is no `ValueError`.
            with pytest.raises((ValueError, StrictDataclassError)):
                pytest.fail(f"accepted {arguments}: {tester.config(**arguments)}")
