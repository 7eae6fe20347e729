"""The further host keys that a hop may announce once somebody is logged in (UpdateHostKeys): who sees to them."""

from __future__ import annotations

from relay.ssh.wire.library import paramiko
from relay.ssh.wire.numbers import cMSG_GLOBAL_REQUEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.run.progress import Progress
    from relay.ssh.trust.trust import Trust
    from relay.ssh.wire.transport import Transport


def expect(transport: Transport, trust: Trust, progress: Progress) -> None:
    """Have the transport see to the keys that the server announces. trust: has verified the key that it showed."""
    policy = trust.update()
    if policy is None:
        return
    from relay.ssh.trust.update import Update  # only where keys are updated

    def send(body: bytes) -> None:
        try:
            transport._send_user_message(paramiko.Message(cMSG_GLOBAL_REQUEST + body))
        except (OSError, EOFError, paramiko.SSHException):
            pass  # the link has ended: nothing is updated

    place = progress.place
    transport.update = Update(policy, lambda text: progress.note(1, text, place=place))
    transport.update.log_in(transport.session_id, transport.agreed.host_key, send)
