"""The contract of speaking models, once for every registered one."""

import pytest

from tests.common.model_tester import SpeakingModelTester, load_tester, speaking_model_types
from tests.common.speaking import SpeakingFolderTests, SpeakingTests


@pytest.fixture(params=speaking_model_types())
def tester(request: pytest.FixtureRequest) -> SpeakingModelTester:
    """The tester of each family in turn."""
    return load_tester(request.param)


class TestSpeaking(SpeakingTests):
    """Speech, whole and in chunks."""


class TestSpeakingFolder(SpeakingFolderTests):
    """Saved folders, pipelines and files."""
