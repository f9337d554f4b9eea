"""The arguments and the environment of the server's container, from the settings."""

from __future__ import annotations

import re
from typing import NamedTuple

from vllm_spark.config.sections import LONGEST_START
from vllm_spark.config.settings import Settings
from vllm_spark.flags.history import KNOWN
from vllm_spark.images import serve_command

CACHE_PATH = "/root/.cache/huggingface"
"""The path of the cache in our containers; users of the guide already have their weights there."""


CONTAINER_PORT = 8000
"""vLLM's default. On the bridge the config sets only the port on the host."""

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Older clients, and scripts of the guide's users, read the second name."""

SECRET_VARIABLES = {"VLLM_API_KEY": "apiKey", **dict.fromkeys(TOKEN_VARIABLES, "huggingFaceToken")}
"""Each secret variable of the server, and the config key that it comes from."""


def container_name(settings: Settings, server: str, stack: str) -> str:
    """The container's name: the configured one, else after server and stack."""
    return settings.container.name or f"{server}-{stack}"


def server_arguments(settings: Settings) -> list[str]:
    """The arguments after the model's name in `vllm serve MODEL`.

    vLLM looks for weights in `--download-dir` and for the rest of the repository in HF_HUB_CACHE
    (see below); both are the same folder.
    """
    argv = [f"--download-dir={CACHE_PATH}"]
    if settings.model.revision is not None:
        argv.append(f"--revision={settings.model.revision}")
    # Offline, vLLM since 0.10.2 replaces the model's id by a path: pin the name that clients use.
    argv.append(f"--served-model-name={settings.served_name}")
    if settings.container.network == "host":
        endpoint = settings.endpoint
        argv += [f"--host={endpoint.bind}", f"--port={endpoint.port}"]
    argv += settings.engine.argv
    return argv + _drained(settings)


def server_command(settings: Settings) -> list[str]:
    """The container's command, in the form that this kind of image needs."""
    image, argv = settings.image, server_arguments(settings)
    return serve_command(image.reference, settings.model.id, argv, version=image.version)


DRAIN_SECONDS = 30
"""The grace period for requests in progress when the server is stopped: 1,200 tokens of the guide's
model. New requests are refused in that time, so a swap takes longer by as much."""

STOP_SECONDS = 10
"""The grace period for everything else. vLLM frees the GPU within 2 s of SIGTERM. Without draining
it then waits without a limit for its clients, whose streams get neither data nor an end (measured
on an H200); while EngineCore starts, it may ignore SIGTERM. A longer wait would only add
downtime."""


def stop_seconds(settings: Settings) -> int:
    """Seconds from SIGTERM to SIGKILL, for Pulumi and for `docker stop`."""
    told = settings.engine.get("shutdown-timeout")
    if told is None and _drained(settings):
        told = DRAIN_SECONDS
    return STOP_SECONDS + (int(told) if isinstance(told, int | float) else 0)


def _drained(settings: Settings) -> list[str]:
    """The flag that lets requests finish, if the image's vLLM is known to have it."""
    version = settings.image.version
    told = "shutdown-timeout" in settings.engine
    if told or version is None or not KNOWN["shutdown-timeout"].exists_in(version):
        return []
    return [f"--shutdown-timeout={DRAIN_SECONDS}"]


def server_environment(settings: Settings) -> dict[str, str]:
    """The container's environment without `compile_caches`, and without its secrets, which never
    become plain values here.
    """
    return {
        "HF_HUB_CACHE": CACHE_PATH,
        "HF_HUB_OFFLINE": "1",
        # OpenAI's vocabulary, which gpt-oss needs, is fetched with the weights.
        "TIKTOKEN_RS_CACHE_DIR": f"{CACHE_PATH}/{HARMONY}",
        # The health gate limits the start. The engine's own limit (600 s) must not end it earlier,
        # and must not follow the gate's limits, because a change would replace the container.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(LONGEST_START),
        **settings.container.environment,
    }


HARMONY = "harmony"
"""The folder of the cache for OpenAI's vocabulary; in_image/fetch_weights.py has the name too."""

COMPILED = "compiled"
"""The folder of the cache that holds compiled kernels, one folder below for each image."""


class CompileCache(NamedTuple):
    """Where a library keeps the kernels that it compiles while the server runs."""

    folder: str
    """Its folder among ours."""
    default: str
    """Its own place, if its variable is not set."""
    part: str = ""
    """What it adds to the value of its variable."""


COMPILE_CACHES = {
    "VLLM_CACHE_ROOT": CompileCache("vllm", "~/.cache/vllm"),
    "TORCHINDUCTOR_CACHE_DIR": CompileCache("torchinductor", "/tmp/torchinductor_root"),
    "TRITON_CACHE_DIR": CompileCache("triton", "~/.triton/cache"),
    "FLASHINFER_WORKSPACE_BASE": CompileCache("flashinfer", "~", ".cache/flashinfer"),
    "TILELANG_CACHE_DIR": CompileCache("tilelang", "~/.tilelang/cache"),
    "CUTE_DSL_CACHE_DIR": CompileCache("cute", "/tmp/root/cutlass_python_cache"),
    "TORCH_EXTENSIONS_DIR": CompileCache("torch-extensions", "~/.cache/torch_extensions"),
    "TVM_FFI_CACHE_DIR": CompileCache("tvm-ffi", "~/.cache/tvm-ffi"),
    "B12X_COMPILE_CACHE_DIR": CompileCache("b12x", "~/.cache/b12x/compile"),
}
"""Variables for the locations of compiled kernels.

A first start on an H200 took 291 s and the next one 74 s; VLLM_CACHE_ROOT (torch.compile and
DeepGEMM) saved nearly all of it. Names and defaults are those of vLLM 0.32.0, torch 2.13.0,
triton 3.7.1, tilelang 0.1.15 (env.py), nvidia-cutlass-dsl 4.8.1 (cache_helpers.py), apache-tvm-ffi
0.1.15 (cpp/extension.py) and b12x 1.5.1 (_lib/compiler.py)."""


def compiled_by(image: str, image_id: str) -> str:
    """The folder of one image's kernels, which are useless to another image and may break it.

    The name is for readers. The id (`sha256:` and the digest) tells two images of one tag apart.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "-", image)
    return f"{name}-{image_id.removeprefix('sha256:')[:12]}"


def compile_caches(settings: Settings, image_id: str) -> dict[str, str]:
    """The variables that keep compiled kernels in the cache, in a separate folder per image."""
    place = f"{CACHE_PATH}/{COMPILED}/{compiled_by(settings.image.name, image_id)}"
    told = settings.container.environment
    return {
        name: f"{place}/{cache.folder}"
        for name, cache in COMPILE_CACHES.items()
        if name not in told
    }
