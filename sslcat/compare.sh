#!/bin/bash
# The rows of "Beside other tools" in the README: what was typed, what came, how it ended. Everything is on this machine.
#   sslcat/compare.sh [ROW ...]        all rows, or these: refused nobody close cut late clean chain expires scan
#                                    json editing crlf
# Takes `sslcat` from SSLCAT, or PATH; needs openssl, gnutls-cli (gnutls-bin), ncat, socat and python3.
set -uo pipefail
sslcat=$(command -v "${SSLCAT:-sslcat}") || { echo "no sslcat: set SSLCAT" >&2; exit 1; }
sslcat=$(realpath "$sslcat")
folder=$(mktemp -d)
trap 'kill $server 2>/dev/null; rm -r "$folder"' EXIT
cd "$folder" || exit 1
PATH=$PATH:$folder
ln -s "$sslcat" sslcat 2>/dev/null

# Who has issued nothing here; who has issued the server's certificate, which has ten days left.
authority() { openssl req -x509 -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.pem" -days 30 -subj "/CN=$1"; }
{
    authority other
    authority ca
    openssl req -newkey rsa:2048 -nodes -keyout key.pem -out server.csr -subj /CN=localhost
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 10 -out cert.pem \
        -extfile <(echo subjectAltName=DNS:localhost)
    cat cert.pem ca.pem >chain.pem
} 2>/dev/null

# On five ports: "hello" and close_notify; "hello" and a cut; an answer a second behind what came, or behind its end, or at once.
cat >server.py <<'END'
import socket, ssl, threading, time
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("chain.pem", "key.pem")
def serve(plain, manner):
    try:
        tls = context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False)
        if manner in ("close", "cut"):
            time.sleep(0.3)
            tls.sendall(b"hello")
        else:
            got = tls.recv(1000)
            if manner == "ended":
                while tls.recv(1000):
                    pass
            time.sleep(1 if manner == "late" else 0)
            tls.sendall(b"answer to " + got)
        if manner != "cut":
            tls.unwrap()
        plain = tls.detach() if manner == "cut" else None
        if plain:
            socket.socket(fileno=plain).close()
    except (OSError, ValueError):
        pass
ports = []
for manner in ("close", "cut", "late", "ended", "echo"):
    listener = socket.create_server(("127.0.0.1", 0))
    ports.append(str(listener.getsockname()[1]))
    def accept(listener=listener, manner=manner):
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], manner), daemon=True).start()
    threading.Thread(target=accept).start()
print(*ports, flush=True)
END
mkfifo ports
python3 server.py >ports 2>/dev/null &
server=$!
read -r close cut late ended echo <ports
free=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# A command line of the shell, what it wrote, its exit code. What still runs after five seconds is ended.
try() {
    printf '\n$ %s\n' "$1"
    timeout 5 bash -c "$1" >stdout 2>stderr
    local code=$?
    head -c 2000 stdout | cut -c1-160 | head -n "${lines:-12}" | sed 's/^/    /'
    head -c 3000 stderr | cut -c1-160 | head -n "${lines:-12}" | sed 's/^/    stderr: /'
    if ((code == 124)); then echo "-> still running after 5 s"; else echo "-> $code"; fi
}
# The same with each tool: what its standard input is, the authority, the port.
each() {
    try "sslcat --ca $2.pem localhost $3 $1"
    try "openssl s_client -quiet -CAfile $2.pem -verify_hostname localhost -connect localhost:$3 $1"
    try "gnutls-cli --x509cafile $2.pem -p $3 localhost $1 | tail -n 4; exit \${PIPESTATUS[0]}"
    try "ncat --ssl localhost $3 $1"
    try "socat - OPENSSL:localhost:$3,cafile=$2.pem $1"
}
open="< <(sleep 20)"
row() { printf '\n===== %s\n' "$1"; "row_$1"; }

row_refused() {
    lines=3
    each "$open" other "$close"
    try "openssl s_client -quiet -verify_return_error -CAfile other.pem -connect localhost:$close $open"
    try "ncat --ssl-verify --ssl-trustfile other.pem localhost $close $open"
    # Another name: 127.0.0.1 is not in the certificate.
    try "sslcat --ca ca.pem 127.0.0.1 $close $open"
    try "openssl s_client -quiet -CAfile ca.pem -verify_hostname 127.0.0.1 -connect 127.0.0.1:$close $open"
    try "gnutls-cli --x509cafile ca.pem -p $close 127.0.0.1 $open"
    try "ncat --ssl-verify --ssl-trustfile ca.pem 127.0.0.1 $close $open"
    try "socat - OPENSSL:127.0.0.1:$close,cafile=ca.pem $open"
}
row_nobody() { lines=2; each "$open" ca "$free"; }
row_close() { lines=4; each "$open" ca "$close"; }
row_cut() { lines=4; each "$open" ca "$cut"; }
row_late() {
    lines=4
    each "<<<abc" ca "$late"
    each "<<<abc" ca "$ended"
    try "socat -t 5 - OPENSSL:localhost:$late,cafile=ca.pem <<<abc"
}
row_clean() {
    for tool in "sslcat --ca ca.pem localhost $echo" "openssl s_client -quiet -CAfile ca.pem -connect localhost:$echo" \
        "gnutls-cli --x509cafile ca.pem -p $echo localhost" "ncat --ssl localhost $echo" \
        "socat - OPENSSL:localhost:$echo,cafile=ca.pem"; do
        try "(printf abc; sleep 2) | $tool 2>/dev/null | wc -c      # 13 are from the server"
    done
}
row_chain() {
    lines=40
    try "sslcat --ca other.pem localhost $close </dev/null"
    try "openssl s_client -CAfile other.pem -connect localhost:$close </dev/null"
    try "openssl s_client -verify_return_error -CAfile other.pem -connect localhost:$close </dev/null"
    try "gnutls-cli --x509cafile other.pem -p $close localhost </dev/null"
    try "ncat -vv --ssl-verify --ssl-trustfile other.pem localhost $close </dev/null"
    try "socat -d -d -d - OPENSSL:localhost:$close,cafile=other.pem </dev/null"
}
row_expires() {
    lines=6
    try "sslcat --check --expires-in 14d --ca ca.pem localhost $close >/dev/null"
    try "openssl s_client -CAfile ca.pem -connect localhost:$close </dev/null 2>/dev/null | openssl x509 -noout -checkend 1209600"
    try "gnutls-cli --help | grep -i expir"
    try "ncat --help | grep -i expir"
    try "socat -hhh | grep -i expir"
}
row_json() {
    lines=3
    try "sslcat --check --json --ca ca.pem localhost $close"
    for help in "openssl s_client -help" "gnutls-cli --help" "ncat --help" "socat -hhh"; do
        try "$help 2>&1 | grep -i json"
    done
}
row_scan() {
    lines=8
    try "sslcat --scan localhost $echo"
    for help in "openssl s_client -help" "gnutls-cli --help" "ncat --help" "socat -hhh"; do
        try "$help 2>&1 | grep -iw scan"
    done
}
row_editing() {
    # The arrow to the left behind "ac", then "b": who edits sends "abc".
    for tool in "sslcat --ca ca.pem localhost $echo" "openssl s_client -quiet -CAfile ca.pem -connect localhost:$echo" \
        "gnutls-cli --x509cafile ca.pem -p $echo localhost" "ncat --ssl localhost $echo" \
        "socat - OPENSSL:localhost:$echo,cafile=ca.pem"; do
        try "(sleep 1; printf 'ac\\033[Db\\r'; sleep 2) | script -qec '$tool' /dev/null | grep -a answer | cat -v"
    done
    try "socat -V | grep READLINE"
}
row_crlf() {
    for tool in "sslcat --crlf --ca ca.pem localhost $echo" "openssl s_client -quiet -crlf -CAfile ca.pem -connect localhost:$echo" \
        "gnutls-cli --crlf --x509cafile ca.pem -p $echo localhost" "ncat --crlf --ssl localhost $echo" \
        "socat -,crnl OPENSSL:localhost:$echo,cafile=ca.pem"; do
        # What came is sent back.
        try "(echo abc; sleep 2) | $tool 2>/dev/null | grep abc | od -c"
    done
}

openssl version; gnutls-cli --version | head -1; ncat --version 2>&1 | head -1; socat -V | sed -n 2p
for name in "${@:-refused nobody close cut late clean chain expires scan json editing crlf}"; do
    for row in $name; do row "$row"; done
done
