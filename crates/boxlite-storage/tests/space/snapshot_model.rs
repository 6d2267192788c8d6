//! Snapshots, restores and a clone of one box beside gc and crashes, checked in every interleaving.
//!
//! The disks of the box are numbered in the order in which they were made; each stands on the one that it was put above. A
//! disk becomes a base by a second name in `bases/`. What a box does is done under its lock, so one operation is under way
//! at a time; gc takes no lock but on its candidates. Below the bases lies a disk image, which [`chain_model`](crate::chain_model)
//! has.

use stateright::{Checker, HasDiscoveries, Model, Property};

/// How many disks are ever made.
const DISKS: usize = 4;

type Disk = u8;
/// A set of disks.
type Disks = u8;

fn one(disk: Disk) -> Disks {
    1 << disk
}

/// The step of an operation on the box that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum BoxStep {
    Rest,
    /// A snapshot: the overlay is leased, and its use as a base noted.
    Noted,
    Linked,
    Replaced,
    /// A restore whose new overlay is in place.
    Restored,
    /// A clone's overlay stands on this base, and is not recorded yet.
    Cloned(Disk),
    Removed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum BasePass {
    Idle,
    /// Reads records, then overlays, then bases and intents; `needed` by what was read so far.
    Reading {
        second: bool,
        read: u8,
        needed: Disks,
        overlay: Option<Disk>,
        held: Disks,
    },
    Locking {
        candidates: Disks,
    },
    Removing {
        doomed: Disks,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SnapshotState {
    /// The disk that the overlay's path names.
    overlay: Disk,
    made: Disk,
    below: [Option<Disk>; DISKS],
    /// Disks with a name in `bases/`.
    bases: Disks,
    /// Bases that the record names.
    snapshots: Disks,
    users: Disks,
    clone_users: Disks,
    intents: Disks,
    clone: Option<Disk>,
    clone_recorded: bool,
    leased: Disks,
    locked: Disks,
    step: BoxStep,
    pass: BasePass,
    passes: u8,
    kills: u8,
    takes: u8,
    restores: u8,
    freed: Disks,
}

impl SnapshotState {
    /// The bases below a disk.
    fn chain(&self, disk: Disk) -> Disks {
        let mut found = 0;
        let mut next = self.below[usize::from(disk)];
        while let Some(base) = next {
            found |= one(base);
            next = self.below[usize::from(base)];
        }
        found
    }

    /// The disks of a set, and the bases below them.
    fn with_chains(&self, disks: Disks) -> Disks {
        (0..DISKS as Disk)
            .filter(|disk| disks & one(*disk) != 0)
            .fold(disks, |found, disk| found | self.chain(disk))
    }

    /// Puts a new overlay above `base`; nothing when no more are made.
    fn put_above(&mut self, base: Disk) -> Option<()> {
        let new = self.made;
        if usize::from(new) >= DISKS {
            return None;
        }
        self.made += 1;
        self.below[usize::from(new)] = Some(base);
        self.overlay = new;
        Some(())
    }
}

/// The step that a mutation leaves out of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SnapshotMutation {
    None,
    /// A record's snapshots neither pin their bases nor keep the box on them.
    SnapshotsAreLeftOut,
    NoLease,
    NoSecondLook,
    /// A box that leaves a base looks for no other box on it, and no chain is followed beyond the box's own.
    ClonesAreLeftOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum SnapshotAction {
    Take,
    Restore(Disk),
    RemoveSnapshot(Disk),
    Clone(Disk),
    RemoveClone,
    RemoveBox,
    Step,
    Kill,
    Gc,
    KillGc,
}

struct SnapshotProtocol {
    mutation: SnapshotMutation,
}

impl SnapshotProtocol {
    fn mutated(&self, mutation: SnapshotMutation) -> bool {
        self.mutation == mutation
    }

    /// The transaction that records what the box stands on by now: what it has left and nobody else stands on is to go.
    fn record(&self, state: &mut SnapshotState) {
        let mut roots = one(state.overlay);
        if !self.mutated(SnapshotMutation::SnapshotsAreLeftOut) {
            roots |= state.snapshots;
        }
        let mut needed = state.with_chains(roots) & !one(state.overlay);
        needed |= state.snapshots & roots;
        self.leave(state, needed);
    }

    fn leave(&self, state: &mut SnapshotState, kept: Disks) {
        let left = state.users & !kept;
        let others = if self.mutated(SnapshotMutation::ClonesAreLeftOut) { 0 } else { state.clone_users };
        state.intents |= left & !others;
        state.users &= kept;
    }

    fn step(&self, state: &mut SnapshotState) -> Option<()> {
        state.step = match state.step {
            BoxStep::Noted => {
                state.bases |= one(state.overlay);
                BoxStep::Linked
            }
            BoxStep::Linked => {
                let base = state.overlay;
                state.put_above(base)?;
                BoxStep::Replaced
            }
            BoxStep::Replaced => {
                state.snapshots |= one(state.below[usize::from(state.overlay)]?);
                state.leased = 0;
                self.record(state);
                BoxStep::Rest
            }
            BoxStep::Restored => {
                state.leased = 0;
                self.record(state);
                BoxStep::Rest
            }
            BoxStep::Cloned(base) => {
                state.clone_recorded = true;
                let stands_on = one(base) | state.chain(base);
                state.clone_users = stands_on & (state.users | state.intents);
                state.intents &= !stands_on;
                BoxStep::Rest
            }
            BoxStep::Rest | BoxStep::Removed => return None,
        };
        Some(())
    }

    fn gc(&self, state: &mut SnapshotState) -> Option<()> {
        state.pass = match state.pass {
            BasePass::Idle if state.passes > 0 => {
                state.passes -= 1;
                BasePass::Reading { second: false, read: 0, needed: 0, overlay: None, held: 0 }
            }
            BasePass::Idle => return None,
            BasePass::Reading { second, read: 0, needed, overlay, held } => {
                let pinned =
                    if self.mutated(SnapshotMutation::SnapshotsAreLeftOut) { 0 } else { state.snapshots };
                BasePass::Reading {
                    second,
                    read: 1,
                    needed: needed | state.with_chains(pinned),
                    overlay,
                    held,
                }
            }
            BasePass::Reading { second, read: 1, mut needed, held, .. } => {
                let mut overlay = None;
                if state.step != BoxStep::Removed {
                    needed |= state.chain(state.overlay);
                    overlay = Some(state.overlay);
                }
                if let Some(base) = state.clone.filter(|_| !self.mutated(SnapshotMutation::ClonesAreLeftOut))
                {
                    needed |= one(base) | state.chain(base);
                }
                BasePass::Reading { second, read: 2, needed, overlay, held }
            }
            BasePass::Reading { second, needed, overlay, held, .. } => {
                let alias = overlay.map_or(0, one);
                // Another name of the present overlay holds nothing of its own.
                let removable = state.bases & (state.intents | alias) & !needed;
                if second {
                    state.locked &= !(held & !removable);
                    BasePass::Removing { doomed: held & removable }
                } else {
                    BasePass::Locking { candidates: removable }
                }
            }
            BasePass::Locking { candidates } => {
                let held = candidates & !state.leased;
                state.locked |= held;
                match held {
                    0 => BasePass::Idle,
                    doomed if self.mutated(SnapshotMutation::NoSecondLook) => BasePass::Removing { doomed },
                    held => BasePass::Reading { second: true, read: 0, needed: 0, overlay: None, held },
                }
            }
            BasePass::Removing { doomed } => {
                state.bases &= !doomed;
                state.freed |= doomed;
                state.locked = 0;
                BasePass::Idle
            }
        };
        Some(())
    }
}

impl Model for SnapshotProtocol {
    type State = SnapshotState;
    type Action = SnapshotAction;

    fn init_states(&self) -> Vec<SnapshotState> {
        vec![SnapshotState {
            overlay: 0,
            made: 1,
            below: [None; DISKS],
            bases: 0,
            snapshots: 0,
            users: 0,
            clone_users: 0,
            intents: 0,
            clone: None,
            clone_recorded: false,
            leased: 0,
            locked: 0,
            step: BoxStep::Rest,
            pass: BasePass::Idle,
            passes: 2,
            kills: 1,
            takes: 2,
            restores: 1,
            freed: 0,
        }]
    }

    fn actions(&self, _: &SnapshotState, actions: &mut Vec<SnapshotAction>) {
        for disk in 0..DISKS as Disk {
            actions.extend([
                SnapshotAction::Restore(disk),
                SnapshotAction::RemoveSnapshot(disk),
                SnapshotAction::Clone(disk),
            ]);
        }
        actions.extend([
            SnapshotAction::Take,
            SnapshotAction::RemoveClone,
            SnapshotAction::RemoveBox,
            SnapshotAction::Step,
            SnapshotAction::Kill,
            SnapshotAction::Gc,
            SnapshotAction::KillGc,
        ]);
    }

    fn next_state(&self, last: &SnapshotState, action: SnapshotAction) -> Option<SnapshotState> {
        let mut state = last.clone();
        let rests = state.step == BoxStep::Rest;
        let leases = !self.mutated(SnapshotMutation::NoLease);
        match action {
            SnapshotAction::Take if rests && state.takes > 0 => {
                let overlay = one(state.overlay);
                // A lease waits while gc holds the file.
                if leases && state.locked & overlay != 0 {
                    return None;
                }
                state.takes -= 1;
                state.leased = if leases { overlay } else { 0 };
                state.users |= overlay;
                state.step = BoxStep::Noted;
            }
            SnapshotAction::Restore(base)
                if rests && state.restores > 0 && state.snapshots & one(base) != 0 =>
            {
                state.restores -= 1;
                state.leased = one(base);
                state.put_above(base)?;
                state.step = BoxStep::Restored;
            }
            SnapshotAction::RemoveSnapshot(base) if rests && state.snapshots & one(base) != 0 => {
                state.snapshots &= !one(base);
                self.record(&mut state);
            }
            SnapshotAction::Clone(base)
                if rests && state.clone.is_none() && state.snapshots & one(base) != 0 =>
            {
                state.clone = Some(base);
                state.step = BoxStep::Cloned(base);
            }
            SnapshotAction::RemoveClone if state.clone_recorded => {
                state.intents |= state.clone_users & !state.users;
                (state.clone, state.clone_users, state.clone_recorded) = (None, 0, false);
            }
            SnapshotAction::RemoveBox if rests => {
                state.snapshots = 0;
                self.leave(&mut state, 0);
                state.step = BoxStep::Removed;
            }
            SnapshotAction::Step => self.step(&mut state)?,
            SnapshotAction::Kill if state.kills > 0 && !rests && state.step != BoxStep::Removed => {
                state.kills -= 1;
                state.leased = 0;
                if let BoxStep::Cloned(_) = state.step {
                    state.clone = None;
                }
                state.step = BoxStep::Rest;
            }
            SnapshotAction::Gc => self.gc(&mut state)?,
            SnapshotAction::KillGc if state.pass != BasePass::Idle && state.kills > 0 => {
                state.kills -= 1;
                state.locked = 0;
                state.pass = BasePass::Idle;
            }
            _ => return None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every snapshot has its base", |_, state: &SnapshotState| {
                state.with_chains(state.snapshots) & !state.bases == 0
            }),
            Property::always("every overlay has its chain", |_, state: &SnapshotState| {
                let own = if state.step == BoxStep::Removed { 0 } else { state.chain(state.overlay) };
                let of_clone = state.clone.map_or(0, |base| one(base) | state.chain(base));
                (own | of_clone) & !state.bases == 0
            }),
            Property::sometimes("a base goes with the snapshot that it was", |_, state: &SnapshotState| {
                state.freed != 0 && state.step == BoxStep::Rest && state.restores == 0 && state.made == 4
            }),
            Property::sometimes("a clone is all that stands on a base", |_, state: &SnapshotState| {
                state.clone_recorded
                    && state.step == BoxStep::Removed
                    && state.pass == BasePass::Idle
                    && state.passes == 0
            }),
            Property::sometimes(
                "what a killed snapshot left goes without an intent",
                |_, state: &SnapshotState| state.freed & one(state.overlay) != 0 && state.intents == 0,
            ),
        ]
    }
}

#[test]
fn no_pass_frees_what_a_snapshot_is_kept_in() {
    let checker =
        SnapshotProtocol { mutation: SnapshotMutation::None }.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn every_mutation_of_the_protocol_of_snapshots_is_rejected() {
    for mutation in [
        SnapshotMutation::SnapshotsAreLeftOut,
        SnapshotMutation::NoLease,
        SnapshotMutation::NoSecondLook,
        SnapshotMutation::ClonesAreLeftOut,
    ] {
        let checker = SnapshotProtocol { mutation }.checker().threads(2);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let properties = ["every snapshot has its base", "every overlay has its chain"];
        let found = properties.into_iter().find(|property| checker.discovery(property).is_some());
        assert!(found.is_some(), "{mutation:?} was not rejected");
        println!("{mutation:?}: {}", found.unwrap_or_default());
    }
}
