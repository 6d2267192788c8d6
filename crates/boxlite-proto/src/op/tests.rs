use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::ProbeRecord;
use crate::{
    BootTimings, DiskIdentity, FromGuest, GuestStart, MainState, NetworkRefusals, NetworkUsage, RefusalKind,
    RefusedDestination, ShimError, ShimReply, ShimRequest, ShimStatus, ToGuest,
};

/// Checks that `message` is written as `json`, byte for byte, and read back from it.
fn pinned<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T, json: &str) {
    assert_eq!(serde_json::to_string(message).unwrap(), json);
    assert_eq!(serde_json::from_str::<T>(json).unwrap(), *message);
}

/// A shim of an older release may run while a newer client asks it, so what travels keeps its text whatever the types
/// are called. Mutation tried: `rename_all` left out of one enum.
#[test]
fn the_text_of_messages_is_pinned() {
    let spec = ExecSpec {
        argv: vec!["sh".into()],
        tty: Some(WinSize { rows: 24, cols: 80 }),
        stdin: true,
        ..ExecSpec::default()
    };
    pinned(
        &ToGuest::Op(Op::Exec { id: 7, spec }),
        r#"{"op":{"exec":{"id":7,"spec":{"argv":["sh"],"env":[],"cwd":"","create_cwd":false,"user":"","extra_groups":[],"tty":{"rows":24,"cols":80},"stdin":true}}}}"#,
    );
    pinned(
        &ShimRequest::Op(Op::CopyOut { id: 1, path: "/a".into(), follow: true }),
        r#"{"op":{"copy_out":{"id":1,"path":"/a","follow":true}}}"#,
    );
    pinned(
        &Op::CopyIn { id: 1, dest: "/a".into(), keep_owners: false },
        r#"{"copy_in":{"id":1,"dest":"/a","keep_owners":false}}"#,
    );
    pinned(&Op::Signal { id: 1, signo: 15 }, r#"{"signal":{"id":1,"signo":15}}"#);
    pinned(&ToGuest::Shutdown { grace_ms: 9 }, r#"{"shutdown":{"grace_ms":9}}"#);
    pinned(
        &FromGuest::Hello { version: 2, features: vec!["untouched".into()] },
        r#"{"hello":{"version":2,"features":["untouched"]}}"#,
    );
    pinned(
        &FromGuest::Ready { timings: BootTimings::default(), warnings: vec![], features: vec![] },
        r#"{"ready":{"timings":{"kernel_us":0,"agent_us":0,"waited_us":0,"root_us":0,"setup_us":0},"warnings":[]}}"#,
    );
    pinned(&FromGuest::Down, r#""down""#);
    pinned(
        &FromGuest::Event(OpEvent::Exited { id: 7, status: ProcessExit::Signal(9), memory_kills: 0 }),
        r#"{"event":{"exited":{"id":7,"status":{"signal":9}}}}"#,
    );
    pinned(
        &OpEvent::Exited { id: 7, status: ProcessExit::Code(1), memory_kills: 2 },
        r#"{"exited":{"id":7,"status":{"code":1},"memory_kills":2}}"#,
    );
    pinned(
        &ShimReply::Event(OpEvent::ExecFailed {
            id: 7,
            kind: ExecFailure::NoSuchUser,
            message: "why".into(),
        }),
        r#"{"event":{"exec_failed":{"id":7,"kind":"no_such_user","message":"why"}}}"#,
    );
    pinned(
        &OpEvent::Failed { id: 7, kind: OpFailure::BadArchive, message: "why".into() },
        r#"{"failed":{"id":7,"kind":"bad_archive","message":"why"}}"#,
    );
    pinned(
        &OpEvent::Stat {
            id: 1,
            stat: FileStat {
                kind: FileKind::Symlink,
                mode: 0o777,
                length: 3,
                mtime: -1,
                link_target: Some("a".into()),
                leads_to_directory: true,
            },
        },
        r#"{"stat":{"id":1,"stat":{"kind":"symlink","mode":511,"length":3,"mtime":-1,"link_target":"a","leads_to_directory":true}}}"#,
    );
    pinned(
        &ShimRequest::Stop { signo: None, timeout_ms: 10_000 },
        r#"{"stop":{"signo":null,"timeout_ms":10000}}"#,
    );
    pinned(
        &ShimRequest::Attach { id: 1, from: Some(5), stdin: false, tty: None },
        r#"{"attach":{"id":1,"from":5,"stdin":false,"tty":null}}"#,
    );
    pinned(&ShimRequest::SwitchDisk { limit_ms: 5 }, r#"{"switch_disk":{"limit_ms":5}}"#);
    pinned(
        &ShimReply::Switched { frozen_us: 7, expired: false },
        r#"{"switched":{"frozen_us":7,"expired":false}}"#,
    );
    pinned(&ShimRequest::PrepareDisk, r#""prepare_disk""#);
    pinned(&ToGuest::Op(Op::Freeze { id: 1, timeout_ms: 5 }), r#"{"op":{"freeze":{"id":1,"timeout_ms":5}}}"#);
    pinned(
        &OpEvent::Thawed { id: 1, frozen_us: 7, expired: false },
        r#"{"thawed":{"id":1,"frozen_us":7,"expired":false}}"#,
    );
    pinned(&ShimRequest::SetDiskQuota { bytes: Some(1 << 30) }, r#"{"set_disk_quota":{"bytes":1073741824}}"#);
    pinned(
        &ShimReply::Stopped { status: Some(ProcessExit::Code(3)) },
        r#"{"stopped":{"status":{"code":3}}}"#,
    );
    pinned(
        &ShimReply::Status(ShimStatus {
            shim_pid: 1,
            vm_pid: None,
            main: MainState::Exited(ProcessExit::Code(0)),
            out_of_space: true,
            disk: None,
            network: None,
            probes: Vec::new(),
            guest_start: None,
        }),
        r#"{"status":{"shim_pid":1,"vm_pid":null,"main":{"exited":{"code":0}},"out_of_space":true}}"#,
    );
    pinned(
        &ShimReply::Status(ShimStatus {
            shim_pid: 1,
            vm_pid: Some(2),
            main: MainState::Booting,
            out_of_space: false,
            disk: Some(DiskIdentity { device: 3, inode: 4 }),
            network: Some(NetworkUsage {
                connections: 1,
                max_connections: 2,
                refused_connections: 3,
                dropped_frames: 4,
                sent_bytes: 5,
                received_bytes: 6,
                host_connections: None,
                refusals: None,
                peers: None,
            }),
            probes: vec![ProbeRecord {
                began_unix_ms: 1,
                ended_unix_ms: 2,
                exit_code: -1,
                output: "x".into(),
            }],
            guest_start: Some(GuestStart { restored: false, reason: Some("so".into()) }),
        }),
        concat!(
            r#"{"status":{"shim_pid":1,"vm_pid":2,"main":"booting","out_of_space":false,"disk":{"device":3,"inode":4},"network":"#,
            r#"{"connections":1,"max_connections":2,"refused_connections":3,"dropped_frames":4,"#,
            r#""sent_bytes":5,"received_bytes":6},"#,
            r#""probes":[{"began_unix_ms":1,"ended_unix_ms":2,"exit_code":-1,"output":"x"}],"#,
            r#""guest_start":{"restored":false,"reason":"so"}}}"#
        ),
    );
    pinned(
        &NetworkRefusals {
            total: 2,
            counts: [(RefusalKind::Name, 2)].into(),
            latest: vec![RefusedDestination { kind: RefusalKind::Name, destination: "a.b".into(), times: 2 }],
        },
        r#"{"total":2,"counts":{"name":2},"latest":[{"kind":"name","destination":"a.b","times":2}]}"#,
    );
    pinned(
        &ShimReply::Error { kind: ShimError::NotRunning, message: "why".into() },
        r#"{"error":{"kind":"not_running","message":"why"}}"#,
    );
}
