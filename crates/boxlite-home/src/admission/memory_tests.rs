use std::sync::atomic::{AtomicU64, Ordering};

use boxlite_types::ErrorKind;
use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn budget(bytes: u64, share: u16) -> MemoryBudget {
    MemoryBudget { host: HostMemory { bytes, limited_by: None }, share: HostShare(share) }
}

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::open(&directory.path().join("home")).unwrap();
    (directory, home)
}

/// A start of a box of `guest` bytes on a host of 4 GiB of which boxes may have all.
fn admit(home: &Home, guest: u64) -> Result<MemoryPromise> {
    let holders = || vec![MemoryHolder { name: "web".into(), bytes: 3 * GIB }];
    let need = MemoryNeed { guest, overhead: 0 };
    MemoryAdmission { home, share: HostShare(100), need, holders: &holders }
        .run_measuring(&|_| Ok(budget(4 * GIB, 100)))
}

#[test]
fn verdicts_change_exactly_at_the_limit() {
    let budget = budget(10 * GIB, 90);
    assert_eq!(budget.limit(), 9 * GIB);
    assert_eq!(budget.classify(9 * GIB, 0), MemoryVerdict::Fits);
    assert_eq!(budget.classify(9 * GIB + 1, 0), MemoryVerdict::TooLarge);
    assert_eq!(budget.classify(GIB, 8 * GIB), MemoryVerdict::Fits);
    assert_eq!(budget.classify(GIB, 8 * GIB + 1), MemoryVerdict::Full);
    // The share was lowered while boxes ran.
    assert_eq!(budget.classify(1, 20 * GIB), MemoryVerdict::Full);
    assert_eq!(budget.classify(u64::MAX, u64::MAX), MemoryVerdict::TooLarge);
}

proptest! {
    #[test]
    fn what_fits_is_within_the_limit_and_less_always_fits(
        host: u64, share in 1_u16..=1000, need: u64, promised: u64, less: u64,
    ) {
        let budget = budget(host, share);
        let within = u128::from(need) + u128::from(promised) <= u128::from(budget.limit());
        prop_assert_eq!(budget.classify(need, promised) == MemoryVerdict::Fits, within);
        if within {
            prop_assert_eq!(budget.classify(need.min(less), promised), MemoryVerdict::Fits);
            prop_assert_eq!(budget.classify(need, promised.min(less)), MemoryVerdict::Fits);
        }
        let alone = budget.classify(need, 0);
        prop_assert_eq!(budget.classify(need, promised) == MemoryVerdict::TooLarge, alone != MemoryVerdict::Fits);
    }
}

#[test]
fn a_refusal_has_the_figures_and_names_who_was_promised_what() {
    let (_directory, home) = home();
    let _web = admit(&home, 3 * GIB).unwrap();
    let refused = admit(&home, 2 * GIB).unwrap_err();
    assert_eq!((refused.kind(), refused.cause()), (ErrorKind::ResourceExhausted, Some(ErrorCause::Memory)));
    let shortage = refused.shortage().unwrap();
    assert_eq!((shortage.need, shortage.have), (2 * GIB, GIB));
    let message = refused.to_string();
    for part in [
        "needs 2 GiB",
        "boxes may have 4 GiB (memory_share 100% of this host's 4 GiB)",
        "of which 3 GiB is promised to web (3 GiB);",
        "stop a box",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = admit(&home, 5 * GIB).unwrap_err().to_string();
    assert!(message.contains("needs 5 GiB") && !message.contains("promised"), "{message}");
    // A refusal promises nothing.
    assert_eq!(Claims::on_memory(&home).unwrap().promised().unwrap(), 3 * GIB);
    // Memory is not disk space.
    assert_eq!(Claims::open(&home).unwrap().promised().unwrap(), 0);
}

#[test]
fn the_largest_holders_are_named_and_the_others_counted() {
    let holder = |name: &str, bytes: u64| MemoryHolder { name: name.into(), bytes };
    assert_eq!(to_whom(Vec::new()), "");
    let holders = vec![holder("b", 1), holder("a", 1), holder("c", GIB), holder("d", 0), holder("e", 0)];
    assert_eq!(to_whom(holders), " to c (1 GiB), a (1 B), b (1 B) and 2 more");
}

/// Four starts race for the last GiB, again and again: one gets it.
#[test]
fn of_starts_that_race_for_the_last_bytes_one_is_admitted() {
    let (_directory, home) = home();
    let _others = admit(&home, 3 * GIB).unwrap();
    for _ in 0..100 {
        let barrier = std::sync::Barrier::new(4);
        let admitted: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                admit(&home, GIB).ok()
            };
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(admitted.len(), 1);
    }
}

/// The order that loses the race, step by step: this start has looked, and another claims first.
#[test]
fn a_start_that_looked_before_another_claimed_is_refused_all_the_same() {
    let (_directory, home) = home();
    let need = MemoryNeed { guest: 3 * GIB, overhead: 0 };
    let admission = MemoryAdmission { home: &home, share: HostShare(100), need, holders: &Vec::new };
    let (claims, budget) = (Claims::on_memory(&home).unwrap(), budget(4 * GIB, 100));
    admission.judge(&budget, claims.promised().unwrap()).unwrap();
    let _other = admit(&home, 2 * GIB).unwrap();
    let refused = admission.claim(&claims, &budget).unwrap_err();
    assert_eq!(refused.shortage().unwrap().have, 2 * GIB);
    assert_eq!(claims.promised().unwrap(), 2 * GIB);
}

#[test]
fn promises_never_pass_the_limit_however_starts_and_ends_interleave() {
    let (_directory, home) = home();
    let (promised, peak, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for worker in 0..6_u64 {
            let (home, promised, peak, refused) = (&home, &promised, &peak, &refused);
            scope.spawn(move || {
                for round in 0..100 {
                    let bytes = (1 + (worker + round) % 3) * GIB;
                    match admit(home, bytes) {
                        Ok(promise) => {
                            peak.fetch_max(
                                promised.fetch_add(bytes, Ordering::SeqCst) + bytes,
                                Ordering::SeqCst,
                            );
                            std::thread::yield_now();
                            promised.fetch_sub(bytes, Ordering::SeqCst);
                            drop(promise);
                        }
                        Err(error) => {
                            assert_eq!(error.cause(), Some(ErrorCause::Memory));
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    assert!(peak.into_inner() <= 4 * GIB);
    assert!(refused.into_inner() > 0, "nothing raced");
    assert_eq!(Claims::on_memory(&home).unwrap().live().unwrap(), []);
}

#[test]
fn a_host_whose_memory_cannot_be_measured_refuses_nothing() {
    let (_directory, home) = home();
    let need = MemoryNeed { guest: GIB, overhead: 5 };
    let admission = MemoryAdmission { home: &home, share: HostShare(1), need, holders: &Vec::new };
    let promise = admission.run_measuring(&|_| Err(Error::corrupt("no figures"))).unwrap();
    assert_eq!(promise.into_claim().bytes(), GIB + 5);
}
