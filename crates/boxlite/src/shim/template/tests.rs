use std::fs;

use super::*;
use crate::volume::{Shares, Volume};

const ROOM: Option<Thresholds> =
    Some(Thresholds { hard_floor: 0, soft_floor: 0, soft_percent: 0, inode_floor: 0 });

fn spec() -> LaunchSpec {
    LaunchSpec { qemu: "/bin/sh".into(), memory_bytes: 1 << 20, ..LaunchSpec::sample() }
}

fn home() -> (tempfile::TempDir, Home) {
    let scratch = tempfile::tempdir().unwrap();
    let home = Home::open(&scratch.path().join("home")).unwrap();
    (scratch, home)
}

fn fill(path: &Path) {
    fs::write(path, vec![1; (1 << 20) + 1]).unwrap();
}

fn path_of(home: &Home, spec: &LaunchSpec) -> PathBuf {
    home.vm().join(name::of(spec).unwrap())
}

/// Mutation tried: a template for whatever file is found.
#[test]
fn the_first_start_marks_the_second_keeps_and_the_third_is_restored() {
    let (_scratch, home) = home();
    let (spec, path) = (spec(), path_of(&home, &spec()));
    assert_eq!(origin(&spec, &home, None).unwrap().0, Origin::Boot);
    assert!(!path.exists(), "no room, no mark");
    assert_eq!(origin(&spec, &home, ROOM).unwrap().0, Origin::Boot);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(origin(&spec, &home, None).unwrap().0, Origin::Boot);
    let keep = Keep { path: path.clone(), room: ROOM.unwrap() };
    assert_eq!(origin(&spec, &home, ROOM).unwrap().0, Origin::BootAndKeep(keep));
    fill(&path);
    let (found, lease) = origin(&spec, &home, None).unwrap();
    assert_eq!(found, Origin::Template(path));
    assert!(lease.is_some());
}

#[test]
fn what_cannot_be_restored_is_booted() {
    let (_scratch, home) = home();
    let volume = Volume { source: "/tmp".into(), target: "/x".into(), read_only: false };
    let shares = Shares { volumes: vec![volume], ..Shares::default() };
    for spec in [LaunchSpec { accel: Accelerator::Kvm, ..spec() }, LaunchSpec { shares, ..spec() }] {
        assert_eq!(origin(&spec, &home, ROOM).unwrap().0, Origin::Boot);
        assert!(!path_of(&home, &spec).exists());
    }
}

/// Mutation tried: no bound.
#[test]
fn a_home_has_few_templates() {
    let (_scratch, home) = home();
    for megabytes in 2..10 {
        fill(&path_of(&home, &LaunchSpec { memory_bytes: megabytes << 20, ..spec() }));
    }
    for _ in 0..3 {
        assert_eq!(origin(&spec(), &home, ROOM).unwrap().0, Origin::Boot);
    }
}

/// Mutations tried: the box's id, its disk or its initramfs left as they are or left out.
#[test]
fn a_name_tells_hardware_apart_and_not_boxes() {
    let name = |spec: LaunchSpec| name::of(&spec).unwrap();
    let other_box = LaunchSpec {
        box_id: "b2".into(),
        run_id: "r2".into(),
        box_dir: "/h/boxes/b2".into(),
        overlay: "/h/boxes/b2/disks/root.qcow2".into(),
        bases: vec!["/h/bases/x.qcow2".into()],
        backing: "/h/images/disk-images/e.ext4".into(),
        discard: true,
        ..spec()
    };
    assert_eq!(name(other_box), name(spec()));
    let others = [
        LaunchSpec { cpus: 3, ..spec() },
        LaunchSpec { memory_bytes: 2 << 20, ..spec() },
        LaunchSpec { kernel: "/h/vm/other".into(), ..spec() },
        LaunchSpec { initrd: "/h/vm/other".into(), ..spec() },
        LaunchSpec { kernel_arguments: vec!["x".into()], ..spec() },
        LaunchSpec { accel: Accelerator::Tcg { tsc_khz: 1 }, ..spec() },
        LaunchSpec { network: Some(crate::net::Network::default()), ..spec() },
        LaunchSpec { qemu: "/bin/cat".into(), ..spec() },
    ];
    let names: std::collections::BTreeSet<_> = others.into_iter().chain([spec()]).map(name).collect();
    assert_eq!(names.len(), 9);
}
