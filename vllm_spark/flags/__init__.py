"""vLLM's flags by release: how they are written, what became of them, what is wrong with them.

Public face: `engine_flags.EngineFlags`, a server's flags parsed once, and `checks.check`.
"""
