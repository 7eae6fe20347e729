"""What the README and docs/ say is run: blocks of ssh_config, commands, each client's spellings, each recipe.

The lines are read from the documents themselves; desk.py says how they are run.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from desk import DOCUMENTS, README, Desk, blocks, code, parts, reaches, table
from desk import RECIPES as RECIPES_PAGE
from lab import CHAINS, ROOT, Lab
from peers import need


@pytest.fixture
def desk(lab: Lab) -> Desk:
    return Desk(lab)


def test_the_block_and_the_commands(desk: Desk) -> None:
    block, *commands = [text for text in blocks("Use") if text.startswith(("Host", "ssh"))]
    assert block.splitlines()[0] == f"Host {CHAINS}"
    desk.configure(block.splitlines())
    first, *others = commands[0].splitlines()
    reaches(desk, first)
    assert desk.logins() == {"h1": [desk.other], "h2": [desk.lab.user], "h3": [desk.lab.user]}
    for other in others:
        reaches(desk, other)
        assert desk.logins() == {"h1": [desk.other], "h2": [desk.lab.user], "h3": [desk.lab.user]}


def test_the_block_that_is_printed(desk: Desk) -> None:
    (line,) = [text for text in blocks("Use") if text.startswith("pyrelay --ssh-config")]
    command, file = line.split(" > ")
    assert file == "~/.ssh/pyrelay.conf"
    desk.lab.head = "Include pyrelay.conf"
    printed = desk.run(command).stdout
    assert f"`Include {file.removeprefix('~/.ssh/')}` as the first line of ~/.ssh/config" in printed
    desk.lab.head = printed.replace(str(desk.lab.program), "pyrelay").replace("KnownHostsCommand", "#")
    reaches(desk, "ssh h1/h2/h3")


def test_the_block_for_the_key_that_is_known(desk: Desk) -> None:
    (block,) = [text for text in blocks("If you use something else now", RECIPES_PAGE) if "KnownHostsCommand" in text]
    known = desk.lab.known_hosts.read_text()
    desk.lab.known_hosts.write_text(known.replace(",*/h3,*+h3 ", " "))
    program = desk.path.split(os.pathsep)[0] + "/pyrelay"  # told of the lab's ssh_config
    desk.configure(block.replace("/usr/local/bin/pyrelay", program).splitlines())
    reaches(desk, "ssh h1/h2/h3")


def test_what_the_box_says_of_users(desk: Desk) -> None:
    for wrong, right in re.findall(r"`(ssh u1@\S+)`.*`(ssh -l u3 [^`]+)`", DOCUMENTS[README]):
        desk.run(f"{wrong} true")
        assert "h1" not in desk.logins()
        reaches(desk, right)
        assert set(desk.logins()) == {"h1", "h3"}
        break
    else:
        pytest.fail("the box is gone")


def test_the_error_in_the_readme_is_the_one_that_is_printed(desk: Desk) -> None:
    shown = next(text for text in blocks("When it fails") if text.startswith("pyrelay: "))
    port = desk.lab.closed("h2")
    shown = shown.replace("2022", str(port)).replace("to h2 port", "to 127.0.0.1 port")  # the lab's h2 is there
    assert f"{shown}\n" in desk.run(f"ssh u1%h1+h2:{port}+h3 true").stderr
    assert desk.logins() == {"h1": [desk.other]}


def test_the_error_in_the_manual_is_the_one_that_is_printed(desk: Desk) -> None:
    page = (ROOT / "man/pyrelay.1").read_text().splitlines()
    shown = next(line for line in page if line.startswith("pyrelay: hop 2 of 3 (u1@h2:2022): "))
    port = desk.lab.closed("h2")
    shown = desk.real(shown.replace("2022", str(port)).replace("to h2 port", "to 127.0.0.1 port"))
    assert f"{shown}\n" in desk.run(f"ssh h1+u1%h2:{port}+h3+h3 true").stderr


def test_the_block_that_shares(desk: Desk) -> None:
    (block,) = blocks("Many connections through one bastion")
    desk.configure(block.splitlines())
    for _ in range(2):
        reaches(desk, "ssh h1/h3")
    assert desk.logins() == {"h1": [desk.other], "h3": [desk.lab.user] * 2}
    assert desk.run("pyrelay -O exit").returncode == 0


RECIPES = table("recipe")[1:]


@pytest.mark.parametrize(("recipe", "now", "then"), RECIPES, ids=[row[0] for row in RECIPES])
def test_each_recipe_has_its_pyrelay_line(desk: Desk, recipe: str, now: str, then: str) -> None:
    config, commands = parts(then)
    assert commands
    for netcat in re.findall(r"\b(nc|ncat|socat)\b", then):
        need(netcat)
    if "--netcat" in then:
        desk.deny_forwarding("h1")
    if config:
        desk.configure(config)
    if "HostKeyAlias h3" in config:  # then the target's key need be known by that name only
        known = desk.lab.known_hosts.read_text().replace(",*/h3,*+h3 ", ",h3 ")
        desk.lab.known_hosts.write_text(known)
    for command in commands:
        reaches(desk, command)
    assert set(desk.logins()) >= set(re.findall(r"\bh[12]\b", then))


# Recipes of which the old side can be run here: the others need names that a hop itself resolves.
STILL = [
    row
    for row in RECIPES
    if row[0]
    in {"jump hosts", "with users and ports", "jump hosts in the config", "`ssh -W`", "a chain of `ssh -W`", "netcat"}
]


@pytest.mark.parametrize(("recipe", "now", "then"), STILL, ids=[row[0] for row in STILL])
def test_the_old_recipe_takes_the_same_way(desk: Desk, recipe: str, now: str, then: str) -> None:
    ways = []
    for cell in (now, then):
        config, commands = parts(cell)
        if config:
            desk.configure(config)
        for command in commands or parts(then)[1]:
            reaches(desk, command)
        ways.append(desk.logins())
    assert ways[0] == ways[1]


def test_the_line_for_batch_mode(desk: Desk) -> None:
    lines = [
        span
        for span in re.findall(r"`([^`\n]*)`", DOCUMENTS[RECIPES_PAGE])
        if span.startswith("ProxyCommand") and " -o " in span
    ]
    assert len(lines) == 1
    desk.configure(lines)
    reaches(desk, "ssh h1/h3")


CLIENTS = table("client")
SPELLINGS = [code(cell)[0] for cell in CLIENTS[0][1:]]
ENDINGS = {"git": "copy", "rsync": "copy", "scp": "copy", "sftp": "", "ssh": "'echo $SERVER'"}


@pytest.mark.parametrize("row", CLIENTS[1:], ids=[code(row[0])[0] for row in CLIENTS[1:]])
def test_each_client_takes_the_spellings_that_the_table_says(desk: Desk, row: list[str]) -> None:
    (form,) = code(row[0])
    client = form.split()[0]
    need(client)
    path = str(desk.lab["h3"].home / ("repo" if client == "git" else "file"))
    taken = []
    for spelling in SPELLINGS:
        line = re.sub(r"\bn\b", spelling, re.sub("/?path", path, form)) + (" h2" if "-J" in form else "")
        before = len(desk.lab["h3"].connections)
        ran = desk.run(f"rm -rf copy; {line} {ENDINGS[client]}")
        taken.append(ran.returncode == 0 and len(desk.lab["h3"].connections) == before + 1)
    assert taken == [cell == "yes" for cell in row[1:]]
    assert {"yes", "no"} >= set(row[1:])


@pytest.mark.parametrize("line", [line for text in blocks("Working on it") for line in text.splitlines()])
def test_the_makefile_has_the_targets(line: str) -> None:
    command, _, _ = line.partition("#")
    done = subprocess.run(
        [need("make"), "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_ways_to_install_are_there() -> None:
    ways = {code(row[2])[0] for row in table("for", README)[1:]}
    assert ways == {"pipx install .", "sudo make install"}
    done = subprocess.run([need("make"), "-n", "install"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert (ROOT / "pyproject.toml").is_file()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", DOCUMENTS[name]):
        assert "://" in target or (ROOT / name).parent.joinpath(target).is_file(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_anchor_is_a_heading(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([^):]*)#([^)]+)", DOCUMENTS[name]):
        text = (ROOT / name).parent.joinpath(target).read_text() if target else DOCUMENTS[name]
        headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_every_test_that_is_named_is_there() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    there = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    for name, text in DOCUMENTS.items():
        assert set(re.findall(r"`(test_\w+)`", text)) <= there, name
