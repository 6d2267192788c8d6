# Asks the servers at port 7000 of the hosts that are named; `!HOST` is one that must not be reached.
import socket
import sys
import time


def ask(host, seconds):
    with socket.create_connection((host, 7000), timeout=seconds) as connection:
        said = b""
        while data := connection.recv(10000):
            said += data
    return said.decode()


def ask_until_it_serves(host):
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask(host, 60)
        except OSError as error:
            if time.monotonic() > deadline:
                return f"{host}: {error}"
            time.sleep(0.1)


def ask_in_vain(host):
    try:
        return "reached: " + ask(host, 3)
    except OSError:
        return "unreachable"


for host in sys.argv[1:]:
    print(ask_in_vain(host[1:]) if host.startswith("!") else ask_until_it_serves(host))
