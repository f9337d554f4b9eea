"""Tests, by what they need: nothing, mocks, a Docker daemon, everything."""
