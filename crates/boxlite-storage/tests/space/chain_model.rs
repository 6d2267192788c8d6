//! Chains of deltas between starts, a clone, gc and crashes, checked in every interleaving.
//!
//! A disk image (level 0), a delta over it (level 1) and a delta over that one (level 2). One box starts from the whole
//! chain, one from the lower delta; the first is cloned, so that a base stands on the upper delta. What one file's
//! lease and two passes at once do is checked by [`model`](crate::model); here it is what the files are to each other.
//!
//! The absolute path in every overlay may lead into another home, of which this one is a copy; the names in deltas are
//! relative. At some time the lower delta is missing for a while.

use stateright::{Checker, HasDiscoveries, Model, Property};

const LEVELS: usize = 3;
/// The levels on which the boxes stand.
const TARGETS: [usize; 2] = [2, 1];
/// The clone's overlay; the others belong to the starts.
const CLONE: usize = TARGETS.len();
const OVERLAYS: usize = TARGETS.len() + 1;
/// A pass reads the levels, then the overlays, then the bases.
const READS: usize = LEVELS + OVERLAYS + 1;
/// How many files are ever made at one level.
const FILES: usize = 3;

type Inode = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ChainStart {
    /// Leases what is there, from the top down.
    Down(usize),
    /// Leases or builds, from the lowest level up.
    Up(usize),
    Opened {
        level: usize,
        inode: Inode,
        building: bool,
    },
    /// Published by this start itself and still exclusively locked.
    Published {
        level: usize,
        inode: Inode,
    },
    Leased,
    Durable,
    Running,
    Gone,
}

/// A file that an overlay stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum StandsOn {
    Nothing,
    Level(usize),
    Base,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CloneStep {
    Idle,
    Linked,
    Replaced,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ChainPass {
    Idle,
    /// Reads what is there, and how many levels are needed by what was read so far; `held` are the locks.
    Reading {
        second: bool,
        read: usize,
        listed: [Option<Inode>; LEVELS],
        needed: usize,
        held: [Option<Inode>; LEVELS],
    },
    /// Locks the candidates one by one.
    Locking {
        next: usize,
        candidates: [bool; LEVELS],
        held: [Option<Inode>; LEVELS],
    },
    /// Renames what both looks agree on, one by one.
    Removing {
        doomed: [Option<Inode>; LEVELS],
    },
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ChainState {
    /// The file that the path of each level names.
    at: [Option<Inode>; LEVELS],
    made: [Inode; LEVELS],
    /// Young files are within their grace.
    young: [[bool; FILES]; LEVELS],
    shared: [[u8; FILES]; LEVELS],
    exclusive: [[bool; FILES]; LEVELS],
    starts: [ChainStart; TARGETS.len()],
    leases: [[Option<Inode>; LEVELS]; TARGETS.len()],
    overlays: [StandsOn; OVERLAYS],
    base: bool,
    clone: CloneStep,
    pass: ChainPass,
    /// Passes that are still to begin.
    passes: u8,
    /// The absolute paths in overlays lead into another home.
    copied: bool,
    /// The lower delta, while it is missing.
    missing: Option<Inode>,
    /// How often it will still go missing or come back.
    replugs: u8,
    live_deleted: bool,
    deltas_collected: bool,
    chain_collected: bool,
}

impl ChainState {
    /// Whether there is a file of the level, though it may be missing just now.
    fn has(&self, level: usize) -> bool {
        self.at[level].is_some() || (level == 1 && self.missing.is_some())
    }
}

/// The step that a mutation leaves out of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChainMutation {
    None,
    DeltaPinsNothing,
    LowestGoesFirst,
    NoSecondMark,
    NoLease,
    BuildsWithoutLeaseBelow,
    NoIdentityCheckInStart,
    FailOpenRoots,
    FollowsThePathAlone,
    MissingIsTheEnd,
    BasesAreLeftOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ChainAction {
    Start(usize),
    KillStart(usize),
    Remove(usize),
    Clone,
    KillClone,
    Gc,
    /// A header cannot be read.
    GcBlind,
    KillGc,
    Age,
    Replug,
}

struct ChainProtocol {
    mutation: ChainMutation,
}

impl ChainProtocol {
    fn mutated(&self, mutation: ChainMutation) -> bool {
        self.mutation == mutation
    }

    fn start(&self, state: &mut ChainState, who: usize) -> Option<()> {
        let target = TARGETS[who];
        state.starts[who] = match state.starts[who] {
            ChainStart::Down(level) => {
                if let Some(inode) = state.at[level] {
                    ChainStart::Opened { level, inode, building: false }
                } else {
                    release(state, who);
                    ChainStart::Up(0)
                }
            }
            ChainStart::Up(level) => {
                if let Some(inode) = state.at[level] {
                    ChainStart::Opened { level, inode, building: true }
                } else {
                    let inode = state.made[level];
                    if usize::from(inode) >= FILES {
                        return None;
                    }
                    // Built under one staged file's lock and published by rename, with the lock still held.
                    state.made[level] += 1;
                    state.at[level] = Some(inode);
                    state.young[level][usize::from(inode)] = true;
                    state.exclusive[level][usize::from(inode)] = true;
                    ChainStart::Published { level, inode }
                }
            }
            ChainStart::Published { level, inode } => {
                state.exclusive[level][usize::from(inode)] = false;
                ChainStart::Opened { level, inode, building: true }
            }
            ChainStart::Opened { level, inode, building } => {
                let leases = !self.mutated(ChainMutation::NoLease);
                if leases && state.exclusive[level][usize::from(inode)] {
                    return None;
                }
                let is_right =
                    state.at[level] == Some(inode) || self.mutated(ChainMutation::NoIdentityCheckInStart);
                let forgets = building && self.mutated(ChainMutation::BuildsWithoutLeaseBelow);
                if is_right && leases && !(forgets && level < target) {
                    state.shared[level][usize::from(inode)] += 1;
                    state.leases[who][level] = Some(inode);
                }
                match (is_right, building) {
                    (false, false) => ChainStart::Down(level),
                    (false, true) => ChainStart::Up(level),
                    (true, false) if level > 0 => ChainStart::Down(level - 1),
                    (true, true) if level < target => ChainStart::Up(level + 1),
                    (true, _) => ChainStart::Leased,
                }
            }
            ChainStart::Leased => {
                // The overlay is durable from here on, and stands on the path.
                state.overlays[who] = StandsOn::Level(target);
                ChainStart::Durable
            }
            ChainStart::Durable => {
                release(state, who);
                ChainStart::Running
            }
            ChainStart::Running | ChainStart::Gone => return None,
        };
        Some(())
    }

    fn gc(&self, state: &mut ChainState, blind: bool) -> Option<()> {
        if blind && !matches!(state.pass, ChainPass::Reading { .. }) {
            return None;
        }
        state.pass = match state.pass {
            ChainPass::Idle | ChainPass::Done if state.passes > 0 => {
                state.passes -= 1;
                ChainPass::Reading {
                    second: false,
                    read: 0,
                    listed: [None; LEVELS],
                    needed: 0,
                    held: [None; LEVELS],
                }
            }
            ChainPass::Reading { held, .. } if blind && !self.mutated(ChainMutation::FailOpenRoots) => {
                unlock(state, held);
                ChainPass::Done
            }
            ChainPass::Reading { second, read, mut listed, mut needed, held } => {
                if !blind {
                    let Some(found) = self.read(state, read, &mut listed) else {
                        unlock(state, held);
                        state.pass = ChainPass::Done;
                        return Some(());
                    };
                    needed = needed.max(found);
                }
                let read = read + 1;
                if read < READS {
                    ChainPass::Reading { second, read, listed, needed, held }
                } else {
                    self.judge(state, second, listed, needed, held)
                }
            }
            ChainPass::Locking { next, candidates, mut held } => {
                let level = LEVELS - 1 - next;
                if let (true, Some(inode)) = (candidates[level], state.at[level]) {
                    let at = usize::from(inode);
                    if state.shared[level][at] == 0 && !state.exclusive[level][at] {
                        state.exclusive[level][at] = true;
                        held[level] = Some(inode);
                    }
                }
                if next + 1 < LEVELS {
                    ChainPass::Locking { next: next + 1, candidates, held }
                } else if held == [None; LEVELS] {
                    ChainPass::Done
                } else if self.mutated(ChainMutation::NoSecondMark) {
                    ChainPass::Removing { doomed: held }
                } else {
                    ChainPass::Reading { second: true, read: 0, listed: [None; LEVELS], needed: 0, held }
                }
            }
            ChainPass::Removing { mut doomed } => {
                let lowest_first = self.mutated(ChainMutation::LowestGoesFirst);
                let mut order: Vec<usize> = (0..LEVELS).filter(|level| doomed[*level].is_some()).collect();
                if !lowest_first {
                    order.reverse();
                }
                match order.first() {
                    None => ChainPass::Done,
                    Some(&level) => {
                        let inode = doomed[level].take()?;
                        remove(state, level, inode);
                        ChainPass::Removing { doomed }
                    }
                }
            }
            ChainPass::Idle | ChainPass::Done => return None,
        };
        Some(())
    }

    /// Reads one thing; returns how many levels it needs, or `None` when its chain cannot be followed.
    fn read(&self, state: &ChainState, read: usize, listed: &mut [Option<Inode>; LEVELS]) -> Option<usize> {
        let is_whole = |level: usize| (0..level).all(|below| below == 0 || state.at[below].is_some());
        let may_miss = self.mutated(ChainMutation::MissingIsTheEnd);
        if read < LEVELS {
            listed[read] = state.at[read];
            return (listed[read].is_none() || is_whole(read) || may_miss).then_some(0);
        }
        let on = match read.checked_sub(LEVELS) {
            Some(overlay) if overlay < OVERLAYS => state.overlays[overlay],
            _ if state.base && !self.mutated(ChainMutation::BasesAreLeftOut) => StandsOn::Level(TARGETS[0]),
            _ => StandsOn::Nothing,
        };
        let leads_elsewhere = state.copied && self.mutated(ChainMutation::FollowsThePathAlone);
        match on {
            // The overlay of a clone reaches the image through the base, which is read for itself.
            StandsOn::Nothing | StandsOn::Base => Some(0),
            StandsOn::Level(_) if leads_elsewhere => Some(0),
            StandsOn::Level(level) if is_whole(level + 1) => Some(level + 1),
            StandsOn::Level(_) if may_miss => Some(0),
            StandsOn::Level(_) => None,
        }
    }

    /// Decides from the top down: what stays needs what it stands on.
    fn judge(
        &self,
        state: &mut ChainState,
        second: bool,
        listed: [Option<Inode>; LEVELS],
        mut needed: usize,
        held: [Option<Inode>; LEVELS],
    ) -> ChainPass {
        let mut removable = [false; LEVELS];
        for level in (0..LEVELS).rev() {
            let Some(inode) = listed[level] else { continue };
            let at = usize::from(inode);
            let is_locked = state.shared[level][at] > 0 || state.exclusive[level][at];
            let is_free = if second { held[level] == Some(inode) } else { !is_locked };
            removable[level] = level >= needed && !state.young[level][at] && is_free;
            if !removable[level] && !self.mutated(ChainMutation::DeltaPinsNothing) {
                needed = needed.max(level);
            }
        }
        if !second {
            return match removable {
                [false, false, false] => ChainPass::Done,
                candidates => ChainPass::Locking { next: 0, candidates, held: [None; LEVELS] },
            };
        }
        let (mut doomed, mut spared) = (held, held);
        for level in 0..LEVELS {
            let kept = if removable[level] { &mut spared } else { &mut doomed };
            kept[level] = None;
        }
        unlock(state, spared);
        ChainPass::Removing { doomed }
    }
}

/// A rename takes whatever the path names; the lock ends with it.
fn remove(state: &mut ChainState, level: usize, inode: Inode) {
    let stands = |on: &StandsOn| match on {
        StandsOn::Nothing => false,
        StandsOn::Level(top) => level <= *top,
        StandsOn::Base => true,
    };
    let is_overlay_there = state.overlays.iter().any(stands) || state.base;
    let is_leased = (0..TARGETS.len())
        .any(|who| state.starts[who] == ChainStart::Leased && state.leases[who][level] == state.at[level]);
    if state.at[level].take().is_some() {
        state.live_deleted |= is_overlay_there || is_leased;
        state.deltas_collected |= level == 2 && state.at[1].is_some();
        state.chain_collected |= level == 0 && state.at == [None; LEVELS];
    }
    state.exclusive[level][usize::from(inode)] = false;
}

fn release(state: &mut ChainState, who: usize) {
    for level in 0..LEVELS {
        if let Some(inode) = state.leases[who][level].take() {
            state.shared[level][usize::from(inode)] -= 1;
        }
    }
}

fn unlock(state: &mut ChainState, held: [Option<Inode>; LEVELS]) {
    for (level, held) in held.into_iter().enumerate() {
        if let Some(inode) = held {
            state.exclusive[level][usize::from(inode)] = false;
        }
    }
}

/// A clone links the base and only then replaces the overlay.
fn clone(state: &mut ChainState) -> Option<()> {
    state.clone = match state.clone {
        CloneStep::Idle
            if state.starts[0] == ChainStart::Running && state.overlays[0] != StandsOn::Nothing =>
        {
            state.base = true;
            CloneStep::Linked
        }
        CloneStep::Linked => {
            state.overlays[0] = StandsOn::Base;
            CloneStep::Replaced
        }
        CloneStep::Replaced => {
            state.overlays[CLONE] = StandsOn::Base;
            CloneStep::Done
        }
        CloneStep::Idle | CloneStep::Done => return None,
    };
    Some(())
}

impl Model for ChainProtocol {
    type State = ChainState;
    type Action = ChainAction;

    fn init_states(&self) -> Vec<ChainState> {
        let state = |copied| ChainState {
            at: [Some(0); LEVELS],
            made: [1; LEVELS],
            young: [[false; FILES]; LEVELS],
            shared: [[0; FILES]; LEVELS],
            exclusive: [[false; FILES]; LEVELS],
            starts: TARGETS.map(ChainStart::Down),
            leases: [[None; LEVELS]; TARGETS.len()],
            overlays: [StandsOn::Nothing; OVERLAYS],
            base: false,
            clone: CloneStep::Idle,
            pass: ChainPass::Idle,
            passes: 1,
            copied,
            missing: None,
            replugs: 2,
            live_deleted: false,
            deltas_collected: false,
            chain_collected: false,
        };
        // Where the names are resolved right, a copy has the states of any other home.
        vec![state(self.mutated(ChainMutation::FollowsThePathAlone))]
    }

    fn actions(&self, _state: &ChainState, actions: &mut Vec<ChainAction>) {
        for who in 0..TARGETS.len() {
            actions.extend([ChainAction::Start(who), ChainAction::KillStart(who), ChainAction::Remove(who)]);
        }
        actions.extend([
            ChainAction::Clone,
            ChainAction::KillClone,
            ChainAction::Gc,
            ChainAction::GcBlind,
            ChainAction::KillGc,
            ChainAction::Age,
            ChainAction::Replug,
        ]);
    }

    fn next_state(&self, last: &ChainState, action: ChainAction) -> Option<ChainState> {
        let mut state = last.clone();
        match action {
            ChainAction::Start(who) => self.start(&mut state, who)?,
            ChainAction::KillStart(who) => {
                if matches!(state.starts[who], ChainStart::Running | ChainStart::Gone) {
                    return None;
                }
                if let ChainStart::Published { level, inode } = state.starts[who] {
                    state.exclusive[level][usize::from(inode)] = false;
                }
                release(&mut state, who);
                state.starts[who] = ChainStart::Gone;
            }
            ChainAction::Remove(who) => {
                if state.starts[who] != ChainStart::Running || (who == 0 && state.clone != CloneStep::Idle) {
                    return None;
                }
                state.overlays[who] = StandsOn::Nothing;
                state.starts[who] = ChainStart::Gone;
            }
            ChainAction::Clone => clone(&mut state)?,
            ChainAction::KillClone => {
                if matches!(state.clone, CloneStep::Idle | CloneStep::Done) {
                    return None;
                }
                state.clone = CloneStep::Done;
            }
            ChainAction::Gc => self.gc(&mut state, false)?,
            ChainAction::GcBlind => self.gc(&mut state, true)?,
            ChainAction::KillGc => {
                match state.pass {
                    ChainPass::Idle | ChainPass::Done => return None,
                    ChainPass::Reading { held, .. }
                    | ChainPass::Locking { held, .. }
                    | ChainPass::Removing { doomed: held } => unlock(&mut state, held),
                }
                state.pass = ChainPass::Done;
            }
            ChainAction::Age => {
                if state.young == [[false; FILES]; LEVELS] {
                    return None;
                }
                state.young = [[false; FILES]; LEVELS];
            }
            ChainAction::Replug => {
                // A start has what it leases open, wherever somebody moves it meanwhile.
                let is_leased = state.leases.iter().any(|held| held[1].is_some());
                if state.replugs == 0 || is_leased {
                    return None;
                }
                state.replugs -= 1;
                match state.missing.take() {
                    Some(inode) if state.at[1].is_none() => state.at[1] = Some(inode),
                    // It was built again meanwhile.
                    Some(_) => {}
                    None => state.missing = Some(state.at[1].take()?),
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing live is deleted", |_, state: &ChainState| !state.live_deleted),
            Property::always("every overlay has its whole chain", |_, state: &ChainState| {
                let whole = |top: usize| (0..=top).all(|level| state.has(level));
                let boxes = state.overlays.iter().all(|on| match on {
                    StandsOn::Nothing => true,
                    StandsOn::Level(top) => whole(*top),
                    StandsOn::Base => state.base,
                });
                boxes && (!state.base || whole(TARGETS[0]))
            }),
            // Where a delta was taken away, gc may have removed what only it stood on.
            Property::always("every delta has what it stands on", |_, state: &ChainState| {
                let stands = |level: usize| state.at[level].is_none() || state.has(level - 1);
                state.replugs < 2 || (1..LEVELS).all(stands)
            }),
            Property::sometimes("a delta goes and what it stood on stays", |_, state: &ChainState| {
                state.deltas_collected && state.pass == ChainPass::Done && state.at[1].is_some()
            }),
            Property::sometimes("a whole chain is collected", |_, state: &ChainState| state.chain_collected),
            Property::sometimes("a box runs from a rebuilt chain", |_, state: &ChainState| {
                state.chain_collected && state.starts[0] == ChainStart::Running
            }),
            Property::sometimes("a clone stands on deltas", |_, state: &ChainState| {
                state.overlays[CLONE] == StandsOn::Base && state.pass == ChainPass::Done
            }),
        ]
    }
}

#[test]
fn the_protocol_never_takes_a_file_from_below_another() {
    let checker = ChainProtocol { mutation: ChainMutation::None }.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn every_mutation_of_the_protocol_of_chains_is_rejected() {
    for mutation in [
        ChainMutation::DeltaPinsNothing,
        ChainMutation::LowestGoesFirst,
        ChainMutation::NoSecondMark,
        ChainMutation::NoLease,
        ChainMutation::BuildsWithoutLeaseBelow,
        ChainMutation::NoIdentityCheckInStart,
        ChainMutation::FailOpenRoots,
        ChainMutation::FollowsThePathAlone,
        ChainMutation::MissingIsTheEnd,
        ChainMutation::BasesAreLeftOut,
    ] {
        let checker = ChainProtocol { mutation }.checker().threads(2);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = [
            "nothing live is deleted",
            "every overlay has its whole chain",
            "every delta has what it stands on",
        ]
        .into_iter()
        .find(|property| checker.discovery(property).is_some());
        assert!(found.is_some(), "{mutation:?} was not rejected");
        println!("{mutation:?}: {}", found.unwrap_or_default());
    }
}
