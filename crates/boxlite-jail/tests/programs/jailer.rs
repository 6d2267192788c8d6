//! The jailer by itself, for the tests: in the product it is `boxlite-shim`.
//!
//! Started with the argument `copy`, it is a starter whose jailer is a copy of itself.

#![allow(unsafe_code)]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};

use boxlite_jail::{JailSpec, begin_by_copy, jailer};

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == "copy") {
        return start_by_copy();
    }
    jailer(std::env::args_os().skip(1)).and_then(Result::ok).unwrap_or(ExitCode::FAILURE)
}

/// Jails the program of the specification on its standard input, says what its jailer has open, and ends as that ends.
fn start_by_copy() -> ExitCode {
    let spec: JailSpec = serde_json::from_reader(std::io::stdin()).unwrap();
    // The copy must not have it.
    let _own = rustix::fs::memfd_create("own-file", rustix::fs::MemfdFlags::empty()).unwrap();
    // SAFETY: the handler does nothing.
    unsafe {
        libc::signal(libc::SIGUSR1, on_signal as *const () as libc::sighandler_t);
    }
    let mut copy = Command::new("/proc/self/exe");
    copy.stdin(Stdio::null());
    let launching = begin_by_copy(copy, &spec, |mut command, _, last| {
        // SAFETY: this process has one thread.
        unsafe {
            command.pre_exec(last);
        }
        command.spawn()
    });
    let mut jailed = launching.unwrap().finish().unwrap();
    let of_jailer = |name: &str| format!("/proc/{}/{name}", jailed.jailer.id());
    // An ordinary user may not look there.
    if let Ok(open) = std::fs::read_dir(of_jailer("fd")) {
        let open = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        let own = open.filter(|path| path.to_string_lossy().contains("own-file")).count();
        println!("=own files of the jailer: {own}");
    }
    let status = std::fs::read_to_string(of_jailer("status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    println!("=jailer catches: {}", (caught >> (libc::SIGUSR1 - 1)) & 1);
    let ended = jailed.jailer.wait().unwrap();
    ExitCode::from(ended.code().unwrap_or(128 + ended.signal().unwrap_or(0)) as u8)
}

extern "C" fn on_signal(_: libc::c_int) {}
