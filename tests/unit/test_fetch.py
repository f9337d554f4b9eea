"""What the container that fetches is given: the shell's proxies, where it can reach them."""

from __future__ import annotations

import os

import pytest

from vllm_spark.docker_host.fetch import proxies

LOCAL, FAR = "unix:///var/run/docker.sock", "ssh://spark"
NO = "localhost,.example"


@pytest.mark.parametrize(
    ("shell", "daemon", "given"),
    [
        ({}, LOCAL, {}),
        (
            {"https_proxy": "http://proxy:3128", "no_proxy": NO},
            LOCAL,
            {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": NO},
        ),
        ({"HTTP_PROXY": "proxy:3128"}, LOCAL, {"HTTP_PROXY": "proxy:3128"}),
        ({"ALL_PROXY": "socks5h://10.0.0.1:1080"}, LOCAL, {"ALL_PROXY": "socks5h://10.0.0.1:1080"}),
        ({"HTTPS_PROXY": "http://127.0.0.1:3128"}, LOCAL, {}),
        ({"HTTPS_PROXY": "localhost:3128", "NO_PROXY": NO}, LOCAL, {"NO_PROXY": NO}),
        ({"HTTPS_PROXY": "http://me:word@[::1]:3128"}, LOCAL, {}),
        ({"no_grpc_proxy": "127.0.0.1", "FTP_PROXY": "ftp:1"}, LOCAL, {}),
        ({"HTTPS_PROXY": "http://proxy:3128"}, FAR, {}),
    ],
)
def test_the_shells_proxies_are_for_a_container_of_this_machine_unless_on_its_loopback(
    shell: dict[str, str], daemon: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in {**shell, "DOCKER_HOST": daemon}.items():
        monkeypatch.setenv(name, value)
    assert proxies() == given
