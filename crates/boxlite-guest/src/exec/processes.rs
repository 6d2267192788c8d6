//! Lists the processes of the guest, for boxes whose image has no `ps`.
//!
//! It runs in a child: reading a command line reads the memory of its process, which that process can delay for as long
//! as it likes.

use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use boxlite_proto::{GuestProcess, GuestProcesses};

use crate::{linux, metrics};

/// Most processes of a list.
const MAX_PROCESSES: usize = 1000;
/// Most bytes of all command lines together; a list must fit the report of a child.
const MAX_COMMAND_BYTES: usize = 256 * 1024;
/// Most bytes of one command line.
const MAX_COMMAND: usize = 1024;
/// `/proc` counts in hundredths of a second on every Linux.
const MS_PER_TICK: u64 = 10;

/// Lists what runs now, without this process; `passwd` has the names of users.
pub(super) fn list(passwd: &str) -> GuestProcesses {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let booted = now - linux::since_boot().as_secs() as i64;
    let own = std::process::id();
    let mut ids: Vec<u32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id| *id != own)
        .collect();
    ids.sort_unstable();
    let mut list = GuestProcesses { now, memory_total: metrics::memory_total(), ..GuestProcesses::default() };
    let mut bytes_left = MAX_COMMAND_BYTES;
    for id in ids {
        let Some(mut process) = read(id, booted, passwd) else { continue };
        if list.processes.len() >= MAX_PROCESSES || process.command.len() > bytes_left {
            list.left_out += 1;
            continue;
        }
        bytes_left -= process.command.len();
        // Nothing that a terminal would take for more than text.
        process.command = printable(&process.command);
        list.processes.push(process);
    }
    list
}

/// Reads one process; `None` for one that has ended, and for threads of the kernel.
fn read(pid: u32, booted: i64, passwd: &str) -> Option<GuestProcess> {
    let directory = format!("/proc/{pid}");
    let stat = std::fs::read(format!("{directory}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    if metrics::is_kernel_thread(&stat) {
        return None;
    }
    let uid = std::fs::metadata(&directory).ok()?.uid();
    let command = std::fs::read(format!("{directory}/cmdline")).unwrap_or_default();
    parse(pid, &stat, &command, booted).map(|process| GuestProcess {
        uid,
        user: user_name(uid, passwd).unwrap_or_else(|| uid.to_string()),
        ..process
    })
}

/// Reads `/proc/<pid>/stat` and `cmdline`; see `proc_pid_stat(5)`.
fn parse(pid: u32, stat: &str, command: &[u8], booted: i64) -> Option<GuestProcess> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = printable(before.split_once('(')?.1);
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    // The first of them is the manual page's third.
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<i64>().ok());
    let size = |field: usize| number(field).map(|value| value.max(0) as u64);
    let command: Vec<u8> = command.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    let command = String::from_utf8_lossy(&command[..command.len().min(MAX_COMMAND)]).trim_end().to_owned();
    Some(GuestProcess {
        pid,
        ppid: number(4)?.try_into().ok()?,
        uid: 0,
        user: String::new(),
        terminal: terminal(number(7)?),
        state: fields.first()?.chars().next()?,
        started: booted + (size(22)? * MS_PER_TICK / 1000) as i64,
        cpu_ms: (size(14)? + size(15)?) * MS_PER_TICK,
        virtual_bytes: size(23)?,
        resident_bytes: size(24)? * linux::page_size(),
        threads: size(20)? as u32,
        nice: number(19)? as i32,
        command: if command.is_empty() { format!("[{name}]") } else { command },
        name,
    })
}

/// Names the terminal with the device number `device`, as `ps` does.
fn terminal(device: i64) -> Option<String> {
    let device = device as u64;
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        0 => None,
        136..=143 => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        4 if minor >= 64 => Some(format!("ttyS{}", minor - 64)),
        4 => Some(format!("tty{minor}")),
        5 if minor == 1 => Some("console".to_owned()),
        229 => Some(format!("hvc{minor}")),
        _ => Some(format!("{major}:{minor}")),
    }
}

fn user_name(uid: u32, passwd: &str) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| printable(name))
    })
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_as_the_manual_says() {
        let stat = "42 (my (odd) na) S 7 42 42 34817 42 4194560 90 0 0 0 250 50 0 0 20 5 3 0 12345 8192000 100 \
                    18446744073709551615 1 1 0 0 0 0 0";
        let read = parse(42, stat, b"sh\0-c\0a\tb\0", 1000).unwrap();
        assert_eq!((read.pid, read.ppid, read.state, read.threads, read.nice), (42, 7, 'S', 3, 5));
        assert_eq!((read.cpu_ms, read.started, read.virtual_bytes), (3000, 1123, 8_192_000));
        assert_eq!(read.resident_bytes, 100 * linux::page_size());
        assert_eq!((read.name.as_str(), read.terminal.as_deref()), ("my (odd) na", Some("pts/1")));
        assert_eq!(printable(&read.command), "sh -c a?b");
        assert_eq!(parse(42, stat, b"", 0).unwrap().command, "[my (odd) na]");
        assert!(parse(42, "42 (cut) S 7", b"", 0).is_none() && parse(42, "", b"", 0).is_none());
    }

    #[test]
    fn terminals_and_users_have_names() {
        assert_eq!(terminal(0), None);
        for (device, name) in
            [(34816, "pts/0"), (1025, "tty1"), (1088, "ttyS0"), (58624, "hvc0"), (1281, "console")]
        {
            assert_eq!(terminal(device).as_deref(), Some(name), "{device}");
        }
        let passwd = "root:x:0:0::/:/bin/sh\nbad line\napp:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(1000, passwd).as_deref(), Some("app"));
        assert_eq!(user_name(7, passwd), None);
    }

    /// This process is left out, and its parent is not.
    #[test]
    fn a_live_kernel_is_listed() {
        let list = list("");
        let parent = std::os::unix::process::parent_id();
        assert!(list.processes.iter().any(|process| process.pid == parent));
        assert!(list.processes.iter().all(|process| process.pid != std::process::id()));
    }
}
