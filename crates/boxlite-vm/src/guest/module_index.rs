//! The lists that `modprobe` looks modules up in, as text and as the tries that kmod reads.
//!
//! | file | maps |
//! | --- | --- |
//! | `modules.dep` | a module's path to those of the modules that it needs, of which the last is loaded first |
//! | `modules.alias` | a pattern of what the kernel may ask for to a module |
//! | `modules.dep.bin`, `modules.alias.bin`, `modules.builtin.bin` | the same by module names, for kmod |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A module in the tree of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct IndexedModule {
    /// Its path below the tree.
    pub(super) path: String,
    /// Canonical names of the modules that it uses itself.
    pub(super) dependencies: Vec<String>,
    /// The aliases under which the kernel may ask for it.
    pub(super) aliases: Vec<String>,
}

/// The files that index `modules`, by name, and `built_in`.
pub(super) fn files(
    modules: &BTreeMap<String, IndexedModule>,
    built_in: &BTreeSet<String>,
) -> Vec<(&'static str, Vec<u8>)> {
    let (mut dependencies, mut aliases) = (String::new(), String::new());
    let (mut by_name, mut by_alias, mut built) = (Trie::default(), Trie::default(), Trie::default());
    for (priority, (name, module)) in (0..).zip(modules) {
        let mut line = format!("{}:", module.path);
        for needed in needed_by(module, modules) {
            let _ = write!(line, " {}", needed.path);
        }
        let _ = writeln!(dependencies, "{line}");
        by_name.insert(name, priority, &line);
        for alias in &module.aliases {
            let alias = normal(alias);
            let _ = writeln!(aliases, "alias {alias} {name}");
            by_alias.insert(&alias, priority, name);
        }
    }
    for name in built_in {
        built.insert(name, 0, "");
    }
    vec![
        ("modules.alias", aliases.into_bytes()),
        ("modules.alias.bin", by_alias.finish()),
        ("modules.builtin.bin", built.finish()),
        ("modules.dep", dependencies.into_bytes()),
        ("modules.dep.bin", by_name.finish()),
    ]
}

/// Everything that `module` needs, each before what it needs itself. What is built in, or missing, is left out.
fn needed_by<'a>(
    module: &IndexedModule,
    modules: &'a BTreeMap<String, IndexedModule>,
) -> Vec<&'a IndexedModule> {
    fn visit<'a>(
        module: &IndexedModule,
        modules: &'a BTreeMap<String, IndexedModule>,
        done: &mut BTreeSet<&'a str>,
        order: &mut Vec<&'a IndexedModule>,
    ) {
        for needed in module.dependencies.iter().filter_map(|name| modules.get(name)) {
            // Marked before its own are visited, so that a cycle ends.
            if done.insert(&needed.path) {
                visit(needed, modules, done, order);
                order.push(needed);
            }
        }
    }
    let mut order = Vec::new();
    visit(module, modules, &mut BTreeSet::new(), &mut order);
    order.reverse();
    order
}

/// An alias with underscores, save in a set of characters, as kmod looks for it.
fn normal(alias: &str) -> String {
    let mut in_set = false;
    let normal = |character| {
        match character {
            '[' => in_set = true,
            ']' => in_set = false,
            '-' if !in_set => return '_',
            _ => {}
        }
        character
    };
    alias.chars().map(normal).collect()
}

/// A trie in the form that kmod maps: its nodes from the leaves to the root, each named by its offset and three flags.
#[derive(Debug, Default)]
struct Trie {
    children: BTreeMap<u8, Trie>,
    /// Each with its priority.
    values: Vec<(u32, String)>,
}

impl Trie {
    const MAGIC: u32 = 0xB007_F457;
    const VERSION: u32 = 0x0002_0001;
    const HAS_PREFIX: u32 = 0x8000_0000;
    const HAS_VALUES: u32 = 0x4000_0000;
    const HAS_CHILDREN: u32 = 0x2000_0000;

    /// Adds a value under a key, of which the form allows ASCII alone; another key is left out.
    fn insert(&mut self, key: &str, priority: u32, value: &str) {
        if !key.is_ascii() {
            return;
        }
        let mut node = self;
        for byte in key.bytes() {
            node = node.children.entry(byte).or_default();
        }
        if !node.values.iter().any(|(_, known)| known == value) {
            node.values.push((priority, value.to_owned()));
        }
    }

    fn finish(&self) -> Vec<u8> {
        let mut out: Vec<u8> = [Self::MAGIC, Self::VERSION, 0].map(u32::to_be_bytes).concat();
        let root = self.write(Vec::new(), &mut out);
        out[8..12].copy_from_slice(&root.to_be_bytes());
        out
    }

    /// Writes the node that is reached by `prefix` from its parent's choice. Returns its name.
    fn write(&self, mut prefix: Vec<u8>, out: &mut Vec<u8>) -> u32 {
        if let (Some((byte, only)), true) = (self.children.first_key_value(), self.children.len() == 1)
            && self.values.is_empty()
        {
            prefix.push(*byte);
            return only.write(prefix, out);
        }
        let bounds = self.children.first_key_value().zip(self.children.last_key_value());
        let range = bounds.map(|((first, _), (last, _))| (*first, *last));
        let mut offsets = Vec::new();
        if let Some((first, last)) = range {
            for byte in first..=last {
                let child = self.children.get(&byte).map_or(0, |child| child.write(Vec::new(), out));
                offsets.extend(child.to_be_bytes());
            }
        }
        let mut name = out.len() as u32;
        if !prefix.is_empty() {
            name |= Self::HAS_PREFIX;
            out.extend(prefix);
            out.push(0);
        }
        if let Some((first, last)) = range {
            name |= Self::HAS_CHILDREN;
            out.extend([first, last]);
            out.extend(offsets);
        }
        if !self.values.is_empty() {
            name |= Self::HAS_VALUES;
            out.extend((self.values.len() as u32).to_be_bytes());
            for (priority, value) in &self.values {
                out.extend(priority.to_be_bytes());
                out.extend(value.as_bytes());
                out.push(0);
            }
        }
        name
    }
}

#[cfg(test)]
mod tests;
