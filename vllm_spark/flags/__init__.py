"""vLLM's flags by release: their syntax, their history, and the checks of a config's flags.

Public face: `engine_flags.EngineFlags`, a server's flags parsed once, and `checks.check`.
"""
