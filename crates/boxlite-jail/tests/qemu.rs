//! QEMU in its jail, with the devices of a box: a guest of eleven instructions runs in it and ends it.

#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use boxlite_jail::{Bound, JailSpec, Opening, qemu};
use support::{also_as_nobody, launch, lines, plain_spec};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// QEMU's exit status after the firmware wrote 0x2a to the exit port: `(0x2a << 1) | 1`.
const RAN: i32 = 0x55;

/// 64 KiB of firmware that ends at the reset vector: `mov al, 0x2a; out 0xf4, al; hlt; jmp -3`.
fn firmware() -> Vec<u8> {
    let mut rom = vec![0xf4_u8; 64 * 1024];
    let reset = rom.len() - 16;
    rom[reset..reset + 7].copy_from_slice(&[0xb0, 0x2a, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]);
    rom
}

/// The template is handed over read-only, although QEMU opens it for reading and writing; a name that is no opening of the
/// spec does not exist for QEMU.
#[test]
fn a_guest_runs_on_descriptors_alone() {
    if !Path::new(QEMU).exists() {
        assert!(std::env::var_os("CI").is_none(), "QEMU is missing");
        eprintln!("skipped: there is no QEMU");
        return;
    }
    also_as_nobody("a_guest_runs_on_descriptors_alone");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("rom"), firmware()).unwrap();
    let raw = |name: &str, bytes: u64| {
        File::create(at(name)).unwrap().set_len(bytes).unwrap();
        File::options().read(true).write(true).open(at(name)).unwrap()
    };
    let overlay = raw("overlay", 16 << 20);
    raw("base", 16 << 20);
    let base = File::open(at("base")).unwrap();
    // A template that only root could write to, and that this descriptor can't.
    raw("template", 64 << 20);
    let template = File::open(at("template")).unwrap();
    let (qmp, mut ours) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").unwrap();

    let mut spec = plain_spec(Path::new(QEMU));
    spec.view = qemu::view_of(Path::new(QEMU)).unwrap();
    spec.view.data.push(Bound { source: at("rom"), target: "/boxlite/rom".into() });
    spec.descriptors = [overlay.as_raw_fd(), base.as_raw_fd(), qmp.as_raw_fd()].into();
    spec.openings = vec![Opening {
        path: "/boxlite/memory".into(),
        descriptor: template.as_raw_fd(),
        reads_only: false,
        feigns_holes: true,
    }];
    let [overlay, base, qmp] = [overlay.as_raw_fd(), base.as_raw_fd(), qmp.as_raw_fd()];
    let line = format!(
        "-nodefaults -no-user-config -no-reboot -display none -name box -m size=65536k -smp 1 -accel tcg,tb-size=64 \
         -cpu max -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
         -machine microvm,acpi=on,isa-serial=on,dump-guest-core=off,memory-backend=ram \
         -object memory-backend-file,id=ram,size=65536k,share=off,mem-path=/boxlite/memory \
         -bios /boxlite/rom -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
         -add-fd fd={overlay},set=1 -add-fd fd={base},set=2 \
         -blockdev driver=file,node-name=f0,aio=threads,discard=unmap,filename=/dev/fdset/1 \
         -blockdev driver=file,node-name=b0,read-only=on,aio=threads,filename=/dev/fdset/2 \
         -blockdev driver=raw,node-name=d0,file=f0,discard=unmap,detect-zeroes=unmap \
         -blockdev driver=raw,node-name=d1,read-only=on,file=b0 \
         -device virtio-blk-device,drive=d0,id=vd0 -device virtio-blk-device,drive=d1,id=vd1 \
         -device virtio-serial-device,max_ports=2 -chardev socket,id=qmp,fd={qmp} -mon chardev=qmp,mode=control"
    );
    spec.arguments = line.split_whitespace().map(Into::into).collect();
    spec.limits.file_size = 64 << 20;
    let without_opening = JailSpec { openings: Vec::new(), ..spec.clone() };

    let jailed = launch(&spec).unwrap();
    for measure in &jailed.report.measures {
        println!("{measure}");
    }
    let (text, status) = lines(jailed);
    assert_eq!(status.code(), Some(RAN), "{status}: {text}");
    assert!(std::fs::read(at("template")).unwrap().iter().all(|&byte| byte == 0));

    let (text, status) = lines(launch(&without_opening).unwrap());
    assert!(status.code() == Some(1) && text.contains("/boxlite/memory"), "{status}: {text}");
}
