use std::fs;

use boxlite_types::{Volume, VolumeMount};

use super::*;
use crate::shim::accel::Accelerator;
use crate::volume::{NamedDisk, Shares};

const ROOM: Option<Thresholds> =
    Some(Thresholds { hard_floor: 0, soft_floor: 0, soft_percent: 0, inode_floor: 0 });

fn spec() -> LaunchSpec {
    let [qemu, kernel, initrd] = ["/bin/sh", "/bin/ls", "/bin/cat"].map(PathBuf::from);
    LaunchSpec { qemu, kernel, initrd, memory_bytes: 1 << 20, ..LaunchSpec::sample() }
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
    assert_eq!(origin(&spec, &home, None).unwrap().0, GuestOrigin::Boot);
    assert!(!path.exists(), "no room, no mark");
    assert_eq!(origin(&spec, &home, ROOM).unwrap().0, GuestOrigin::Boot);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(origin(&spec, &home, None).unwrap().0, GuestOrigin::Boot);
    let keep = TemplateKeep { path: path.clone(), room: ROOM.unwrap() };
    assert_eq!(origin(&spec, &home, ROOM).unwrap().0, GuestOrigin::BootAndKeep(keep));
    fill(&path);
    let (found, lease) = origin(&spec, &home, None).unwrap();
    assert_eq!(found, GuestOrigin::Template(path));
    assert!(lease.is_some());
}

fn sharing(sources: &[&str]) -> LaunchSpec {
    let volume = |source: &&str| Volume {
        source: source.into(),
        target: format!("/shared{source}"),
        read_only: false,
        map_ids: false,
        file: false,
        size: None,
    };
    let shares = Shares { volumes: sources.iter().map(volume).collect(), ..Shares::default() };
    LaunchSpec { shares, ..spec() }
}

/// Mutations tried: no bound; the most recently used goes; one that is leased goes.
#[test]
fn the_least_recently_used_makes_place() {
    let (_scratch, home) = home();
    let of = |megabytes| path_of(&home, &LaunchSpec { memory_bytes: megabytes << 20, ..spec() });
    for (age, megabytes) in (2..10).enumerate() {
        fill(&of(megabytes));
        let used = SystemTime::now() - std::time::Duration::from_secs(1000 - age as u64);
        let file = fs::File::options().write(true).open(of(megabytes)).unwrap();
        file.set_times(fs::FileTimes::new().set_accessed(used)).unwrap();
    }
    let in_use = Leased::acquire(&of(2)).unwrap().unwrap();
    assert_eq!(origin(&spec(), &home, ROOM).unwrap().0, GuestOrigin::Boot);
    assert!(matches!(origin(&spec(), &home, ROOM).unwrap().0, GuestOrigin::BootAndKeep(_)));
    let left: Vec<u64> = (2..10).filter(|megabytes| of(*megabytes).exists()).collect();
    assert_eq!(left, [2, 4, 5, 6, 7, 8, 9]);
    drop(in_use);
}

fn disk(name: &str, read_only: bool) -> NamedDisk {
    let mount = VolumeMount { name: name.into(), target: format!("/{name}"), read_only };
    NamedDisk { mount, path: format!("/h/volumes/{name}").into() }
}

/// Mutations tried: the box's id or its disk left as they are; the disks of volumes left out of the name.
#[test]
fn a_name_tells_hardware_apart_and_not_boxes() {
    let name = |spec: LaunchSpec| name::of(&spec).unwrap();
    let other_box = LaunchSpec {
        box_id: "b2".into(),
        run_id: "r2".into(),
        box_dir: "/h/boxes/b2".into(),
        overlay: "/h/boxes/b2/disks/root.qcow2".into(),
        bases: vec!["/h/bases/x.qcow2".into()],
        backing: Some("/h/images/disk-images/e.ext4".into()),
        discard: true,
        ..spec()
    };
    assert_eq!(name(other_box), name(spec()));
    let with = |disks: &[NamedDisk]| LaunchSpec { disks: disks.to_vec(), ..spec() };
    assert_eq!(name(with(&[disk("a", false)])), name(with(&[disk("b", false)])));
    // A port takes eight shares.
    assert_eq!(name(sharing(&["/a"])), name(sharing(&["/b", "/c"])));
    let others = vec![
        LaunchSpec { cpus: 3, ..spec() },
        LaunchSpec { memory_bytes: 2 << 20, ..spec() },
        LaunchSpec { kernel: "/bin/rm".into(), ..spec() },
        LaunchSpec { initrd: "/bin/rm".into(), ..spec() },
        LaunchSpec { kernel_arguments: vec!["x".into()], ..spec() },
        LaunchSpec { accel: Accelerator::Tcg { tsc_khz: 1 }, ..spec() },
        LaunchSpec { accel: Accelerator::Kvm, ..spec() },
        LaunchSpec { network: Some(crate::net::Network::default()), ..spec() },
        LaunchSpec { qemu: "/bin/cat".into(), ..spec() },
        with(&[disk("a", false)]),
        with(&[disk("a", true)]),
        with(&[disk("a", false), disk("b", false)]),
        sharing(&["/a"]),
        sharing(&["/a"; 9]),
    ];
    let names: std::collections::BTreeSet<_> = others.into_iter().chain([spec()]).map(name).collect();
    assert_eq!(names.len(), 15);
}
