//! `websocket`: with Python's `websockets` at the other end, and with itself.

use std::thread;
use std::time::Duration;

use tungstenite::{Error, Message};

use super::rig::{files, is_here, output, rigs, Peer, PYTHON};
use crate::examples::websocket::{accept, client, serve, Halves, Writer};

const LONG_MESSAGE: usize = 15_000_000;

/// Sends long messages and pings, and reads all that the other end does, at the same time.
fn side((mut reader, mut writer): Halves) {
    let speaking = thread::spawn(move || {
        for i in 0..4 {
            writer.send(Message::Ping(vec![i; 100].into())).expect("ping");
            writer.send(Message::binary(vec![i; LONG_MESSAGE])).expect("send");
        }
        writer
    });
    let (mut got, mut pings, mut pongs) = (0, 0, 0);
    while got < 4 || pings < 4 || pongs < 4 {
        match reader.read().expect("read") {
            Message::Binary(data) => {
                assert!(data.len() == LONG_MESSAGE && data.iter().all(|byte| *byte == got));
                got += 1;
            }
            Message::Ping(_) => pings += 1,
            Message::Pong(_) => pongs += 1,
            other => panic!("{other:?}"),
        }
    }
    let mut writer = speaking.join().expect("the writer");
    Writer::close(&mut writer).expect("close");
    let end = loop {
        match reader.read() {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert!(matches!(end, Error::ConnectionClosed), "{end:?}");
}

#[test]
fn websocket_reads_and_writes_long_messages_at_once_with_answers_between_them() {
    for rig in rigs() {
        let (listener, port) = rig.listen();
        let server = thread::spawn(move || side(accept(listener.accept().expect("accept").0).expect("handshake")));
        side(client(rig.connect(port), "wss://localhost/").expect("handshake"));
        server.join().expect("server");
    }
}

#[test]
fn websocket_serves_pythons_client() {
    if !is_here(PYTHON, &["-c", "import websockets"]) {
        return;
    }
    let folder = files();
    let script = "
import asyncio, ssl, sys, websockets
async def main():
    context = ssl.create_default_context(cafile=sys.argv[2])
    async with websockets.connect('wss://localhost:' + sys.argv[1], ssl=context, max_size=None) as socket:
        while await socket.recv() != 'tick': pass
        for i in range(3):
            data = bytes([i]) * 5000000
            send = asyncio.create_task(socket.send(data))
            pong = await socket.ping(b'still there?')
            while (got := await socket.recv()) == 'tick': pass
            assert got == data
            await send
            await pong
    assert socket.close_code == 1000, socket.close_code
asyncio.run(main())
print('done')
";
    for rig in rigs() {
        let (listener, port) = rig.listen();
        let serving = thread::spawn(move || serve(listener.accept()?.0, Duration::from_millis(20)));
        let chain = folder.path().join("chain.pem");
        let said = output(PYTHON, &["-c", script, &port.to_string(), chain.to_str().expect("path")]);
        assert_eq!(said, "done\n", "{:?}", rig.engine);
        serving.join().expect("server").expect("a good end");
    }
}

#[test]
fn websocket_is_a_client_of_pythons_server_that_speaks_first() {
    if !is_here(PYTHON, &["-c", "import websockets"]) {
        return;
    }
    let folder = files();
    let script = "
import asyncio, ssl, sys, websockets
async def serve(socket):
    await socket.send('welcome')
    async for message in socket:
        await (await socket.ping())
        await socket.send(message)
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1] + '/chain.pem', sys.argv[1] + '/key.pem')
    async with websockets.serve(serve, '127.0.0.1', 0, ssl=context, max_size=None) as server:
        print(server.sockets[0].getsockname()[1])
        await asyncio.Future()
asyncio.run(main())
";
    let (_peer, port) = Peer::python(script, &[folder.path().to_str().expect("path")]);
    for rig in rigs() {
        let (mut reader, mut writer) =
            client(rig.connect(port), &format!("wss://localhost:{port}/")).expect("handshake");
        let speaking = thread::spawn(move || {
            for i in 0..3 {
                writer.send(Message::binary(vec![i; 3_000_000])).expect("send");
            }
            writer
        });
        let mut got = Vec::new();
        while got.len() < 4 {
            match reader.read().expect("read") {
                Message::Ping(_) => {} // answered, or the server would not go on
                other => got.push(other),
            }
        }
        assert_eq!(got[0], "welcome".into());
        assert!((0..3).all(|i| got[i + 1] == Message::binary(vec![i as u8; 3_000_000])));
        Writer::close(&mut speaking.join().expect("writer")).expect("close");
        let end = std::iter::repeat_with(|| reader.read()).find_map(Result::err);
        assert!(matches!(end, Some(Error::ConnectionClosed)), "{:?}: {end:?}", rig.engine);
    }
}
