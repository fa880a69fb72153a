"""A small HTTP/1.1 server on a free loopback port, as raw as a test needs it."""

import http.client
import socket
import socketserver
import threading
import urllib.parse


class Request:
    """Method, path, query, headers by lowercase name, body."""

    def __init__(self, method, target, headers, body):
        # A client that believes in a proxy sends the whole URL.
        if target.startswith("http://"):
            target = "/" + target.split("/", 3)[3]
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.path, _, query = target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))

    def header(self, name):
        return self.headers.get(name, "")

    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))


def read_request(stream):
    line = stream.readline()
    if not line.strip():
        return None
    method, target, _ = line.decode().split(" ", 2)
    headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
    body = stream.read(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


class QuietServer:
    """`answer` gives (status, headers, body) for a request, or None to close without a word."""

    def __init__(self, answer, host="127.0.0.1", port=0):
        class Handler(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self):
                try:
                    while (request := read_request(self.rfile)) is not None:
                        reply = answer(request)
                        if reply is None:
                            return
                        status, headers, body = reply
                        lines = [f"HTTP/1.1 {status} Said"]
                        lines += [f"{name}: {value}" for name, value in headers.items()]
                        lines += [f"Content-Length: {len(body)}", "", ""]
                        self.wfile.write("\r\n".join(lines).encode() + body)
                except (ConnectionError, socket.timeout):
                    pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server((host, port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
