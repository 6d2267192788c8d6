//! Terminals: a pseudo-terminal in place of the user's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use boxlite_testkit::deadline::{TEST_TIMEOUT, eventually};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::home::Home;

/// A program on a terminal, seen from the user's side.
struct Session {
    child: Child,
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    seen: String,
    other_side: OwnedFd,
}

impl Session {
    fn start(mut command: Command, rows: u16, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let other_side = OwnedFd::from(theirs);
        resize(&other_side, rows, columns);
        let end = || Stdio::from(other_side.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(ours);
        let mut reader = keyboard.try_clone().unwrap();
        let (send, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, seen: String::new(), other_side }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is on the screen, after what was seen before.
    #[track_caller]
    fn see(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.screen.recv_timeout(TEST_TIMEOUT) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{text:?} does not appear ({error}): {:?}", self.seen),
            }
        }
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.other_side).unwrap().local_modes;
        !modes.contains(rustix::termios::LocalModes::ICANON)
    }

    /// The exit status; the terminal must be as it was.
    #[track_caller]
    fn end(mut self) -> Option<i32> {
        let code = eventually("the program to end", || self.child.try_wait().unwrap()).code();
        assert!(!self.is_raw(), "the terminal is left raw");
        code
    }
}

fn resize(terminal: impl AsFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

#[test]
fn a_shell_on_a_terminal_can_be_used_left_and_found_again() {
    let Some(home) = Home::able() else { return };
    let mut shell =
        Session::start(home.command(["run", "-it", "--name", "tty", &home.image("mini"), "dash"]), 33, 101);
    shell.see("# ");
    assert!(shell.is_raw());
    shell.press("stty size; tty\r");
    shell.see("33 101");
    shell.see("/dev/pts/");
    resize(&shell.other_side, 44, 120);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&shell.child),
        rustix::process::Signal::WINCH,
    )
    .unwrap();
    // Sent behind the new size on another path: so ask until it has arrived.
    shell.press("until [ \"$(stty size)\" = '44 120' ]; do sleep 0.1; done; echo re''sized\r");
    shell.see("resized");
    // Ctrl-C is the command's, not ours.
    shell.press("sleep 1000\r");
    // Its echo says nothing of whether the command runs already.
    let sleeps = ["exec", "tty", "sh", "-c", "cat /proc/[0-9]*/comm | grep -qx sleep"];
    eventually("the command to run", || home.run(&sleeps).status.success().then_some(()));
    shell.press("\x03");
    shell.see("# ");
    shell.press("echo kept=$((6*7)); KEPT=yes\r");
    shell.see("kept=42");
    shell.press("\x10\x11");
    assert_eq!(shell.end(), Some(0), "detaching is not a failure");
    assert_eq!(home.run(&["ls", "-q"]).ok().lines().count(), 1, "the box keeps running");

    let mut again = Session::start(home.command(["attach", "tty"]), 30, 90);
    again.press("echo was=$KEPT\r");
    again.see("was=yes");
    again.press("exit 5\r");
    assert_eq!(again.end(), Some(5));

    let refused = home.run(&["run", "-it", &home.image("mini"), "true"]);
    assert!(refused.refused("not a terminal").contains("hint: "));
}

#[test]
fn an_exec_gets_a_terminal_of_our_size() {
    let Some(home) = Home::able() else { return };
    home.sleeper("box");
    let mut shell = Session::start(
        home.command(["exec", "-it", "box", "sh", "-c", "stty size; read x; exit $x"]),
        20,
        66,
    );
    shell.see("20 66");
    shell.press("9\r");
    assert_eq!(shell.end(), Some(9));
}
