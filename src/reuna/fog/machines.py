"""Which machines of the site come to the fog by MQTT, by its settings and the files that these name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reuna.core.errors import SettingsError
from reuna.core.mqtt_listener import MachineUser, MqttListener, check_users


def machines_of(settings: Mapping[str, Any]) -> MqttListener | None:
    """Which machines come by MQTT, if any. Raises `SettingsError`, also for a password without a file."""
    if not settings["mqtt.listen_port"]:
        return None
    check_users(settings["mqtt.users"])
    users = [
        MachineUser(
            name,
            password_in(name, Path(said["password_file"])),
            tuple(said.get("publish", ())),
            tuple(said.get("subscribe", ())),
        )
        for name, said in sorted(settings["mqtt.users"].items())
    ]
    return MqttListener(
        settings["mqtt.listen_port"],
        tuple(users),
        settings["mqtt.connections"],
        settings["mqtt.payload"],
        settings["mqtt.store_mib"],
    )


def password_in(name: str, file: Path) -> str:
    """The first line of the file. Raises `SettingsError`."""
    try:
        password = file.read_text("utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"mqtt.users.{name}: {file} cannot be read: {error}") from error
    if not password:
        raise SettingsError(f"mqtt.users.{name}: {file} has no password on its first line")
    return password
