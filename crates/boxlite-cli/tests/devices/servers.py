# Servers on one address that tell whom they were asked for: servers.py ADDRESS CERTIFICATE KEY
import http.server, socket, socketserver, ssl, sys, threading

address, certificate, key = sys.argv[1:]


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f"{getattr(self.connection, 'asked_for', 'plain')} {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)


class EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(self.request[0], self.client_address)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def handle_error(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.sni_callback = lambda connection, name, _: setattr(connection, "asked_for", name)


class SecureServer(Server):
    def get_request(self):
        connection, client = super().get_request()
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), client


servers = [
    Server((address, 80), Web),
    SecureServer((address, 443), Web),
    Server((address, 53), Echo),
    Server((address, 2222), Echo),
    Server((address, 9000), Echo),
    socketserver.ThreadingUDPServer((address, 53), EchoDatagram),
    socketserver.ThreadingUDPServer((address, 443), EchoDatagram),
    socketserver.ThreadingUDPServer((address, 9000), EchoDatagram),
]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
