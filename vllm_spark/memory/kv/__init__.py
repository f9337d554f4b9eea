"""The KV cache as vLLM lays it out: kinds of layers, pages, groups of layers, blocks, tokens.

    cached_layers   which layers of a config.json keep a cache, and how large it is
    specs           block and page of each kind of layer, for a server's flags
    pool            the general core: groups, blocks, pages for one request, tokens
    releases        what of it changed between releases of vLLM
    deepseek_v4     the one model whose blocks are packed by a rule of its own

Read in vLLM's source, releases 0.11.0 to 0.33.0: `vllm/v1/core/kv_cache_utils.py` (since 0.31
`kv_cache_planning.py`), `vllm/v1/kv_cache_interface.py`, `vllm/platforms/interface.py`.
"""
