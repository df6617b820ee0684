"""Fixtures of the tests of environments."""

from tests.environments.conda_fixtures import conda_cache, conda_channel, conda_channel_folder

__all__ = ["conda_cache", "conda_channel", "conda_channel_folder"]
