"""Tests, by what they need: nothing, mocks, a Docker engine, everything."""
