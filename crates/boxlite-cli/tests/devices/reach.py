# Tries everything that root in a guest has to reach servers on the host's loopback, then shows that the same means do
# reach a machine outside. Arguments: outside's address, TCP and UDP port; the host's loopback TCP and UDP port.
import socket
import struct
import sys

outside = sys.argv[1]
tcp_port, udp_port, host_tcp, host_udp = map(int, sys.argv[2:6])
ME, GATEWAY, RESOLVER = "10.0.2.15", "10.0.2.2", "10.0.2.3"
SYN, ACK = 2, 16
PUBLISHED = 80


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(to, protocol, segment, source=ME, fragment=0, options=b""):
    length = 20 + len(options) + len(segment)
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, length, 7, fragment, 64, protocol, 0)
    sum_ = checksum(head + addresses + options)
    return head[:10] + struct.pack("!H", sum_) + addresses + options + segment


def tcp(to, port, source_port=40000, flags=SYN, **more):
    segment = struct.pack("!HHIIBBHHH", source_port, port, 1000, 0, 0x50, flags, 64240, 0, 0)
    pseudo = socket.inet_aton(more.get("source", ME)) + socket.inet_aton(to) + struct.pack("!BBH", 0, 6, 20)
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    return ipv4(to, 6, segment, **more)


def datagram(data, port, source_port=40000):
    return struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data


def udp(to, port, data=b"raw", source_port=40000, **more):
    return ipv4(to, 17, datagram(data, port, source_port), **more)


wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 0))
my_mac = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
gateway_mac = bytes.fromhex("52550a000202")


def send(packet):
    wire.send(gateway_mac + my_mac + b"\x08\x00" + packet)


# The kernel's own way first: it teaches both sides the Ethernet addresses.
for address in (GATEWAY, RESOLVER, "10.0.2.4", "169.254.169.254"):
    try:
        socket.create_connection((address, host_tcp), timeout=1).close()
        print("connected to", address)
    except OSError:
        pass

hosts = ["127.0.0.1", "127.0.0.53", "127.255.255.254", "0.0.0.0", "0.0.0.1", GATEWAY, RESOLVER, "10.0.2.1"]
hosts += ["10.0.2.4", "10.0.2.255", "255.255.255.255", "169.254.169.254", "224.0.0.1"]
for number, address in enumerate(hosts):
    for source_port in (40000 + number, PUBLISHED, 53):
        send(tcp(address, host_tcp, source_port))
        send(tcp(address, host_tcp, source_port, flags=SYN | 1))
        send(tcp(address, host_tcp, source_port, flags=SYN | 8 | 0x40))
        send(tcp(address, host_tcp, source_port, flags=ACK))
        send(udp(address, host_udp, source_port=source_port))
    send(tcp(address, host_tcp, 41000 + number, options=b"\x01" * 4))
    send(udp(address, host_udp, source_port=41000 + number, source="10.0.2.77"))
    whole = datagram(b"in two fragments", host_udp, 42000 + number)
    send(ipv4(address, 17, whole[:16], fragment=0x2000))
    send(ipv4(address, 17, whole[16:], fragment=2))
# Two fragments of which the second claims what the first did not show.
send(ipv4(outside, 17, datagram(b"x" * 8, udp_port), fragment=0x2000))
send(ipv4(GATEWAY, 17, datagram(b"x" * 8, host_udp), fragment=2))

# The wire keeps the order: when this is answered, everything before it has had its chance.
wire.settimeout(20)
send(udp(outside, udp_port, b"control"))
while True:
    frame = wire.recv(2000)
    if frame[12:14] == b"\x08\x00" and frame[26:30] == socket.inet_aton(outside) and b"control" in frame:
        break
print("raw frames arrive outside")

stream = socket.create_connection((outside, tcp_port), timeout=20)
sent = bytes(range(256)) * 256
stream.sendall(sent)
received = b""
while len(received) < len(sent):
    received += stream.recv(65536)
assert received == sent
print("streams arrive outside")
