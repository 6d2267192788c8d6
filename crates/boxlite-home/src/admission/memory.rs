//! Admission by memory: what running boxes were promised fits the host's memory.
//!
//! A box is promised what its control group lets it take: its guest's memory and a stated overhead. The promise is a
//! [`Claim`] on memory that the shim inherits, so it ends with the shim, however that ends. Promises are counted within
//! a home: neither other homes nor other programs of the host count.

use std::fmt::Write;

use boxlite_types::{Error, ErrorCause, HostMemory, Result, Shortage};

use super::claim::{Claim, Claims};
use super::host_memory::{host_memory, whole_host_memory};
use crate::home::Home;
use crate::settings::{Bytes, HostShare};

/// Boxes that a refusal names.
const MAX_NAMED: usize = 3;

/// The memory that boxes may be promised together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBudget {
    /// The memory that they share with everything else.
    pub host: HostMemory,
    /// The share of it that they may be promised.
    pub share: HostShare,
}

/// The memory of one box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// The guest's.
    pub guest: u64,
    /// That of the processes that run the guest.
    pub overhead: u64,
}

/// The decision on one box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryVerdict {
    /// It may be promised its memory.
    Fits,
    /// It may not, beside what others were promised.
    Full,
    /// It may not even alone.
    TooLarge,
}

impl MemoryBudget {
    /// The budget of this process's host by the setting `memory_share`.
    ///
    /// # Errors
    /// `Io` when the host's memory cannot be measured.
    pub fn measure(share: HostShare) -> Result<Self> {
        Ok(Self { host: host_memory()?, share })
    }

    /// The budget of all boxes on this host, whatever bounds this process.
    ///
    /// # Errors
    /// As for [`MemoryBudget::measure`].
    fn of_whole_host(share: HostShare) -> Result<Self> {
        Ok(Self { host: whole_host_memory()?, share })
    }

    /// Bytes that boxes may be promised together.
    pub fn limit(&self) -> u64 {
        let limit = u128::from(self.host.bytes) * u128::from(self.share.0) / 100;
        u64::try_from(limit).unwrap_or(u64::MAX)
    }

    /// Decides on a box that needs `need` bytes beside the `promised` ones.
    pub fn classify(&self, need: u64, promised: u64) -> MemoryVerdict {
        let limit = self.limit();
        if need > limit {
            MemoryVerdict::TooLarge
        } else if need > limit.saturating_sub(promised) {
            MemoryVerdict::Full
        } else {
            MemoryVerdict::Fits
        }
    }

    /// Refuses a box that could never start here.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures.
    pub fn refuse_too_large(&self, need: MemoryNeed) -> Result<()> {
        match self.classify(need.total(), 0) {
            MemoryVerdict::TooLarge => Err(self.refusal(need, 0, &|| Vec::new())),
            MemoryVerdict::Fits | MemoryVerdict::Full => Ok(()),
        }
    }

    /// Describes the budget in words.
    fn words(&self) -> String {
        let Self { host, share } = self;
        let of = match &host.limited_by {
            Some(group) => {
                format!("the {} that the control group {} allows", Bytes(host.bytes), group.display())
            }
            None => format!("this host's {}", Bytes(host.bytes)),
        };
        format!("{} (memory_share {}% of {of})", Bytes(self.limit()), share.0)
    }

    fn refusal(&self, need: MemoryNeed, promised: u64, holders: &dyn Fn() -> Vec<MemoryHolder>) -> Error {
        let MemoryNeed { guest, overhead } = need;
        let mut message = format!(
            "not enough memory: the box needs {} ({} for its guest and {} around it), and boxes may have {}",
            Bytes(need.total()),
            Bytes(guest),
            Bytes(overhead),
            self.words()
        );
        if promised > 0 {
            let _ = write!(message, ", of which {} is promised{}", Bytes(promised), to_whom(holders()));
        }
        let others = if promised > 0 { "stop a box, " } else { "" };
        let _ = write!(message, "; {others}give this one less memory (-m), or raise memory_share");
        let have = self.limit().saturating_sub(promised);
        let shortage = Shortage { need: need.total(), have, inodes: false, reclaimable: None };
        Error::exhausted(message, shortage).about(ErrorCause::Memory)
    }
}

impl MemoryNeed {
    /// Bytes that the box is promised.
    pub fn total(self) -> u64 {
        self.guest.saturating_add(self.overhead)
    }
}

/// A box that was promised memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryHolder {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

/// Names the boxes that were promised most.
fn to_whom(mut holders: Vec<MemoryHolder>) -> String {
    holders.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.name.cmp(&other.name)));
    let named: Vec<String> =
        holders.iter().take(MAX_NAMED).map(|box_| format!("{} ({})", box_.name, Bytes(box_.bytes))).collect();
    match (named.is_empty(), holders.len().saturating_sub(MAX_NAMED)) {
        (true, _) => String::new(),
        (false, 0) => format!(" to {}", named.join(", ")),
        (false, more) => format!(" to {} and {more} more", named.join(", ")),
    }
}

/// Proof for the later stages that the host has memory for a box, and the holder of its promise.
#[derive(Debug)]
#[must_use = "the promise ends when this is dropped"]
pub struct MemoryPromise(Claim);

impl MemoryPromise {
    /// The claim, for the shim to inherit.
    pub fn into_claim(self) -> Claim {
        self.0
    }
}

/// Decides whether the host has memory for one more box.
pub struct MemoryAdmission<'a> {
    /// The home, whose boxes count.
    pub home: &'a Home,
    /// The share of the host's memory that boxes may be promised.
    pub share: HostShare,
    /// The box's memory.
    pub need: MemoryNeed,
    /// The boxes that were promised memory; asked for a refusal only.
    pub holders: &'a dyn Fn() -> Vec<MemoryHolder>,
}

impl std::fmt::Debug for MemoryAdmission<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryAdmission").field("need", &self.need).finish_non_exhaustive()
    }
}

impl MemoryAdmission<'_> {
    /// Promises the box its memory.
    ///
    /// Never waits: of two starts that race for the last bytes, the one whose claim lies higher counts the other's, and is
    /// refused. A host whose memory cannot be measured refuses nothing.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures. No claim is held then.
    pub fn run(&self) -> Result<MemoryPromise> {
        self.run_measuring(&MemoryBudget::measure)
    }

    /// Promises its memory to a box that stays in this process's control group.
    ///
    /// The group bounds one job of an engine, and the home's other boxes are in others: so the box alone must fit its group,
    /// and all of them together the host.
    ///
    /// # Errors
    /// As for [`MemoryAdmission::run`].
    pub fn run_in_own_group(&self) -> Result<MemoryPromise> {
        if let Ok(group) = MemoryBudget::measure(self.share) {
            group.refuse_too_large(self.need)?;
        }
        self.run_measuring(&MemoryBudget::of_whole_host)
    }

    pub(super) fn run_measuring(
        &self,
        measure: &dyn Fn(HostShare) -> Result<MemoryBudget>,
    ) -> Result<MemoryPromise> {
        let claims = Claims::on_memory(self.home)?;
        let need = self.need.total();
        let budget = match measure(self.share) {
            Ok(budget) => budget,
            Err(error) => {
                tracing::warn!(
                    error = %error.chain(),
                    "the host's memory could not be measured, so the start goes on unchecked"
                );
                return claims.take(need).map(MemoryPromise);
            }
        };
        // Looks before it claims: a claim that is bound to fail could make another start fail in that moment.
        self.judge(&budget, claims.promised()?)?;
        self.claim(&claims, &budget)
    }

    /// Claims the memory, and counts again: others may have claimed since this start looked.
    fn claim(&self, claims: &Claims, budget: &MemoryBudget) -> Result<MemoryPromise> {
        let claim = claims.take(self.need.total())?;
        self.judge(budget, claim.promised_before()?)?;
        Ok(MemoryPromise(claim))
    }

    fn judge(&self, budget: &MemoryBudget, promised: u64) -> Result<()> {
        match budget.classify(self.need.total(), promised) {
            MemoryVerdict::Fits => Ok(()),
            MemoryVerdict::Full => Err(budget.refusal(self.need, promised, self.holders)),
            MemoryVerdict::TooLarge => Err(budget.refusal(self.need, 0, self.holders)),
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
