//! Real boxes write on a disk that fills up again and again, and nothing that they have flushed is lost.
//!
//! Each cycle: boxes write, the disk fills up, they are paused, one of them is disturbed, there is space again, they
//! finish, and everything is compared with what they reported. `scripts/bench chaos` runs a thousand cycles and prints
//! figures; `BOXLITE_CHAOS_CYCLES` and `BOXLITE_CHAOS_SEED` choose others. A seed draws the same cycles each time;
//! `BOXLITE_CHAOS_FROM` leaves out those before that number, to get to one that fails.

mod cycles;
mod examine;
mod figures;
mod host;
mod schedule;
mod writer;

/// Cycles of a run of the suite. Their seed draws every kind of fill, disturbance, relief and sequel but a clone.
const CYCLES: u64 = 8;
const SEED: u64 = 1181;

fn chosen(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}

/// Mutation tried: a QEMU that begins each run with the overlay of the first, so that what a run wrote is lost.
#[test]
fn no_box_and_no_byte_is_lost_on_a_disk_that_fills_up_again_and_again() {
    let Some(host) = host::SmallHost::mount() else { return };
    let (cycles, seed) = (chosen("BOXLITE_CHAOS_CYCLES", CYCLES), chosen("BOXLITE_CHAOS_SEED", SEED));
    let first = chosen("BOXLITE_CHAOS_FROM", 0);
    let mut chaos = cycles::Chaos::begin(&host, seed, first);
    for number in first..cycles {
        if let Err(harm) = chaos.cycle(number) {
            chaos.tell(&harm);
            panic!("cycle {number} of seed {seed}: {harm}\n{}", chaos.figures);
        }
    }
    if let Err(harm) = chaos.end() {
        panic!("the end of seed {seed}: {harm}\n{}", chaos.figures);
    }
    println!("seed {seed}\n{}", chaos.figures);
}
