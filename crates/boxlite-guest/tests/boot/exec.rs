//! Processes in the guest: start, identity, signals, exit.

use boxlite_proto::{ExecFailure, ProcessExit};

use crate::machine::spec;
use crate::shared;

#[test]
fn a_program_runs_and_its_status_comes_back() {
    let Some(machine) = shared() else { return };
    let ended = machine.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(ended.outcome, Ok(ProcessExit::Code(7)));
    assert_eq!((ended.stdout, ended.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
}

#[test]
fn what_does_not_start_says_why() {
    let Some(machine) = shared() else { return };
    let failure = |argv: &[&str]| machine.run(argv).outcome.unwrap_err();
    assert_eq!(failure(&["no-such-program"]), ExecFailure::NotFound);
    assert_eq!(failure(&["/no/such/program"]), ExecFailure::NotFound);
    assert_eq!(failure(&["/etc/passwd"]), ExecFailure::PermissionDenied);
    assert_eq!(failure(&["/etc"]), ExecFailure::PermissionDenied);
    assert_eq!(failure(&[]), ExecFailure::Invalid);
    assert_eq!(failure(&["a\0b"]), ExecFailure::Invalid);
    let with = |user: &str, cwd: &str| {
        let spec = boxlite_proto::ExecSpec { user: user.into(), cwd: cwd.into(), ..spec(&["true"]) };
        machine.exec(spec).wait().outcome
    };
    assert_eq!(with("ghost", ""), Err(ExecFailure::NoSuchUser));
    assert_eq!(with("", "/missing"), Err(ExecFailure::BadCwd));
    assert_eq!(with("", "/etc/passwd"), Err(ExecFailure::BadCwd));
    assert_eq!(with("web:audio", "/tmp"), Ok(ProcessExit::Code(0)));
}

#[test]
fn identity_directory_and_environment() {
    let Some(machine) = shared() else { return };
    let asked = boxlite_proto::ExecSpec {
        user: "web".into(),
        extra_groups: vec!["77".into()],
        cwd: "/made/for/this".into(),
        create_cwd: true,
        env: vec!["A=b c".into(), "LANG=x".into()],
        ..spec(&[
            "sh",
            "-c",
            "id; pwd; echo $HOME $HOSTNAME $A; umask; ulimit -n; cat /proc/self/oom_score_adj",
        ])
    };
    let ended = machine.exec(asked).wait();
    let out = ended.out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "uid=33(web) gid=33(web) groups=44(video),45(audio),77",
            "/made/for/this",
            "/home/web testbox b c",
            "0022",
            "65536",
            "0",
        ],
        "{ended:?}"
    );
}

#[test]
fn a_user_who_is_not_root_may_reopen_its_streams() {
    let Some(machine) = shared() else { return };
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; ls /proc/self/fd | wc -l";
    let asked = boxlite_proto::ExecSpec { user: "4711:4712".into(), ..spec(&["sh", "-c", script]) };
    let ended = machine.exec(asked).wait();
    assert_eq!((ended.out().as_str(), &*ended.stderr), ("out\n4", &b"err\n"[..]), "{ended:?}");
}

/// Mutation tried: without `reset_signals` in the child, SIGCHLD and SIGIO stay blocked and SIGPIPE ignored.
#[test]
fn signals_reach_the_process_and_nothing_is_inherited() {
    let Some(machine) = shared() else { return };
    let trap = machine.exec(spec(&[
        "sh",
        "-c",
        "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.1; done",
    ]));
    trap.until("ready");
    trap.signal(10);
    assert_eq!(trap.wait().outcome, Ok(ProcessExit::Code(3)));

    let sleeper = machine.exec(spec(&["sleep", "1000"])).started();
    sleeper.signal(9);
    assert_eq!(sleeper.wait().outcome, Ok(ProcessExit::Signal(9)));

    let blocked = machine.run(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]).out();
    assert!(blocked.lines().all(|line| line.ends_with("\t0000000000000000")), "{blocked}");
    let ended = machine.run(&["sh", "-c", "yes | head -1"]);
    assert_eq!((ended.out().as_str(), &*ended.stderr), ("y", &b""[..]));
}

#[test]
fn orphans_are_reaped() {
    let Some(machine) = shared() else { return };
    machine.sh("for i in 1 2 3 4 5; do sh -c 'sh -c \"sleep 0.2; exit 5\" & exit 0'; done");
    let zombies = "sleep 1; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    assert_eq!(machine.sh(zombies), "0");
    let parent = machine.sh("sh -c 'sh -c \"sleep 0.3; grep PPid: /proc/\\$\\$/status > /orphan\" & exit 0'; sleep 1; cat /orphan");
    assert_eq!(parent, "PPid:\t1");
}

#[test]
fn the_agent_outlives_what_root_does_to_it() {
    let Some(machine) = shared() else { return };
    machine.sh("kill -9 1; kill -TERM 1; kill -STOP 1; test \"$(cat /proc/1/oom_score_adj)\" = -1000");
    assert_eq!(machine.sh("cat /dev/vport*p* 2>&1 | grep -c busy"), "1");
}

#[test]
fn an_id_in_use_is_refused_and_the_first_exec_goes_on() {
    let Some(machine) = shared() else { return };
    let first = machine.exec(boxlite_proto::ExecSpec { stdin: true, ..spec(&["cat"]) }).started();
    machine.send(&boxlite_proto::ToGuest::Op(boxlite_proto::Op::Stat { id: first.id, path: "/".into() }));
    match first.next() {
        crate::machine::Arrival::Event(boxlite_proto::OpEvent::Failed { kind, .. }) => {
            assert_eq!(kind, boxlite_proto::OpFailure::Invalid);
        }
        other => panic!("{other:?}"),
    }
    first.write(b"still here");
    first.end_input();
    assert_eq!(first.wait().out(), "still here");
}

#[test]
fn figures_make_sense() {
    let Some(machine) = shared() else { return };
    let ask = || match machine.ask(boxlite_proto::Op::Metrics { id: 0 }) {
        boxlite_proto::OpEvent::Metrics { metrics, .. } => metrics,
        other => panic!("{other:?}"),
    };
    let before = ask();
    assert!(before.processes >= 1 && before.cpus == 1);
    assert!(before.memory_total < 256 << 20 && before.memory_available < before.memory_total);
    assert!((200 << 20..256 << 20).contains(&before.root_total), "{before:?}");
    machine.sh("dd if=/dev/urandom of=/figures bs=1M count=20 2>/dev/null; sync");
    let after = ask();
    assert!(after.root_used >= before.root_used + (20 << 20), "{before:?} {after:?}");
    assert!(after.cpu_busy_ms > before.cpu_busy_ms && after.uptime_ms > before.uptime_ms);
    machine.sh("rm /figures");
}
