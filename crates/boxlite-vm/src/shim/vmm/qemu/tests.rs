use boxlite_types::{Volume, VolumeMount};

use super::*;
use crate::shim::launch::GuestOrigin;
use crate::volume::{NamedDisk, Shares};

const CHANNELS: Channels = Channels { qmp: 10, agent: 11, console: 12 };

fn root() -> RootFiles {
    RootFiles { overlay: 22, bases: Vec::new(), backing: Some(23) }
}

fn files() -> QemuFiles {
    QemuFiles { kernel: 20, initrd: 21, root: Some(root()), volumes: Vec::new(), modules: None }
}

fn text(spec: &LaunchSpec, extra: &[OsString], memory: Memory) -> String {
    text_of(spec, &files(), extra, memory)
}

fn text_of(spec: &LaunchSpec, files: &QemuFiles, extra: &[OsString], memory: Memory) -> String {
    let arguments = arguments(spec, CHANNELS, files, extra, memory);
    arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_whole_command_line_under_tcg() {
    let expected = "\
-nodefaults
-no-user-config
-no-reboot
-display
none
-name
boxlite-b1
-sandbox
on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-m
size=262144k
-smp
2
-accel
tcg,tb-size=64
-cpu
max,vmx=off,svm=off
-machine
microvm,acpi=on,rtc=on,isa-serial=on,dump-guest-core=off,mem-merge=off
-bios
qboot.rom
-kernel
/dev/fd/20
-initrd
/dev/fd/21
-append
panic=-1 quiet loglevel=1 earlycon=uart8250,io,0x3f8 console=ttyS0 cryptomgr.notests init_on_alloc=0 tsc_early_khz=2800000 tsc=reliable
-add-fd
fd=22,set=22
-add-fd
fd=23,set=23
-blockdev
driver=file,node-name=f0,aio=threads,filename=/dev/fdset/22,discard=unmap
-blockdev
driver=file,node-name=b0,aio=threads,filename=/dev/fdset/23,read-only=on
-blockdev
driver=raw,node-name=b1,read-only=on,file=b0
-blockdev
driver=qcow2,node-name=d0,file=f0,backing=b1,discard=unmap,detect-zeroes=unmap
-device
virtio-blk-device,drive=d0,id=vd0,werror=stop,rerror=report
-device
virtio-serial-device,max_ports=2
-chardev
socket,id=agent,fd=11
-device
virtserialport,chardev=agent,name=agent,nr=1
-chardev
socket,id=console,fd=12
-serial
chardev:console
-chardev
socket,id=qmp,fd=10
-mon
chardev=qmp,mode=control";
    assert_eq!(text(&LaunchSpec::sample(), &[], Memory::Own), expected);
}

#[test]
fn kvm_needs_no_clock_rate_and_uses_the_hosts_cpu() {
    let line = text(&LaunchSpec { accel: Accelerator::Kvm, ..LaunchSpec::sample() }, &[], Memory::Own);
    assert!(line.contains("-accel\nkvm\n-cpu\nhost,vmx=off,svm=off\n"));
    assert!(!line.contains("tsc_early_khz"));
}

/// Without one, Debian's kernel polls ports that are not there 40,000 times; only under TCG it is QEMU's default.
#[test]
fn kvm_has_a_clock_of_its_own_as_tcg_has() {
    let line = text(&LaunchSpec { accel: Accelerator::Kvm, ..LaunchSpec::sample() }, &[], Memory::Own);
    assert!(line.contains("-machine\nmicrovm,acpi=on,rtc=on,"), "{line}");
}

#[test]
fn a_guest_returns_memory_only_from_a_jail() {
    let jail = crate::shim::launch::JailPolicy { view: boxlite_jail::View::default(), first_id: 0, ids: 0 };
    let line = |jail| text(&LaunchSpec { jail, ..LaunchSpec::sample() }, &[], Memory::Template(9));
    assert!(line(Some(jail)).contains("-device\nvirtio-balloon-device,free-page-reporting=on\n"));
    assert!(!line(None).contains("balloon"));
}

/// Mutation tried: `host` for every box fails the second assertion.
#[test]
fn a_guest_sees_the_processors_virtualisation_only_on_demand() {
    for accel in [Accelerator::Kvm, Accelerator::Tcg { tsc_khz: 1 }] {
        let of = |nested| processor(&LaunchSpec { accel, nested, ..LaunchSpec::sample() });
        assert!(!of(true).contains("off"));
        assert!(of(false).ends_with(",vmx=off,svm=off"));
    }
}

/// Mutation tried: the option for every box fails the first assertion, for none the second.
#[test]
fn only_a_disk_that_goes_with_its_box_is_not_flushed() {
    let count = |discard| {
        text(&LaunchSpec { discard, ..LaunchSpec::sample() }, &[], Memory::Own).matches("no-flush").count()
    };
    assert_eq!(count(false), 0);
    assert_eq!(count(true), 2);
}

#[test]
fn shared_memory_is_one_memfd_of_the_guests_size() {
    let line = text(&LaunchSpec::sample(), &[OsString::from("-extra")], Memory::Shared);
    assert!(line.contains("-object\nmemory-backend-memfd,id=ram,size=262144k,share=on\n"));
    assert!(line.contains("mem-merge=off,memory-backend=ram\n"));
    assert!(line.ends_with("\n-extra"));
}

/// Mutations tried: a bus for every box; a power switch in the slot, behind which the guest finds nothing.
#[test]
fn a_box_with_shares_has_ports_for_them_unless_it_boots_with_them() {
    let sharing = |count, origin| {
        let volume = Volume {
            source: "/a".into(),
            target: "/b".into(),
            read_only: false,
            map_ids: false,
            file: false,
            size: None,
        };
        let shares = Shares { volumes: vec![volume; count], ..Shares::default() };
        LaunchSpec { shares, origin, ..LaunchSpec::sample() }
    };
    let template = || GuestOrigin::Template("/t".into());
    let line = |count, origin| text(&sharing(count, origin), &[], Memory::Copy(9));
    for unplugged in [line(0, template()), line(2, GuestOrigin::Boot)] {
        assert!(!unplugged.contains("pcie"), "{unplugged}");
    }
    let port = |number: u32| {
        let place = number + 1;
        format!(
            "-device\npcie-root-port,id=port{number},chassis={place},slot={place},power_controller_present=off\n"
        )
    };
    let one = line(8, template());
    assert!(one.contains(",dump-guest-core=off,mem-merge=off,pcie=on,memory-backend=ram\n"), "{one}");
    assert!(one.contains(&port(0)) && !one.contains(&port(1)), "{one}");
    let two = line(9, template());
    assert!(two.contains(&port(0)) && two.contains(&port(1)), "{two}");
    // All of its memory is its own, which others may map, and it waits for its devices' state.
    assert!(one.contains("memory-backend-file,id=ram,size=262144k,share=on,mem-path=/dev/fd/9\n"), "{one}");
    assert!(one.contains("-incoming\ndefer\n"), "{one}");
}

#[test]
fn a_chain_of_bases_ends_at_the_disk_image() {
    let files = QemuFiles { root: Some(RootFiles { bases: vec![24, 25], ..root() }), ..files() };
    let line = text_of(&LaunchSpec::sample(), &files, &[], Memory::Own);
    assert!(line.contains("node-name=d0,file=f0,backing=h0,"), "{line}");
    assert!(line.contains("node-name=h0,read-only=on,file=g0,backing=h1\n"), "{line}");
    assert!(line.contains("node-name=h1,read-only=on,file=g1,backing=b1\n"), "{line}");
    assert!(line.contains("node-name=g0,aio=threads,filename=/dev/fdset/24,read-only=on\n"), "{line}");
    assert!(line.contains("fd=25,set=25\n"), "{line}");
}

#[test]
fn below_a_disk_that_stands_on_nothing_is_nothing() {
    let files = QemuFiles { root: Some(RootFiles { backing: None, ..root() }), ..files() };
    let line = text_of(&LaunchSpec::sample(), &files, &[], Memory::Own);
    assert!(line.contains("driver=null-co,node-name=b1,read-only=on,size=0,read-zeroes=on\n"), "{line}");
    assert!(line.contains("node-name=d0,file=f0,backing=b1,"), "{line}");
    assert!(!line.contains("set=23"), "{line}");
}

/// No path of the host appears among the arguments, so none can add an option.
#[test]
fn qemu_is_told_no_path_of_the_home() {
    assert!(!text(&LaunchSpec::sample(), &[], Memory::Own).contains("/h/"));
}

/// Mutation tried: a serial number for the root disk as well, by which the guest finds no root.
#[test]
fn a_named_volume_is_a_disk_with_a_serial_number_that_flushes_to_the_host() {
    let disk = |name: &str, read_only| NamedDisk {
        mount: VolumeMount { name: name.into(), target: "/x".into(), read_only },
        path: format!("/h/volumes/{name}/disk.ext4").into(),
    };
    let disks = vec![disk("data", false), disk("more", true)];
    let spec = LaunchSpec { disks, discard: true, ..LaunchSpec::sample() };
    let line = text_of(&spec, &QemuFiles { volumes: vec![30, 31], ..files() }, &[], Memory::Own);
    for part in [
        "fd=30,set=30",
        "fd=31,set=31",
        "driver=file,node-name=vf0,aio=threads,filename=/dev/fdset/30,discard=unmap\n",
        "driver=raw,node-name=v0,file=vf0,discard=unmap,detect-zeroes=unmap\n",
        "virtio-blk-device,drive=v0,id=vv0,serial=volume0,werror=stop,rerror=report\n",
        "driver=file,node-name=vf1,aio=threads,filename=/dev/fdset/31,read-only=on\n",
        "driver=raw,node-name=v1,file=vf1,read-only=on\n",
        "virtio-blk-device,drive=v1,id=vv1,serial=volume1,werror=stop,rerror=report\n",
        "virtio-blk-device,drive=d0,id=vd0,werror=stop,rerror=report\n",
    ] {
        assert!(line.contains(part), "{part} is not in\n{line}");
    }
    assert!(!line.contains("/h/volumes"), "QEMU is told no path");
}

/// Mutation tried: the disk's nodes on the command line of a guest that waits.
#[test]
fn a_guest_that_waits_has_a_disk_without_a_file() {
    let line = text_of(&LaunchSpec::sample(), &QemuFiles { root: None, ..files() }, &[], Memory::Own);
    assert!(line.contains("driver=null-co,node-name=none,"), "{line}");
    assert!(line.contains("virtio-blk-device,drive=none,id=vd0,"), "{line}");
    assert!(!line.contains("qcow2") && !line.contains("fd=22"), "{line}");
}

#[test]
fn a_node_is_the_same_on_the_command_line_and_in_qmp() {
    let nodes: Vec<_> = root_nodes(&root(), false).iter().map(|node| options_as_json(node)).collect();
    assert_eq!(
        nodes[0],
        serde_json::json!({
            "driver": "file", "node-name": "f0", "aio": "threads", "filename": "/dev/fdset/22",
            "discard": "unmap", "cache": { "no-flush": true },
        })
    );
    assert_eq!(
        nodes[2],
        serde_json::json!({ "driver": "raw", "node-name": "b1", "read-only": true, "file": "b0" })
    );
    assert_eq!((nodes.len(), &nodes[3]["node-name"]), (4, &serde_json::json!(ROOT_NODE)));
}
