# What a guest reaches that has a list of allowed destinations: allow.py ADDRESS PRIVATE-ADDRESS
import socket, ssl, sys

address, private = sys.argv[1:]
TIMEOUT = 60
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE


def attempt(what, action):
    try:
        said = action()
    except OSError as error:
        said = "no such name" if isinstance(error, socket.gaierror) else "refused"
    print(f"{what}: {said}")


def connect(host, port):
    return socket.create_connection((host, port), TIMEOUT)


def ask(stream, *hosts, text="GET / HTTP/1.1\r\nHost: {}\r\n\r\n"):
    answers = []
    for host in hosts:
        stream.sendall(text.format(host).encode())
        answers.append(body(stream))
    return ", ".join(answers)


def body(stream):
    head = b""
    while b"\r\n\r\n" not in head:
        more = stream.recv(1)
        if not more:
            raise ConnectionResetError
        head += more
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return stream.recv(length).decode()


def secure(host, name, *hosts):
    with context.wrap_socket(connect(host, 443), server_hostname=name) as stream:
        return ask(stream, *hosts or (name,))


def plain(host, *hosts, **options):
    with connect(host, 80) as stream:
        return ask(stream, *hosts, **options)


def in_pieces(host, name, size):
    """TLS whose hello goes out in segments of so many bytes."""
    stream = connect(host, 443)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    while True:
        try:
            tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        said = outgoing.read()
        for at in range(0, len(said), size):
            stream.sendall(said[at : at + size])
        if done:
            return tls.version()
        heard = stream.recv(65536)
        if not heard:
            raise ConnectionResetError
        incoming.write(heard)


def echo(host, port, said):
    with connect(host, port) as stream:
        stream.sendall(said)
        heard = stream.recv(4096)
        if not heard:
            raise ConnectionResetError
        return heard.decode().strip()


def datagram(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(TIMEOUT)
        sender.connect((host, port))
        sender.send(b"datagram")
        return sender.recv(100).decode()


def ping(host):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender:
        sender.settimeout(TIMEOUT)
        sender.connect((host, 0))
        sender.send(b"\x08\x00\xf7\xfd\x00\x01\x00\x01")
        kind = sender.recv(100)[20]
        if kind != 0:
            raise OSError(kind)
        return "an answer"


WWW = "www.allowed.test"
attempt("before its name is asked for", lambda: connect(address, 443))
attempt("TLS", lambda: secure(WWW, WWW))
attempt("TLS, shouted", lambda: secure(WWW, WWW.upper(), "x"))
attempt("TLS by its address", lambda: secure(address, WWW))
attempt("TLS for another name", lambda: secure(WWW, "evil.test"))
attempt("TLS for a name that was not asked for", lambda: secure(WWW, "a.wild.test"))
attempt("TLS for no name", lambda: secure(WWW, None, "x"))
attempt("TLS for a name below the wildcard", lambda: secure("b.wild.test", "b.wild.test"))
attempt("TLS for the name of the wildcard", lambda: secure("b.wild.test", "wild.test"))
# Fewer pieces than a sender sends before it waits for an acknowledgement, of which there is none before the name.
attempt("TLS in pieces", lambda: in_pieces(WWW, WWW, 60))
attempt("TLS in pieces for another name", lambda: in_pieces(WWW, "evil.test", 60))
attempt("HTTP", lambda: plain(WWW, WWW, WWW))
attempt("HTTP for another name", lambda: plain(WWW, "evil.test"))
attempt("HTTP for another name afterwards", lambda: plain(WWW, WWW, "evil.test"))
attempt("HTTP for another name, smuggled", lambda: plain(WWW, WWW, "again", text="POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"))
attempt("a shell", lambda: echo("shell.allowed.test", 2222, b"SSH-2.0-x\r\n"))
attempt("another port", lambda: echo(WWW, 2222, b"GET / HTTP/1.1\r\nHost: www.allowed.test\r\n\r\n"))
attempt("a name that is not allowed", lambda: connect("evil.test", 443))
attempt("a name in a private network", lambda: connect("rebound.test", 80))
attempt("a private address", lambda: connect(private, 80))
attempt("an allowed address and port", lambda: echo(address, 9000, b"anything"))
attempt("a datagram to them", lambda: datagram(address, 9000))
attempt("a datagram to the address of a name", lambda: datagram(address, 443))
attempt("another name server", lambda: datagram(address, 53))
attempt("another name server's stream", lambda: connect(address, 53))
attempt("a ping", lambda: ping(address))
