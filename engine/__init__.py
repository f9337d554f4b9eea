"""What we know about vLLM and the GB10: plain Python, no Pulumi, no Docker."""
