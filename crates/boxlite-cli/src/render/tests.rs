use boxlite::FreeSpace;
use boxlite::gc::{
    BoxUsage, ExplainedItem, Explanation, Fate, Holder, HolderKind, ImageShare, ImageUsage, Item, KindUsage,
    RemovalFailure, Skip, SubjectKind, Unreadable,
};
use boxlite::parse_ports;
use boxlite::{
    BoxInfo, BoxOptions, BoxState, GcReport, Health, HealthStatus, LogLine, MainProcess, OutputStream, Usage,
};
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
        pause: None,
        health: None,
        exit_code: None,
        created_at: before(7_300),
        started_at: None,
        finished_at: None,
        disk_allocated: None,
        ports: Vec::new(),
        memberships: Vec::new(),
        network_usage: None,
        guest_start: None,
        restart_count: 0,
        last_exit: None,
        node: None,
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
    let shown = |status| {
        let health = Some(Health { status, failing_streak: 0, since: now(), log: Vec::new() });
        let table = box_table(&[BoxInfo { health, ..running.clone() }], BoxColumns::default(), now());
        table.split("2 hours ago").nth(1).unwrap().trim_start().split("  ").next().unwrap().to_owned()
    };
    assert_eq!(shown(HealthStatus::Starting), "Up 2 minutes (health: starting)");
    assert_eq!(shown(HealthStatus::Unhealthy), "Up 2 minutes (unhealthy)");
    let columns = BoxColumns { whole: false, size: true, width: None };
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
fn a_box_that_failed_or_is_paused_says_why() {
    let table = |reason: &str, state, whole| {
        let info = BoxInfo { reason: Some(reason.into()), ..info("web", state) };
        box_table(&[info], BoxColumns { whole, size: false, width: None }, now())
    };
    let pause = "host disk: 245 MiB free, resumes at 384 MiB";
    assert!(table(pause, BoxState::Paused, false).contains(&format!(" Paused ({pause}) ")));
    assert!(
        table("unflushed writes were lost", BoxState::Failed, false)
            .contains("Failed (unflushed writes were lost)")
    );
    let long = "x".repeat(100);
    assert!(table(&long, BoxState::Failed, false).contains(&format!("Failed ({}…)", &long[..59])));
    assert!(table(&long, BoxState::Failed, true).contains(&long));
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
        "pause",
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
            writer.write(&LogLine { run: 1, at: now(), stream, bytes: bytes.into() }).unwrap();
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
    let mut table = TextTable::new(&["A", "B"]);
    table.row(["\x1b[2J".to_owned(), "ü".to_owned()]);
    assert_eq!(table.text(), "A           B\n\\u{1b}[2J   ü\n");
}

fn item(name: &str, allocated: u64, fate: Fate) -> Item {
    Item { name: name.into(), path: "/h/x".into(), allocated, modified: 0, last_used: 0, image: None, fate }
}

fn report() -> GcReport {
    let box_id = "0123456789abcdef0123456789abcdef".to_owned();
    let by = vec![
        Holder { name: box_id.clone(), kind: HolderKind::Record },
        Holder { name: box_id, kind: HolderKind::Chain },
    ];
    let digest = format!("{}.ext4", "ab".repeat(32));
    GcReport {
        disk_images: vec![
            item(&digest, 3 << 20, Fate::Kept { by, holders: 5 }),
            item("b.ext4", 1 << 20, Fate::Removed { reason: "no box needs it".into() }),
            item("c.ext4", 1 << 20, Fate::Skipped { why: Skip::Grace }),
        ],
        unreadable: vec![Unreadable { path: "/h/boxes/z".into(), reason: "Permission denied".into() }],
        failures: vec![RemovalFailure { path: "/h/d.ext4".into(), reason: "Operation not permitted".into() }],
        reclaimed: 1 << 20,
        free_space_change: Some(-4096),
        free_after: Some(FreeSpace { bytes: 7 << 30, bytes_total: 0, inodes: 0, inodes_total: 0 }),
        partial: true,
        ..GcReport::default()
    }
}

#[test]
fn a_collection_says_why_for_each_item() {
    assert_eq!(
        gc_text(&report()),
        "\
KIND         NAME           SIZE    FATE      WHY
disk image   abababababab   3 MiB   kept      box 0123456789ab, overlay of box 0123456789ab and 3 more
disk image   b.ext4         1 MiB   removed   no box needs it
disk image   c.ext4         1 MiB   skipped   modified within the grace

unreadable: /h/boxes/z: Permission denied
nothing that an unreadable file might need was removed
not removed: /h/d.ext4: Operation not permitted
1 item removed, at least 1 MiB freed; free space -4 KiB, now 7 GiB
"
    );
    let dry = GcReport { dry_run: true, free_space_change: None, partial: false, ..report() };
    assert!(gc_text(&dry).contains("would be removed   no box needs it"));
    assert!(gc_text(&dry).ends_with("\n1 item would be removed, 1 MiB freed\n"));
    assert_eq!(gc_text(&GcReport::default()), "0 items removed, 0 B freed\n");
}

/// Mutation tried: no sentence about blobs.
#[test]
fn an_explanation_says_who_pins_what_by_which_source_and_until_when() {
    let box_id = "0123456789abcdef0123456789abcdef";
    let holder = |name: &str, kind| Holder { name: name.to_owned(), kind };
    let by = vec![
        holder(box_id, HolderKind::Record),
        holder(box_id, HolderKind::Chain),
        holder("b.qcow2", HolderKind::Base),
        holder(box_id, HolderKind::Description),
    ];
    let explained = |kind, item, eligible_at| ExplainedItem { kind, item, eligible_at };
    let kept = Fate::Kept { by: by.clone(), holders: 4 };
    let young = Fate::Skipped { why: Skip::Grace };
    let now_at = now().as_second();
    let found = Explanation {
        subjects: vec![
            explained(
                SubjectKind::DiskImage,
                item(&format!("{}.ext4", "ab".repeat(32)), 3 << 20, kept),
                None,
            ),
            explained(SubjectKind::DiskImage, item("c.ext4", 1 << 20, young), Some(now_at + 61)),
            explained(
                SubjectKind::BoxDirectory,
                item(box_id, 4096, Fate::Skipped { why: Skip::Unexplained }),
                None,
            ),
        ],
        needs: vec![explained(
            SubjectKind::Base,
            item("b.qcow2", 4096, Fate::Removed { reason: "nobody needs it".into() }),
            Some(now_at),
        )],
        unreadable: vec![Unreadable { path: "/h/boxes/z".into(), reason: "Permission denied".into() }],
    };
    assert_eq!(
        explanation_text(&found, now()),
        "\
KIND            NAME                               SIZE    FATE      WHY                                                                                         ELIGIBLE
disk image      abababababab                       3 MiB   kept      box 0123456789ab, overlay of box 0123456789ab, base b.qcow2, box.json of box 0123456789ab   not by itself
disk image      c.ext4                             1 MiB   skipped   modified within the grace                                                                   in 2 min
box directory   0123456789abcdef0123456789abcdef   4 KiB   skipped   unexplained: nobody is known to have asked for its removal                                  not by itself
needs:
KIND   NAME      SIZE    FATE               WHY               ELIGIBLE
base   b.qcow2   4 KiB   would be removed   nobody needs it   now
unreadable: /h/boxes/z: Permission denied
"
    );
    assert_eq!(
        explanation_text(&Explanation::default(), now()),
        "nothing that gc judges is behind this name\n"
    );
    let spared = GcReport {
        blobs: vec![item("d", 4096, Fate::Skipped { why: Skip::MayBeNeeded })],
        ..GcReport::default()
    };
    assert!(gc_text(&spared).contains("stay while a box is unexplained"), "{}", gc_text(&spared));
}

#[test]
fn usage_as_tables() {
    let usage = Usage {
        disk_images: KindUsage { count: 2, allocated: 5 << 20, reclaimable: 2 << 20 },
        boot_files: KindUsage { count: 1, allocated: 64 << 20, reclaimable: 0 },
        boxes: vec![BoxUsage { id: "0123456789abcdef".into(), overlays: 4096, logs: 0, below: 3 << 20 }],
        images: vec![ImageUsage {
            digest: "abcdef0123456789".into(),
            allocated: 3 << 20,
            boxes: 1,
            reclaimable: false,
            last_used: before(120).as_second(),
        }],
        image_shares: vec![ImageShare {
            digest: format!("sha256:{}", "ab".repeat(32)),
            reference: Some("docker.io/library/alpine:3".into()),
            files: 2,
            allocated: 4 << 20,
            shared: 3 << 20,
            unique: 1 << 20,
            layers: 1,
            layers_in_all: 2,
            boxes: 1,
        }],
        reclaimable: 2 << 20,
        ..Usage::default()
    };
    assert_eq!(
        usage_text(&usage, true, now()),
        "\
KIND          COUNT   ALLOCATED   RECLAIMABLE
disk images   2       5 MiB       2 MiB
deltas        0       0 B         0 B
overlays      0       0 B         0 B
bases         0       0 B         0 B
volumes       0       0 B         0 B
blobs         0       0 B         0 B
logs          0       0 B         0 B
boot files    1       64 MiB      0 B
unfinished    0       0 B         0 B
unexplained   0       0 B         0 B
database      0       0 B         0 B
reserves      0       0 B         0 B
other                 0 B         0 B

IMAGE      IMAGE ID       SIZE    SHARED SIZE   UNIQUE SIZE   FILES   LAYERS   BOXES
alpine:3   abababababab   4 MiB   3 MiB         1 MiB         2       1 of 2   1

DISK IMAGE     ALLOCATED   BOXES   LAST USED       RECLAIMABLE
abcdef012345   3 MiB       1       2 minutes ago   no

BOX ID         OVERLAYS   LOGS   BELOW (SHARED)
0123456789ab   4 KiB      0 B    3 MiB

`boxlite gc` would free 2 MiB; 0 B are shared between boxes
"
    );
}

#[test]
fn a_table_fits_its_terminal_and_is_whole_for_a_pipe() {
    let mut table = TextTable::new(&["BOX ID", "A LONG HEADING THAT IS", "NAME"]);
    table.row(["0123456789ab".to_owned(), "x".repeat(60), "n".repeat(30)]);
    let whole = table.text();
    assert!(whole.contains(&"x".repeat(60)) && whole.contains(&"n".repeat(30)));
    let fitted = table.text_within(Some(60));
    assert!(fitted.lines().all(|line| line.chars().count() <= 60), "{fitted}");
    let row = fitted.lines().nth(1).unwrap();
    assert!(row.starts_with("0123456789ab   xxx") && row.matches('…').count() == 2, "{fitted}");
    assert_eq!(table.text_within(Some(200)), whole);
    // Names of images differ at their ends.
    let mut images = TextTable::new(&["IMAGE", "ID"]).with_telling_end(0);
    images.row(["registry.example/team/project/app:1.2.3".to_owned(), "0123456789ab".to_owned()]);
    assert!(images.text_within(Some(30)).ends_with("\n…ject/app:1.2.3   0123456789ab\n"));
    // Narrower than that, ids stay whole, and the terminal wraps.
    assert!(table.text_within(Some(5)).contains("0123456789ab   xxxxxxxxxxx…   nnnnnnnnnnn…"));
}

/// A file's name moves no cursor.
#[test]
fn the_tree_of_the_disk() {
    use boxlite::gc::{DiskTree, NodeKind, TreeNode};
    let file =
        |name: &str, bytes| TreeNode::leaf(NodeKind::Overlay, name, bytes).because("box web is running");
    let garbage = TreeNode { reclaimable: 4 << 20, ..TreeNode::leaf(NodeKind::DiskImage, "alpine", 4 << 20) };
    let boxes = (0..10).map(|index| file(&format!("box\u{1b}{index}"), 1 << 20)).collect();
    let root = TreeNode::group(
        NodeKind::Home,
        "/home",
        vec![
            TreeNode::group(NodeKind::Overlay, "overlays", boxes).because("what boxes have written"),
            TreeNode::group(
                NodeKind::DiskImage,
                "disk images",
                vec![garbage.because("gc would remove it: no box needs it")],
            ),
        ],
    );
    let tree = DiskTree { root, reclaimable: 4 << 20, unreadable: Vec::new() };
    let text = tree_text(&tree, false);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(words).collect();
    assert_eq!(lines[0], "14 MiB /home");
    assert_eq!(lines[1], "├─ overlays 10 MiB █████████··· what boxes have written");
    assert_eq!(lines[2], "│ ├─ box\u{fffd}0 1 MiB ██·········· box web is running");
    assert_eq!(lines[9], "│ └─ 3 more 3 MiB ████········");
    assert_eq!(lines[10], "└─ disk images 4 MiB ▒▒▒▒········ gc would free 4 MiB");
    assert_eq!(lines[11], "└─ alpine 4 MiB ▒▒▒▒▒▒▒▒▒▒▒▒ gc would remove it: no box needs it");
    assert_eq!(lines[13], "`boxlite gc` would free 4 MiB, drawn as ▒");
    assert!(!text.contains('\u{1b}') && tree_text(&tree, true).contains("box\u{fffd}9"));
}
