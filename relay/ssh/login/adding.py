"""AddKeysToAgent: a key from a file that a hop took is given to the agent, so that nobody is asked for it again.

After maybe_add_key_to_agent in OpenSSH's sshconnect.c, which adds a key as soon as it is loaded.
"""

from __future__ import annotations

from relay.errors import RelayError
from relay.ssh.login.agent import Agent, AgentFailed, socket_path
from relay.ssh.login.keyfile import comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.config.settings import HopSettings
    from relay.run.progress import Progress
    from relay.run.prompt import Prompt
    from relay.ssh.login.keyfile import PrivateKey

_SECONDS = 20.0  # for the agent to take the key


def add(settings: HopSettings, key: PrivateKey, path: str, progress: Progress, prompt: Prompt) -> None:
    """AddKeysToAgent is on: give the agent the key as it says. path: the key's file.

    It is not an error if that cannot be done.
    """
    where = socket_path(settings.get("identityagent"), settings.environ)
    if where is None:
        return
    words = settings.get("addkeystoagent").split()  # "true", "ask", "confirm", "300", "confirm 300": `ssh -G`
    seconds = next((int(word) for word in words if word.isdecimal()), 0)
    comment = comment_of(f"{path}.pub") or path
    if "ask" in words and not _may(prompt, path, comment):
        progress.note(1, f"{path}: not added to the agent: nobody said yes")
        return
    try:
        agent = Agent(where, progress.left(_SECONDS))
        try:
            agent.add(key.for_agent(), comment, seconds=seconds, confirm="confirm" in words)
        finally:
            agent.close()
    except AgentFailed as error:
        progress.note(1, f"{path}: not added to the agent: {error}")
    else:
        progress.note(1, f"{path}: added to the agent")


def _may(prompt: Prompt, path: str, comment: str) -> bool:
    """Whether a person allows it. An askpass program is asked as ssh asks it (ask_permission, readpass.c)."""
    question = f"Add key {path} ({comment}) to agent?"
    try:
        return prompt.ask(f"{question} (yes/no) ", echo=True, askpass=question, confirm=True).strip().lower() == "yes"
    except RelayError:  # nobody to ask, or the question was cancelled
        return False
