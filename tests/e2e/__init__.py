"""End to end: the real Pulumi engine, a real Docker daemon, a real vLLM."""
