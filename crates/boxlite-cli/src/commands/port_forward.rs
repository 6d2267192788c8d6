//! `port-forward`.

use std::net::{IpAddr, Ipv4Addr};

use boxlite::Runtime;
use clap::Args;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::render::print;
use crate::report::{CommandFailure, Exit, Topic, note};

/// `port-forward`.
#[derive(Debug, Args)]
pub(crate) struct PortForwardArgs {
    /// Address of this host to listen at
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Connect standard input and output to one port, and listen nowhere: as an SSH client's proxy command does
    #[arg(long, conflicts_with = "address")]
    stdio: bool,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
    /// A port of the box, after the port of this host that leads there (0 takes a free one; without it, the same number)
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<LocalForward>,
}

/// A port of this host, and the port of the box that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LocalForward {
    local: u16,
    remote: u16,
}

impl std::str::FromStr for LocalForward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let number =
            |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port, which is 1 to 65535"));
        match (number(local)?, number(remote)?) {
            (_, 0) => Err("0 is no port of the box; ports are 1 to 65535".to_owned()),
            (local, remote) => Ok(Self { local, remote }),
        }
    }
}

pub(super) async fn port_forward(runtime: &Runtime, args: PortForwardArgs) -> Result<Exit, CommandFailure> {
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::RunningBox);
    let info = runtime.inspect(&args.id).await.map_err(|error| CommandFailure::of(&error, Topic::Box))?;
    if !info.state.is_up() {
        return Err(CommandFailure::local(format!("box {} does not run", info.name))
            .hint(format!("start it with `boxlite start {}`", info.name)));
    }
    info.refuse_while_paused().map_err(failed)?;
    if args.stdio {
        let [LocalForward { remote, .. }] = args.ports[..] else {
            return Err(CommandFailure::local("--stdio connects to one port".to_owned()));
        };
        let tunnel = runtime.dial(&info.id, remote).await.map_err(failed)?;
        let streams = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        return match tunnel.relay(streams).await {
            Ok(()) => Ok(Exit::OK),
            Err(error) => Err(CommandFailure::local(format!("the connection broke: {error}"))),
        };
    }
    // All of them before any is announced: one that is taken means that nothing was begun.
    let mut listeners = Vec::with_capacity(args.ports.len());
    for forward in &args.ports {
        listeners.push((listen(args.address, forward.local).await?, forward.remote));
    }
    let mut forwarding = JoinSet::new();
    for (listener, remote) in listeners {
        let address = listener.local_addr().map_err(|error| CommandFailure::local(error.to_string()))?;
        print(&format!("{address} -> {remote}\n"))?;
        forwarding.spawn(forward(runtime.clone(), info.id.clone(), listener, remote));
    }
    tokio::select! {
        ended = runtime.wait(&info.id) => {
            ended.map_err(failed)?;
            Err(CommandFailure::local(format!("box {} has ended", info.name)))
        }
        _ = forwarding.join_next() => Err(CommandFailure::local("listening for connections failed".to_owned())),
    }
}

async fn listen(address: IpAddr, port: u16) -> Result<TcpListener, CommandFailure> {
    TcpListener::bind((address, port)).await.map_err(|error| {
        CommandFailure::local(format!("listening on {address} port {port} failed: {error}"))
            .hint("another local port goes before the box's, as in `8081:80`; 0 takes a free one")
    })
}

/// Connects each client to the box's port; ends only when the listener fails.
async fn forward(runtime: Runtime, id: String, listener: TcpListener, remote: u16) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(connect(runtime.clone(), id.clone(), client, remote))),
                Err(error) if is_of_client(&error) => {}
                Err(_) => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Whether the error is one client's, so that others can still be accepted.
fn is_of_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// A client whose connection fails sees it closed; the user sees why.
async fn connect(runtime: Runtime, id: String, client: TcpStream, remote: u16) {
    match runtime.dial(&id, remote).await {
        Ok(tunnel) => {
            let _ = tunnel.relay(client).await;
        }
        Err(error) => note(&format!("boxlite: warning: {}", error.chain())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_host_may_come_first() {
        let parsed = |text: &str| text.parse::<LocalForward>().map(|forward| (forward.local, forward.remote));
        assert_eq!(parsed("80"), Ok((80, 80)));
        assert_eq!(parsed("8080:80"), Ok((8080, 80)));
        assert_eq!(parsed("0:80"), Ok((0, 80)));
        for wrong in ["", "0", "80:0", "a", "80:", ":80", "1:2:3", "70000", "-1"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
