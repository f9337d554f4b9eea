"""Tests, in folders by what they need: nothing, mocks, a Docker daemon, everything."""
