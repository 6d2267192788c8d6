//! Named points at which tests stop, fail or kill the process.
//!
//! `BOXLITE_FAULT="name=action[:n],…"` arms the n-th passage (default the first) of each named point:
//! `kill` sends this process SIGKILL, `fail` makes the step return an I/O error, `wait=PATH` (written
//! `name=wait:PATH`) blocks until the FIFO at PATH has been opened for writing and closed again.
//! Unarmed, a point costs one relaxed load. Faults are real: they take the product's own error paths.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

struct Armed {
    name: String,
    action: FaultAction,
    passages_left: AtomicU32,
}

enum FaultAction {
    Kill,
    Fail,
    Wait(String),
}

static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

fn armed() -> &'static [Armed] {
    ARMED.get_or_init(|| std::env::var("BOXLITE_FAULT").map(|text| parse(&text)).unwrap_or_default())
}

fn parse(text: &str) -> Vec<Armed> {
    text.split(',')
        .filter_map(|entry| {
            let (name, action) = entry.split_once('=')?;
            let (verb, argument) = action.split_once(':').unwrap_or((action, ""));
            let action = match verb {
                "kill" => FaultAction::Kill,
                "fail" => FaultAction::Fail,
                "wait" => FaultAction::Wait(argument.to_owned()),
                _ => return None,
            };
            let passages_left = AtomicU32::new(argument.parse().unwrap_or(1));
            Some(Armed { name: name.to_owned(), action, passages_left })
        })
        .collect()
}

/// Passes the point `name`; does nothing unless a test armed it through `BOXLITE_FAULT`.
///
/// # Errors
/// Only when armed with `fail`.
pub fn point(name: &str) -> io::Result<()> {
    for fault in armed().iter().filter(|fault| fault.name == name) {
        if fault.passages_left.fetch_sub(1, Ordering::Relaxed) != 1 {
            continue;
        }
        match &fault.action {
            FaultAction::Kill => {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
            FaultAction::Fail => return Err(io::Error::other(format!("injected failure at {name}"))),
            FaultAction::Wait(fifo) => drop(std::fs::read(fifo)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_parse_and_unknown_actions_are_ignored() {
        let armed = parse("a=kill,b=fail:3,c=wait:/tmp/fifo,d=explode,e");
        let names: Vec<&str> = armed.iter().map(|fault| fault.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(armed[1].passages_left.load(Ordering::Relaxed), 3);
    }
}
