//! Bases and disk images.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use boxlite_home::durable::{self, FileId, Lock, Trash, fault};
use boxlite_types::gc::{Fate, Holder, HolderKind, Item, Skip};
use boxlite_types::{Doing, Error, ErrorKind, Result};

use super::super::census::{Census, Stored};
use super::super::mark::{Holders, Marked, Released, mark};
use super::super::pass::{Pass, kept, removed, skipped};
use super::super::plan::{Decision, Wanted, batch};
use super::{Grip, grip};

/// Fewest and most candidates that are locked at a time; each is an open file, and each batch marks everything anew.
const LOCKED_AT_ONCE: std::ops::RangeInclusive<u64> = 256..=8192;

/// How many candidates to take at a time: half of the files that this process may open; all in a dry run, which keeps
/// none open.
fn at_once(dry_run: bool) -> usize {
    if dry_run {
        return usize::MAX;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit / 2).clamp(*LOCKED_AT_ONCE.start(), *LOCKED_AT_ONCE.end()) as usize
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Base,
    DiskImage,
}

/// Removes bases that no overlay and no remaining base stands on.
pub(in super::super) fn bases(pass: &mut Pass<'_>, census: &Census) {
    let mut released = pass.released.clone();
    released.bases = census.bases.iter().map(|base| base.id).collect();
    let marked = settle(pass, census, &mut released);
    let fates = sweep(pass, census, &marked, Kind::Base);
    pass.report.bases = items(pass, census, fates, Kind::Base);
}

/// Removes disk images that no record, no overlay and no remaining base needs, least recently used first.
pub(in super::super) fn disk_images(pass: &mut Pass<'_>, census: &Census) {
    let marked = mark(census, &pass.released);
    let fates = sweep(pass, census, &marked, Kind::DiskImage);
    pass.report.disk_images = items(pass, census, fates, Kind::DiskImage);
}

/// Takes those bases out of `released` that are not to be removed, and marks again, until all that are released
/// are removable even though the others are roots.
fn settle(pass: &Pass<'_>, census: &Census, released: &mut Released) -> Marked {
    loop {
        let marked = mark(census, released);
        let before = released.bases.len();
        for (base, holders) in census.bases.iter().zip(&marked.bases) {
            if pass.rules.decide(base, holders) != Decision::Remove {
                released.bases.remove(&base.id);
            }
        }
        if released.bases.len() == before {
            return marked;
        }
    }
}

fn stored(census: &Census, kind: Kind) -> &[Stored] {
    match kind {
        Kind::Base => &census.bases,
        Kind::DiskImage => &census.images,
    }
}

fn holders(marked: &Marked, kind: Kind) -> &[Holders] {
    match kind {
        Kind::Base => &marked.bases,
        Kind::DiskImage => &marked.images,
    }
}

fn path(pass: &Pass<'_>, name: &str, kind: Kind) -> PathBuf {
    match kind {
        Kind::Base => pass.home.bases().join(name),
        Kind::DiskImage => pass.home.disk_images().join(name),
    }
}

/// What a pass has its hands on.
struct Candidate {
    index: usize,
    path: PathBuf,
    id: FileId,
    /// `None` in a dry run, which is in nobody's way.
    lock: Option<Lock>,
}

impl Candidate {
    fn of(index: usize, lock: Lock, dry_run: bool) -> Result<Self> {
        let path = lock.path().to_owned();
        let id = FileId::of(&lock.file().metadata().doing("examining", &path)?);
        if dry_run {
            lock.release();
            return Ok(Self { index, path, id, lock: None });
        }
        Ok(Self { index, path, id, lock: Some(lock) })
    }
}

/// Decides and removes; the fate of each item, `None` for one that somebody else removed meanwhile.
fn sweep(pass: &mut Pass<'_>, census: &Census, marked: &Marked, kind: Kind) -> Vec<Option<Fate>> {
    let all = stored(census, kind);
    let mut queue = Vec::new();
    let mut fates: Vec<Option<Fate>> = Vec::with_capacity(all.len());
    for (index, (item, holders)) in all.iter().zip(holders(marked, kind)).enumerate() {
        fates.push(Some(match pass.rules.decide(item, holders) {
            Decision::Keep => kept(census, holders),
            Decision::Skip(why) => skipped(why),
            Decision::Remove => {
                queue.push(index);
                skipped(Skip::Enough)
            }
        }));
    }
    queue.sort_by(|one, other| all[*one].used.cmp(&all[*other].used).then(one.cmp(other)));
    let mut queue = &queue[..];
    let most = at_once(pass.options.dry_run);
    while !queue.is_empty() {
        let wanted = match kind {
            // Bases are garbage outright: only automatic gc stops short of them.
            Kind::Base if pass.reached_goal() => break,
            Kind::Base => Wanted { bytes: u64::MAX, items: 0 },
            Kind::DiskImage => match pass.wanted() {
                Some(wanted) => wanted,
                None => break,
            },
        };
        let mut candidates = queue;
        if kind == Kind::DiskImage {
            let spared = pass.spares_used_within();
            let idle = |index: &usize| pass.rules.now.saturating_sub(all[*index].used) >= spared;
            candidates = &queue[..queue.partition_point(idle)];
        }
        if candidates.is_empty() {
            for index in queue {
                fates[*index] = Some(skipped(Skip::Recent));
            }
            break;
        }
        let take = batch(candidates.iter().map(|index| freed(&all[*index])), wanted, most).max(1);
        let (now, later) = queue.split_at(take);
        queue = later;
        sweep_batch(pass, all, now, kind, &mut fates);
        if pass.rules.blind {
            for index in queue {
                fates[*index] = Some(skipped(Skip::Unknown));
            }
            break;
        }
    }
    fates
}

/// Bytes that removing the item frees.
fn freed(item: &Stored) -> u64 {
    if item.links > 1 { 0 } else { item.allocated }
}

/// Lock, mark again, rename, unlock, unlink.
fn sweep_batch(pass: &mut Pass<'_>, all: &[Stored], now: &[usize], kind: Kind, fates: &mut [Option<Fate>]) {
    if let Err(error) = fault::point("gc.planned").doing("collecting in", pass.home.root()) {
        for index in now {
            fates[*index] = Some(pass.failed(&path(pass, &all[*index].name, kind), &error));
        }
        return;
    }
    let mut held: Vec<Candidate> = Vec::with_capacity(now.len());
    for index in now {
        let path = path(pass, &all[*index].name, kind);
        match grip(&path, false) {
            Ok(Grip::Held(lock)) => match Candidate::of(*index, lock, pass.options.dry_run) {
                Ok(candidate) => held.push(candidate),
                Err(error) => fates[*index] = Some(pass.failed(&path, error)),
            },
            Ok(Grip::Busy) => fates[*index] = Some(skipped(Skip::InUse)),
            Ok(Grip::Gone) => fates[*index] = None,
            Err(error) => fates[*index] = Some(pass.failed(&path, error)),
        }
    }
    if held.is_empty() {
        return;
    }
    if let Err(error) = fault::point("gc.locked").doing("collecting in", pass.home.root()) {
        return give_up(pass, &held, &error, fates);
    }
    let second = Census::take(pass.home, pass.catalog);
    pass.note_unreadable(&second);
    let doomed = judge_again(pass, &second, &held, kind, fates);
    if let Err(error) = fault::point("gc.marked").doing("collecting in", pass.home.root()) {
        return give_up(pass, &held, &error, fates);
    }
    remove(pass, &second, held, &doomed, kind, fates);
}

fn give_up(pass: &mut Pass<'_>, held: &[Candidate], error: &Error, fates: &mut [Option<Fate>]) {
    for candidate in held {
        fates[candidate.index] = Some(pass.failed(&candidate.path, error));
    }
}

/// The second mark: which of the locked candidates are still to be removed.
fn judge_again(
    pass: &Pass<'_>,
    second: &Census,
    held: &[Candidate],
    kind: Kind,
    fates: &mut [Option<Fate>],
) -> HashSet<FileId> {
    let mut released = pass.released.clone();
    let marked = if kind == Kind::Base {
        released.bases.extend(held.iter().map(|candidate| candidate.id));
        settle(pass, second, &mut released)
    } else {
        mark(second, &released)
    };
    let mut doomed = HashSet::new();
    let places: HashMap<FileId, usize> =
        stored(second, kind).iter().enumerate().map(|(place, item)| (item.id, place)).collect();
    for Candidate { index, id, .. } in held {
        let Some(&found) = places.get(id) else {
            // Somebody else removed it, or it cannot be seen any more.
            fates[*index] = pass.rules.blind.then(|| skipped(Skip::Unknown));
            continue;
        };
        let (item, holders) = (&stored(second, kind)[found], &holders(&marked, kind)[found]);
        fates[*index] = Some(match pass.rules.decide(item, holders) {
            Decision::Keep => kept(second, holders),
            Decision::Skip(why) => skipped(why),
            Decision::Remove => {
                doomed.insert(item.id);
                removed(match kind {
                    Kind::Base => "no box and no other base stands on it",
                    Kind::DiskImage => "no box, base or lease needs it",
                })
            }
        });
    }
    doomed
}

/// Renames all that is doomed out of sight and lets go of every lock before the first, slow unlink.
fn remove(
    pass: &mut Pass<'_>,
    second: &Census,
    held: Vec<Candidate>,
    doomed: &HashSet<FileId>,
    kind: Kind,
    fates: &mut [Option<Fate>],
) {
    let mut order: Vec<(Candidate, &Stored)> = Vec::with_capacity(held.len());
    let items: HashMap<FileId, &Stored> = stored(second, kind).iter().map(|item| (item.id, item)).collect();
    for candidate in held.into_iter().filter(|candidate| doomed.contains(&candidate.id)) {
        if let Some(item) = items.get(&candidate.id) {
            order.push((candidate, item));
        }
    }
    // What stands on something else goes first, so that no crash leaves an overlay or base without its base.
    order.sort_by_key(|(_, item)| std::cmp::Reverse(second.chains.below(item.backing).0.len()));
    let mut trash = Discarded::new();
    let mut spared: Vec<(FileId, Holder)> = Vec::new();
    for (Candidate { index, path, lock, .. }, item) in order {
        if let Some((_, holder)) = spared.iter().find(|(id, _)| *id == item.id) {
            fates[index] = Some(Fate::Kept { by: vec![holder.clone()], holders: 1 });
            continue;
        }
        if let Some(lock) = lock {
            match discard(pass, &lock, &mut trash, fates) {
                Ok(None) => {
                    fates[index] = Some(skipped(Skip::InUse));
                    continue;
                }
                Ok(Some(discarded)) => trash.push((index, path, discarded)),
                Err(error) => {
                    fates[index] = Some(pass.failed(&path, error));
                    let holder = Holder { name: item.name.to_string(), kind: HolderKind::Base };
                    spared.extend(
                        second.chains.below(item.backing).0.into_iter().map(|id| (id, holder.clone())),
                    );
                    continue;
                }
            }
        }
        pass.stored = pass.stored.saturating_sub(freed(item));
        if kind == Kind::Base {
            pass.released.bases.insert(item.id);
        }
    }
    delete(pass, &mut trash, fates);
}

/// What was renamed out of sight: which item, and its former path.
type Discarded = Vec<(usize, PathBuf, Trash)>;

/// Renames what is locked out of sight. On a disk too full for another name, what is there already makes room;
/// failing that, what is locked is unlinked where it is.
fn discard(
    pass: &mut Pass<'_>,
    lock: &Lock,
    trash: &mut Discarded,
    fates: &mut [Option<Fate>],
) -> Result<Option<Trash>> {
    let tmp = pass.home.tmp();
    let is_full = |error: &Error| error.kind() == ErrorKind::ResourceExhausted;
    match durable::discard_locked(lock, &tmp) {
        Err(error) if is_full(&error) => delete(pass, trash, fates),
        other => return other,
    }
    match durable::discard_locked(lock, &tmp) {
        Err(error) if is_full(&error) => durable::unlink_locked(lock),
        other => other,
    }
}

fn delete(pass: &mut Pass<'_>, trash: &mut Discarded, fates: &mut [Option<Fate>]) {
    let tagged = trash.drain(..).map(|(index, path, discarded)| ((index, path), discarded));
    for ((index, path), error) in durable::delete_all(tagged) {
        fates[index] = Some(pass.failed(&path, error));
    }
}

fn items(pass: &Pass<'_>, census: &Census, fates: Vec<Option<Fate>>, kind: Kind) -> Vec<Item> {
    let all = stored(census, kind).iter().zip(fates);
    all.filter_map(|(item, fate)| {
        Some(Item {
            name: item.name.to_string(),
            path: path(pass, &item.name, kind),
            allocated: freed(item),
            modified: item.modified.div_euclid(1_000_000_000),
            last_used: item.used.div_euclid(1_000_000_000),
            fate: fate?,
        })
    })
    .collect()
}
