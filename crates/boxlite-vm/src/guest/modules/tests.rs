use boxlite_types::ErrorKind;

use super::*;

/// The least ELF object with a `.modinfo` section: header, section names, section contents, section table.
pub(in crate::guest) fn module(modinfo: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut out = vec![0; 64];
    let names_at = out.len();
    out.extend_from_slice(names);
    let info_at = out.len();
    out.extend_from_slice(modinfo.as_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
    let table_at = out.len();
    for (name, kind, at, length) in
        [(0, 0, 0, 0), (1, 1, info_at, modinfo.len()), (10, 3, names_at, names.len())]
    {
        let mut section = [0; 64];
        section[..4].copy_from_slice(&(name as u32).to_le_bytes());
        section[4..8].copy_from_slice(&(kind as u32).to_le_bytes());
        section[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        section[32..40].copy_from_slice(&(length as u64).to_le_bytes());
        out.extend_from_slice(&section);
    }
    out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    out[16] = 1;
    out[18] = 62;
    out[20] = 1;
    out[40..48].copy_from_slice(&(table_at as u64).to_le_bytes());
    out[52] = 64;
    out[58] = 64;
    out[60] = 3;
    out[62] = 2;
    out
}

fn tree(modules: &[(&str, &str)]) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tree.path().join("kernel/drivers")).unwrap();
    for (name, depends) in modules {
        let bytes = module(&format!("license=GPL\0depends={depends}\0name=x\0"));
        std::fs::write(tree.path().join(format!("kernel/drivers/{name}.ko")), bytes).unwrap();
    }
    tree
}

fn names(modules: &[Module]) -> Vec<&str> {
    modules.iter().map(|module| module.name.as_str()).collect()
}

fn closure(tree: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    closures(tree, [wanted]).map(|([list], _)| list)
}

#[test]
fn what_one_list_has_is_left_out_of_the_next() {
    let tree = tree(&[("ring", ""), ("console", "ring"), ("blk", "ring,pool"), ("pool", "")]);
    let ([first, second], inputs) = closures(tree.path(), [&["console"], &["blk", "console"]]).unwrap();
    assert_eq!((names(&first), names(&second)), (vec!["ring", "console"], vec!["pool", "blk"]));
    assert_eq!(inputs.len(), 5, "each once, and the list of what is built in");
}

#[test]
fn dependencies_come_first_and_once() {
    let tree = tree(&[
        ("ring", ""),
        ("vir-tio", "ring"),
        ("blk", "vir_tio,ring"),
        ("net", "ring,vir-tio"),
        ("no", ""),
    ]);
    let found = closure(tree.path(), &["blk", "net", "vir_tio"]).unwrap();
    assert_eq!(names(&found), ["ring", "vir_tio", "blk", "net"]);
}

#[test]
fn what_is_built_in_is_left_out() {
    let tree = tree(&[("blk", "virtio,ring"), ("ring", "")]);
    std::fs::write(tree.path().join("modules.builtin"), "kernel/drivers/virtio/virtio.ko\n").unwrap();
    assert_eq!(names(&closure(tree.path(), &["blk", "virtio"]).unwrap()), ["ring", "blk"]);
}

#[test]
fn a_cycle_ends() {
    let tree = tree(&[("a", "b"), ("b", "a")]);
    assert_eq!(names(&closure(tree.path(), &["a"]).unwrap()), ["b", "a"]);
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let tree = tree(&[("blk", "ring")]);
    let error = closure(tree.path(), &["blk"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("ring"), "{error}");
    std::fs::write(tree.path().join("kernel/drivers/ring.ko"), b"\x7fELF\x02\x01\x01 cut").unwrap();
    assert_eq!(closure(tree.path(), &["blk"]).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::rename(tree.path().join("kernel/drivers/ring.ko"), tree.path().join("ring.ko.xz")).unwrap();
    assert_eq!(closure(tree.path(), &["blk"]).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_signature_is_cut_off_and_a_hostile_one_ignored() {
    let signed = |length: u32| {
        let mut bytes = b"ELF".to_vec();
        bytes.extend_from_slice(&[9; 40]);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(SIGNATURE_MARK);
        bytes
    };
    assert_eq!(unsigned_length(&signed(40)), 3);
    assert_eq!(unsigned_length(&signed(4000)), signed(0).len());
    assert_eq!(unsigned_length(SIGNATURE_MARK), SIGNATURE_MARK.len());
    assert_eq!(unsigned_length(b""), 0);
}
