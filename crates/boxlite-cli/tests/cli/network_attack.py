# Root of a box speaks for others in raw frames, and then for itself. Arguments: its own address in the network, its victim's,
# that of a third box of the network, and that of a box of another network.
import socket
import struct
import sys

own, victim, third, foreign = sys.argv[1:5]
MAC = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
OTHER_MAC = b"\x02\x11\x22\x33\x44\x55"
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 0))


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send(word, source, to, options=b"", mac=MAC, to_mac=b"\xff" * 6, longer=0):
    data = struct.pack("!HHHH", 40000, 6000, 8 + len(word), 0) + word
    length = 20 + len(options) + len(data) + longer
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, length, 7, 0x4000, 64, 17, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    head = head[:10] + struct.pack("!H", checksum(head + addresses + options)) + addresses + options
    wire.send(to_mac + mac + b"\x08\x00" + head + data)


def claim(address, operation):
    target = socket.inet_aton(victim)
    arp = struct.pack("!HHBBH", 1, 0x800, 6, 4, operation) + MAC + socket.inet_aton(address) + b"\0" * 6 + target
    wire.send(b"\xff" * 6 + MAC + b"\x08\x06" + arp)


for source in (third, victim, "10.0.2.15", "10.0.2.2", foreign, "127.0.0.1"):
    send(b"forged", source, victim)
send(b"forged", own, foreign)
send(b"forged", foreign, foreign)
send(b"forged", own, victim, options=b"\x01\x01\x01\x00")
send(b"forged", own, victim, longer=900)
for operation in (1, 2):
    claim(third, operation)
    claim(victim, operation)
# Whatever the Ethernet addresses are, this is said by the box itself.
send(b"mine", own, victim, mac=OTHER_MAC)

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    datagrams.settimeout(60)
    datagrams.connect((victim, 6000))
    datagrams.send(b"fence")
    print(datagrams.recv(100).decode())
