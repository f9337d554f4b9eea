"""Finds everything that would prevent a container from starting, and stops what it may stop.

All of this happens while the old server still answers. A check that cannot be made is logged and is
no problem: only a known problem ends a deployment.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from docker.errors import DockerException, NotFound

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import Gpu
from vllm_spark.deployment.host_memory import (
    Meminfo,
    gpu_shortages,
    machine_misfits,
    memory_needed,
    shortage,
)
from vllm_spark.deployment.repositories import leaking_pin
from vllm_spark.deployment.review import misfits_of
from vllm_spark.deployment.tenants import Identity, Tenant, foreign, in_the_way
from vllm_spark.docker_host.connection import UNANSWERED, docker_errors
from vllm_spark.docker_host.host import DockerHost
from vllm_spark.docker_host.image_check import ImageAnswer, ask_image, flags_key, keep_prebuilt
from vllm_spark.errors import Interrupted, PreflightError
from vllm_spark.flags.checks import check
from vllm_spark.images import Version
from vllm_spark.problems import Problem, Unmodelled, listing

TAKEOVER_STOP_SECONDS = 30


@dataclass(frozen=True)
class Passed:
    """What is known after all checks have passed.

    `accepted` is the key of the accepted flags, "" if they were not checked. `version` is the
    release of vLLM that the image names; None if it does not, or was not asked.
    """

    accepted: str
    version: Version | None


@dataclass(frozen=True)
class Preflight:
    """The checks of one container that is about to be created.

    `image_id` is the id of the named image on the host; `accepted` is the `flags_key` of flags that
    this image is known to accept. Prints progress line by line.
    """

    name: str
    identity: Identity
    settings: Settings
    image_id: str
    accepted: str

    def run(self) -> Passed:
        """Run all checks. PreflightError lists every problem; DockerError if nobody answers.

        Interrupted after Ctrl-C.
        """
        with docker_errors():
            return self._run()

    def _run(self) -> Passed:
        settings, identity = self.settings, self.identity
        host = DockerHost(self.name, settings.image.name)
        ours = host.ours
        serves = ours is not None and bool(ours["State"]["Running"])
        key = flags_key(settings, self.image_id)
        # If nothing serves yet, there is nothing to protect, and the start reports the same error.
        about_flags = self.accepted != key and (serves or settings.gpu.takeover)
        if (another_processor := host.architecture_problem()) is not None:
            answer = ImageAnswer(problems=(another_processor,))
        else:
            if about_flags:
                self._say("asking the image's own vLLM about the flags")
            answer = ask_image(settings, about_flags=about_flags, image_id=self.image_id)
        told = self._about_release(answer.version)
        tenants = host.tenants(settings, identity, answer.gpus, answer.holders)
        stopped = tenants if settings.gpu.takeover else []
        problems = [] if settings.gpu.takeover else in_the_way(tenants)
        if ours is not None and (not_ours := foreign(ours, identity)) is not None:
            problems.append(not_ours)
        if (held := host.port_problem(settings.endpoint, stopped)) is not None:
            problems.append(held)
        # At the review of the stack, the cache may not have had the model's shape yet.
        problems += misfits_of(settings)
        problems += self._memory_problems(host, stopped, answer.gpus)
        problems += [*answer.problems, *told]
        if problems:
            untouched = f"; {self.name}, which runs, is left untouched" if serves else ""
            raise PreflightError(
                f"{self.name} cannot be started on this host{untouched}\n{listing(problems)}"
            )
        if answer.unknown:
            self._say(f"flags not checked: {answer.unknown}")
        self._keep_prebuilt(answer)
        self._take_over(host, stopped)
        if ours is not None and ours["State"]["Paused"]:
            self._say("it was paused; unpausing it")
            host.client.api.unpause(self.name)
        return Passed("" if answer.unknown else key, answer.version)

    def _about_release(self, found: Version | None) -> list[Problem]:
        """Problems of the flags, by the release that the image names, if nothing else told it.

        `image.vllmVersion` and the tag are believed first: a preview has judged by them.
        """
        told = self.settings.image.version
        if found is None or found == told:
            return []
        if told is not None:
            self._say(
                f"warning: the image holds vLLM {found}, not {told} as its tag or config says\n"
                f"  fix: pulumi config set --path vllm-spark:image.vllmVersion {found}"
            )
            return []
        self._say(f"the image holds vLLM {found}")
        for doubt in leaking_pin(self.settings, found):
            self._say(f"warning: {doubt}")
        return check(self.settings.engine, version=found).errors

    def _keep_prebuilt(self, answer: ImageAnswer) -> None:
        """Keep the kernels that the image brings. Without them, the server compiles its own."""
        if not answer.prebuilt:
            return
        places = ", ".join(source for source, _ in answer.prebuilt)
        self._say(f"keeping the kernels that the image brings in {places}")
        try:
            lost = keep_prebuilt(self.settings, answer)
        except (*UNANSWERED, TimeoutError) as error:
            lost = [str(error)]
        for line in lost:
            self._say(f"not kept: {line}")

    def _memory_problems(
        self, host: DockerHost, stopped: list[Tenant], gpus: Sequence[Gpu]
    ) -> list[Problem]:
        """Shortages that remain after old containers are gone; unknown memory is only logged."""
        settings = self.settings
        memory: Meminfo | None = None
        try:
            memory = host.memory()
        except (ValueError, DockerException) as error:
            self._say(f"memory not checked: the host does not tell ({error})")
        another_machine = machine_misfits(settings, memory, gpus)
        if another_machine:
            return self._unless_allowed(another_machine)
        returned = host.returned(settings, stopped)
        known = {who: gib for who, gib in returned.items() if not isinstance(gib, Unmodelled)}
        needed = memory_needed(settings)
        if not isinstance(needed, Unmodelled):
            short = memory and shortage(settings, needed, memory, known)
            shortages = [short] if short else []
        elif any(gpu.free_gib is not None for gpu in gpus):
            shortages = gpu_shortages(settings, gpus, known)
        else:
            self._say(f"memory not checked: {needed.reason}")
            return []
        unknown = [who for who in returned if who not in known]
        if shortages and unknown:
            self._say(
                f"memory not checked: nobody knows what {', '.join(unknown)} will give back; "
                f"besides, {shortages[0].what}"
            )
            return []
        return self._unless_allowed(shortages)

    def _unless_allowed(self, problems: list[Problem]) -> list[Problem]:
        """The problems; none if `host.allowMisfit` is set, which logs them instead."""
        if not self.settings.host.allow_misfit:
            return problems
        for problem in problems:
            self._say(f"{problem.where}: {problem.what}; host.allowMisfit lets it pass")
        return []

    def _take_over(self, host: DockerHost, stopped: list[Tenant]) -> None:
        """Stop the other servers on the GPU, after all other checks have passed."""
        for other in stopped:
            self._say(f"takes the GPU over: stopping {other}")
            back = f"`docker start {other.name}` brings it back"
            try:
                with suppress(NotFound):  # it has ended by itself
                    host.client.api.stop(other.name, timeout=TAKEOVER_STOP_SECONDS)
            except Interrupted:
                raise Interrupted(
                    f"interrupted while {other.name} was being stopped\n"
                    f"  Docker goes on stopping it; {back}."
                ) from None
            if other.restarts_always:
                back += (
                    ", and so does a restart of Docker, since its restart policy is `always`: "
                    f"`docker update --restart=unless-stopped {other.name}`"
                )
            self._say(f"{other.name} is stopped; {back}")

    def _say(self, line: str) -> None:
        print(f"{self.name}: {line}", flush=True)
