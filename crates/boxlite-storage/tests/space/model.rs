//! The protocol between starts, gc, clones and crashes, checked in every interleaving.
//!
//! One disk image path, boxes that start from it, a clone of the first box, and two passes of gc at once. Each
//! step below is one that the kernel makes atomic; a mark reads one overlay per step, so a box may change before
//! or after it is looked at. What the model says is what `boxlite_home::lease`, `gc::confirm` and `overlay::create` do.
//!
//! One name, two files: in half of the homes the absolute path in every header leads to a file of another home, and
//! at some time the base is missing for a while. A start means the file of its own home all the same.

use stateright::{Checker, Model, Property};

const STARTS: usize = 2;
const PASSES: usize = 2;
/// The clone's overlay; the others belong to the starts.
const CLONE: usize = STARTS;
const OVERLAYS: usize = STARTS + 1;

type Inode = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Start {
    Idle,
    Opened(Inode),
    Locked(Inode),
    /// Published by this start itself and still exclusively locked.
    Built(Inode),
    /// The exclusive lock became a shared one, which is not atomic.
    Leased(Inode),
    Durable(Inode),
    Running,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cloning {
    Idle,
    /// The base is a second name of the first box's overlay.
    Linked,
    /// The first box's overlay was replaced by one above the base.
    Replaced,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pass {
    Idle,
    /// Marks, having read so many overlays, and found the image needed or not; `second` with the lock held.
    Marking {
        second: bool,
        read: u8,
        needed: bool,
        candidate: Inode,
    },
    Unneeded {
        candidate: Inode,
    },
    Opened {
        candidate: Inode,
    },
    Locked {
        candidate: Inode,
    },
    Doomed {
        candidate: Inode,
    },
    Done,
}

/// The file that an overlay stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum On {
    Nothing,
    Image,
    Base,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The file that the path names.
    path: Option<Inode>,
    next: Inode,
    /// Young inodes are within their grace.
    young: u8,
    shared: [u8; 8],
    exclusive: [bool; 8],
    overlays: [On; OVERLAYS],
    base: bool,
    starts: [Start; STARTS],
    clone: Cloning,
    passes: [Pass; PASSES],
    live_deleted: bool,
    collected: bool,
    /// The absolute paths in the headers lead into another home, of which this one is a copy.
    copied: bool,
    /// The base is missing just now.
    unplugged: bool,
    /// How often it will still go missing or come back.
    replugs: u8,
}

/// The step that a mutation leaves out of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    NoSecondMark,
    NoLease,
    NoIdentityCheckInStart,
    NoIdentityCheckInGc,
    FailOpenRoots,
    LeaseReleasedBeforeOverlay,
    CloneMovesAndBasesAreReadFirst,
    FollowsThePathAlone,
    MissingIsTheEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Start(usize),
    /// Its process is killed: the kernel drops its locks.
    Kill(usize),
    Remove(usize),
    Clone,
    KillClone,
    Gc(usize),
    /// An overlay cannot be read.
    GcBlind(usize),
    KillGc(usize),
    /// Time passes: what was built is past its grace.
    Age,
    /// The base goes missing, or is there again.
    Replug,
}

struct Protocol {
    mutation: Mutation,
}

impl Protocol {
    fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == mutation
    }

    fn leases(&self) -> bool {
        !self.mutated(Mutation::NoLease)
    }

    fn start(&self, state: &mut State, who: usize) -> Option<()> {
        let is_at_path = |state: &State, inode| state.path == Some(inode);
        state.starts[who] = match state.starts[who] {
            Start::Idle => {
                if let Some(inode) = state.path {
                    Start::Opened(inode)
                } else {
                    let inode = state.next;
                    if usize::from(inode) >= state.shared.len() {
                        return None;
                    }
                    // Built under one staged file's lock and published by rename: once, with the lock still held.
                    state.next += 1;
                    state.path = Some(inode);
                    state.young |= 1 << inode;
                    state.exclusive[usize::from(inode)] = true;
                    Start::Built(inode)
                }
            }
            Start::Opened(inode) => {
                if self.leases() {
                    if state.exclusive[usize::from(inode)] {
                        return None;
                    }
                    state.shared[usize::from(inode)] += 1;
                }
                Start::Locked(inode)
            }
            Start::Built(inode) => {
                state.exclusive[usize::from(inode)] = false;
                Start::Opened(inode)
            }
            Start::Locked(inode) => {
                if is_at_path(state, inode) || self.mutated(Mutation::NoIdentityCheckInStart) {
                    if self.mutated(Mutation::LeaseReleasedBeforeOverlay) {
                        state.shared[usize::from(inode)] -= 1;
                    }
                    Start::Leased(inode)
                } else {
                    self.release(state, inode);
                    Start::Idle
                }
            }
            Start::Leased(inode) => {
                // The overlay is durable from here on, and stands on the path.
                state.overlays[who] = On::Image;
                state.live_deleted |= state.path.is_none();
                Start::Durable(inode)
            }
            Start::Durable(inode) => {
                if !self.mutated(Mutation::LeaseReleasedBeforeOverlay) {
                    self.release(state, inode);
                }
                Start::Running
            }
            Start::Running | Start::Gone => return None,
        };
        Some(())
    }

    fn release(&self, state: &mut State, inode: Inode) {
        if self.leases() {
            state.shared[usize::from(inode)] -= 1;
        }
    }

    fn kill(&self, state: &mut State, who: usize) -> Option<()> {
        match state.starts[who] {
            Start::Idle | Start::Running | Start::Gone => return None,
            Start::Opened(_) => {}
            Start::Built(inode) => state.exclusive[usize::from(inode)] = false,
            Start::Leased(_) | Start::Durable(_) if self.mutated(Mutation::LeaseReleasedBeforeOverlay) => {}
            Start::Locked(inode) | Start::Leased(inode) | Start::Durable(inode) => self.release(state, inode),
        }
        state.starts[who] = Start::Gone;
        Some(())
    }

    /// A clone links the base and only then replaces the overlay: no step leaves data without a name.
    fn clone(&self, state: &mut State) -> Option<()> {
        state.clone = match state.clone {
            Cloning::Idle if state.overlays[0] == On::Image && matches!(state.starts[0], Start::Running) => {
                state.base = true;
                if self.mutated(Mutation::CloneMovesAndBasesAreReadFirst) {
                    state.overlays[0] = On::Nothing;
                }
                Cloning::Linked
            }
            Cloning::Linked => {
                state.overlays[0] = On::Base;
                Cloning::Replaced
            }
            Cloning::Replaced => {
                state.overlays[CLONE] = On::Base;
                Cloning::Done
            }
            Cloning::Idle | Cloning::Done => return None,
        };
        Some(())
    }

    fn needed(on: On) -> bool {
        // An overlay on the base reaches the image through the base.
        on != On::Nothing
    }

    fn gc(&self, state: &mut State, who: usize, blind: bool) -> Option<()> {
        let marking = matches!(state.passes[who], Pass::Marking { .. });
        if blind && !marking {
            return None;
        }
        state.passes[who] = match state.passes[who] {
            Pass::Idle => Pass::Marking { second: false, read: 0, needed: false, candidate: state.path? },
            Pass::Marking { .. } if blind && !self.mutated(Mutation::FailOpenRoots) => {
                Self::let_go(state, who);
                Pass::Done
            }
            Pass::Marking { second, candidate, .. } if blind => Self::marked(state, second, candidate, false),
            Pass::Marking { second, read, needed, candidate } => {
                // Overlays one by one, then the bases, or the other way round.
                let bases_at =
                    if self.mutated(Mutation::CloneMovesAndBasesAreReadFirst) { 0 } else { OVERLAYS };
                let at = usize::from(read);
                let overlay = if at < bases_at { at } else { at.wrapping_sub(1) };
                let stands_on_missing =
                    at != bases_at && state.overlays[overlay] == On::Base && state.unplugged;
                if stands_on_missing && !self.mutated(Mutation::MissingIsTheEnd) {
                    Self::let_go(state, who);
                    state.passes[who] = Pass::Done;
                    return Some(());
                }
                let stands_on_image = if at == bases_at {
                    state.base && !state.unplugged
                } else {
                    Self::needed(state.overlays[overlay]) && !stands_on_missing
                };
                let found = stands_on_image && !(state.copied && self.mutated(Mutation::FollowsThePathAlone));
                let (read, needed) = (read + 1, needed || found);
                if usize::from(read) <= OVERLAYS {
                    Pass::Marking { second, read, needed, candidate }
                } else {
                    Self::marked(state, second, candidate, needed)
                }
            }
            Pass::Unneeded { .. } => Pass::Opened { candidate: state.path? },
            Pass::Opened { candidate } => {
                let at = usize::from(candidate);
                if state.exclusive[at] || state.shared[at] > 0 {
                    Pass::Done
                } else {
                    state.exclusive[at] = true;
                    Pass::Locked { candidate }
                }
            }
            Pass::Locked { candidate } => {
                let there = state.path == Some(candidate) || self.mutated(Mutation::NoIdentityCheckInGc);
                if !there || state.young & (1 << candidate) != 0 {
                    Self::let_go(state, who);
                    Pass::Done
                } else if self.mutated(Mutation::NoSecondMark) {
                    Pass::Doomed { candidate }
                } else {
                    Pass::Marking { second: true, read: 0, needed: false, candidate }
                }
            }
            Pass::Doomed { candidate } => {
                // The rename takes whatever the path names.
                if let Some(victim) = state.path {
                    let overlay = state.overlays.iter().any(|on| Self::needed(*on));
                    let lease = state.starts.contains(&Start::Leased(victim));
                    state.live_deleted |= overlay || lease;
                    state.collected = true;
                    state.path = None;
                }
                state.exclusive[usize::from(candidate)] = false;
                Pass::Done
            }
            Pass::Done => return None,
        };
        Some(())
    }

    fn marked(state: &mut State, second: bool, candidate: Inode, needed: bool) -> Pass {
        match (needed, second) {
            (false, false) => Pass::Unneeded { candidate },
            (false, true) => Pass::Doomed { candidate },
            (true, second) => {
                if second {
                    state.exclusive[usize::from(candidate)] = false;
                }
                Pass::Done
            }
        }
    }

    fn let_go(state: &mut State, who: usize) {
        match state.passes[who] {
            Pass::Locked { candidate }
            | Pass::Doomed { candidate }
            | Pass::Marking { second: true, candidate, .. } => {
                state.exclusive[usize::from(candidate)] = false;
            }
            _ => {}
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let state = |copied| State {
            path: Some(0),
            next: 1,
            young: 0,
            shared: [0; 8],
            exclusive: [false; 8],
            overlays: [On::Nothing; OVERLAYS],
            base: false,
            starts: [Start::Idle; STARTS],
            clone: Cloning::Idle,
            passes: [Pass::Idle; PASSES],
            live_deleted: false,
            collected: false,
            copied,
            unplugged: false,
            replugs: 2,
        };
        vec![state(false), state(true)]
    }

    fn actions(&self, _state: &State, actions: &mut Vec<Action>) {
        for who in 0..STARTS {
            actions.extend([Action::Start(who), Action::Kill(who), Action::Remove(who)]);
        }
        actions.extend([Action::Clone, Action::KillClone, Action::Age, Action::Replug]);
        for who in 0..PASSES {
            actions.extend([Action::Gc(who), Action::GcBlind(who), Action::KillGc(who)]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start(who) => self.start(&mut state, who)?,
            Action::Kill(who) => self.kill(&mut state, who)?,
            Action::Remove(who) => {
                if state.starts[who] != Start::Running || state.clone != Cloning::Idle && who == 0 {
                    return None;
                }
                state.overlays[who] = On::Nothing;
                state.starts[who] = Start::Gone;
            }
            Action::Clone => self.clone(&mut state)?,
            Action::KillClone => {
                if matches!(state.clone, Cloning::Idle | Cloning::Done) {
                    return None;
                }
                state.clone = Cloning::Done;
            }
            Action::Gc(who) => self.gc(&mut state, who, false)?,
            Action::GcBlind(who) => self.gc(&mut state, who, true)?,
            Action::KillGc(who) => {
                if matches!(state.passes[who], Pass::Done) {
                    return None;
                }
                Self::let_go(&mut state, who);
                state.passes[who] = Pass::Done;
            }
            Action::Replug => {
                if !state.base || state.replugs == 0 {
                    return None;
                }
                state.replugs -= 1;
                state.unplugged = !state.unplugged;
            }
            Action::Age => {
                if state.young == 0 {
                    return None;
                }
                state.young = 0;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no live disk image is deleted", |_, state: &State| !state.live_deleted),
            Property::always("every overlay has what it stands on", |_, state: &State| {
                state.path.is_some() || state.overlays.iter().all(|on| *on == On::Nothing)
            }),
            Property::sometimes("an orphan is collected", |_, state: &State| state.collected),
            Property::sometimes("a box runs from a rebuilt image", |_, state: &State| {
                state.collected && state.starts.contains(&Start::Running)
            }),
            Property::sometimes("a clone is made", |_, state: &State| state.overlays[CLONE] == On::Base),
        ]
    }
}

#[test]
fn the_protocol_never_deletes_a_live_image() {
    let checker = Protocol { mutation: Mutation::None }.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn every_mutation_of_the_protocol_is_rejected() {
    for mutation in [
        Mutation::NoSecondMark,
        Mutation::NoLease,
        Mutation::NoIdentityCheckInStart,
        Mutation::NoIdentityCheckInGc,
        Mutation::FailOpenRoots,
        Mutation::LeaseReleasedBeforeOverlay,
        Mutation::CloneMovesAndBasesAreReadFirst,
        Mutation::FollowsThePathAlone,
        Mutation::MissingIsTheEnd,
    ] {
        let checker = Protocol { mutation }.checker().threads(2).spawn_bfs().join();
        let found = checker
            .discovery("no live disk image is deleted")
            .or_else(|| checker.discovery("every overlay has what it stands on"));
        assert!(found.is_some(), "{mutation:?} was not rejected");
    }
}
