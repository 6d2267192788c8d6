//! How much the box has made the folder grow, kept in a file that outlives the daemon.
//!
//! # Layout
//! [`LENGTH`] bytes of little-endian integers: [`MAGIC`]; the version; the bytes charged to the box, less those credited to
//! it; of these the bytes of files that have no name any more but are still open, which are free once the daemon is gone, so
//! that the next one begins with the difference; the bytes that the folder held when the box first freed more than it had
//! added, all ones before that; and a checksum of all this. A file of 16 bytes is a ledger of the first version: the two
//! figures alone.
//!
//! # Crash safety
//! The file never says less than what is used, however the daemon ends: growth that would pass what it says is written down
//! first, rounded up by a step. So most changes write nothing, and a kill costs the box at most three steps (`Ledger::step`).
//! [`Ledger::settle`] writes the exact figures, which [`crate::metering`] does within a second, and makes them durable: a power
//! failure loses what was used in that second. The sum is within one sector, which disks write whole.
//!
//! A file that cannot be understood, because it is damaged or of a newer version, is treated as if all that
//! the folder holds were the box's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: u64 = u64::from_le_bytes(*b"boxgrows");
const VERSION: u64 = 2;
const NUMBERS: usize = 6;
const LENGTH: usize = NUMBERS * 8;
const FIRST_LENGTH: usize = 16;

/// Changes of less than a part of the limit, and at least so many bytes, are not written down.
const LEAST_STEP: u64 = 64 << 10;
const MOST_STEP: u64 = 4 << 20;
const STEPS: u64 = 1024;

/// The bytes charged to one box for one folder, and how many there may be.
#[derive(Debug)]
pub(crate) struct Ledger {
    figures: Figures,
    /// Bytes that may have been added since files were looked at last; they count until that is known.
    reserved: i64,
    limit: u64,
    kept: Option<File>,
    written: Figures,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Figures {
    used: i64,
    nameless: i64,
    held: Option<u64>,
}

impl Ledger {
    /// Goes on with what `kept` holds, which is nothing at first; the box may make the folder grow by `limit` bytes.
    ///
    /// `total` says how much the folder holds, if it is known; it is asked only when the file cannot be understood.
    pub(crate) fn open(
        limit: u64,
        kept: Option<File>,
        total: impl FnOnce() -> Option<u64>,
    ) -> io::Result<Self> {
        let mut figures = Figures::default();
        if let Some(file) = &kept {
            let mut bytes = [0; LENGTH + 1];
            let length = file.read_at(&mut bytes, 0)?;
            figures = Figures::read(&bytes[..length]).unwrap_or_else(|| {
                log::warn!("the ledger of the volume cannot be understood; all that the folder holds counts");
                let used = total().map_or(limit, |total| total.min(limit));
                Figures { used: i64::try_from(used).unwrap_or(i64::MAX), ..Figures::default() }
            });
        }
        figures.used = figures.used.saturating_sub(figures.nameless);
        figures.nameless = 0;
        let mut ledger = Self { figures, reserved: 0, limit, kept, written: figures };
        ledger.settle()?;
        Ok(ledger)
    }

    /// Bytes that the box has made the folder grow by; negative where it has freed more.
    pub(crate) fn used(&self) -> i64 {
        self.figures.used
    }

    /// Bytes of files without a name that are still open.
    #[cfg(test)]
    pub(crate) fn nameless(&self) -> i64 {
        self.figures.nameless
    }

    /// Bytes by which the box may make the folder grow further.
    pub(crate) fn room(&self) -> u64 {
        let used = i128::from(self.figures.used) + i128::from(self.reserved);
        u64::try_from(i128::from(self.limit) - used).unwrap_or(0)
    }

    /// Whether growth has gone past the limit.
    pub(crate) fn is_exceeded(&self) -> bool {
        i128::from(self.figures.used) > i128::from(self.limit)
    }

    /// Whether the box has freed more than it has added, and [`Ledger::held`] is to be called.
    pub(crate) fn is_in_credit(&self) -> bool {
        self.figures.used < 0 && self.figures.held.is_none()
    }

    /// Notes that the folder holds `bytes`, at least, besides what the box has freed.
    ///
    /// No more than what was there is ever credited: boxes that share the folder would else be credited again and again for
    /// what the others write.
    pub(crate) fn held(&mut self, bytes: u64) -> io::Result<()> {
        self.figures.held = Some(bytes.saturating_add(self.figures.used.min(0).unsigned_abs()));
        self.settle()
    }

    /// Whether `bytes` more can count without being known, so that a kill leaves no more than a step too many.
    pub(crate) fn may_reserve(&self, bytes: u64) -> bool {
        bytes <= (self.step() - self.reserved).max(0) as u64
    }

    /// Has `bytes` count until they are given back.
    pub(crate) fn reserve(&mut self, bytes: i64) -> io::Result<()> {
        self.reserved = self.reserved.saturating_add(bytes);
        self.change(0, 0)
    }

    /// Gives back what was reserved; what of it was added is charged next.
    pub(crate) fn unreserve(&mut self, bytes: i64) {
        self.reserved = self.reserved.saturating_sub(bytes).max(0);
    }

    /// Adds `bytes`, or takes them away where they are negative.
    pub(crate) fn charge(&mut self, bytes: i64) -> io::Result<()> {
        self.change(bytes, 0)
    }

    /// Notes that `bytes` more of what is charged belong to a file that has lost its last name, or fewer.
    pub(crate) fn lose_name(&mut self, bytes: i64) -> io::Result<()> {
        self.change(0, bytes)
    }

    /// Credits the `bytes` of a file without a name now that it is gone.
    pub(crate) fn vanish(&mut self, bytes: i64) -> io::Result<()> {
        self.change(bytes.saturating_neg(), bytes.saturating_neg())
    }

    /// Has it that the box can have added no more than `total` bytes, which is all that there is.
    pub(crate) fn bound(&mut self, total: u64) -> io::Result<()> {
        let total = i64::try_from(total).unwrap_or(i64::MAX).saturating_add(self.figures.nameless);
        self.change(total.saturating_sub(self.figures.used).min(0), 0)
    }

    /// Whether the file says other figures than these.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.kept.is_some() && self.written != self.at_most()
    }

    /// Writes the exact figures down.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.write(self.at_most())
    }

    /// The file, to make it durable without the ledger.
    pub(crate) fn file(&self) -> io::Result<Option<File>> {
        self.kept.as_ref().map(File::try_clone).transpose()
    }

    fn change(&mut self, used: i64, nameless: i64) -> io::Result<()> {
        let lowest =
            self.figures.held.map_or(i64::MIN, |held| i64::try_from(held).map_or(i64::MIN, |held| -held));
        self.figures.used = self.figures.used.saturating_add(used).max(lowest);
        self.figures.nameless = self.figures.nameless.saturating_add(nameless).max(0);
        let (now, says) = (self.at_most().after_a_kill(), self.written.after_a_kill());
        let step = self.step();
        if now > says || says.saturating_sub(now) > 2 * step {
            let at_most = self.at_most();
            return self.write(Figures { used: at_most.used.saturating_add(step), ..at_most });
        }
        Ok(())
    }

    /// The figures if all that is reserved was added.
    fn at_most(&self) -> Figures {
        Figures { used: self.figures.used.saturating_add(self.reserved), ..self.figures }
    }

    /// Bytes by which the file may say too much.
    fn step(&self) -> i64 {
        (self.limit / STEPS).clamp(LEAST_STEP, MOST_STEP) as i64
    }

    fn write(&mut self, figures: Figures) -> io::Result<()> {
        if let Some(file) = &self.kept {
            file.write_all_at(&figures.bytes(), 0)?;
        }
        self.written = figures;
        Ok(())
    }
}

impl Figures {
    /// Returns the use that holds once nothing is open any more.
    fn after_a_kill(self) -> i64 {
        self.used.saturating_sub(self.nameless)
    }

    /// `None` for what is damaged or of another version.
    fn read(bytes: &[u8]) -> Option<Self> {
        let numbers: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|number| u64::from_le_bytes(number.try_into().expect("8 bytes")))
            .collect();
        match (bytes.len(), &numbers[..]) {
            (0, _) => Some(Self::default()),
            (FIRST_LENGTH, &[used, nameless]) => {
                Some(Self { used: used as i64, nameless: nameless as i64, held: None })
            }
            (LENGTH, &[MAGIC, VERSION, used, nameless, held, sum])
                if sum == checksum(&bytes[..LENGTH - 8]) =>
            {
                let held = (held != u64::MAX).then_some(held);
                Some(Self { used: used as i64, nameless: nameless as i64, held })
            }
            _ => None,
        }
    }

    fn bytes(self) -> [u8; LENGTH] {
        let numbers = [MAGIC, VERSION, self.used as u64, self.nameless as u64, self.held.unwrap_or(u64::MAX)];
        let mut bytes = [0; LENGTH];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(&bytes[..LENGTH - 8]);
        bytes[LENGTH - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// FNV-1a: against damage, not against people.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(limit: u64, file: &File) -> Ledger {
        Ledger::open(limit, Some(file.try_clone().unwrap()), || panic!("it can be understood")).unwrap()
    }

    #[test]
    fn it_goes_on_where_the_last_one_ended_without_what_was_nameless() {
        let file = tempfile::tempfile().unwrap();
        let mut ledger = open(100, &file);
        ledger.charge(70).unwrap();
        ledger.lose_name(20).unwrap();
        assert_eq!((ledger.used(), ledger.room()), (70, 30));
        ledger.settle().unwrap();
        drop(ledger);
        let mut ledger = open(60, &file);
        assert_eq!((ledger.used(), ledger.nameless(), ledger.room()), (50, 0, 10));
        ledger.charge(-80).unwrap();
        assert_eq!((ledger.used(), ledger.room()), (-30, 90));
        ledger.charge(200).unwrap();
        assert!(ledger.is_exceeded() && ledger.room() == 0);
        ledger.bound(7).unwrap();
        ledger.settle().unwrap();
        assert_eq!(open(60, &file).used(), 7);
    }

    /// Mutation tried: growth that is written down only when it is settled, by which a kill makes it unused.
    #[test]
    fn a_kill_never_makes_less_of_what_is_used_and_a_step_more_at_most() {
        const LIMIT: u64 = 1 << 30;
        let file = tempfile::tempfile().unwrap();
        let mut ledger = open(LIMIT, &file);
        let (step, mut nameless, mut written) = (ledger.step(), 0, ledger.written);
        let mut writes = 0;
        for change in 0..20_000_i64 {
            match change % 7 {
                0 => ledger.charge(90_000).unwrap(),
                1 | 2 => ledger.charge(-30_000).unwrap(),
                3 => {
                    ledger.lose_name(40_000).unwrap();
                    nameless += 1;
                }
                4 if nameless > 2 => {
                    ledger.vanish(40_000).unwrap();
                    nameless -= 1;
                }
                _ => ledger.charge(4096).unwrap(),
            }
            writes += u32::from(written != ledger.written);
            written = ledger.written;
            if change % 500 == 0 {
                let (now, next) =
                    (ledger.figures.after_a_kill(), open(LIMIT, &file.try_clone().unwrap()).used());
                assert!((now..=now + 2 * step).contains(&next), "{now} {next}");
                // The other one has settled the file.
                ledger.settle().unwrap();
            }
        }
        assert!(writes < 2000, "{writes}");
    }

    /// Mutations tried: no checksum; a ledger that cannot be understood begins at nothing.
    #[test]
    fn what_cannot_be_understood_counts_all_that_is_there() {
        let file = tempfile::tempfile().unwrap();
        let opened = |bytes: &[u8], total| {
            file.set_len(0).unwrap();
            file.write_all_at(bytes, 0).unwrap();
            Ledger::open(100, Some(file.try_clone().unwrap()), || total).unwrap().used()
        };
        let whole = Figures { used: 40, nameless: 3, held: Some(9) }.bytes();
        assert_eq!(opened(&whole, None), 37);
        for place in 0..LENGTH {
            let mut damaged = whole;
            damaged[place] ^= 0x80;
            assert_eq!(opened(&damaged, Some(60)), 60, "{place}");
        }
        let longer = [&whole[..], &[0]].concat();
        for damaged in [b"short", &whole[..40], &longer, &[0; LENGTH]] {
            assert_eq!((opened(damaged, None), opened(damaged, Some(1000))), (100, 100), "{damaged:?}");
        }
        // The first version's.
        assert_eq!(opened(&[&70_i64.to_le_bytes()[..], &20_i64.to_le_bytes()].concat(), None), 50);
        assert_eq!(opened(&[], None), 0);
    }

    /// Mutation tried: credit without a bound.
    #[test]
    fn no_more_is_credited_than_was_there() {
        let file = tempfile::tempfile().unwrap();
        let mut ledger = open(100, &file);
        ledger.charge(-30).unwrap();
        assert!(ledger.is_in_credit());
        ledger.held(50).unwrap();
        for _ in 0..3 {
            ledger.charge(-60).unwrap();
            assert_eq!(ledger.used(), -80);
            assert!(!ledger.is_in_credit());
        }
        drop(ledger);
        let mut ledger = open(100, &file);
        ledger.charge(-60).unwrap();
        assert_eq!(ledger.used(), -80);
    }
}
