//! The cycles: fill, pause, disturb, relieve, compare.

use std::time::Duration;

use boxlite_testkit::deadline::{TEST_TIMEOUT, until, within};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use crate::examine;
use crate::figures::Figures;
use crate::host::{MIB, PAUSED_BELOW, RESUMED_AT, SmallHost};
use crate::schedule::{Audit, Cycle, Disturbance, Fill, Relief, Schedule, Sequel};
use crate::writer::{Sums, Writer, WritingBox, missing};

/// Why a run ends: a guest was lost, a byte is wrong, or a program said what it must not.
pub(crate) type Harm = String;

/// Boxes that write.
const BOXES: usize = 3;

/// A box that never runs, to be refused.
const RESTING: &str = "resting";

/// Where boxes see the volume.
const SHARE: &str = "/share";

/// The boxes of a run, and what is known of them.
pub(crate) struct Chaos<'a> {
    host: &'a SmallHost,
    schedule: Schedule,
    boxes: Vec<WritingBox>,
    made: u64,
    pub(crate) figures: Figures,
}

impl<'a> Chaos<'a> {
    /// Makes the boxes; the first has the volume. The cycles of `seed` before the number `first` are drawn and left out.
    pub(crate) fn begin(host: &'a SmallHost, seed: u64, first: u64) -> Self {
        let image = host.image("mini");
        let mut chaos =
            Self { host, schedule: Schedule::new(seed), boxes: Vec::new(), made: 0, figures: Figures::new() };
        for place in 0..BOXES {
            let made = chaos.make(place);
            chaos.boxes.push(made);
        }
        for _ in 0..first {
            chaos.schedule.next(BOXES);
        }
        host.boxlite(&["create", "--name", RESTING, "--memory", "128m", &image, "true"]).ok();
        chaos
    }

    fn make(&mut self, place: usize) -> WritingBox {
        self.made += 1;
        let name = format!("box{}", self.made);
        let volume = format!("{}:{SHARE}", self.host.folder().display());
        let options = if place == 0 { vec!["-v", &volume] } else { vec![] };
        WritingBox::run(self.host, &name, &options)
    }

    /// Says what the boxes' shims and the host had to say.
    pub(crate) fn tell(&self, harm: &Harm) {
        println!("{harm}\n{}", self.host.boxlite(&["ls", "-a"]).text());
        for name in examine::names(&self.host.home().join("boxes")) {
            let log = self.host.home().join("boxes").join(&name).join("shim.log");
            println!("{name}: {}", std::fs::read_to_string(log).unwrap_or_default());
        }
    }

    pub(crate) fn cycle(&mut self, number: u64) -> Result<(), Harm> {
        let cycle = self.schedule.next(self.boxes.len());
        println!("cycle {number}: {cycle:?}");
        if cycle.relief == Relief::Collect {
            self.leave_garbage();
        }
        let machines: Vec<_> = self.boxes.iter().map(|guest| self.machine(guest)).collect();
        let before: Vec<_> = self.boxes.iter().map(|guest| guest.reported.len()).collect();
        let mut writers = self.begin_writing(number, &cycle);
        self.fill(&cycle, &mut writers);
        let disturbed = self.disturb(&cycle)?;
        self.relieve(&cycle)?;
        for (place, writer) in writers.into_iter().enumerate() {
            let output = writer.finish(&mut self.boxes[place].reported, TEST_TIMEOUT);
            self.figures.files += (self.boxes[place].reported.len() - before[place]) as u64;
            if disturbed == Some(place) {
                continue;
            }
            let name = &self.boxes[place].name;
            let written = self.boxes[place].reported.len() - before[place];
            if output.code() != Some(0) || written != cycle.files as usize {
                return Err(format!("{name} wrote {written} files of {}: {output:?}", cycle.files));
            }
            if self.machine(&self.boxes[place]) != machines[place] {
                return Err(format!("{name} was lost: another machine runs it, or none"));
            }
        }
        if cycle.disturbance == Disturbance::Remove {
            self.boxes[cycle.victim] = self.make(cycle.victim);
        }
        self.follow_up(number, &cycle)?;
        self.examine(cycle.audit)?;
        self.figures.cycles += 1;
        Ok(())
    }

    /// The process of a running box's virtual machine.
    fn machine(&self, guest: &WritingBox) -> Option<u32> {
        self.host.status(&guest.id).and_then(|status| status.vm_pid)
    }

    fn is_paused(&self, id: &str) -> bool {
        self.host.status(id).is_some_and(|status| status.out_of_space)
    }

    /// Leaves an image that no box needs, and that `gc` frees more of than it takes to resume.
    fn leave_garbage(&self) {
        let image = self.host.image("python");
        let options = ["run", "--rm", "--network", "none", "--memory", "128m", &image, "true"];
        self.host.boxlite(&options).ok();
        self.host.boxlite(&["rmi", &image]).ok();
    }

    /// Has every box write, and waits until each has reported a file.
    fn begin_writing(&mut self, number: u64, cycle: &Cycle) -> Vec<Writer> {
        let prefix = format!("{number:05}");
        let writers: Vec<Writer> = self
            .boxes
            .iter()
            .map(|guest| guest.write(self.host, &prefix, cycle.files, cycle.kib << 10, "/data"))
            .collect();
        for (guest, writer) in self.boxes.iter_mut().zip(&writers) {
            writer.begin(&mut guest.reported);
        }
        writers
    }

    /// Fills the disk, and waits until a guest is paused, unless all have written what they had to.
    fn fill(&mut self, cycle: &Cycle, writers: &mut [Writer]) {
        let left = match cycle.fill {
            Fill::Brim => 0,
            Fill::BelowFloor(mib) => mib * MIB,
        };
        self.host.fill(left);
        until(TEST_TIMEOUT, "a guest to be paused", || {
            self.host.free() >= PAUSED_BELOW
                || self.boxes.iter().any(|guest| self.is_paused(&guest.id))
                || writers.iter_mut().all(Writer::has_ended)
        });
        self.figures.pauses += self.boxes.iter().filter(|guest| self.is_paused(&guest.id)).count() as u64;
    }

    /// Disturbs the victim; returns the box whose command may have failed for it.
    fn disturb(&mut self, cycle: &Cycle) -> Result<Option<usize>, Harm> {
        let victim = self.boxes[cycle.victim].name.clone();
        match cycle.disturbance {
            Disturbance::Nothing => return Ok(None),
            Disturbance::Stop(seconds) => self.stop(&victim, seconds)?,
            Disturbance::KillShim | Disturbance::KillQemu => {
                self.kill(cycle.victim, cycle.disturbance == Disturbance::KillShim);
            }
            Disturbance::Remove => {
                self.host.boxlite(&["rm", "-f", &victim]).ok();
                self.figures.removals += 1;
            }
            Disturbance::Start => {
                self.refused(&["start", RESTING])?;
                return Ok(None);
            }
            Disturbance::Build => {
                let image = self.host.image("app");
                self.refused(&["run", "--rm", "--network", "none", "--memory", "128m", &image, "true"])?;
                return Ok(None);
            }
            Disturbance::Collect => {
                for arguments in [&["gc", "--dry-run"][..], &["gc"]] {
                    let output = self.host.boxlite(arguments);
                    if output.code() != Some(0) {
                        return Err(format!("gc on a full disk: {output:?}"));
                    }
                }
                return Ok(None);
            }
        }
        Ok(Some(cycle.victim))
    }

    /// A stop either flushes the guest, or says that it could not.
    fn stop(&mut self, name: &str, seconds: u32) -> Result<(), Harm> {
        let output = self.host.boxlite(&["stop", "-t", &seconds.to_string(), name]);
        self.figures.stops += 1;
        match output.code() {
            Some(0) => Ok(()),
            Some(_) if output.err.contains("unflushed writes") => {
                self.figures.unclean_stops += 1;
                Ok(())
            }
            _ => Err(format!("stopping {name}: {output:?}")),
        }
    }

    /// Kills a process of the running box without warning, and waits until it is gone.
    fn kill(&mut self, place: usize, shim: bool) {
        let id = &self.boxes[place].id;
        let Some(status) = self.host.status(id) else { return };
        let pid = if shim { Some(status.shim_pid) } else { status.vm_pid };
        let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid as i32)) else { return };
        kill_process(pid, Signal::KILL).unwrap();
        self.figures.kills += 1;
        let name = &self.boxes[place].name;
        until(TEST_TIMEOUT, "a killed box to be gone", || {
            examine::boxes(self.host).iter().any(|(other, state)| other == name && state != "running")
        });
    }

    /// Starts something below the floor: it is refused for lack of space.
    fn refused(&mut self, arguments: &[&str]) -> Result<(), Harm> {
        let output = self.host.boxlite(arguments);
        self.figures.refusals += 1;
        match output.code() {
            Some(75) => Ok(()),
            // What `gc` freed for it was enough.
            Some(0) if self.host.free() >= PAUSED_BELOW => Ok(()),
            _ => Err(format!("{arguments:?} below the floor: {output:?}")),
        }
    }

    fn relieve(&mut self, cycle: &Cycle) -> Result<(), Harm> {
        match cycle.relief {
            Relief::All => {}
            Relief::Steps => self.host.shrink(u64::midpoint(PAUSED_BELOW, RESUMED_AT)),
            Relief::Collect => {
                let output = self.host.boxlite(&["gc", "--format", "json"]);
                if output.code() != Some(0) {
                    return Err(format!("gc as relief: {output:?}"));
                }
                self.figures.reclaimed += output.json()["reclaimed"].as_u64().unwrap_or_default();
                if self.host.free() >= RESUMED_AT {
                    until(TEST_TIMEOUT, "a guest to resume", || {
                        self.host.free() < RESUMED_AT
                            || self.boxes.iter().any(|guest| !self.is_paused(&guest.id))
                    });
                }
            }
        }
        self.host.relieve();
        Ok(())
    }

    fn follow_up(&mut self, number: u64, cycle: &Cycle) -> Result<(), Harm> {
        let place = cycle.victim;
        let name = self.boxes[place].name.clone();
        let runs = self.machine(&self.boxes[place]).is_some();
        match cycle.sequel {
            Sequel::Stop if runs => self.stop(&name, 10),
            Sequel::Restart => {
                self.host.boxlite(&["restart", "-t", "10", &name]).ok();
                Ok(())
            }
            Sequel::KillShim | Sequel::KillQemu => {
                self.kill(place, cycle.sequel == Sequel::KillShim);
                Ok(())
            }
            Sequel::Clone => {
                if runs {
                    self.stop(&name, 10)?;
                }
                self.clone_to(place)
            }
            Sequel::AbortedBuild { after_ms } => self.abort_build(Duration::from_millis(after_ms)),
            Sequel::FullVolume => self.fill_volume(number),
            Sequel::Nothing | Sequel::Stop => Ok(()),
        }
    }

    /// A clone of the resting box takes the place of another one that has no volume.
    fn clone_to(&mut self, origin: usize) -> Result<(), Harm> {
        let place = if origin == 1 { 2 } else { 1 };
        self.made += 1;
        let name = format!("box{}", self.made);
        let cloned = self.host.boxlite(&["clone", "--name", &name, &self.boxes[origin].name]);
        if cloned.code() != Some(0) {
            return Err(format!("cloning {}: {cloned:?}", self.boxes[origin].name));
        }
        self.host.boxlite(&["rm", "-f", &self.boxes[place].name]).ok();
        let reported = self.boxes[origin].reported.clone();
        self.boxes[place] = WritingBox { name, id: cloned.text().trim().to_owned(), reported };
        self.figures.clones += 1;
        Ok(())
    }

    /// Starts a box whose image has to be built first, and fills the disk meanwhile.
    fn abort_build(&mut self, after: Duration) -> Result<(), Harm> {
        let image = self.host.image("python");
        let arguments = ["run", "--rm", "--network", "none", "--memory", "128m", &image, "true"];
        let mut child = self.host.command(arguments).spawn().unwrap();
        // Not to pass: the disk fills up at another step of the build each time.
        std::thread::sleep(after);
        self.host.fill(4 * MIB);
        // A guest that has come up already is paused until there is space.
        until(TEST_TIMEOUT, "a build to end or its box to be paused", || {
            let boxes = examine::names(&self.host.home().join("boxes"));
            child.try_wait().unwrap().is_some()
                || boxes.iter().any(|id| self.is_paused(id) && !self.is_ours(id))
        });
        self.host.relieve();
        let output = boxlite_testkit::program::Output::of(child);
        self.figures.builds += 1;
        match output.code() {
            Some(0) => {}
            Some(75) => self.figures.aborted_builds += 1,
            _ => return Err(format!("a build on a disk that fills up: {output:?}")),
        }
        let _ = self.host.boxlite(&["rmi", &image]);
        Ok(())
    }

    fn is_ours(&self, id: &str) -> bool {
        self.boxes.iter().any(|guest| guest.id == id)
    }

    /// A box writes to a volume whose filesystem fills up: the box is told or waits, and what it flushed is there.
    fn fill_volume(&mut self, number: u64) -> Result<(), Harm> {
        let guest = &self.boxes[0];
        if self.machine(guest).is_none() {
            return Ok(());
        }
        self.host.fill_folder(MIB);
        let mut writer = guest.write(self.host, &format!("{number:05}"), 8, 300 << 10, SHARE);
        until(TEST_TIMEOUT, "a command to meet the volume's end", || {
            writer.has_ended() || self.is_paused(&guest.id)
        });
        self.host.relieve_folder();
        let mut reported = Sums::new();
        let output = writer.finish(&mut reported, TEST_TIMEOUT);
        if output.code() != Some(0) {
            return Err(format!("writing to a full volume: {output:?}"));
        }
        let folder = self.host.folder();
        let found = examine::names(&folder).into_iter().map(|name| {
            let contents = std::fs::read(folder.join(&name)).unwrap();
            (name, hex::encode(Sha256::digest(contents)))
        });
        missing("the volume", &reported, &found.collect())?;
        for name in examine::names(&folder) {
            std::fs::remove_file(folder.join(name)).unwrap();
        }
        self.figures.full_volumes += 1;
        self.figures.files += reported.len() as u64;
        Ok(())
    }

    /// No box is missing, each can be started, has what it reported, and gc leaves nothing.
    fn examine(&mut self, audit: Audit) -> Result<(), Harm> {
        let listed = examine::boxes(self.host);
        let names: Vec<&str> = self.boxes.iter().map(|guest| guest.name.as_str()).chain([RESTING]).collect();
        if listed.len() != names.len()
            || !names.iter().all(|name| listed.iter().any(|(other, _)| other == name))
        {
            return Err(format!("there are {listed:?}, and there should be {names:?}"));
        }
        for place in 0..self.boxes.len() {
            if self.machine(&self.boxes[place]).is_none() {
                examine::resting_disk(self.host, &self.boxes[place].id)?;
                self.figures.disks += 1;
                let started = self.host.boxlite(&["start", &self.boxes[place].name]);
                if started.code() != Some(0) {
                    return Err(format!("{} cannot be started: {started:?}", self.boxes[place].name));
                }
            }
            self.boxes[place].audit(self.host, audit)?;
            self.figures.audits += 1;
            self.boxes[place].prune(self.host);
        }
        self.figures.reclaimed += examine::home(self.host)?;
        Ok(())
    }

    /// Stops every box, examines its disk, and removes it.
    pub(crate) fn end(&mut self) -> Result<(), Harm> {
        for guest in std::mem::take(&mut self.boxes) {
            self.stop(&guest.name, 10)?;
            within(TEST_TIMEOUT, "a stopped box to rest", || {
                self.host.status(&guest.id).is_none().then_some(())
            });
            examine::resting_disk(self.host, &guest.id)?;
            self.host.boxlite(&["rm", &guest.name]).ok();
        }
        self.host.boxlite(&["rm", RESTING]).ok();
        examine::home(self.host)?;
        match examine::names(&self.host.home().join("boxes")).as_slice() {
            [] => Ok(()),
            left => Err(format!("{left:?} are left of boxes that were removed")),
        }
    }
}

impl Drop for Chaos<'_> {
    fn drop(&mut self) {
        let ids = self.host.boxlite(&["ls", "-aq", "--no-trunc"]).text();
        self.host.relieve();
        for id in ids.split_whitespace() {
            self.host.boxlite(&["rm", "-f", id]);
        }
    }
}
