"""Addresses as people write them, and sockets that leave nothing behind."""

import socket
import stat

import pytest
import trio

from vdev.errors import UserError
from vdev.run.address import TcpAddress, UnixAddress, connect, listen, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/a/b", UnixAddress("/a/b")),
        ("/a/b", UnixAddress("/a/b")),
        ("./b", UnixAddress("./b")),
        ("tcp:localhost:80", TcpAddress("localhost", 80)),
        ("127.0.0.1:0", TcpAddress("127.0.0.1", 0)),
        ("[::1]:9", TcpAddress("::1", 9)),
    ],
)
def test_an_address_is_read_and_written_back(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "unix:", "host", "host:", ":80", "host:port", "host:65536", "/" + "x" * 200])
def test_what_is_no_address_is_refused_in_one_line(text):
    with pytest.raises(UserError) as refusal:
        parse_address(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_both_ends_meet(kind, tmp_path):
    address = UnixAddress(str(tmp_path / "s")) if kind == "unix" else TcpAddress("127.0.0.1", 0)
    async with listen(address) as listener:
        accepted: list[socket.socket] = []

        async def accept() -> None:
            accepted.append(await listener.accept())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            with await connect(listener.address) as ours:
                ours.sendall(b"x")
        with accepted[0] as theirs:
            assert theirs.recv(2) == b"x"
    assert list(tmp_path.iterdir()) == []


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with listen(UnixAddress(str(path))):
        assert stat.S_ISSOCK(path.stat().st_mode)
        with pytest.raises(UserError, match="cannot listen"):
            async with listen(UnixAddress(str(path))):
                pass
    assert not path.exists()


async def test_a_file_that_is_no_socket_is_not_touched(tmp_path):
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(UserError):
        async with listen(UnixAddress(str(path))):
            pass
    assert path.read_text() == "mine"
