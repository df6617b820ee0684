"""Private sockets, and what is refused."""

import os
import socket
import stat

import pytest

from runtimed.errors import DaemonUnavailable
from runtimed.settings import MAX_SOCKET_PATH
from runtimed.transport.autostart import connect_socket
from runtimed.transport.sockets import listen, make_private_folder, peer_credentials


def mode(path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_socket_and_its_folder_belong_to_their_owner_alone(short_folder):
    path = short_folder / "run" / "daemon.sock"

    with listen(path):
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)


def test_the_other_end_is_named_by_the_operating_system(short_folder):
    path = short_folder / "s"
    with listen(path) as server, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted, _ = server.accept()
        with accepted:
            peer = peer_credentials(accepted)

    assert (peer.uid, peer.pid) == (os.getuid(), os.getpid())


def test_a_socket_that_nobody_serves_any_more_is_replaced(short_folder):
    path = short_folder / "s"
    listen(path).close()

    with listen(path):
        found = connect_socket(path)
        assert found is not None
        found.close()


def test_a_socket_that_somebody_serves_is_left_alone(short_folder):
    path = short_folder / "s"
    with listen(path), pytest.raises(DaemonUnavailable, match="Another process listens"):
        listen(path)


def test_a_foreign_file_in_the_socket_s_place_is_left_alone(short_folder):
    path = short_folder / "s"
    path.write_text("precious")

    with pytest.raises(DaemonUnavailable, match="is not a socket"):
        listen(path)
    with pytest.raises(DaemonUnavailable, match="is not a socket"):
        connect_socket(path)
    assert path.read_text() == "precious"


def test_a_folder_that_others_may_enter_is_refused(short_folder):
    folder = short_folder / "open"
    folder.mkdir()
    folder.chmod(0o755)

    with pytest.raises(DaemonUnavailable, match="chmod 700"):
        make_private_folder(folder)


def test_the_folders_above_it_that_are_missing_are_made_private_too(short_folder):
    before = os.umask(0)
    try:
        make_private_folder(short_folder / "a" / "b" / "c")
    finally:
        os.umask(before)

    assert [mode(short_folder / name) for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_link_to_nowhere_in_the_folder_s_place_is_refused(short_folder):
    (short_folder / "link").symlink_to(short_folder / "nowhere")

    with pytest.raises(DaemonUnavailable, match="not a folder"):
        make_private_folder(short_folder / "link")
    assert not (short_folder / "nowhere").exists()


def test_a_link_in_the_socket_s_place_is_left_alone(short_folder):
    (short_folder / "precious").write_text("precious")
    (short_folder / "s").symlink_to(short_folder / "precious")

    with pytest.raises(DaemonUnavailable, match="is not a socket"):
        listen(short_folder / "s")
    assert (short_folder / "precious").read_text() == "precious"


def test_a_link_in_the_folder_s_place_is_refused(short_folder):
    (short_folder / "real").mkdir(mode=0o700)
    (short_folder / "link").symlink_to(short_folder / "real")

    with pytest.raises(DaemonUnavailable, match="not a folder"):
        make_private_folder(short_folder / "link")


def test_a_path_too_long_for_a_socket_is_refused_in_a_sentence(short_folder):
    path = short_folder / ("x" * MAX_SOCKET_PATH)

    with pytest.raises(DaemonUnavailable, match="RUNTIMED_SOCKET_PATH"):
        listen(path)
    with pytest.raises(DaemonUnavailable, match="RUNTIMED_SOCKET_PATH"):
        connect_socket(path)
