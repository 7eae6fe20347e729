"""The methods that ask a person: password (RFC 4252 section 8) and keyboard-interactive (RFC 4256).

Answers go to the server and nowhere else. Every line of a server's words is
shown behind the name of the login: no server can write a line that looks like
a question for another hop, or like words of our own.
"""

from __future__ import annotations

import os

from relay.errors import RelayError
from relay.ssh.pubkey import BadKey, string
from relay.ssh.wire.userauth import More, who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.config.settings import HopSettings
    from relay.run.prompt import Prompt
    from relay.ssh.pubkey import Reader
    from relay.ssh.wire.userauth import Answer, Dialogue

_MOST_PROMPTS = 64  # of one INFO_REQUEST; a person is asked for each
_MOST_ROUNDS = 64  # INFO_REQUESTs of one login: an askpass program would answer them without end
_MOST_CHANGES = 8  # requests in a row for another new password
_MOST_LINES = 64  # of the server's words that ask nothing


class Password:
    """The password of one account, asked for as often as NumberOfPasswordPrompts says.

    attempts: how many have been sent.
    """

    def __init__(self, dialogue: Dialogue, settings: HopSettings, prompt: Prompt) -> None:
        self.attempts = 0
        self._dialogue = dialogue
        self._prompt = prompt
        self._who = who(settings)
        self._most = settings.number("numberofpasswordprompts", 3)

    def attempt(self) -> Answer | None:
        """Ask and send; None when it has been asked often enough. Raises NobodyToAsk and Cancelled."""
        if self.attempts >= self._most:
            return None
        if self.attempts:
            self._prompt.tell("permission denied, please try again")
        password = _secret(self._prompt, f"{self._who}'s password: ")
        self.attempts += 1
        answer = self._dialogue.request("password", b"\0" + string(password))
        for _ in range(_MOST_CHANGES):
            if not isinstance(answer, More):
                return answer
            answer = self._change(answer.body)
        raise RelayError("the server does not stop asking for a new password")

    def _change(self, request: Reader) -> Answer:
        """The server wants a new password before it lets anybody in (SSH_MSG_USERAUTH_PASSWD_CHANGEREQ)."""
        self._prompt.tell(_marked(f"{self._who}: ", f"the server wants a new password: {_text(request.string())}"))
        old = _secret(self._prompt, f"{self._who}'s old password: ")
        while True:
            new = _secret(self._prompt, f"{self._who}'s new password: ")
            if new == _secret(self._prompt, f"{self._who}'s new password, again: "):
                break
            self._prompt.tell("the two are not the same; try again")
        return self._dialogue.request("password", b"\1" + string(old) + string(new))


class Interactive:
    """Whatever the server asks, in as many rounds as it wants.

    attempts: how many times it was begun.
    """

    def __init__(self, dialogue: Dialogue, settings: HopSettings, prompt: Prompt) -> None:
        self.attempts = 0
        self._dialogue = dialogue
        self._prompt = prompt
        self._mark = f"({who(settings)}) "
        self._most = settings.number("numberofpasswordprompts", 3)
        devices = settings.get("kbdinteractivedevices")
        self._devices = "" if devices == "none" else devices
        self._rounds = 0
        self._quiet = not settings.shows_banners
        self._lines_left = _MOST_LINES

    def attempt(self) -> Answer | None:
        """One dialogue to its end; None when it has been begun often enough, or the server asks nothing at all.

        Raises NobodyToAsk and Cancelled.
        """
        if self.attempts >= self._most or (self.attempts and not self._rounds):
            return None
        self.attempts += 1
        answer = self._dialogue.request("keyboard-interactive", string(b"") + string(self._devices.encode()))
        while isinstance(answer, More):
            self._rounds += 1
            if self._rounds > _MOST_ROUNDS:
                raise RelayError(f"the server does not stop asking: {_MOST_ROUNDS} rounds of keyboard-interactive")
            answer = self._dialogue.respond(self._answers(answer.body))
        return answer

    def _answers(self, request: Reader) -> list[bytes]:
        """The answers to one INFO_REQUEST (section 3.2)."""
        try:
            words = [_text(request.string()), _text(request.string())]
            request.string()  # language
            count = request.number()
            if count > _MOST_PROMPTS:
                raise BadKey("too many questions")
            questions = [(_text(request.string()), request.number(1) != 0) for _ in range(count)]
        except BadKey as error:
            raise RelayError(f"the server's questions cannot be read: {error}") from error
        for text in filter(None, words):
            self._tell(text, needed=bool(questions))
        return [_secret(self._prompt, text, mark=self._mark, echo=echo) for text, echo in questions]

    def _tell(self, text: str, *, needed: bool) -> None:
        """Show the server's words, with the mark before each line.

        They keep their lines, whatever the terminal's rows are: a line may be an address to visit.
        needed: a question follows; without one they are like a banner, and bounded.
        """
        lines = text.split("\n")
        if not needed:
            lines = [] if self._quiet else lines[: self._lines_left]
            self._lines_left -= len(lines)
        if lines:
            self._prompt.tell(_marked(self._mark, "\n".join(lines)))


def _marked(mark: str, text: str) -> str:
    """Text with a mark before each of its lines."""
    return "\n".join(f"{mark}{line}" for line in text.split("\n"))


def _secret(prompt: Prompt, question: str, *, mark: str = "", echo: bool = False) -> bytes:
    """What a person types, as bytes. mark: as for Prompt.ask."""
    return os.fsencode(prompt.ask(question, mark=mark, echo=echo))


def _text(raw: bytes) -> str:
    """A server's words. The code that shows them strips terminal control characters."""
    return raw.decode(errors="replace").strip("\r\n")
