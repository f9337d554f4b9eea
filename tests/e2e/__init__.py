"""End-to-end tests with the real Pulumi engine, a real Docker daemon and a real vLLM."""
