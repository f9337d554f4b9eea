"""What a last good deployment is, and the config that deploys it again.

It is everything that made one server answer: its settings without secrets, the image by id and
digest, the model by its commit. `components/last_good.py` records it in the state after the health
gate has passed; `vllm-spark rollback` reads it there.

It contains no secrets, because an old key should not come back. A rollback uses the secrets that
the config file has now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import ROLLBACK, SECRETS, Settings, as_value
from vllm_spark.config.stack_file import encrypted
from vllm_spark.deployment.config_diff import Config
from vllm_spark.deployment.records import record_of
from vllm_spark.errors import RollbackError

RESOURCE = "pulumi-python:dynamic/spark:LastGood"


def without_secrets(config: Config) -> dict[str, Any]:
    """The config's keys of this program as values, without secrets and encrypted values."""
    secret = {f"{NAMESPACE}:{key}" for key in SECRETS}
    return {
        key: as_value(value)
        for key, value in config.items()
        if key.startswith(f"{NAMESPACE}:") and key not in secret and not encrypted(value)
    }


@dataclass(frozen=True)
class LastGoodDeployment:
    """One deployment of one server that has answered.

    `declared` are its settings from `Settings.declared`; `fetched` identifies the fetch that
    returned `commit`.
    """

    server: str
    declared: Mapping[str, Any]
    image_id: str
    image_digest: str
    commit: str
    fetched: str
    container_id: str
    answered_at: datetime
    ready_seconds: float | None = None
    """From the start of its container to the first answer."""

    @classmethod
    def of_state(cls, resources: list[dict[str, Any]]) -> dict[str, Self]:
        """The records among a state's resources, by server; empty if no server ever answered."""
        outputs = [one["outputs"] for one in resources if one["type"] == RESOURCE]
        return {
            record["server"]: cls(
                server=record["server"],
                declared=record["settings"],
                image_id=record["imageId"],
                image_digest=record["imageDigest"],
                commit=record["commit"],
                fetched=record["fetched"],
                container_id=record["containerId"],
                answered_at=datetime.fromisoformat(output["answeredAt"]),
                ready_seconds=record.get("readySeconds"),
            )
            for output in outputs
            if (record := record_of(output)).get("settings")
        }

    @property
    def settings(self) -> Settings:
        """The settings as this release reads them. ConfigError if it refuses them now."""
        return Settings.from_declared(self.declared)

    def __str__(self) -> str:
        settings = self.settings
        return (
            f"{settings.model.id} with {settings.image.name}, "
            f"which answered {self.answered_at:%Y-%m-%d %H:%M} UTC"
        )

    @property
    def config(self) -> dict[str, Any]:
        """The settings as the keys of a config file, without secrets."""
        return _as_config(self.declared)

    def pinned(self, image_now: str | None, fetched_now: str | None) -> dict[str, Any]:
        """The declaration that deploys the same image and commit again.

        `image_now` is the id of the image that has the name now, None if none has; `fetched_now`
        identifies the last fetch. A name that still means the same is kept as written: a pin would
        differ from the config file, and cost a restart once that file is corrected.
        """
        declared, settings = dict(self.declared), self.settings
        if image_now != self.image_id:
            if not self.image_digest:
                raise RollbackError(self._image_is_lost(settings.image.name, image_now))
            image = {"name": self.image_digest}
            if settings.image.version is not None:
                image["vllmVersion"] = str(settings.image.version)
            declared["image"] = image
        if fetched_now != self.fetched and self.commit:
            model = settings.model.model_dump(by_alias=True, exclude_none=True)
            declared["model"] = {**model, "revision": self.commit}
        return declared

    def _image_is_lost(self, name: str, image_now: str | None) -> str:
        why = f"is now {image_now[:19]}" if image_now else "is gone from this host"
        return (
            f"what answered was the image {self.image_id[:19]}; {name} {why}, "
            "and it has no digest to pull it by\n"
            f"  fix: docker tag {self.image_id[:19]} {name}, if it is there, or build it again"
        )

    def stack_file(self, given: Config, pinned: Mapping[str, Any]) -> dict[str, Any]:
        """The config file `given`, with these settings for this server instead of its own.

        RollbackError if the last good server required an API key and the file has none: without a
        key, the server would answer anyone who can reach its port.
        """
        config = dict(given.get("config") or {})
        api_key = f"{NAMESPACE}:apiKey"
        if self.settings.api_key is not None and not encrypted(config.get(api_key)):
            raise RollbackError(
                f"the last good server asked its clients for a key, and the config has no "
                f"{api_key} any more\n  fix: pulumi config set --secret {api_key}"
            )
        config[f"{NAMESPACE}:{ROLLBACK}"] = {self.server: dict(pinned)}
        return {**given, "config": config}


def _as_config(declared: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{NAMESPACE}:{key}": value for key, value in declared.items() if key not in SECRETS}
