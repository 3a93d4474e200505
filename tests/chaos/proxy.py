"""A TCP proxy that hurts what goes through it.

Toxiproxy would do most of this, but it is a Go program: `make test` would need a compiler for it.
And it does not know Kafka's frames, so it cannot do the one thing that matters most here: cut a
connection after the broker has got a produce request and before its answer is back.

Faults are set while it runs:
    proxy.latency = 1.0        seconds that bytes take, each way
    proxy.rate = 65536         bytes a second, each way
    proxy.slices = 1           bytes at a time
    proxy.silent = True        half open: connections stay, nothing passes
    proxy.refusing = True      nobody is let in (those inside stay: see reset())
    proxy.cut_produce = 3      the answers to the next 3 produce requests are not delivered
    proxy.reset()              all connections get a RST
"""

import asyncio
import socket
import struct
import threading
import time

API_PRODUCE = 0


class Loop:
    """One event loop in a thread of its own, for all proxies."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)


_shared = None


def shared_loop():
    global _shared
    if _shared is None:
        _shared = Loop()
    return _shared


class Frames:
    """Follows the frames of one direction of a Kafka connection: 4 bytes of length, then the body,
    whose first bytes it gives."""

    def __init__(self, head_size):
        self.head_size = head_size
        self.head = b""
        self.left = None  # of the body; None: the length is being read

    def feed(self, data):
        """The heads of the frames that begin in data."""
        found = []
        while data:
            if self.left is None:
                need = 4 + self.head_size - len(self.head)
                self.head += data[:need]
                data = data[need:]
                if len(self.head) == 4 + self.head_size:
                    self.left = struct.unpack(">i", self.head[:4])[0] - self.head_size
                    found.append(self.head[4:])
                    self.head = b""
            else:
                skipped = min(self.left, len(data))
                self.left -= skipped
                data = data[skipped:]
            if self.left == 0:
                self.left = None
        return found


class Connection:
    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.writers = [client[1], server[1]]
        self.requests = Frames(8)  # api key, version, correlation id
        self.answers = Frames(4)   # correlation id
        self.cut = set()           # correlation ids whose answers are kept back

    def reset(self):
        for writer in self.writers:
            transport = writer.transport
            raw = transport.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

    def request(self, data):
        for head in self.requests.feed(data):
            api, _, correlation = struct.unpack(">hhi", head)
            if api == API_PRODUCE and self.proxy.cut_produce > 0:
                self.proxy.cut_produce -= 1
                self.cut.add(correlation)

    def keeps_back(self, data):
        """Whether data begins an answer that is to be lost."""
        return any(struct.unpack(">i", head)[0] in self.cut for head in self.answers.feed(data))


class Proxy:
    """A port in front of another one."""

    def __init__(self, target_port, kafka=False):
        self.target_port = target_port
        self.kafka = kafka
        self.latency = 0
        self.rate = 0
        self.slices = 0
        self.silent = False
        self.refusing = False
        self.cut_produce = 0
        self.cuts = 0
        self.connections = set()
        self.loop = shared_loop()
        self.server = self.loop.run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]

    def heal(self):
        self.latency = self.rate = self.slices = self.cut_produce = 0
        self.silent = self.refusing = False

    def reset(self):
        def reset_all():
            for connection in list(self.connections):
                connection.reset()
        self.loop.loop.call_soon_threadsafe(reset_all)

    def close(self):
        async def close():
            self.server.close()
            for connection in list(self.connections):
                connection.reset()
        self.loop.run(close())

    async def _accept(self, reader, writer):
        if self.refusing:
            writer.transport.abort()
            return
        try:
            server = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        for side in (writer, server[1]):
            side.transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, (reader, writer), server)
        self.connections.add(connection)
        try:
            await asyncio.gather(self._pass(connection, reader, server[1], True),
                                 self._pass(connection, server[0], writer, False))
        except OSError:
            pass
        finally:
            self.connections.discard(connection)
            connection.reset()

    async def _pass(self, connection, reader, writer, to_server):
        while True:
            data = await reader.read(65536)
            if not data:
                connection.reset()
                return
            if self.kafka and to_server:
                connection.request(data)
            elif self.kafka and connection.keeps_back(data):
                self.cuts += 1
                connection.reset()
                return
            await self._hurt(writer, data)

    async def _hurt(self, writer, data):
        while self.silent:
            await asyncio.sleep(0.05)
        if self.latency:
            await asyncio.sleep(self.latency)
        size = self.slices or len(data)
        for at in range(0, len(data), size):
            piece = data[at:at + size]
            writer.write(piece)
            await writer.drain()
            if self.rate:
                await asyncio.sleep(len(piece) / self.rate)
            elif self.slices:
                await asyncio.sleep(0)


def wait_cut(proxies, count, timeout=30):
    """Until the proxies together have kept back this many answers."""
    deadline = time.monotonic() + timeout
    while sum(proxy.cuts for proxy in proxies) < count:
        assert time.monotonic() < deadline, "no produce request came through the proxy"
        time.sleep(0.02)
