//! A proxy between client and server that cuts connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes connections on to a server until it is told to cut them.
pub(crate) struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    passed: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let passed = Arc::new(AtomicU64::new(0));
        let (open, count) = (Arc::clone(&connections), Arc::clone(&passed));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(onward) = TcpStream::connect(server) else { continue };
                let ends = [client, onward];
                let copies = || ends.each_ref().map(|end| end.try_clone().expect("a descriptor"));
                open.lock().unwrap().extend(copies());
                let ([from_client, to_server], [to_client, from_server]) = (copies(), copies());
                let counts = [Arc::clone(&count), Arc::clone(&count)];
                let [up, down] = counts;
                thread::spawn(move || pass(from_client, to_server, &up));
                thread::spawn(move || pass(from_server, to_client, &down));
            }
        });
        Self { address, connections, passed }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes passed in both directions.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Cuts every connection there is, with what is on its way.
    pub(crate) fn cut(&self) {
        for end in self.connections.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, passed: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        passed.fetch_add(count as u64, Ordering::Relaxed);
        to.write_all(&buffer[..count])?;
    }
}
