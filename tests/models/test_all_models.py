"""The common suite, once for every registered family: a new one is tested by being registered and having a tester."""

import pytest

from tests.common.batching import BatchingTests
from tests.common.compiling import CompilingTests
from tests.common.configuration import ConfigurationTests
from tests.common.input_errors import InputErrorTests
from tests.common.model_tester import ModelTester, load_tester, model_types
from tests.common.saving import SavingTests
from tests.common.streaming import StreamingTests
from tests.common.training import TrainingTests


@pytest.fixture(params=model_types())
def tester(request: pytest.FixtureRequest) -> ModelTester:
    """The tester of each family in turn."""
    return load_tester(request.param)


class TestConfiguration(ConfigurationTests):
    """Configurations."""


class TestSaving(SavingTests):
    """Saving and loading."""


class TestBatching(BatchingTests):
    """Batches and padding."""


class TestStreaming(StreamingTests):
    """Streaming of codecs."""


class TestTraining(TrainingTests):
    """Loss and gradients."""


class TestCompiling(CompilingTests):
    """Compilation of the decode step."""


class TestInputErrors(InputErrorTests):
    """Refused input."""
