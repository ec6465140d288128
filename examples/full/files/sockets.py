"""Sockets of every family that the kernel was configured with: what they can do, and what they refuse."""

import array
import contextlib
import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator

SEED = int(os.environ.get("KPRUNE_SEED", "0"))
LARGE = (200 + SEED % 50) * 1024
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@contextlib.contextmanager
def refused(*codes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        assert error.errno in codes, error
    else:
        raise AssertionError("it was not refused")


def received(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def send_all(connection: socket.socket, size: int) -> None:
    connection.sendall(b"x" * size)
    connection.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def served(server: socket.socket, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Somebody accepts one connection within the block."""

    def serve() -> None:
        with server.accept()[0] as connection:
            answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join()


def echo(connection: socket.socket) -> None:
    connection.sendall(received(connection))


def tcp(family: int) -> None:
    with socket.create_server((LOOPBACK[family], 0), family=family) as server:
        address = server.getsockname()
        for size in (10, 3000, LARGE):
            with served(server, echo), socket.create_connection(address[:2]) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, size % 2)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                assert len(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)) > 100
                sender = threading.Thread(target=send_all, args=(client, size))
                sender.start()
                assert len(received(client)) == size
                sender.join()
        # Without waiting, and seen by each of select, poll and epoll.
        with served(server, echo), socket.socket(family) as client:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(address)
            select.select([], [client], [])
            poll = select.poll()
            poll.register(client, select.POLLOUT)
            poll.poll()
            with select.epoll() as epoll:
                epoll.register(client, select.EPOLLIN | select.EPOLLOUT)
                epoll.poll()
                epoll.modify(client, select.EPOLLIN | select.EPOLLET)
                with refused(errno.EAGAIN):
                    client.recv(1)
                client.send(b"hello")
                client.shutdown(socket.SHUT_WR)
                epoll.poll()
                client.setblocking(True)
                assert client.recv(2, socket.MSG_PEEK) == b"he"
                assert received(client) == b"hello"

        # One that is cut off.
        def cut(connection: socket.socket) -> None:
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        with served(server, cut), socket.create_connection(address[:2]) as client:
            client.send(b"xy")
            with refused(errno.ECONNRESET):
                client.recv(1)
        with socket.socket(family) as second, refused(errno.EADDRINUSE):
            second.bind(address)
        with socket.socket(family) as nobody, refused(errno.ENOTCONN):
            nobody.getpeername()
    with socket.socket(family) as client, refused(errno.ECONNREFUSED):
        client.connect(address)
    with socket.socket(family) as other, refused(errno.EADDRNOTAVAIL):
        other.bind(("192.0.2.9" if family == socket.AF_INET else "2001:db8::9", 0))


def udp(family: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as two:
        one.bind((LOOPBACK[family], 0))
        for size in (1, 1400, 9000, 60000):
            two.sendto(b"x" * size, one.getsockname())
            data, address = one.recvfrom(65536)
            assert len(data) == size
        one.sendmsg([b"an", b"swer"], [], 0, address)
        assert two.recvmsg(100, 100)[0] == b"answer"
        with refused(errno.EMSGSIZE):
            two.sendto(b"x" * 70000, one.getsockname())
        one.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            one.recv(1)
            raise AssertionError("nobody sent that")
        two.connect(one.getsockname())
    with socket.socket(family, socket.SOCK_DGRAM) as two:
        two.connect((LOOPBACK[family], 9))
        two.send(b"x")
        with refused(errno.ECONNREFUSED):
            two.recv(1)


def multicast() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("", 5009))
        group = socket.inet_aton("239.1.2.3") + socket.inet_aton("127.0.0.1")
        one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        one.sendto(b"all", ("239.1.2.3", 5009))
        assert one.recv(9) == b"all"
        one.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, group)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        with refused(errno.EACCES):
            one.sendto(b"x", ("10.0.2.255", 5009))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        one.sendto(b"x", ("10.0.2.255", 5009))
    index = socket.if_nametoindex("lo")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.bind(("::", 5010))
        group = socket.inet_pton(socket.AF_INET6, "ff01::123") + struct.pack("@i", index)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        one.sendto(b"all", ("ff01::123", 5010, 0, index))
        assert one.recv(9) == b"all"
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, group)


def unix() -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        for name in ("/tmp/socket", "\0kprune"):
            with socket.socket(socket.AF_UNIX, kind) as server:
                server.bind(name)
                server.listen()
                with served(server, echo), socket.socket(socket.AF_UNIX, kind) as client:
                    client.connect(name)
                    peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    assert struct.unpack("3i", peer)[0] == os.getpid()
                    client.sendall(b"hello")
                    client.shutdown(socket.SHUT_WR)
                    assert received(client) == b"hello"
            if name.startswith("/"):
                with socket.socket(socket.AF_UNIX, kind) as client, refused(errno.ECONNREFUSED):
                    client.connect(name)
                os.unlink(name)
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, two, open("/etc/passwd", "rb") as file:
        rights = array.array("i", [file.fileno()])
        one.sendmsg([b"a file"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        _, found, _, _ = two.recvmsg(100, socket.CMSG_SPACE(4))
        (number,) = array.array("i", found[0][2][:4])
        with os.fdopen(number, "rb") as same:
            assert os.path.sameopenfile(same.fileno(), file.fileno())
    with socket.socket(socket.AF_UNIX) as client, refused(errno.ENOENT):
        client.connect("/tmp/nothing")


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def raw() -> None:
    """ICMP by hand, seen once more by a packet socket."""
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as frames,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp,
    ):
        frames.bind(("lo", 3))
        message = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"kprune"
        message = struct.pack("!BBHHH", 8, 0, checksum(message), 7, 1) + b"kprune"
        icmp.sendto(message, ("127.0.0.1", 0))
        while icmp.recv(1000)[20] != 0:
            pass
        while b"kprune" not in frames.recv(2000):
            pass
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as frames:
        frames.sendto(b"x" * 60, ("eth0", 0x88B5, 0, 0, b"\xff" * 6))
        with refused(errno.ENODEV):
            frames.bind(("nothing", 0x0800))
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        icmp.sendto(struct.pack("!BBHHH", 128, 0, 0, 7, 1) + b"kprune", ("::1", 0))
        while icmp.recv(1000)[0] != 129:
            pass
    with refused(errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
        socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET)
    with refused(errno.EAFNOSUPPORT):
        socket.socket(31, socket.SOCK_RAW, 1)  # Bluetooth


def netlink() -> None:
    """RTM_GETLINK, all of them; and one that does not exist."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.bind((0, 1))
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        route.send(struct.pack("=IHHII", 16 + len(body), 18, 0x301, 1, 0) + body)
        kinds = set()
        while 3 not in kinds:
            data = route.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                kinds.add(kind)
                data = data[(length + 3) & ~3 :]
        assert 16 in kinds
        route.send(
            struct.pack("=IHHII", 16 + len(body), 18, 0x1, 2, 0) + struct.pack("=BxHiII", 0, 0, 999, 0, 0)
        )
        length, kind, _, _, _, error = struct.unpack_from("=IHHIIi", route.recv(65536))
        assert (kind, -error) == (2, errno.ENODEV)


def main() -> None:
    families = [socket.AF_INET, socket.AF_INET6]
    for family in reversed(families) if SEED % 2 else families:
        tcp(family)
        udp(family)
    multicast()
    unix()
    raw()
    netlink()


if __name__ == "__main__":
    main()
