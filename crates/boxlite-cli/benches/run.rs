//! `boxlite run IMAGE true`, restored from a template and booted, beside a bare QEMU that boots the same kernel to a
//! trivial init, and what lies between.
//!
//! Run it with `scripts/bench run` (it needs the assets and a test image). Both sides alternate in one process, so that
//! a noisy machine treats them alike; medians and their ratio are what counts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use boxlite_testkit::assets::Assets;
use boxlite_vm::guest::{BootFiles, BootSources, GuestDevices, boot_files};
use boxlite_vm::shim::Accelerator;

/// Prints a word on the serial line and switches the machine off.
const TRIVIAL_INIT: &str = r#"
#include <fcntl.h>
#include <sys/reboot.h>
#include <unistd.h>
int main(void) {
    int console = open("/dev/ttyS0", O_WRONLY);
    write(console, "up\n", 3);
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
"#;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Bench {
    directory: tempfile::TempDir,
    boxlite: PathBuf,
    image: String,
    boot: BootFiles,
    trivial: PathBuf,
    accelerator: Accelerator,
}

fn main() -> Outcome<()> {
    let rounds = std::env::var("BOXLITE_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let bench = Bench::prepare()?;
    let run_true = ["run", "--rm", "--network", "none", &bench.image, "true"];
    // The second of these keeps the template that later ones are restored from.
    for _ in 0..2 {
        bench.boxlite(&run_true)?;
    }

    let (mut bare, mut booted, mut run, mut exec) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare.push(timed(|| bench.bare_boot())?);
        booted.push(timed(|| finish(bench.command(&run_true).env("BOXLITE_TEMPLATES", "off")))?);
        run.push(timed(|| bench.boxlite(&run_true))?);
    }
    bench.boxlite(&["run", "-d", "--name", "bench", &bench.image, "sleep", "1000"])?;
    for _ in 0..rounds {
        exec.push(timed(|| bench.boxlite(&["exec", "bench", "true"]))?);
    }
    bench.boxlite(&["rm", "-f", "bench"])?;

    let [bare, booted, run, exec] = [bare, booted, run, exec].map(median);
    let over_bare = |time: Duration| time.as_secs_f64() / bare.as_secs_f64();
    println!("rounds                                  {rounds}");
    println!("bare QEMU to a trivial init, median     {bare:>10.2?}");
    println!("boxlite run IMAGE true, median          {run:>10.2?}");
    println!("ratio (goal: at most 1.15)              {:>10.2}", over_bare(run));
    println!("the same booted, without a template     {booted:>10.2?}");
    println!("ratio                                   {:>10.2}", over_bare(booted));
    println!("boxlite exec BOX true, median           {exec:>10.1?}");
    bench.listing()
}

impl Bench {
    fn prepare() -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let assets = Assets::locate();
        let image = assets.reference("mini");
        let home = boxlite_home::Home::open(&directory.path().join("home"))?;
        let sources = BootSources { kernel_dir: assets.kernel(), agent: assets.agent() };
        let devices = GuestDevices { network: false, shares: false, pci: false };
        let boot = boot_files(&sources, devices, &home.vm(), &home.tmp())?;
        let trivial = trivial_initramfs(directory.path())?;
        let qemu = Path::new("/usr/bin/qemu-system-x86_64");
        let accelerator = boxlite_vm::shim::accel::choose(&home, qemu, boxlite::Accel::Auto)?.accelerator;
        let boxlite = PathBuf::from(env!("CARGO_BIN_EXE_boxlite"));
        Ok(Self { directory, boxlite, image, boot, trivial, accelerator })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.boxlite);
        command.args(arguments).env("BOXLITE_HOME", self.directory.path().join("home")).stdin(Stdio::null());
        command.env("BOXLITE_ASSETS", Assets::locate().directory());
        command
    }

    fn boxlite(&self, arguments: &[&str]) -> Outcome<()> {
        finish(&mut self.command(arguments))
    }

    fn bare_boot(&self) -> Outcome<()> {
        let (acceleration, clock) = match self.accelerator {
            Accelerator::Kvm => (["kvm", "host"], String::new()),
            Accelerator::Tcg { tsc_khz } => (["tcg", "max"], format!("tsc_early_khz={tsc_khz}")),
        };
        let append = format!(
            "panic=-1 quiet loglevel=1 earlycon=uart8250,io,0x3f8 console=ttyS0 cryptomgr.notests init_on_alloc=0 {clock}"
        );
        let output = Command::new("qemu-system-x86_64")
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
                "-m",
                "256",
                "-smp",
                "1",
            ])
            .args(["-accel", acceleration[0], "-cpu", acceleration[1]])
            .args([
                "-machine",
                "microvm,acpi=on,rtc=on,isa-serial=on",
                "-bios",
                "qboot.rom",
                "-serial",
                "stdio",
            ])
            .arg("-kernel")
            .arg(&self.boot.kernel)
            .arg("-initrd")
            .arg(&self.trivial)
            .args(["-append", &append])
            .stdin(Stdio::null())
            .output()?;
        if !output.stdout.windows(2).any(|word| word == b"up") {
            return Err(format!("the bare boot failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(())
    }

    /// `ls` over a thousand boxes.
    fn listing(&self) -> Outcome<()> {
        for _ in 0..1000 {
            self.boxlite(&["create", "--pull", "never", &self.image, "true"])?;
        }
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(timed(|| self.boxlite(&["ls", "-a"]))?);
        }
        println!("boxlite ls -a with 1000 boxes, median   {:>10.1?}   (goal: below 50 ms)", median(times));
        Ok(())
    }
}

fn trivial_initramfs(directory: &Path) -> Outcome<PathBuf> {
    let (source, root) = (directory.join("init.c"), directory.join("root"));
    std::fs::create_dir_all(root.join("dev"))?;
    std::fs::write(&source, TRIVIAL_INIT)?;
    let init = root.join("init");
    let compiled = Command::new("gcc").args(["-static", "-Os", "-o"]).arg(&init).arg(&source).status()?;
    let initramfs = directory.join("trivial.cpio");
    let script = "mknod dev/console c 5 1; mknod dev/ttyS0 c 4 64; find . | cpio --quiet -o -H newc > \"$0\"";
    let packed = Command::new("sh").args(["-c", script]).arg(&initramfs).current_dir(&root).status()?;
    if compiled.success() && packed.success() {
        return Ok(initramfs);
    }
    Err("the trivial init could not be built: gcc, cpio and root are needed".into())
}

fn finish(command: &mut Command) -> Outcome<()> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}

fn timed<T>(mut work: impl FnMut() -> Outcome<T>) -> Outcome<Duration> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
