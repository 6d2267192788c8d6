//! The starter's side: hands a spec to the jailer and hears what became of it.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};

use crate::confine::require_one_thread;
use crate::error::{JailDoing, JailError, JailResult as Result};
use crate::message::{self, JAILER, JailAnswer, JailOrder};
use crate::report::JailReport;
use crate::spec::JailSpec;
use crate::stage;

/// A program that runs in its jail.
#[derive(Debug)]
pub struct Jailed {
    /// The jailer: it ends as the program ended, and only once nothing of the jail is left. Killing it ends the program
    /// too.
    pub jailer: Child,
    /// The program itself, to be killed or watched.
    pub handle: OwnedFd,
    /// The program's process id on the host.
    pub pid: u32,
    /// The measures in force.
    pub report: JailReport,
}

/// A jailer that builds a jail; what becomes of that is to be heard from its [`JailerAnswer`].
#[derive(Debug)]
pub struct Launching {
    /// The jailer. Its program starts without anybody listening.
    pub jailer: Child,
    /// The jailer's answer, still to come.
    pub answer: JailerAnswer,
}

/// The one answer of a jailer, still to come.
#[derive(Debug)]
pub struct JailerAnswer(OwnedFd);

/// A jailer's report of a program that it has started.
#[derive(Debug)]
pub struct JailedProgram {
    /// The program itself, to be killed or watched.
    pub handle: OwnedFd,
    /// The program's process id on the host.
    pub pid: u32,
    /// The measures in force.
    pub report: JailReport,
}

impl JailerAnswer {
    /// Waits until the program runs. Blocks for some milliseconds.
    ///
    /// # Errors
    /// As [`launch`]; the jailer ends by itself.
    pub fn wait(self) -> Result<JailedProgram> {
        message::receive(&self.0).doing("hearing of the jail").and_then(understand)
    }
}

impl Launching {
    /// Waits until the program runs. Blocks for some milliseconds.
    ///
    /// # Errors
    /// As [`launch`].
    pub fn finish(self) -> Result<Jailed> {
        let Self { jailer: mut child, answer } = self;
        match answer.wait() {
            Ok(JailedProgram { handle, pid, report }) => Ok(Jailed { jailer: child, handle, pid, report }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

/// Starts the program of `spec` in its jail.
///
/// `jailer` is a program that calls [`crate::jailer`] first; stdio is the jailed program's. `spawn` starts it with the
/// given descriptors (and may add a death signal, which the jailer replaces by its own). Those that `spec` names must be
/// open here. Blocks for some milliseconds.
///
/// # Errors
/// The part of the jail that could not be built, or why the program could not be executed; nothing of either is left then.
pub fn launch(
    jailer: Command,
    spec: &JailSpec,
    spawn: impl FnOnce(Command, &[BorrowedFd<'_>]) -> io::Result<Child>,
) -> Result<Jailed> {
    begin(jailer, spec, spawn)?.finish()
}

/// Begins to do as [`launch`]: several jails are built at once. The descriptors that `spec` names need not stay open here.
///
/// # Errors
/// Why the jailer cannot be started.
pub fn begin(
    mut jailer: Command,
    spec: &JailSpec,
    spawn: impl FnOnce(Command, &[BorrowedFd<'_>]) -> io::Result<Child>,
) -> Result<Launching> {
    let program = jailer.get_program().to_owned();
    let order = order_file(&JailOrder::of(spec))?;
    let (answer, answer_end) = message::pair().doing("making a socket for the jail")?;
    jailer.arg(JAILER).args([order.as_raw_fd(), answer_end.as_raw_fd()].map(|number| number.to_string()));
    let mut keep = vec![order.as_fd(), answer_end.as_fd()];
    keep.extend(named(spec));
    let doing = format!("starting the jailer {}", program.display());
    let jailer = spawn(jailer, &keep).doing(doing)?;
    Ok(Launching { jailer, answer: JailerAnswer(answer) })
}

/// The last that a child does before it would execute a program. It does not return.
pub type LastStep = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// Begins to do as [`begin`], with a copy of this process as the jailer: a program that is executed for it takes five times
/// as long to be there.
///
/// `jailer` has the copy's standard streams and is never executed. `spawn` starts it, and has the child take the last step
/// after all of its own. The copy has the memory of this process, and of its descriptors those that `spec` names.
///
/// # Errors
/// As [`begin`], and when this process has more than one thread: a copy of one of them may find locks that the others hold.
pub fn begin_by_copy(
    jailer: Command,
    spec: &JailSpec,
    spawn: impl FnOnce(Command, &[BorrowedFd<'_>], LastStep) -> io::Result<Child>,
) -> Result<Launching> {
    require_one_thread()?;
    let order = JailOrder::of(spec);
    let (answer, answer_end) = message::pair().doing("making a socket for the jail")?;
    let mut keep = vec![answer_end.as_fd()];
    keep.extend(named(spec));
    let answer_number = answer_end.as_raw_fd();
    let last: LastStep = Box::new(move || stage::become_jailer(&order, answer_number));
    let jailer = spawn(jailer, &keep, last).doing("starting the jailer")?;
    Ok(Launching { jailer, answer: JailerAnswer(answer) })
}

/// The descriptors that `spec` names.
fn named(spec: &JailSpec) -> impl Iterator<Item = BorrowedFd<'_>> {
    spec.named().map(|descriptor| {
        // SAFETY: the caller names descriptors that are open; one that is not fails to be inherited.
        #[allow(unsafe_code)]
        unsafe {
            BorrowedFd::borrow_raw(descriptor)
        }
    })
}

fn understand(answer: Option<(Vec<u8>, Option<OwnedFd>)>) -> Result<JailedProgram> {
    let nothing = || JailError::new("the jailer ended without a word");
    let (text, handle) = answer.ok_or_else(nothing)?;
    match (serde_json::from_slice(&text), handle) {
        (Ok(JailAnswer::Started { pid, report }), Some(handle)) => Ok(JailedProgram { handle, pid, report }),
        (Ok(JailAnswer::Failed(why)), _) => Err(JailError::new(format!("the jail cannot be built: {why}"))),
        _ => Err(JailError::new("the jailer's answer cannot be understood")),
    }
}

fn order_file(order: &JailOrder) -> Result<File> {
    let doing = "writing down what the jail is to be";
    let text = serde_json::to_vec(order).map_err(io::Error::from).doing(doing)?;
    let file = rustix::fs::memfd_create("boxlite-jail", rustix::fs::MemfdFlags::CLOEXEC).doing(doing)?;
    let mut file = File::from(file);
    file.write_all(&text).and_then(|()| file.rewind()).doing(doing)?;
    Ok(file)
}
