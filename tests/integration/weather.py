"""Rough weather between a device and its broker: a proxy that ends TLS on both sides and knows MQTT packets.

Run as a program by test_rough_weather.py: `weather.py PORT BROKER CA SERVER_CERT SERVER_KEY CERT KEY SEED`. Each line
of stdin is the weather from now on, a JSON object of names below and their probability for one PUBLISH, either way;
`{}` is calm. Each is answered by a line with the counts so far. The end of stdin is the end.

    drop       it is lost, and so is its PUBACK
    swallow    it is lost although it was acknowledged
    delay      it comes late, and all that follows it
    reorder    what follows comes first
    duplicate  it comes again, at once or later, as QoS 1 allows
    replay     something older comes again, perhaps from a connection before
    cut        both connections are reset
    stall      nothing moves for a while, either way; then all of it comes late, or both connections are reset
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import ssl
import struct
import sys
from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLISH, PUBACK = 3, 4
DUP = 0x08
MAX_DELAY = 0.1
#: What is held back for something that does not come goes on after this long.
HELD = 0.05
MAX_REPLAY_DELAY = 1.0
STALL = (0.4, 1.5)
CONNECT_SECONDS = 3.0
REPLAYED = 40


# --- packets (MQTT 5, section 2.1; the same in 3.1.1) -------------------------------------------------------------


async def next_packet(reader: asyncio.StreamReader) -> bytes:
    """Return one packet whole; raises IncompleteReadError at the end of the stream."""
    head = await reader.readexactly(2)
    while head[-1] & 0x80:
        head += await reader.readexactly(1)
    size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(head[1:]))
    return head + await reader.readexactly(size)


def kind(packet: bytes) -> int:
    """Return the packet's type."""
    return packet[0] >> 4


def split(publish: bytes) -> tuple[bytes, bytes, bytes]:
    """Return topic with its length, packet id (empty with QoS 0) and all the rest of a PUBLISH."""
    start = 2
    while publish[start - 1] & 0x80:
        start += 1
    (size,) = struct.unpack_from(">H", publish, start)
    at = start + 2 + size
    after = at + 2 if publish[0] & 0x06 else at
    return publish[start:at], publish[at:after], publish[after:]


def acknowledged(publish: bytes) -> bytes:
    """Return the PUBACK of a PUBLISH; nothing for QoS 0."""
    _, packet_id, _ = split(publish)
    return bytes([PUBACK << 4, 2]) + packet_id if packet_id else b""


def again(publish: bytes) -> bytes:
    """Return a PUBLISH as it is sent once more."""
    return bytes([publish[0] | DUP]) + publish[1:] if publish[0] & 0x06 else publish


def as_qos_0(publish: bytes) -> bytes:
    """Return a PUBLISH without a packet id, so that it can be put among those of another connection."""
    topic, _, rest = split(publish)
    size, length = len(topic) + len(rest), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([PUBLISH << 4]) + length + topic + rest


# --- weather ------------------------------------------------------------------------------------------------------


class Weather:
    """What is to happen, what happened, and what may be replayed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.rates: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self.old: dict[str, deque[bytes]] = {"up": deque(maxlen=REPLAYED), "down": deque(maxlen=REPLAYED)}

    def fate(self) -> str:
        """Roll what becomes of one PUBLISH; "": it goes through."""
        roll = self.dice.random()
        for name, rate in self.rates.items():
            roll -= rate
            if roll < 0:
                return name
        return ""


class Way:
    """One direction of a connection. What is written late is forgotten when the connection has ended."""

    def __init__(self, weather: Weather, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.weather = weather
        self.name = name
        self.reader = reader
        self.writer = writer
        self.held = b""
        self.open = asyncio.Event()
        self.open.set()

    def write(self, packet: bytes) -> None:
        if not self.writer.transport.is_closing():
            self.writer.write(packet)

    def write_later(self, seconds: float, packet: bytes) -> None:
        asyncio.get_running_loop().call_later(seconds, self.write, packet)

    def hold(self, packet: bytes) -> None:
        self.release()
        self.held = packet
        asyncio.get_running_loop().call_later(HELD, lambda: self.release() if self.held is packet else None)

    def release(self, *, overtaken: bool = False) -> None:
        if self.held:
            self.weather.counts["reorder"] += overtaken
            self.write(self.held)
        self.held = b""


class Link:
    """A device's connection and the one to the broker that stands for it."""

    def __init__(self, weather: Weather, up: Way, down: Way) -> None:
        self.weather = weather
        self.up = up
        self.down = down
        self.fates: dict[str, Callable[[Way, bytes], None]] = {
            "drop": lambda way, packet: None,
            "swallow": lambda way, packet: self.other(way).write(acknowledged(packet)),
            "duplicate": self.duplicate,
            "replay": self.replay,
        }

    def other(self, way: Way) -> Way:
        return self.up if way is self.down else self.down

    async def pump(self, way: Way) -> None:
        """Carry packets one way until the connection ends."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                packet = await next_packet(way.reader)
                await way.open.wait()
                if kind(packet) == PUBLISH:
                    await self.meet(way, packet)
                else:
                    way.write(packet)
                await way.writer.drain()

    async def meet(self, way: Way, packet: bytes) -> None:
        """Let a PUBLISH meet its fate."""
        fate = self.weather.fate()
        if fate == "reorder":
            way.hold(packet)
            return
        if fate:
            self.weather.counts[fate] += 1
        if fate == "delay":
            await asyncio.sleep(self.weather.dice.uniform(0.01, MAX_DELAY))
        elif fate == "cut":
            self.cut()
        elif fate == "stall":
            await self.stall()
        self.fates.get(fate, Way.write)(way, packet)
        way.release(overtaken=fate not in ("drop", "swallow"))
        self.weather.old[way.name].append(packet)

    def duplicate(self, way: Way, packet: bytes) -> None:
        way.write(packet)
        way.write_later(self.weather.dice.choice((0.0, MAX_DELAY)), again(packet))

    def replay(self, way: Way, packet: bytes) -> None:
        way.write(packet)
        if older := self.weather.old[way.name]:
            way.write_later(self.weather.dice.uniform(0, MAX_REPLAY_DELAY), as_qos_0(self.weather.dice.choice(older)))

    async def stall(self) -> None:
        for way in (self.up, self.down):
            way.open.clear()
        await asyncio.sleep(self.weather.dice.uniform(*STALL))
        if self.weather.dice.random() < 0.5:
            self.cut()
        for way in (self.up, self.down):
            way.open.set()

    def cut(self) -> None:
        for way in (self.up, self.down):
            reset(way.writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# --- the program --------------------------------------------------------------------------------------------------


class Proxy:
    """Takes devices' connections and makes one to the broker for each."""

    def __init__(self, weather: Weather, broker: int, towards_broker: ssl.SSLContext) -> None:
        self.weather = weather
        self.broker = broker
        self.towards_broker = towards_broker

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        self.weather.counts["connections"] += 1
        try:
            connecting = asyncio.open_connection("localhost", self.broker, ssl=self.towards_broker)
            from_broker, to_broker = await asyncio.wait_for(connecting, CONNECT_SECONDS)
        except OSError:  # TimeoutError is one
            reset(writer)
            return
        up, down = Way(self.weather, "up", reader, to_broker), Way(self.weather, "down", from_broker, writer)
        link = Link(self.weather, up, down)
        pumps = [asyncio.create_task(link.pump(way)) for way in (up, down)]
        try:
            # Without this, a device that gave up meanwhile would push out the connection that it made since.
            if not writer.transport.is_closing():
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            to_broker.close()
            writer.close()


def contexts(ca: str, server: tuple[str, str], device: tuple[str, str]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS settings towards the device, whose certificate is asked for, and towards the broker."""
    towards_device = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    towards_device.verify_mode = ssl.CERT_REQUIRED
    towards_device.load_cert_chain(*server)
    towards_broker = ssl.create_default_context(cafile=ca)
    towards_broker.load_cert_chain(*device)
    return towards_device, towards_broker


async def main(arguments: list[str]) -> None:
    """Listen, and obey stdin until it ends."""
    port, broker, ca, server_certificate, server_key, certificate, key, seed = arguments
    weather = Weather(int(seed))
    towards_device, towards_broker = contexts(ca, (server_certificate, server_key), (certificate, key))
    proxy = Proxy(weather, int(broker), towards_broker)
    # Not closed in the end: from Python 3.12 on that would wait for the device to go.
    server = await asyncio.start_server(proxy.take, "127.0.0.1", int(port), ssl=towards_device)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("{}", flush=True)
    while server.is_serving() and (order := await orders.readline()):
        weather.rates = json.loads(order)
        print(json.dumps(weather.counts), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
