//! A proxy before a real registry that breaks what passes through it, and remembers what was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
    /// How many requests for this path came before.
    pub(crate) earlier: usize,
}

impl Request {
    pub(crate) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

/// The proxy's treatment of a request.
pub(crate) enum Fate {
    /// The registry answers.
    Pass,
    /// This answers: status line, more header lines, body.
    Answer(&'static str, String, Vec<u8>),
    /// The registry answers, and the connection breaks after so many bytes of the body.
    Cut(usize),
    /// The registry answers, and the n-th byte of the body is flipped.
    Flip(usize),
    /// The registry answers as if it knew no ranges.
    NoRange,
    /// The body has no end.
    Endless,
    /// The registry answers; after so many bytes the function is called before the rest is sent.
    Pause(usize, Arc<dyn Fn() + Send + Sync>),
}

pub(crate) struct Proxy {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    pub(crate) fn before(upstream: &str, fate: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1", upstream, fate)
    }

    /// The same on another address of this host.
    pub(crate) fn on(
        address: &str,
        upstream: &str,
        fate: impl Fn(&Request) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (upstream, seen, fate) = (upstream.to_owned(), Arc::clone(&requests), Arc::new(fate));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (upstream, seen, fate) = (upstream.clone(), Arc::clone(&seen), Arc::clone(&fate));
                // A connection that breaks is what this is for.
                std::thread::spawn(move || serve(client, &upstream, &seen, &*fate).ok());
            }
        });
        Self { address, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut client: TcpStream,
    upstream: &str,
    seen: &Mutex<Vec<Request>>,
    fate: &(impl Fn(&Request) -> Fate + ?Sized),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let lines = head(&mut reader)?;
    let header = |name: &str| {
        let prefix = format!("{name}:");
        let line = lines.iter().find(|line| line.to_ascii_lowercase().starts_with(&prefix));
        line.map(|line| line[prefix.len()..].trim().to_owned())
    };
    let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
    let request = {
        let mut seen = seen.lock().unwrap();
        let earlier = seen.iter().filter(|request| request.path == path).count();
        let request =
            Request { path, range: header("range"), authorization: header("authorization"), earlier };
        seen.push(request.clone());
        request
    };
    let fate = fate(&request);
    if let Fate::Answer(status, headers, body) = fate {
        write!(
            client,
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        return client.write_all(&body);
    }
    if matches!(fate, Fate::Endless) {
        write!(client, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        loop {
            client.write_all(&[b' '; 8192])?;
        }
    }
    let mut server = TcpStream::connect(upstream)?;
    for line in &lines {
        let name = line.to_ascii_lowercase();
        let dropped = matches!(fate, Fate::NoRange) && name.starts_with("range:");
        if !dropped && !name.starts_with("connection:") {
            write!(server, "{line}\r\n")?;
        }
    }
    write!(server, "Connection: close\r\n\r\n")?;
    let mut answer = BufReader::new(server);
    for line in head(&mut answer)? {
        if !line.to_ascii_lowercase().starts_with("connection:") {
            write!(client, "{line}\r\n")?;
        }
    }
    write!(client, "Connection: close\r\n\r\n")?;
    match fate {
        Fate::Cut(bytes) => {
            std::io::copy(&mut answer.take(bytes as u64), &mut client)?;
        }
        Fate::Flip(at) => {
            let mut body = Vec::new();
            answer.read_to_end(&mut body)?;
            body[at] ^= 1;
            client.write_all(&body)?;
        }
        Fate::Pause(bytes, during) => {
            std::io::copy(&mut answer.by_ref().take(bytes as u64), &mut client)?;
            client.flush()?;
            during();
            std::io::copy(&mut answer, &mut client)?;
        }
        _ => {
            std::io::copy(&mut answer, &mut client)?;
        }
    }
    Ok(())
}

fn head(reader: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            return if lines.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(lines) };
        }
        lines.push(line);
    }
}
