"""Scripts for the Python of the engine's image, fed to it through standard input.

They run in one-shot containers, where the cache is mounted and the hub's client installed.
"""
