use std::io::Write;

use super::*;

fn elf(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|i| (i / 64) as u8).collect();
    bytes[..20].fill(0);
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18] = 62;
    bytes
}

fn bz_image(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024 + 0x100];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&0x100_u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend_from_slice(payload);
    image
}

fn with_length(mut packed: Vec<u8>, length: usize) -> Vec<u8> {
    packed.extend_from_slice(&(length as u32).to_le_bytes());
    packed
}

fn lz4(kernel: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
    for block in kernel.chunks(LZ4_LEGACY_BLOCK) {
        let block = lz4_flex::block::compress(block);
        packed.extend_from_slice(&(block.len() as u32).to_le_bytes());
        packed.extend_from_slice(&block);
    }
    with_length(packed, kernel.len())
}

#[test]
fn each_format_unpacks() {
    let kernel = elf(LZ4_LEGACY_BLOCK * 2 + 4321);
    assert!(unpack(&bz_image(&lz4(&kernel))).unwrap() == kernel, "lz4");
    let packed = with_length(zstd::encode_all(&kernel[..], 1).unwrap(), kernel.len());
    assert!(unpack(&bz_image(&packed)).unwrap() == kernel, "zstd");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&kernel).unwrap();
    assert!(unpack(&bz_image(&gzip.finish().unwrap())).unwrap() == kernel, "gzip");
    assert!(unpack(&kernel).unwrap() == kernel, "an ELF file as it is");
}

#[test]
fn what_is_not_a_kernel_is_refused() {
    assert_eq!(unpack(b""), Err(UnpackError::NotBzImage));
    assert_eq!(unpack(&[0; 0x24e]), Err(UnpackError::NotBzImage));
    let mut old = bz_image(&lz4(&elf(100)));
    old[0x206..0x208].copy_from_slice(&0x0207_u16.to_le_bytes());
    assert_eq!(unpack(&old), Err(UnpackError::NotBzImage));
    assert_eq!(unpack(&bz_image(&lz4(&[1; 100]))), Err(UnpackError::NotElf));
    let xz = with_length(b"\xfd7zXZ\0".to_vec(), 1);
    assert_eq!(unpack(&bz_image(&xz)), Err(UnpackError::Unsupported("xz")));
    let huge = with_length(vec![0x02, 0x21, 0x4c, 0x18], u32::MAX as usize);
    assert!(matches!(unpack(&bz_image(&huge)), Err(UnpackError::Damaged(_))));
}

#[test]
fn any_truncation_is_refused() {
    let whole = bz_image(&lz4(&elf(5000)));
    for length in 0..whole.len() {
        assert!(unpack(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn a_wrong_length_is_refused() {
    let kernel = elf(5000);
    for claimed in [4999_u32, 5001, 0] {
        let mut packed = lz4(&kernel);
        let at = packed.len() - 4;
        packed[at..].copy_from_slice(&claimed.to_le_bytes());
        assert!(unpack(&bz_image(&packed)).is_err(), "{claimed}");
    }
}
