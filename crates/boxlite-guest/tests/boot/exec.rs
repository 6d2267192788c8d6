//! What processes in the guest experience.

use boxlite_proto::{ExecFailure, ExitStatus};

use crate::machine::spec;
use crate::shared;

#[test]
fn a_program_runs_and_its_status_comes_back() {
    let Some(machine) = shared() else { return };
    let ended = machine.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(ended.outcome, Ok(ExitStatus::Code(7)));
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
    assert_eq!(with("web:audio", "/tmp"), Ok(ExitStatus::Code(0)));
}
