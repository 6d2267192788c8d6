# Echoes datagrams at port 6000 and tells at port 7000 who asks and which datagrams came. Argument: its name.
import socket
import sys
import threading

came = []


def datagrams():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", 6000))
    while True:
        data, peer = server.recvfrom(2000)
        came.append(peer[0] + "=" + data.decode())
        server.sendto(data, peer)


threading.Thread(target=datagrams, daemon=True).start()
server = socket.create_server(("", 7000))
while True:
    connection, peer = server.accept()
    connection.sendall(" ".join([sys.argv[1], peer[0], *came]).encode())
    connection.close()
