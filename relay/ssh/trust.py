"""Whether a hop's host key is the one that the user's known_hosts files hold."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from typing import TYPE_CHECKING

from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.progress import Progress
    from relay.prompt import Prompt
    from relay.settings import HopSettings


class Trust:
    """The host keys that are known for a hop."""

    def __init__(self, settings: HopSettings, progress: Progress, prompt: Prompt) -> None:  # noqa: ARG002
        name = settings.get("hostkeyalias")
        port = settings.port
        self._name = name or (settings.hostname if port == 22 else f"[{settings.hostname}]:{port}")
        self._known: set[tuple[str, str]] = set()
        for path in settings.paths("userknownhostsfile") + settings.paths("globalknownhostsfile"):
            found = subprocess.run(
                ["ssh-keygen", "-F", self._name, "-f", path], capture_output=True, text=True, check=False
            )
            for line in found.stdout.splitlines():
                words = line.split()
                if len(words) >= 3 and not line.startswith("#"):
                    self._known.add((words[1], words[2]))

    def algorithms(self, offered: Sequence[str]) -> list[str]:
        """The host key algorithms to ask for, those of known keys first."""
        kinds = {kind for kind, _ in self._known}
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in kinds else set()
        return sorted(offered, key=lambda name: name not in kinds)

    def verify(self, blob: bytes) -> None:
        """Raise RelayError unless the key is known."""
        text = base64.b64encode(blob).decode()
        if text in {key for _, key in self._known}:
            return
        print_ = "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        if self._known:
            raise RelayError(f"the host key of {self._name} has CHANGED: {print_}")
        raise RelayError(f"the host key of {self._name} is not known: {print_}")
