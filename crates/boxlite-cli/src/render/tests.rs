use boxlite::net::parse_ports;
use boxlite::{BoxInfo, BoxOptions, BoxState, LogLine, MainProcess, OutputStream};
use jiff::{SignedDuration, Timestamp};

use super::*;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn before(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

fn info(name: &str, state: BoxState) -> BoxInfo {
    BoxInfo {
        id: "0123456789abcdef0123456789abcdef".into(),
        name: name.into(),
        image: "alpine:3".into(),
        image_digest: "sha256:aa".into(),
        disk_digest: "bb".into(),
        state,
        reason: None,
        exit_code: None,
        created_at: before(7_300),
        started_at: None,
        finished_at: None,
        disk_allocated: None,
        ports: Vec::new(),
        options: BoxOptions::default(),
    }
}

#[test]
fn boxes_as_a_table() {
    let running = BoxInfo {
        started_at: Some(before(125)),
        disk_allocated: Some(5 << 20),
        ports: ["8080:80", "53:53/udp"].iter().flat_map(|text| parse_ports(text).unwrap()).collect(),
        options: BoxOptions {
            main: MainProcess::Image {
                entrypoint: None,
                command: Some(vec!["sh".into(), "-c".into(), "a rather\nlong command line".into()]),
            },
            ..BoxOptions::default()
        },
        ..info("web", BoxState::Running)
    };
    let stopped =
        BoxInfo { finished_at: Some(before(60)), exit_code: Some(137), ..info("job", BoxState::Stopped) };
    let failed = BoxInfo { finished_at: Some(before(1)), ..info("sad", BoxState::Failed) };
    let idle = BoxInfo {
        options: BoxOptions { main: MainProcess::Idle, ..BoxOptions::default() },
        ..info("idle", BoxState::Created)
    };
    let columns = BoxColumns { whole: false, size: true };
    assert_eq!(
        box_table(&[running, stopped, failed, idle], columns, now()),
        "\
BOX ID         IMAGE      COMMAND                     CREATED       STATUS                       PORTS                                          NAME   DISK
0123456789ab   alpine:3   sh -c a rather\\nlong com…   2 hours ago   Up 2 minutes                 127.0.0.1:8080->80/tcp, 127.0.0.1:53->53/udp   web    5 MiB
0123456789ab   alpine:3   (image's)                   2 hours ago   Stopped (137) 1 minute ago                                                  job    unknown
0123456789ab   alpine:3   (image's)                   2 hours ago   Failed 1 second ago                                                         sad    unknown
0123456789ab   alpine:3   (idle)                      2 hours ago   Created                                                                     idle   unknown
"
    );
    assert_eq!(
        box_table(&[], BoxColumns::default(), now()),
        "BOX ID   IMAGE   COMMAND   CREATED   STATUS   PORTS   NAME\n"
    );
}

#[test]
fn json_names_stay_as_documented() {
    let json = json(&[info("web", BoxState::Created)]).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let names: Vec<&String> = value[0].as_object().unwrap().keys().collect();
    // docs/json.md lists them; a name that goes away breaks somebody's program.
    for name in [
        "id",
        "name",
        "image",
        "image_digest",
        "disk_digest",
        "state",
        "reason",
        "exit_code",
        "created_at",
        "started_at",
        "finished_at",
        "disk_allocated",
        "ports",
        "options",
    ] {
        assert!(names.iter().any(|known| *known == name), "{name} is missing from {json}");
    }
    assert_eq!(value[0]["state"], "created");
    assert_eq!(value[0]["created_at"], "2026-03-01T09:58:20Z");
}

#[test]
fn times_for_people() {
    let cases = [
        (-5, "less than a second"),
        (0, "less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3_600, "1 hour"),
        (86_400, "24 hours"),
        (172_800, "2 days"),
        (1_209_600, "2 weeks"),
        (5_184_000, "2 months"),
        (63_072_000, "2 years"),
    ];
    for (seconds, expected) in cases {
        assert_eq!(span(before(seconds), now()), expected, "{seconds}");
    }
    assert_eq!(ago(before(60), now()), "1 minute ago");
}

#[test]
fn log_lines_keep_their_stream_and_get_one_stamp_each() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    {
        let mut writer = LogWriter::new(&mut out, &mut err, true);
        let mut write = |stream, bytes: &'static [u8]| {
            writer.write(&LogLine { at: now(), stream, bytes: bytes.into() }).unwrap();
        };
        write(OutputStream::Stdout, b"half ");
        write(OutputStream::Stderr, b"oops\n");
        write(OutputStream::Stdout, b"line\nnext\n");
    }
    let stamp = "2026-03-01T12:00:00.000000000Z";
    assert_eq!(String::from_utf8(out).unwrap(), format!("{stamp} half line\n{stamp} next\n"));
    assert_eq!(String::from_utf8(err).unwrap(), format!("{stamp} oops\n"));
}

#[test]
fn a_cell_can_not_talk_to_the_terminal() {
    let mut table = Table::new(&["A", "B"]);
    table.row(["\x1b[2J".to_owned(), "ü".to_owned()]);
    assert_eq!(table.text(), "A           B\n\\u{1b}[2J   ü\n");
}
