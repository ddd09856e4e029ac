"""A TLS pipe for tests/peers.rs: standard input goes to the peer, what the peer sends goes to standard output.

At the end of the input it says close_notify and waits for the peer's. After the peer's close_notify it goes on sending. What
happens is told on standard error, a line each: "port N", "open VERSION ALPN", "end close_notify|cut|reset", "failed REASON".
"""

import argparse
import os
import select
import socket
import ssl
import sys

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["client", "server"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", choices=VERSIONS, required=True)
    parser.add_argument("--ca", help="trust this, and demand a certificate")
    parser.add_argument("--chain")
    parser.add_argument("--key")
    parser.add_argument("--name", default="localhost")
    parser.add_argument("--alpn")
    return parser.parse_args()


def context(args):
    client = args.role == "client"
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = made.maximum_version = VERSIONS[args.tls]
    # Some versions of Python tell OpenSSL 3 to take any end for a clean one.
    made.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if args.ca:
        made.load_verify_locations(args.ca)
        made.verify_mode = ssl.CERT_REQUIRED
    if args.chain:
        made.load_cert_chain(args.chain, args.key)
    if args.alpn:
        made.set_alpn_protocols(args.alpn.split(","))
    return made


def connected(args):
    if args.role == "client":
        return socket.create_connection(("127.0.0.1", args.port), timeout=30)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", args.port))
        listener.listen()
        say("port", listener.getsockname()[1])
        listener.settimeout(30)
        accepted, _ = listener.accept()
        accepted.settimeout(30)
        return accepted


def attempt(call, *args):
    """The result, or None if the connection must be waited for, and what for."""
    try:
        return call(*args), None
    except ssl.SSLWantReadError:
        return None, "read"
    except ssl.SSLWantWriteError:
        return None, "write"


def pipe(tls):
    tls.setblocking(False)
    stdin = sys.stdin.fileno()
    unsent, feeding, hearing = b"", True, True
    while feeding or unsent:
        waits_for = set()
        while hearing:
            got, want = attempt(tls.recv, 65536)
            if want:
                waits_for.add(want)
                break
            hearing = bool(got)
            if not got:
                say("end close_notify")
            while got:
                got = got[os.write(1, got) :]
        while unsent:
            sent, want = attempt(tls.send, unsent)
            if want:
                waits_for.add(want)
                break
            unsent = unsent[sent:]
        reads = [tls] if "read" in waits_for else []
        if feeding and not unsent:
            reads.append(stdin)
        ready, _, _ = select.select(reads, [tls] if "write" in waits_for else [], [])
        if stdin in ready:
            unsent = os.read(stdin, 65536)
            feeding = bool(unsent)
    # Says ours, and waits for the peer's.
    tls.settimeout(30)
    tls.unwrap()
    if hearing:
        say("end close_notify")


def main():
    args = arguments()
    made = context(args)
    name = args.name if args.role == "client" else None
    try:
        tls = made.wrap_socket(
            connected(args),
            server_side=name is None,
            server_hostname=name,
            suppress_ragged_eofs=False,
        )
        say("open", tls.version(), tls.selected_alpn_protocol())
        pipe(tls)
    except (ssl.SSLEOFError, BrokenPipeError):
        say("end cut")
    except ConnectionResetError:
        say("end reset")
    except ssl.SSLError as error:
        # Without close_notify from the peer, some versions say so in this class only.
        cut = error.reason == "UNEXPECTED_EOF_WHILE_READING"
        say("end cut" if cut else "failed %s" % (error.reason or error))
    except OSError as error:
        say("failed", error)


main()
