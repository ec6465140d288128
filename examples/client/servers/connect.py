"""`connect.py PORT...`: somebody accepts connections at every port of the host's loopback, or this fails."""

import socket
import sys

for port in sys.argv[1:]:
    socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
