//! `exec` in one running box.

use std::thread;

use boxlite_testkit::deadline::eventually;

use crate::home::Home;

#[test]
fn commands_run_beside_each_other_in_a_box() {
    let Some(home) = Home::able() else { return };
    home.sleeper("server");
    statuses(&home);
    surroundings(&home);
    streams(&home);
    concurrently(&home);
    detached(&home);
    limited(&home);
    home.run(&["stop", "-t", "0", "server"]).ok();
    home.run(&["exec", "server", "true"]).refused("not running");
}

fn statuses(home: &Home) {
    let code = |command: &[&str]| {
        let arguments: Vec<&str> = ["exec", "server"].iter().chain(command).copied().collect();
        home.run(&arguments).code()
    };
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 255"]), Some(255));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code(&["no-such-program"]), Some(127));
    assert_eq!(code(&["/etc/passwd"]), Some(126));
    assert_eq!(code(&["/etc"]), Some(126));
}

fn surroundings(home: &Home) {
    let output = home.run(&[
        "exec",
        "-e",
        "A=1",
        "-e",
        "A=2",
        "-w",
        "/usr/lib",
        "-u",
        "daemon",
        "server",
        "sh",
        "-c",
        "echo $A; pwd; id -un",
    ]);
    assert_eq!(output.ok(), "2\n/usr/lib\ndaemon\n");
    let output = home.run(&["exec", "-u", "nobody-here", "server", "true"]);
    assert_eq!(output.code(), Some(126), "{output:?}");
    assert!(output.err.contains("nobody-here"), "{output:?}");
}

fn streams(home: &Home) {
    let output =
        home.run_with(&["exec", "-i", "server", "sh", "-c", "tr a-z A-Z; echo done >&2"], b"abc".into());
    assert_eq!((output.text().as_str(), output.err.as_str()), ("ABC", "done\n"));
    // Without -i the command has no input to wait for.
    let output = home.run_with(&["exec", "server", "cat"], b"unread".into());
    assert_eq!((output.text().as_str(), output.code()), ("", Some(0)));
    // The last bytes before the exit arrive, every time.
    for _ in 0..10 {
        let output = home.run(&["exec", "server", "sh", "-c", "seq 20000; exit 3"]);
        assert_eq!(output.code(), Some(3));
        assert!(
            output.text().ends_with("\n19999\n20000\n") && output.out.len() == 108_894,
            "{}",
            output.out.len()
        );
    }
}

fn concurrently(home: &Home) {
    thread::scope(|scope| {
        let execs: Vec<_> = (0..8)
            .map(|number: u32| {
                scope.spawn(move || {
                    let script = format!("for i in 1 2 3; do echo {number}; sleep 0.2; done; exit {number}");
                    (number, home.run(&["exec", "server", "sh", "-c", &script]))
                })
            })
            .collect();
        for exec in execs {
            let (number, output) = exec.join().unwrap();
            assert_eq!(output.text(), format!("{number}\n").repeat(3), "{output:?}");
            assert_eq!(output.code(), Some(number as i32));
        }
    });
}

fn detached(home: &Home) {
    let refused = home.run(&["exec", "-d", "server", "no-such-program"]);
    assert_eq!(refused.code(), Some(127), "{refused:?}");
    let output = home.run(&["exec", "-d", "server", "sh", "-c", "sleep 0.5; echo late >/tmp/late"]);
    assert_eq!(output.ok(), "");
    eventually("the detached command", || {
        (home.run(&["exec", "server", "cat", "/tmp/late"]).text() == "late\n").then_some(())
    });
}

fn limited(home: &Home) {
    let output = home.run(&["exec", "--timeout", "0.5", "server", "sleep", "6060"]);
    assert_eq!(output.code(), Some(124), "{output:?}");
    assert!(output.err.contains("exceeded its limit of 500ms"), "{output:?}");
    let running = home.run(&["exec", "server", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).ok();
    assert!(!running.contains("sleep 6060 "), "{running}");
    let output = home.run(&["exec", "--timeout", "600", "server", "sh", "-c", "exit 3"]);
    assert_eq!((output.code(), output.err.as_str()), (Some(3), ""));
    home.run(&["exec", "-d", "--timeout", "5", "server", "true"]).refused("--timeout");
    home.run(&["exec", "--timeout", "0", "server", "true"]).refused("above 0");
}
