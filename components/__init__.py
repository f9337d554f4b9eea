"""The Pulumi resources, one a file; `VllmServer` in `vllm_server.py` joins them."""
