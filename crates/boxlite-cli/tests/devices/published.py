# Echoes one TCP stream on port 80 and one datagram on UDP port 53, and says who sent them.
import socket
import sys

listener = socket.create_server(("0.0.0.0", 80))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("0.0.0.0", 53))
print("ready", flush=True)
stream, client = listener.accept()
while data := stream.recv(65536):
    stream.sendall(data)
stream.close()
print("stream from", client[0], flush=True)
data, client = datagrams.recvfrom(65536)
datagrams.sendto(data, client)
print("datagram from", client[0], flush=True)
