"""Logging in to a hop: identity files, for now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import paramiko

from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.progress import Progress
    from relay.prompt import Prompt
    from relay.settings import HopSettings


def login(transport: Any, settings: HopSettings, progress: Progress, prompt: Prompt) -> None:  # noqa: ARG001
    """Log in with the identity files. Raises RelayError."""
    for path in settings.paths("identityfile"):
        if not os.path.exists(path):
            continue
        try:
            key = paramiko.PKey.from_path(path)
            transport.auth_publickey(settings.user, key)
        except paramiko.SSHException as error:
            progress.note(1, f"{path}: {error}")
            continue
        return
    raise RelayError(f"{settings.user}: permission denied (publickey)")
