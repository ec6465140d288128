"""The host's web server: `web.py FOLDER CERTIFICATE KEY` serves the folder over HTTP, and more over HTTPS.

GET /large?N is N times 1,024 bytes, /moved leads from HTTP to HTTPS, /slow never answers; what is POSTed
comes back as its length and its SHA-256.
"""

import hashlib
import http.server
import os
import ssl
import sys
import threading
import time

PLAIN, SECURE = int(os.environ["KPRUNE_SERVER_WEB"]), int(os.environ["KPRUNE_SERVER_WEB_TLS"])


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        path, _, number = self.path.partition("?")
        if path == "/large":
            self.answer(200, b"k" * int(number) * 1024)
        elif path == "/moved":
            self.answer(301, b"", Location=f"https://www.kprune.test:{SECURE}/large?1")
        elif path == "/slow":
            time.sleep(3600)
        else:
            super().do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, f"{len(body)} {hashlib.sha256(body).hexdigest()}\n".encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def main(folder: str, certificate: str, key: str) -> None:
    os.chdir(folder)
    plain = http.server.ThreadingHTTPServer(("127.0.0.1", PLAIN), Handler)
    secure = http.server.ThreadingHTTPServer(("127.0.0.1", SECURE), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # The handshake is for the connection's own thread, for a client may never begin it.
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    secure.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
