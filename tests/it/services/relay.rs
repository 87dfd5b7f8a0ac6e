//! A way to a server that stops in the middle of an answer, so that the server can be killed there.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Relays connections to a port of this machine.
pub struct Relay {
    pub port: u16,
    reached: Receiver<()>,
    go_on: Sender<()>,
}

impl Relay {
    /// The first connection that answers more than `bytes` stands still there until [`Self::go_on`].
    pub fn start(to: u16, bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, reached) = channel();
        let (go_on, wait) = channel();
        let pause = Arc::new(Mutex::new(Some((tell, wait))));
        // It ends with the process: a test's own.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(Shutdown::Write);
                });
                let pause = pause.clone();
                std::thread::spawn(move || answer(server, client, bytes, &pause));
            }
        });
        Self { port, reached, go_on }
    }

    /// Waits until an answer stands still.
    pub fn reached(&self) {
        self.reached.recv().unwrap();
    }

    /// Lets it come on, as far as there is any more.
    pub fn go_on(&self) {
        self.go_on.send(()).unwrap();
    }
}

type Pause = Mutex<Option<(Sender<()>, Receiver<()>)>>;

fn answer(mut server: TcpStream, mut client: TcpStream, bytes: usize, pause: &Pause) {
    let (mut buffer, mut passed) = (vec![0; 64 << 10], 0);
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        if client.write_all(&buffer[..length]).is_err() {
            break;
        }
        passed += length;
        if passed > bytes
            && let Some((tell, wait)) = pause.lock().unwrap().take()
        {
            let _ = tell.send(());
            let _ = wait.recv();
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}
