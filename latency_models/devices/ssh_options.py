"""The checks of options for ssh: none may let a host go unrecognised, and a stranger's none may run a program."""

from __future__ import annotations

import getopt
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# ssh(1)'s flags, as its getopt has them.
_FLAGS = "1246AB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVW:XYab:c:e:fgi:kl:m:no:p:qstvw:xy"
_SETTING = re.compile(r"\s*(\w+)\s*(?:=|\s)\s*(.*?)\s*")
_NO_FILE = ("/dev/null", "none")
_CHECKING = ("yes", "true", "ask", "accept-new")
_NOT_A_SESSION = {
    "-G": "prints settings", "-N": "runs no command", "-O": "commands a running ssh", "-Q": "prints what ssh can do",
    "-V": "prints ssh's version", "-W": "forwards input", "-f": "goes to the background", "-n": "closes the input",
    "-s": "asks for a subsystem", "-t": "asks for a terminal",
}  # fmt: skip
# What says where and how to connect, and chooses neither a program nor a file to write or to trust.
_PLAIN_FLAGS = ("-4", "-6", "-C", "-i", "-l", "-p", "-q")
_PLAIN_SETTINGS = (
    *("addressfamily", "compression", "connectionattempts", "connecttimeout", "identitiesonly", "identityfile", "port"),
    *("serveralivecountmax", "serveraliveinterval", "tcpkeepalive", "user"),
)


def runs_nothing(options: Sequence[str]) -> bool:
    """Whether options, which `refusal` accepts, only say where and how to connect.

    Others name programs (ProxyCommand, LocalCommand, a provider of keys), files of settings that may name some, files
    that are written, or hosts in between.
    """
    pairs, _ = getopt.getopt(list(options), _FLAGS)
    for flag, value in pairs:
        if flag == "-o":
            match = _SETTING.fullmatch(value)
            if match is None or match[1].lower() not in _PLAIN_SETTINGS:
                return False
        elif flag not in _PLAIN_FLAGS:
            return False
    return True


def refusal(options: Sequence[str]) -> str | None:
    """The reason why these options for ssh are refused; None where they are accepted.

    All of them have to be options, so that none passes for the destination; the command that is sent must keep its
    input and output; and the host's key has to be checked against a known one.
    """
    try:
        pairs, rest = getopt.getopt(list(options), _FLAGS)
    except getopt.GetoptError as error:
        return f"not an option of ssh: {error.msg}"
    if rest or "--" in options:
        return f"{rest[0] if rest else '--'!r} is no option; the destination belongs into host"
    for flag, value in pairs:
        if flag in _NOT_A_SESSION:
            return f"{flag} {_NOT_A_SESSION[flag]}, but the model's measuring runs as a command with input and output"
        if flag == "-o" and (reason := _refused_setting(value)) is not None:
            return reason
    return None


def _refused_setting(text: str) -> str | None:
    match = _SETTING.fullmatch(text)
    if match is None:
        return f"-o {text!r} has no form that ssh reads; valid: Name=value"
    name, value = match[1].lower(), match[2].strip('"').lower()
    why = "without a check of its key, any machine could answer in the host's place"
    if name == "stricthostkeychecking" and value not in _CHECKING:
        return f"-o {match[1]}={match[2]} turns the check of the host's key off: {why}; valid: {', '.join(_CHECKING)}"
    if name == "nohostauthenticationforlocalhost" and value in ("yes", "true"):
        return f"-o {match[1]}={match[2]} turns the check of the host's key off: {why}"
    if name == "userknownhostsfile" and (not value or any(part in _NO_FILE for part in value.split())):
        return f"-o {match[1]}={match[2]} remembers no host's key: {why}; valid: a file of known hosts"
    if name == "knownhostscommand" and value != "none":
        return (
            f"-o {match[1]} takes whatever keys a command prints for the host's: {why}; valid: UserKnownHostsFile=FILE"
        )
    return None
