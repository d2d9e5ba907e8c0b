"""What is told of the peers."""

from __future__ import annotations

import ast
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Final

import pytest

from common.errors import ConfigurationError
from common.store.postgresql import server_url
from compare import peers
from compare.peers import INSTALL, PEERS, make_peer
from compare.peers.__main__ import main as list_peers
from compare.peers.peer import Terms
from compare.peers.topics import TOPICS

ROOT: Final = Path(__file__).parents[2]
URL: Final = "postgresql://somebody@localhost/postgres"


@pytest.mark.parametrize("name", PEERS)
def test_the_class_of_a_peer_is_there(name: str) -> None:
    """It bears the peer's name; it is looked up without importing a framework that may not be installed."""
    module, _, kind = PEERS[name].maker.partition(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind)
    names = [
        node.value.value
        for node in found.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id == "name"
        and isinstance(node.value, ast.Constant)
    ]
    assert names == [name]


@pytest.mark.parametrize("name", PEERS)
def test_the_page_tells_of_each_peer(name: str) -> None:
    """docs/peers.md has its name, its guarantees word for word, and what was set."""
    page = " ".join((ROOT / "docs" / "peers.md").read_text(encoding="utf-8").split())
    peer = PEERS[name]
    guarantees = peer.guarantees
    for text in (f"`{name}`", peer.title, guarantees.durability, guarantees.recovery, guarantees.effect):
        assert text in page
    for what, setting in peer.settings.items():
        assert f"{what}: {setting}" in page


def test_a_framework_that_is_missing_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a peer without its package is told how to install it, before anything is started."""

    def not_there(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(peers, "version", not_there)
    missing = PEERS["faststream"].missing()
    assert missing == f"faststream is not installed: {INSTALL}"
    with pytest.raises(ConfigurationError, match="faststream is not installed"):
        make_peer("faststream", Terms(folder=Path(), stock={}))


def test_an_unknown_peer_is_refused() -> None:
    """The error lists those that there are."""
    with pytest.raises(ConfigurationError, match="no peer 'tempral': choose from temporal, "):
        make_peer("tempral", Terms(folder=Path(), stock={}))


@pytest.mark.parametrize(
    ("name", "server", "mend"),
    [("dbos-postgresql", None, "set DATABASE_URL"), ("dbos-sqlite", URL, "leave DATABASE_URL out")],
)
def test_the_database_has_to_fit(name: str, server: str | None, mend: str) -> None:
    """A peer of one database isn't measured on the other under its name."""
    if (missing := PEERS[name].missing()) is not None:
        pytest.skip(missing)
    with pytest.raises(ConfigurationError, match=mend):
        make_peer(name, Terms(folder=Path(), stock={}, server=server_url(server) if server else None))


@pytest.mark.parametrize("url", [None, URL])
def test_the_list_says_what_does_not_fit(
    url: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever looks what can be measured is told what has to be set for it, if the rest is there."""
    monkeypatch.setattr(peers, "version", lambda _: "1.2.3")
    if url is None:
        monkeypatch.delenv("DATABASE_URL", raising=False)
    else:
        monkeypatch.setenv("DATABASE_URL", url)
    assert list_peers() == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    both = (told["dbos-sqlite"], told["dbos-postgresql"])
    if url is None:
        assert both == ("dbos 1.2.3", "it needs PostgreSQL: set DATABASE_URL")
    else:
        assert both == ("it needs SQLite: leave DATABASE_URL out", "dbos 1.2.3")


def test_the_list_has_settings_that_can_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Others are told by name, as by every command."""
    monkeypatch.setenv("DATABASE_URL", "nonsense")
    assert list_peers() == 64
    told = capsys.readouterr()
    assert told.out == ""
    assert "DATABASE_URL" in told.err


def test_versions_are_told() -> None:
    """Each package and program that is there has a version that begins with a number."""
    for peer in PEERS.values():
        if peer.missing() is None:
            versions = peer.versions()
            assert set(peer.packages) <= set(versions)
            assert all(version[0].isdigit() for version in versions.values())


def test_topics_are_those_that_are_published_to() -> None:
    """Who creates the topics knows all of them."""
    assert PEERS["faststream"].topics == set(TOPICS.values())
