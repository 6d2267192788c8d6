//! The jailer: a program of one thread that builds the jail around itself and starts a program in it.
//!
//! It is executed, not forked from the shim: between `fork` and `exec` a process with threads may make system calls and
//! nothing else, and a jail takes more than that. It reads what it is to do from one descriptor, says on another how that
//! went, and from then on only waits; see [`processes`].

pub(crate) mod filling;
mod namespaces;
mod opener;
mod processes;
pub(crate) mod seal;
pub(crate) mod signals;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::PidfdFlags;

use crate::cgroup::Cgroup;
use crate::error::{JailDoing, JailError, JailResult as Result};
use crate::message::{self, JAILER, JailAnswer, JailOrder};
use crate::report::JailReport;
use crate::spec::{JailIdentity, JailSpec, NetworkScope};
use opener::{HeldOpens, Opener, OwnDescriptors};
use processes::{Forked, Waited};

/// The exit status of a process that could not become what it should.
const FAILED: u8 = 125;

/// Is the jailer, if that is what the program was started for: a program calls this first of all, with its arguments
/// (without its name), before it has a second thread.
///
/// `None` means that the program was started for something else. A jail that could not be built is told to the starter, and is
/// an exit code here.
///
/// # Errors
/// For arguments that no starter gives.
pub fn jailer(mut arguments: impl Iterator<Item = OsString>) -> Option<Result<ExitCode>> {
    if arguments.next()? != JAILER {
        return None;
    }
    let Some((order, answer)) = given(arguments) else {
        return Some(Err(JailError::new(format!("{JAILER} is started by boxlite, not by hand"))));
    };
    let Err(error) = read_order(order).and_then(|order| build_and_wait(&order, &answer));
    tell_failure(&answer, &error);
    Some(Ok(ExitCode::from(FAILED)))
}

/// Is the jailer in a copy of its starter, which had one thread; `answer` is the copy's own.
pub(crate) fn become_jailer(order: &JailOrder, answer: RawFd) -> ! {
    // SAFETY: it is open, and no other part of this copy ever runs.
    #[allow(unsafe_code)]
    let answer = unsafe { OwnedFd::from_raw_fd(answer) };
    // An executed program would have lost them.
    signals::forget_handlers();
    let keep: Vec<RawFd> = order.spec.named().chain([answer.as_raw_fd()]).collect();
    let Err(error) = seal::close_all_but(&keep).and_then(|()| build_and_wait(order, &answer));
    tell_failure(&answer, &error);
    processes::exit(FAILED.into())
}

fn tell_failure(answer: &OwnedFd, error: &JailError) {
    let failed = serde_json::to_vec(&JailAnswer::Failed(error.to_string())).unwrap_or_default();
    let _ = message::send(answer, &failed, None);
}

/// The two descriptors that the arguments name.
fn given(arguments: impl Iterator<Item = OsString>) -> Option<(OwnedFd, OwnedFd)> {
    let numbers: Vec<RawFd> = arguments.map(|text| text.to_str()?.parse().ok()).collect::<Option<_>>()?;
    let &[order, answer] = numbers.as_slice() else { return None };
    seal::borrow(order).and_then(|_| seal::borrow(answer)).ok()?;
    // SAFETY: both are open, and were passed to be owned by whoever started this program for it.
    #[allow(unsafe_code)]
    unsafe {
        Some((OwnedFd::from_raw_fd(order), OwnedFd::from_raw_fd(answer)))
    }
}

fn read_order(order: OwnedFd) -> Result<JailOrder> {
    let mut text = Vec::new();
    let mut file = File::from(order);
    file.rewind().and_then(|()| file.read_to_end(&mut text)).doing("reading what the jail is to be")?;
    serde_json::from_slice(&text).map_err(std::io::Error::from).doing("reading what the jail is to be")
}

/// Builds the jail and starts its program, answers, and ends as the program ends: it returns only before all that.
///
/// Open descriptors are closed by number.
fn build_and_wait(order: &JailOrder, answer: &OwnedFd) -> Result<std::convert::Infallible> {
    let JailOrder { spec, starter } = order;
    check(spec)?;
    rustix::thread::set_name(c"boxlite-jailer").doing("naming the jailer")?;
    let signals = signals::hold()?;
    let mut report = JailReport::default();
    // While the hierarchies can be seen.
    let cgroup = spec.cgroup.as_ref().map(|spec| Cgroup::make(spec, &mut report));
    let own = [signals.as_raw_fd(), answer.as_raw_fd()];
    let built = Jail::build(spec, *starter, cgroup.as_ref(), &own, report);
    let jail = match built {
        Ok(jail) => jail,
        Err(error) => {
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
            return Err(error);
        }
    };
    let started =
        JailAnswer::Started { pid: jail.program.0.as_raw_pid() as u32, report: jail.report.clone() };
    let started = serde_json::to_vec(&started).map_err(std::io::Error::from).doing("reporting the jail")?;
    // A starter that has gone is noticed below.
    let _ = message::send(answer, &started, Some(jail.handle.as_fd()));
    if let Some(cgroup) = &cgroup {
        cgroup.sweep();
    }
    let status = jail.wait(&signals);
    if let Some(cgroup) = &cgroup {
        cgroup.remove();
    }
    processes::end_as(status?)
}

/// Refuses what could not be kept.
fn check(spec: &JailSpec) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    match spec.identity {
        JailIdentity::Reserved(0) => Err(JailError::new("a jailed program can't be root")),
        JailIdentity::Reserved(_) if !is_root => {
            Err(JailError::new("only root can give a jailed program a user id of its own"))
        }
        JailIdentity::Own if is_root => {
            Err(JailError::new("root can't be a jailed program's user: a reserved user id is needed"))
        }
        _ => Ok(()),
    }?;
    if spec.low_ports && (!is_root || spec.network == NetworkScope::None) {
        return Err(JailError::new("only root's program in the host's network can bind ports below 1024"));
    }
    for descriptor in spec.named() {
        if descriptor < 3 || descriptor >= filter_limit(spec) {
            return Err(JailError::new(format!("descriptor {descriptor} can't be one of a jailed program")));
        }
        seal::borrow(descriptor)?;
    }
    if spec.openings.iter().filter(|opening| opening.feigns_holes).count() > 1 {
        return Err(JailError::new("only one of a jailed program's files can feign holes"));
    }
    match spec.guard {
        Some(guard) if spec.descriptors.contains(&guard) => {
            Err(JailError::new("the jailed program would have the descriptor that guards it"))
        }
        _ => Ok(()),
    }
}

fn filter_limit(spec: &JailSpec) -> RawFd {
    RawFd::try_from(spec.limits.open_files).unwrap_or(RawFd::MAX)
}

/// A jail whose program has started.
struct Jail {
    init: Waited,
    program: Waited,
    /// The program, for whoever is to end it.
    handle: OwnedFd,
    opener: Option<Opener>,
    /// Init notices when this is closed.
    life: OwnedFd,
    report: JailReport,
}

impl Jail {
    /// Builds the jail for a child of `starter`; the stage's `own` descriptors stay open.
    fn build(
        spec: &JailSpec,
        starter: i32,
        cgroup: Option<&Cgroup>,
        own: &[RawFd],
        mut report: JailReport,
    ) -> Result<Self> {
        let own_descriptors = OwnDescriptors::find().doing("finding this process's descriptors")?;
        namespaces::leave_host(spec, &mut report)?;
        let held = namespaces::enter_root(spec, &mut report)?;
        seal::report(spec, &mut report);
        let (life_end, life) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing("making a pipe of the jail")?;
        let init = match processes::fork_into(cgroup)? {
            Forked::Parent(init) => Waited(init),
            Forked::Child(joined) => processes::be_init(spec, joined, &life_end),
        };
        let finished = Self::start_program(spec, held, cgroup, life_end).and_then(|started| {
            // From here on the program owns its descriptors, above all its disks and their locks.
            let mut keep = started.descriptors(spec, cgroup, &life);
            keep.extend_from_slice(own);
            keep.push(own_descriptors.as_raw_fd());
            seal::close_all_but(&keep)?;
            seal::become_nobody(spec.identity, seal::KeptPrivilege::Root)?;
            follow(starter)?;
            let opener = started.opener(spec, own_descriptors)?;
            processes::complaint(&started.complaints)?;
            Ok((started, opener))
        });
        match finished {
            Ok((Started { program, handle, .. }, opener)) => {
                Ok(Self { init, program, handle, opener, life, report })
            }
            Err(error) => {
                // With it everything in the jail; the program is waited for too, without which init does not end.
                init.kill();
                processes::wait_for_all();
                Err(error)
            }
        }
    }

    fn start_program(
        spec: &JailSpec,
        held: HeldOpens,
        cgroup: Option<&Cgroup>,
        life_end: OwnedFd,
    ) -> Result<Started> {
        let (complaints, complaints_end) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing("making a pipe of the jail")?;
        let (channel, channel_end) = message::pair().doing("making a socket of the jail")?;
        let program = match processes::fork_into(cgroup)? {
            Forked::Parent(program) => program,
            Forked::Child(joined) => processes::be_program(spec, held, joined, &complaints_end, &channel_end),
        };
        drop((complaints_end, channel_end, life_end));
        let handle = rustix::process::pidfd_open(program, PidfdFlags::empty())
            .doing("making a handle of the program")?;
        Ok(Started { program: Waited(program), handle, complaints, channel })
    }

    /// Answers the program until it has ended, and ends it when its starter has: its end, when nothing of the jail is left.
    fn wait(self, signals: &OwnedFd) -> Result<rustix::process::WaitStatus> {
        let mut opener = self.opener;
        let status = loop {
            let mut ready =
                vec![PollFd::new(signals, PollFlags::IN), PollFd::new(&self.handle, PollFlags::IN)];
            ready.extend(
                opener.as_ref().map(|opener| PollFd::from_borrowed_fd(opener.as_fd(), PollFlags::IN)),
            );
            if poll(&mut ready, None).is_err() {
                continue;
            }
            let events: Vec<PollFlags> = ready.iter().map(PollFd::revents).collect();
            if events[0].contains(PollFlags::IN) && signals::is_end_wanted(signals) {
                self.init.kill();
            }
            // While the program starts, most of what wakes this process is a file that it opens.
            if !events[1].is_empty()
                && let Some(status) = self.program.try_wait()?
            {
                break status;
            }
            match (events.get(2), &opener) {
                (Some(events), Some(held)) if events.contains(PollFlags::IN) => held.answer(),
                // No process is left whose calls could be held.
                (Some(events), Some(_)) if !events.is_empty() => opener = None,
                _ => {}
            }
        };
        drop(self.life);
        self.init.wait()?;
        Ok(status)
    }
}

/// A program that is on its way.
struct Started {
    program: Waited,
    handle: OwnedFd,
    complaints: OwnedFd,
    channel: OwnedFd,
}

impl Started {
    /// Returns the descriptors that the stage goes on with: everything else is closed.
    fn descriptors(&self, spec: &JailSpec, cgroup: Option<&Cgroup>, life: &OwnedFd) -> Vec<RawFd> {
        let own = [&self.handle, &self.complaints, &self.channel, life];
        let mut keep: Vec<RawFd> = own.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
        keep.extend(spec.openings.iter().map(|opening| opening.descriptor).chain(spec.guard));
        keep.extend(cgroup.into_iter().flat_map(Cgroup::descriptors));
        keep
    }

    /// Returns the descriptor through which the program's held calls are answered.
    fn opener(&self, spec: &JailSpec, own: OwnDescriptors) -> Result<Option<Opener>> {
        if spec.openings.is_empty() {
            return Ok(None);
        }
        let received = message::receive(&self.channel).doing("having opened files answered")?;
        // Without one, the program has failed and says why.
        let listener = received.and_then(|(_, listener)| listener);
        let feigned = crate::filter::feigned(spec.limits.open_files);
        Ok(listener.map(|listener| Opener::new(listener, spec.openings.clone(), feigned, own)))
    }
}

/// Has the kernel tell this process when its starter ends, and looks whether that has happened already.
///
/// A change of user or capabilities undoes the request, so this comes after the last one.
fn follow(starter: i32) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signals::END_OF_JAIL))
        .doing("following the starter")?;
    match rustix::process::getppid() {
        Some(parent) if parent.as_raw_pid() == starter => Ok(()),
        _ => Err(JailError::new("whoever started the jail has ended")),
    }
}
