//! `port`.

use std::fmt::Write as _;

use boxlite::{PortForward, Runtime};
use clap::Args;

use crate::render::print;
use crate::report::{CommandFailure, Exit, Topic};

/// `port`.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
    /// Only this port of the box, such as 80, 80/tcp or 53/udp
    #[arg(value_name = "PORT[/tcp|udp]")]
    port: Option<String>,
}

pub(super) async fn port(runtime: &Runtime, args: PortArgs) -> Result<Exit, CommandFailure> {
    let info = runtime.inspect(&args.id).await.map_err(|error| CommandFailure::of(&error, Topic::Box))?;
    let Some(wanted) = args.port else {
        return print(&lines(&info.ports, true)).map(|()| Exit::OK);
    };
    let forwards: Vec<PortForward> =
        info.ports.into_iter().filter(|forward| is_of(forward, &wanted)).collect();
    if forwards.is_empty() {
        return Err(CommandFailure::local(format!(
            "box {} forwards no port of the host to {wanted}",
            info.name
        ))
        .hint("`boxlite port BOX` shows what is forwarded while the box runs"));
    }
    print(&lines(&forwards, false)).map(|()| Exit::OK)
}

/// Tells whether `wanted` names the box's port of this forward; without a transport it is TCP's, as in Docker.
fn is_of(forward: &PortForward, wanted: &str) -> bool {
    let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    port == forward.guest.to_string() && protocol == forward.protocol.to_string()
}

fn lines(forwards: &[PortForward], with_guest: bool) -> String {
    forwards.iter().fold(String::new(), |mut text, forward| {
        // Writing to a string cannot fail.
        if with_guest {
            let _ = write!(text, "{}/{} -> ", forward.guest, forward.protocol);
        }
        let _ = writeln!(text, "{}:{}", forward.bind, forward.host);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_printed_as_docker_does() {
        let read = |text: &str| boxlite::parse_ports(text).unwrap();
        let forwards = [read("8080:80"), read("0.0.0.0:5353:53/udp")].concat();
        assert_eq!(lines(&forwards, true), "80/tcp -> 127.0.0.1:8080\n53/udp -> 0.0.0.0:5353\n");
        assert_eq!(lines(&forwards[..1], false), "127.0.0.1:8080\n");
        assert!(is_of(&forwards[0], "80") && is_of(&forwards[0], "80/tcp") && is_of(&forwards[1], "53/udp"));
        assert!(!is_of(&forwards[1], "53") && !is_of(&forwards[0], "8080"));
    }
}
