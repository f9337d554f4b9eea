"""Which Docker daemon is meant, found as the docker CLI 28.2 finds it, and what its errors say."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from docker.transport.unixconn import UnixHTTPConnection

from tests.fake_daemon import FakeDaemon, hangs_up, refuses
from vllm_spark.docker_host.connection import (
    DEFAULT_SOCKET,
    NO_DAEMON,
    connect,
    docker_errors,
    plugin_variables,
    preview_variables,
    resolve,
)
from vllm_spark.errors import DockerRefused, DockerUnavailable

MakeContext = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the docker CLI's config, and nothing in the environment."""
    for name in ("HOST", "CONTEXT", "TLS_VERIFY", "CERT_PATH"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


@pytest.fixture
def make_context(config: Path) -> MakeContext:
    """Makes a context as `docker context create` does; returns its folder for TLS material."""

    def make(name: str, host: str, *, skip_verify: bool = False) -> Path:
        hashed = hashlib.sha256(name.encode()).hexdigest()
        meta = config / "contexts" / "meta" / hashed / "meta.json"
        meta.parent.mkdir(parents=True)
        endpoint = {"Host": host, "SkipTLSVerify": skip_verify}
        content = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
        meta.write_text(json.dumps(content))
        return config / "contexts" / "tls" / hashed / "docker"

    return make


def use(config: Path, context: str) -> None:
    (config / "config.json").write_text(json.dumps({"auths": {}, "currentContext": context}))


ELSEWHERE = "unix:///run/user/1000/docker.sock"
"""Where rootless Docker listens."""


def test_without_anything_it_is_the_default_socket(config: Path) -> None:
    assert str(resolve()) == f"{DEFAULT_SOCKET} (the default socket)"
    assert resolve().is_local_socket


def test_the_context_in_use_decides(config: Path, make_context: MakeContext) -> None:
    make_context("rootless", ELSEWHERE)
    assert resolve().address == DEFAULT_SOCKET, "a context that is not in use"
    use(config, "rootless")
    found = resolve()
    assert (found.address, found.context) == (ELSEWHERE, "rootless")
    assert str(found) == f"{ELSEWHERE} (the Docker context rootless)"


def test_the_variable_names_a_context_also_where_there_is_no_config_file(
    monkeypatch: pytest.MonkeyPatch, make_context: MakeContext
) -> None:
    make_context("rootless", ELSEWHERE)
    monkeypatch.setenv("DOCKER_CONTEXT", "rootless")
    assert resolve().address == ELSEWHERE


def test_the_host_goes_before_the_variable_and_that_before_the_context_in_use(
    config: Path, monkeypatch: pytest.MonkeyPatch, make_context: MakeContext
) -> None:
    make_context("used", "unix:///run/used.sock")
    make_context("named", "unix:///run/named.sock")
    use(config, "used")
    monkeypatch.setenv("DOCKER_CONTEXT", "named")
    assert resolve().address == "unix:///run/named.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert resolve().address == DEFAULT_SOCKET
    monkeypatch.setenv("DOCKER_CONTEXT", "nosuch")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/given.sock")
    assert str(resolve()) == "unix:///run/given.sock (DOCKER_HOST)"


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_an_empty_variable_is_none(
    variable: str, config: Path, monkeypatch: pytest.MonkeyPatch, make_context: MakeContext
) -> None:
    make_context("rootless", ELSEWHERE)
    use(config, "rootless")
    monkeypatch.setenv(variable, "")
    assert resolve().address == ELSEWHERE


@pytest.mark.parametrize("content", ['{"currentContext": ""}', "{}", "{", "[]"])
def test_a_config_file_that_names_no_context_means_the_default(config: Path, content: str) -> None:
    (config / "config.json").write_text(content)
    assert resolve().address == DEFAULT_SOCKET


def test_a_context_brings_its_certificates(config: Path, make_context: MakeContext) -> None:
    tls = make_context("far", "tcp://spark.example:2376")
    tls.mkdir(parents=True)
    for name in ("ca", "cert", "key"):
        (tls / f"{name}.pem").write_text(name)
    use(config, "far")
    found = resolve()
    assert found.tls is not None
    assert found.tls.cert == (str(tls / "cert.pem"), str(tls / "key.pem"))
    assert (found.tls.ca_cert, found.tls.verify) == (str(tls / "ca.pem"), True)
    assert not found.is_local_socket


def test_a_context_may_ask_for_tls_that_is_not_verified(
    config: Path, make_context: MakeContext
) -> None:
    make_context("far", "tcp://spark.example:2376", skip_verify=True)
    use(config, "far")
    tls = resolve().tls
    assert tls is not None
    assert not tls.verify


def test_the_certificates_of_the_environment_are_not_for_a_context(
    config: Path, monkeypatch: pytest.MonkeyPatch, make_context: MakeContext
) -> None:
    make_context("far", "tcp://spark.example:2375")
    use(config, "far")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", "/nowhere")
    assert resolve().tls is None


def test_certificates_that_are_not_there_are_said(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", "/nowhere")
    with pytest.raises(DockerUnavailable, match=r"DOCKER_CERT_PATH(.|\n)*fix: put ca\.pem"):
        connect()


def test_a_context_that_is_gone_is_said_with_the_fix(config: Path) -> None:
    use(config, "gone")
    with pytest.raises(DockerUnavailable) as failed:
        connect()
    assert "the Docker context gone cannot be used: there is none of this name" in str(failed.value)
    assert "fix: `docker context ls` lists them" in str(failed.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "Expecting property name"),
        ('{"Name": "broken", "Metadata": {}, "Endpoints": {}}', "it has no Docker endpoint"),
        ('{"Name": "broken", "Endpoints": null}', "NoneType"),
        ("[]", "list indices"),
    ],
)
def test_a_context_that_is_broken_is_said(
    config: Path, make_context: MakeContext, content: str, why: str
) -> None:
    make_context("broken", ELSEWHERE)
    next(config.glob("contexts/meta/*/meta.json")).write_text(content)
    use(config, "broken")
    with pytest.raises(DockerUnavailable, match=f"context broken cannot be used: .*{why}"):
        connect()


@pytest.mark.skipif(shutil.which("docker") is None, reason="compares with the docker CLI")
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"DOCKER_CONTEXT": "named"},
        {"DOCKER_CONTEXT": "default"},
        {"DOCKER_CONTEXT": ""},
        {"DOCKER_HOST": "unix:///run/given.sock", "DOCKER_CONTEXT": "named"},
        {"DOCKER_HOST": "", "DOCKER_CONTEXT": "named"},
    ],
)
def test_the_docker_cli_comes_to_the_same_answer(
    environment: dict[str, str],
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("named", "used"):
        host = f"host=unix:///run/{name}.sock"
        _docker("context", "create", name, "--docker", host)
    _docker("context", "use", "used")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shown = _docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    if (given := environment.get("DOCKER_HOST")) is not None and given:
        shown = given  # `context inspect` shows contexts only
    assert resolve().address == shown


def _docker(*arguments: str) -> str:
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


# What Pulumi's docker plugin is told, which reads variables and no context in use


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, {}),
        ({"DOCKER_HOST": "tcp://far:2375"}, {}),
        ({"DOCKER_CONTEXT": "rootless"}, {"DOCKER_HOST": ELSEWHERE, "DOCKER_CONTEXT": ""}),
        ({"DOCKER_CONTEXT": "default"}, {"DOCKER_CONTEXT": ""}),
        (
            {"DOCKER_HOST": "tcp://far:2375", "DOCKER_CONTEXT": "rootless"},
            {"DOCKER_CONTEXT": ""},
        ),
    ],
)
def test_the_plugin_is_told_only_what_it_would_not_find_itself(
    environment: dict[str, str],
    told: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    make_context: MakeContext,
) -> None:
    make_context("rootless", ELSEWHERE)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert plugin_variables() == told


def test_the_plugin_is_told_which_context_is_in_use(
    config: Path, make_context: MakeContext
) -> None:
    make_context("rootless", ELSEWHERE)
    use(config, "rootless")
    assert plugin_variables() == {"DOCKER_HOST": ELSEWHERE}


def test_a_preview_goes_without_a_daemon_only_where_none_answers(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert preview_variables() == {}
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    assert preview_variables()["DOCKER_HOST"] == NO_DAEMON
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")
    assert preview_variables() == {"DOCKER_HOST": NO_DAEMON, "DOCKER_CONTEXT": ""}


# What a person reads


def test_a_socket_that_is_not_there_is_said_with_the_command_that_starts_docker(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = f"unix://{tmp_path}/docker.sock"
    monkeypatch.setattr("vllm_spark.docker_host.connection.DEFAULT_SOCKET", missing)
    with pytest.raises(DockerUnavailable) as failed:
        connect()
    assert str(failed.value) == (
        f"no Docker daemon answers at {missing} (the default socket): No such file or directory\n"
        "  fix: start it: `sudo systemctl start docker`"
    )


@pytest.mark.parametrize("given", [True, False], ids=["DOCKER_HOST", "the default socket"])
def test_a_socket_that_this_user_may_not_open_is_a_matter_of_the_group(
    given: bool, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_connection: object) -> None:
        raise PermissionError(13, "Permission denied")

    group = grp.struct_group(("docker", "x", 999, ["somebody"]))
    monkeypatch.setattr(grp, "getgrnam", lambda _name: group)
    monkeypatch.setattr(UnixHTTPConnection, "connect", refused)
    if given:
        monkeypatch.setenv("DOCKER_HOST", DEFAULT_SOCKET)
    with pytest.raises(DockerUnavailable, match="Permission denied\n  fix: `sudo usermod -aG"):
        connect()


def test_a_member_of_the_group_who_has_not_logged_in_again_is_told_that(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_connection: object) -> None:
        raise PermissionError(13, "Permission denied")

    me = pwd.getpwuid(os.getuid()).pw_name
    group = grp.struct_group(("docker", "x", 999, ["somebody", me]))
    monkeypatch.setattr(grp, "getgrnam", lambda _name: group)
    monkeypatch.setattr(UnixHTTPConnection, "connect", refused)
    with pytest.raises(DockerUnavailable, match=r"in the group docker since .*: log in again"):
        connect()


def test_rootless_docker_is_said_where_it_listens_and_how_it_starts(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listens = tmp_path / "docker.sock"
    rootless = f"unix://{listens}"
    monkeypatch.setattr("vllm_spark.docker_host.connection.rootless_socket", lambda: listens)
    monkeypatch.setattr("vllm_spark.docker_host.connection.DEFAULT_SOCKET", "unix:///nowhere/x")
    with pytest.raises(DockerUnavailable, match="sudo systemctl start docker"):
        connect()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listens))
        with pytest.raises(DockerUnavailable, match=f"fix: export DOCKER_HOST={rootless}"):
            connect()
    listens.unlink()
    monkeypatch.setenv("DOCKER_HOST", rootless)
    with pytest.raises(DockerUnavailable, match="systemctl --user start docker"):
        connect()


def test_a_daemon_that_is_down_is_said_with_who_named_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, make_context: MakeContext
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(DockerUnavailable) as failed:
        connect()
    assert str(failed.value) == (
        f"no Docker daemon answers at {address} (DOCKER_HOST): Connection refused\n"
        "  fix: start it there, or unset DOCKER_HOST to use the daemon of this machine"
    )
    monkeypatch.delenv("DOCKER_HOST")
    make_context("far", address)
    use(config, "far")
    with pytest.raises(DockerUnavailable, match=r"Docker context far\).*\n.*docker context use"):
        connect()


def test_a_host_whose_name_is_unknown_is_said(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setenv("DOCKER_HOST", "tcp://nosuch.invalid:2375")
    with pytest.raises(DockerUnavailable, match=r"nosuch.*: Name or service not known"):
        connect()


def test_an_address_that_is_none_is_said(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "spark")
    with pytest.raises(DockerUnavailable, match=r"at spark \(DOCKER_HOST\)"):
        connect()


def test_what_a_daemon_refuses_is_no_daemon_that_is_down(daemon: FakeDaemon) -> None:
    daemon.fault("GET /info", refuses(500, "the disk is full"))
    with (
        pytest.raises(DockerRefused, match="refuses: the disk is full\n  fix: see its log"),
        docker_errors(),
    ):
        connect().info()


def test_a_daemon_that_hangs_up_once_connected_is_down(daemon: FakeDaemon) -> None:
    daemon.fault("GET /info", hangs_up)
    with pytest.raises(DockerUnavailable, match=r"docker\.sock \(DOCKER_HOST\)"), docker_errors():
        connect().info()


def test_an_error_of_ours_inside_passes_unchanged(daemon: FakeDaemon) -> None:
    ours = DockerUnavailable("said already")
    with pytest.raises(DockerUnavailable) as failed, docker_errors():
        raise ours
    assert failed.value is ours


def test_every_client_has_a_limit_on_each_read(daemon: FakeDaemon) -> None:
    assert connect().api.timeout == 60
    assert connect(5).api.timeout == 5


def test_client_and_daemon_agree_on_a_version_of_the_api_that_both_know(
    daemon: FakeDaemon,
) -> None:
    oldest, newest = daemon.version["MinAPIVersion"], daemon.version["ApiVersion"]
    assert connect().api.api_version == {"1.41": "1.41", "1.51": "1.51", "1.56": "1.51"}[newest]
    assert connect().info()["Name"] == "spark"
    daemon.version["MinAPIVersion"] = newest
    assert connect().api.api_version == newest, f"no longer taken: {oldest}"


@pytest.mark.parametrize("wanted", ["1.30", "1.99", "v1.5", "newest", "1.44.0"])
def test_a_version_of_the_api_that_the_docker_cli_would_be_refused_with_is_said(
    wanted: str, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.version["MinAPIVersion"] = "1.40"
    monkeypatch.setenv("DOCKER_API_VERSION", wanted)
    with pytest.raises(DockerUnavailable) as failed, docker_errors():
        connect()
    assert str(failed.value) == (
        f"DOCKER_API_VERSION is {wanted.removeprefix('v')}, and the Docker daemon at "
        f"{daemon.address} (DOCKER_HOST), which is {daemon.version['Version']}, takes 1.40 to "
        f"{daemon.version['ApiVersion']}\n"
        "  fix: unset DOCKER_API_VERSION: every client agrees on a version by itself"
    )


@pytest.mark.parametrize("wanted", ["", "1.41", "v1.41"])
def test_a_version_of_the_api_that_the_daemon_takes_is_left_to_the_docker_cli(
    wanted: str, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_API_VERSION", wanted)
    assert connect().info()["Name"] == "spark"
