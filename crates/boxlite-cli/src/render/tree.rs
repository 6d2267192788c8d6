//! The output of `system df --tree`.

use std::fmt::Write as _;

use boxlite::gc::{DiskTree, TreeNode};
use boxlite::settings::Bytes;

/// How many children of a node are shown; the rest is one line.
const MAX_LINES: usize = 8;
/// The cells of a bar.
const BAR_CELLS: u64 = 12;

/// Returns the tree for people: bytes, their share of the node above, and why; `verbose` shows every child.
pub(crate) fn tree_text(tree: &DiskTree, verbose: bool) -> String {
    let mut lines = Vec::new();
    walk(&tree.root, "", "", if verbose { usize::MAX } else { MAX_LINES }, &mut lines);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}  {}", Bytes(tree.root.allocated), tree.root.name);
    let width = |of: &dyn Fn(&Line) -> usize| lines.iter().map(of).max().unwrap_or(0);
    let (names, sizes) = (width(&|line| line.name.chars().count()), width(&|line| line.size.len()));
    for line in &lines {
        let Line { name, size, bar, why } = line;
        let row = format!("{name:names$}  {size:>sizes$}  {bar}  {why}");
        let _ = writeln!(text, "{}", row.trim_end());
    }
    let _ = writeln!(text, "\n`boxlite gc` would free {}, drawn as ▒", Bytes(tree.reclaimable));
    for unreadable in &tree.unreadable {
        let _ = writeln!(text, "unreadable: {}: {}", unreadable.path.display(), unreadable.reason);
    }
    text
}

struct Line {
    name: String,
    size: String,
    bar: String,
    why: String,
}

/// Adds a line for each child of `node`, below what begins with `stem`; those beyond `most` share one.
fn walk(node: &TreeNode, stem: &str, within: &str, most: usize, lines: &mut Vec<Line>) {
    let shown = if node.children.len() > most { most - 1 } else { node.children.len() };
    let (shown, rest) = node.children.split_at(shown);
    for (index, child) in shown.iter().enumerate() {
        let is_last = rest.is_empty() && index + 1 == shown.len();
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(Line {
            name: format!("{stem}{branch}{}", printable(&child.name)),
            size: Bytes(child.allocated).to_string(),
            bar: bar(child, node.allocated),
            why: why(child, within),
        });
        walk(child, &format!("{stem}{below}"), child.why.as_deref().unwrap_or_default(), most, lines);
    }
    if !rest.is_empty() {
        let allocated = rest.iter().map(|child| child.allocated).sum();
        let reclaimable = rest.iter().map(|child| child.reclaimable).sum();
        let more = TreeNode { reclaimable, ..TreeNode::leaf(boxlite::gc::NodeKind::More, "", allocated) };
        lines.push(Line {
            name: format!("{stem}└─ {} more", rest.iter().map(|child| child.count).sum::<u64>()),
            size: Bytes(allocated).to_string(),
            bar: bar(&more, node.allocated),
            why: why(&more, within),
        });
    }
}

/// Why a node is there, and what of it gc would free where its reason does not say so already.
fn why(node: &TreeNode, within: &str) -> String {
    let reason = node.why.as_deref().filter(|why| *why != within).unwrap_or_default();
    if node.reclaimable == 0 || node.children.is_empty() && !reason.is_empty() {
        return printable(reason);
    }
    let freed = format!("gc would free {}", Bytes(node.reclaimable));
    if reason.is_empty() { freed } else { format!("{}; {freed}", printable(reason)) }
}

/// A bar of a node's share of `whole`: `▒` what gc would free, `█` the rest.
fn bar(node: &TreeNode, whole: u64) -> String {
    let cells = |bytes: u64| -> u64 {
        let cells = (u128::from(bytes) * u128::from(BAR_CELLS)).div_ceil(u128::from(whole.max(1)));
        u64::try_from(cells).unwrap_or(BAR_CELLS).min(BAR_CELLS)
    };
    let all = cells(node.allocated);
    let freed = cells(node.reclaimable).min(all);
    let repeat = |sign: &str, count: u64| sign.repeat(usize::try_from(count).unwrap_or(0));
    format!("{}{}{}", repeat("█", all - freed), repeat("▒", freed), repeat("·", BAR_CELLS - all))
}

/// Text that moves no cursor, whatever named the file.
fn printable(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { '\u{fffd}' } else { sign }).collect()
}
