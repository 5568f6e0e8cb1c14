"""Bad input ends in a `ValueError` that says what was wrong."""

import pytest

from .model_tester import ModelTester


class InputErrorTests:
    """Mixin: inherit it and provide a `tester` fixture."""

    def test_bad_input_is_refused(self, tester: ModelTester) -> None:
        calls = tester.invalid_calls(tester.model())
        assert calls, "every family has input that it must refuse"
        for name, (call, message) in calls.items():
            with pytest.raises(ValueError, match=message):
                call()
                pytest.fail(f"accepted: {name}")
