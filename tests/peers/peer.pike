// A TLS pipe for tests/peers.rs: standard input goes to the peer, what the peer sends goes to standard output.
//
// At the end of the input it closes, with close_notify. What happens is told on standard error, a line each: "port N",
// "open VERSION ALPN", "end close_notify|cut", "failed: REASON". Pike 8.0 speaks TLS 1.2 at most.

mapping(string:string) args = ([]);
SSL.File tls;
string unsent = "";
int fed;
// `Stdio.stdin` reads in blocking mode only.
Stdio.File input = Stdio.File("stdin");

void say(string format, mixed ... values) { werror(format + "\n", @values); }

array(string) certificates(string file) { return Standards.PEM.Messages(Stdio.read_file(file))->get_certificates(); }

SSL.Context context() {
  SSL.Context made = SSL.Context();
  if (args->ca) {
    made->verify_certificates = made->require_trust = 1;
    made->auth_level = SSL.Constants.AUTHLEVEL_require;
    // Each root is a chain of one.
    made->set_trusted_issuers(certificates(args->ca) / 1);
  }
  if (args->chain) {
    string key = Standards.PEM.simple_decode(Stdio.read_file(args->key));
    made->add_cert(Standards.PKCS.parse_private_key(key), certificates(args->chain), ({ "*" }));
  }
  if (args->alpn) made->advertised_protocols = args->alpn / ",";
  return made;
}

Stdio.File connected() {
  Stdio.File stream = Stdio.File();
  if (args->role == "client") {
    if (!stream->connect("127.0.0.1", (int) args->port)) exit(1, "failed connect\n");
    return stream;
  }
  Stdio.Port listener = Stdio.Port(0, 0, "127.0.0.1");
  say("port %s", (listener->query_address() / " ")[1]);
  return listener->accept();
}

void opened() {
  string version = SSL.Constants.fmt_version(tls->query_version());
  say("open %s %s", replace(version, " ", "v"), tls->query_application_protocol() || "None");
  // All at once and not before: callbacks given in mid-handshake may be lost.
  tls->set_nonblocking(got, push, ended);
  wait_for_input();
}

void got(mixed id, string data) {
  while (sizeof(data)) data = data[Stdio.stdout->write(data)..];
}

void wait_for_input() {
  if (fed || sizeof(unsent)) return;
  input->set_nonblocking(fetched, 0, lambda() { fed = 1; push(); });
}

void fetched(mixed id, string data) {
  input->set_read_callback(0);
  unsent += data;
  push();
}

void push() {
  while (sizeof(unsent)) {
    int sent = tls->write(unsent);
    if (sent <= 0) return;
    unsent = unsent[sent..];
  }
  if (!fed) {
    wait_for_input();
    return;
  }
  // Blocking, so that all is on the wire when it returns.
  tls->set_blocking();
  tls->close();
  exit(0);
}

void ended() {
  int why = tls->errno();
  SSL.Connection connection = tls->query_connection();
  if (connection && connection->state & SSL.Constants.CONNECTION_peer_fatal) say("failed: an alert");
  else if (!why) say("end close_notify");
  else if (why == System.EPIPE) say("end cut");
  else say("failed: %s", strerror(why));
  if (!why) {
    tls->set_blocking();
    tls->close();
  }
  // Our alert, if it was we who failed, is sent by the backend.
  call_out(exit, 0.2, !!why);
}

int main(int argc, array(string) argv) {
  args->role = argv[1];
  foreach (argv[2..] / 2.0, [string option, string value]) args[option[2..]] = value;
  tls = SSL.File(connected(), context());
  tls->set_nonblocking();
  tls->set_accept_callback(opened);
  tls->set_close_callback(ended);
  if (args->role == "client") tls->connect(args->name || "localhost");
  else tls->accept();
  return -1;
}
