"""The login that an HTTP proxy demands: the challenges of a 407 response, and the answers to them. Pure.

    Proxy-Authenticate     = #challenge                                            RFC 9110 section 11.7.1
    challenge              = auth-scheme [ 1*SP ( token68 / #auth-param ) ]        section 11.3
    auth-param             = token BWS "=" BWS ( token / quoted-string )
    token68                = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="

The field is a list (section 5.6.1). Its members may stand in several lines, which mean the same as one line with
commas between them (section 5.3). Members may be empty. A comma also separates the parameters of one challenge, so
the parser recognises a new challenge by its form: a token that no "=" follows.

read                                         as
Negotiate, NTLM, Basic realm="x"             three challenges
Digest realm="a, Basic b"                    one, whose realm holds a comma
NTLM TlRMTVNTUAAC==, basic                   one with a token68, and one without anything
"""

from __future__ import annotations

from relay.spec.proxy import TCHARS
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_TOKEN = TCHARS.union(_LETTERS)
_TOKEN68 = frozenset(_LETTERS + "-._~+/")
_SPACE = " \t"


class Challenge(Value):
    """One way to log in that a proxy offers.

    scheme: its name in lower case. token: its token68, or "". parameters: its auth-params by name in lower case.
    """

    __slots__ = ("parameters", "scheme", "token")
    scheme: str
    token: str
    parameters: Mapping[str, str]

    def __init__(self, scheme: str, token: str = "", parameters: Mapping[str, str] | None = None) -> None:
        self._set(scheme=scheme, token=token, parameters=parameters or {})


def challenges(lines: Iterable[str]) -> list[Challenge]:
    """Parse the values of all Proxy-Authenticate lines into challenges. Whatever is not a challenge is skipped."""
    return _Reader(", ".join(lines)).challenges()


class _Reader:
    """The text of the field, and the position up to which it has been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def challenges(self) -> list[Challenge]:
        """Read the whole field."""
        found: list[tuple[str, str, dict[str, str]]] = []
        while self.at < len(self.text):
            self._skip(_SPACE + ",")
            name = self._run(_TOKEN)
            if not name:
                self._pass_over()
                continue
            if found and (value := self._value()) is not None:
                found[-1][2][name.lower()] = value
                continue
            found.append((name.lower(), self._token68(), {}))
        return [Challenge(*each) for each in found]

    def _run(self, letters: Iterable[str]) -> str:
        """Read a run of these letters."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in letters:
            self.at += 1
        return self.text[start : self.at]

    _skip = _run

    def _value(self) -> str | None:
        """Read an "=", with or without spaces around it, and return the value after it; None if there is no "="."""
        start = self.at
        self._skip(_SPACE)
        if self.text[self.at : self.at + 1] != "=":
            self.at = start
            return None
        self.at += 1
        self._skip(_SPACE)
        return self._quoted() if self.text[self.at : self.at + 1] == '"' else self._run(_TOKEN)

    def _quoted(self) -> str:
        """Read a quoted-string and return it without its quotes. It ends with the field at the latest."""
        said: list[str] = []
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != '"':
            self.at += self.text[self.at] == "\\"
            said.append(self.text[self.at : self.at + 1])
            self.at += 1
        self.at += 1
        return "".join(said)

    def _token68(self) -> str:
        """Read the token68 after a scheme; "" if parameters or the next challenge follow instead."""
        start = self.at
        if not self._skip(_SPACE):
            return ""
        token = self._run(_TOKEN68)
        token += self._run("=") if token else ""
        self._skip(_SPACE)
        if token and self.text[self.at : self.at + 1] in {"", ","}:
            return token
        self.at = start
        return ""

    def _pass_over(self) -> None:
        """Skip to the next comma outside quotes."""
        while self.at < len(self.text) and self.text[self.at] != ",":
            if self.text[self.at] == '"':
                self._quoted()
            else:
                self.at += 1
