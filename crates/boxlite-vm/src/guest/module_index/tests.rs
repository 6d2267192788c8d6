use super::*;

fn module(path: &str, dependencies: &[&str], aliases: &[&str]) -> IndexedModule {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    IndexedModule { path: path.into(), dependencies: owned(dependencies), aliases: owned(aliases) }
}

/// The values of a key, found as kmod walks the trie.
fn look_up(trie: &[u8], key: &str) -> Vec<String> {
    let number = |at: usize| u32::from_be_bytes(trie[at..at + 4].try_into().unwrap());
    let text = |at: usize| {
        let end = at + trie[at..].iter().position(|byte| *byte == 0).unwrap();
        (String::from_utf8(trie[at..end].to_vec()).unwrap(), end + 1)
    };
    assert_eq!((number(0), number(4)), (Trie::MAGIC, Trie::VERSION));
    let (mut node, mut key) = (number(8), key.as_bytes());
    loop {
        let mut at = (node & 0x0fff_ffff) as usize;
        if node & Trie::HAS_PREFIX != 0 {
            let (prefix, after) = text(at);
            let Some(rest) = key.strip_prefix(prefix.as_bytes()) else { return Vec::new() };
            (key, at) = (rest, after);
        }
        let mut child = 0;
        if node & Trie::HAS_CHILDREN != 0 {
            let (first, last) = (trie[at], trie[at + 1]);
            if let Some(byte) = key.first().filter(|byte| (first..=last).contains(byte)) {
                child = number(at + 2 + usize::from(byte - first) * 4);
            }
            at += 2 + usize::from(last - first + 1) * 4;
        }
        if key.is_empty() {
            let mut values = Vec::new();
            if node & Trie::HAS_VALUES != 0 {
                let count = number(at);
                at += 4;
                for _ in 0..count {
                    let (value, after) = text(at + 4);
                    values.push(value);
                    at = after;
                }
            }
            return values;
        }
        if child == 0 {
            return Vec::new();
        }
        (node, key) = (child, &key[1..]);
    }
}

#[test]
fn the_lists_name_what_modules_need_and_are_asked_for() {
    let modules = BTreeMap::from([
        ("nat".to_owned(), module("k/nat.ko", &["track", "base"], &["ipt-nat", "x[a-b]-y"])),
        ("track".to_owned(), module("k/track.ko", &["base", "built_in"], &[])),
        ("base".to_owned(), module("k/base.ko", &[], &[])),
        ("tun".to_owned(), module("k/tun.ko", &[], &["devname:net/tun", "char-major-10-200"])),
    ]);
    let files: BTreeMap<_, _> =
        files(&modules, &BTreeSet::from(["built_in".to_owned()])).into_iter().collect();
    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    assert_eq!(
        text("modules.dep"),
        "k/base.ko:\nk/nat.ko: k/track.ko k/base.ko\nk/track.ko: k/base.ko\nk/tun.ko:\n"
    );
    assert!(text("modules.alias").contains("alias ipt_nat nat\nalias x[a-b]_y nat\n"));
    let by_name = &files["modules.dep.bin"];
    assert_eq!(look_up(by_name, "nat"), ["k/nat.ko: k/track.ko k/base.ko"]);
    assert_eq!(look_up(by_name, "track"), ["k/track.ko: k/base.ko"]);
    for missing in ["", "na", "nats", "built_in"] {
        assert!(look_up(by_name, missing).is_empty(), "{missing}");
    }
    assert_eq!(look_up(&files["modules.alias.bin"], "char_major_10_200"), ["tun"]);
    assert_eq!(look_up(&files["modules.builtin.bin"], "built_in"), [""]);
}
