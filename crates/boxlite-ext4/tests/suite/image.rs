//! Properties of the image as a whole: identity, determinism, use by a kernel, growth.

use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};

use boxlite_ext4::{BuildErrorKind, BuildOptions, IdentityError, build, expected_uuid, read_identity};
use boxlite_testkit::program::run;

use crate::archive::{Archive, Blob, Compression, sha256};
use crate::oracle::{IDENTITY, Mount, able, build_at, check, options};

fn layers() -> Vec<Blob> {
    let (mut lower, mut upper) = (Archive::new(), Archive::new());
    let noise: Vec<u8> =
        (0..900_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    lower.dir("d").file("d/noise", &noise).file("gone", &noise[..50_000]).file("replaced", &noise[..80_000]);
    for number in 0..500 {
        lower.file(&format!("d/{number}"), &noise[number * 10..number * 17]);
    }
    upper.file(".wh.gone", b"").file("replaced", &noise[1000..3000]).hardlink("d/again", "d/noise");
    vec![Blob::new(&lower.finish(), Compression::Gzip), Blob::new(&upper.finish(), Compression::Zstd)]
}

fn small() -> BuildOptions {
    BuildOptions { virtual_size: 256 << 20, ..options() }
}

/// A reader that gives as little as it may.
struct Dripping(Box<dyn Read + Send>, usize);

impl Read for Dripping {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 % 4093 + 1;
        if self.1.is_multiple_of(7) {
            std::thread::yield_now();
        }
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}

/// Mutation tried: the time of day as `s_wtime`; fails.
#[test]
fn the_same_layers_give_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let blobs = layers();
    let (first, second) = (scratch.path().join("first"), scratch.path().join("second"));
    build_at(&first, &blobs, &small()).unwrap();
    let file = File::create_new(&second).unwrap();
    let dripping = blobs
        .iter()
        .enumerate()
        .map(|(number, blob)| {
            let mut layer = blob.layer(number);
            layer.reader = Box::new(Dripping(layer.reader, number));
            layer.label = "another label".to_owned();
            layer
        })
        .collect();
    build(dripping, &file, &small(), &mut |_| ControlFlow::Continue(())).unwrap();
    let (first, second) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
    assert_eq!(sha256(&first), sha256(&second));
    let recompressed: Vec<_> = blobs
        .iter()
        .map(|blob| match blob.compression {
            Compression::Zstd => {
                Blob::new(&zstd::decode_all(blob.bytes.as_slice()).unwrap(), Compression::None)
            }
            _ => blob.clone(),
        })
        .collect();
    let third = scratch.path().join("third");
    build_at(&third, &recompressed, &small()).unwrap();
    assert_eq!(sha256(&first), sha256(&fs::read(&third).unwrap()));
}

/// What upper layers hide leaves neither blocks nor bytes behind.
///
/// Mutation tried: blocks given back without clearing them; fails.
#[test]
fn hidden_content_is_given_back() {
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    let mut secret = vec![0; 3 << 20];
    secret.iter_mut().zip(b"a secret of a lower layer. ".iter().cycle()).for_each(|(to, from)| *to = *from);
    let mut lower = Archive::new();
    lower.file("secret", &secret).file("small", b"kept");
    let mut upper = Archive::new();
    upper.file(".wh.secret", b"");
    let blobs = [&lower, &upper].map(|layer| Blob::new(&layer.finish(), Compression::Gzip));
    build_at(&image, &blobs, &small()).unwrap();
    check(&image);
    assert!(image.metadata().unwrap().blocks() * 512 < 2 << 20);
    let bytes = fs::read(&image).unwrap();
    assert!(!bytes.windows(24).any(|window| window == &secret[..24]));
}

/// A file system that layers fill, empty and fill again: what is given back is used once the end is reached.
#[test]
fn space_given_back_is_used_again() {
    let options = BuildOptions { virtual_size: 64 << 20, ..options() };
    let noise: Vec<u8> = (0..6_250_000_u32)
        .flat_map(|number| (number.wrapping_mul(2_654_435_761) | 1).to_le_bytes())
        .collect();
    let (mut lower, mut upper) = (Archive::new(), Archive::new());
    lower.file("a", &noise).file("b", &noise);
    upper.file(".wh.a", b"").file("c", &noise);
    let blobs = [&lower, &upper].map(|layer| Blob::new(&layer.finish(), Compression::None));
    crate::oracle::verify("refilled", &blobs, &options);
    let scratch = tempfile::tempdir().unwrap();
    let mut top = Archive::new();
    top.file("d", &noise);
    let error = build_at(
        &scratch.path().join("image"),
        &[blobs.to_vec(), vec![Blob::new(&top.finish(), Compression::None)]].concat(),
        &options,
    )
    .unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::TooLarge);
    assert!(error.to_string().contains("layer 2") && error.to_string().contains("\"d\""), "{error}");
}

#[test]
fn an_image_allocates_what_it_holds_at_every_virtual_size() {
    for (virtual_size, most) in
        [(32 << 20, 1 << 20), (10 << 30, 2 << 20), (64 << 30, 4 << 20), (1 << 40, 24 << 20)]
    {
        let scratch = tempfile::tempdir().unwrap();
        let image = scratch.path().join("image");
        let mut layer = Archive::new();
        layer.file("a", b"a");
        let options = BuildOptions { virtual_size, ..options() };
        let report = build_at(&image, &[Blob::new(&layer.finish(), Compression::None)], &options).unwrap();
        let metadata = image.metadata().unwrap();
        assert_eq!(metadata.len(), virtual_size);
        assert!(metadata.blocks() * 512 < most, "{virtual_size}: {} allocated", metadata.blocks() * 512);
        assert!(report.free_inodes >= 65_536.min(virtual_size / 16_384), "{report:?}");
        check(&image);
    }
}

#[test]
fn odd_virtual_sizes_are_rounded_down_to_what_e2fsck_accepts() {
    let group = 128 << 20;
    for extra in [0, 511, 4096, 700 * 4096, 32_767 * 4096] {
        let scratch = tempfile::tempdir().unwrap();
        let image = scratch.path().join("image");
        let options = BuildOptions { virtual_size: 3 * group + extra, ..options() };
        build_at(&image, &layers(), &options).unwrap();
        check(&image);
    }
}

/// A guest's life: mount, write, mount again; and no table is initialised behind its back.
///
/// Mutation tried: groups without `INODE_ZEROED`; fails.
#[test]
fn the_kernel_mounts_it_writable_and_leaves_the_tables_alone() {
    if !able("writable") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    build_at(&image, &layers(), &options()).unwrap();
    let before = image.metadata().unwrap().blocks();
    // A loop device zeroes by punching holes, so growth alone would not tell; the flags keep the kernel from trying.
    let groups = Command::new("dumpe2fs").arg(&image).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&groups.stdout).matches("ITABLE_ZEROED").count(), 80);
    for round in 0..2 {
        let mount = Mount::new(&image, &scratch.path().join("mount"), "loop,init_itable=0");
        assert_eq!(fs::read(mount.at.join("replaced")).unwrap().len(), 2000);
        fs::write(mount.at.join(format!("round-{round}")), b"written by the kernel").unwrap();
        fs::create_dir_all(mount.at.join(format!("new-{round}/deep"))).unwrap();
        run(Command::new("sync").arg("-f").arg(&mount.at));
        std::thread::sleep(std::time::Duration::from_millis(1200));
    }
    check(&image);
    let grown = (image.metadata().unwrap().blocks() - before) * 512;
    assert!(grown < 2 << 20, "two small writes grew the image by {grown} bytes");
}

/// What a kill of the machine leaves: the kernel's journal in our journal inode brings it back.
#[test]
fn a_copy_taken_while_mounted_recovers_by_its_journal() {
    if !able("recovery") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (image, copy) = (scratch.path().join("image"), scratch.path().join("copy"));
    build_at(&image, &layers(), &small()).unwrap();
    {
        let mount = Mount::new(&image, &scratch.path().join("mount"), "loop");
        for number in 0..300 {
            fs::write(mount.at.join(format!("synced-{number}")), vec![1; 5000]).unwrap();
            fs::rename(mount.at.join(format!("d/{number}")), mount.at.join(format!("moved-{number}")))
                .unwrap();
        }
        run(Command::new("sync").arg("-f").arg(&mount.at));
        run(Command::new("cp").arg("--sparse=always").args([&image, &copy]));
    }
    let listing = Command::new("dumpe2fs").arg("-h").arg(&copy).output().unwrap();
    assert!(String::from_utf8_lossy(&listing.stdout).contains("needs_recovery"));
    {
        let mount = Mount::new(&copy, &scratch.path().join("mount"), "loop");
        for number in 0..300 {
            assert_eq!(fs::read(mount.at.join(format!("synced-{number}"))).unwrap(), vec![1; 5000]);
            assert!(mount.at.join(format!("moved-{number}")).exists());
        }
    }
    check(&copy);
}

/// A directory's link count saturates (`dir_nlink`) where e2fsck expects it.
#[test]
fn very_many_subdirectories_are_counted_as_the_kernel_does() {
    for count in [64_997, 64_998, 64_999, 66_000] {
        let scratch = tempfile::tempdir().unwrap();
        let image = scratch.path().join("image");
        let mut layer = Archive::new();
        for number in 0..count {
            layer.dir(&format!("d/{number}"));
        }
        build_at(&image, &[Blob::new(&layer.finish(), Compression::None)], &options()).unwrap();
        check(&image);
    }
}

#[test]
fn a_full_disk_is_a_write_error() {
    if !able("full disk") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("tmpfs");
    fs::create_dir(&at).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(&at));
    let error = build_at(&at.join("image"), &layers(), &options());
    run(Command::new("umount").arg("-l").arg(&at));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::Write);
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
}

/// Mutation tried: no backup pointers in the resize inode; e2fsck refuses.
///
/// Growing a mounted file system takes `CAP_SYS_RESOURCE`; without it, resize2fs grows it at rest, by the same inode.
#[test]
fn it_grows() {
    if !able("growth") {
        return;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let online = u64::from_str_radix(effective.trim(), 16).unwrap() & 1 << 24 != 0;
    if !online {
        boxlite_testkit::oracle::skip_even_in_ci("no CAP_SYS_RESOURCE; growing at rest, not while mounted");
    }
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    for (from, to) in [(256_u64 << 20, 3_u64 << 30), (10 << 30, 40 << 30)] {
        let _ = fs::remove_file(&image);
        build_at(&image, &layers(), &BuildOptions { virtual_size: from, ..options() }).unwrap();
        File::options().write(true).open(&image).unwrap().set_len(to).unwrap();
        if !online {
            // resize2fs wants a check first; that one adds lost+found, and says so by exit status 1.
            let status =
                Command::new("e2fsck").arg("-fp").arg(&image).stdout(Stdio::null()).status().unwrap();
            assert!(matches!(status.code(), Some(0 | 1)), "{status}");
            run(Command::new("resize2fs").arg(&image));
        }
        {
            let mount = Mount::new(&image, &scratch.path().join("mount"), "loop");
            if online {
                let device = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&mount.at).output().unwrap();
                run(Command::new("resize2fs").arg(String::from_utf8(device.stdout).unwrap().trim()));
            }
            fs::write(mount.at.join("after"), vec![1; 1 << 20]).unwrap();
        }
        check(&image);
        assert_eq!(read_identity(&File::open(&image).unwrap()).unwrap().blocks, to / 4096);
    }
}

#[test]
fn an_image_is_recognised_and_nothing_else_is() {
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    let report = build_at(&image, &layers(), &small()).unwrap();
    let file = File::options().read(true).write(true).open(&image).unwrap();
    let identity = read_identity(&file).unwrap();
    assert_eq!((identity.uuid, identity.blocks), (expected_uuid(&IDENTITY), (256 << 20) / 4096));
    assert_eq!(report.uuid, identity.uuid);
    assert_ne!(expected_uuid(&[8; 32]), identity.uuid);
    let listing = Command::new("dumpe2fs").arg("-h").arg(&image).output().unwrap();
    let uuid = hex::encode(identity.uuid);
    assert!(String::from_utf8_lossy(&listing.stdout).replace('-', "").contains(&uuid));

    file.set_len(100 << 20).unwrap();
    assert!(matches!(read_identity(&file), Err(IdentityError::Truncated { .. })));
    file.set_len(256 << 20).unwrap();
    for position in 1024..2048 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, position).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], position).unwrap();
        assert!(matches!(read_identity(&file), Err(IdentityError::Foreign { .. })), "byte {position}");
        file.write_all_at(&byte, position).unwrap();
    }
    read_identity(&file).unwrap();
    file.set_len(1500).unwrap();
    assert!(matches!(read_identity(&file), Err(IdentityError::Truncated { .. })));
}

/// A change of these bytes needs another [`boxlite_ext4::BUILDER_VERSION`]: images are found by it.
#[test]
fn the_bytes_are_those_of_this_builder_version() {
    let mut rich = Archive::new();
    let meta = crate::archive::Meta {
        mtime: "1700000000.123456789".to_owned(),
        xattrs: vec![(b"user.large".to_vec(), vec![b'v'; 2500]), (b"user.small".to_vec(), vec![1, 2, 3])],
        ..crate::archive::meta(0o4755)
    };
    rich.entry(b'0', b"rich", b"", &meta, b"#!").device(b'3', "null", 1, 3).symlink("long", &"x/".repeat(90));
    for number in 0..3000 {
        rich.file(&format!("wide/{number}"), format!("{number}").as_bytes());
    }
    let sparse = (0..2000_usize).flat_map(|number| vec![(number % 3) as u8; 4096 * (1 + number % 20)]);
    rich.file("sparse", &sparse.collect::<Vec<_>>()).file("d/.wh..wh..opq", b"").dir("d");
    let blobs = [layers(), vec![Blob::new(&rich.finish(), Compression::None)]].concat();
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    build_at(&image, &blobs, &small()).unwrap();
    let digest = hex::encode(sha256(&fs::read(&image).unwrap()));
    assert_eq!(digest, "fd3daacdad488486b1b16ecd197054b5a292f0c31798721f195bae778f528c74");
}
