"""What the weights take: matrix by matrix from a config.json, or byte by byte from a checkpoint.

names       the patterns by which quantisation configs name layers
linears     one weight matrix, and the bytes that vLLM allocates for it
families    the matrices of each model family that is known by name
hybrids     those of Gated DeltaNet, Mamba-2 and gpt-oss models
vision      the size of a vision tower
stored      bytes by role and format, as `vllm-spark model` writes them into models/
headers     reads those bytes from the headers of safetensors files
"""
