//! The processes of `top`, in the columns of `ps`.

use std::fmt::Write as _;
use std::time::Duration;

use boxlite::{GuestProcess, GuestProcesses};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::TextTable;

/// The columns that the options of `ps` ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessColumns(Vec<ProcessColumn>);

/// One column of `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessColumn {
    Uid,
    User,
    Pid,
    Ppid,
    /// Processor time in percent of the process's life, without a fraction.
    Use,
    PercentCpu,
    PercentMemory,
    Virtual,
    Resident,
    Terminal,
    State,
    /// Time or date of its start.
    Start,
    Elapsed,
    Time,
    Nice,
    Threads,
    Name,
    Command,
}

use ProcessColumn as Column;

/// Columns by the names that `ps -o` knows, and their headings.
const NAMES: [(&[&str], Column, &str); 18] = [
    (&["uid", "euid"], Column::Uid, "UID"),
    (&["user", "euser", "uname"], Column::User, "USER"),
    (&["pid"], Column::Pid, "PID"),
    (&["ppid"], Column::Ppid, "PPID"),
    (&["c"], Column::Use, "C"),
    (&["pcpu", "%cpu"], Column::PercentCpu, "%CPU"),
    (&["pmem", "%mem"], Column::PercentMemory, "%MEM"),
    (&["vsz", "vsize"], Column::Virtual, "VSZ"),
    (&["rss", "rssize", "rsz"], Column::Resident, "RSS"),
    (&["tty", "tname", "tt"], Column::Terminal, "TTY"),
    (&["stat", "state", "s"], Column::State, "STAT"),
    (&["stime", "start", "start_time", "bsdstart"], Column::Start, "STIME"),
    (&["etime"], Column::Elapsed, "ELAPSED"),
    (&["time", "cputime"], Column::Time, "TIME"),
    (&["ni", "nice"], Column::Nice, "NI"),
    (&["nlwp", "thcount"], Column::Threads, "NLWP"),
    (&["comm", "ucmd", "ucomm"], Column::Name, "COMMAND"),
    (&["args", "cmd", "command"], Column::Command, "CMD"),
];

/// Those of `ps -ef`, where `UID` shows the user's name.
const FULL: [Column; 8] = [
    Column::User,
    Column::Pid,
    Column::Ppid,
    Column::Use,
    Column::Start,
    Column::Terminal,
    Column::Time,
    Column::Command,
];

/// Those of `ps aux`.
const BSD: [Column; 11] = [
    Column::User,
    Column::Pid,
    Column::PercentCpu,
    Column::PercentMemory,
    Column::Virtual,
    Column::Resident,
    Column::Terminal,
    Column::State,
    Column::Start,
    Column::Time,
    Column::Command,
];

impl ProcessColumns {
    /// Reads options of `ps`: none, `-ef`, `aux`, `-o COLUMN,…` and their spellings. All processes are listed in any case.
    pub(crate) fn read(options: &[String]) -> Result<Self, String> {
        let mut columns: Option<Vec<Column>> = None;
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let letters = option.trim_start_matches('-');
            let (letters, list) = match letters.split_once('o') {
                _ if option.starts_with("--") => {
                    return Err(format!("`{option}` is not an option of `boxlite top`"));
                }
                Some((before, attached)) if before.bytes().all(|byte| b"aAefluwx".contains(&byte)) => {
                    let list = match attached {
                        "" => options.next().ok_or("-o needs a list of columns, such as pid,user,args")?,
                        attached => attached,
                    };
                    (before, Some(list))
                }
                _ => (letters, None),
            };
            if let Some(other) = letters.chars().find(|letter| !"aAefluwx".contains(*letter)) {
                return Err(format!(
                    "`{option}`: boxlite top knows -ef, aux and -o COLUMNS of ps, and not `{other}`"
                ));
            }
            if let Some(list) = list {
                let chosen = list.split(',').map(column).collect::<Result<Vec<_>, _>>()?;
                columns.get_or_insert_default().extend(chosen);
            } else if letters.contains('u') && columns.is_none() {
                columns = Some(BSD.to_vec());
            }
        }
        Ok(Self(columns.unwrap_or_else(|| FULL.to_vec())))
    }

    /// Returns the processes as a table for a terminal of so many columns, with what was left out below it.
    pub(crate) fn table(&self, list: &GuestProcesses, width: Option<usize>) -> String {
        self.table_in(list, &TimeZone::system(), width)
    }

    fn table_in(&self, list: &GuestProcesses, zone: &TimeZone, width: Option<usize>) -> String {
        let is_full = self.0 == FULL;
        let heading = |column: &Column| match column {
            Column::User if is_full => "UID",
            column => {
                NAMES.iter().find(|(_, known, _)| known == column).map_or("", |(_, _, heading)| heading)
            }
        };
        let headings: Vec<&str> = self.0.iter().map(heading).collect();
        let mut table = TextTable::new(&headings);
        for process in &list.processes {
            table.row(self.0.iter().map(|column| cell(*column, process, list, zone)));
        }
        let mut text = table.text_within(width);
        if list.left_out > 0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "and {} more", list.left_out);
        }
        text
    }
}

fn column(name: &str) -> Result<Column, String> {
    // `pid=` would leave the heading out; a table without headings is not worth a mode.
    let name = name.trim_end_matches('=');
    let found = NAMES.iter().find(|(names, _, _)| names.contains(&name)).map(|(_, column, _)| *column);
    found.ok_or_else(|| {
        let known: Vec<&str> = NAMES.iter().map(|(names, _, _)| names[0]).collect();
        format!("`{name}` is none of the columns {}", known.join(", "))
    })
}

fn cell(column: Column, process: &GuestProcess, list: &GuestProcesses, zone: &TimeZone) -> String {
    let life_ms = u64::try_from(list.now.saturating_sub(process.started)).unwrap_or(0).saturating_mul(1000);
    let tenths = |part: u64, whole: u64| part.saturating_mul(1000) / whole.max(1);
    let percent = |tenths: u64| format!("{}.{}", tenths / 10, tenths % 10);
    match column {
        Column::Uid => process.uid.to_string(),
        Column::User => process.user.clone(),
        Column::Pid => process.pid.to_string(),
        Column::Ppid => process.ppid.to_string(),
        Column::Use => (tenths(process.cpu_ms, life_ms) / 10).min(99).to_string(),
        Column::PercentCpu => percent(tenths(process.cpu_ms, life_ms)),
        Column::PercentMemory => percent(tenths(process.resident_bytes, list.memory_total)),
        Column::Virtual => (process.virtual_bytes / 1024).to_string(),
        Column::Resident => (process.resident_bytes / 1024).to_string(),
        Column::Terminal => process.terminal.clone().unwrap_or_else(|| "?".to_owned()),
        Column::State => process.state.to_string(),
        Column::Start => start(process.started, list.now, zone),
        Column::Elapsed => clock(Duration::from_millis(life_ms), false),
        Column::Time => clock(Duration::from_millis(process.cpu_ms), true),
        Column::Nice => process.nice.to_string(),
        Column::Threads => process.threads.to_string(),
        Column::Name => process.name.clone(),
        Column::Command => process.command.clone(),
    }
}

/// Writes the time of a start within the last day, and else its date.
fn start(started: i64, now: i64, zone: &TimeZone) -> String {
    let Ok(moment) = Timestamp::from_second(started) else { return "?".to_owned() };
    let format = if (0..86_400).contains(&now.saturating_sub(started)) { "%H:%M" } else { "%b%d" };
    zone.to_datetime(moment).strftime(format).to_string()
}

/// Writes `[DD-]HH:MM:SS`, and without `hours` only what there is of it.
fn clock(span: Duration, hours: bool) -> String {
    let seconds = span.as_secs();
    let (days, seconds) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (days, hour) {
        (0, 0) if !hours => format!("{minute:02}:{second:02}"),
        (0, _) => format!("{hour:02}:{minute:02}:{second:02}"),
        _ => format!("{days}-{hour:02}:{minute:02}:{second:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> GuestProcesses {
        let process = GuestProcess {
            pid: 12,
            ppid: 1,
            uid: 1000,
            user: "app".into(),
            terminal: None,
            state: 'S',
            started: 1_000_000,
            cpu_ms: 5000,
            virtual_bytes: 8 << 20,
            resident_bytes: 2 << 20,
            threads: 3,
            nice: 0,
            name: "server".into(),
            command: "server --port\u{1b}[31m 80".into(),
        };
        GuestProcesses { processes: vec![process], left_out: 0, now: 1_000_100, memory_total: 200 << 20 }
    }

    fn table(options: &str) -> Vec<String> {
        let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        let text = ProcessColumns::read(&options).unwrap().table_in(&list(), &TimeZone::UTC, None);
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn the_columns_are_those_of_ps() {
        let full =
            ["UID PID PPID C STIME TTY TIME CMD", "app 12 1 5 13:46 ? 00:00:05 server --port\\u{1b}[31m 80"];
        assert_eq!(table(""), full);
        assert_eq!(table("-ef"), full);
        let bsd = table("aux");
        assert_eq!(bsd[0], "USER PID %CPU %MEM VSZ RSS TTY STAT STIME TIME CMD");
        assert!(bsd[1].starts_with("app 12 5.0 1.0 8192 2048 ? S 13:46"), "{}", bsd[1]);
        for options in ["-o pid,comm,nlwp", "-eo pid,comm -o nlwp", "o pid,comm,nlwp", "-opid=,comm=,nlwp="] {
            assert_eq!(table(options), ["PID COMMAND NLWP", "12 server 3"], "{options}");
        }
        assert_eq!(table("-o etime,uid,ni,time"), ["ELAPSED UID NI TIME", "01:40 1000 0 00:00:05"]);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let refused = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
            ProcessColumns::read(&options).unwrap_err()
        };
        assert!(refused(&["-o", "pid,colour"]).contains("`colour` is none of the columns uid"));
        assert!(refused(&["-o"]).contains("needs a list"));
        assert!(refused(&["-Z"]).contains("`Z`"));
        assert!(refused(&["--forest"]).contains("--forest"));
    }

    #[test]
    fn long_lives_have_days_and_long_lists_an_end() {
        assert_eq!(clock(Duration::from_secs(90_061), true), "1-01:01:01");
        assert_eq!(start(0, 86_400, &TimeZone::UTC), "Jan01");
        let long = GuestProcesses { left_out: 3, ..list() };
        assert!(ProcessColumns::read(&[]).unwrap().table(&long, None).ends_with("and 3 more\n"));
    }
}
