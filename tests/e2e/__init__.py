"""End to end: the real Pulumi engine, a real Docker engine, a real vLLM."""
