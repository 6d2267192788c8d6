//! Progress of pulls and builds: bars on a terminal only, notices everywhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use boxlite::{Digest, Progress, ProgressSink};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::report::note;

/// Returns a sink that draws bars on standard error if that is a terminal and `quiet` is not set, and always prints notices.
pub(crate) fn progress(quiet: bool) -> Arc<dyn ProgressSink> {
    if quiet || !rustix::termios::isatty(rustix::stdio::stderr()) {
        return Arc::new(notices);
    }
    Arc::new(TerminalProgress { bars: MultiProgress::new(), lines: Mutex::default() })
}

fn notices(progress: Progress) {
    if let Progress::Notice { message } = progress {
        note(&format!("boxlite: warning: {message}"));
    }
}

struct TerminalProgress {
    bars: MultiProgress,
    lines: Mutex<BarSet>,
}

#[derive(Default)]
struct BarSet {
    layers: HashMap<Digest, ProgressBar>,
    building: Option<ProgressBar>,
}

impl Drop for TerminalProgress {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = self.bars.clear();
    }
}

impl ProgressSink for TerminalProgress {
    fn report(&self, progress: Progress) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Resolved { layers, .. } => {
                for (layer, bytes) in layers {
                    let bar = self.bars.add(waiting(bytes)).with_message("waits").with_prefix(short(&layer));
                    bar.tick();
                    lines.layers.insert(layer, bar);
                }
            }
            Progress::Waiting { layer } => {
                if let Some(bar) = lines.layers.get(&layer) {
                    bar.set_message("another pull fetches it");
                }
            }
            Progress::Transferring { layer, done, total } => {
                if let Some(bar) = lines.layers.get(&layer) {
                    if !bar.message().is_empty() {
                        bar.set_style(style(BAR));
                        bar.set_message("");
                        // What it waited does not count for its speed.
                        bar.reset_elapsed();
                    }
                    bar.set_length(total);
                    bar.set_position(done);
                }
            }
            Progress::Present { layer } | Progress::Transferred { layer } => {
                if let Some(bar) = lines.layers.remove(&layer) {
                    bar.finish_and_clear();
                }
            }
            Progress::Retrying { why } => {
                self.bars.suspend(|| note(&format!("boxlite: trying again: {why}")));
            }
            Progress::Building { done, total } => {
                let bar = lines
                    .building
                    .get_or_insert_with(|| self.bars.add(transfer(total)).with_prefix("disk image  "));
                bar.set_length(total);
                bar.set_position(done);
            }
            Progress::Built => {
                if let Some(bar) = lines.building.take() {
                    bar.finish_and_clear();
                }
            }
            notice => self.bars.suspend(|| notices(notice)),
        }
    }
}

/// The bar gives way where the terminal is narrow, and each drawing asks for its width anew.
const BAR: &str = "{prefix} {wide_bar} {binary_bytes:>10}/{binary_total_bytes:<10} {binary_bytes_per_sec:>12} {eta:>4} {msg}";

/// A layer that is not fetched yet has neither speed nor end.
const WAITING: &str = "{prefix} {binary_total_bytes:>10} {msg}";

fn transfer(bytes: u64) -> ProgressBar {
    ProgressBar::new(bytes).with_style(style(BAR))
}

fn waiting(bytes: u64) -> ProgressBar {
    ProgressBar::new(bytes).with_style(style(WAITING))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}
